#include "client/disk_keeper.h"

#include <algorithm>
#include <utility>

namespace holdfast::internal {

DiskKeeper::DiskKeeper(std::shared_ptr<Scheduler> scheduler) : scheduler_(std::move(scheduler)) {}

DiskKeeper::~DiskKeeper() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

size_t DiskKeeper::Add(LastGood* files, Events events) {
  auto slot = std::make_unique<Slot>();
  slot->files = files;
  slot->events = std::make_shared<Events>(std::move(events));
  slots_.push_back(std::move(slot));
  return slots_.size() - 1;
}

void DiskKeeper::Start() {
  thread_ = std::thread([this] { Loop(); });
}

void DiskKeeper::Write(size_t slot, Generation generation) {
  std::lock_guard lock(mutex_);
  slots_[slot]->generation = std::move(generation);
  work_ = true;
  wake_.notify_one();
}

void DiskKeeper::NoteClaim(size_t slot, GenerationInfo info) {
  std::lock_guard lock(mutex_);
  slots_[slot]->claim = std::move(info);
  work_ = true;
  wake_.notify_one();
}

void DiskKeeper::MarkGood(size_t slot, uint64_t revision) {
  std::lock_guard lock(mutex_);
  slots_[slot]->good = std::max(slots_[slot]->good.value_or(0), revision);
  work_ = true;
  wake_.notify_one();
}

void DiskKeeper::ForgetSuspects(size_t slot) {
  std::lock_guard lock(mutex_);
  slots_[slot]->forget_suspects = true;
  work_ = true;
  wake_.notify_one();
}

void DiskKeeper::Loop() {
  absl::Duration next_poll = scheduler_->Now();
  std::unique_lock lock(mutex_);
  for (;;) {
    work_ = false;
    // The last round begins after the end was asked for: what came during the one before is in it.
    const bool last = stop_;
    for (const auto& slot : slots_) Serve(*slot, lock, /*all=*/last);
    if (last) return;
    if (stop_) continue;
    if (scheduler_->Now() >= next_poll) {
      lock.unlock();
      for (const auto& slot : slots_) PollOverride(*slot);
      lock.lock();
      next_poll = scheduler_->Now() + kPollOverrideEvery;
      continue;  // what came meanwhile
    }
    absl::Duration due = next_poll;
    for (const auto& slot : slots_) {
      if (slot->generation.has_value()) due = std::min(due, slot->next_write);
    }
    const absl::Duration wait = std::max(due - scheduler_->Now(), absl::Milliseconds(1));
    wake_.wait_for(lock, absl::ToChronoNanoseconds(wait), [this] { return stop_ || work_; });
  }
}

void DiskKeeper::Serve(Slot& slot, std::unique_lock<std::mutex>& lock, bool all) {
  if (slot.generation.has_value() && (all || scheduler_->Now() >= slot.next_write)) {
    Generation generation = *std::exchange(slot.generation, std::nullopt);
    lock.unlock();
    const absl::Duration begun = scheduler_->Now();
    absl::Status status =
        slot.files->Write(generation.records, generation.info, generation.on_trial);
    if (status.ok() && !slot.files->writes()) {
      status = absl::AlreadyExistsError("another process keeps the copies of this prefix");
    }
    const absl::Duration now = scheduler_->Now();
    slot.next_write = now + std::max(kWriteEvery, (now - begun) * kWriteShare);
    scheduler_->Post([events = slot.events, build = generation.build,
                      revision = generation.info.revision,
                      status = std::move(status)] { events->written(build, revision, status); });
    generation = {};  // its records go outside the lock
    lock.lock();
  }
  const auto claim = std::exchange(slot.claim, std::nullopt);
  const auto good = std::exchange(slot.good, std::nullopt);
  const bool forget = std::exchange(slot.forget_suspects, false);
  if (!claim.has_value() && !good.has_value() && !forget) return;
  lock.unlock();
  // A failure shows at the next Write, which is told.
  if (claim.has_value()) slot.files->NoteClaim(*claim).IgnoreError();
  if (good.has_value()) slot.files->MarkGood(*good).IgnoreError();
  if (forget) slot.files->ForgetSuspects().IgnoreError();
  lock.lock();
}

void DiskKeeper::PollOverride(Slot& slot) {
  absl::StatusOr<std::optional<LastGood::Override>> polled = slot.files->PollOverride();
  if (polled.ok() && !polled->has_value()) return;
  scheduler_->Post([events = slot.events, polled = std::move(polled)]() mutable {
    if (!polled.ok()) return events->override_changed(polled.status());
    events->override_changed(**std::move(polled));
  });
}

}  // namespace holdfast::internal
