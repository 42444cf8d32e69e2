// Runs the code of the service that judges new data (validators, parsers of live values) on a
// thread of its own, for code of the service may be slow, hang or crash, and reads and the feed may
// not wait for it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/record_digest.h"
#include "client/scheduler.h"
#include "holdfast/policy.h"
#include "holdfast/snapshot.h"

namespace holdfast::internal {

using AnyValue = std::shared_ptr<const void>;
using ParseAny = std::function<absl::StatusOr<AnyValue>(std::string_view)>;

// A key that is kept parsed.
struct ParsedKey {
  size_t id = 0;
  std::string key;
  ParseAny parse;
  base::RecordDigest content;  // of what is parsed now
};

struct Verdict {
  uint64_t build = 0;
  absl::Status status;
  struct Parsed {
    size_t id = 0;
    base::RecordDigest content;
    AnyValue value;
  };
  std::vector<Parsed> parsed;  // of keys whose content is new
};

// Threads: Start and the destructor on one thread. `done` runs on the scheduler's.
class Judge {
 public:
  using Done = absl::AnyInvocable<void(Verdict) &&>;

  // Beside the validators' own budgets, for the parsers.
  static constexpr absl::Duration kParseBudget = absl::Milliseconds(200);

  explicit Judge(std::shared_ptr<Scheduler> scheduler);
  // Code of the service that has overrun its time is left behind on its thread.
  ~Judge();

  // REQUIRES: !busy(). `done` runs once: with the verdict, or DEADLINE_EXCEEDED after the budget;
  // in that case busy() holds until the service's code has returned.
  void Start(uint64_t build, const std::vector<Policy::ValidatorTerms>& validators,
             std::vector<ParsedKey> parsed, MirrorSnapshot before, MirrorSnapshot after, Done done);
  bool busy() const;

  // On the caller's thread, with no limit of time.
  static Verdict Run(uint64_t build, const std::vector<Policy::ValidatorTerms>& validators,
                     const std::vector<ParsedKey>& parsed, const MirrorSnapshot& before,
                     const MirrorSnapshot& after);

 private:
  struct State;
  const std::shared_ptr<State> state_;
};

}  // namespace holdfast::internal
