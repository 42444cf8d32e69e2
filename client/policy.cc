#include "holdfast/policy.h"

#include <utility>

namespace holdfast {

Policy Policy::FailStatic() { return Policy(); }

Policy Policy::FailClosedAfter(absl::Duration max_age, Proof at_least) {
  Policy policy;
  policy.rule_ = Rule::kFailClosed;
  policy.max_age_ = max_age;
  policy.at_least_ = at_least;
  policy.class_name_ = "auth";
  return policy;
}

Policy Policy::FailOpenAfter(absl::Duration max_age, std::vector<Entry> defaults) {
  Policy policy;
  policy.rule_ = Rule::kFailOpen;
  policy.max_age_ = max_age;
  policy.at_least_ = Proof::kProven;
  policy.defaults_ = std::move(defaults);
  return policy;
}

Policy Policy::NeverStale() {
  Policy policy;
  policy.rule_ = Rule::kNeverStale;
  policy.memory_only_ = true;
  return policy;
}

Policy& Policy::ReducedAfter(absl::Duration age) {
  reduced_after_ = age;
  return *this;
}

Policy& Policy::MaxBytes(size_t bytes) {
  max_bytes_ = bytes;
  return *this;
}

Policy& Policy::Disk(std::string dir, int keep_generations) {
  disk_dir_ = std::move(dir);
  keep_generations_ = keep_generations;
  memory_only_ = false;
  return *this;
}

Policy& Policy::MemoryOnly() {
  memory_only_ = true;
  return *this;
}

Policy& Policy::Validate(Validator validator, absl::Duration budget) {
  validators_.push_back({std::move(validator), budget});
  return *this;
}

Policy& Policy::HoldIfDeletes(double fraction) {
  hold_if_deletes_ = fraction;
  return *this;
}

Policy& Policy::HoldIfGrows(double factor) {
  hold_if_grows_ = factor;
  return *this;
}

Policy& Policy::Probation(absl::Duration duration) {
  probation_ = duration;
  return *this;
}

Policy& Policy::StartupWait(absl::Duration wait) {
  startup_wait_ = wait;
  return *this;
}

Policy& Policy::Defaults(std::vector<Entry> entries) {
  defaults_ = std::move(entries);
  return *this;
}

Policy& Policy::Class(std::string name) {
  class_name_ = std::move(name);
  return *this;
}

absl::Status Policy::Check() const {
  const auto invalid = [](const char* what) { return absl::InvalidArgumentError(what); };
  if (rule_ == Rule::kFailClosed || rule_ == Rule::kFailOpen) {
    if (max_age_ <= absl::ZeroDuration() || max_age_ == absl::InfiniteDuration()) {
      return invalid("the age of FailClosedAfter or FailOpenAfter must be positive and finite");
    }
    if (at_least_ == Proof::kUnknown) return invalid("a bound needs at least an estimated age");
    if (reduced_after_.has_value() && *reduced_after_ >= max_age_) {
      return invalid("ReducedAfter must come before the age at which reads are refused");
    }
  }
  if (rule_ == Rule::kFailOpen && defaults_.empty()) {
    return invalid("FailOpenAfter needs the defaults that it is to serve");
  }
  if (reduced_after_.has_value() && *reduced_after_ <= absl::ZeroDuration()) {
    return invalid("ReducedAfter must be positive");
  }
  if (max_bytes_ == 0) return invalid("MaxBytes must be positive");
  if (keep_generations_ < 2) return invalid("Disk needs two generations, to fall back by one");
  if (disk_dir_.has_value() && disk_dir_->empty()) return invalid("Disk needs a directory");
  for (const ValidatorTerms& one : validators_) {
    if (one.validator == nullptr) return invalid("Validate was given no function");
    if (one.budget <= absl::ZeroDuration()) return invalid("a validator's budget must be positive");
  }
  if (!(hold_if_deletes_ >= 0 && hold_if_deletes_ <= 1)) {
    return invalid("HoldIfDeletes takes a share from 0 to 1");
  }
  if (!(hold_if_grows_ >= 1)) return invalid("HoldIfGrows takes a factor of at least 1");
  if (probation_ < absl::ZeroDuration()) return invalid("Probation must not be negative");
  if (startup_wait_ < absl::ZeroDuration()) return invalid("StartupWait must not be negative");
  if (class_name_ != "auth" && class_name_ != "config" && class_name_ != "bulk") {
    return invalid("Class must be auth, config or bulk");
  }
  return absl::OkStatus();
}

}  // namespace holdfast
