// Where a Config comes from: flags over environment over file over defaults.
//
// One table of flags serves all three: the environment variable of --some-flag is
// HOLDFAST_SOME_FLAG, the file's key is some-flag. One parser reads a value wherever it came from,
// and its error says where that was.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/config.h"

namespace holdfast::server {

struct CommandLine {
  Config config;  // complete and valid, unless there is something to print
  // To be logged: etcd's flags that mean nothing here.
  std::vector<std::string> warnings;
  // Not empty (--help, --version): print it and leave.
  std::string print;
};

// `args` without the program's name; `environment` as KEY=VALUE.
// InvalidArgument: a text for the user; nothing was started.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& args,
                                             const std::vector<std::string>& environment);

// The names of all flags that have a value, for the documentation test.
std::vector<std::string_view> FlagNames();

}  // namespace holdfast::server
