// What log_store.h promises, for every LogStore.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "storage/memory_log.h"
#include "storage/segmented_log.h"
#include "tests/storage_log/fault_file_system.h"
#include "tests/storage_log/log_model.h"

namespace holdfast::storage {
namespace {

// One log that can be restarted.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual LogStore& log() = 0;
  virtual void Restart() = 0;
};

class MemorySubject : public Subject {
 public:
  LogStore& log() override { return log_; }
  void Restart() override { log_.Reopen(); }

 private:
  MemoryLog log_;
};

class SegmentedSubject : public Subject {
 public:
  SegmentedSubject(FileSystem* fs, std::string dir)
      : options_{.dir = std::move(dir), .segment_bytes = 1024, .fs = fs, .new_log_id = 7} {
    Open();
  }
  LogStore& log() override { return *log_; }
  void Restart() override {
    log_.reset();
    Open();
  }

 private:
  void Open() {
    auto log = SegmentedLog::Open(options_);
    if (!log.ok()) std::abort();
    log_ = *std::move(log);
  }
  const SegmentedLog::Options options_;
  std::unique_ptr<LogStore> log_;
};

class FaultSubject : public SegmentedSubject {
 public:
  FaultSubject() : FaultSubject(std::make_unique<FaultFileSystem>(1)) {}

 private:
  // The log's destructor still writes, so its disk must live longer.
  explicit FaultSubject(std::unique_ptr<FaultFileSystem> fs)
      : SegmentedSubject(Keep(std::move(fs)), "log") {}
  static FileSystem* Keep(std::unique_ptr<FaultFileSystem> fs) {
    static std::vector<std::unique_ptr<FaultFileSystem>> kept;
    kept.push_back(std::move(fs));
    return kept.back().get();
  }
};

class PosixSubject : public SegmentedSubject {
 public:
  explicit PosixSubject(const std::string& dir) : SegmentedSubject(PosixFileSystem(), dir) {}
};

enum class Kind { kMemory, kSegmentedInMemory, kSegmentedOnDisk };

class LogContractTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    switch (GetParam()) {
      case Kind::kMemory:
        subject_ = std::make_unique<MemorySubject>();
        break;
      case Kind::kSegmentedInMemory:
        subject_ = std::make_unique<FaultSubject>();
        break;
      case Kind::kSegmentedOnDisk:
        dir_ = testing::TempDir() + "/log_contract_" + std::to_string(getpid());
        std::filesystem::remove_all(dir_);
        subject_ = std::make_unique<PosixSubject>(dir_);
        break;
    }
  }
  void TearDown() override {
    subject_.reset();
    if (!dir_.empty()) std::filesystem::remove_all(dir_);
  }

  LogStore& log() { return subject_->log(); }
  void Append(const std::vector<LogBatch>& batches) {
    ASSERT_TRUE(log().Append(batches).ok());
    model_.Append(batches);
  }
  void Compact(const LogMark& mark) {
    ASSERT_TRUE(log().Compact(mark).ok());
    model_.Compact(mark);
  }
  void RestartAndCompare() {
    subject_->Restart();
    ASSERT_EQ(Difference(model_, log()), "");
    model_.hard_state = log().recovered().hard_state;
  }

  LogModel model_;
  std::unique_ptr<Subject> subject_;
  std::string dir_;
};

LogBatch Entries(std::vector<EntryRef> entries) {
  LogBatch batch;
  batch.entries = std::move(entries);
  return batch;
}

TEST_P(LogContractTest, ANewLogIsEmpty) {
  EXPECT_EQ(log().recovered().last, Index(0));
  EXPECT_EQ(log().recovered().mark.index, Index(0));
  EXPECT_EQ(log().recovered().hard_state, HardState());
  EXPECT_TRUE(absl::IsOutOfRange(log().Read(Index(1), Index(1), 100).status()));
  RestartAndCompare();
}

TEST_P(LogContractTest, EntriesAndHardStateComeBack) {
  LogBatch batch = Entries({MakeEntry(1, 1, "one"), MakeEntry(2, 1, ""),
                            MakeEntry(3, 2, "members", EntryType::kConfig)});
  batch.hard_state = HardState{.term = Term(2), .vote = NodeId(3), .commit = Index(1)};
  Append({batch});
  RestartAndCompare();
  EXPECT_EQ(log().recovered().hard_state, *batch.hard_state);
}

TEST_P(LogContractTest, ASuffixIsReplaced) {
  Append({Entries({MakeEntry(1, 1, "a"), MakeEntry(2, 1, "b"),
                   MakeEntry(3, 1, "c", EntryType::kConfig), MakeEntry(4, 1, "d")})});
  Append({Entries({MakeEntry(2, 5, "B")})});
  const auto read = log().Read(Index(1), Index(9), 1000);
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ((*read)[1]->payload, "B");
  RestartAndCompare();
}

