// What is particular to the segmented log: files, limits, failures, threads.
#include "storage/segmented_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/strings.h"
#include "storage/damage.h"
#include "tests/storage_log/fault_file_system.h"
#include "tests/storage_log/log_model.h"

namespace holdfast::storage {
namespace {

using testing::HasSubstr;

// Crashes make the log warn, thousands of times.
class QuietEnvironment : public testing::Environment {
 public:
  void SetUp() override { ASSERT_TRUE(base::SetUpLog("error", "").ok()); }
};
[[maybe_unused]] const auto* const kQuiet = testing::AddGlobalTestEnvironment(new QuietEnvironment);

std::string Text(const absl::Status& status) { return std::string(base::Message(status)); }

LogBatch OneEntry(uint64_t index, std::string payload) {
  LogBatch batch;
  batch.entries.push_back(MakeEntry(index, 1, std::move(payload)));
  return batch;
}

class SegmentedLogTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<LogStore>> TryOpen() { return SegmentedLog::Open(options_); }
  std::unique_ptr<LogStore> MustOpen() {
    auto log = TryOpen();
    EXPECT_TRUE(log.ok()) << log.status();
    return *std::move(log);
  }
  // Appends entries from next_ on until `files` segments exist.
  void FillSegments(LogStore& log, size_t files) {
    while (CountFiles(".log") < files) {
      ASSERT_TRUE(log.Append({OneEntry(next_, std::string(100, 'x'))}).ok());
      ++next_;
    }
  }
  size_t CountFiles(std::string_view part) const {
    size_t n = 0;
    for (const std::string& path : fs_.Paths()) n += path.find(part) != std::string::npos;
    return n;
  }
  LogMark MarkAt(uint64_t index) { return {Index(index), Term(1), "members"}; }

  FaultFileSystem fs_{1};
  SegmentedLog::Options options_{.dir = "log", .segment_bytes = 1024, .fs = &fs_, .new_log_id = 9};
  uint64_t next_ = 1;
};

TEST_F(SegmentedLogTest, OptionsAreValidated) {
  EXPECT_TRUE(options_.Validate().ok());
  options_.segment_bytes = 10;
  EXPECT_TRUE(absl::IsInvalidArgument(TryOpen().status()));
  options_.segment_bytes = uint64_t{2} << 30;
  EXPECT_TRUE(absl::IsInvalidArgument(TryOpen().status()));
  options_.segment_bytes = 1024;
  options_.dir = "";
  EXPECT_TRUE(absl::IsInvalidArgument(TryOpen().status()));
}

TEST_F(SegmentedLogTest, ASecondOpenerIsRefused) {
  auto log = MustOpen();
  const auto second = TryOpen();
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status()));
  EXPECT_THAT(Text(second.status()), HasSubstr("in use by another process"));
  log.reset();
  EXPECT_TRUE(TryOpen().ok());
}

TEST_F(SegmentedLogTest, OneAppendIsOneWriteAndOneSync) {
  auto log = MustOpen();
  const uint64_t before = fs_.operations();
  ASSERT_TRUE(log->Append({OneEntry(1, "a"), OneEntry(2, "b"), OneEntry(3, "c")}).ok());
  EXPECT_EQ(fs_.operations() - before, 2u);
}

TEST_F(SegmentedLogTest, AHintTouchesNoDisk) {
  auto log = MustOpen();
  const uint64_t before = fs_.operations();
  LogBatch hint;
  hint.hard_state = HardState{.term = {}, .vote = {}, .commit = Index(0)};
  hint.must_sync = false;
  ASSERT_TRUE(log->Append({hint, hint}).ok());
  EXPECT_EQ(fs_.operations(), before);
}

TEST_F(SegmentedLogTest, AVoteOrATermIsNeverTakenForAHint) {
  auto log = MustOpen();
  LogBatch vote;
  vote.hard_state = HardState{.term = Term(4), .vote = NodeId(2), .commit = {}};
  vote.must_sync = false;
  ASSERT_TRUE(log->Append({vote}).ok());
  vote.hard_state->vote = NodeId(3);
  ASSERT_TRUE(log->Append({vote}).ok());
  vote.hard_state->term = Term(5);
  ASSERT_TRUE(log->Append({vote}).ok());
  vote.hard_state->vote = NodeId(1);  // last, so that no later term's sync carries it
  ASSERT_TRUE(log->Append({vote}).ok());
  fs_.Stop();
  log.reset();
  fs_.PowerCut();
  log = MustOpen();
  EXPECT_EQ(log->recovered().hard_state, *vote.hard_state);
}

