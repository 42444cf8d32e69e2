// The end of a process whose disk or logic broke its promise.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"

namespace holdfast::server {

// What to tell the operator, the way out included.
std::string FatalText(const absl::Status& error);

// Logs FatalText and ends the process at once, with exit code 1: after a failed fsync the kernel
// may have dropped what was written, so nothing here may go on as if it had been kept. No
// destructors run: they would flush.
[[noreturn]] void DieOf(const absl::Status& error);

// DieOf for the member in `data_dir`. If the error carries a storage::Damage, the marker
// (server/repair.h) is left there first, so that no later start can overlook it.
std::function<void(const absl::Status&)> DieIn(std::string data_dir);

}  // namespace holdfast::server
