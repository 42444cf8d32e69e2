#include "server/divergence.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace holdfast::server {
namespace {

using command::v1::Check;

bool Due(const std::optional<absl::Duration>& last, absl::Duration now, absl::Duration interval) {
  return !last.has_value() || now - *last >= interval;
}

std::string Describe(Index index, const std::map<NodeId, CheckDigest>& digests) {
  std::string text = fmt::format("check at log index {}:", index.value);
  for (const auto& [member, digest] : digests) {
    text += fmt::format(" member {:x} has {:016x}{:016x} of {} records", member.value, digest.high,
                        digest.low, digest.records);
  }
  return text;
}

}  // namespace

// Another leader, or other members: what was asked before means nothing any more. How far the pass
// has come is kept, or a large store under many elections would never be looked at to its end.
void Divergence::Reset(absl::Duration now, const Cluster& cluster) {
  rounds_.clear();
  asked_at_.clear();
  check_under_way_ = false;
  last_check_ = now;
  all_seen_ = false;
  pass_clean_ = false;
  all_.reset();
  if (!cluster.leading) differing_.clear();
}

Divergence::Actions Divergence::Tick(absl::Duration now, const Cluster& cluster) {
  const bool same = cluster.leading == cluster_.leading && cluster.term == cluster_.term &&
                    cluster.settled == cluster_.settled && cluster.voters == cluster_.voters &&
                    cluster.learners == cluster_.learners;
  if (!same) Reset(now, cluster);
  cluster_ = cluster;
  std::erase_if(differing_, [&](const auto& entry) {
    return !cluster.voters.contains(entry.first) && !cluster.learners.contains(entry.first);
  });
  Actions actions;
  if (!cluster.leading || !cluster.settled) return actions;
  if (cluster.revision != pass_revision_) {
    pass_clean_ = false;
    all_seen_ = false;
  }
  Judge(now, &actions);
  if (actions.self.has_value()) return actions;
  Act(now, &actions);
  Ask(now, &actions);
  MaybeCheck(now, &actions);
  return actions;
}

void Divergence::MaybeCheck(absl::Duration now, Actions* actions) {
  // Alone there is nobody to compare with; and of a cluster that has stopped nothing more is to be
  // learned.
  if (cluster_.voters.size() + cluster_.learners.size() < 2) return;
  if (check_under_way_ || cluster_.alarms.all_corrupt()) return;
  if (now - last_check_ < (all_seen_ ? kIdleInterval : kBusyInterval)) return;
  if (next_.part == Check::META && next_.from.empty()) {
    pass_revision_ = cluster_.revision;
    pass_clean_ = true;
  }
  check_under_way_ = true;
  last_check_ = now;
  actions->check = next_;
}

void Divergence::OnChecked(absl::Duration now, const CheckResult& own) {
  if (!std::exchange(check_under_way_, false)) return;
  next_.from = own.next;
  if (own.next.empty()) {
    if (next_.part == Check::META) {
      next_.part = Check::DATA;
    } else {
      next_.part = Check::META;
      all_seen_ = pass_clean_;
    }
  }
  Round round;
  round.began = now;
  round.voters = cluster_.voters;
  round.others = cluster_.voters;
  round.others.insert(cluster_.learners.begin(), cluster_.learners.end());
  round.others.erase(cluster_.self);
  round.digests[cluster_.self] = DigestOf(own);
  rounds_[own.index] = std::move(round);
  if (rounds_.size() > kRoundsMax) rounds_.erase(rounds_.begin());
}

void Divergence::OnCheckFailed(absl::Duration now) {
  check_under_way_ = false;
  last_check_ = now;
}

void Divergence::OnDigest(NodeId from, Index index, const CheckDigest& digest) {
  const auto round = rounds_.find(index);
  if (round == rounds_.end() || !round->second.others.contains(from)) return;
  round->second.digests[from] = digest;
}

void Divergence::Ask(absl::Duration now, Actions* actions) {
  std::map<NodeId, std::vector<Index>> open;
  for (const auto& [index, round] : rounds_) {
    for (const NodeId other : round.others) {
      if (!round.digests.contains(other)) open[other].push_back(index);
    }
  }
  for (auto& [member, indexes] : open) {
    const auto asked = asked_at_.find(member);
    if (asked != asked_at_.end() && now - asked->second < kAskInterval) continue;
    asked_at_[member] = now;
    actions->questions.push_back({member, std::move(indexes)});
  }
}

