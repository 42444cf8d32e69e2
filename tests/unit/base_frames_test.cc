// Frames: what was written comes back; a cut, a changed byte and a whole file are told apart.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/backup_rules.h"
#include "base/frames.h"
#include "base/strings.h"

namespace holdfast::base {
namespace {

std::string Written(const std::vector<std::string>& frames) {
  std::string out;
  FrameWriter writer([&out](std::string_view bytes) {
    out.append(bytes);
    return absl::OkStatus();
  });
  for (const std::string& frame : frames) EXPECT_TRUE(writer.Write(frame).ok());
  EXPECT_EQ(writer.bytes(), out.size());
  return out;
}

struct ReadBack {
  std::vector<std::string> frames;
  absl::Status status;
  uint64_t offset = 0;
};

ReadBack Read(std::string_view bytes) {
  ReadBack back;
  FrameReader reader(SourceOf(bytes));
  std::string frame;
  while (true) {
    const absl::StatusOr<bool> more = reader.Next(&frame);
    back.offset = reader.offset();
    if (!more.ok()) back.status = more.status();
    if (!more.ok() || !*more) return back;
    back.frames.push_back(frame);
  }
}

const std::vector<std::string> kThree = {"first", "", std::string(300, 'x')};

// Where frame `i` of kThree begins; behind the last: the end.
std::vector<uint64_t> Begins() {
  std::vector<uint64_t> begins = {kFramesMagic.size()};
  for (const std::string& frame : kThree) {
    begins.push_back(begins.back() + kFrameHeadBytes + frame.size());
  }
  return begins;
}

TEST(Frames, WhatIsWrittenComesBack) {
  const ReadBack back = Read(Written(kThree));
  EXPECT_TRUE(back.status.ok()) << back.status;
  EXPECT_EQ(back.frames, kThree);
  EXPECT_EQ(back.offset, Begins().back());
}

TEST(Frames, AFileCutOffAnywhereIsTornAndTheFramesBeforeAreGiven) {
  const std::string whole = Written(kThree);
  const std::vector<uint64_t> begins = Begins();
  for (size_t size = 0; size < whole.size(); ++size) {
    const ReadBack back = Read(std::string_view(whole).substr(0, size));
    size_t sound = 0;
    while (sound < kThree.size() && begins[sound + 1] <= size) ++sound;
    EXPECT_EQ(back.frames.size(), sound) << size;
    const bool between = std::find(begins.begin(), begins.end(), size) != begins.end();
    if (between) {
      EXPECT_TRUE(back.status.ok()) << size;
      continue;
    }
    EXPECT_EQ(FrameFaultOf(back.status), FrameFault::kTorn) << size << ": " << back.status;
    EXPECT_EQ(back.offset, size < begins[0] ? 0 : begins[sound]) << size;
  }
}

TEST(Frames, AnyChangedByteIsDamageAtItsFrame) {
  const std::string whole = Written(kThree);
  const std::vector<uint64_t> begins = Begins();
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const int bit : {0, 3, 7}) {
      std::string bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
      const ReadBack back = Read(bytes);
      EXPECT_EQ(FrameFaultOf(back.status), FrameFault::kDamaged) << at << ": " << back.status;
      size_t hit = 0;
      while (hit < kThree.size() && begins[hit + 1] <= at) ++hit;
      EXPECT_EQ(back.offset, at < begins[0] ? 0 : begins[hit]) << at;
      EXPECT_EQ(back.frames.size(), at < begins[0] ? 0 : hit) << at;
    }
  }
}

TEST(Frames, AFrameBeyondTheLimitIsNeitherWrittenNorRead) {
  FrameWriter writer([](std::string_view) { return absl::OkStatus(); });
  EXPECT_TRUE(absl::IsInvalidArgument(writer.Write(std::string(kFrameBytesMax + 1, 'x'))));
  EXPECT_EQ(writer.bytes(), 0u);
  EXPECT_TRUE(writer.Write(std::string(kFrameBytesMax, 'x')).ok());
}

TEST(Frames, TheSourcesErrorIsPassedOnAndIsNoFault) {
  FrameReader reader(
      [](char*, size_t) -> absl::StatusOr<size_t> { return absl::InternalError("disk"); });
  std::string frame;
  const absl::Status status = reader.Next(&frame).status();
  EXPECT_TRUE(absl::IsInternal(status));
  EXPECT_EQ(FrameFaultOf(status), std::nullopt);
}

