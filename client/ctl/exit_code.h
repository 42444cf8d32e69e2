// What holdfastctl tells the script that called it.
#pragma once

#include "absl/status/status.h"

namespace holdfast::ctl {

enum ExitCode {
  kOk = 0,
  kNotFound = 1,        // get: no such key; txn: the compares did not hold
  kUsage = 2,           // nothing was sent
  kUnavailable = 3,     // no quorum, nobody reachable, too old for the bound; a write had no effect
  kMaybeCommitted = 4,  // a write was sent and its outcome is unknown
  kRefused = 5,         // the server said no, or anything else
};

// Of a call that failed.
ExitCode ExitCodeOf(const absl::Status& status);

}  // namespace holdfast::ctl
