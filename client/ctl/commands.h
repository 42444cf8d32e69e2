// holdfastctl's commands on keys. Each prints to the streams it is given and returns the exit code.
#pragma once

#include <cstdint>
#include <istream>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/ctl/exit_code.h"
#include "holdfast/client.h"

namespace holdfast::ctl {

struct Io {
  std::istream& in;
  std::ostream& out;  // results only
  std::ostream& err;  // everything else
};

struct Common {
  std::vector<std::string> endpoints;
  bool json = false;
  absl::Duration timeout = absl::Seconds(5);
};

struct GetArgs {
  std::string key = {};
  bool prefix = false;
  std::string range_end = {};
  ReadOptions consistency = {};
  uint64_t revision = 0;
  int64_t limit = 0;  // 0: all
  bool keys_only = false;
  bool count_only = false;
  bool print_value_only = false;
  bool freshness = false;
};

// "linearizable", "stale", "bounded=5s", "stale-if-down" (linearizable, else stale).
absl::StatusOr<ReadOptions> ParseConsistency(std::string_view text);

ExitCode Get(const Common& common, const GetArgs& args, Io io);
// nullopt: the value is read from io.in, to its end.
ExitCode Put(const Common& common, const std::string& key, std::optional<std::string> value, Io io);
ExitCode Delete(const Common& common, const std::string& key, bool prefix, Io io);
ExitCode RunTxn(const Common& common, Io io);  // the script is read from io.in
ExitCode Status(const Common& common, Io io);
ExitCode ListMembers(const Common& common, Io io);

}  // namespace holdfast::ctl
