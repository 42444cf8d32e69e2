// Freshness F4: a claim that survives the restart of a process, within one boot of the kernel.
//
// The record is rewritten about once a second, without fsync: losing it only makes the age unknown.
// It names the kernel's boot and time namespace; in any other, it is worthless and not returned.
// Threads: one at a time.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "replication/freshness.h"

namespace holdfast::raft {

// Replaces the file at `path` atomically. REQUIRES: the log is durable up to claim.index.
absl::Status WriteFreshnessRecord(const std::string& path, const Claim& claim);

// nullopt: no record, a damaged one, or one of another boot.
std::optional<Claim> ReadFreshnessRecord(const std::string& path);

}  // namespace holdfast::raft
