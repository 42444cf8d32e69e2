// What a service wants done with one prefix of the store: what is served while the store cannot be
// reached, and which data is refused.
//
//   {"/config/edge/", Policy::FailStatic().Validate(CheckRoutes)}
//   {"/auth/", Policy::FailClosedAfter(absl::Hours(4)).ReducedAfter(absl::Minutes(5))}
//
// A policy is applied at each read, to the age that the data has at that moment; never by a timer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "holdfast/freshness.h"
#include "holdfast/snapshot.h"

namespace holdfast {

// Says whether a set of records may be served in the place of another: OK, or why not.
// `before` is what is served now (empty at first), `after` the whole new set.
// Threads: runs on a thread of the prefix's own, one call at a time; reads go on meanwhile.
// One that crashes takes the process down, and the next start begins without what it crashed on.
using Validator =
    std::function<absl::Status(const MirrorSnapshot& before, const MirrorSnapshot& after)>;

class Policy {
 public:
  enum class Rule { kFailStatic, kFailClosed, kFailOpen, kNeverStale };

  // --- the rule: exactly one ---
  // Serves the last good data for ever, with its age. For configuration.
  static Policy FailStatic();
  // Serves data of at most this age, proven at least so well; then reads are FAILED_PRECONDITION.
  // For authentication. The duration is two things at once: how long a revoked user may keep access
  // while the store is away, and how long an outage of the store logins survive.
  static Policy FailClosedAfter(absl::Duration max_age, Proof at_least = Proof::kProven);
  // As FailClosedAfter, but then serves `defaults` (key and value are read), of Source::kDefault.
  static Policy FailOpenAfter(absl::Duration max_age, std::vector<Entry> defaults);
  // No copy is ever kept or served: for single-use tokens and locks. Only linearizable reads are
  // answered, whatever a read's options say.
  static Policy NeverStale();

  // --- modifiers ---
  // Data older than this, or of no proven age, is of Grade::kReduced: served, and marked.
  Policy& ReducedAfter(absl::Duration age);
  // Largest copy, keys and values (default 1 GiB). A set beyond it is refused as bad data is.
  Policy& MaxBytes(size_t bytes);
  // Where last-known-good copies lie, in place of ClientOptions::disk_dir, and how many.
  Policy& Disk(std::string dir, int keep_generations = 3);
  // Nothing of this prefix is written to disk: a restart during an outage then has no data.
  Policy& MemoryOnly();
  // Added to those given before; all must agree. After `budget` a set counts as refused, and is
  // judged again later. A copy on disk is judged before Client::Open returns, without that limit.
  Policy& Validate(Validator validator, absl::Duration budget = absl::Milliseconds(200));
  // Refuses a set in which more than this share of the keys served now is gone (default 0.3; of at
  // least kDeleteGuardFloor keys; for FailStatic, also if all are gone), until MarkAccepted. 1:
  // never.
  Policy& HoldIfDeletes(double fraction);
  // Refuses a set more than so many times as large (default 2; sets above kGrowthGuardFloor bytes),
  // until MarkAccepted. Infinity: never.
  Policy& HoldIfGrows(double factor);
  // New data becomes last-known-good once the process has served it for so long (default 60 s), or
  // by MarkGood. If the process ends before, the next start begins with what was good before it.
  Policy& Probation(absl::Duration duration);
  // How long Client::Open waits for the store if there is nothing usable on disk (default 5 s).
  Policy& StartupWait(absl::Duration wait);
  // What is served as long as there is neither data of the store that was accepted nor a copy on
  // disk (of Source::kDefault, whatever the rule says of ages). Key and value are read.
  Policy& Defaults(std::vector<Entry> entries);
  // Who comes first when many return to the store at once: "auth", "config" or "bulk". Default:
  // "auth" for FailClosedAfter, else "config".
  Policy& Class(std::string name);

  absl::Status Check() const;  // InvalidArgument for settings that make no sense

  static constexpr size_t kDeleteGuardFloor = 10;               // keys
  static constexpr size_t kGrowthGuardFloor = size_t{4} << 10;  // bytes

  struct ValidatorTerms {
    Validator validator;
    absl::Duration budget;
  };
  Rule rule() const { return rule_; }
  absl::Duration max_age() const { return max_age_; }
  Proof at_least() const { return at_least_; }
  std::optional<absl::Duration> reduced_after() const { return reduced_after_; }
  size_t max_bytes() const { return max_bytes_; }
  const std::optional<std::string>& disk_dir() const { return disk_dir_; }
  int keep_generations() const { return keep_generations_; }
  bool memory_only() const { return memory_only_; }
  const std::vector<ValidatorTerms>& validators() const { return validators_; }
  double hold_if_deletes() const { return hold_if_deletes_; }
  double hold_if_grows() const { return hold_if_grows_; }
  absl::Duration probation() const { return probation_; }
  absl::Duration startup_wait() const { return startup_wait_; }
  const std::vector<Entry>& defaults() const { return defaults_; }
  const std::string& class_name() const { return class_name_; }

 private:
  Policy() = default;

  Rule rule_ = Rule::kFailStatic;
  absl::Duration max_age_ = absl::InfiniteDuration();
  Proof at_least_ = Proof::kUnknown;
  std::optional<absl::Duration> reduced_after_;
  size_t max_bytes_ = size_t{1} << 30;
  std::optional<std::string> disk_dir_;
  int keep_generations_ = 3;
  bool memory_only_ = false;
  std::vector<ValidatorTerms> validators_;
  double hold_if_deletes_ = 0.3;
  double hold_if_grows_ = 2.0;
  absl::Duration probation_ = absl::Seconds(60);
  absl::Duration startup_wait_ = absl::Seconds(5);
  std::vector<Entry> defaults_;
  std::string class_name_ = "config";
};

struct PrefixOptions {
  std::string prefix;  // not empty; no two overlap
  Policy policy = Policy::FailStatic();
};

}  // namespace holdfast
