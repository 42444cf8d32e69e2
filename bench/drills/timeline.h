// What happened when, in slots of 100 ms: how many reads of each class were served, refused or
// failed, and how old what they got was; and the phases of the drill.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "bench/plot.h"

namespace holdfast::bench {

inline constexpr int64_t kSlotNs = 100'000'000;

enum class CallOutcome {
  kServed,
  kReduced,  // served, and marked: older than ReducedAfter
  kRefused,  // as the policy or the kind of call demands: typed, at once
  kFailed,   // anything else
};

// Readings of one class. Threads: all.
class Track {
 public:
  static constexpr size_t kSlots = 9000;  // 15 minutes; what comes later counts in the last one

  Track(std::string name, int64_t begin_ns) : name_(std::move(name)), begin_ns_(begin_ns) {}

  // `at_ns`: BootNs() at which the call was due.
  void Add(int64_t at_ns, CallOutcome outcome, uint32_t calls = 1);
  void AddAge(int64_t at_ns, absl::Duration age);

  struct Totals {
    uint64_t served = 0;  // reduced ones included
    uint64_t reduced = 0;
    uint64_t refused = 0;
    uint64_t failed = 0;
    double age_s_max = 0;

    uint64_t offered() const { return served + refused + failed; }
    double ServedPercent() const;
    double RefusedPercent() const;
    double FailedPercent() const;
  };
  // Of the slots that lie in [from, to) as a whole.
  Totals Between(int64_t from_ns, int64_t to_ns) const;
  Totals All() const { return Between(begin_ns_, begin_ns_ + int64_t(kSlots) * kSlotNs); }
  // The first slot in [from, to) with an outcome as asked for; -1: none.
  int64_t FirstNs(CallOutcome outcome, int64_t from_ns, int64_t to_ns) const;

  // Of several tracks of one timeline together.
  static std::vector<PlotPoint> ServedPercent(const std::vector<const Track*>& tracks,
                                              int64_t until_ns);
  static std::vector<PlotPoint> AgeMax(const std::vector<const Track*>& tracks, int64_t until_ns);

  // For plots, over seconds since the begin; slots without calls are left out (a gap).
  std::vector<PlotPoint> ServedPercent(int64_t until_ns) const;
  std::vector<PlotPoint> PerSecond(CallOutcome outcome, int64_t until_ns) const;
  std::vector<PlotPoint> AgeMax(int64_t until_ns) const;
  std::vector<PlotPoint> AgeMedian(int64_t until_ns) const;

  const std::string& name() const { return name_; }

 private:
  static constexpr size_t kAgesKept = 16;
  struct Slot {
    std::atomic<uint32_t> served{0};
    std::atomic<uint32_t> reduced{0};
    std::atomic<uint32_t> refused{0};
    std::atomic<uint32_t> failed{0};
    std::atomic<uint32_t> ages{0};
    std::atomic<int64_t> age_us_max{-1};
    std::array<std::atomic<int64_t>, kAgesKept> some_ages_us{};  // the newest
  };
  size_t SlotOf(int64_t at_ns) const;
  double SecondsOf(size_t slot) const;

  const std::string name_;
  const int64_t begin_ns_;
  std::unique_ptr<std::array<Slot, kSlots>> slots_ = std::make_unique<std::array<Slot, kSlots>>();
};

struct Phase {
  std::string name = {};
  bool fault = false;
  int64_t from_ns = 0;
  int64_t to_ns = 0;  // 0: goes on
};

// Threads: all.
class Timeline {
 public:
  Timeline() : begin_ns_(Now()) {}

  static int64_t Now();
  int64_t begin_ns() const { return begin_ns_; }
  double Seconds(int64_t at_ns) const { return double(at_ns - begin_ns_) * 1e-9; }

  // Lives as long as the timeline.
  Track* AddTrack(std::string name);
  // Ends the phase before it.
  void Begin(std::string phase, bool fault = false);
  // Ends the last phase; the time of the last Begin or End is where plots end.
  void End();
  // A moment worth a mark.
  void Mark(std::string what);

  std::vector<Phase> phases() const;
  // The first phase of that name; {} if there is none.
  Phase PhaseOf(const std::string& name) const;
  int64_t end_ns() const;

  // With the phases and marks, for panels to be added.
  Plot NewPlot(std::string title, std::string subtitle) const;

 private:
  const int64_t begin_ns_;
  mutable std::mutex mutex_;
  std::deque<std::unique_ptr<Track>> tracks_;
  std::vector<Phase> phases_;
  std::vector<std::pair<int64_t, std::string>> marks_;
};

}  // namespace holdfast::bench
