// Crashes, copies, locks, formats and broken disks.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/check.h"
#include "base/rng.h"
#include "base/strings.h"
#include "storage/damage.h"
#include "storage/mvcc_codec.h"
#include "storage/mvcc_database.h"
#include "tests/storage_mvcc/copy_directory.h"
#include "tests/storage_mvcc/mvcc_test_util.h"
#include "tests/storage_mvcc/mvcc_twin.h"

namespace holdfast::storage {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

// As a power cut would leave it, had the page cache been written out: all files, no lock.
void CopyFiles(const std::string& from, const std::string& to) {
  ASSERT_NO_FATAL_FAILURE(CopyDirectoryInUse(from, to));
  fs::remove(fs::path(to) / "LOCK");
}

// The store holds exactly what the twin holds, at every readable revision.
void ExpectSameContents(const MvccStore& store, const MvccTwin& twin) {
  const auto view = store.NewView();
  EXPECT_EQ(view->applied().revision, twin.Now().newest);
  EXPECT_EQ(view->applied().compact_revision, twin.Now().compact);
  for (int64_t revision = std::max<int64_t>(twin.Now().compact, 1);
       revision <= twin.Now().newest && !testing::Test::HasFailure(); ++revision) {
    RangeOptions options = Everything();
    options.revision = revision;
    RangeResult result;
    const absl::Status status = view->Range(options, &result);
    ExpectSameRange(status, result, twin, twin.Now(), options);
  }
  for (const auto& [key, value] : twin.meta()) EXPECT_EQ(*view->GetMeta(key), value) << key;
}

TEST(MvccDurability, ACrashGoesBackToTheLastFlush) {
  ScratchDir dir;
  auto store = MustOpen(dir.store());
  auto writer = store->NewWriter();
  MustPut(*writer, "a", "flushed");
  MustCommit(*writer, 7, 2);
  EXPECT_EQ(store->Flush()->value, 7u);
  MustPut(*writer, "a", "lost");
  MustPut(*writer, "b", "lost");
  MustCommit(*writer, 8, 3);

  ASSERT_NO_FATAL_FAILURE(CopyFiles(dir.store(), dir.Sub("crashed")));
  const auto crashed = MustOpen(dir.Sub("crashed"));
  EXPECT_EQ(crashed->applied(), (AppliedState{Index(7), Term(2), 2, 0}));
  EXPECT_THAT(Brief(MustRange(*crashed->NewView(), Everything())), ElementsAre("a=flushed@2"));
}

TEST(MvccDurability, ANewStoreThatCrashesAtOnceIsNewAgain) {
  ScratchDir dir;
  auto store = MustOpen(dir.store());
  auto writer = store->NewWriter();
  MustPut(*writer, "a", "lost");
  MustCommit(*writer, 1);
  ASSERT_NO_FATAL_FAILURE(CopyFiles(dir.store(), dir.Sub("crashed")));
  EXPECT_EQ(MustOpen(dir.Sub("crashed"))->applied(), AppliedState{});
}

TEST(MvccDurability, ACleanEndKeepsEverything) {
  ScratchDir dir;
  {
    auto store = MustOpen(dir.store());
    auto writer = store->NewWriter();
    MustPut(*writer, "a", "kept");
    MustCommit(*writer, 1);
  }
  EXPECT_THAT(Brief(MustRange(*MustOpen(dir.store())->NewView(), Everything())),
              ElementsAre("a=kept@2"));
}

constexpr char kCrashDirVariable[] = "HOLDFAST_MVCC_CRASH_DIR";
constexpr char kCrashSeedVariable[] = "HOLDFAST_MVCC_CRASH_SEED";
constexpr uint64_t kCrashStepsMin = 500;
constexpr uint64_t kCrashStepsMax = 4000;

// Writes until it is killed in the middle of background flushes and compactions.
void WriteUntilKilled() {
  const uint64_t seed = std::strtoull(std::getenv(kCrashSeedVariable), nullptr, 10);
  const uint64_t steps = kCrashStepsMin + base::Rng(seed).Below(kCrashStepsMax - kCrashStepsMin);
  TwinWorkload workload(seed);
  MvccTwin twin;
  auto store = MustOpen(std::getenv(kCrashDirVariable), kTinyWriteBuffer);
  auto writer = store->NewWriter();
  for (uint64_t step = 1; step <= steps; ++step) {
    workload.Step(twin, writer.get());
    if (step % 3 == 0) MustCommit(*writer, step);
  }
  ::kill(::getpid(), SIGKILL);
}

// The applied index and the data of all column families come back from one and the same moment.
TEST(MvccDurabilityDeathTest, AKilledProcessLeavesAPrefixOfItsEntries) {
  // Runs the statement in a fresh process, since RocksDB's threads do not survive a fork. That one
  // begins this test anew, with the directory it finds in its environment.
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const bool is_child = std::getenv(kCrashDirVariable) != nullptr;
  std::optional<ScratchDir> scratch;  // the child, which is killed, could not remove one
  if (!is_child) scratch.emplace();
  const uint64_t first_seed = TestSeed();
  int progressed = 0;
  for (uint64_t round = 0; round < 3; ++round) {
    std::string dir;
    const uint64_t seed = first_seed + round;
    if (!is_child) {
      dir = scratch->Sub(fmt::format("crash{}", round));
      ::setenv(kCrashDirVariable, dir.c_str(), 1);
      ::setenv(kCrashSeedVariable, std::to_string(seed).c_str(), 1);
    }
    EXPECT_EXIT(WriteUntilKilled(), testing::KilledBySignal(SIGKILL), "");
    if (is_child) continue;  // it was started for a later round
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const auto store = MustOpen(dir, kTinyWriteBuffer);
    const uint64_t index = store->applied().index.value;
    if (index > 0) ++progressed;
    TwinWorkload workload(seed);
    MvccTwin twin;
    for (uint64_t step = 1; step <= index; ++step) workload.Step(twin, nullptr);
    ExpectSameContents(*store, twin);
  }
  ::unsetenv(kCrashDirVariable);
  ::unsetenv(kCrashSeedVariable);
  EXPECT_GT(progressed, 0) << "no round wrote enough for a flush: the test shows nothing";
}

TEST(MvccDurability, ACheckpointIsAStoreOfItsOwn) {
  ScratchDir dir;
  const uint64_t seed = TestSeed();
  TwinWorkload workload(seed);
  MvccTwin twin;
  auto store = MustOpen(dir.store(), kTinyWriteBuffer);
  auto writer = store->NewWriter();
  for (int step = 0; step < 1500; ++step) workload.Step(twin, writer.get());
  MustCommit(*writer, 1500, 4);
  const auto held = store->Checkpoint(dir.Sub("copy"));
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_EQ(*held, store->applied());

  const MvccTwin then = twin;
  for (int step = 0; step < 300; ++step) workload.Step(twin, writer.get());
  MustCommit(*writer, 1800, 4);
  auto copy = MustOpen(dir.Sub("copy"));
  EXPECT_EQ(copy->applied(), *held);
  ExpectSameContents(*copy, then);
  ExpectSameContents(*store, twin);

  // It goes its own way.
  auto copy_writer = copy->NewWriter();
  MustPut(*copy_writer, "only in the copy", "");
  MustCommit(*copy_writer, 1501, 4);
  EXPECT_FALSE((*store->NewView()->Get("only in the copy")).has_value());
}

TEST(MvccDurability, ACheckpointNeedsANewDirectory) {
  ScratchDir dir;
  auto store = MustOpen(dir.store());
  fs::create_directory(dir.Sub("there"));
  const auto held = store->Checkpoint(dir.Sub("there"));
  EXPECT_EQ(held.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(base::Message(held.status())), HasSubstr("must not exist"));
  // And that was no failure of the disk.
  EXPECT_TRUE(store->Flush().ok());
}

TEST(MvccDurability, ADirectoryHasOneStore) {
  ScratchDir dir;
  auto store = MustOpen(dir.store());
  const auto second = MvccStore::Open(StoreOptions(dir.store()));
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(base::Message(second.status())), HasSubstr("in use by another process"));
  store.reset();
  EXPECT_TRUE(MvccStore::Open(StoreOptions(dir.store())).ok());
}