TEST(BackupRulesTest, PaddingMakesAnySizeAMultiple) {
  for (uint64_t bytes = 0; bytes < 2 * kBackupAlignment; ++bytes) {
    const uint64_t padding = BackupPadding(bytes);
    if (padding == kNoPadding) {
      EXPECT_EQ(bytes % kBackupAlignment, 0u);
      continue;
    }
    const uint64_t message = padding + (padding < 128 ? 2 : 3);
    EXPECT_EQ((bytes + kFrameHeadBytes + message) % kBackupAlignment, 0u) << bytes;
    EXPECT_LT(message, 2 * kBackupAlignment);
  }
}

class Rules : public testing::Test {
 protected:
  void Begin(int64_t revision, int64_t after) {
    EXPECT_TRUE(rules_.OnHeader({kBackupFormat, revision, after}).ok());
  }
  static BackupRules::Record Record(std::string_view key, int64_t mod) {
    return {.key = key, .create_revision = 2, .mod_revision = mod, .version = 1, .lease = 0};
  }
  BackupRules rules_;
};

TEST_F(Rules, NothingComesBeforeTheHeaderOrBehindTheEnd) {
  EXPECT_FALSE(rules_.OnRecord(Record("a", 3)).ok());
  EXPECT_FALSE(rules_.OnEnd({}).ok());
  EXPECT_FALSE(rules_.OnPadding().ok());
  Begin(9, 0);
  EXPECT_FALSE(rules_.OnHeader({kBackupFormat, 9, 0}).ok());
  EXPECT_FALSE(rules_.OnPadding().ok());
  EXPECT_FALSE(rules_.OnFinish().ok());
  EXPECT_TRUE(rules_.OnEnd({}).ok());
  EXPECT_TRUE(rules_.OnPadding().ok());
  EXPECT_FALSE(rules_.OnRecord(Record("a", 3)).ok());
  EXPECT_FALSE(rules_.OnLease(1, 5).ok());
  EXPECT_TRUE(rules_.OnFinish().ok());
}

TEST_F(Rules, ANewerFormatIsNotDamage) {
  EXPECT_TRUE(absl::IsFailedPrecondition(rules_.OnHeader({kBackupFormat + 1, 9, 0})));
}

TEST_F(Rules, KeysAscendAndAreNotNewerThanTheBackup) {
  Begin(9, 0);
  EXPECT_TRUE(rules_.OnRecord(Record("a", 9)).ok());
  EXPECT_FALSE(rules_.OnRecord(Record("a", 3)).ok());
  EXPECT_TRUE(rules_.OnRecord(Record("b", 3)).ok());
  EXPECT_FALSE(rules_.OnRecord(Record("c", 10)).ok());
  EXPECT_FALSE(rules_.OnRevision(5, 1).ok());
}

TEST_F(Rules, AnIncrementsRevisionsAscendBehindTheOneBefore) {
  Begin(9, 4);
  EXPECT_FALSE(rules_.OnRecord(Record("a", 3)).ok());
  EXPECT_FALSE(rules_.OnRevision(4, 1).ok());
  EXPECT_TRUE(rules_.OnRevision(5, 1).ok());
  EXPECT_TRUE(rules_.OnEvent(Record("z", 5), false).ok());
  EXPECT_FALSE(rules_.OnEvent(Record("a", 6), false).ok());
  EXPECT_TRUE(rules_.OnEvent({.key = "a", .mod_revision = 5}, true).ok());
  EXPECT_FALSE(rules_.OnRevision(5, 1).ok());
  EXPECT_FALSE(rules_.OnRevision(10, 1).ok());
  EXPECT_FALSE(rules_.OnRevision(6, 0).ok());
}

TEST_F(Rules, TheEndTellsTheCounts) {
  Begin(9, 0);
  EXPECT_TRUE(rules_.OnRecord(Record("a", 3)).ok());
  EXPECT_TRUE(rules_.OnLease(7, 5).ok());
  EXPECT_FALSE(rules_.OnEnd({.records = 2, .leases = 1, .events = 0}).ok());
  EXPECT_TRUE(rules_.OnEnd({.records = 1, .leases = 1, .events = 0}).ok());
}

}  // namespace
}  // namespace holdfast::base
