// The state machine on disk: what it keeps, what it refuses, and every point at which a crash can
// leave its directory (server/db_directory.h has the table).
#include "server/state_machine.h"

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kv_test_util.h"
#include "server/db_directory.h"

namespace holdfast::server {
namespace {

namespace fs = std::filesystem;
using command::v1::Command;
using storage::EntryType;
using storage::LogMark;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Parse;

constexpr uint64_t kCluster = 0xc1;

absl::StatusOr<std::unique_ptr<KvStateMachine>> TryOpen(const std::string& dir,
                                                        uint64_t cluster = kCluster) {
  KvStateMachine::Options options;
  options.dir = dir;
  options.cluster_id = cluster;
  options.member_id = 1;
  return KvStateMachine::Open(options);
}

std::unique_ptr<KvStateMachine> Open(const std::string& dir, uint64_t cluster = kCluster) {
  auto machine = TryOpen(dir, cluster);
  CHECK_MSG(machine.ok(), machine.status().ToString());
  return *std::move(machine);
}

raft::EntryRef Entry(uint64_t index, const std::string& command,
                     EntryType type = EntryType::kNormal) {
  auto entry = std::make_shared<storage::Entry>();
  entry->term = Term(2);
  entry->index = Index(index);
  entry->type = type;
  if (type == EntryType::kNormal) entry->payload = Parse<Command>(command).SerializeAsString();
  return entry;
}

// Puts `key` at the next index.
void Put(KvStateMachine& machine, const std::string& key) {
  CHECK_OK(machine.Apply(
      {Entry(machine.applied().value + 1, fmt::format("put {{ key: '{}' value: 'v' }}", key))}));
}

bool Has(const KvStateMachine& machine, const std::string& key) {
  const auto store = machine.store();
  const auto found = store->NewView()->Get(key);
  CHECK(found.ok());
  return found->has_value();
}

std::set<std::string> Names(const std::string& dir) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir)) names.insert(entry.path().filename());
  return names;
}

void Write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

// A checkpoint of another member of the cluster, holding `keys`; returns its mark.
LogMark MakeCheckpoint(const std::string& to, const std::vector<std::string>& keys,
                       uint64_t cluster = kCluster) {
  testing::TempDir other;
  const auto machine = Open(other / "sm", cluster);
  for (const std::string& key : keys) Put(*machine, key);
  const auto checkpoint = machine->TakeCheckpoint();
  CHECK(checkpoint.ok());
  fs::rename(checkpoint->dir, to);
  return {checkpoint->index, checkpoint->term, std::string("mem\0ber", 7)};
}

TEST(KvStateMachine, AppliesABatchInOneStepAndSkipsWhatIsNoCommand) {
  testing::TempDir dir;
  const auto machine = Open(dir / "sm");
  EXPECT_EQ(machine->applied(), Index(0));
  EXPECT_EQ(machine->installed_mark(), std::nullopt);
  ASSERT_TRUE(machine
                  ->Apply({Entry(1, "", EntryType::kEmpty), Entry(2, "put { key: 'a' }"),
                           Entry(3, "", EntryType::kConfig), Entry(4, "put { key: 'b' }")})
                  .ok());
  EXPECT_EQ(machine->applied(), Index(4));
  const storage::AppliedState state = machine->applied_state();
  EXPECT_EQ(state.index, Index(4));
  EXPECT_EQ(state.term, Term(2));
  EXPECT_EQ(state.revision, 3);
  EXPECT_TRUE(Has(*machine, "a") && Has(*machine, "b"));
}

TEST(KvStateMachine, NothingIsAppliedTwiceOrLeftOut) {
  // A forked child shares our directory; one that starts anew would leave its own behind. It dies
  // before it meets any lock that a thread of the store may hold.
  ::testing::FLAGS_gtest_death_test_style = "fast";
  testing::TempDir dir;
  const auto machine = Open(dir / "sm");
  Put(*machine, "a");
  EXPECT_DEATH((void)machine->Apply({Entry(1, "put { key: 'a' }")}), "CHECK failed");
  EXPECT_DEATH((void)machine->Apply({Entry(3, "put { key: 'a' }")}), "CHECK failed");
}

