// One core, or a few, driven by hand: for tests that tell a story message by message.
//
// Member carries Readys out with a disk and a state machine that are done at once, unless a test
// holds them back. Group connects members by a network that loses only what a test says.
// Threads: one.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "fake_disk.h"
#include "replication/raft_core.h"

namespace holdfast::base {

// For GoogleTest's messages.
template <class Tag>
void PrintTo(const StrongId<Tag>& id, std::ostream* out) {
  *out << id.value;
}

}  // namespace holdfast::base

namespace holdfast::raft::test {

// heartbeat_ticks 1, election_ticks 10.
CoreOptions StoryOptions(uint64_t id);
// 1 .. voters, then learners.
Membership MembersOf(size_t voters, size_t learners = 0);
EntryRef MakeEntry(uint64_t index, uint64_t term, std::string payload = "");
// Entries from `first` on with these terms.
std::vector<EntryRef> EntriesOf(uint64_t first, const std::vector<uint64_t>& terms);

// Messages to member `to`; the sender's term.
Message AppendFrom(uint64_t from, uint64_t term, uint64_t prev_index, uint64_t prev_term,
                   std::vector<EntryRef> entries = {}, uint64_t commit = 0);
Message HeartbeatFrom(uint64_t from, uint64_t term, uint64_t round = 1, uint64_t commit = 0);
Message VoteFrom(uint64_t from, uint64_t term, uint64_t last_index, uint64_t last_term,
                 bool pre_vote = false);
Message VoteReplyFrom(uint64_t from, uint64_t term, bool reject = false, bool pre_vote = false);
Message AckFrom(uint64_t from, uint64_t term, uint64_t match);
Message RejectFrom(uint64_t from, uint64_t term, uint64_t prev_index, uint64_t hint_index,
                   uint64_t hint_term);
Message RoundReplyFrom(uint64_t from, uint64_t term, uint64_t round);

// What a member starts from.
struct Past {
  explicit Past(Membership members = MembersOf(3), uint64_t term = 0, uint64_t vote = 0,
                uint64_t commit = 0, std::vector<uint64_t> log = {})
      : members(std::move(members)), term(term), vote(vote), commit(commit), log(std::move(log)) {}
  Membership members;
  uint64_t term;
  uint64_t vote;
  uint64_t commit;
  std::vector<uint64_t> log;  // term of entry 1, 2, ...
};

class Member {
 public:
  Member(const CoreOptions& options, const Past& past, uint64_t seed = 1);

  RaftCore* operator->() { return core_.get(); }
  RaftCore& core() { return *core_; }
  FakeDisk& disk() { return disk_; }
  uint64_t id() const { return options_.id.value; }

  // Takes Readys and carries them out until there is nothing left to do; what left, in order.
  std::vector<Message> Run();
  // Takes one Ready; nothing of it is carried out but what the fields below collect.
  Ready Take();
  std::vector<Message> Step(Message message);
  std::vector<Message> Tick(uint32_t ticks = 1);
  std::vector<Message> Propose(const std::string& payload);

  // With hold_disk, batches gather in `batches`. Writes the first `count` and tells the core.
  bool hold_disk = false;
  std::deque<AppendBatch> batches;
  std::vector<Message> FinishWrites(size_t count = 1);
  bool hold_apply = false;
  std::vector<Message> FinishApply();
  bool hold_fetch = false;

  // Back from what is on disk, with a state machine at `applied`.
  void Restart(uint64_t applied = 0);
  // As a voter with everybody's consent.
  void Lead();

  // Collected by Run and Take.
  std::vector<EntryRef> applied;
  std::vector<size_t> apply_batches;  // entries in each
  std::vector<ReadGrant> reads;
  std::vector<uint64_t> reads_dropped;
  std::vector<uint64_t> refused;
  std::vector<Message> confirms;
  std::vector<uint64_t> rounds_started;
  std::vector<RoundConfirmed> rounds_confirmed;
  std::vector<NodeId> snapshots_wanted;
  std::vector<FetchRequest> fetches;

 private:
  void Carry(Ready ready, std::vector<Message>& out);
  void Write(AppendBatch batch, std::vector<Message>& out);

  const CoreOptions options_;
  FakeDisk disk_;
  std::unique_ptr<RaftCore> core_;
  uint64_t seed_;
};

std::vector<Message> OfType(const std::vector<Message>& messages, MessageType type);

class Group {
 public:
  // Log of member i + 1 is past[i].
  explicit Group(const std::vector<Past>& pasts,
                 const std::function<void(CoreOptions&)>& change = nullptr);
  explicit Group(size_t voters) : Group(std::vector<Past>(voters, Past(MembersOf(voters)))) {}

  Member& operator[](uint64_t id) { return *members_.at(id); }
  size_t size() const { return members_.size(); }

  // Delivers until nobody has anything to say.
  void Settle();
  // One tick everywhere, then Settle.
  void Tick(uint32_t ticks = 1);
  // `id` campaigns and everything is delivered; true if it leads.
  bool Elect(uint64_t id);
  // 0: nobody leads.
  uint64_t Leader();
  void Propose(uint64_t id, const std::string& payload);

  void Cut(uint64_t a, uint64_t b);
  void Isolate(uint64_t id);
  void Heal() { cut_.clear(); }
  // False: the message is lost. Called for all that the cuts let through.
  std::function<bool(const Message&)> lets_through;
  std::vector<Message> sent;  // everything, lost or not

 private:
  void Post(std::vector<Message> messages);

  std::map<uint64_t, std::unique_ptr<Member>> members_;
  std::map<std::pair<uint64_t, uint64_t>, bool> cut_;
  std::deque<Message> network_;
};

}  // namespace holdfast::raft::test
