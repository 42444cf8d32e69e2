#include "bench/drills/timeline.h"

#include <algorithm>
#include <utility>

#include "bench/drill_oracle.h"

namespace holdfast::bench {
namespace {

constexpr double kSlotsPerSecond = 1e9 / double(kSlotNs);

double Percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : 100 * double(part) / double(whole);
}

}  // namespace

double Track::Totals::ServedPercent() const { return Percent(served, offered()); }
double Track::Totals::RefusedPercent() const { return Percent(refused, offered()); }
double Track::Totals::FailedPercent() const { return Percent(failed, offered()); }

size_t Track::SlotOf(int64_t at_ns) const {
  if (at_ns <= begin_ns_) return 0;
  return std::min(size_t((at_ns - begin_ns_) / kSlotNs), kSlots - 1);
}

double Track::SecondsOf(size_t slot) const { return (double(slot) + 0.5) / kSlotsPerSecond; }

void Track::Add(int64_t at_ns, CallOutcome outcome, uint32_t calls) {
  Slot& slot = (*slots_)[SlotOf(at_ns)];
  switch (outcome) {
    case CallOutcome::kReduced:
      slot.reduced.fetch_add(calls, std::memory_order_relaxed);
      [[fallthrough]];
    case CallOutcome::kServed:
      slot.served.fetch_add(calls, std::memory_order_relaxed);
      return;
    case CallOutcome::kRefused:
      slot.refused.fetch_add(calls, std::memory_order_relaxed);
      return;
    case CallOutcome::kFailed:
      slot.failed.fetch_add(calls, std::memory_order_relaxed);
      return;
  }
}

void Track::AddAge(int64_t at_ns, absl::Duration age) {
  if (age == absl::InfiniteDuration()) return;
  Slot& slot = (*slots_)[SlotOf(at_ns)];
  const int64_t us = absl::ToInt64Microseconds(age);
  int64_t before = slot.age_us_max.load(std::memory_order_relaxed);
  while (before < us && !slot.age_us_max.compare_exchange_weak(before, us)) {
  }
  const uint32_t n = slot.ages.fetch_add(1, std::memory_order_relaxed);
  slot.some_ages_us[n % kAgesKept].store(us, std::memory_order_relaxed);
}

Track::Totals Track::Between(int64_t from_ns, int64_t to_ns) const {
  Totals totals;
  const size_t from = SlotOf(from_ns + kSlotNs - 1);
  const size_t to = SlotOf(to_ns);
  for (size_t i = from; i < to; ++i) {
    const Slot& slot = (*slots_)[i];
    totals.served += slot.served;
    totals.reduced += slot.reduced;
    totals.refused += slot.refused;
    totals.failed += slot.failed;
    totals.age_s_max = std::max(totals.age_s_max, double(slot.age_us_max) * 1e-6);
  }
  return totals;
}

int64_t Track::FirstNs(CallOutcome outcome, int64_t from_ns, int64_t to_ns) const {
  for (size_t i = SlotOf(from_ns); i < SlotOf(to_ns); ++i) {
    const Slot& slot = (*slots_)[i];
    const uint32_t seen = outcome == CallOutcome::kServed    ? slot.served
                          : outcome == CallOutcome::kReduced ? slot.reduced
                          : outcome == CallOutcome::kRefused ? slot.refused
                                                             : slot.failed;
    if (seen > 0) return begin_ns_ + int64_t(i) * kSlotNs;
  }
  return -1;
}

std::vector<PlotPoint> Track::ServedPercent(const std::vector<const Track*>& tracks,
                                            int64_t until_ns) {
  std::vector<PlotPoint> points;
  if (tracks.empty()) return points;
  for (size_t i = 0; i < tracks[0]->SlotOf(until_ns); ++i) {
    uint64_t served = 0, offered = 0;
    for (const Track* track : tracks) {
      const Slot& slot = (*track->slots_)[i];
      served += slot.served;
      offered += uint64_t{slot.served} + slot.refused + slot.failed;
    }
    if (offered > 0) points.push_back({tracks[0]->SecondsOf(i), Percent(served, offered)});
  }
  return points;
}

