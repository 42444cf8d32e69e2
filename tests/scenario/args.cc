#include "args.h"

#include <fmt/format.h>

#include <charconv>

namespace holdfast::raft::test {
namespace {

constexpr uint64_t kMaxId = 99;

}  // namespace

Args::Args(const Command& command) {
  for (const std::string& word : command.words) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
      words_.push_back(word);
    } else if (!named_.emplace(word.substr(0, equals), word.substr(equals + 1)).second) {
      Fail(fmt::format("{}= stands there twice", word.substr(0, equals)));
    }
  }
}

void Args::Fail(std::string text) {
  if (error_.empty()) error_ = std::move(text);
}

std::string Args::Word(std::string_view what) {
  if (words_.empty()) {
    Fail(fmt::format("{} is missing", what));
    return {};
  }
  std::string word = std::move(words_.front());
  words_.pop_front();
  return word;
}

uint64_t Args::ToNumber(std::string_view what, std::string_view word, uint64_t max) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (word.empty() || error != std::errc() || end != word.data() + word.size() || value > max) {
    Fail(fmt::format("{} must be a number up to {}, not '{}'", what, max, word));
    return 0;
  }
  return value;
}

uint64_t Args::Number(std::string_view what, uint64_t max) {
  const std::string word = Word(what);
  return error_.empty() ? ToNumber(what, word, max) : 0;
}

uint64_t Args::NumberOr(std::string_view what, uint64_t max, uint64_t otherwise) {
  return more() ? Number(what, max) : otherwise;
}

std::vector<std::string> Args::Rest(std::string_view what) {
  std::vector<std::string> rest = {Word(what)};
  while (more()) rest.push_back(Word(what));
  return rest;
}

std::vector<uint64_t> Args::ToIds(std::string_view what, std::string_view word) {
  std::vector<uint64_t> ids;
  while (error_.empty()) {
    const size_t comma = word.find(',');
    ids.push_back(ToNumber(what, word.substr(0, comma), kMaxId));
    if (comma == std::string_view::npos) break;
    word.remove_prefix(comma + 1);
  }
  return ids;
}

IdList Args::Ids(std::string_view what) {
  const std::string word = Word(what);
  if (!error_.empty()) return {};
  if (word == "all") return {true, {}};
  return {false, ToIds(what, word)};
}

IdList Args::IdsOrAll(std::string_view what) { return more() ? Ids(what) : IdList{true, {}}; }

Link Args::TakeLink(std::string_view what) {
  const std::string word = Word(what);
  if (!error_.empty() || word == "all") return {};
  const size_t arrow = word.find("->");
  if (arrow == std::string::npos) {
    Fail(fmt::format("{} must be like 1->2, 1->, ->2 or all, not '{}'", what, word));
    return {};
  }
  const std::string from = word.substr(0, arrow), to = word.substr(arrow + 2);
  Link link;
  if (!from.empty()) link.from = ToNumber(what, from, kMaxId);
  if (!to.empty()) link.to = ToNumber(what, to, kMaxId);
  return link;
}

std::optional<std::string> Args::Named(std::string_view name) {
  const auto it = named_.find(name);
  if (it == named_.end()) return std::nullopt;
  std::string value = std::move(it->second);
  named_.erase(it);
  return value;
}

uint64_t Args::NamedNumber(std::string_view name, uint64_t max, uint64_t otherwise) {
  const auto value = Named(name);
  return value ? ToNumber(name, *value, max) : otherwise;
}

std::vector<uint64_t> Args::NamedIds(std::string_view name) {
  const auto value = Named(name);
  return value && !value->empty() ? ToIds(name, *value) : std::vector<uint64_t>();
}

absl::Status Args::Done() const {
  if (!error_.empty()) return absl::InvalidArgumentError(error_);
  if (!words_.empty()) {
    return absl::InvalidArgumentError(fmt::format("'{}' is too much", words_.front()));
  }
  if (!named_.empty()) {
    return absl::InvalidArgumentError(fmt::format("{}= is not known here", named_.begin()->first));
  }
  return absl::OkStatus();
}

}  // namespace holdfast::raft::test
