// Who counts: voters, learners, and both halves of a joint configuration (thesis 4.3).
//
// A value type. Encoded into config entries, log marks and snapshots; replication never caches a
// second truth: after a truncation it is derived again from the log (contract C8).
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"

namespace holdfast::raft {

struct Membership {
  // Addresses of everybody named below.
  std::map<NodeId, std::vector<std::string>> peer_urls;
  std::set<NodeId> voters;
  // Not empty: joint; then every decision needs a majority of both halves.
  std::set<NodeId> voters_outgoing;
  std::set<NodeId> learners;       // receive, never count
  std::set<NodeId> learners_next;  // voters_outgoing that become learners when the joint ends
  // Learners that are to vote: the leader promotes each once it keeps up, in the place of the
  // voter named (which is removed in the same step), or of nobody (0).
  std::map<NodeId, NodeId> promotions;
  // Ids that left for good, oldest first, at most kMaxRemoved. Nobody may come back under one.
  std::vector<NodeId> removed;

  static constexpr size_t kMaxRemoved = 256;

  bool IsVoter(NodeId id) const { return voters.contains(id) || voters_outgoing.contains(id); }
  bool Contains(NodeId id) const { return IsVoter(id) || learners.contains(id); }
  bool joint() const { return !voters_outgoing.empty(); }
  bool Removed(NodeId id) const;
  std::vector<NodeId> All() const;  // ascending

  std::string Encode() const;
  // DataLoss if `bytes` is not what Encode wrote (this release's format, or release 0.1's).
  static absl::StatusOr<Membership> Decode(std::string_view bytes);
  friend bool operator==(const Membership&, const Membership&) = default;
};

// The largest value that a majority (both majorities when joint) has reached; `value_of(id)` is
// asked for voters only. Zero voters reach everything: UINT64_MAX.
template <class ValueOf>
uint64_t QuorumValue(const Membership& membership, ValueOf value_of);

enum class VoteOutcome { kPending, kWon, kLost };
// `votes`: who answered, and what.
VoteOutcome CountVotes(const Membership& membership, const std::map<NodeId, bool>& votes);

// --- implementation of the template ---
namespace internal {
uint64_t MajorityValue(std::vector<uint64_t> values);
}  // namespace internal

template <class ValueOf>
uint64_t QuorumValue(const Membership& membership, ValueOf value_of) {
  std::vector<uint64_t> incoming, outgoing;
  for (const NodeId id : membership.voters) incoming.push_back(value_of(id));
  for (const NodeId id : membership.voters_outgoing) outgoing.push_back(value_of(id));
  return std::min(internal::MajorityValue(std::move(incoming)),
                  internal::MajorityValue(std::move(outgoing)));
}

}  // namespace holdfast::raft