TEST(MvccDurability, AnotherProcessesStoreIsRefused) {
  ScratchDir dir;
  MustOpen(dir.store()).reset();
  const std::string lock_path = dir.store() + "/LOCK";
  int ready[2];
  int finish[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(finish), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {  // only calls that are safe after a fork
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    const int fd = ::open(lock_path.c_str(), O_RDWR);
    char byte = fd >= 0 && ::fcntl(fd, F_SETLK, &lock) == 0 ? 'y' : 'n';
    ::close(finish[1]);
    if (::write(ready[1], &byte, 1) != 1 || ::read(finish[0], &byte, 1) != 0) ::_exit(1);
    ::_exit(0);
  }
  char locked = 0;
  ASSERT_EQ(::read(ready[0], &locked, 1), 1);
  ASSERT_EQ(locked, 'y');
  const auto refused = MvccStore::Open(StoreOptions(dir.store()));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(base::Message(refused.status())), HasSubstr("in use by another process"));
  for (int fd : {ready[0], ready[1], finish[0], finish[1]}) ::close(fd);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(MvccStore::Open(StoreOptions(dir.store())).ok());
}

TEST(MvccDurability, ANewerFormatIsRefused) {
  ScratchDir dir;
  {
    AppliedState applied;
    auto database = mvcc::Database::Open(StoreOptions(dir.store()), &applied);
    ASSERT_TRUE(database.ok());
    std::string version;
    base::AppendBigEndian32(version, mvcc::kFormatVersion + 1);
    rocksdb::WriteBatch batch;
    batch.Put((*database)->meta(), rocksdb::Slice(mvcc::kFormatKey), version);
    ASSERT_TRUE((*database)->Write(&batch).ok());
    ASSERT_TRUE((*database)->Flush().ok());
  }
  const auto refused = MvccStore::Open(StoreOptions(dir.store()));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(base::Message(refused.status())), HasSubstr("newer format"));
}

