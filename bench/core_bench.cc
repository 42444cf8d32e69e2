// What the Raft core costs by itself: three cores in memory, no disk, no network, one thread.
//
// An upper bound for any server built on it: a commit here is a proposal at the leader until it is
// handed to the leader's state machine, with all messages of all three members stepped.
#include <benchmark/benchmark.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "replication/raft_core.h"

namespace holdfast::raft {
namespace {

constexpr uint64_t kMembers = 3;
// Applied entries are compacted away, so that a long run needs no more memory than a short one.
constexpr uint64_t kCompactEvery = 10'000;

class MemoryCluster {
 public:
  MemoryCluster() {
    Membership membership;
    for (uint64_t id = 1; id <= kMembers; ++id) membership.voters.insert(NodeId(id));
    RaftCore::Recovered recovered;
    recovered.mark.membership = membership.Encode();
    for (const NodeId id : membership.voters) {
      CoreOptions options;
      options.id = id;
      cores_[id] = std::make_unique<RaftCore>(options, recovered, id.value);
    }
    leader().Campaign();
    Settle();
    CHECK(leader().role() == Role::kLeader);
    CHECK(leader().own_term_committed());
  }

  RaftCore& leader() { return *cores_.at(NodeId(1)); }
  uint64_t applied() const { return applied_; }
  uint64_t reads() const { return reads_; }

  // Runs until nobody has anything left to do.
  void Settle() {
    for (bool busy = true; busy;) {
      busy = false;
      for (auto& [id, core] : cores_) {
        while (core->HasReady()) {
          busy = true;
          Carry(*core, core->TakeReady());
        }
      }
    }
  }

 private:
  void Carry(RaftCore& core, Ready ready) {
    Deliver(std::move(ready.messages));
    if (!ready.append.empty()) {
      core.OnDurable(ready.append.seq);  // a disk that takes no time
      Deliver(std::move(ready.append.after_durable));
    }
    if (!ready.apply.empty()) {
      const Index last = ready.apply.back()->index;
      if (core.id() == NodeId(1)) applied_ += ready.apply.size();
      core.OnApplied(last);
      if (last.value - core.log().mark_index().value > kCompactEvery) core.CompactTo(last);
    }
    CHECK(ready.fetches.empty());
    if (core.id() == NodeId(1)) reads_ += ready.reads.size();
  }

  void Deliver(std::vector<Message> messages) {
    for (Message& m : messages) {
      RaftCore& to = *cores_.at(m.to);
      to.Step(std::move(m));
    }
  }

  std::map<NodeId, std::unique_ptr<RaftCore>> cores_;
  uint64_t applied_ = 0;
  uint64_t reads_ = 0;
};

// Arg: proposals in one turn (what natural batching makes of load).
void BM_ProposeToApply(benchmark::State& state) {
  MemoryCluster cluster;
  const auto batch = static_cast<size_t>(state.range(0));
  const std::string value(256, 'v');
  const uint64_t before = cluster.applied();
  for (auto _ : state) {
    for (size_t i = 0; i < batch; ++i) cluster.leader().Propose(1, {value});
    cluster.Settle();
  }
  const uint64_t committed = cluster.applied() - before;
  CHECK(committed == batch * state.iterations());
  state.SetItemsProcessed(static_cast<int64_t>(committed));
}
BENCHMARK(BM_ProposeToApply)->Arg(1)->Arg(16)->Arg(256)->Arg(4096);

// Arg: reads that share one round.
void BM_ReadIndex(benchmark::State& state) {
  MemoryCluster cluster;
  const auto batch = static_cast<size_t>(state.range(0));
  uint64_t next_id = 1;
  for (auto _ : state) {
    for (size_t i = 0; i < batch; ++i) cluster.leader().StartRead(next_id++);
    cluster.Settle();
  }
  CHECK(cluster.reads() == batch * state.iterations());
  state.SetItemsProcessed(static_cast<int64_t>(cluster.reads()));
}
BENCHMARK(BM_ReadIndex)->Arg(1)->Arg(64)->Arg(4096);

// A heartbeat round of an idle cluster: what it costs to stand still.
void BM_IdleHeartbeat(benchmark::State& state) {
  MemoryCluster cluster;
  const uint32_t heartbeat_ticks = CoreOptions().heartbeat_ticks;
  for (auto _ : state) {
    for (uint32_t i = 0; i < heartbeat_ticks; ++i) cluster.leader().Tick();
    cluster.Settle();
  }
  CHECK(cluster.leader().role() == Role::kLeader);
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}
BENCHMARK(BM_IdleHeartbeat);

}  // namespace
}  // namespace holdfast::raft