TEST(KvStateMachine, AnEntryThatCanNotBeReadStopsTheNodeAndIsNamed) {
  testing::TempDir dir;
  const auto machine = Open(dir / "sm");
  Put(*machine, "a");
  auto entry = std::make_shared<storage::Entry>();
  entry->term = Term(2);
  entry->index = Index(2);
  entry->payload = "\xff\xff no protobuf";
  const absl::Status garbage = machine->Apply({raft::EntryRef(entry)});
  EXPECT_TRUE(absl::IsDataLoss(garbage));
  EXPECT_THAT(std::string(garbage.message()), HasSubstr("entry 2 "));
  const absl::Status unknown = machine->Apply({Entry(2, "origin: 5")});
  EXPECT_TRUE(absl::IsDataLoss(unknown));
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("entry 2:"));
  EXPECT_EQ(machine->applied(), Index(1));
}

TEST(KvStateMachine, WhatWasFlushedIsThereAfterARestart) {
  testing::TempDir dir;
  {
    const auto machine = Open(dir / "sm");
    Put(*machine, "a");
    ASSERT_TRUE(machine
                    ->Apply({Entry(2, "cluster_birth { incarnation: 77 }"),
                             Entry(3,
                                   "member_attributes { id: 5 name: 'n5' client_urls: "
                                   "'http://h:1' client_urls: 'http://h:2' }"),
                             Entry(4, "member_attributes { id: 6 name: 'n6' }"),
                             Entry(5, "member_attributes { id: 6 name: 'new' }")})
                    .ok());
    EXPECT_EQ(machine->incarnation(), 77u);
    const absl::StatusOr<Index> flushed = machine->Flush();
    ASSERT_TRUE(flushed.ok());
    EXPECT_EQ(*flushed, Index(5));
  }
  const auto machine = Open(dir / "sm");
  EXPECT_EQ(machine->applied(), Index(5));
  EXPECT_TRUE(Has(*machine, "a"));
  EXPECT_EQ(machine->incarnation(), 77u);
  ASSERT_TRUE(machine->member(5).has_value());
  EXPECT_EQ(machine->member(5)->name, "n5");
  EXPECT_THAT(machine->member(5)->client_urls, ElementsAre("http://h:1", "http://h:2"));
  EXPECT_EQ(machine->member(6)->name, "new");
  EXPECT_FALSE(machine->member(7).has_value());
}

TEST(KvStateMachine, RefusesTheDirectoryOfAnotherCluster) {
  testing::TempDir dir;
  Open(dir / "sm").reset();  // not even one entry
  const absl::Status status = TryOpen(dir / "sm", kCluster + 1).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("cluster c1"));
  EXPECT_TRUE(TryOpen(dir / "sm").ok());
}

TEST(KvStateMachine, ACheckpointCarriesEverythingToAnotherMember) {
  testing::TempDir dir;
  const auto source = Open(dir / "source");
  Put(*source, "from-source");
  ASSERT_TRUE(source
                  ->Apply({Entry(2, "cluster_birth { incarnation: 77 }"),
                           Entry(3, "member_attributes { id: 5 name: 'n5' }")})
                  .ok());
  const auto checkpoint = source->TakeCheckpoint();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  Put(*source, "later");
  EXPECT_EQ(checkpoint->index, Index(3));
  EXPECT_EQ(checkpoint->term, Term(2));
  EXPECT_NE(source->TakeCheckpoint()->dir, checkpoint->dir);

  const LogMark mark{Index(3), Term(2), "membership"};
  {
    const auto target = Open(dir / "target");
    Put(*target, "old");
    ASSERT_TRUE(target->InstallCheckpoint(checkpoint->dir, mark).ok());
    EXPECT_FALSE(fs::exists(checkpoint->dir));
    EXPECT_EQ(target->applied(), Index(3));
    EXPECT_EQ(target->incarnation(), 77u);
    EXPECT_EQ(target->member(5)->name, "n5");
    EXPECT_TRUE(Has(*target, "from-source"));
    EXPECT_FALSE(Has(*target, "old") || Has(*target, "later"));
    Put(*target, "next");
    ASSERT_TRUE(target->Flush().ok());
  }
  const auto target = Open(dir / "target");
  EXPECT_EQ(target->applied(), Index(4));
  EXPECT_TRUE(Has(*target, "from-source") && Has(*target, "next"));
  ASSERT_TRUE(target->installed_mark().has_value());
  EXPECT_EQ(target->installed_mark()->index, Index(3));
  EXPECT_EQ(target->installed_mark()->term, Term(2));
  EXPECT_EQ(target->installed_mark()->membership, "membership");
  EXPECT_THAT(Names(dir / "target"), ElementsAre("current", "db-2"));
}

