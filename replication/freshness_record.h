// Freshness F4: a claim that survives the restart of a process, within one boot of the kernel.
//
// The record is rewritten about once a second, without fsync: losing it only makes the age unknown.
// It names the kernel's boot and time namespace; in any other, it is worthless and not returned.
// Threads: one at a time.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "replication/freshness.h"

namespace holdfast::raft {

// Where a member keeps its record. Implemented by FreshnessFile, and by the simulator.
class FreshnessRecord {
 public:
  virtual ~FreshnessRecord() = default;
  // Maintenance thread. REQUIRES: the log is durable up to claim.index.
  virtual absl::Status Write(const Claim& claim) = 0;
  // At start. nullopt: no record, a damaged one, or one of another boot.
  virtual std::optional<Claim> Read() = 0;
};

// Replaces the file at `path` atomically. REQUIRES: the log is durable up to claim.index.
absl::Status WriteFreshnessRecord(const std::string& path, const Claim& claim);

// nullopt: no record, a damaged one, or one of another boot.
std::optional<Claim> ReadFreshnessRecord(const std::string& path);

class FreshnessFile : public FreshnessRecord {
 public:
  explicit FreshnessFile(std::string path) : path_(std::move(path)) {}
  absl::Status Write(const Claim& claim) override { return WriteFreshnessRecord(path_, claim); }
  std::optional<Claim> Read() override { return ReadFreshnessRecord(path_); }

 private:
  const std::string path_;
};

}  // namespace holdfast::raft
