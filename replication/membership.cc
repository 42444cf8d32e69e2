#include "replication/membership.h"

#include <algorithm>
#include <cstdint>
#include <functional>

#include "base/strings.h"

namespace holdfast::raft {
namespace {

constexpr char kFormat1 = 1;  // release 0.1: without promotions and removed
constexpr char kFormat = 2;
constexpr uint64_t kMaxMembers = 1024;  // a bound for the decoder, far above any real cluster

void AppendSet(std::string& out, const std::set<NodeId>& ids) {
  base::AppendBigEndian32(out, static_cast<uint32_t>(ids.size()));
  for (const NodeId id : ids) base::AppendBigEndian64(out, id.value);
}

// Reads from the front of `in`; false once anything was missing or too large.
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  uint32_t Count() {
    if (in_.size() < 4) return Fail();
    const uint32_t n = base::ReadBigEndian32(in_);
    in_.remove_prefix(4);
    return n <= kMaxMembers ? n : Fail();
  }
  uint64_t Id() {
    if (in_.size() < 8) return Fail();
    const uint64_t v = base::ReadBigEndian64(in_);
    in_.remove_prefix(8);
    return v;
  }
  std::string Text() {
    if (in_.size() < 4) return Fail(), "";
    const uint32_t n = base::ReadBigEndian32(in_);
    in_.remove_prefix(4);
    if (in_.size() < n) return Fail(), "";
    std::string text(in_.substr(0, n));
    in_.remove_prefix(n);
    return text;
  }
  std::set<NodeId> Set() {
    std::set<NodeId> ids;
    for (uint32_t n = Count(); n > 0 && ok_; --n) ids.insert(NodeId(Id()));
    return ids;
  }
  bool ok() const { return ok_; }
  bool at_end() const { return in_.empty(); }

 private:
  uint32_t Fail() {
    ok_ = false;
    return 0;
  }
  std::string_view in_;
  bool ok_ = true;
};

}  // namespace

std::vector<NodeId> Membership::All() const {
  std::set<NodeId> all = voters;
  all.insert(voters_outgoing.begin(), voters_outgoing.end());
  all.insert(learners.begin(), learners.end());
  return {all.begin(), all.end()};
}

bool Membership::Removed(NodeId id) const {
  return std::find(removed.begin(), removed.end(), id) != removed.end();
}

std::string Membership::Encode() const {
  std::string out(1, kFormat);
  base::AppendBigEndian32(out, static_cast<uint32_t>(peer_urls.size()));
  for (const auto& [id, urls] : peer_urls) {
    base::AppendBigEndian64(out, id.value);
    base::AppendBigEndian32(out, static_cast<uint32_t>(urls.size()));
    for (const std::string& url : urls) {
      base::AppendBigEndian32(out, static_cast<uint32_t>(url.size()));
      out += url;
    }
  }
  AppendSet(out, voters);
  AppendSet(out, voters_outgoing);
  AppendSet(out, learners);
  AppendSet(out, learners_next);
  base::AppendBigEndian32(out, static_cast<uint32_t>(promotions.size()));
  for (const auto& [learner, replaces] : promotions) {
    base::AppendBigEndian64(out, learner.value);
    base::AppendBigEndian64(out, replaces.value);
  }
  base::AppendBigEndian32(out, static_cast<uint32_t>(removed.size()));
  for (const NodeId id : removed) base::AppendBigEndian64(out, id.value);
  return out;
}

absl::StatusOr<Membership> Membership::Decode(std::string_view bytes) {
  const auto bad = absl::DataLossError("membership record is damaged");
  if (bytes.empty() || (bytes[0] != kFormat && bytes[0] != kFormat1)) return bad;
  Reader in(bytes.substr(1));
  Membership m;
  for (uint32_t n = in.Count(); n > 0 && in.ok(); --n) {
    std::vector<std::string>& urls = m.peer_urls[NodeId(in.Id())];
    for (uint32_t u = in.Count(); u > 0 && in.ok(); --u) urls.push_back(in.Text());
  }
  m.voters = in.Set();
  m.voters_outgoing = in.Set();
  m.learners = in.Set();
  m.learners_next = in.Set();
  if (bytes[0] == kFormat) {
    for (uint32_t n = in.Count(); n > 0 && in.ok(); --n) {
      const NodeId learner(in.Id());
      m.promotions[learner] = NodeId(in.Id());
    }
    for (uint32_t n = in.Count(); n > 0 && in.ok(); --n) m.removed.push_back(NodeId(in.Id()));
  }
  if (!in.ok() || !in.at_end()) return bad;
  return m;
}

namespace internal {

uint64_t MajorityValue(std::vector<uint64_t> values) {
  if (values.empty()) return UINT64_MAX;
  const size_t majority_nth = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(majority_nth),
                   values.end(), std::greater<>());
  return values[majority_nth];
}

VoteOutcome CountHalf(const std::set<NodeId>& voters, const std::map<NodeId, bool>& votes) {
  if (voters.empty()) return VoteOutcome::kWon;
  size_t yes = 0, no = 0;
  for (const NodeId id : voters) {
    const auto it = votes.find(id);
    if (it != votes.end()) ++(it->second ? yes : no);
  }
  const size_t majority = voters.size() / 2 + 1;
  if (yes >= majority) return VoteOutcome::kWon;
  return voters.size() - no < majority ? VoteOutcome::kLost : VoteOutcome::kPending;
}

}  // namespace internal

VoteOutcome CountVotes(const Membership& membership, const std::map<NodeId, bool>& votes) {
  const VoteOutcome a = internal::CountHalf(membership.voters, votes);
  const VoteOutcome b = internal::CountHalf(membership.voters_outgoing, votes);
  if (a == VoteOutcome::kLost || b == VoteOutcome::kLost) return VoteOutcome::kLost;
  return a == VoteOutcome::kWon && b == VoteOutcome::kWon ? VoteOutcome::kWon
                                                          : VoteOutcome::kPending;
}

}  // namespace holdfast::raft