TEST(MvccDurability, AnOlderFormatIsOpenedAndRaised) {
  ScratchDir dir;
  const auto with_database = [&dir](const auto& use) {
    AppliedState applied;
    auto database = mvcc::Database::Open(StoreOptions(dir.store()), &applied);
    ASSERT_TRUE(database.ok());
    use(**database);
  };
  {
    const auto store = MustOpen(dir.store());
    const auto writer = store->NewWriter();
    MustPut(*writer, "k", "v");
    MustCommit(*writer, 1);
    ASSERT_TRUE(store->Flush().ok());
  }
  with_database([](mvcc::Database& database) {
    std::string version;
    base::AppendBigEndian32(version, 1);
    rocksdb::WriteBatch batch;
    batch.Put(database.meta(), rocksdb::Slice(mvcc::kFormatKey), version);
    ASSERT_TRUE(database.Write(&batch).ok());
    ASSERT_TRUE(database.Flush().ok());
  });
  {
    const auto store = MustOpen(dir.store());
    EXPECT_EQ(Brief(MustRange(*store->NewView(), Everything())), std::vector<std::string>{"k=v@2"});
  }
  with_database([](mvcc::Database& database) {
    std::string version;
    ASSERT_TRUE(database.db()
                    ->Get(rocksdb::ReadOptions(), database.meta(), rocksdb::Slice(mvcc::kFormatKey),
                          &version)
                    .ok());
    EXPECT_EQ(base::ReadBigEndian32(version), mvcc::kFormatVersion);
  });
}

