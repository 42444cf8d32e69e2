// A few cores, the network between them and their disks, moved only by the commands of a script.
//
// Nothing happens by itself: messages wait until they are delivered, time stands still until it is
// ticked. What a member can do alone it does at once (takes its Ready, writes, applies), unless it
// is told to hold. After every step the core's invariants and the cluster's safety are checked.
// Threads: one.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "args.h"
#include "fake_disk.h"
#include "replication/member_change.h"
#include "replication/raft_core.h"
#include "script.h"

namespace holdfast::raft::test {

class World {
 public:
  // The trace that the command left. InvalidArgument: the command is not understood, or cannot be
  // carried out as things are. Internal: Raft's safety was broken.
  absl::StatusOr<std::vector<std::string>> Run(const Command& command);

  // Name and arguments of every command, for documentation and for tests.
  static std::vector<std::pair<std::string_view, std::string_view>> Commands();

 private:
  // What a trace has told of a member, so that it only tells what changed.
  struct Seen {
    Role role = Role::kFollower;
    Term term;
    NodeId leader;
    Index commit;
    Membership members;
    NodeId transferring_to;
    std::map<NodeId, ProgressState> peers;
  };

  struct Actor {
    Actor(CoreOptions options, const Membership& first)
        : options(std::move(options)), disk(first) {}
    CoreOptions options;
    FakeDisk disk;
    std::unique_ptr<RaftCore> core;  // null: crashed
    uint64_t lives = 0;
    Index machine;  // the state machine's applied index
    Seen seen;
    bool hold_ready = false, hold_disk = false, hold_apply = false, hold_fetch = false;
    std::deque<AppendBatch> batches;
    std::deque<Index> applies;
    std::deque<FetchRequest> fetches;
  };

  using Handler = absl::Status (World::*)(Args&);
  struct CommandRow {
    std::string_view name;
    std::string_view usage;
    Handler handler;
  };
  static const std::vector<CommandRow>& Table();

  // --- commands.cc: one function a command (README.md) ---
  absl::Status Cluster(Args& args);
  absl::Status Given(Args& args);
  absl::Status Campaign(Args& args);
  absl::Status Tick(Args& args);
  absl::Status Deliver(Args& args);
  absl::Status Drop(Args& args);
  absl::Status Repeat(Args& args);
  absl::Status Stabilize(Args& args);
  absl::Status Cut(Args& args);
  absl::Status Isolate(Args& args);
  absl::Status Heal(Args& args);
  absl::Status Hold(Args& args);
  absl::Status Release(Args& args);
  absl::Status ProcessReady(Args& args);
  absl::Status ProcessLog(Args& args);
  absl::Status ProcessApply(Args& args);
  absl::Status ProcessFetch(Args& args);
  absl::Status Propose(Args& args);
  absl::Status Read(Args& args);
  absl::Status Probe(Args& args);
  absl::Status ChangeMembers(Args& args);
  absl::Status SetMembers(Args& args);
  absl::Status Transfer(Args& args);
  absl::Status Unreachable(Args& args);
  absl::Status Compact(Args& args);
  absl::Status Snapshot(Args& args);
  absl::Status Report(Args& args);
  absl::Status Crash(Args& args);
  absl::Status Restart(Args& args);
  absl::Status Status(Args& args);
  absl::Status Log(Args& args);
  absl::Status Members(Args& args);
  absl::Status ShowProgress(Args& args);
  absl::Status Network(Args& args);

  // --- arguments ---
  Actor* TakeAlive(Args& args, std::string_view what);
  std::vector<Actor*> Resolve(Args& args, const IdList& list, bool alive);
  std::function<bool(const Message&)> TakeFilter(Args& args);
  absl::StatusOr<MemberChange> TakeChange(Args& args);
  CoreOptions TakeOptions(Args& args);

  // --- world.cc: what members do ---
  void Boot(Actor& actor, Index applied);
  // Everything that the member can do alone.
  void Pump(Actor& actor);
  void TakeReady(Actor& actor);
  void Carry(Actor& actor, Ready ready);
  void FinishWrite(Actor& actor);
  void FinishApply(Actor& actor);
  void FinishFetch(Actor& actor);
  void Post(Message m);
  void Arrive(Message m);
  // Removes and returns the oldest message that `wanted` takes.
  std::optional<Message> TakeMessage(const std::function<bool(const Message&)>& wanted);
  void ReportChanges(Actor& actor);
  void ReportPeers(Actor& actor);
  void ReportOutcomes(const Actor& actor, const Ready& ready);
  void CheckSafety(const Actor& actor);
  void CheckApplied(const Actor& actor, const std::vector<EntryRef>& entries);
  void Violation(std::string text);
  void ProposeTarget(Actor& actor, const Membership& target);

  template <class... T>
  void Say(fmt::format_string<T...> format, T&&... args) {
    if (!silent_) trace_.push_back(fmt::format(format, std::forward<T>(args)...));
  }

  std::map<uint64_t, std::unique_ptr<Actor>> actors_;
  std::deque<Message> network_;
  std::set<std::pair<uint64_t, uint64_t>> cut_;
  uint64_t next_id_ = 0;  // of reads, proposals and probes
  std::vector<std::string> trace_;
  bool silent_ = false;
  std::string violation_;
  std::map<Term, NodeId> leaders_;
  std::map<Index, EntryRef> applied_;
};

// Runs every command of a script. Traces in order; InvalidArgument or Internal with "file:line".
absl::StatusOr<std::vector<std::vector<std::string>>> RunScript(const Script& script);

}  // namespace holdfast::raft::test
