// The whole way of a batch of committed commands into the store: KvStateMachine::Apply with encoded
// entries, as every member of a cluster pays for it. The time is the whole process's CPU time, also
// flushes and compactions.
//
// The database lies in the directory HOLDFAST_BENCH_DIR (default: the system's temporary one).
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "base/rng.h"
#include "holdfast/command.pb.h"
#include "server/request_pipeline.h"
#include "server/state_machine.h"

namespace holdfast::server {
namespace {

using command::v1::Command;

constexpr uint64_t kSeed = 1;
constexpr uint64_t kOrigin = 7;
constexpr size_t kValueBytes = 256;
constexpr size_t kFillBatch = 1024;
// How many commands are made ahead, outside of the measured time.
constexpr size_t kAhead = 16384;
constexpr uint64_t kSessions = 8;

std::string Key(uint64_t n) { return fmt::format("/config/svc/{:012}", n); }

// Counts the answers, and lets them go as whoever waits for one would.
class CountingPipeline : public RequestPipeline {
 public:
  void SetNode(raft::RaftNode* /*node*/) override {}
  void Propose(Command /*command*/, Done /*done*/) override {}
  void ProposeBatch(absl::Span<Command* const> /*commands*/, BatchDone /*done*/) override {}
  void LinearizableRead(ReadDone /*done*/) override {}
  void FreshClaim(absl::Duration /*max_age*/, absl::Duration /*timeout*/,
                  absl::AnyInvocable<void() &&> /*done*/) override {}
  void Complete(std::vector<Completion> completions) override { answered += completions.size(); }
  uint64_t origin() const override { return kOrigin; }
  void Stop() override {}

  size_t answered = 0;
};

class FilledMachine {
 public:
  static FilledMachine& Get(int64_t keys) {
    if (shared_ == nullptr || shared_->keys_ != keys) {
      Drop();
      shared_ = new FilledMachine(keys);
    }
    return *shared_;
  }
  // Before main() ends: RocksDB must not outlive its own statics.
  static void Drop() {
    delete shared_;
    shared_ = nullptr;
  }
  ~FilledMachine() {
    machine_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
  }

  raft::EntryRef Entry(const Command& command) {
    auto entry = std::make_shared<storage::Entry>();
    entry->index = ++index_;
    entry->term = Term(1);
    entry->payload = command.SerializeAsString();
    return entry;
  }
  Command Put(uint64_t n, bool own) {
    Command command;
    command.set_origin(own ? kOrigin : kOrigin + 1);
    command.set_sequence(++sequence_);
    command.mutable_put()->set_key(Key(n));
    std::string* value = command.mutable_put()->mutable_value();
    value->assign(kValueBytes, 'v');
    for (size_t i = 0; i < kValueBytes / 2; i += 8) {
      const uint64_t bits = rng_.Next();
      value->replace(i, 8, reinterpret_cast<const char*>(&bits), 8);
    }
    return command;
  }
  // Sixteen writes of each session are on their way at a time.
  void Stamp(Command* command) {
    const uint64_t session = 1 + stamped_ % kSessions;
    const uint64_t sequence = 1 + stamped_ / kSessions;
    ++stamped_;
    auto* stamp = command->mutable_session();
    stamp->set_session(session);
    stamp->set_sequence(sequence);
    stamp->set_lowest_unacknowledged(sequence > 16 ? sequence - 16 : 1);
    stamp->set_digest(rng_.Next());
  }
  void Apply(absl::Span<const raft::EntryRef> entries) { CHECK_OK(machine_->Apply(entries)); }
  uint64_t RandomKey() { return rng_.Below(static_cast<uint64_t>(keys_)); }

 private:
  static inline FilledMachine* shared_ = nullptr;

  explicit FilledMachine(int64_t keys) : keys_(keys) {
    const char* parent = std::getenv("HOLDFAST_BENCH_DIR");
    dir_ = (parent != nullptr ? std::filesystem::path(parent)
                              : std::filesystem::temp_directory_path()) /
           fmt::format("holdfast_apply_bench_{}", ::getpid());
    KvStateMachine::Options options;
    options.dir = dir_;
    options.cluster_id = 1;
    options.member_id = 1;
    options.pipeline = &pipeline_;
    auto opened = KvStateMachine::Open(options);
    CHECK_OK(opened.status());
    machine_ = *std::move(opened);
    std::vector<raft::EntryRef> batch;
    for (uint64_t session = 1; session <= kSessions; ++session) {
      Command open;
      open.mutable_session_open()->set_session(session);
      open.mutable_session_open()->set_ttl_ms(60'000);
      batch.push_back(Entry(open));
    }
    for (int64_t n = 0; n < keys; ++n) {
      batch.push_back(Entry(Put(static_cast<uint64_t>(n), /*own=*/false)));
      if (batch.size() < kFillBatch && n + 1 < keys) continue;
      Apply(batch);
      batch.clear();
    }
    // No compaction that the filling left behind is charged to what is measured.
    std::atomic<bool> stop = false;
    CHECK_OK(machine_->store()->Defragment(&stop));
  }

  const int64_t keys_;
  std::filesystem::path dir_;
  base::Rng rng_{kSeed};
  CountingPipeline pipeline_;
  std::unique_ptr<KvStateMachine> machine_;
  Index index_;
  uint64_t sequence_ = 0;
  uint64_t stamped_ = 0;
};

double RssMegabytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total_pages = 0;
  int64_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return static_cast<double>(resident_pages * ::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

void BM_ApplyPuts(benchmark::State& state) {
  FilledMachine& machine = FilledMachine::Get(state.range(0));
  const auto batch = static_cast<size_t>(state.range(1));
  const bool own = state.range(2) != 0;
  const bool stamped = state.range(3) != 0;
  std::vector<raft::EntryRef> ahead;
  size_t next = 0;
  for (auto _ : state) {
    if (next == ahead.size()) {
      state.PauseTiming();
      ahead.clear();
      next = 0;
      for (size_t i = 0; i < kAhead; ++i) {
        Command command = machine.Put(machine.RandomKey(), own);
        if (stamped) machine.Stamp(&command);
        ahead.push_back(machine.Entry(command));
      }
      state.ResumeTiming();
    }
    machine.Apply(absl::MakeConstSpan(ahead).subspan(next, batch));
    next += batch;
  }
  // The log goes on without a gap into the next benchmark.
  if (next < ahead.size()) machine.Apply(absl::MakeConstSpan(ahead).subspan(next));
  state.SetItemsProcessed(state.iterations() * state.range(1));
  state.counters["rss_mb"] = RssMegabytes();
}
BENCHMARK(BM_ApplyPuts)
    ->ArgNames({"keys", "batch", "own", "stamped"})
    ->ArgsProduct({{1000, 100'000, 1'000'000}, {1, 64, 1024}, {0, 1}, {0, 1}})
    ->MeasureProcessCPUTime();

}  // namespace

static void DropShared() { FilledMachine::Drop(); }

}  // namespace holdfast::server

int main(int argc, char** argv) {
  // As holdfastd does.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  holdfast::server::DropShared();
  return 0;
}
