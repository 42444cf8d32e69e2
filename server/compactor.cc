#include "server/compactor.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/etcd_errors.h"
#include "server/peer_channel.h"
#include "server/ticker.h"

namespace holdfast::server {

using Mode = CompactionPolicy::Mode;

CompactionSchedule::CompactionSchedule(const CompactionPolicy& policy, absl::Duration now)
    : policy_(policy), last_try_(now), last_done_(now) {
  switch (policy.mode) {
    case Mode::kPeriodic:
      interval_ = std::min(policy.period, kIntervalMax);
      sample_interval_ = interval_ / kSamplesPerInterval;
      break;
    case Mode::kRevision:
      interval_ = sample_interval_ = kRevisionInterval;
      break;
    case Mode::kDefault:
    case Mode::kOff:
      interval_ = sample_interval_ = kDefaultInterval;
      break;
  }
  CHECK(sample_interval_ > absl::ZeroDuration());
}

void CompactionSchedule::TakeSample(absl::Duration now, int64_t revision) {
  if (!samples_.empty() && now - samples_.back().at < sample_interval_) return;
  samples_.push_back({now, revision});
  // Of those that are old enough only the newest counts.
  while (samples_.size() > 1 && now - samples_[1].at >= policy_.period) samples_.pop_front();
}

int64_t CompactionSchedule::RevisionBefore(absl::Duration now) const {
  int64_t revision = 0;
  for (const Sample& sample : samples_) {
    if (now - sample.at < policy_.period) break;
    revision = sample.revision;
  }
  return revision;
}

int64_t CompactionSchedule::Target(absl::Duration now, int64_t revision) const {
  switch (policy_.mode) {
    case Mode::kOff:
      return 0;
    case Mode::kPeriodic:
      return RevisionBefore(now);
    case Mode::kRevision:
      return revision - policy_.revisions;
    case Mode::kDefault:
      return std::min(RevisionBefore(now), revision - policy_.revisions);
  }
  return 0;
}

std::optional<int64_t> CompactionSchedule::Tick(absl::Duration now, const State& state) {
  if (policy_.mode == Mode::kOff) return std::nullopt;
  if (policy_.mode != Mode::kRevision) TakeSample(now, state.revision);
  if (under_way_ || !state.leading) return std::nullopt;
  if (now - last_try_ < sample_interval_) return std::nullopt;
  const absl::Duration wait =
      first_ && policy_.mode == Mode::kPeriodic ? policy_.period : interval_;
  if (now - last_done_ < wait) return std::nullopt;
  last_try_ = now;
  const int64_t target = Target(now, state.revision);
  if (target <= std::max<int64_t>(state.compact_revision, 0)) {
    // Nothing was written since. In etcd, too, that counts as done.
    if (target > 0) OnDone(now, true);
    return std::nullopt;
  }
  under_way_ = true;
  return target;
}

void CompactionSchedule::OnDone(absl::Duration now, bool done) {
  under_way_ = false;
  if (!done) return;
  last_done_ = now;
  first_ = false;
}

class Compactor::Impl {
 public:
  Impl(const MemberView& member, const CompactionPolicy& policy)
      : member_(member),
        schedule_(policy, Now()),
        ticker_(std::min(absl::Seconds(1), schedule_.sample_interval()), [this] { Tick(); }) {}

  void Stop() { ticker_.Stop(); }

 private:
  // Shared with the pipeline's callback, which may come after Stop.
  struct Answer {
    std::atomic<bool> there = false;
    absl::Status status;  // before `there` is set
  };

  static absl::Duration Now() { return absl::FromChrono(SteadyNow().time_since_epoch()); }

  void Tick() {
    if (answer_ != nullptr && answer_->there.load()) {
      // Somebody else's compaction went further: as good.
      const bool done = answer_->status.ok() || answer_->status == ErrCompacted();
      if (done) {
        LOG_INFO("compacted to revision {}", target_);
      } else {
        LOG_WARN("the compaction to revision {} is to be tried again: {}", target_,
                 base::Message(answer_->status));
      }
      schedule_.OnDone(Now(), done);
      answer_ = nullptr;
    }
    const storage::AppliedState applied = member_.machine->applied_state();
    const std::optional<int64_t> target =
        schedule_.Tick(Now(), {.revision = applied.revision,
                               .compact_revision = applied.compact_revision,
                               .leading = member_.node->status().role == raft::Role::kLeader});
    if (!target.has_value()) return;
    target_ = *target;
    answer_ = std::make_shared<Answer>();
    command::v1::Command command;
    command.mutable_compaction()->set_revision(*target);
    member_.pipeline->Propose(std::move(command), [answer = answer_](ApplyResult result) {
      answer->status = std::move(result.status);
      answer->there.store(true);
    });
  }

  const MemberView member_;
  // The ticker's thread.
  CompactionSchedule schedule_;
  int64_t target_ = 0;
  std::shared_ptr<Answer> answer_;
  Ticker ticker_;  // last: it uses everything above
};

Compactor::Compactor(const MemberView& member, const CompactionPolicy& policy)
    : impl_(std::make_unique<Impl>(member, policy)) {}
Compactor::~Compactor() = default;
void Compactor::Stop() { impl_->Stop(); }

}  // namespace holdfast::server
