// The workloads' shares and keys, with fixed seeds.
#include "bench/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/rng.h"

namespace holdfast::bench {
namespace {

using testing::HasSubstr;

constexpr int kDraws = 100'000;
constexpr uint64_t kKeys = 1000;

Workload Known(const std::string& name) {
  const auto found = FindWorkloads(name);
  EXPECT_TRUE(found.ok()) << found.status();
  return found->at(0);
}

std::vector<Operation> Draw(const Workload& workload, int draws, uint64_t seed = 7) {
  const auto source = NewWorkloadSource(workload, {.key_space = kKeys, .seed = seed})(0, 1);
  std::vector<Operation> operations;
  for (int i = 0; i < draws; ++i) {
    operations.push_back(source->Next());
    source->Ended(operations.back().kind, operations.back().first_key);
  }
  return operations;
}

double ShareOf(const std::vector<Operation>& operations, OpKind kind) {
  const auto count = std::ranges::count(operations, kind, &Operation::kind);
  return double(count) / double(operations.size());
}

TEST(WorkloadTest, YcsbHasTheSharesOfItsDefinition) {
  struct Expected {
    const char* name;
    double get, put, scan, modify;
  };
  for (const Expected& e :
       {Expected{"ycsb-a", 0.5, 0.5, 0, 0}, Expected{"ycsb-b", 0.95, 0.05, 0, 0},
        Expected{"ycsb-c", 1, 0, 0, 0}, Expected{"ycsb-d", 0.95, 0.05, 0, 0},
        Expected{"ycsb-e", 0, 0.05, 0.95, 0}, Expected{"ycsb-f", 0.5, 0, 0, 0.5}}) {
    const auto drawn = Draw(Known(e.name), kDraws);
    EXPECT_NEAR(ShareOf(drawn, OpKind::kGet), e.get, 0.01) << e.name;
    EXPECT_NEAR(ShareOf(drawn, OpKind::kPut), e.put, 0.01) << e.name;
    EXPECT_NEAR(ShareOf(drawn, OpKind::kScan), e.scan, 0.01) << e.name;
    EXPECT_NEAR(ShareOf(drawn, OpKind::kModify), e.modify, 0.01) << e.name;
  }
}

TEST(WorkloadTest, OneSeedGivesOneSequence) {
  const auto first = Draw(Known("ycsb-a"), 200, 3);
  const auto again = Draw(Known("ycsb-a"), 200, 3);
  const auto other = Draw(Known("ycsb-a"), 200, 4);
  EXPECT_TRUE(std::ranges::equal(first, again, {}, &Operation::first_key, &Operation::first_key));
  EXPECT_FALSE(std::ranges::equal(first, other, {}, &Operation::first_key, &Operation::first_key));
}

TEST(WorkloadTest, TwoWorkersDrawDifferently) {
  const SourceFactory factory = NewWorkloadSource(Known("ycsb-c"), {.key_space = kKeys});
  const auto a = factory(0, 2);
  const auto b = factory(1, 2);
  int same = 0;
  for (int i = 0; i < 200; ++i) same += a->Next().first_key == b->Next().first_key;
  EXPECT_LT(same, 40);
}

TEST(WorkloadTest, ScrambledZipfHasItsHotKeysAnywhere) {
  std::map<uint64_t, int> counts;
  for (const Operation& operation : Draw(Known("ycsb-c"), kDraws)) ++counts[operation.first_key];
  EXPECT_LT(counts.rbegin()->first, kKeys);
  const auto hottest =
      std::ranges::max_element(counts, {}, [](const auto& entry) { return entry.second; });
  // The first rank of 10^10 items at exponent 0.99 has 1 / zeta = 3.8 % of all draws, and lies
  // where the hash of its number falls.
  EXPECT_NEAR(double(hottest->second) / kDraws, 0.038, 0.006);
  EXPECT_NE(hottest->first, 0u);
  // The scramble leaves no key out.
  EXPECT_GT(counts.size(), kKeys * 95 / 100);
}

TEST(WorkloadTest, FnvIsTheOneOfYcsb) {
  // FNV-1a, 64 bits: the offset basis 14695981039346656037, the prime 1099511628211.
  uint64_t hash = 14695981039346656037u;
  for (int byte = 0; byte < 8; ++byte) {
    hash ^= (uint64_t{0x1234} >> (8 * byte)) & 0xff;
    hash *= 1099511628211u;
  }
  EXPECT_EQ(FnvHash(0x1234), hash);
}

TEST(WorkloadTest, LatestReadsTheNewestMostAndNeverWhatIsNotThere) {
  const auto source = NewWorkloadSource(Known("ycsb-d"), {.key_space = kKeys, .seed = 1})(0, 1);
  uint64_t inserted = kKeys;
  int newest = 0;
  int gets = 0;
  for (int i = 0; i < kDraws; ++i) {
    const Operation operation = source->Next();
    if (operation.kind == OpKind::kPut) {
      EXPECT_EQ(operation.first_key, inserted);  // in order, each once
      ++inserted;
    } else {
      ++gets;
      ASSERT_LT(operation.first_key, inserted);
      newest += operation.first_key + 1 == inserted;
    }
    source->Ended(operation.kind, operation.first_key);
  }
  EXPECT_GT(inserted, kKeys + kDraws / 25);
  // The first of ~5000 ranks has 1 / zeta = 11 %.
  EXPECT_NEAR(double(newest) / gets, 0.11, 0.025);
}

TEST(WorkloadTest, AnInsertIsReadOnlyOnceItAndThoseBeforeItHaveEnded) {
  const SourceFactory factory = NewWorkloadSource(
      {.name = "x", .get = 0.5, .insert = 0.5, .keys = KeyDraw::kLatest}, {.key_space = 1});
  const auto writer = factory(0, 2);
  const auto reader = factory(1, 2);
  std::vector<uint64_t> inserts;
  while (inserts.size() < 3) {
    const Operation operation = writer->Next();
    if (operation.kind == OpKind::kPut) inserts.push_back(operation.first_key);
  }
  const auto greatest = [&] {
    uint64_t most = 0;
    for (int i = 0; i < 200; ++i) {
      const Operation operation = reader->Next();
      if (operation.kind == OpKind::kGet) most = std::max(most, operation.first_key);
      // Its own inserts stay without an answer.
    }
    return most;
  };
  EXPECT_EQ(greatest(), 0u);
  writer->Ended(OpKind::kPut, inserts[1]);
  EXPECT_EQ(greatest(), 0u);  // the one before it has not ended
  writer->Ended(OpKind::kPut, inserts[0]);
  EXPECT_EQ(greatest(), inserts[1]);
}

TEST(WorkloadTest, ScansAreOfOneToAHundredKeysUniformly) {
  std::map<uint64_t, int> lengths;
  int scans = 0;
  for (const Operation& operation : Draw(Known("ycsb-e"), kDraws)) {
    if (operation.kind != OpKind::kScan) continue;
    ++lengths[operation.keys];
    ++scans;
  }
  EXPECT_EQ(lengths.begin()->first, 1u);
  EXPECT_EQ(lengths.rbegin()->first, 100u);
  EXPECT_EQ(lengths.size(), 100u);
  for (const auto& [length, count] : lengths) EXPECT_NEAR(count, scans / 100, 160) << length;
}

TEST(WorkloadTest, TransactionsStayInsideTheKeySpace) {
  for (const Operation& operation : Draw(Known("txn"), 5000)) {
    ASSERT_EQ(operation.kind, OpKind::kTxn);
    ASSERT_LE(operation.first_key + operation.keys, kKeys);
  }
  const auto tiny = NewWorkloadSource(Known("txn"), {.key_space = 2})(0, 1);
  const Operation operation = tiny->Next();
  EXPECT_LE(operation.first_key + operation.keys, 2u);
}

TEST(WorkloadTest, NamesAreFoundAndWrongOnesAreToldWhatThereIs) {
  EXPECT_EQ(FindWorkloads("large")->size(), 2u);
  EXPECT_EQ(FindWorkloads("put,ycsb-f,get-bounded")->size(), 3u);
  EXPECT_EQ(Known("get-bounded").read, ReadLevel::kBounded);
  EXPECT_EQ(Known("get-serializable").read, ReadLevel::kSerializable);
  EXPECT_EQ(Known("get-mirror").read, ReadLevel::kMirror);
  const absl::Status status = FindWorkloads("put,ycsb-g").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("ycsb-g"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("ycsb-f"));
  for (const Workload& workload : KnownWorkloads()) {
    EXPECT_NEAR(workload.get + workload.put + workload.insert + workload.scan + workload.modify +
                    workload.txn,
                1, 1e-12)
        << workload.name;
    EXPECT_THAT(WorkloadsHelp(), HasSubstr(workload.name));
    EXPECT_FALSE(KindsOf(workload).empty()) << workload.name;
  }
}

}  // namespace
}  // namespace holdfast::bench
