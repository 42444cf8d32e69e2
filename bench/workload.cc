#include "bench/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/rng.h"
#include "base/strings.h"

namespace holdfast::bench {
namespace {

constexpr size_t kLargeValue = 64 * 1024;
constexpr size_t kLargestValue = 1024 * 1024;
// So few keys, so that large values do not fill the disk with more than their history.
constexpr uint64_t kLargeKeys = 200;

// Keys beyond the loaded ones, in order: drawn by who inserts, readable once all before it have
// been answered. Threads: all.
class InsertedKeys {
 public:
  explicit InsertedKeys(uint64_t loaded) : next_(loaded), readable_(loaded) {}

  uint64_t Draw() {
    const std::lock_guard lock(mutex_);
    return next_++;
  }
  // A failed insert ends too: else nothing behind it would ever be read.
  void Ended(uint64_t key) {
    const std::lock_guard lock(mutex_);
    ended_.insert(key);
    while (!ended_.empty() && *ended_.begin() == readable_) {
      ended_.erase(ended_.begin());
      ++readable_;
    }
  }
  // Keys [0, that) may be read.
  uint64_t readable() const {
    const std::lock_guard lock(mutex_);
    return readable_;
  }

 private:
  mutable std::mutex mutex_;
  uint64_t next_;
  uint64_t readable_;         // Invariant: readable_ <= next_.
  std::set<uint64_t> ended_;  // out of order; at most one for each call in flight
};

class WorkloadSource : public OperationSource {
 public:
  WorkloadSource(const Workload& workload, const WorkloadData& data,
                 std::shared_ptr<InsertedKeys> inserted, uint64_t worker, uint64_t workers)
      : workload_(workload),
        loaded_(data.key_space),
        inserted_(std::move(inserted)),
        rng_(data.seed * 2 * workers + 2 * worker),
        given_(data.order, data.key_space, worker, workers,
               data.seed * 2 * workers + 2 * worker + 1),
        scrambled_(data.key_space) {}

  Operation Next() override {
    const uint64_t draw = rng_.Next();
    double left = double(draw >> 11) * 0x1p-53;
    const auto is = [&left](double share) {
      left -= share;
      return left < 0;
    };
    if (is(workload_.get)) return Make(OpKind::kGet, Key(), 1, draw);
    if (is(workload_.scan)) {
      return Make(OpKind::kScan, Key(), 1 + rng_.Below(kMaxScanKeys), draw);
    }
    if (is(workload_.insert)) return Make(OpKind::kPut, inserted_->Draw(), 1, draw);
    if (is(workload_.modify)) return Make(OpKind::kModify, Key(), 1, draw);
    if (is(workload_.txn)) {
      const uint64_t puts = std::min(kTxnPuts, loaded_);
      return Make(OpKind::kTxn, std::min(Key(), loaded_ - puts), puts, draw);
    }
    return Make(OpKind::kPut, Key(), 1, draw);
  }

  void Ended(OpKind kind, uint64_t first_key) override {
    if (kind == OpKind::kPut && first_key >= loaded_) inserted_->Ended(first_key);
  }

 private:
  static Operation Make(OpKind kind, uint64_t key, uint64_t keys, uint64_t salt) {
    return {.kind = kind, .first_key = key, .keys = keys, .salt = salt};
  }

  uint64_t Key() {
    switch (workload_.keys) {
      case KeyDraw::kGiven:
        return given_.Next();
      case KeyDraw::kScrambledZipf:
        return scrambled_.Next(rng_);
      case KeyDraw::kLatest: {
        // Rank 1 is the newest key, whichever that is now.
        const uint64_t readable = inserted_->readable();
        return readable - ZipfRanks(readable).Next(rng_);
      }
    }
    CHECK_MSG(false, "unknown key draw");
  }