TEST_P(LogContractTest, ALaterBatchOfOneAppendReplacesAnEarlierOne) {
  Append({Entries({MakeEntry(1, 1, "a"), MakeEntry(2, 1, "b")}), Entries({MakeEntry(1, 2, "A")}),
          Entries({MakeEntry(2, 2, "B"), MakeEntry(3, 2, "C")})});
  RestartAndCompare();
}

TEST_P(LogContractTest, AMarkMovesAndTheEntriesBehindItStay) {
  for (uint64_t i = 1; i <= 60; ++i) Append({Entries({MakeEntry(i, 1 + i / 10, "payload")})});
  Compact({.index = Index(33), .term = Term(4), .membership = "three members"});
  RestartAndCompare();
  Compact({.index = Index(60), .term = Term(7), .membership = "four members"});
  RestartAndCompare();
  Append({Entries({MakeEntry(61, 8, "on it goes")})});
  RestartAndCompare();
}

TEST_P(LogContractTest, AResetDropsEverything) {
  Append({Entries({MakeEntry(1, 1, "a"), MakeEntry(2, 1, "b", EntryType::kConfig)})});
  LogBatch batch = Entries({MakeEntry(101, 4, "x")});
  batch.reset = LogMark{.index = Index(100), .term = Term(3), .membership = "five members"};
  Append({batch});
  EXPECT_TRUE(absl::IsOutOfRange(log().Read(Index(2), Index(2), 100).status()));
  RestartAndCompare();
}

TEST_P(LogContractTest, AResetMayAlsoGoBack) {
  Append({Entries({MakeEntry(1, 1, "a"), MakeEntry(2, 1, "b"), MakeEntry(3, 1, "c")})});
  LogBatch batch;
  batch.reset = LogMark{.index = Index(2), .term = Term(1), .membership = "m"};
  Append({batch});
  RestartAndCompare();
}

TEST_P(LogContractTest, ReadGivesAsManyAsFitButAtLeastOne) {
  const std::string big(500, 'x');
  Append({Entries({MakeEntry(1, 1, big), MakeEntry(2, 1, big), MakeEntry(3, 1, big)})});
  EXPECT_EQ(log().Read(Index(1), Index(3), 1)->size(), 1u);
  EXPECT_EQ(log().Read(Index(1), Index(3), 2 * (sizeof(Entry) + 500))->size(), 2u);
  EXPECT_EQ(log().Read(Index(1), Index(3), 2 * (sizeof(Entry) + 500) - 1)->size(), 1u);
  EXPECT_EQ(log().Read(Index(1), Index(2), 1 << 20)->size(), 2u);
}

TEST_P(LogContractTest, AHintNeedNotReachTheDiskButALaterWriteTakesItAlong) {
  LogBatch hint;
  hint.hard_state = HardState{.term = Term(1), .vote = NodeId(1), .commit = Index(0)};
  Append({hint});
  Append({Entries({MakeEntry(1, 1, "a")})});
  hint.hard_state->commit = Index(1);
  hint.must_sync = false;
  Append({hint});
  Append({Entries({MakeEntry(2, 1, "b")})});
  RestartAndCompare();
  EXPECT_EQ(log().recovered().hard_state.commit, Index(1));
}

TEST_P(LogContractTest, RandomHistoriesEqualTheModel) {
  const uint64_t seeds = GetParam() == Kind::kSegmentedOnDisk ? 3 : 100;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    base::Rng rng(seed);
    TearDown();
    SetUp();
    model_ = LogModel();
    for (int step = 0; step < 60; ++step) {
      if (rng.OneIn(10)) {
        RestartAndCompare();
      } else if (rng.OneIn(6)) {
        Compact(RandomMark(rng, model_));
      } else {
        Append({RandomBatch(rng, model_, 200)});
      }
      ASSERT_FALSE(HasFatalFailure());
    }
    RestartAndCompare();
    ASSERT_FALSE(HasFatalFailure());
  }
}

INSTANTIATE_TEST_SUITE_P(AllStores, LogContractTest,
                         testing::Values(Kind::kMemory, Kind::kSegmentedInMemory,
                                         Kind::kSegmentedOnDisk),
                         [](const auto& info) {
                           switch (info.param) {
                             case Kind::kMemory:
                               return "Memory";
                             case Kind::kSegmentedInMemory:
                               return "SegmentedInMemory";
                             case Kind::kSegmentedOnDisk:
                               return "SegmentedOnDisk";
                           }
                           return "";
                         });

}  // namespace
}  // namespace holdfast::storage
