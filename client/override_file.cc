#include "client/override_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "base/strings.h"
#include "client/cache_directory.h"
#include "client/disk_file.h"

namespace holdfast::internal {
namespace {

using nlohmann::ordered_json;

// Kernel time stamps are that coarse at worst (a network file system's may be a second).
constexpr int64_t kStampNs = 2'000'000'000;

absl::Status Bad(std::string_view what) { return absl::InvalidArgumentError(base::ToAbsl(what)); }

// Where a text stands, for an error: "line 3: ", or nothing.
std::string LineOf(std::string_view text, size_t at) {
  if (at == std::string_view::npos) return "";
  const auto newlines = std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n');
  return fmt::format("line {}: ", newlines + 1);
}

std::string LineOfWord(std::string_view text, const std::string& word) {
  // As it is written in the file, as far as that can be known.
  return LineOf(text, text.find(ordered_json(word).dump()));
}

// The parser keeps the last of two members of one name, silently; an operator in a hurry has to be
// told.
class Duplicates {
 public:
  bool Seen(ordered_json::parse_event_t event, const ordered_json& parsed) {
    using Event = ordered_json::parse_event_t;
    if (event == Event::object_start) {
      names_.emplace_back();
    } else if (event == Event::object_end) {
      names_.pop_back();
    } else if (event == Event::key && !names_.empty()) {
      const std::string& name = parsed.get_ref<const std::string&>();
      if (!names_.back().insert(name).second && !first_.has_value()) first_ = name;
    }
    return true;
  }
  const std::optional<std::string>& first() const { return first_; }

 private:
  std::vector<std::set<std::string>> names_;
  std::optional<std::string> first_;
};

class Parser {
 public:
  Parser(std::string_view text, std::string_view prefix) : text_(text), prefix_(prefix) {}

  absl::StatusOr<Override> Parse() {
    ordered_json root;
    Duplicates duplicates;
    try {
      root = ordered_json::parse(text_,
                                 [&](int, ordered_json::parse_event_t event, ordered_json& parsed) {
                                   return duplicates.Seen(event, parsed);
                                 });
    } catch (const ordered_json::parse_error& error) {
      const size_t at = std::min(error.byte > 0 ? error.byte - 1 : 0, text_.size());
      return Bad(
          fmt::format("{}it is not JSON ({}); correct it, or write it with `holdfastctl "
                      "cache override`",
                      LineOf(text_, at), error.what()));
    }
    if (duplicates.first().has_value()) {
      return Bad(fmt::format("{}{} is there twice; remove one",
                             LineOf(text_, text_.rfind(ordered_json(*duplicates.first()).dump())),
                             base::Printable(*duplicates.first())));
    }
    if (!root.is_object()) return Bad("line 1: it has to be one JSON object: {...}");
    for (const auto& [name, value] : root.items()) {
      if (absl::Status status = Member(name, value); !status.ok()) return status;
    }
    std::sort(result_.put.begin(), result_.put.end(),
              [](const Entry& a, const Entry& b) { return a.key < b.key; });
    std::sort(result_.deleted.begin(), result_.deleted.end());
    result_.present = true;
    return std::move(result_);
  }

 private:
  absl::Status Member(const std::string& name, const ordered_json& value) {
    if (name == "note") {
      if (!value.is_string()) return Wrong(name, "a text");
      result_.note = value.get<std::string>();
      return absl::OkStatus();
    }
    if (name == "put" || name == "put_base64") return Puts(name, value);
    if (name == "delete") return Deletes(value);
    return Bad(fmt::format("{}unknown member {}; known are note, put, put_base64 and delete",
                           LineOfWord(text_, name), base::Printable(name)));
  }

  absl::Status Puts(const std::string& member, const ordered_json& value) {
    if (!value.is_object()) return Wrong(member, "an object of keys and values");
    for (const auto& [key, one] : value.items()) {
      if (absl::Status status = TakeKey(key); !status.ok()) return status;
      if (!one.is_string()) {
        return Bad(fmt::format("{}the value of {} has to be a text; put other JSON into quotes",
                               LineOfWord(text_, key), base::Printable(key)));
      }
      Entry entry{.key = key, .value = one.get<std::string>()};
      if (member == "put_base64") {
        std::string bytes;
        if (!absl::Base64Unescape(entry.value, &bytes)) {
          return Bad(
              fmt::format("{}the value of {} is not base64; values in plain text go under "
                          "\"put\"",
                          LineOfWord(text_, key), base::Printable(key)));
        }
        entry.value = std::move(bytes);
      }
      result_.put.push_back(std::move(entry));
    }
    return absl::OkStatus();
  }

  absl::Status Deletes(const ordered_json& value) {
    if (!value.is_array()) return Wrong("delete", "a list of keys");
    for (const ordered_json& key : value) {
      if (!key.is_string()) return Wrong("delete", "a list of keys in quotes");
      if (absl::Status status = TakeKey(key.get<std::string>()); !status.ok()) return status;
      result_.deleted.push_back(key.get<std::string>());
    }
    return absl::OkStatus();
  }

  absl::Status TakeKey(const std::string& key) {
    if (!key.starts_with(prefix_)) {
      return Bad(
          fmt::format("{}the key {} does not begin with this file's prefix {}; move it to "
                      "the file of its own prefix",
                      LineOfWord(text_, key), base::Printable(key), base::Printable(prefix_)));
    }
    if (!keys_.insert(key).second) {
      return Bad(fmt::format("{}the key {} is there twice; remove one", LineOfWord(text_, key),
                             base::Printable(key)));
    }
    return absl::OkStatus();
  }

