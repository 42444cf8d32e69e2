#include "bench/drills/load.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bench/monotonic.h"

namespace holdfast::bench {
namespace {

// Reads from memory that are overdue are made at once, at most so many: more only shows that this
// thread had to wait for a processor.
constexpr int64_t kMaxOverdue = 2000;

int64_t PeriodNs(double per_second) { return int64_t(1e9 / per_second); }

// BOOTTIME and MONOTONIC differ by what the machine slept: due moments are kept in BOOTTIME, which
// samples and acknowledgements are in, and slept for by duration.
void SleepUntilBoot(int64_t due_ns) {
  const int64_t left_ns = due_ns - BootNs();
  if (left_ns > 0) SleepUntilNs(MonotonicNs() + left_ns);
}

}  // namespace

CallOutcome OutcomeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return CallOutcome::kServed;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kResourceExhausted:
      return CallOutcome::kRefused;
    default:
      return CallOutcome::kFailed;
  }
}

// --- MirrorReader ---

MirrorReader::MirrorReader(Mirror* mirror, std::string key, double per_second, Track* track,
                           DrillOracle::Reader* oracle)
    : mirror_(mirror),
      key_(std::move(key)),
      period_ns_(PeriodNs(per_second)),
      track_(track),
      oracle_(oracle),
      thread_([this] { Run(); }) {}

void MirrorReader::Stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void MirrorReader::Run() {
  int64_t due_ns = BootNs();
  while (!stop_) {
    SleepUntilBoot(due_ns);
    const int64_t now_ns = BootNs();
    const int64_t overdue = std::min((now_ns - due_ns) / period_ns_, kMaxOverdue);
    for (int64_t i = 0; i <= overdue; ++i) Read(now_ns);
    due_ns = std::max(due_ns + period_ns_ * (overdue + 1), now_ns - period_ns_ * kMaxOverdue);
  }
}

void MirrorReader::Read(int64_t due_ns) {
  uint64_t shown = 0;
  bool there = false;
  const absl::StatusOr<Freshness> fresh = mirror_->Visit(key_, [&](const EntryView* entry) {
    there = entry != nullptr;
    if (there) shown = entry->mod_revision;
  });
  reads_.fetch_add(1, std::memory_order_relaxed);
  if (!fresh.ok()) {
    track_->Add(due_ns, OutcomeOf(fresh.status()));
    std::lock_guard lock(mutex_);
    last_error_ = fresh.status();
    return;
  }
  there_ = there;
  // That there is no such key is shown by everything up to the copy's revision.
  if (!there) shown = fresh->revision();
  const int64_t at_ns = BootNs();
  const absl::Duration age = fresh->MaxAge();
  track_->Add(due_ns,
              fresh->grade() == Grade::kReduced ? CallOutcome::kReduced : CallOutcome::kServed);
  track_->AddAge(due_ns, age);
  age_s_.store(absl::ToDoubleSeconds(age), std::memory_order_relaxed);
  if (fresh->proof() != Proof::kProven) unproven_.fetch_add(1, std::memory_order_relaxed);
  if (oracle_ != nullptr) oracle_->Read(shown, at_ns, age, fresh->proof());
}

absl::Status MirrorReader::last_error() const {
  std::lock_guard lock(mutex_);
  return last_error_;
}

// --- Caller ---

Caller::Caller(double per_second, Track* track, Call call, Judge judge)
    : period_ns_(PeriodNs(per_second)),
      track_(track),
      call_(std::move(call)),
      judge_(std::move(judge)),
      thread_([this] { Run(); }) {}

void Caller::Stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void Caller::Run() {
  int64_t due_ns = BootNs();
  while (!stop_) {
    SleepUntilBoot(due_ns);
    if (stop_) return;
    const int64_t began_ns = BootNs();
    const absl::Status status = call_(due_ns);
    const int64_t ended_ns = BootNs();
    const CallOutcome outcome = judge_(status);
    {
      std::lock_guard lock(mutex_);
      made_.push_back({began_ns, ended_ns - began_ns, status.code(), outcome});
      if (!status.ok()) last_error_ = status;
    }
    do {
      track_->Add(due_ns, outcome);
      due_ns += period_ns_;
    } while (due_ns <= ended_ns);
  }
}

std::vector<Caller::Made> Caller::Between(int64_t from_ns, int64_t to_ns) const {
  std::lock_guard lock(mutex_);
  std::vector<Made> made;
  for (const Made& one : made_) {
    if (one.at_ns >= from_ns && one.at_ns < to_ns) made.push_back(one);
  }
  return made;
}

absl::Status Caller::last_error() const {
  std::lock_guard lock(mutex_);
  return last_error_;
}

double LongestSeconds(const std::vector<Caller::Made>& calls, CallOutcome outcome) {
  int64_t longest_ns = 0;
  for (const Caller::Made& call : calls) {
    if (call.outcome == outcome) longest_ns = std::max(longest_ns, call.took_ns);
  }
  return double(longest_ns) * 1e-9;
}

double QuantileSeconds(const std::vector<Caller::Made>& calls, double q) {
  if (calls.empty()) return 0;
  std::vector<int64_t> took_ns;
  for (const Caller::Made& call : calls) took_ns.push_back(call.took_ns);
  std::ranges::sort(took_ns);
  const size_t rank = size_t(std::ceil(q * double(took_ns.size())));
  return double(took_ns[std::max<size_t>(rank, 1) - 1]) * 1e-9;
}

// --- Writer ---

Writer::Writer(Client* client, std::string key, double per_second, Track* track,
               DrillOracle::History* history, absl::Duration deadline)
    : client_(client),
      key_(std::move(key)),
      history_(history),
      deadline_(deadline),
      caller_(per_second, track, [this](int64_t) { return Put(); }) {}

absl::Status Writer::Put() {
  const uint64_t value = next_++;
  absl::StatusOr<WriteResult> put =
      client_->Put(key_, std::to_string(value), {.deadline = deadline_});
  if (!put.ok() && MaybeCommitted(put.status())) {
    unknown_.fetch_add(1);
    const absl::Status first = put.status();
    put = client_->Resolve(first, {.deadline = deadline_});
    if (!put.ok()) return first;
  }
  if (!put.ok()) return put.status();
  if (history_ != nullptr) history_->Acked(put->token.revision, BootNs());
  last_acked_ = value;
  acked_.fetch_add(1);
  return absl::OkStatus();
}

}  // namespace holdfast::bench
