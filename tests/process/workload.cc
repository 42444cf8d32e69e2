#include "tests/process/workload.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <utility>

#include "bench/monotonic.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

using bench::MonotonicNs;
using history::Kind;
using history::Outcome;

void TakeSight(const std::optional<Entry>& entry, history::Op& op) {
  op.looked = true;
  op.found = entry.has_value();
  if (!op.found) return;
  op.found_value = entry->value;
  op.found_mod = int64_t(entry->mod_revision);
}

}  // namespace

struct Workload::Worker {
  int number;
  base::Rng rng;
  std::unique_ptr<Client> client;
  int writes = 0;
  std::map<std::string, int64_t> last_mod;  // what it knows of each key, so that compares may hold
  std::vector<history::Op> history;
  std::thread thread;
};

Workload::Workload(const WorkloadOptions& options)
    : options_(options), last_acked_ns_(MonotonicNs()) {
  base::Rng seeds(options.seed);
  for (int i = 0; i < options.clients; ++i) {
    ClientOptions client_options;
    client_options.endpoints = options.endpoints;
    client_options.seed = seeds.Next();
    auto client = Client::Open(client_options);
    EXPECT_TRUE(client.ok()) << client.status();
    workers_.emplace_back(new Worker{.number = i,
                                     .rng = base::Rng(seeds.Next()),
                                     .client = *std::move(client),
                                     .last_mod = {},
                                     .history = {},
                                     .thread = {}});
  }
  for (const auto& worker : workers_) {
    worker->thread = std::thread([this, w = worker.get()] { Run(*w); });
  }
}

Workload::~Workload() { Stop(); }

std::vector<history::Op> Workload::Stop() {
  stop_ = true;
  std::vector<history::Op> all;
  for (const auto& worker : workers_) {
    if (worker->thread.joinable()) worker->thread.join();
    std::move(worker->history.begin(), worker->history.end(), std::back_inserter(all));
    worker->history.clear();
  }
  return all;
}

void Workload::Run(Worker& worker) {
  while (!stop_) {
    history::Op op = Next(worker);
    Perform(worker, op);
    worker.history.push_back(std::move(op));
  }
}

history::Op Workload::Next(Worker& worker) {
  history::Op op;
  op.client = worker.number;
  op.key = fmt::format("h{}", worker.rng.Below(uint64_t(options_.keys)));
  const uint64_t dice = worker.rng.Below(100);
  op.kind = dice < 50   ? Kind::kGet
            : dice < 75 ? Kind::kPut
            : dice < 85 ? Kind::kDelete
                        : Kind::kCas;
  op.stale = dice < 10;
  if (op.kind == Kind::kPut || op.kind == Kind::kCas) {
    op.value = fmt::format("{}.{}", worker.number, worker.writes++);
  }
  if (op.kind == Kind::kCas) op.expected_mod = worker.last_mod[op.key];
  return op;
}

void Workload::Perform(Worker& worker, history::Op& op) {
  const WriteOptions write{.deadline = options_.deadline};
  Client& client = *worker.client;
  absl::Status status;
  op.start_ns = MonotonicNs();
  switch (op.kind) {
    case Kind::kGet: {
      ReadOptions read = op.stale ? ReadOptions::Bounded(absl::InfiniteDuration()) : ReadOptions();
      const auto got = client.Get(op.key, read.Deadline(options_.deadline));
      status = got.status();
      if (!got.ok()) break;
      op.revision = int64_t(got->fresh.revision());
      TakeSight(got->value, op);
      break;
    }
    case Kind::kPut: {
      const auto put = client.Put(op.key, op.value, write);
      status = put.status();
      if (put.ok()) op.revision = int64_t(put->token.revision);
      break;
    }
    case Kind::kDelete: {
      const auto deleted = client.Delete(op.key, write);
      status = deleted.status();
      if (!deleted.ok()) break;
      op.revision = int64_t(deleted->token.revision);
      op.effective = deleted->deleted > 0;
      break;
    }
    case Kind::kCas: {
      Txn txn;
      txn.If({Compare::ModRevision(op.key).Equal(op.expected_mod)})
          .Then({Op::Put(op.key, op.value)})
          .Else({Op::Get(op.key)});
      const auto committed = client.Commit(txn, write);
      status = committed.status();
      if (!committed.ok()) break;
      op.revision = int64_t(committed->token.revision);
      op.effective = committed->succeeded;
      if (op.effective) break;
      const std::vector<Entry>& entries = committed->results.at(0).range.entries;
      TakeSight(entries.empty() ? std::nullopt : std::optional(entries[0]), op);
      break;
    }
  }
  op.end_ns = MonotonicNs();
  op.outcome = status.ok()              ? Outcome::kOk
               : MaybeCommitted(status) ? Outcome::kUnknown
                                        : Outcome::kRefused;
  const bool wrote = op.kind == Kind::kPut || (op.kind == Kind::kCas && op.effective);
  if (status.ok() && wrote) worker.last_mod[op.key] = op.revision;
  if (status.ok() && op.looked) worker.last_mod[op.key] = op.found_mod;
  Note(op, status);
}

void Workload::Note(const history::Op& op, const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (op.kind == Kind::kGet) {
    if (op.stale) return;
    ++(status.ok() ? reads_.answered : reads_.failed);
    if (!status.ok()) reads_.failure = status.ToString();
    reads_.longest = std::max(reads_.longest, absl::Nanoseconds(op.end_ns - op.start_ns));
  } else if (status.ok()) {
    ++acked_writes_;
    longest_gap_ns_ = std::max(longest_gap_ns_, op.end_ns - last_acked_ns_);
    last_acked_ns_ = std::max(last_acked_ns_, op.end_ns);
  } else {
    write_failure_ = status.ToString();
  }
}

std::string Workload::write_failure() {
  absl::MutexLock lock(&mutex_);
  return write_failure_;
}

bool Workload::AwaitWrites(int64_t count, absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const int64_t wanted = acked_writes_ + count;
  const auto there = [&] {
    mutex_.AssertHeld();
    return acked_writes_ >= wanted;
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&there), timeout);
}

Workload::Reads Workload::TakeReads() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(reads_, Reads());
}

absl::Duration Workload::TakeWriteGap() {
  absl::MutexLock lock(&mutex_);
  return absl::Nanoseconds(std::exchange(longest_gap_ns_, 0));
}

void ExpectLinearizable(const std::vector<history::Op>& ops) {
  const int64_t begin_ns = MonotonicNs();
  const history::HistoryVerdict verdict = history::CheckHistory(ops);
  fmt::print(
      "history: {} operations, {} ok, {} refused, {} writes of unknown outcome seen, {} placed; "
      "checked in {:.2f} s\n",
      ops.size(), verdict.ok, verdict.refused, verdict.unknown_seen, verdict.unknown_placed,
      double(MonotonicNs() - begin_ns) / 1e9);
  EXPECT_FALSE(verdict.undecided) << "too many writes of unknown outcome to tell";
  EXPECT_GT(verdict.ok, 100);
  if (verdict.error.empty()) return;
  const std::string file = testing::TempDir() + fmt::format("holdfast_history_{}.txt", getpid());
  std::vector<history::Op> by_start = ops;
  std::sort(by_start.begin(), by_start.end(),
            [](const history::Op& a, const history::Op& b) { return a.start_ns < b.start_ns; });
  std::ofstream out(file);
  for (const history::Op& op : by_start) out << history::ToText(op) << "\n";
  ADD_FAILURE() << "not linearizable: " << verdict.error << "\nthe history is in " << file;
}

}  // namespace holdfast
