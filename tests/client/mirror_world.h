// A client's mirrors in virtual time: a scheduler that a test moves by hand, and connections that
// say what the test tells them to.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "base/clock.h"
#include "client/mirror_set.h"
#include "client/scheduler.h"
#include "client/uplink.h"

namespace holdfast::test {

// Runs on the thread that calls it; time is its clock's.
class VirtualScheduler : public internal::Scheduler {
 public:
  explicit VirtualScheduler(base::FakeClock* clock) : clock_(clock) {}

  absl::Duration Now() const override { return now_; }
  bool Post(internal::Task task) override {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    return true;
  }
  void At(absl::Duration when, internal::Task task) override {
    std::lock_guard lock(mutex_);
    timers_.emplace(std::pair(when, ++order_), std::move(task));
  }
  // Whoever drains it is its thread; the tests themselves are not.
  bool OnThread() const override { return false; }

  // Everything that can run without time passing.
  void Drain() {
    while (internal::Task task = Next()) std::move(task)();
  }

  void Advance(absl::Duration by) {
    const absl::Duration end = now_ + by;
    Drain();
    for (;;) {
      absl::Duration next = end;
      {
        std::lock_guard lock(mutex_);
        if (!timers_.empty()) next = std::min(end, timers_.begin()->first.first);
      }
      Step(next);
      if (next == end) return;
    }
  }

 private:
  // Null: nothing is due.
  internal::Task Next() {
    std::lock_guard lock(mutex_);
    if (!tasks_.empty()) {
      internal::Task task = std::move(tasks_.front());
      tasks_.pop_front();
      return task;
    }
    if (timers_.empty() || timers_.begin()->first.first > now_) return nullptr;
    internal::Task task = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    return task;
  }

  void Step(absl::Duration to) {
    clock_->Advance(to - now_);
    now_ = to;
    Drain();
  }

  base::FakeClock* const clock_;
  absl::Duration now_ = absl::Seconds(1000);
  std::mutex mutex_;  // Open and Close of the tested class post from another thread
  uint64_t order_ = 0;
  std::deque<internal::Task> tasks_;
  std::map<std::pair<absl::Duration, uint64_t>, internal::Task> timers_;
};

// One connection as the other side sees it.
struct Line {
  std::string endpoint;
  uint64_t number = 0;
  std::weak_ptr<internal::UplinkSink> sink;
  bool open = true;
  absl::Duration at;
  struct Load {
    size_t feed = 0;
    v1::LoadRequest request;
    std::string klass;
  };
  std::vector<Load> loads;
  std::vector<etcdserverpb::WatchRequest> requests;
  std::vector<v1::ReportRequest> reports;
};

class ScriptedUplinks : public internal::UplinkFactory {
 public:
  explicit ScriptedUplinks(internal::Scheduler* scheduler) : scheduler_(scheduler) {}

  std::unique_ptr<internal::Uplink> Connect(const internal::Endpoint& endpoint, uint64_t connection,
                                            std::weak_ptr<internal::UplinkSink> sink) override {
    auto line = std::make_shared<Line>();
    line->endpoint = endpoint.name;
    line->number = connection;
    line->sink = std::move(sink);
    line->at = scheduler_->Now();
    lines.push_back(line);
    if (on_connect) {
      scheduler_->Post([this, line] {
        if (line->open) on_connect(*line);
      });
    }
    return std::make_unique<End>(this, line);
  }

  std::vector<std::shared_ptr<Line>> lines;
  std::function<void(Line&)> on_connect;                  // may be null
  std::function<void(Line&, const Line::Load&)> on_load;  // may be null
  std::function<void(Line&, const etcdserverpb::WatchRequest&)> on_request;

 private:
  class End : public internal::Uplink {
   public:
    End(ScriptedUplinks* owner, std::shared_ptr<Line> line)
        : owner_(owner), line_(std::move(line)) {}
    ~End() override { line_->open = false; }
    void Load(size_t feed, const v1::LoadRequest& request, const std::string& klass) override {
      line_->loads.push_back({feed, request, klass});
      if (!owner_->on_load) return;
      owner_->scheduler_->Post([owner = owner_, line = line_, load = line_->loads.back()] {
        if (line->open) owner->on_load(*line, load);
      });
    }
    void Watch(const etcdserverpb::WatchRequest& request) override {
      line_->requests.push_back(request);
      if (!owner_->on_request) return;
      owner_->scheduler_->Post([owner = owner_, line = line_, request] {
        if (line->open) owner->on_request(*line, request);
      });
    }
    void Report(const v1::ReportRequest& request) override { line_->reports.push_back(request); }

   private:
    ScriptedUplinks* const owner_;
    const std::shared_ptr<Line> line_;
  };

  internal::Scheduler* const scheduler_;
};

}  // namespace holdfast::test
