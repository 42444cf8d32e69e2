// One member without Raft and without threads: the real hub over the real state machine and store,
// every turn of it taken by the test. A second state machine is the leader's, which lends its
// checkpoints; it is there once it is needed.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "etcd/kv.pb.h"
#include "etcd/rpc.pb.h"
#include "holdfast/command.pb.h"
#include "kv_fake_node.h"
#include "kv_test_util.h"
#include "server/watch_hub.h"
#include "server/watch_index.h"

namespace holdfast::server::testing {

// Every event that was ever applied, as the wire shows it, with prev_kv.
class Recorder : public ApplyListener {
 public:
  bool WantsEvents() override { return true; }
  void OnEvent(const storage::EventView& event) override;
  void OnApplied(const storage::AppliedState& state, const ApplyEffects&, bool) override {
    revision_at[state.index.value] = state.revision;
  }
  std::vector<mvccpb::Event> events;
  std::map<uint64_t, int64_t> revision_at;  // by the index that ended a batch
};

// Its claims tell in their `extra` which index they were asked for: that many microseconds.
class ClaimingNode : public FakeNode {
 public:
  ClaimingNode(raft::StateMachine* machine, const base::Clock* clock)
      : FakeNode(machine), clock_(clock) {}
  std::optional<raft::Claim> ClaimFor(Index delivered) const override {
    if (!claims) return std::nullopt;
    return raft::Claim{.at = clock_->Sample(),
                       .extra = absl::Microseconds(static_cast<int64_t>(delivered.value)),
                       .index = delivered};
  }
  bool claims = true;

 private:
  const base::Clock* const clock_;
};

class WatchWorld;

// A client: takes responses only when told to.
class TestStream {
 public:
  class Sink : public WatchSink {
   public:
    void OnReady() override { ++ready; }
    void OnEnd(const absl::Status& why) override { end = why; }
    int ready = 0;
    std::optional<absl::Status> end;
  };

  TestStream(WatchWorld& world, bool needs_leader);
  ~TestStream() { Close(); }

  // From protobuf's text form.
  void Send(const std::string& request);
  void Send(const etcdserverpb::WatchRequest& request) { stream_->Handle(request); }
  // The next response; nullopt: none waits.
  std::optional<etcdserverpb::WatchResponse> Take();
  // All that wait now.
  std::vector<etcdserverpb::WatchResponse> TakeAll();
  bool may_read() const { return stream_->MayRead(); }
  void Close() {
    if (stream_ != nullptr) stream_->Close();
  }
  WatchStream* stream() { return stream_.get(); }
  const std::optional<absl::Status>& end() const { return sink_->end; }
  Sink& sink() { return *sink_; }

 private:
  std::shared_ptr<Sink> sink_;
  std::shared_ptr<WatchStream> stream_;
};

class WatchWorld {
 public:
  static constexpr uint64_t kCluster = 11;
  static constexpr uint64_t kMember = 22;

  explicit WatchWorld(WatchHub::Options options = {});

  // One batch, on both; the revision after it.
  int64_t Apply(const std::vector<command::v1::Command>& commands);
  // Only the leader hears of it; InstallSnapshot brings the member up.
  void ApplyAtLeader(const std::vector<command::v1::Command>& commands);
  void InstallSnapshot();
  int64_t Put(const std::string& key, const std::string& value = "v");
  int64_t Delete(const std::string& key, const std::string& range_end = "");
  int64_t Compact(int64_t revision);
  // So many puts in one batch and one revision.
  int64_t Txn(const std::vector<std::string>& keys, const std::string& value = "v");

  std::unique_ptr<TestStream> Open(bool needs_leader = false);
  // Lets the hub do all that it can do now.
  void Settle();

  WatchHub& hub() { return *hub_; }
  base::FakeClock& clock() { return clock_; }
  ClaimingNode& node() { return *node_; }
  const Recorder& recorder() const { return leader_ != nullptr ? leader_recorder_ : recorder_; }
  int64_t revision() const { return machine_->applied_state().revision; }
  KvStateMachine& machine() { return *machine_; }
  // What a watch must be given of what was applied so far: in order, filtered.
  std::vector<mvccpb::Event> Expected(const etcdserverpb::WatchCreateRequest& create,
                                      int64_t start_revision) const;

 private:
  static std::unique_ptr<KvStateMachine> OpenMachine(const std::string& dir);
  std::vector<raft::EntryRef> Entries(const std::vector<command::v1::Command>& commands);

  TempDir dir_;
  base::FakeClock clock_;
  Recorder recorder_, leader_recorder_;
  std::unique_ptr<WatchHub> hub_;
  std::unique_ptr<KvStateMachine> leader_, machine_;
  Index last_;
  std::vector<raft::EntryRef> entries_;
  std::unique_ptr<ClaimingNode> node_;
  int snapshots_ = 0;
};

command::v1::Command PutCommand(const std::string& key, const std::string& value);

}  // namespace holdfast::server::testing
