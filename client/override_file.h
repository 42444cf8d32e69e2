// The operator's override (R17): values that are served in the place of the store's, from a local
// file, with everything else down. `DIR/STEM.override.json`; `holdfastctl cache override` writes
// it.
//
//   {"note": "INC-4711: edge-7 off",
//    "put": {"/config/edge/limit": "100"},
//    "put_base64": {"/config/edge/key": "AAECAw=="},
//    "delete": ["/config/edge/7"]}
//
// All members may be missing; no other may be there. Keys are text and begin with the prefix, none
// twice. The file belongs to this process's user or root and is not writable by everyone.
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "holdfast/entry.h"

namespace holdfast::internal {

inline constexpr size_t kOverrideBytesMax = size_t{4} << 20;

struct Override {
  bool present = false;
  std::vector<Entry> put;            // by key; key and value alone
  std::vector<std::string> deleted;  // by key
  std::string note;                  // the operator's own words
};

std::string OverridePath(const std::string& dir, std::string_view prefix);

// InvalidArgument: the line, what is wrong there and what to do.
absl::StatusOr<Override> ParseOverride(std::string_view text, std::string_view prefix);
// Keys that are not UTF-8 cannot be named in JSON: InvalidArgument.
absl::StatusOr<std::string> FormatOverride(const Override& content);

// As it is now; not present: there is none. FailedPrecondition: not ours to trust.
absl::StatusOr<Override> ReadOverride(const std::string& path, std::string_view prefix);

// Reads the file when it changed.
class OverrideFile {
 public:
  OverrideFile(std::string path, std::string prefix)
      : path_(std::move(path)), prefix_(std::move(prefix)) {}

  // nullopt: as before (at first: none). Not OK: it cannot be used, and what was told last stays in
  // force; the same trouble is told once.
  absl::StatusOr<std::optional<Override>> Poll();

 private:
  // What tells one state of a file from another without reading it.
  struct Mark {
    bool there = false;
    int64_t device = 0;
    int64_t inode = 0;
    int64_t size = 0;
    int64_t modified_ns = 0;
    int64_t changed_ns = 0;
    friend bool operator==(const Mark&, const Mark&) = default;
  };
  absl::StatusOr<std::optional<Override>> Trouble(absl::Status status);

  const std::string path_;
  const std::string prefix_;
  Mark seen_;
  // It was read so soon after it was written that another write may have left the same marks.
  bool look_again_ = false;
  std::optional<std::string> in_force_;  // the text
  std::string told_;                     // the trouble told last
};

}  // namespace holdfast::internal
