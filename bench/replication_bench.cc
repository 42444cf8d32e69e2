// What replication costs by itself: three members in one process, with the real peer transport on
// loopback and real logs, and a state machine that only counts.
//
//   HOLDFAST_BENCH_DIR=/some/disk replication_bench      (default: the working directory)
//
// An iteration proposes one batch at the leader (ProposeMany) and keeps `window` batches under way;
// with a window of 1 it is the latency of one client that waits for each batch. Counters: CPU
// nanoseconds of the whole process for one put, all three members together, and the shares of the
// members' threads by kind; microseconds from a batch's proposal to its apply at the leader.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "base/rng.h"
#include "replication/raft_node.h"
#include "server/peer_transport.h"
#include "storage/segmented_log.h"

namespace holdfast::bench {
namespace {

using raft::EntryRef;
using raft::RaftNode;
using Clock = std::chrono::steady_clock;

constexpr size_t kMembers = 3;
constexpr size_t kPayloadBytes = 300;
constexpr absl::Duration kPatience = absl::Seconds(30);

// Counts what is applied, and lets one thread wait for a count.
class CountingMachine : public raft::StateMachine {
 public:
  absl::Status Apply(absl::Span<const EntryRef> entries) override {
    absl::MutexLock lock(&mutex_);
    ++applies_;
    for (const EntryRef& entry : entries) {
      if (entry->type != raft::EntryType::kNormal) continue;
      CHECK(entry->payload.size() == kPayloadBytes);
      ++count_;
    }
    applied_ = entries.back()->index;
    return absl::OkStatus();
  }
  Index applied() const override {
    absl::MutexLock lock(&mutex_);
    return applied_;
  }
  absl::StatusOr<Index> Flush() override { return applied(); }
  absl::StatusOr<Checkpoint> TakeCheckpoint() override {
    return absl::UnavailableError("this machine keeps nothing");
  }
  absl::Status InstallCheckpoint(const std::string&, const storage::LogMark&) override {
    return absl::UnavailableError("this machine keeps nothing");
  }
  std::optional<storage::LogMark> installed_mark() const override { return std::nullopt; }

  void WaitForCount(uint64_t count) {
    absl::MutexLock lock(&mutex_);
    wanted_ = count;
    CHECK(mutex_.AwaitWithTimeout(absl::Condition(
                                      +[](CountingMachine* m) ABSL_NO_THREAD_SAFETY_ANALYSIS {
                                        return m->count_ >= m->wanted_;
                                      },
                                      this),
                                  kPatience));
  }
  uint64_t count() const {
    absl::MutexLock lock(&mutex_);
    return count_;
  }
  uint64_t applies() const {
    absl::MutexLock lock(&mutex_);
    return applies_;
  }

 private:
  mutable absl::Mutex mutex_;
  Index applied_;
  uint64_t count_ = 0;
  uint64_t wanted_ = 0;
  uint64_t applies_ = 0;
};

struct Member {
  std::unique_ptr<storage::LogStore> log;
  std::unique_ptr<CountingMachine> machine;
  std::unique_ptr<server::PeerTransport> transport;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<RaftNode> node;
  std::string url;
};

class Cluster {
 public:
  Cluster() {
    const char* parent = std::getenv("HOLDFAST_BENCH_DIR");
    dir_ = fmt::format("{}/replication_bench_{}", parent != nullptr ? parent : ".", ::getpid());
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directory(dir_);
    for (size_t i = 0; i < kMembers; ++i) Listen(i);
    raft::Membership membership;
    for (size_t i = 0; i < kMembers; ++i) {
      membership.voters.insert(NodeId(i + 1));
      membership.peer_urls[NodeId(i + 1)] = {members_[i].url};
    }
    for (size_t i = 0; i < kMembers; ++i) StartNode(i, membership);
    AwaitLeader();
  }
  ~Cluster() {
    for (Member& m : members_) m.transport->Stop();
    for (Member& m : members_) m.server->Shutdown();
    for (Member& m : members_) m.node->Stop();
    for (Member& m : members_) {
      m.server.reset();
      m.node.reset();
      m.transport.reset();
      m.log.reset();
    }
    std::filesystem::remove_all(dir_);
  }

  RaftNode& leader() { return *members_[leader_].node; }
  CountingMachine& machine() { return *members_[leader_].machine; }
  // Until the followers have applied everything too.
  void Quiesce() {
    for (Member& m : members_) m.machine->WaitForCount(machine().count());
  }

 private:
  void Listen(size_t i) {
    Member& m = members_[i];
    server::PeerTransport::Options options;
    options.self = NodeId(i + 1);
    options.cluster_id = 1;
    options.snapshot_dir = fmt::format("{}/snap{}", dir_, i);
    auto transport = server::PeerTransport::Create(options);
    CHECK_OK(transport.status());
    m.transport = *std::move(transport);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    server::PeerTransport::ConfigureServer(options, &builder);
    builder.RegisterService(m.transport->service());
    m.server = builder.BuildAndStart();
    CHECK(m.server != nullptr);
    m.url = fmt::format("http://127.0.0.1:{}", port);
  }

