#include "server/member_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/config.h"
#include "server/etcd_errors.h"
#include "server/url.h"

namespace holdfast::server {
namespace {

using Kind = raft::MemberChange::Kind;

bool Taken(const raft::Membership& now, const raft::MemberChange& change) {
  for (const auto& [id, urls] : now.peer_urls) {
    if (id == change.id || id == change.replaces) continue;
    // A replacement that never came up gives way to the next one.
    if (const auto it = now.promotions.find(id);
        change.replaces && it != now.promotions.end() && it->second == change.replaces) {
      continue;
    }
    for (const std::string& url : change.peer_urls) {
      if (std::ranges::find(urls, url) != urls.end()) return true;
    }
  }
  return false;
}

// Voters, and learners that will be; replacements count as those they replace.
absl::Status CheckVoters(const raft::Membership& now, NodeId newcomer) {
  size_t voters = now.voters.size();
  for (const auto& [learner, replaces] : now.promotions) voters += !replaces && learner != newcomer;
  if (voters < Config::kVotersMax) return absl::OkStatus();
  return absl::FailedPreconditionError(
      fmt::format("holdfast: the cluster has {} voters, and more would only slow it down: add a "
                  "learner, or remove a voter",
                  voters));
}

absl::Status CheckNewcomer(const raft::Membership& now, const raft::MemberChange& change) {
  if (!change.id || now.Contains(change.id) || now.Removed(change.id)) return ErrMemberExist();
  if (change.peer_urls.empty()) return ErrMemberBadUrls();
  if (Taken(now, change)) return ErrPeerUrlExist();
  if (now.All().size() >= Config::kMembersMax) return ErrTooManyLearners();
  return change.kind == Kind::kAdd ? CheckVoters(now, change.id) : absl::OkStatus();
}

// What stays must be able to decide by itself.
absl::Status CheckLeaving(const raft::Membership& now, NodeId id, const std::set<NodeId>& active) {
  if (!now.IsVoter(id)) return absl::OkStatus();
  size_t left = 0, left_active = 0;
  for (const NodeId voter : now.voters) {
    if (voter == id) continue;
    ++left;
    left_active += active.contains(voter);
  }
  if (left == 0) return ErrMemberNotEnoughStarted();
  return left_active >= left / 2 + 1 ? absl::OkStatus() : ErrUnhealthy();
}

}  // namespace

absl::Status CheckChange(const raft::Membership& now, const raft::MemberChange& change,
                         const std::set<NodeId>& active) {
  switch (change.kind) {
    case Kind::kAdd:
    case Kind::kAddLearner:
      return CheckNewcomer(now, change);
    case Kind::kReplace:
      if (!now.Contains(change.replaces)) return ErrMemberNotFound();
      if (!now.IsVoter(change.replaces)) {
        return absl::FailedPreconditionError(
            "holdfast: a learner needs no replacement: remove it and add another");
      }
      return CheckNewcomer(now, change);
    case Kind::kRemove:
    case Kind::kDemote:
      if (!now.Contains(change.id)) return ErrMemberNotFound();
      if (change.kind == Kind::kDemote && !now.IsVoter(change.id)) {
        return absl::FailedPreconditionError("holdfast: the member is a learner already");
      }
      return CheckLeaving(now, change.id, active);
    case Kind::kPromote:
      if (!now.Contains(change.id)) return ErrMemberNotFound();
      if (now.IsVoter(change.id)) return ErrMemberNotLearner();
      return CheckVoters(now, change.id);
    case Kind::kUpdate:
      if (!now.Contains(change.id)) return ErrMemberNotFound();
      if (change.peer_urls.empty()) return ErrMemberBadUrls();
      return Taken(now, change) ? ErrPeerUrlExist() : absl::OkStatus();
  }
  return absl::InvalidArgumentError("holdfast: unknown kind of membership change");
}

absl::StatusOr<std::vector<std::string>> CheckedPeerUrls(const std::vector<std::string>& urls) {
  if (urls.empty() || urls.size() > kUrlsPerListMax) return ErrMemberBadUrls();
  std::vector<std::string> checked;
  for (const std::string& text : urls) {
    const absl::StatusOr<Url> url = ParseUrl(text);
    // Nobody else could dial these.
    if (!url.ok() || url->port == 0 || url->IsWildcard()) return ErrMemberBadUrls();
    checked.push_back(url->ToString());
  }
  std::ranges::sort(checked);
  checked.erase(std::unique(checked.begin(), checked.end()), checked.end());
  return checked;
}

bool Shows(const raft::Membership& membership, const raft::MemberChange& change) {
  switch (change.kind) {
    case Kind::kAdd:
    case Kind::kAddLearner:
    case Kind::kReplace:
      return membership.Contains(change.id);
    case Kind::kRemove:
      return !membership.Contains(change.id);
    case Kind::kPromote:
      return membership.IsVoter(change.id);
    case Kind::kDemote:
      return !membership.IsVoter(change.id);
    case Kind::kUpdate: {
      const auto it = membership.peer_urls.find(change.id);
      return it != membership.peer_urls.end() && it->second == change.peer_urls;
    }
  }
  return true;
}

}  // namespace holdfast::server
