#include "bench/drill_oracle.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace holdfast::bench {
namespace {

constexpr size_t kMaxExamples = 3;

}  // namespace

void DrillOracle::History::Acked(uint64_t revision, int64_t at_ns) {
  std::lock_guard lock(mutex_);
  acks_.push_back({revision, at_ns});
}

size_t DrillOracle::History::acks() const {
  std::lock_guard lock(mutex_);
  return acks_.size();
}

void DrillOracle::Reader::Read(uint64_t revision, int64_t at_ns, absl::Duration age, Proof proof) {
  if (proof != Proof::kProven || age == absl::InfiniteDuration()) {
    ++unproven_;
    if (revision < newest_) ++backwards_;
    newest_ = std::max(newest_, revision);
    return;
  }
  const int64_t age_ns = absl::ToInt64Nanoseconds(age);
  Add({revision, at_ns - age_ns, at_ns - age_ns / 2, 1});
}

void DrillOracle::Reader::Add(const ClaimGroup& group) {
  if (group.revision < newest_) backwards_ += group.reads;
  newest_ = std::max(newest_, group.revision);
  if (groups_.empty() || groups_.back().revision != group.revision) {
    groups_.push_back(group);
    return;
  }
  ClaimGroup& last = groups_.back();
  last.claimed_ns = std::max(last.claimed_ns, group.claimed_ns);
  last.claimed_half_ns = std::max(last.claimed_half_ns, group.claimed_half_ns);
  last.reads += group.reads;
}

void DrillOracle::Reader::NewIncarnation() { newest_ = 0; }

std::vector<ClaimGroup> DrillOracle::Reader::Take() { return std::exchange(groups_, {}); }

DrillOracle::History* DrillOracle::AddHistory() {
  std::lock_guard lock(mutex_);
  return histories_.emplace_back(std::make_unique<History>()).get();
}

DrillOracle::Reader* DrillOracle::AddReader(const History* history, std::string name) {
  std::lock_guard lock(mutex_);
  readers_.emplace_back(new Reader(history, std::move(name)));
  return readers_.back().get();
}

// Claims in the order of their instants, beside acknowledgements in the order of theirs.
uint64_t DrillOracle::Contradicted(const Reader& reader, bool half, Verdict* verdict) {
  if (reader.history_ == nullptr) return 0;
  std::vector<History::Ack> acks;
  {
    std::lock_guard lock(reader.history_->mutex_);
    acks = reader.history_->acks_;
  }
  std::ranges::sort(acks, {}, &History::Ack::at_ns);
  std::vector<ClaimGroup> groups = reader.groups_;
  int64_t ClaimGroup::*const instant =
      half ? &ClaimGroup::claimed_half_ns : &ClaimGroup::claimed_ns;
  std::ranges::sort(groups, {}, instant);
  uint64_t found = 0;
  uint64_t must_show = 0;  // the newest revision acknowledged early enough
  size_t next = 0;
  for (const ClaimGroup& group : groups) {
    for (; next < acks.size() && acks[next].at_ns < group.*instant; ++next) {
      must_show = std::max(must_show, acks[next].revision);
    }
    if (group.revision >= must_show) continue;
    ++found;
    if (!half && verdict->examples.size() < kMaxExamples) {
      verdict->examples.push_back(
          fmt::format("{}: was shown revision {}, and claimed to show all that was acknowledged "
                      "before {:.6f} s "
                      "of the boot clock; revision {} was",
                      reader.name_, group.revision, double(group.claimed_ns) * 1e-9, must_show));
    }
  }
  return found;
}

DrillOracle::Verdict DrillOracle::Check() const {
  std::lock_guard lock(mutex_);
  Verdict verdict;
  for (const auto& history : histories_) verdict.acks += history->acks();
  for (const auto& reader : readers_) {
    for (const ClaimGroup& group : reader->groups_) verdict.claims += group.reads;
    verdict.unproven += reader->unproven_;
    verdict.backwards += reader->backwards_;
    if (reader->backwards_ > 0 && verdict.examples.size() < kMaxExamples) {
      verdict.examples.push_back(
          fmt::format("{}: {} reads were shown a revision before one shown already", reader->name_,
                      reader->backwards_));
    }
    verdict.violations += Contradicted(*reader, false, &verdict);
    verdict.caught_if_half += Contradicted(*reader, true, &verdict);
  }
  return verdict;
}

}  // namespace holdfast::bench
