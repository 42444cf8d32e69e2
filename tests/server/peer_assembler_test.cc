#include "server/peer_snapshot_assembler.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "../storage_log/fault_file_system.h"
#include "base/crc32c.h"
#include "base/strings.h"

namespace holdfast::server::test {
namespace {

using raft::v1::SnapshotChunk;
using raft::v1::SnapshotMeta;

SnapshotMeta Meta(const std::vector<std::pair<std::string, uint64_t>>& files) {
  SnapshotMeta meta;
  meta.set_term(3);
  meta.set_index(100);
  meta.set_index_term(2);
  meta.set_snapshot_id(1);
  for (const auto& [name, size] : files) {
    meta.add_files()->set_name(name);
    meta.mutable_files(meta.files_size() - 1)->set_size(size);
  }
  return meta;
}

SnapshotChunk Chunk(uint32_t file, uint64_t offset, const std::string& data) {
  SnapshotChunk chunk;
  chunk.set_file(file);
  chunk.set_offset(offset);
  chunk.set_data(data);
  chunk.set_crc32c(base::Crc32c(data));
  return chunk;
}

std::string Contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

bool Says(const absl::Status& status, std::string_view text) {
  return base::Message(status).find(text) != std::string_view::npos;
}

class PeerAssembler : public testing::Test {
 protected:
  void SetUp() override {
    parent_ = testing::TempDir() + "/assembler-" + std::to_string(::getpid());
    std::filesystem::remove_all(parent_);
    std::filesystem::create_directories(parent_);
  }
  void TearDown() override { std::filesystem::remove_all(parent_); }

  absl::StatusOr<std::unique_ptr<SnapshotAssembler>> Create(const SnapshotMeta& meta) {
    return SnapshotAssembler::Create(storage::PosixFileSystem(), meta, parent_, "recv");
  }
  bool Empty() const { return std::filesystem::is_empty(parent_); }