  void StartNode(size_t i, const raft::Membership& membership) {
    Member& m = members_[i];
    auto log = storage::SegmentedLog::Open({.dir = fmt::format("{}/log{}", dir_, i)});
    CHECK_OK(log.status());
    m.log = *std::move(log);
    m.machine = std::make_unique<CountingMachine>();
    raft::NodeOptions options;
    options.core.id = NodeId(i + 1);
    options.seed = i + 1;
    options.boot = base::RandomSeed();
    auto node =
        RaftNode::Start(options, membership, m.log.get(), m.machine.get(), m.transport.get());
    CHECK_OK(node.status());
    m.node = *std::move(node);
    m.transport->SetNode(m.node.get());
  }

  void AwaitLeader() {
    const auto deadline = absl::Now() + kPatience;
    while (absl::Now() < deadline) {
      absl::Notification done;
      members_[0].node->ReadIndex(absl::Seconds(10), [&](absl::StatusOr<Index>) { done.Notify(); });
      done.WaitForNotification();
      const NodeId id = members_[0].node->status().leader;
      if (!id) continue;
      leader_ = id.value - 1;
      return;
    }
    CHECK_MSG(false, "no leader");
  }

  std::string dir_;
  std::array<Member, kMembers> members_;
  size_t leader_ = 0;
};

// CPU nanoseconds of each kind of thread so far, by name.
std::map<std::string, double> CpuByThread() {
  std::map<std::string, double> out;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream comm(task.path() / "comm");
    std::ifstream sched(task.path() / "schedstat");
    std::string name;
    double ns = 0;
    if (!std::getline(comm, name) || !(sched >> ns)) continue;
    out[name.starts_with("hf-") ? name.substr(3) : "grpc"] += ns;
  }
  return out;
}

double ProcessCpuNs() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto ns = [](const timeval& t) { return 1e9 * t.tv_sec + 1e3 * t.tv_usec; };
  return ns(usage.ru_utime) + ns(usage.ru_stime);
}

void BM_Replicate(benchmark::State& state) {
  Cluster cluster;
  const auto batch = static_cast<size_t>(state.range(0));
  const auto window = static_cast<uint64_t>(state.range(1));
  const std::string payload(kPayloadBytes, 'v');
  std::deque<Clock::time_point> under_way;
  std::vector<double> micros;
  uint64_t proposed = 0, answered = 0;
  const auto await_oldest = [&] {
    cluster.machine().WaitForCount((++answered) * batch);
    const std::chrono::duration<double> took = Clock::now() - under_way.front();
    under_way.pop_front();
    micros.push_back(took.count() * 1e6);
  };
  const auto propose = [&] {
    std::vector<std::string> payloads(batch, payload);
    under_way.push_back(Clock::now());
    cluster.leader().ProposeMany(std::move(payloads),
                                 [](size_t, const absl::Status& why) { CHECK_OK(why); });
    if (++proposed - answered >= window) await_oldest();
  };
  for (int i = 0; i < 50; ++i) propose();
  micros.clear();
  const double cpu_before = ProcessCpuNs();
  const auto threads_before = CpuByThread();
  const uint64_t puts_before = proposed * batch;
  const uint64_t applies_before = cluster.machine().applies();
  for (auto _ : state) propose();
  while (answered < proposed) await_oldest();
  const double puts = static_cast<double>(proposed * batch - puts_before);
  const double applies = static_cast<double>(cluster.machine().applies() - applies_before);
  cluster.Quiesce();
  state.counters["cpu_ns"] = (ProcessCpuNs() - cpu_before) / puts;
  for (const auto& [name, ns] : CpuByThread()) {
    const auto before = threads_before.find(name);
    const double begin = before == threads_before.end() ? 0 : before->second;
    state.counters["cpu_" + name] = (ns - begin) / puts;
  }
  std::sort(micros.begin(), micros.end());
  state.counters["p50_us"] = micros[micros.size() / 2];
  state.counters["p99_us"] = micros[micros.size() * 99 / 100];
  state.counters["per_apply"] = puts / applies;
  state.SetItemsProcessed(static_cast<int64_t>(puts));
}
BENCHMARK(BM_Replicate)->Args({1, 1})->Iterations(3000)->UseRealTime();
BENCHMARK(BM_Replicate)->Args({1, 100})->Iterations(50'000)->UseRealTime();
BENCHMARK(BM_Replicate)->Args({32, 32})->Iterations(10'000)->UseRealTime();
BENCHMARK(BM_Replicate)->Args({256, 16})->Iterations(3000)->UseRealTime();
BENCHMARK(BM_Replicate)->Args({2048, 4})->Iterations(500)->UseRealTime();

}  // namespace
}  // namespace holdfast::bench