  absl::Status Wrong(const std::string& member, std::string_view what) const {
    return Bad(fmt::format("{}\"{}\" has to be {}", LineOfWord(text_, member), member, what));
  }

  const std::string_view text_;
  const std::string_view prefix_;
  std::set<std::string> keys_;
  Override result_;
};

absl::Status Trusted(const struct stat& info, const std::string& path) {
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(
        base::ToAbsl(fmt::format("the override {} is not a plain file", path)));
  }
  if (info.st_uid != geteuid() && info.st_uid != 0) {
    return absl::FailedPreconditionError(base::ToAbsl(
        fmt::format("the override {} is not used: it belongs to user {}, neither this process's "
                    "({}) nor root; chown it",
                    path, info.st_uid, geteuid())));
  }
  if ((info.st_mode & S_IWOTH) != 0) {
    return absl::FailedPreconditionError(base::ToAbsl(
        fmt::format("the override {} is not used: everybody may write it; chmod o-w", path)));
  }
  return absl::OkStatus();
}

absl::Status WithPath(const absl::Status& status, const std::string& path) {
  return absl::Status(status.code(), base::ToAbsl(fmt::format("the override {} is not used: {}",
                                                              path, base::Message(status))));
}

// nullopt: it is not there.
absl::StatusOr<std::optional<std::string>> ReadTrusted(const std::string& path) {
  const auto fd = OpenFile(path, O_RDONLY | O_NONBLOCK);
  if (absl::IsNotFound(fd.status())) return std::nullopt;
  if (!fd.ok()) return fd.status();
  struct stat info;
  if (fstat(fd->get(), &info) != 0) return DiskError("examine", path, errno);
  if (absl::Status status = Trusted(info, path); !status.ok()) return status;
  auto text = ReadFd(fd->get(), path, kOverrideBytesMax);
  if (!text.ok()) return text.status();
  return *std::move(text);
}

int64_t Ns(const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }

}  // namespace

std::string OverridePath(const std::string& dir, std::string_view prefix) {
  return fmt::format("{}/{}.override.json", dir, CacheStem(prefix));
}

absl::StatusOr<Override> ParseOverride(std::string_view text, std::string_view prefix) {
  return Parser(text, prefix).Parse();
}

absl::StatusOr<std::string> FormatOverride(const Override& content) {
  const auto is_text = [](const std::string& bytes) {
    try {
      (void)ordered_json(bytes).dump();
      return true;
    } catch (const ordered_json::type_error&) {
      return false;
    }
  };
  ordered_json root = {{"note", content.note}};
  if (!is_text(content.note)) return Bad("the note is not UTF-8 text");
  const auto key_error = [](const std::string& key) {
    return Bad(fmt::format("the key {} is not UTF-8 text, and an override can name no other",
                           base::Printable(key)));
  };
  for (const Entry& entry : content.put) {
    if (!is_text(entry.key)) return key_error(entry.key);
    if (is_text(entry.value)) {
      root["put"][entry.key] = entry.value;
    } else {
      root["put_base64"][entry.key] = absl::Base64Escape(entry.value);
    }
  }
  for (const std::string& key : content.deleted) {
    if (!is_text(key)) return key_error(key);
    root["delete"].push_back(key);
  }
  return root.dump(2) + "\n";
}

absl::StatusOr<Override> ReadOverride(const std::string& path, std::string_view prefix) {
  const auto text = ReadTrusted(path);
  if (!text.ok()) return text.status();
  if (!text->has_value()) return Override{};
  auto parsed = ParseOverride(**text, prefix);
  if (!parsed.ok()) return WithPath(parsed.status(), path);
  return parsed;
}

absl::StatusOr<std::optional<Override>> OverrideFile::Trouble(absl::Status status) {
  if (told_ == base::Message(status)) return std::nullopt;
  told_ = base::Message(status);
  return status;
}

absl::StatusOr<std::optional<Override>> OverrideFile::Poll() {
  struct stat info;
  Mark mark;
  if (stat(path_.c_str(), &info) == 0) {
    mark = {.there = true,
            .device = static_cast<int64_t>(info.st_dev),
            .inode = static_cast<int64_t>(info.st_ino),
            .size = info.st_size,
            .modified_ns = Ns(info.st_mtim),
            .changed_ns = Ns(info.st_ctim)};
  } else if (errno != ENOENT) {
    // A directory that cannot be looked into says nothing about the file.
    return Trouble(DiskError("examine", path_, errno));
  }
  if (mark == seen_ && !look_again_) return std::nullopt;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  auto text = ReadTrusted(path_);
  if (!text.ok() && absl::IsInternal(text.status())) return Trouble(text.status());  // read again
  seen_ = mark;
  look_again_ = mark.there && Ns(now) - std::max(mark.modified_ns, mark.changed_ns) < kStampNs;
  if (!text.ok()) return Trouble(text.status());
  if (!text->has_value()) {
    told_.clear();
    if (!in_force_.has_value()) return std::nullopt;
    in_force_.reset();
    return Override{};
  }
  if (**text == in_force_) {
    told_.clear();
    return std::nullopt;
  }
  auto parsed = ParseOverride(**text, prefix_);
  if (!parsed.ok()) return Trouble(WithPath(parsed.status(), path_));
  told_.clear();
  in_force_ = *std::move(*text);
  return *std::move(parsed);
}

}  // namespace holdfast::internal
