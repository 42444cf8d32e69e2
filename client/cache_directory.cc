#include "client/cache_directory.h"

#include <dirent.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <memory>
#include <optional>
#include <tuple>

#include <fmt/format.h>

#include "base/record_digest.h"
#include "client/disk_file.h"

namespace holdfast::internal {
namespace {

constexpr size_t kReadableBytes = 40;
// Numbers beyond are nobody's: there must be room for the next one.
constexpr uint64_t kNumberMax = uint64_t{1} << 62;

bool Readable(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}

std::optional<GenerationName> ParseGeneration(std::string_view stem, std::string_view rest) {
  GenerationName name{.stem = std::string(stem)};
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), name.number);
  if (error != std::errc() || name.number == 0 || name.number > kNumberMax) return std::nullopt;
  name.good = rest.ends_with(".good");
  // Only the one way to write it: two names of one number would be two generations.
  if (FileNameOf(name) != fmt::format("{}.{}", stem, rest)) return std::nullopt;
  return name;
}

}  // namespace

std::string CacheStem(std::string_view prefix) {
  std::string readable;
  for (const char c : prefix) {
    if (readable.size() == kReadableBytes) break;
    if (Readable(c)) {
      readable.push_back(c);
    } else if (!readable.empty() && readable.back() != '_') {
      readable.push_back('_');
    }
  }
  while (!readable.empty() && readable.back() == '_') readable.pop_back();
  if (readable.empty()) readable = "all";
  return fmt::format("{}-{:016x}", readable, base::DigestOfContent(prefix, "").high);
}

std::string FileNameOf(const GenerationName& name) {
  return fmt::format("{}.{:012}.{}", name.stem, name.number, name.good ? "good" : "unproven");
}

absl::StatusOr<CacheFiles> ListCacheFiles(const std::string& dir, std::string_view stem) {
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(dir.c_str()), closedir);
  if (listing == nullptr) return DiskError("read directory", dir, errno);
  CacheFiles files;
  for (;;) {
    errno = 0;
    const dirent* item = readdir(listing.get());
    if (item == nullptr && errno != 0) return DiskError("read directory", dir, errno);
    if (item == nullptr) break;
    const std::string_view name = item->d_name;
    const size_t dot = name.find('.');
    if (dot == 0 || dot == std::string_view::npos) continue;
    if (!stem.empty() && name.substr(0, dot) != stem) continue;
    const std::string_view rest = name.substr(dot + 1);
    if (rest.starts_with("trial-")) {
      files.trials.emplace_back(name);
    } else if (rest.starts_with("begin-")) {
      files.beginnings.emplace_back(name);
    } else if (auto generation = ParseGeneration(name.substr(0, dot), rest)) {
      files.generations.push_back(*std::move(generation));
    }
  }
  std::sort(files.generations.begin(), files.generations.end(), [](const auto& a, const auto& b) {
    return std::tie(a.stem, b.number, b.good) < std::tie(b.stem, a.number, a.good);
  });
  return files;
}

}  // namespace holdfast::internal