TEST_F(SegmentedLogTest, ASegmentThatIsBeingReadIsNotRecycled) {
  auto log = MustOpen();
  FillSegments(*log, 3);
  // Between the read's look at the tables and its look at the disk, its segment is compacted away
  // and every spare is written over.
  fs_.OnNextRead([&] {
    ASSERT_TRUE(log->Compact(MarkAt(next_ - 1)).ok());
    FillSegments(*log, 3);
    ASSERT_EQ(CountFiles("spare-"), 0u);
  });
  const auto read = log->Read(Index(1), Index(3), 1 << 20);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 3u);
  EXPECT_EQ((*read)[0]->payload, std::string(100, 'x'));
}

TEST_F(SegmentedLogTest, CompactionRecyclesTwoSegmentsAndRemovesTheRest) {
  auto log = MustOpen();
  FillSegments(*log, 6);
  const uint64_t full = log->disk_bytes();
  EXPECT_EQ(full, 6 * 1024u);
  ASSERT_TRUE(log->Compact(MarkAt(next_ - 2)).ok());
  EXPECT_EQ(CountFiles(".log"), 1u);
  EXPECT_EQ(CountFiles("spare-"), 2u);
  EXPECT_EQ(log->disk_bytes(), 3 * 1024u);
  FillSegments(*log, 3);
  EXPECT_EQ(CountFiles("spare-"), 0u);
  EXPECT_EQ(log->disk_bytes(), 3 * 1024u);
  log.reset();
  log = MustOpen();
  EXPECT_EQ(log->recovered().last, Index(next_ - 1));
  EXPECT_EQ(log->disk_bytes(), 3 * 1024u);
}

TEST_F(SegmentedLogTest, WhatARecycledSegmentStillHoldsNeverCounts) {
  // Every segment is full of valid frames of its former life; a new one is cut at every frame.
  auto log = MustOpen();
  FillSegments(*log, 4);
  ASSERT_TRUE(log->Compact(MarkAt(next_ - 2)).ok());
  ASSERT_EQ(CountFiles("spare-"), 2u);
  FillSegments(*log, 2);
  for (int i = 0; i < 4; ++i) {
    fs_.Stop();
    log.reset();
    fs_.PowerCut();
    log = MustOpen();
    ASSERT_EQ(log->recovered().last, Index(next_ - 1));
    ASSERT_TRUE(log->Append({OneEntry(next_, "y")}).ok());
    ++next_;
  }
}

TEST_F(SegmentedLogTest, SparesAreKeptOverARestartUnlessTheirSizeChanged) {
  auto log = MustOpen();
  FillSegments(*log, 5);
  ASSERT_TRUE(log->Compact(MarkAt(next_ - 2)).ok());
  log.reset();
  log = MustOpen();
  EXPECT_EQ(CountFiles("spare-"), 2u);
  log.reset();
  options_.segment_bytes = 2048;
  log = MustOpen();
  EXPECT_EQ(CountFiles("spare-"), 0u);
}

TEST_F(SegmentedLogTest, AnUnfinishedSegmentIsRemoved) {
  MustOpen().reset();
  fs_.SetBytes("log/next.tmp", "half");
  auto log = MustOpen();
  EXPECT_EQ(CountFiles("next.tmp"), 0u);
  FillSegments(*log, 2);
}