  std::string parent_;
};

TEST_F(PeerAssembler, FilesArriveWholeEmptyOnesIncluded) {
  auto assembler = Create(Meta({{"a", 0}, {"b", 6}, {"c", 0}, {"d", 1}, {"e", 0}}));
  ASSERT_TRUE(assembler.ok()) << assembler.status();
  ASSERT_TRUE((*assembler)->Take(Chunk(1, 0, "four")).ok());
  ASSERT_TRUE((*assembler)->Take(Chunk(1, 4, "56")).ok());
  ASSERT_TRUE((*assembler)->Take(Chunk(3, 0, "x")).ok());
  const absl::StatusOr<std::string> dir = (*assembler)->Finish();
  ASSERT_TRUE(dir.ok()) << dir.status();
  assembler->reset();
  EXPECT_EQ(Contents(*dir + "/b"), "four56");
  EXPECT_EQ(Contents(*dir + "/d"), "x");
  for (const char* name : {"a", "c", "e"}) {
    EXPECT_EQ(std::filesystem::file_size(*dir + "/" + name), 0u) << name;
  }
}

TEST_F(PeerAssembler, ASnapshotOfNoFilesIsAnEmptyDirectory) {
  auto assembler = Create(Meta({}));
  ASSERT_TRUE(assembler.ok());
  const absl::StatusOr<std::string> dir = (*assembler)->Finish();
  ASSERT_TRUE(dir.ok());
  EXPECT_TRUE(std::filesystem::is_empty(*dir));
}

TEST_F(PeerAssembler, NamesThatLeaveTheDirectoryAreRefused) {
  const std::vector<std::string> names = {"",
                                          ".",
                                          "..",
                                          "../x",
                                          "/etc/x",
                                          "a/b",
                                          "a/../../x",
                                          "a..b",
                                          "x/",
                                          std::string("a\0b", 3),
                                          std::string(256, 'n')};
  for (const std::string& name : names) {
    const auto assembler = Create(Meta({{"ok", 1}, {name, 1}}));
    ASSERT_FALSE(assembler.ok()) << name;
    EXPECT_TRUE(Says(assembler.status(), "is no plain file name")) << assembler.status();
  }
  EXPECT_TRUE(Says(Create(Meta({{"x", 1}, {"x", 1}})).status(), "two files"));
  EXPECT_TRUE(Empty());
}

TEST_F(PeerAssembler, LimitsHold) {
  EXPECT_TRUE(Says(Create(Meta({{"x", kMaxSnapshotBytes + 1}})).status(), "more than"));
  EXPECT_TRUE(Says(Create(Meta({{"x", UINT64_MAX}, {"y", 2}})).status(), "more than"));
  // Below the limit, and still more than any disk of these days has free.
  const absl::Status no_room = Create(Meta({{"x", kMaxSnapshotBytes}})).status();
  EXPECT_EQ(no_room.code(), absl::StatusCode::kResourceExhausted) << no_room;
  EXPECT_TRUE(Says(no_room, "make room"));

  SnapshotMeta many = Meta({});
  for (int i = 0; i <= kMaxSnapshotFiles; ++i) many.add_files()->set_name(std::to_string(i));
  EXPECT_TRUE(Says(Create(many).status(), "files, at most"));

  SnapshotMeta wide = Meta({});
  wide.set_membership(std::string(kMaxSnapshotMembershipBytes + 1, 'm'));
  EXPECT_TRUE(Says(Create(wide).status(), "membership"));

  SnapshotMeta no_index = Meta({});
  no_index.set_index(0);
  EXPECT_TRUE(Says(Create(no_index).status(), "index 0"));
  EXPECT_TRUE(Empty());
}

TEST_F(PeerAssembler, OnlyTheChunkThatIsDueIsTaken) {
  const std::vector<std::pair<SnapshotChunk, std::string>> wrong = {
      {Chunk(0, 1, "x"), "is due"},
      {Chunk(1, 0, "x"), "is due"},
      {Chunk(7, 0, "x"), "is due"},
      {Chunk(0, 0, ""), "an empty chunk"},
      {Chunk(0, 0, "too long"), "more than the 4 bytes"},
  };
  for (const auto& [chunk, text] : wrong) {
    auto assembler = Create(Meta({{"a", 4}, {"b", 4}}));
    ASSERT_TRUE(assembler.ok()) << assembler.status();
    const absl::Status status = (*assembler)->Take(chunk);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_TRUE(Says(status, text)) << status;
  }
  auto assembler = Create(Meta({{"a", 1}}));
  ASSERT_TRUE((*assembler)->Take(Chunk(0, 0, "x")).ok());
  EXPECT_TRUE(Says((*assembler)->Take(Chunk(0, 1, "x")), "after the last"));
}

TEST_F(PeerAssembler, ADamagedChunkIsDataLossAndLeavesNothing) {
  auto assembler = Create(Meta({{"a", 4}}));
  SnapshotChunk chunk = Chunk(0, 0, "good");
  (*chunk.mutable_data())[2] ^= 1;
  const absl::Status status = (*assembler)->Take(chunk);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(Says(status, "wrong checksum in a at 0")) << status;
  assembler->reset();
  EXPECT_TRUE(Empty());
}

TEST_F(PeerAssembler, WhatIsIncompleteIsNeverFinished) {
  auto assembler = Create(Meta({{"a", 4}, {"b", 2}}));
  ASSERT_TRUE((*assembler)->Take(Chunk(0, 0, "good")).ok());
  ASSERT_TRUE((*assembler)->Take(Chunk(1, 0, "x")).ok());
  const absl::Status status = (*assembler)->Finish().status();
  EXPECT_TRUE(Says(status, "ended at byte 1 of b, 1 of 2 files complete")) << status;
  assembler->reset();
  EXPECT_TRUE(Empty());
}

// --- going on ---

using storage::FaultFileSystem;

// On a file system in memory: the directory's name must not exist on the real one.
constexpr char kNowhere[] = "/no-such-directory-for-holdfast-tests";

SnapshotMeta ManyFiles() {
  return Meta({{"a", 700}, {"b", 0}, {"c", 1500}, {"d", 1}, {"e", 0}, {"f", 2000}});
}

std::vector<SnapshotChunk> ManyChunks() {
  std::vector<SnapshotChunk> chunks;
  const SnapshotMeta meta = ManyFiles();
  for (int i = 0; i < meta.files_size(); ++i) {
    for (uint64_t offset = 0; offset < meta.files(i).size(); offset += 500) {
      const uint64_t n = std::min<uint64_t>(500, meta.files(i).size() - offset);
      chunks.push_back(Chunk(static_cast<uint32_t>(i), offset,
                             std::string(n, static_cast<char>('a' + chunks.size()))));
    }
  }
  return chunks;
}

// Takes what is missing and compares everything.
void Complete(FaultFileSystem* fs, SnapshotAssembler* assembler) {
  uint64_t at = 0;
  std::map<std::string, std::string> expected;
  const SnapshotMeta meta = ManyFiles();
  for (const SnapshotChunk& chunk : ManyChunks()) {
    if (at >= assembler->have_bytes()) {
      const absl::Status status = assembler->Take(chunk);
      ASSERT_TRUE(status.ok()) << status;
    }
    at += chunk.data().size();
    expected[meta.files(static_cast<int>(chunk.file())).name()] += chunk.data();
  }
  const absl::StatusOr<std::string> dir = assembler->Finish();
  ASSERT_TRUE(dir.ok()) << dir.status();
  for (const auto& file : meta.files()) {
    EXPECT_EQ(fs->Bytes(*dir + "/" + file.name()), expected[file.name()]) << file.name();
  }
}

TEST(PeerAssemblerResume, APowerCutAfterEachOperationLosesNothingThatWasPromised) {
  const std::vector<SnapshotChunk> chunks = ManyChunks();
  uint64_t operations = 0;
  {
    FaultFileSystem fs(1);
    auto assembler = SnapshotAssembler::Create(&fs, ManyFiles(), kNowhere, "recv");
    ASSERT_TRUE(assembler.ok()) << assembler.status();
    for (const SnapshotChunk& chunk : chunks) ASSERT_TRUE((*assembler)->Take(chunk).ok());
    operations = fs.operations();
  }
  int resumed = 0;
  for (uint64_t cut = 1; cut <= operations; ++cut) {
    for (uint64_t seed = 1; seed <= 8; ++seed) {
      SCOPED_TRACE(testing::Message() << "cut at operation " << cut << ", seed " << seed);
      FaultFileSystem fs(seed);
      fs.FailAt(cut, FaultFileSystem::Fault::kPowerCut);
      uint64_t taken = 0;
      uint64_t promised = 0;  // up to the end of the last complete file: synced and recorded
      {
        auto assembler = SnapshotAssembler::Create(&fs, ManyFiles(), kNowhere, "recv");
        for (const SnapshotChunk& chunk : chunks) {
          if (!assembler.ok() || !(*assembler)->Take(chunk).ok()) break;
          taken += chunk.data().size();
          if (chunk.data().size() < 500 || chunk.offset() + 500 == 2000) promised = taken;
        }
        if (assembler.ok()) (*assembler)->LeaveOnDisk();
      }
      fs.PowerCut();
      auto assembler = SnapshotAssembler::Resume(&fs, kNowhere, "recv");
      if (!assembler.ok()) {
        EXPECT_EQ(promised, 0u) << assembler.status();
        continue;  // its record was not there yet: sent anew
      }
      ++resumed;
      // Not the last record, which nothing syncs, but the one before it: the slots take turns.
      EXPECT_LE((*assembler)->have_bytes(), taken + 500);
      ASSERT_NO_FATAL_FAILURE(Complete(&fs, assembler->get()));
    }
  }
  EXPECT_GT(resumed, 0);
}

TEST(PeerAssemblerResume, AKilledProcessHasWhatWasSyncedAndAPausedOneAll) {
  const std::vector<SnapshotChunk> chunks = ManyChunks();
  for (size_t n = 1; n < chunks.size(); ++n) {
    FaultFileSystem fs(1);
    uint64_t taken = 0;
    {
      auto assembler = SnapshotAssembler::Create(&fs, ManyFiles(), kNowhere, "recv");
      ASSERT_TRUE(assembler.ok());
      for (size_t i = 0; i < n; ++i) {
        ASSERT_TRUE((*assembler)->Take(chunks[i]).ok());
        taken += chunks[i].data().size();
        // Pausing in the middle of a file changes nothing for the chunks to come.
        if (i + 1 == n || i % 2 == 0) {
          ASSERT_TRUE((*assembler)->Pause().ok());
        }
      }
      (*assembler)->LeaveOnDisk();
    }
    fs.KillProcess();
    auto assembler = SnapshotAssembler::Resume(&fs, kNowhere, "recv");
    ASSERT_TRUE(assembler.ok()) << assembler.status();
    EXPECT_EQ((*assembler)->have_bytes(), taken);
    ASSERT_NO_FATAL_FAILURE(Complete(&fs, assembler->get()));
  }
}

TEST(PeerAssemblerResume, LargeFilesAreSyncedInSlices) {
  FaultFileSystem fs(1);
  const std::string block(1 << 20, 'x');
  {
    auto assembler = SnapshotAssembler::Create(&fs, Meta({{"a", 10 << 20}}), kNowhere, "recv");
    ASSERT_TRUE(assembler.ok());
    for (uint64_t i = 0; i < 7; ++i) {
      ASSERT_TRUE((*assembler)->Take(Chunk(0, i << 20, block)).ok());
    }
    (*assembler)->LeaveOnDisk();
  }
  fs.KillProcess();
  const auto assembler = SnapshotAssembler::Resume(&fs, kNowhere, "recv");
  ASSERT_TRUE(assembler.ok()) << assembler.status();
  EXPECT_EQ((*assembler)->have_bytes(), kSnapshotSyncBytes);
}

TEST(PeerAssemblerResume, AFullDiskIsSaidSo) {
  const std::vector<SnapshotChunk> chunks = ManyChunks();
  FaultFileSystem fs(1);
  auto assembler = SnapshotAssembler::Create(&fs, ManyFiles(), kNowhere, "recv");
  ASSERT_TRUE(assembler.ok());
  fs.FailAt(1, FaultFileSystem::Fault::kDiskFull);
  const absl::Status status = (*assembler)->Take(chunks[0]);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

}  // namespace
}  // namespace holdfast::server::test
