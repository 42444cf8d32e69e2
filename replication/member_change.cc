#include "replication/member_change.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/strings.h"

namespace holdfast::raft {
namespace {

// Nobody but `but` may have one of these URLs already.
absl::Status CheckUrls(const Membership& now, const std::vector<std::string>& urls,
                       const std::vector<NodeId>& but) {
  if (urls.empty()) return absl::InvalidArgumentError("a member needs at least one peer URL");
  for (const auto& [id, taken] : now.peer_urls) {
    if (std::find(but.begin(), but.end(), id) != but.end()) continue;
    for (const std::string& url : urls) {
      if (std::find(taken.begin(), taken.end(), url) == taken.end()) continue;
      return absl::InvalidArgumentError(
          base::ToAbsl(fmt::format("peer URL {} is member {:x}'s", url, id.value)));
    }
  }
  return absl::OkStatus();
}

absl::Status NoSuchMember(NodeId id) {
  return absl::NotFoundError(base::ToAbsl(fmt::format("there is no member {:x}", id.value)));
}

void Forget(Membership& m, NodeId id) {
  m.peer_urls.erase(id);
  m.voters.erase(id);
  m.learners.erase(id);
  m.promotions.erase(id);
  m.removed.push_back(id);
  if (m.removed.size() > Membership::kMaxRemoved) m.removed.erase(m.removed.begin());
}

absl::StatusOr<Membership> WithLearner(const Membership& now, const MemberChange& change) {
  if (!change.id || now.Contains(change.id) || now.Removed(change.id)) {
    return absl::AlreadyExistsError(
        base::ToAbsl(fmt::format("the id {:x} is or was a member's", change.id.value)));
  }
  if (absl::Status urls = CheckUrls(now, change.peer_urls, {change.replaces}); !urls.ok()) {
    return urls;
  }
  Membership target = now;
  target.peer_urls[change.id] = change.peer_urls;
  target.learners.insert(change.id);
  if (change.kind != MemberChange::Kind::kAddLearner) {
    target.promotions[change.id] = change.replaces;
  }
  return target;
}

absl::StatusOr<Membership> Replaced(const Membership& now, const MemberChange& change) {
  const NodeId old = change.replaces;
  if (!now.Contains(old)) return NoSuchMember(old);
  if (!now.voters.contains(old)) {
    return absl::FailedPreconditionError(
        "a learner needs no replacement: remove it and add another");
  }
  Membership base = now;
  // A replacement that never came up gives way to the next one.
  for (const auto& [learner, replaces] : now.promotions) {
    if (replaces == old) Forget(base, learner);
  }
  return WithLearner(base, change);
}

absl::StatusOr<Membership> Without(const Membership& now, NodeId id) {
  if (!now.Contains(id)) return NoSuchMember(id);
  if (now.voters == std::set<NodeId>{id}) {
    return absl::FailedPreconditionError("the last voter cannot leave");
  }
  Membership target = now;
  Forget(target, id);
  // Whoever was to take its place now comes in beside the others.
  for (auto& [learner, replaces] : target.promotions) {
    if (replaces == id) replaces = NodeId(0);
  }
  return target;
}

}  // namespace

absl::StatusOr<Membership> TargetOf(const Membership& now, const MemberChange& change) {
  CHECK(!now.joint());
  switch (change.kind) {
    case MemberChange::Kind::kAdd:
    case MemberChange::Kind::kAddLearner: {
      MemberChange add = change;
      add.replaces = NodeId(0);
      return WithLearner(now, add);
    }
    case MemberChange::Kind::kReplace:
      return Replaced(now, change);
    case MemberChange::Kind::kRemove:
      return Without(now, change.id);
    case MemberChange::Kind::kPromote:
      if (!now.Contains(change.id)) return NoSuchMember(change.id);
      if (!now.learners.contains(change.id)) {
        return absl::FailedPreconditionError("only a learner can be promoted");
      }
      return Promoted(now, {change.id});
    case MemberChange::Kind::kDemote: {
      if (!now.Contains(change.id)) return NoSuchMember(change.id);
      if (!now.voters.contains(change.id)) {
        return absl::FailedPreconditionError("the member is a learner already");
      }
      if (now.voters.size() == 1) {
        return absl::FailedPreconditionError("the last voter cannot become a learner");
      }
      Membership target = now;
      target.voters.erase(change.id);
      target.learners.insert(change.id);
      for (auto& [learner, replaces] : target.promotions) {
        if (replaces == change.id) replaces = NodeId(0);
      }
      return target;
    }
    case MemberChange::Kind::kUpdate: {
      if (!now.Contains(change.id)) return NoSuchMember(change.id);
      if (absl::Status urls = CheckUrls(now, change.peer_urls, {change.id}); !urls.ok()) {
        return urls;
      }
      Membership target = now;
      target.peer_urls[change.id] = change.peer_urls;
      return target;
    }
  }
  return absl::InvalidArgumentError("unknown kind of membership change");
}

Membership Promoted(const Membership& now, const std::vector<NodeId>& ready) {
  Membership target = now;
  for (const NodeId learner : ready) {
    CHECK(target.learners.erase(learner) == 1);
    target.voters.insert(learner);
    const auto pending = target.promotions.extract(learner);
    if (!pending.empty() && pending.mapped()) Forget(target, pending.mapped());
  }
  return target;
}

Membership FirstStep(const Membership& now, const Membership& target) {
  CHECK(!now.joint() && !target.joint());
  CHECK(!target.voters.empty());
  std::vector<NodeId> changed;
  std::set_symmetric_difference(now.voters.begin(), now.voters.end(), target.voters.begin(),
                                target.voters.end(), std::back_inserter(changed));
  // Thesis 4.1: one voter more or less keeps the majorities overlapping by itself.
  if (changed.size() <= 1) return target;
  Membership joint = target;
  joint.voters_outgoing = now.voters;
  for (const NodeId id : now.voters) {
    joint.peer_urls.try_emplace(
        id, now.peer_urls.contains(id) ? now.peer_urls.at(id) : std::vector<std::string>());
    // It counts with the outgoing half to the end; it learns only after that.
    if (joint.learners.erase(id) == 1) joint.learners_next.insert(id);
    // Nobody has left before the joint configuration is.
    std::erase(joint.removed, id);
  }
  return joint;
}

Membership LeaveJoint(const Membership& joint) {
  CHECK(joint.joint());
  Membership target = joint;
  target.voters_outgoing.clear();
  target.learners.insert(joint.learners_next.begin(), joint.learners_next.end());
  target.learners_next.clear();
  for (const NodeId id : joint.voters_outgoing) {
    if (!target.Contains(id)) Forget(target, id);
  }
  return target;
}

}  // namespace holdfast::raft