TEST_F(SegmentedLogTest, AnEntryMayBeLargerThanASegment) {
  auto log = MustOpen();
  const std::string big(50'000, 'b');
  ASSERT_TRUE(log->Append({OneEntry(1, "a")}).ok());
  ASSERT_TRUE(log->Append({OneEntry(2, big)}).ok());
  ASSERT_TRUE(log->Append({OneEntry(3, "c")}).ok());
  log.reset();
  log = MustOpen();
  EXPECT_EQ((*log->Read(Index(2), Index(2), 1))[0]->payload, big);
  ASSERT_TRUE(log->Compact(MarkAt(3)).ok());
  EXPECT_LE(log->disk_bytes(), 3 * 1024u);  // the oversized one was not kept as a spare
}

TEST_F(SegmentedLogTest, TooManyEntriesAreRefusedWithoutHarm) {
  options_.entries_max = 3;
  auto log = MustOpen();
  for (uint64_t i = 1; i <= 3; ++i) ASSERT_TRUE(log->Append({OneEntry(i, "x")}).ok());
  const absl::Status refused = log->Append({OneEntry(4, "x")});
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_THAT(Text(refused), HasSubstr("compaction"));
  LogBatch vote;
  vote.hard_state = HardState{.term = Term(2), .vote = {}, .commit = {}};
  EXPECT_TRUE(log->Append({vote}).ok());
}

TEST_F(SegmentedLogTest, ADiskThatIsFullStopsTheLogAndRecoveryWorks) {
  auto log = MustOpen();
  fs_.SetFull(true);
  absl::Status status;
  while (status.ok()) {
    status = log->Append({OneEntry(next_, std::string(100, 'x'))});
    if (status.ok()) ++next_;
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_THAT(Text(status), HasSubstr("disk full: free space on log"));
  const absl::Status later = log->Append({OneEntry(next_, "y")});
  EXPECT_TRUE(absl::IsDataLoss(later));
  EXPECT_EQ(Text(later), Text(status));
  log.reset();
  log = MustOpen();  // still full: what is there opens
  EXPECT_EQ(log->recovered().last, Index(next_ - 1));
  fs_.SetFull(false);
  EXPECT_TRUE(log->Append({OneEntry(next_, std::string(100, 'y'))}).ok());
}

TEST_F(SegmentedLogTest, AFailedSyncIsFinal) {
  auto log = MustOpen();
  ASSERT_TRUE(log->Append({OneEntry(1, "a")}).ok());
  fs_.FailAt(2, FaultFileSystem::Fault::kIoError);
  const absl::Status first = log->Append({OneEntry(2, "b")});
  EXPECT_TRUE(absl::IsDataLoss(first));
  EXPECT_THAT(Text(first), HasSubstr("injected"));
  const uint64_t operations = fs_.operations();
  EXPECT_EQ(log->Append({OneEntry(2, "b")}), first);
  EXPECT_EQ(log->Compact(MarkAt(1)), first);
  EXPECT_EQ(log->Read(Index(1), Index(9), 1000)->size(), 1u);
  log.reset();
  EXPECT_EQ(fs_.operations(), operations);  // the destructor left the disk alone, too
}

TEST_F(SegmentedLogTest, AnEntryReadFromThePageCacheAloneIsWrittenAgain) {
  // The fsync fails, the process restarts, and finds the entry in the page cache. It may build on
  // it only because it wrote it again: the pages counted as clean.
  auto log = MustOpen();
  fs_.FailAt(2, FaultFileSystem::Fault::kIoError);
  ASSERT_FALSE(log->Append({OneEntry(1, "a")}).ok());
  fs_.Stop();
  log.reset();
  fs_.KillProcess();
  log = MustOpen();
  ASSERT_EQ(log->recovered().last, Index(1));
  fs_.Stop();
  log.reset();
  fs_.PowerCut();
  log = MustOpen();
  EXPECT_EQ(log->recovered().last, Index(1));
}

TEST_F(SegmentedLogTest, DamageUnderARunningLogIsNoticedByRead) {
  auto log = MustOpen();
  ASSERT_TRUE(log->Append({OneEntry(1, "payload that rots")}).ok());
  const std::string path = "log/00000000000000000001.log";
  std::string bytes = fs_.Bytes(path);
  bytes[bytes.find("rots")] ^= 1;
  fs_.Overwrite(path, bytes);
  const auto read = log->Read(Index(1), Index(1), 100);
  EXPECT_TRUE(absl::IsDataLoss(read.status()));
  EXPECT_THAT(Text(read.status()), HasSubstr(path));
  const std::optional<Damage> damage = DamageOf(read.status());
  ASSERT_TRUE(damage.has_value());
  EXPECT_EQ(damage->file, path);
  EXPECT_LE(damage->first_byte, bytes.find("sots"));
  EXPECT_GE(damage->last_byte, bytes.find("sots"));
  EXPECT_EQ(damage->first_index, Index(1));
  EXPECT_EQ(damage->last_index, Index(1));
}

TEST_F(SegmentedLogTest, ABadSectorUnderARunningLogIsNoticedByRead) {
  auto log = MustOpen();
  ASSERT_TRUE(log->Append({OneEntry(1, "a"), OneEntry(2, "b")}).ok());
  fs_.FailReads("log/00000000000000000001.log", 0, 4096);
  const auto read = log->Read(Index(1), Index(2), 1000);
  const std::optional<Damage> damage = DamageOf(read.status());
  ASSERT_TRUE(damage.has_value()) << read.status();
  EXPECT_EQ(damage->first_index, Index(1));
  EXPECT_EQ(damage->last_index, Index(2));
}

TEST_F(SegmentedLogTest, AResetFreesTheSegmentsBehindIt) {
  auto log = MustOpen();
  FillSegments(*log, 5);
  LogBatch batch;
  batch.reset = LogMark{.index = Index(1000), .term = Term(3), .membership = "m"};
  ASSERT_TRUE(log->Append({batch}).ok());
  EXPECT_EQ(CountFiles(".log"), 1u);
}

TEST_F(SegmentedLogTest, EntriesBelowTheMarkAreServedWhileTheirSegmentIsThere) {
  auto log = MustOpen();
  for (uint64_t i = 1; i <= 3; ++i) ASSERT_TRUE(log->Append({OneEntry(i, "x")}).ok());
  ASSERT_TRUE(log->Compact(MarkAt(3)).ok());
  EXPECT_EQ(log->Read(Index(2), Index(3), 1000)->size(), 2u);
}

using SegmentedLogDeathTest = SegmentedLogTest;

TEST_F(SegmentedLogDeathTest, BrokenPromisesOfTheCallerStopTheProcess) {
  auto log = MustOpen();
  ASSERT_TRUE(log->Append({OneEntry(1, "a"), OneEntry(2, "b")}).ok());
  ASSERT_TRUE(log->Compact(MarkAt(1)).ok());
  EXPECT_DEATH((void)log->Append({OneEntry(4, "gap")}), "gap");
  EXPECT_DEATH((void)log->Append({OneEntry(1, "old")}), "at or below the mark");
  EXPECT_DEATH((void)log->Compact(MarkAt(3)), "above the last");
  EXPECT_DEATH((void)log->Compact(MarkAt(0)), "went back");
  LogMark wrong = MarkAt(2);
  wrong.term = Term(9);
  EXPECT_DEATH((void)log->Compact(wrong), "another term");
}

// On a real disk, because the fault file system has one thread.
class SegmentedLogOnDiskTest : public testing::Test {
 protected:
  SegmentedLogOnDiskTest()
      : dir_(testing::TempDir() + "/segmented_log_" + std::to_string(getpid())) {
    std::filesystem::remove_all(dir_);
  }
  ~SegmentedLogOnDiskTest() override { std::filesystem::remove_all(dir_); }

  const std::string dir_;
};

TEST_F(SegmentedLogOnDiskTest, ReadsRunBesideAppendsAndCompactions) {
  auto opened = SegmentedLog::Open({.dir = dir_, .segment_bytes = 4096, .entries_max = 1 << 20});
  ASSERT_TRUE(opened.ok());
  LogStore& log = **opened;
  constexpr uint64_t kEntries = 1500;
  std::atomic<uint64_t> acknowledged{0};
  std::atomic<uint64_t> good_reads{0};
  const auto payload = [](uint64_t i) { return std::string(50 + i % 100, static_cast<char>(i)); };

  const auto read_along = [&](uint64_t stride) {
    uint64_t next = 1;
    while (next <= kEntries) {
      const uint64_t last = acknowledged.load();
      if (next > last) continue;
      const auto read = log.Read(Index(next), Index(last), 2000);
      if (!read.ok()) {
        // Compacted away: allowed, and only for what lies behind the newest hundred.
        ASSERT_TRUE(absl::IsOutOfRange(read.status())) << read.status();
        ASSERT_LE(next + 100, acknowledged.load() + 1);
        next = acknowledged.load();
        continue;
      }
      for (const EntryRef& entry : *read) {
        ASSERT_EQ(entry->index, Index(next));
        ASSERT_EQ(entry->payload, payload(next));
        ++next;
      }
      next += stride;
      ++good_reads;
    }
  };
  std::thread reader([&] { read_along(0); });
  std::thread skipping_reader([&] { read_along(7); });
  for (uint64_t i = 1; i <= kEntries; ++i) {
    LogBatch batch;
    batch.entries.push_back(MakeEntry(i, 1, payload(i)));
    const absl::Status appended = log.Append({batch});
    EXPECT_TRUE(appended.ok()) << appended;
    acknowledged = i;
    if (i % 50 == 0 && i > 150) {
      EXPECT_TRUE(log.Compact({Index(i - 100), Term(1), "m"}).ok());
    }
  }
  reader.join();
  skipping_reader.join();
  EXPECT_GT(good_reads.load(), 10u);
}

TEST_F(SegmentedLogOnDiskTest, TheKernelsLockKeepsASecondOpenerOut) {
  auto first = SegmentedLog::Open({.dir = dir_, .segment_bytes = 4096});
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = SegmentedLog::Open({.dir = dir_, .segment_bytes = 4096});
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status()));
  EXPECT_THAT(Text(second.status()), HasSubstr("in use by another process"));
}

TEST_F(SegmentedLogOnDiskTest, AMissingParentIsNamed) {
  const auto log = SegmentedLog::Open({.dir = dir_ + "/no/such", .segment_bytes = 4096});
  EXPECT_TRUE(absl::IsNotFound(log.status()));
  EXPECT_THAT(Text(log.status()), HasSubstr("/no/such"));
}

}  // namespace
}  // namespace holdfast::storage
