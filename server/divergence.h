// Finds a member whose data differs from the others', while everything runs, and has it repaired.
//
// How: the leader puts a Check into the log (api/holdfast/command.proto): "digest the next thousand
// records". Every member computes it at that very entry, so the digests are of one state, and must
// be equal. The leader asks the others for theirs (PeerChecks) and compares:
//   a majority of the voters agrees   whoever has another digest is differing: it is told (Fence),
//                                     and the alarm CORRUPT is raised for it. It answers no client
//                                     any more, notes the damage, stops, and its next start repairs
//                                     it from the others (server/repair.h).
//   it is the leader itself           the same, and it hands leadership over first.
//   no majority agrees                nobody can tell who is right: the alarm CORRUPT of member 0,
//                                     with which nobody serves, until a person decides.
// Members that do not answer are left out, and asked again: a check that they replay later from the
// log still gives its digest.
//
// The checks go round: leases, members and alarms first, then all records, and again. One a second
// while something changes, or until everything has been looked at once since the last change; else
// one every ten seconds. A pass over n records takes about n / kMaxRecords seconds.
//
// Here: the decisions, without threads, clocks and network. divergence_checker.h runs them.
// Threads: one.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/ids.h"
#include "holdfast/command.pb.h"
#include "server/alarm_set.h"
#include "server/apply_listener.h"

namespace holdfast::server {

// What two members compare.
struct CheckDigest {
  uint64_t low = 0, high = 0;
  uint64_t records = 0;
  friend auto operator<=>(const CheckDigest&, const CheckDigest&) = default;
};
inline CheckDigest DigestOf(const CheckResult& result) {
  return {result.low, result.high, result.records};
}

class Divergence {
 public:
  // Of one check: so few that nobody's write waits for it noticeably.
  static constexpr uint64_t kMaxRecords = 1000;
  static constexpr uint64_t kMaxBytes = uint64_t{256} << 10;
  static constexpr absl::Duration kBusyInterval = absl::Seconds(1);
  static constexpr absl::Duration kIdleInterval = absl::Seconds(10);
  // Between two questions to one member, two fences, two proposals of the same alarm.
  static constexpr absl::Duration kAskInterval = absl::Milliseconds(500);
  static constexpr absl::Duration kRetryInterval = absl::Seconds(2);
  // A member that has not answered by then is left out; if those who have disagree, nobody can tell
  // who is right.
  static constexpr absl::Duration kAnswerMax = absl::Seconds(60);
  // Checks whose answers are awaited; the oldest is given up for a newer one.
  static constexpr size_t kRoundsMax = 64;

  // What the member knows of the cluster now.
  struct Cluster {
    NodeId self;
    bool leading = false;
    Term term;
    bool settled = false;  // the membership is committed and not joint
    std::set<NodeId> voters;
    std::set<NodeId> learners;
    int64_t revision = 0;  // applied
    AlarmSet alarms;
  };

  struct NextCheck {
    command::v1::Check::Part part = command::v1::Check::META;
    std::string from;
  };
  struct Question {
    NodeId to;
    std::vector<Index> indexes;
  };
  struct Fence {
    NodeId member;
    Index index;  // of the check
    std::string why;
  };
  struct AlarmChange {
    AlarmSet::Alarm alarm;
    bool raise = true;
  };
  // What to do now. Everything may fail or be lost: what still counts comes again.
  struct Actions {
    std::optional<NextCheck> check;  // propose it; OnChecked or OnCheckFailed follows
    std::vector<Question> questions;
    std::vector<Fence> fences;
    std::vector<AlarmChange> alarms;
    std::optional<Fence> self;          // this member differs: it must not go on
    std::vector<std::string> warnings;  // to be logged
  };

  // `now`: since any instant that stays the same, never going back.
  Actions Tick(absl::Duration now, const Cluster& cluster);

  // The check that Tick gave was applied here.
  void OnChecked(absl::Duration now, const CheckResult& own);
  // It was not, or it is not known.
  void OnCheckFailed(absl::Duration now);
  void OnDigest(NodeId from, Index index, const CheckDigest& digest);

 private:
  struct Round {
    absl::Duration began;
    std::set<NodeId> voters;
    std::set<NodeId> others;                // learners too, without self
    std::map<NodeId, CheckDigest> digests;  // who has answered, self included
  };
  struct Differing {
    Index index;
    std::string why;
    std::optional<absl::Duration> fenced_at = std::nullopt;
    std::optional<absl::Duration> raised_at = std::nullopt;
  };

  void Reset(absl::Duration now, const Cluster& cluster);
  void MaybeCheck(absl::Duration now, Actions* actions);
  void Ask(absl::Duration now, Actions* actions);
  void Judge(absl::Duration now, Actions* actions);
  // False: there is nothing more to be learned from it.
  bool JudgeRound(absl::Duration now, Index index, const Round& round, Actions* actions);
  void Act(absl::Duration now, Actions* actions);
  std::optional<CheckDigest> MajorityOf(const Round& round) const;

  Cluster cluster_;  // as of the last Tick
  // The pass.
  NextCheck next_;
  bool check_under_way_ = false;
  absl::Duration last_check_ = -absl::InfiniteDuration();
  int64_t pass_revision_ = -1;  // when the pass began
  bool pass_clean_ = true;      // nothing has changed since
  bool all_seen_ = false;       // a whole pass went over what is there now
  // By the index of the check. At most kRoundsMax.
  std::map<Index, Round> rounds_;
  std::map<NodeId, absl::Duration> asked_at_;
  std::map<NodeId, Differing> differing_;  // members; at most as many as there are
  std::optional<Fence> all_;               // no majority agrees
  std::optional<absl::Duration> all_raised_at_;
  std::map<uint64_t, absl::Duration> cleared_at_;  // alarms of members that left
};

}  // namespace holdfast::server