TEST(MvccDurability, AColumnFamilyOfANewerFormatIsRefused) {
  ScratchDir dir;
  {
    AppliedState applied;
    auto database = mvcc::Database::Open(StoreOptions(dir.store()), &applied);
    ASSERT_TRUE(database.ok());
    rocksdb::ColumnFamilyHandle* handle = nullptr;
    rocksdb::DB* db = (*database)->db();
    ASSERT_TRUE(
        db->CreateColumnFamily(rocksdb::ColumnFamilyOptions(), "later invention", &handle).ok());
    ASSERT_TRUE(db->DestroyColumnFamilyHandle(handle).ok());
  }
  const auto refused = MvccStore::Open(StoreOptions(dir.store()));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(MvccDurability, HistoryBeyondTheAppliedRevisionIsDataLoss) {
  ScratchDir dir;
  {
    AppliedState applied;
    auto database = mvcc::Database::Open(StoreOptions(dir.store()), &applied);
    ASSERT_TRUE(database.ok());
    const mvcc::HistoryKey key = mvcc::EncodeHistoryKey({2, 0});
    rocksdb::WriteBatch batch;
    batch.Put((*database)->history(), rocksdb::Slice(mvcc::AsView(key)), "");
    ASSERT_TRUE((*database)->Write(&batch).ok());
    ASSERT_TRUE((*database)->Flush().ok());
  }
  EXPECT_EQ(MvccStore::Open(StoreOptions(dir.store())).status().code(),
            absl::StatusCode::kDataLoss);
}

class MvccBrokenFiles : public testing::Test {
 protected:
  MvccBrokenFiles() {
    auto store = MustOpen(dir_.store());
    auto writer = store->NewWriter();
    for (int i = 0; i < 2000; ++i) MustPut(*writer, fmt::format("k{}", i), std::string(100, 'v'));
    MustCommit(*writer, 1);
    CHECK_OK(store->Flush().status());
  }

  // Every file whose name begins or ends with `part`.
  void Damage(std::string_view part, double at) {
    int damaged = 0;
    for (const auto& file : fs::directory_iterator(dir_.store())) {
      const std::string name = file.path().filename();
      if (!name.starts_with(part) && !name.ends_with(part)) continue;
      std::fstream bytes(file.path(), std::ios::in | std::ios::out | std::ios::binary);
      bytes.seekp(static_cast<std::streamoff>(static_cast<double>(file.file_size()) * at));
      bytes << "damage damage damage";
      ++damaged;
    }
    CHECK(damaged > 0);
  }

  absl::StatusCode OpenCode() {
    return MvccStore::Open(StoreOptions(dir_.store())).status().code();
  }

  ScratchDir dir_;
};

TEST_F(MvccBrokenFiles, ADamagedManifestIsDataLoss) {
  Damage("MANIFEST", 0.1);
  EXPECT_EQ(OpenCode(), absl::StatusCode::kDataLoss);
}

TEST_F(MvccBrokenFiles, AMissingDataFileIsDataLoss) {
  for (const auto& file : fs::directory_iterator(dir_.store())) {
    if (file.path().extension() == ".sst") {
      fs::remove(file.path());
      break;
    }
  }
  EXPECT_EQ(OpenCode(), absl::StatusCode::kDataLoss);
}

TEST_F(MvccBrokenFiles, DataWithoutCurrentIsNotTakenForANewStore) {
  fs::remove(fs::path(dir_.store()) / "CURRENT");
  EXPECT_EQ(OpenCode(), absl::StatusCode::kDataLoss);
}

TEST_F(MvccBrokenFiles, ADamagedBlockIsDataLossWhenItIsRead) {
  Damage(".sst", 0.3);
  auto store = MvccStore::Open(StoreOptions(dir_.store()));
  absl::Status status = store.status();
  if (store.ok()) {
    RangeResult result;
    status = (*store)->NewView()->Range(Everything(), &result);
    EXPECT_TRUE(result.kvs.empty());
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
}

TEST_F(MvccBrokenFiles, ADamagedBlockNamesItsFileAndBytesAndDoesNotGoIntoACheckpoint) {
  Damage(".sst", 0.3);
  auto store = MvccStore::Open(StoreOptions(dir_.store()));
  const absl::Status status =
      store.ok() ? (*store)->Checkpoint(dir_.store() + "-copy").status() : store.status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  const auto damage = DamageOf(status);
  ASSERT_TRUE(damage.has_value()) << status;
  EXPECT_EQ(damage->part, storage::Damage::Part::kData);
  EXPECT_NE(damage->file.find(".sst"), std::string::npos) << status;
  EXPECT_GT(damage->last_byte, damage->first_byte) << status;
}

// New files cannot be made once the directory has been moved away.
TEST(MvccDurability, AFailedFlushIsFinal) {
  ScratchDir dir;
  auto store = MustOpen(dir.store());
  auto writer = store->NewWriter();
  MustPut(*writer, "a", "1");
  MustCommit(*writer, 1);
  fs::rename(dir.store(), dir.Sub("moved"));
  const auto flushed = store->Flush();
  EXPECT_FALSE(flushed.ok());
  fs::rename(dir.Sub("moved"), dir.store());

  MustPut(*writer, "a", "2");
  EXPECT_FALSE(writer->Commit(Index(2), Term(1)).ok());
  EXPECT_FALSE(store->Flush().ok());
  EXPECT_FALSE(store->Checkpoint(dir.Sub("copy")).ok());
  EXPECT_EQ(store->applied().index.value, 1u);
  writer.reset();
  store.reset();
  // Closing wrote nothing either.
  EXPECT_EQ(MustOpen(dir.store())->applied(), AppliedState{});
}

TEST(MvccDurability, AFailureInTheBackgroundFailsTheNextCommit) {
  ScratchDir dir;
  auto store = MustOpen(dir.store(), kTinyWriteBuffer);
  auto writer = store->NewWriter();
  fs::rename(dir.store(), dir.Sub("moved"));
  absl::Status status;
  const std::string value(1000, 'v');
  uint64_t index = 0;
  while (status.ok() && index < 10000) {
    MustPut(*writer, fmt::format("k{}", index), value);
    status = writer->Commit(Index(++index), Term(1));
  }
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(store->Flush().ok());
  EXPECT_FALSE(writer->Commit(Index(index + 1), Term(1)).ok());
}

TEST(MvccDurability, ImpossibleOptionsAreRefused) {
  EXPECT_EQ(MvccStore::Open(MvccStore::Options{}).status().code(),
            absl::StatusCode::kInvalidArgument);
  ScratchDir dir;
  EXPECT_EQ(MvccStore::Open(StoreOptions(dir.store(), 1)).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MvccStore::Open(StoreOptions("/dev/null/store")).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(MvccDurability, BytesOnDiskAndInUseAreTold) {
  ScratchDir dir;
  auto store = MustOpen(dir.store());
  auto writer = store->NewWriter();
  base::Rng rng(1);
  constexpr uint64_t kBytes = 1000 * 1000;
  for (int i = 0; i < 1000; ++i) {
    std::string value(1000, '\0');
    for (char& c : value) c = static_cast<char>(rng.Next());
    MustPut(*writer, fmt::format("k{}", i), value);
  }
  MustCommit(*writer, 1);
  EXPECT_GT(store->disk_bytes(), kBytes);
  EXPECT_GT(store->in_use_bytes(), kBytes);
  ASSERT_TRUE(store->Flush().ok());
  EXPECT_GT(store->disk_bytes(), kBytes);
  EXPECT_LT(store->disk_bytes(), 4 * kBytes);
  EXPECT_GT(store->in_use_bytes(), kBytes);
}

}  // namespace
}  // namespace holdfast::storage
