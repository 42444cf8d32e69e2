// A store goes out as a backup and comes back as a new member's: whole, or again from the start.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "base/check.h"
#include "base/frames.h"
#include "base/rng.h"
#include "base/strings.h"
#include "replication/recovery.h"
#include "server/apply_command.h"
#include "server/backup_reader.h"
#include "server/db_directory.h"
#include "server/lease_record.h"
#include "server/restore_import.h"
#include "server/snapshot_export.h"
#include "server/state_machine.h"
#include "storage/damage.h"
#include "storage/mvcc_import.h"
#include "storage/segmented_log.h"

namespace holdfast::server {
namespace {

namespace fs = std::filesystem;
using storage::AppliedState;
using storage::KeyValueView;
using storage::MvccStore;
using testing::HasSubstr;

class ScratchDir {
 public:
  ScratchDir() {
    std::string name = (fs::temp_directory_path() / "holdfast-backup-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~ScratchDir() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::unique_ptr<MvccStore> MustOpen(const std::string& dir) {
  auto store = MvccStore::Open({.dir = dir});
  CHECK_OK(store.status());
  return *std::move(store);
}

void Put(MvccStore::Writer& writer, const std::string& key, const std::string& value,
         int64_t lease = 0) {
  writer.BeginRevision();
  CHECK_OK(writer.Put(key, value, lease, nullptr));
  writer.EndRevision();
}

// Everything that a client can see of the newest state, and which keys hang on which lease.
struct Dump {
  AppliedState applied;
  std::vector<std::string> records;
  std::map<int64_t, std::string> leases;
  std::map<int64_t, std::vector<std::string>> attached;
};

Dump DumpOf(const MvccStore& store) {
  Dump dump;
  const auto view = store.NewView();
  dump.applied = view->applied();
  CHECK_OK(view->ScanRecords("", [&](const KeyValueView& kv) {
    dump.records.push_back(fmt::format("{}={}:{}/{}/{}/{}", kv.key, kv.value, kv.create_revision,
                                       kv.mod_revision, kv.version, kv.lease));
    return true;
  }));
  CHECK_OK(view->ScanMeta(kMetaLeasePrefix, [&](std::string_view key, std::string_view value) {
    int64_t id = 0;
    LeaseRecord record;
    CHECK(ParseLeaseMetaKey(key, &id) && DecodeLeaseRecord(value, &record));
    dump.leases[id] = fmt::format("{}/{}", record.ttl_s, record.remaining_ms);
    return true;
  }));
  for (const auto& [id, text] : dump.leases) {
    CHECK_OK(view->ScanLeaseKeys(id, [&, id = id](std::string_view key) {
      dump.attached[id].emplace_back(key);
      return true;
    }));
  }
  return dump;
}

std::string Export(const std::shared_ptr<MvccStore>& store, size_t piece = size_t{32} << 10) {
  const auto out = SnapshotExport::Create(
      store, store->NewView(),
      {.cluster_id = 7, .incarnation = 9, .version = "test", .wall_time_unix_ms = 1});
  std::string all;
  while (!out->done()) {
    const auto next = out->Next(piece);
    CHECK_OK(next.status());
    EXPECT_TRUE(next->size() == piece || out->done());
    all += *next;
  }
  EXPECT_EQ(*out->Next(piece), "");
  return all;
}

// Some thousand keys, with deletions, old versions, leases and large values.
std::shared_ptr<MvccStore> SampleStore(const std::string& dir) {
  std::shared_ptr<MvccStore> store = MustOpen(dir);
  const auto writer = store->NewWriter();
  base::Rng rng(1);
  for (const int64_t id : {int64_t{5}, int64_t{-3}, INT64_MAX}) {
    writer->PutMeta(LeaseMetaKey(id), EncodeLeaseRecord({.ttl_s = 60, .remaining_ms = 10}));
  }
  for (int i = 0; i < 3000; ++i) {
    const std::string key = fmt::format("/k/{}", rng.Below(1000));
    const int64_t lease = i % 50 == 0 ? 5 : i % 50 == 1 ? -3 : 0;
    Put(*writer, key, std::string(rng.Below(i % 100 == 0 ? 5000 : 50), 'v'), lease);
  }
  writer->BeginRevision();
  CHECK_OK(writer->DeleteRange("/k/1", "/k/3", nullptr).status());
  writer->EndRevision();
  Put(*writer, std::string(1, '\0'), "a key of one zero byte");
  Put(*writer, "/large", std::string(size_t{1} << 20, 'L'));
  CHECK_OK(writer->Commit(Index(10), Term(2)));
  return store;
}

TEST(SnapshotExport, IsASoundBackupOfTheViewWhateverThePieces) {
  ScratchDir dir;
  const auto store = SampleStore(dir / "db");
  const std::string stream = Export(store);
  EXPECT_EQ(stream.size() % kExportAlignment, 0u);
  EXPECT_EQ(Export(store, 1000), stream);
  BackupReader reader(base::SourceOf(std::string_view(stream)));
  backup::v1::Frame frame;
  std::vector<std::string> records;
  backup::v1::Header header;
  while (true) {
    const auto more = reader.Next(&frame);
    ASSERT_TRUE(more.ok()) << more.status();
    if (!*more) break;
    if (frame.has_header()) header = frame.header();
    for (const auto& kv : frame.records().kvs()) {
      records.push_back(fmt::format("{}={}:{}/{}/{}/{}", kv.key(), kv.value(), kv.create_revision(),
                                    kv.mod_revision(), kv.version(), kv.lease()));
    }
  }
  EXPECT_EQ(records, DumpOf(*store).records);
  EXPECT_EQ(header.revision(), store->applied().revision);
  EXPECT_EQ(header.cluster_id(), 7u);
  EXPECT_EQ(header.incarnation(), 9u);
}

TEST(SnapshotExport, IsOfItsViewWhileWritesGoOn) {
  ScratchDir dir;
  const auto store = SampleStore(dir / "db");
  const std::string before = Export(store);
  const auto out = SnapshotExport::Create(
      store, store->NewView(),
      {.cluster_id = 7, .incarnation = 9, .version = "test", .wall_time_unix_ms = 1});
  std::string all = *out->Next(100'000);
  const auto writer = store->NewWriter();
  for (int i = 0; i < 1000; ++i) Put(*writer, fmt::format("/k/{}", i), "later");
  CHECK_OK(writer->Commit(Index(11), Term(2)));
  CHECK_OK(store->Flush().status());
  while (!out->done()) all += *out->Next(100'000);
  EXPECT_EQ(all, before);
}

TEST(SnapshotExport, AnEmptyStoreIsABackupToo) {
  ScratchDir dir;
  const std::string stream = Export(MustOpen(dir / "db"));
  EXPECT_EQ(stream.size(), kExportAlignment);
  BackupReader reader(base::SourceOf(std::string_view(stream)));
  backup::v1::Frame frame;
  while (*reader.Next(&frame)) continue;
}

TEST(Import, OfAStoreThatHoldsSomethingIsRefused) {
  ScratchDir dir;
  SampleStore(dir / "db").reset();
  EXPECT_TRUE(absl::IsFailedPrecondition(storage::MvccImport::Open({.dir = dir / "db"}).status()));
}

TEST(Import, TheLastOfAKeyCountsAndMovesItsLease) {
  ScratchDir dir;
  {
    auto import = storage::MvccImport::Open({.dir = dir / "db"});
    ASSERT_TRUE(import.ok()) << import.status();
    const auto put = [&](std::string_view key, int64_t mod, int64_t lease) {
      CHECK_OK((*import)->Put({key, "v", 2, mod, 1, lease}));
    };
    put("a", 3, 5);
    put("b", 4, 5);
    put("a", 5, 6);
    put("c", 6, 6);
    CHECK_OK((*import)->Delete("c"));
    CHECK_OK((*import)->Delete("never"));
    for (const int64_t id : {5, 6}) {
      CHECK_OK((*import)->PutMeta(LeaseMetaKey(id), EncodeLeaseRecord({.ttl_s = 9})));
    }
    std::vector<int64_t> leases;
    CHECK_OK((*import)->VisitLeases([&](int64_t id) { leases.push_back(id); }));
    EXPECT_EQ(leases, (std::vector<int64_t>{5, 6}));
    CHECK_OK((*import)->Finish({Index(1), Term(1), 100, 100}));
  }
  const Dump dump = DumpOf(*MustOpen(dir / "db"));
  EXPECT_EQ(dump.records, (std::vector<std::string>{"a=v:2/5/1/6", "b=v:2/4/1/5"}));
  EXPECT_EQ(dump.attached.at(5), (std::vector<std::string>{"b"}));
  EXPECT_EQ(dump.attached.at(6), (std::vector<std::string>{"a"}));
  EXPECT_EQ(dump.applied.revision, 100);
  EXPECT_EQ(dump.applied.compact_revision, 100);
}

std::string Sha256Hex(std::string_view bytes) {
  std::string digest(32, '\0');
  EVP_Digest(bytes.data(), bytes.size(), reinterpret_cast<unsigned char*>(digest.data()), nullptr,
             EVP_sha256(), nullptr);
  return absl::BytesToHexString(base::ToAbsl(digest));
}

// What `holdfastctl snapshot restore` leaves.
void LayDown(const std::string& data_dir, const std::vector<std::string>& backups, int64_t revision,
             int64_t bump = 1000) {
  fs::create_directories(data_dir + "/restore");
  nlohmann::json files = nlohmann::json::array();
  for (size_t i = 0; i < backups.size(); ++i) {
    const std::string name = fmt::format("backup-{:05}", i);
    std::ofstream(data_dir + "/restore/" + name, std::ios::binary) << backups[i];
    files.push_back(
        {{"name", name}, {"bytes", backups[i].size()}, {"sha256", Sha256Hex(backups[i])}});
  }
  const nlohmann::json plan = {{"format", 1},
                               {"name", "a"},
                               {"initial_cluster", "a=http://127.0.0.1:1,b=http://127.0.0.1:2"},
                               {"initial_cluster_token", "t"},
                               {"initial_advertise_peer_urls", "http://127.0.0.1:1"},
                               {"revision", revision},
                               {"bump_revision", bump},
                               {"files", files}};
  std::ofstream(data_dir + "/restore/plan.json") << plan.dump();
}

struct Restored {
  absl::Status status;
  Identity identity;
};

// As a start does it, up to the node.
Restored Restore(const std::string& data_dir, const RestoreStep& step = {}) {
  Restored restored;
  Config config;
  config.name = "a";
  config.data_dir = data_dir;
  CHECK_OK(config.Complete());
  const auto plan = ReadRestorePlan(data_dir);
  if (!plan.ok() || !plan->has_value()) {
    restored.status = plan.ok() ? absl::NotFoundError("no plan") : plan.status();
    return restored;
  }
  const auto effective = ConfigFor(**plan, config);
  if (!effective.ok()) return {effective.status(), {}};
  restored.identity = *RestoredIdentity(*effective, **plan);
  const auto dir = DataDir::Open(data_dir, {.cluster_id = restored.identity.cluster_id,
                                            .member_id = restored.identity.self,
                                            .name = "a",
                                            .bootstrap = restored.identity.bootstrap.Encode()});
  if (!dir.ok()) return {dir.status(), {}};
  restored.status = ImportRestore(**plan, data_dir, **dir, restored.identity, {}, step);
  return restored;
}

Dump RestoredDump(const std::string& data_dir) {
  const auto db = DbDirectory::Open(data_dir + "/db");
  CHECK_OK(db.status());
  return DumpOf(*MustOpen(db->current()));
}

class RestoreTest : public testing::Test {
 protected:
  RestoreTest() {
    const auto store = SampleStore(dir_ / "source");
    source_ = DumpOf(*store);
    backup_ = Export(store);
  }
  int64_t revision() const { return source_.applied.revision; }
  void ExpectRestored(const std::string& data_dir) {
    const Dump now = RestoredDump(data_dir);
    EXPECT_EQ(now.records, source_.records);
    EXPECT_EQ(now.attached, source_.attached);
    // With all of their time.
    const std::map<int64_t, std::string> full = {{-3, "60/-1"}, {5, "60/-1"}, {INT64_MAX, "60/-1"}};
    EXPECT_EQ(now.leases, full);
    EXPECT_EQ(now.applied.revision, revision() + 1000);
    EXPECT_EQ(now.applied.compact_revision, revision() + 1000);
    EXPECT_EQ(now.applied.index, Index(1));
    EXPECT_FALSE(fs::exists(data_dir + "/restore"));
  }

  ScratchDir dir_;
  Dump source_;
  std::string backup_;
};

TEST_F(RestoreTest, GivesTheSameRecordsAtAHigherRevisionAndALogThatBeginsBehindThem) {
  const std::string data_dir = dir_ / "a";
  LayDown(data_dir, {backup_}, revision());
  const Restored restored = Restore(data_dir);
  ASSERT_TRUE(restored.status.ok()) << restored.status;
  ExpectRestored(data_dir);
  const auto log = storage::SegmentedLog::Open({.dir = data_dir + "/log"});
  ASSERT_TRUE(log.ok()) << log.status();
  const storage::RecoveredLog& found = (*log)->recovered();
  EXPECT_EQ(found.mark.index, Index(1));
  EXPECT_EQ(found.mark.membership, restored.identity.bootstrap.Encode());
  const raft::StartPlan start =
      raft::PlanStart(restored.identity.bootstrap, found, Index(1), std::nullopt);
  EXPECT_EQ(start.row, raft::StartRow::kFits) << start.status;
}

// Run by the next test, in a process of its own.
TEST(RestoreChild, DISABLED_DiesAtItsStep) {
  const int cut = std::atoi(getenv("HOLDFAST_RESTORE_CUT"));
  int step = 0;
  Restore(getenv("HOLDFAST_RESTORE_DIR"), [&step, cut](const char*) {
    if (++step == cut) _exit(9);  // as kill -9: nothing is closed or flushed
  });
}

TEST_F(RestoreTest, CutShortAtAnyStepItBeginsAgainAndEndsTheSame) {
  // How many steps there are.
  LayDown(dir_ / "whole", {backup_}, revision());
  int steps = 0;
  ASSERT_TRUE(Restore(dir_ / "whole", [&steps](const char*) { ++steps; }).status.ok());
  ASSERT_GT(steps, 10);
  for (int cut = 1; cut <= steps; ++cut) {
    const std::string data_dir = dir_ / fmt::format("cut-{}", cut);
    LayDown(data_dir, {backup_}, revision());
    // A process of its own, begun anew: RocksDB's threads do not survive a fork.
    const pid_t child = fork();
    if (child == 0) {
      setenv("HOLDFAST_RESTORE_DIR", data_dir.c_str(), 1);
      setenv("HOLDFAST_RESTORE_CUT", std::to_string(cut).c_str(), 1);
      execl("/proc/self/exe", "backup_test", "--gtest_also_run_disabled_tests",
            "--gtest_filter=RestoreChild.DISABLED_DiesAtItsStep", nullptr);
      _exit(127);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(WEXITSTATUS(status), 9) << cut;
    if (fs::exists(data_dir + "/restore/plan.json")) {
      const Restored again = Restore(data_dir);
      ASSERT_TRUE(again.status.ok()) << cut << ": " << again.status;
    } else {
      EXPECT_EQ(cut, steps);  // only the last step has made it count
      RemoveRestoreLeftovers(data_dir);
    }
    ExpectRestored(data_dir);
  }
}

TEST_F(RestoreTest, ADamagedBackupIsRefusedAndIsNotTheMembersOwnDamage) {
  for (const size_t at : {size_t{20}, backup_.size() / 2, backup_.size() - 5}) {
    const std::string data_dir = dir_ / fmt::format("at-{}", at);
    LayDown(data_dir, {backup_}, revision());
    std::string bytes = backup_;
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    std::ofstream(data_dir + "/restore/backup-00000", std::ios::binary) << bytes;
    const absl::Status status = Restore(data_dir).status;
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(base::Message(status)), HasSubstr("snapshot restore"));
    EXPECT_FALSE(storage::DamageOf(status).has_value());
    EXPECT_TRUE(fs::exists(data_dir + "/restore/plan.json"));
  }
}

TEST_F(RestoreTest, APlanThatIsNotThereYetKeepsTheMemberFromStartingEmpty) {
  const std::string data_dir = dir_ / "a";
  fs::create_directories(data_dir + "/restore");
  EXPECT_TRUE(absl::IsFailedPrecondition(ReadRestorePlan(data_dir).status()));
}

TEST_F(RestoreTest, MembersThatRestoredDifferentThingsAreOfDifferentClusters) {
  LayDown(dir_ / "a", {backup_}, revision());
  LayDown(dir_ / "same", {backup_}, revision());
  LayDown(dir_ / "other-bump", {backup_}, revision(), 2000);
  LayDown(dir_ / "other-file", {Export(MustOpen(dir_ / "empty"))}, 1);
  const uint64_t cluster = Restore(dir_ / "a").identity.cluster_id;
  EXPECT_EQ(Restore(dir_ / "same").identity.cluster_id, cluster);
  EXPECT_NE(Restore(dir_ / "other-bump").identity.cluster_id, cluster);
  EXPECT_NE(Restore(dir_ / "other-file").identity.cluster_id, cluster);
}

// An increment as holdfastctl writes it, without padding.
std::string Increment(int64_t after, int64_t revision, const backup::v1::Revisions& revisions,
                      const std::map<int64_t, int64_t>& leases) {
  std::string out;
  base::FrameWriter writer([&out](std::string_view bytes) {
    out.append(bytes);
    return absl::OkStatus();
  });
  backup::v1::Frame header, events, held, end;
  header.mutable_header()->set_format(1);
  header.mutable_header()->set_cluster_id(7);
  header.mutable_header()->set_incarnation(9);
  header.mutable_header()->set_after_revision(after);
  header.mutable_header()->set_revision(revision);
  *events.mutable_revisions() = revisions;
  for (const auto& [id, ttl] : leases) {
    auto& lease = *held.mutable_leases()->add_leases();
    lease.set_id(id);
    lease.set_granted_ttl_s(ttl);
  }
  uint64_t count = 0;
  for (const auto& one : revisions.revisions()) count += static_cast<uint64_t>(one.events_size());
  end.mutable_end()->set_events(count);
  end.mutable_end()->set_leases(leases.size());
  for (const auto& frame : {header, events, held, end}) {
    CHECK_OK(writer.Write(frame.SerializeAsString()));
  }
  return out;
}

void AddEvent(backup::v1::Revisions* revisions, int64_t revision, const std::string& key,
              bool deletion, int64_t lease = 0) {
  auto& one = *revisions->add_revisions();
  one.set_revision(revision);
  mvccpb::Event& event = *one.add_events();
  event.set_type(deletion ? mvccpb::Event::DELETE : mvccpb::Event::PUT);
  event.mutable_kv()->set_key(key);
  event.mutable_kv()->set_mod_revision(revision);
  if (deletion) return;
  event.mutable_kv()->set_value("inc");
  event.mutable_kv()->set_create_revision(revision);
  event.mutable_kv()->set_version(1);
  event.mutable_kv()->set_lease(lease);
}

TEST_F(RestoreTest, IncrementsLeadToAnyRevisionBetween) {
  const int64_t at = revision();
  backup::v1::Revisions revisions;
  AddEvent(&revisions, at + 1, "/new", false, 77);  // a lease that no file lists
  AddEvent(&revisions, at + 2, "/large", true);
  AddEvent(&revisions, at + 3, "/new", true);
  const std::string increment = Increment(at, at + 5, revisions, {{5, 60}});
  const auto keys_at = [&](int64_t revision) {
    const std::string data_dir = dir_ / fmt::format("at-{}", revision);
    LayDown(data_dir, {backup_, increment}, revision);
    const absl::Status status = Restore(data_dir).status;
    EXPECT_TRUE(status.ok()) << status;
    return RestoredDump(data_dir);
  };
  const auto has = [](const Dump& dump, const std::string& key) {
    return std::any_of(dump.records.begin(), dump.records.end(),
                       [&](const std::string& text) { return text.starts_with(key + "="); });
  };
  const Dump first = keys_at(at + 1);
  EXPECT_TRUE(has(first, "/new") && has(first, "/large"));
  EXPECT_EQ(first.leases.at(77), fmt::format("{}/-1", kUnknownLeaseTtlSeconds));
  EXPECT_TRUE(first.leases.contains(-3));  // alive at `at`, and maybe at `at` + 1
  const Dump second = keys_at(at + 2);
  EXPECT_TRUE(has(second, "/new") && !has(second, "/large"));
  const Dump last = keys_at(at + 5);
  EXPECT_FALSE(has(last, "/new") || has(last, "/large"));
  EXPECT_FALSE(last.leases.contains(77));
  EXPECT_FALSE(last.leases.contains(INT64_MAX));  // without keys, and not in the last list
  EXPECT_EQ(last.applied.revision, at + 5 + 1000);

  // A gap, or an increment of another incarnation, is refused.
  LayDown(dir_ / "gap", {backup_, Increment(at + 1, at + 5, {}, {})}, at + 5);
  EXPECT_TRUE(absl::IsDataLoss(Restore(dir_ / "gap").status));
}

}  // namespace
}  // namespace holdfast::server