TEST(KvStateMachine, AReaderKeepsTheOldStoreAcrossAnInstall) {
  testing::TempDir dir;
  const auto machine = Open(dir / "sm");
  Put(*machine, "old");
  auto store = machine->store();
  auto view = store->NewView();
  const LogMark mark = MakeCheckpoint(dir / "in", {"x", "y"});
  ASSERT_TRUE(machine->InstallCheckpoint(dir / "in", mark).ok());
  EXPECT_TRUE(view->Get("old")->has_value());
  EXPECT_FALSE(Has(*machine, "old"));
  EXPECT_THAT(Names(dir / "sm"), ElementsAre("current", "db-1", "db-2"));
  view.reset();
  store.reset();  // the last reader takes the old directory with it
  EXPECT_THAT(Names(dir / "sm"), ElementsAre("current", "db-2"));
}

TEST(KvStateMachine, InstallsOneAfterTheOther) {
  testing::TempDir dir;
  const auto machine = Open(dir / "sm");
  ASSERT_TRUE(machine->InstallCheckpoint(dir / "a", MakeCheckpoint(dir / "a", {"a"})).ok());
  const LogMark second = MakeCheckpoint(dir / "b", {"a", "b", "c"});
  ASSERT_TRUE(machine->InstallCheckpoint(dir / "b", second).ok());
  EXPECT_EQ(machine->applied(), Index(3));
  EXPECT_EQ(machine->installed_mark()->index, Index(3));
  EXPECT_THAT(Names(dir / "sm"), ElementsAre("current", "db-3"));
}

TEST(KvStateMachine, ABadCheckpointChangesNothing) {
  testing::TempDir dir;
  const auto machine = Open(dir / "sm");
  Put(*machine, "old");
  const LogMark foreign = MakeCheckpoint(dir / "foreign", {"x"}, kCluster + 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(machine->InstallCheckpoint(dir / "foreign", foreign)));
  LogMark wrong = MakeCheckpoint(dir / "wrong", {"x", "y"});
  wrong.index = Index(7);
  EXPECT_TRUE(absl::IsDataLoss(machine->InstallCheckpoint(dir / "wrong", wrong)));
  fs::create_directories(dir / "empty");  // would be a new, empty database
  EXPECT_FALSE(machine->InstallCheckpoint(dir / "empty", {Index(2), Term(2), ""}).ok());
  EXPECT_FALSE(machine->InstallCheckpoint(dir / "missing", {Index(2), Term(2), ""}).ok());

  EXPECT_TRUE(Has(*machine, "old"));
  EXPECT_EQ(machine->applied(), Index(1));
  EXPECT_EQ(machine->installed_mark(), std::nullopt);
  Put(*machine, "goes on");
  EXPECT_THAT(Names(dir / "sm"), ElementsAre("current", "db-1"));
}

// --- every point of a crash ---

class KvStateMachineCrash : public ::testing::Test {
 protected:
  // One flushed entry under `old`.
  void MakeOld() {
    const auto machine = Open(sm_);
    Put(*machine, "old");
    CHECK_OK(machine->Flush().status());
  }
  void ExpectOpensWith(const std::string& key, const std::set<std::string>& names) {
    {
      const auto machine = Open(sm_);
      EXPECT_TRUE(Has(*machine, key));
      Put(*machine, "next");
    }
    EXPECT_EQ(Names(sm_), names);
  }
  void ExpectRefused(const std::string& hint) {
    const std::set<std::string> before = Names(sm_);
    const absl::Status status = TryOpen(sm_).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(hint));
    EXPECT_EQ(Names(sm_), before) << "a refusal must not touch anything";
  }

  testing::TempDir dir_;
  const std::string sm_ = dir_ / "sm";
};

