#include "bench/schedule.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "base/check.h"
#include "base/rng.h"

namespace holdfast::bench {
namespace {

class ClosedSchedule : public Schedule {
 public:
  ClosedSchedule(uint32_t clients, const Window& window) : window_(window), intended_ns_(clients) {
    for (uint32_t slot = 0; slot < clients; ++slot) waiting_.push_back({slot, window.start_ns});
  }

  int64_t NextArrivalNs() const override {
    return waiting_.empty() ? kNever : waiting_.front().intended_ns;
  }

  void Arrive(int64_t now_ns, std::vector<Issue>& out) override {
    while (!waiting_.empty() && waiting_.front().intended_ns <= now_ns) {
      const uint32_t slot = waiting_.front().slot;
      waiting_.pop_front();
      if (MayStart(now_ns)) out.push_back(Start(slot, now_ns));
    }
  }

  std::optional<Issue> Complete(uint32_t slot, bool failed, int64_t now_ns) override {
    CHECK(in_flight_ > 0);
    --in_flight_;
    if (stopped_) return std::nullopt;
    if (failed) {
      // Pauses are of one length, so the queue stays ordered by time.
      waiting_.push_back({slot, now_ns + kErrorPauseNs});
      return std::nullopt;
    }
    if (!MayStart(now_ns)) return std::nullopt;
    return Start(slot, now_ns);
  }

  void Stop() override {
    stopped_ = true;
    waiting_.clear();
  }
  bool Done() const override { return in_flight_ == 0 && waiting_.empty(); }
  int64_t IntendedNs(uint32_t slot) const override { return intended_ns_[slot]; }
  Backlog backlog() const override { return {}; }

 private:
  bool MayStart(int64_t now_ns) const {
    if (stopped_ || now_ns >= window_.end_ns) return false;
    return now_ns < window_.begin_ns || measured_ < window_.total;
  }

  Issue Start(uint32_t slot, int64_t now_ns) {
    ++in_flight_;
    if (now_ns >= window_.begin_ns) ++measured_;
    intended_ns_[slot] = now_ns;
    return {slot, now_ns};
  }

  const Window window_;
  std::vector<int64_t> intended_ns_;  // by slot
  std::deque<Issue> waiting_;         // at most one for each slot
  uint64_t in_flight_ = 0;
  uint64_t measured_ = 0;  // Invariant: measured_ <= window_.total.
  bool stopped_ = false;
};

class OpenSchedule : public Schedule {
 public:
  OpenSchedule(const OpenOptions& options, const Window& window)
      : options_(options), window_(window), rng_(options.seed), intended_ns_(options.clients) {
    CHECK(options.rate > 0);
    for (uint32_t slot = options.clients; slot > 0; --slot) free_.push_back(slot - 1);
    offset_ns_ = options.poisson ? 0 : options.phase * PeriodNs();
    Advance();
  }

  int64_t NextArrivalNs() const override { return next_arrival_ns_; }

  void Arrive(int64_t now_ns, std::vector<Issue>& out) override {
    while (next_arrival_ns_ <= now_ns) {
      const int64_t intended_ns = next_arrival_ns_;
      if (window_.Measures(intended_ns)) ++measured_;
      if (!free_.empty()) {
        const uint32_t slot = free_.back();
        free_.pop_back();
        out.push_back(Start(slot, intended_ns));
      } else if (waiting_ns_.size() < options_.max_backlog) {
        waiting_ns_.push_back(intended_ns);
        backlog_.max = std::max<uint64_t>(backlog_.max, waiting_ns_.size());
      } else if (window_.Measures(intended_ns)) {
        ++backlog_.dropped;
      }
      Advance();
    }
  }

  std::optional<Issue> Complete(uint32_t slot, bool failed, int64_t now_ns) override {
    CHECK(free_.size() < intended_ns_.size());
    if (waiting_ns_.empty()) {
      free_.push_back(slot);
      return std::nullopt;
    }
    const int64_t intended_ns = waiting_ns_.front();
    waiting_ns_.pop_front();
    return Start(slot, intended_ns);
  }

  void Stop() override {
    next_arrival_ns_ = kNever;
    for (const int64_t intended_ns : waiting_ns_) {
      if (window_.Measures(intended_ns)) ++backlog_.not_sent;
    }
    waiting_ns_.clear();
  }

  bool Done() const override {
    return next_arrival_ns_ == kNever && waiting_ns_.empty() && free_.size() == intended_ns_.size();
  }
  int64_t IntendedNs(uint32_t slot) const override { return intended_ns_[slot]; }
  Backlog backlog() const override { return backlog_; }

 private:
  double PeriodNs() const { return 1e9 / options_.rate; }

  // Evenly spaced arrivals are computed from their number: a sum would drift by its roundings.
  void Advance() {
    const double period_ns = PeriodNs();
    if (options_.poisson) {
      const double unit = double(rng_.Next() >> 11) * 0x1p-53;
      offset_ns_ += -std::log1p(-unit) * period_ns;
      next_arrival_ns_ = window_.start_ns + int64_t(offset_ns_);
    } else {
      next_arrival_ns_ = window_.start_ns + int64_t(offset_ns_ + double(arrivals_) * period_ns);
    }
    ++arrivals_;
    if (next_arrival_ns_ >= window_.end_ns || measured_ >= window_.total) {
      next_arrival_ns_ = kNever;
    }
  }

  Issue Start(uint32_t slot, int64_t intended_ns) {
    intended_ns_[slot] = intended_ns;
    return {slot, intended_ns};
  }

  const OpenOptions options_;
  const Window window_;
  base::Rng rng_;
  std::vector<int64_t> intended_ns_;  // by slot
  std::vector<uint32_t> free_;        // slots with no call in flight
  std::deque<int64_t> waiting_ns_;    // Invariant: empty while a slot is free.
  int64_t next_arrival_ns_ = kNever;
  double offset_ns_ = 0;
  uint64_t arrivals_ = 0;
  uint64_t measured_ = 0;
  Backlog backlog_;
};

}  // namespace

std::unique_ptr<Schedule> NewClosedSchedule(uint32_t clients, const Window& window) {
  CHECK(clients > 0);
  return std::make_unique<ClosedSchedule>(clients, window);
}

std::unique_ptr<Schedule> NewOpenSchedule(const OpenOptions& options, const Window& window) {
  CHECK(options.clients > 0);
  return std::make_unique<OpenSchedule>(options, window);
}

}  // namespace holdfast::bench
