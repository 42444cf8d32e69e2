// The TOML configuration file: keys are the names of the flags.
//
//   name = "a"
//   listen-client-urls = ["http://10.0.0.1:2379"]    # or one string, comma-separated
//   heartbeat-interval = 100
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace holdfast::server {

inline constexpr size_t kConfigFileBytesMax = size_t{1} << 20;

// A value in the form a flag would have, and where it stands.
struct FileSetting {
  std::string key;
  std::string value;
  int line = 0;
};

// In the order of their lines. Keys are not checked here. InvalidArgument: unreadable, not TOML, or
// a value that no flag can have (a table, a date, a fraction).
absl::StatusOr<std::vector<FileSetting>> ReadConfigFile(const std::string& path);

}  // namespace holdfast::server