TEST_F(KvStateMachineCrash, FirstStartBeforeCurrentWasRenamed) {
  fs::create_directories(sm_);
  Write(sm_ + "/current.tmp", "db-");
  Open(sm_).reset();
  EXPECT_THAT(Names(sm_), ElementsAre("current", "db-1"));
}

TEST_F(KvStateMachineCrash, FirstStartBeforeTheDatabaseWasMade) {
  fs::create_directories(sm_);
  Write(sm_ + "/current", "db-1");
  Open(sm_).reset();
  EXPECT_THAT(Names(sm_), ElementsAre("current", "db-1"));
}

TEST_F(KvStateMachineCrash, FirstStartBeforeTheClusterWasStamped) {
  fs::create_directories(sm_);
  Write(sm_ + "/current", "db-1");
  testing::OpenStore(sm_ + "/db-1").reset();
  Open(sm_).reset();
  EXPECT_TRUE(absl::IsFailedPrecondition(TryOpen(sm_, kCluster + 1).status()));
}

TEST_F(KvStateMachineCrash, InstallAfterTheNewDirectoryBeforeCurrent) {
  MakeOld();
  MakeCheckpoint(sm_ + "/db-2", {"new"});
  ExpectOpensWith("old", {"current", "db-1"});
}

TEST_F(KvStateMachineCrash, InstallAfterTheTemporaryCurrent) {
  MakeOld();
  MakeCheckpoint(sm_ + "/db-2", {"new"});
  Write(sm_ + "/current.tmp", "db-2 1 2 x");
  ExpectOpensWith("old", {"current", "db-1"});
}

TEST_F(KvStateMachineCrash, InstallAfterCurrentBeforeTheOldOneIsRemoved) {
  MakeOld();
  MakeCheckpoint(sm_ + "/db-2", {"new"});
  Write(sm_ + "/current", "db-2 1 2 x6d656d");
  {
    const auto machine = Open(sm_);
    EXPECT_EQ(machine->installed_mark()->membership, "mem");
    EXPECT_FALSE(Has(*machine, "old"));
  }
  ExpectOpensWith("new", {"current", "db-2"});
}

TEST_F(KvStateMachineCrash, TheOldOneHalfRemoved) {
  MakeOld();
  MakeCheckpoint(sm_ + "/db-2", {"new"});
  Write(sm_ + "/current", "db-2 1 2 x");
  fs::remove(sm_ + "/db-1/CURRENT");
  ExpectOpensWith("new", {"current", "db-2"});
}

TEST_F(KvStateMachineCrash, CheckpointHalfMade) {
  MakeOld();
  fs::create_directories(sm_ + "/ckpt-1");
  fs::create_directories(sm_ + "/ckpt-2.tmp");
  ExpectOpensWith("old", {"current", "db-1"});
}

TEST_F(KvStateMachineCrash, ForeignNamesAreLeftAlone) {
  MakeOld();
  fs::create_directories(sm_ + "/db-backup");
  Write(sm_ + "/README", "ours");
  ExpectOpensWith("old", {"README", "current", "db-1", "db-backup"});
}

TEST_F(KvStateMachineCrash, WhatNoCrashLeavesIsRefused) {
  MakeOld();
  fs::rename(sm_ + "/current", dir_ / "kept");
  ExpectRefused("no file 'current'");
  for (const char* text : {"", "db-", "db-0", "db-1x", "db-1\n", "db-1 1 2", "db-1 1 2 6d",
                           "db-1 1 2 x6", "db-1 1 2 xzz", "db-1 -1 2 x", "1"}) {
    Write(sm_ + "/current", text);
    ExpectRefused("no database");
  }
  Write(sm_ + "/current", "db-2");
  ExpectRefused("db-2, which is not there");
  fs::rename(sm_ + "/db-1", sm_ + "/db-3");
  Write(sm_ + "/current", "db-1");
  ExpectRefused("db-1, which is not there");
  fs::remove_all(sm_ + "/db-3");
  Write(sm_ + "/current", "db-4");
  ExpectRefused("db-4, which is not there");
}

}  // namespace
}  // namespace holdfast::server