std::optional<CheckDigest> Divergence::MajorityOf(const Round& round) const {
  std::map<CheckDigest, size_t> votes;
  for (const NodeId voter : round.voters) {
    const auto digest = round.digests.find(voter);
    if (digest != round.digests.end()) ++votes[digest->second];
  }
  for (const auto& [digest, count] : votes) {
    if (2 * count > round.voters.size()) return digest;
  }
  return std::nullopt;
}

bool Divergence::JudgeRound(absl::Duration now, Index index, const Round& round, Actions* actions) {
  const bool late = now - round.began >= kAnswerMax;
  const bool all_answered =
      std::ranges::all_of(round.others, [&](NodeId id) { return round.digests.contains(id); });
  if (const auto majority = MajorityOf(round); majority.has_value()) {
    for (const auto& [member, digest] : round.digests) {
      if (digest == *majority) continue;
      const std::string why = Describe(index, round.digests);
      if (member == cluster_.self) {
        actions->self = Fence{member, index, why};
        return false;
      }
      if (differing_.try_emplace(member, Differing{.index = index, .why = why}).second) {
        actions->warnings.push_back(fmt::format(
            "member {:x} differs from the majority ({}): it is told to stop and to have itself "
            "repaired; the others go on",
            member.value, why));
      }
    }
    return !all_answered && !late;
  }
  const bool voters_answered =
      std::ranges::all_of(round.voters, [&](NodeId id) { return round.digests.contains(id); });
  const bool disagree = std::ranges::any_of(round.voters, [&](NodeId id) {
    const auto digest = round.digests.find(id);
    return digest != round.digests.end() && digest->second != round.digests.at(cluster_.self);
  });
  if (!disagree) return !late;
  if (!voters_answered && !late) return true;
  if (!all_.has_value()) {
    all_ = Fence{NodeId(), index, Describe(index, round.digests)};
    actions->warnings.push_back(fmt::format(
        "the members disagree and no majority of the voters agrees ({}): nobody can tell who is "
        "right, so nobody serves (alarm CORRUPT). docs/maintenance.md, \"No majority agrees\"",
        all_->why));
  }
  return false;
}

void Divergence::Judge(absl::Duration now, Actions* actions) {
  for (auto it = rounds_.begin(); it != rounds_.end();) {
    const bool go_on = JudgeRound(now, it->first, it->second, actions);
    if (actions->self.has_value()) return;
    it = go_on ? std::next(it) : rounds_.erase(it);
  }
}

void Divergence::Act(absl::Duration now, Actions* actions) {
  for (auto& [member, differing] : differing_) {
    if (Due(differing.fenced_at, now, kRetryInterval)) {
      differing.fenced_at = now;
      actions->fences.push_back({member, differing.index, differing.why});
    }
    if (!cluster_.alarms.corrupt(member.value) && Due(differing.raised_at, now, kRetryInterval)) {
      differing.raised_at = now;
      actions->alarms.push_back({{member.value, AlarmType::kCorrupt}, /*raise=*/true});
    }
  }
  if (all_.has_value()) {
    if (cluster_.alarms.all_corrupt()) {
      // Should a person clear it, the next pass finds anew what there is to find.
      all_.reset();
      all_raised_at_.reset();
    } else if (Due(all_raised_at_, now, kRetryInterval)) {
      all_raised_at_ = now;
      actions->alarms.push_back({{0, AlarmType::kCorrupt}, /*raise=*/true});
    }
  }
  // Whoever was repaired is another member now, and the alarm is of nobody.
  for (const AlarmSet::Alarm& alarm : cluster_.alarms.alarms()) {
    const NodeId member(alarm.first);
    if (alarm.second != AlarmType::kCorrupt || !member || cluster_.voters.contains(member) ||
        cluster_.learners.contains(member)) {
      continue;
    }
    const auto cleared = cleared_at_.find(alarm.first);
    if (cleared != cleared_at_.end() && now - cleared->second < kRetryInterval) continue;
    cleared_at_[alarm.first] = now;
    actions->alarms.push_back({alarm, /*raise=*/false});
  }
  std::erase_if(cleared_at_,
                [this](const auto& entry) { return !cluster_.alarms.corrupt(entry.first); });
}

}  // namespace holdfast::server