std::vector<PlotPoint> Track::AgeMax(const std::vector<const Track*>& tracks, int64_t until_ns) {
  std::vector<PlotPoint> points;
  if (tracks.empty()) return points;
  for (size_t i = 0; i < tracks[0]->SlotOf(until_ns); ++i) {
    int64_t us = -1;
    for (const Track* track : tracks) us = std::max(us, (*track->slots_)[i].age_us_max.load());
    if (us >= 0) points.push_back({tracks[0]->SecondsOf(i), double(us) * 1e-6});
  }
  return points;
}

std::vector<PlotPoint> Track::ServedPercent(int64_t until_ns) const {
  return ServedPercent({this}, until_ns);
}

std::vector<PlotPoint> Track::PerSecond(CallOutcome outcome, int64_t until_ns) const {
  std::vector<PlotPoint> points;
  for (size_t i = 0; i < SlotOf(until_ns); ++i) {
    const Slot& slot = (*slots_)[i];
    const uint32_t calls = outcome == CallOutcome::kServed    ? slot.served
                           : outcome == CallOutcome::kReduced ? slot.reduced
                           : outcome == CallOutcome::kRefused ? slot.refused
                                                              : slot.failed;
    points.push_back({SecondsOf(i), calls * kSlotsPerSecond});
  }
  return points;
}

std::vector<PlotPoint> Track::AgeMax(int64_t until_ns) const { return AgeMax({this}, until_ns); }

std::vector<PlotPoint> Track::AgeMedian(int64_t until_ns) const {
  std::vector<PlotPoint> points;
  for (size_t i = 0; i < SlotOf(until_ns); ++i) {
    const Slot& slot = (*slots_)[i];
    std::vector<int64_t> ages;
    for (size_t n = 0; n < std::min<size_t>(slot.ages, kAgesKept); ++n) {
      ages.push_back(slot.some_ages_us[n]);
    }
    if (ages.empty()) continue;
    std::ranges::nth_element(ages, ages.begin() + ptrdiff_t(ages.size() / 2));
    points.push_back({SecondsOf(i), double(ages[ages.size() / 2]) * 1e-6});
  }
  return points;
}

int64_t Timeline::Now() { return BootNs(); }

Track* Timeline::AddTrack(std::string name) {
  std::lock_guard lock(mutex_);
  return tracks_.emplace_back(std::make_unique<Track>(std::move(name), begin_ns_)).get();
}

void Timeline::Begin(std::string phase, bool fault) {
  const int64_t now_ns = Now();
  std::lock_guard lock(mutex_);
  if (!phases_.empty() && phases_.back().to_ns == 0) phases_.back().to_ns = now_ns;
  phases_.push_back({.name = std::move(phase), .fault = fault, .from_ns = now_ns, .to_ns = 0});
}

void Timeline::End() {
  std::lock_guard lock(mutex_);
  if (!phases_.empty() && phases_.back().to_ns == 0) phases_.back().to_ns = Now();
}

void Timeline::Mark(std::string what) {
  std::lock_guard lock(mutex_);
  marks_.emplace_back(Now(), std::move(what));
}

std::vector<Phase> Timeline::phases() const {
  std::lock_guard lock(mutex_);
  return phases_;
}

Phase Timeline::PhaseOf(const std::string& name) const {
  for (Phase& phase : phases()) {
    if (phase.name != name) continue;
    if (phase.to_ns == 0) phase.to_ns = Now();
    return phase;
  }
  return {};
}

int64_t Timeline::end_ns() const {
  const std::vector<Phase> all = phases();
  return all.empty() || all.back().to_ns == 0 ? Now() : all.back().to_ns;
}

Plot Timeline::NewPlot(std::string title, std::string subtitle) const {
  Plot plot;
  plot.title = std::move(title);
  plot.subtitle = std::move(subtitle);
  plot.x_label = "seconds";
  const std::vector<Phase> all = phases();
  plot.x_min = all.empty() ? 0 : Seconds(all.front().from_ns);
  plot.x_max = std::max(Seconds(end_ns()), plot.x_min + 1e-3);
  for (const Phase& phase : all) {
    plot.shades.push_back({.from = Seconds(phase.from_ns),
                           .to = Seconds(phase.to_ns == 0 ? end_ns() : phase.to_ns),
                           .label = phase.name,
                           .fault = phase.fault});
  }
  std::lock_guard lock(mutex_);
  for (const auto& [at_ns, what] : marks_) plot.marks.push_back({Seconds(at_ns), what});
  return plot;
}

}  // namespace holdfast::bench
