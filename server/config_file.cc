#include "server/config_file.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>

namespace holdfast::server {
namespace {

std::optional<std::string> Scalar(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return fmt::format("{}", number->get());
  if (const auto* truth = node.as_boolean()) return truth->get() ? "true" : "false";
  return std::nullopt;
}

// A list becomes what the flag takes: comma-separated.
std::optional<std::string> FlagForm(const toml::node& node) {
  const auto* list = node.as_array();
  if (list == nullptr) return Scalar(node);
  std::vector<std::string> items;
  for (const toml::node& item : *list) {
    std::optional<std::string> text = Scalar(item);
    if (!text.has_value()) return std::nullopt;
    items.push_back(*std::move(text));
  }
  return fmt::format("{}", fmt::join(items, ","));
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::string text(kConfigFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || !file.is_open() || (file.fail() && !file.eof())) {
    return absl::InvalidArgumentError(
        fmt::format("cannot read the configuration file {}: {}", path, std::strerror(errno)));
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kConfigFileBytesMax) {
    return absl::InvalidArgumentError(
        fmt::format("the configuration file {} is larger than {} bytes: is it the right one?", path,
                    kConfigFileBytesMax));
  }
  return text;
}

}  // namespace

absl::StatusOr<std::vector<FileSetting>> ReadConfigFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadText(path);
  if (!text.ok()) return text.status();
  toml::table table;
  try {
    table = toml::parse(std::string_view(*text), std::string_view(path));
  } catch (const toml::parse_error& error) {  // the library's way to say it
    return absl::InvalidArgumentError(fmt::format("{} line {} is not TOML: {}", path,
                                                  error.source().begin.line, error.description()));
  }
  std::vector<FileSetting> settings;
  for (const auto& [key, node] : table) {
    const int line = static_cast<int>(node.source().begin.line);
    std::optional<std::string> value = FlagForm(node);
    if (!value.has_value()) {
      return absl::InvalidArgumentError(fmt::format(
          "{} line {}: '{}' must be a string, a whole number, true or false, or a list of strings; "
          "there are no tables",
          path, line, key.str()));
    }
    settings.push_back({.key = std::string(key.str()), .value = *std::move(value), .line = line});
  }
  std::ranges::sort(settings, {}, &FileSetting::line);
  return settings;
}

}  // namespace holdfast::server