  const Workload workload_;
  const uint64_t loaded_;
  const std::shared_ptr<InsertedKeys> inserted_;
  base::Rng rng_;
  KeyChooser given_;
  ScrambledZipf scrambled_;
};

std::vector<Workload> MakeWorkloads() {
  constexpr KeyDraw kZipf = KeyDraw::kScrambledZipf;
  std::vector<Workload> all = {PutWorkload(), GetWorkload()};
  const auto add = [&all](Workload workload) { all.push_back(std::move(workload)); };
  add({.name = "get-serializable",
       .about = "gets of a member's own state, of any age",
       .get = 1,
       .read = ReadLevel::kSerializable});
  add({.name = "get-bounded",
       .about = "gets of a member's state, proven to be at most 1 s old (etcd: serializable)",
       .get = 1,
       .read = ReadLevel::kBounded});
  add({.name = "get-mirror",
       .about = "gets of the client library's own copy (native API only)",
       .get = 1,
       .read = ReadLevel::kMirror});
  all.push_back(MixedWorkload(0.9));
  add({.name = "ycsb-a",
       .about = "half gets, half puts; zipfian keys",
       .get = 0.5,
       .put = 0.5,
       .keys = kZipf});
  add({.name = "ycsb-b",
       .about = "95 % gets, 5 % puts; zipfian keys",
       .get = 0.95,
       .put = 0.05,
       .keys = kZipf});
  add({.name = "ycsb-c", .about = "gets alone; zipfian keys", .get = 1, .keys = kZipf});
  add({.name = "ycsb-d",
       .about = "95 % gets, 5 % inserts; the newest keys are read most",
       .get = 0.95,
       .insert = 0.05,
       .keys = KeyDraw::kLatest});
  add({.name = "ycsb-e",
       .about = "95 % scans of 1 to 100 keys, 5 % inserts; zipfian begins",
       .insert = 0.05,
       .scan = 0.95,
       .keys = kZipf});
  add({.name = "ycsb-f",
       .about = "half gets, half read-modify-writes (compare and swap); zipfian keys",
       .get = 0.5,
       .modify = 0.5,
       .keys = kZipf});
  add({.name = "txn", .about = "transactions of one compare and four puts", .txn = 1});
  add({.name = "large-64k",
       .about = "puts of 64 KiB values",
       .put = 1,
       .value_size = kLargeValue,
       .key_space = kLargeKeys});
  add({.name = "large-1m",
       .about = "puts of 1 MiB values",
       .put = 1,
       .value_size = kLargestValue,
       .key_space = kLargeKeys});
  return all;
}

}  // namespace

Workload PutWorkload() { return {.name = "put", .about = "puts", .put = 1}; }
Workload GetWorkload() { return {.name = "get", .about = "linearizable gets", .get = 1}; }

Workload MixedWorkload(double read_ratio) {
  CHECK(read_ratio >= 0);
  CHECK(read_ratio <= 1);
  return {.name = "mixed",
          .about = "90 % linearizable gets, 10 % puts",
          .get = read_ratio,
          .put = 1 - read_ratio};
}

const std::vector<Workload>& KnownWorkloads() {
  static const auto& known = *new std::vector<Workload>(MakeWorkloads());
  return known;
}

absl::StatusOr<std::vector<Workload>> FindWorkloads(std::string_view comma_separated) {
  std::vector<Workload> found;
  for (const std::string& name :
       std::vector<std::string>(absl::StrSplit(base::ToAbsl(comma_separated), ','))) {
    size_t matches = 0;
    for (const Workload& workload : KnownWorkloads()) {
      const bool large = name == "large" && workload.name.starts_with("large-");
      if (workload.name != name && !large) continue;
      found.push_back(workload);
      ++matches;
    }
    if (matches > 0) continue;
    std::string names;
    for (const Workload& workload : KnownWorkloads()) names += workload.name + ", ";
    return absl::InvalidArgumentError(fmt::format("'{}' is none of {}large", name, names));
  }
  return found;
}

std::string WorkloadsHelp() {
  std::string text;
  for (const Workload& workload : KnownWorkloads()) {
    text += fmt::format("  {:<18}{}\n", workload.name, workload.about);
  }
  return text + fmt::format("  {:<18}both sizes\n", "large");
}

std::vector<OpKind> KindsOf(const Workload& workload) {
  std::vector<OpKind> kinds;
  if (workload.get > 0) kinds.push_back(OpKind::kGet);
  if (workload.put + workload.insert > 0) kinds.push_back(OpKind::kPut);
  if (workload.scan > 0) kinds.push_back(OpKind::kScan);
  if (workload.modify > 0) kinds.push_back(OpKind::kModify);
  if (workload.txn > 0) kinds.push_back(OpKind::kTxn);
  return kinds;
}

SourceFactory NewWorkloadSource(const Workload& workload, const WorkloadData& data) {
  auto inserted = std::make_shared<InsertedKeys>(data.key_space);
  return [workload, data, inserted](uint64_t worker, uint64_t workers) {
    return std::make_unique<WorkloadSource>(workload, data, inserted, worker, workers);
  };
}

}  // namespace holdfast::bench
