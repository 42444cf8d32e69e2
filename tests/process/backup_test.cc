// Backups of real clusters: saved, restored, cut short, continued; and a live etcd moved over.
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/time/clock.h"
#include "client/ctl/backup_directory.h"
#include "client/ctl/backup_file.h"
#include "client/ctl/migrate.h"
#include "client/ctl/remote.h"
#include "tests/process/member_calls.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

namespace fs = std::filesystem;
using bench::LocalCluster;
using ctl::Remote;
using ctl::StoreState;
using nlohmann::json;
using testing::HasSubstr;

constexpr int64_t kBump = 1'000'000'000;

class BackupTest : public testing::Test {
 protected:
  BackupTest() : dir_(testing::TempDir() + fmt::format("holdfast-backup-{}", getpid())) {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  ~BackupTest() override { fs::remove_all(dir_); }
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }

  const std::string dir_;
};

ProgramEnd Ctl(const std::vector<std::string>& endpoints, std::vector<std::string> args) {
  std::vector<std::string> first = {bench::BinaryBesideOwn("holdfastctl"), "--timeout=10s"};
  if (!endpoints.empty()) {
    first.push_back(fmt::format("--endpoints={}", fmt::join(endpoints, ",")));
  }
  args.insert(args.begin(), first.begin(), first.end());
  return RunToEnd(args);
}

std::unique_ptr<Remote> Connect(const std::vector<std::string>& endpoints) {
  auto remote = Remote::Open(endpoints, absl::Seconds(10));
  EXPECT_TRUE(remote.ok()) << remote.status();
  return *std::move(remote);
}

StoreState StateOf(const std::vector<std::string>& endpoints) {
  const auto state = Connect(endpoints)->State();
  EXPECT_TRUE(state.ok()) << state.status();
  return state.ok() ? *state : StoreState();
}

void Fill(LocalCluster& cluster, int from, int to, size_t bytes = 100) {
  const auto client = OpenClient(cluster.Endpoints());
  for (int i = from; i < to; ++i) {
    const auto put = client->Put(fmt::format("/k/{:05}", i), std::string(bytes, 'a' + i % 26),
                                 {.deadline = kGiveUp});
    ASSERT_TRUE(put.ok()) << put.status();
  }
}

absl::Status PutWithLease(const std::string& endpoint, const std::string& key, int64_t lease) {
  grpc::ClientContext context;
  etcdserverpb::PutRequest request;
  request.set_key(key);
  request.set_value("held");
  request.set_lease(lease);
  etcdserverpb::PutResponse response;
  const auto remote = Connect({endpoint});
  return ctl::FromGrpc(
      etcdserverpb::KV::NewStub(remote->channels()[0])->Put(&context, request, &response));
}

// key -> value and lease, of the newest revision.
std::map<std::string, std::pair<std::string, int64_t>> Everything(const std::string& endpoint) {
  std::map<std::string, std::pair<std::string, int64_t>> all;
  const auto remote = Connect({endpoint});
  etcdserverpb::RangeRequest request;
  request.set_key(ctl::AllKeys());
  request.set_range_end(ctl::AllKeys());
  request.set_limit(500);
  while (true) {
    etcdserverpb::RangeResponse response;
    const absl::Status status = remote->Range(request, &response);
    EXPECT_TRUE(status.ok()) << status;
    for (const auto& kv : response.kvs()) all[kv.key()] = {kv.value(), kv.lease()};
    if (!status.ok() || !response.more()) return all;
    request.set_key(response.kvs(response.kvs_size() - 1).key() + '\0');
    request.set_revision(response.header().revision());
  }
}

// What the flags of member i's restore must say, as its own command line has it.
std::vector<std::string> RestoreFlags(const LocalCluster& cluster, int i) {
  std::vector<std::string> peers;
  const auto name = [&cluster](int m) { return fs::path(cluster.data_dir(m)).filename().string(); };
  for (int m = 0; m < cluster.size(); ++m) {
    peers.push_back(fmt::format("{}={}", name(m), cluster.peer_url(m)));
  }
  return {"--data-dir",
          cluster.data_dir(i),
          "--name",
          name(i),
          "--initial-cluster",
          fmt::format("{}", fmt::join(peers, ",")),
          "--initial-cluster-token",
          "restored",
          "--initial-advertise-peer-urls",
          cluster.peer_url(i)};
}

// Everything of the cluster is lost; each member is restored.
void LoseAndRestore(LocalCluster& cluster, const std::string& source,
                    const std::vector<std::string>& more = {}) {
  for (int i = 0; i < cluster.size(); ++i) {
    if (cluster.Running(i)) {
      ASSERT_TRUE(cluster.Kill(i).ok());
    }
    fs::remove_all(cluster.data_dir(i));
    std::vector<std::string> args = {"snapshot", "restore", source};
    const std::vector<std::string> flags = RestoreFlags(cluster, i);
    args.insert(args.end(), flags.begin(), flags.end());
    args.insert(args.end(), more.begin(), more.end());
    const ProgramEnd end = Ctl({}, args);
    ASSERT_EQ(end.exit_code, 0) << end.output;
  }
}

void StartAll(LocalCluster& cluster) {
  for (int i = 0; i < cluster.size(); ++i) ASSERT_TRUE(cluster.Restart(i).ok());
  const absl::Status leader = cluster.WaitForLeader(kGiveUp);
  ASSERT_TRUE(leader.ok()) << leader << cluster.LogTail(0);
}

TEST_F(BackupTest, AClusterIsRestoredAndNobodyTakesItForTheOldOne) {
  const auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  Fill(*cluster, 0, 300);
  const auto remote = Connect(cluster->Endpoints());
  ASSERT_TRUE(remote->Grant(4711, 600).ok());
  ASSERT_TRUE(PutWithLease(cluster->endpoint(0), "/held", 4711).ok());
  ASSERT_TRUE(OpenClient(cluster->Endpoints())->Delete("/k/00007").ok());
  const StoreState before = StateOf(cluster->Endpoints());
  const auto data = Everything(cluster->endpoint(0));

  const std::string file = Path("file");
  ProgramEnd end = Ctl(cluster->Endpoints(), {"snapshot", "save", file});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_FALSE(fs::exists(file + ".part"));
  end = Ctl({}, {"snapshot", "status", file, "-w", "json"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const json status = json::parse(end.output);
  EXPECT_EQ(status["revision"], before.revision);
  EXPECT_EQ(status["totalKey"], data.size());
  EXPECT_EQ(status["totalLeases"], 1);
  EXPECT_EQ(status["incarnation"], fmt::format("{:x}", before.incarnation));
  EXPECT_EQ(status["hashChecked"], true);
  EXPECT_EQ(status["totalSize"], fs::file_size(file));

  // etcdctl's own file is as good.
  const std::string theirs = Path("theirs");
  setenv("ETCDCTL_API", "3", 1);
  end = RunToEnd(
      {"/usr/bin/etcdctl", "--endpoints", cluster->endpoint(1), "snapshot", "save", theirs});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const auto info = ctl::ReadBackup(theirs);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_TRUE(info->had_hash);

  Fill(*cluster, 1000, 1010);  // lost with the cluster
  LoseAndRestore(*cluster, theirs);
  StartAll(*cluster);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Everything(cluster->endpoint(i)), data) << i;
  const StoreState after = StateOf(cluster->Endpoints());
  EXPECT_EQ(after.revision, before.revision + kBump);
  EXPECT_NE(after.incarnation, before.incarnation);
  EXPECT_NE(after.cluster_id, before.cluster_id);
  EXPECT_FALSE(fs::exists(cluster->data_dir(0) + "/restore"));

  // Who resumes a watch of the old cluster, even behind its last revision, is told.
  ctl::RevisionWatch watch(remote.get());
  const absl::Status watched =
      watch.Run(before.revision + 11, absl::Seconds(20), [](auto) { return true; });
  EXPECT_TRUE(absl::IsOutOfRange(watched)) << watched;
  // The lease began with all of its time, and still holds its key.
  const auto lease = remote->TimeToLive(4711);
  ASSERT_TRUE(lease.ok()) << lease.status();
  EXPECT_GT(lease->ttl(), 590);
  // It goes on, also over a restart, and a new member gets all of it.
  Fill(*cluster, 2000, 2010);
  ASSERT_TRUE(cluster->Kill(1).ok());
  ASSERT_TRUE(cluster->Restart(1).ok());
  ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
  const auto added = cluster->AddMember();
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_TRUE(Eventually([&] {
    const auto read = OpenClient({cluster->endpoint(*added)})->Get("/k/02009");
    return read.ok() && read->value.has_value();
  })) << cluster->LogTail(*added);
  EXPECT_EQ(Everything(cluster->endpoint(*added)).size(), data.size() + 10);
  EXPECT_EQ(Everything(cluster->endpoint(1)).size(), data.size() + 10);
}

TEST_F(BackupTest, AMemberThatLosesItsDiskAfterARestoreIsReplaced) {
  const auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  Fill(*cluster, 0, 20);
  const std::string file = Path("file");
  ASSERT_EQ(Ctl(cluster->Endpoints(), {"snapshot", "save", file}).exit_code, 0);
  LoseAndRestore(*cluster, file);
  StartAll(*cluster);
  Fill(*cluster, 20, 30);
  const auto leader = cluster->Leader();
  ASSERT_TRUE(leader.ok());
  const int victim = (*leader + 1) % 3;
  // Before it has told the others that it runs, they cannot tell a lost disk from a first start.
  ASSERT_TRUE(Eventually([&] {
    const ProgramEnd list = Ctl(cluster->Endpoints(), {"member", "list"});
    return list.exit_code == 0 && list.output.find("unstarted") == std::string::npos;
  }));
  ASSERT_TRUE(cluster->Kill(victim).ok());
  fs::remove_all(cluster->data_dir(victim));
  // With the flags it always had, but for the token that the restore was given.
  ASSERT_TRUE(cluster->Restart(victim, {"--initial-cluster-token=restored"}).ok());
  EXPECT_TRUE(Eventually([&] {
    const auto read = OpenClient({cluster->endpoint(victim)})->Get("/k/00029");
    return read.ok() && read->value.has_value();
  })) << cluster->LogTail(victim);
}

TEST_F(BackupTest, AServerThatDiesWhileItSendsLeavesNoFile) {
  const auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  Fill(*cluster, 0, 64, size_t{1} << 20);
  const std::string file = Path("file");
  ProgramEnd end;
  std::thread saver([&] { end = Ctl({cluster->endpoint(0)}, {"snapshot", "save", file}); });
  const bool began = Eventually([&] {
    std::error_code none;
    const auto size = fs::file_size(file + ".part", none);
    return !none && size > 0;
  });
  const absl::Status killed = cluster->Kill(0);
  saver.join();
  EXPECT_TRUE(began);
  EXPECT_TRUE(killed.ok()) << killed;
  EXPECT_NE(end.exit_code, 0) << end.output;
  EXPECT_FALSE(fs::exists(file));
  EXPECT_FALSE(fs::exists(file + ".part"));
  // Another endpoint would have done.
  end = Ctl(cluster->Endpoints(), {"snapshot", "save", file});
  EXPECT_EQ(end.exit_code, 0) << end.output;
}

TEST_F(BackupTest, AMemberThatDiesWhileItImportsBeginsAgain) {
  const auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  Fill(*cluster, 0, 48, size_t{1} << 20);
  const auto data = Everything(cluster->endpoint(0));
  const std::string file = Path("file");
  ASSERT_EQ(Ctl(cluster->Endpoints(), {"snapshot", "save", file}).exit_code, 0);
  LoseAndRestore(*cluster, file);
  const std::string& victim = cluster->data_dir(0);
  int cut = 0;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(cluster->Restart(0).ok());
    // Some way into it, each time further.
    const uint64_t enough = uint64_t(i) << 22;
    EXPECT_TRUE(Eventually([&] {
      if (!fs::exists(victim + "/restore/plan.json")) return true;
      uint64_t bytes = 0;
      std::error_code none;
      for (fs::recursive_directory_iterator it(victim + "/db", none), stop; !none && it != stop;
           it.increment(none)) {
        std::error_code ignored;
        if (it->is_regular_file(ignored)) bytes += it->file_size(ignored);
      }
      return bytes > enough;
    }));
    ASSERT_TRUE(cluster->Kill(0).ok());
    if (fs::exists(victim + "/restore/plan.json")) ++cut;
  }
  EXPECT_GT(cut, 0) << "no kill came in time: the test shows nothing";
  StartAll(*cluster);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Everything(cluster->endpoint(i)), data) << i;
}

TEST_F(BackupTest, WhatIsNotABackupIsRefusedBeforeAnythingIsLaidDown) {
  const auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  Fill(*cluster, 0, 50);
  const std::string file = Path("file");
  ASSERT_EQ(Ctl(cluster->Endpoints(), {"snapshot", "save", file}).exit_code, 0);
  std::string bytes;
  {
    std::ifstream in(file, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  const auto write = [&](const std::string& text) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << text;
  };
  const auto restore = [&] {
    return Ctl({}, {"snapshot", "restore", file, "--data-dir", Path("new"), "--name", "default"});
  };
  std::string changed = bytes;
  changed[bytes.size() / 2] ^= 1;
  write(changed);
  EXPECT_THAT(restore().output, HasSubstr("damaged at byte"));
  write(bytes.substr(0, bytes.size() / 2));
  EXPECT_THAT(restore().output, HasSubstr("cut off"));
  changed = bytes;
  changed.back() ^= 1;
  write(changed);
  EXPECT_THAT(restore().output, HasSubstr("SHA-256"));
  EXPECT_FALSE(fs::exists(Path("new")));
  // Without the hash, as a tool of one's own may have kept it, and only into an empty directory.
  write(bytes.substr(0, bytes.size() - 32));
  EXPECT_EQ(restore().exit_code, 0);
  EXPECT_THAT(restore().output, HasSubstr("not empty"));
}

TEST_F(BackupTest, IncrementsLeadToEveryRevisionAndEndWithTheHistory) {
  const auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  const std::string store = Path("backups");
  const auto backup = [&] { return Ctl(cluster->Endpoints(), {"backup", store}); };
  Fill(*cluster, 0, 30);
  ProgramEnd end = backup();
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_THAT(end.output, HasSubstr("g00001-full-"));
  const auto remote = Connect(cluster->Endpoints());
  ASSERT_TRUE(remote->Grant(99, 600).ok());
  ASSERT_TRUE(PutWithLease(cluster->endpoint(0), "/held", 99).ok());
  Fill(*cluster, 30, 40);
  const auto half = Everything(cluster->endpoint(0));
  const int64_t half_revision = StateOf(cluster->Endpoints()).revision;
  ASSERT_TRUE(OpenClient(cluster->Endpoints())->DeletePrefix("/k/0000").ok());
  end = backup();
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_THAT(end.output, HasSubstr("g00001-inc-"));
  EXPECT_THAT(backup().output, HasSubstr("nothing new"));
  Fill(*cluster, 40, 50);
  ASSERT_EQ(backup().exit_code, 0);
  const auto last = Everything(cluster->endpoint(0));

  // What was not yet backed up is compacted away: the next one is full again, and says why.
  Fill(*cluster, 50, 60);
  const StoreState now = StateOf(cluster->Endpoints());
  end = RunToEnd({"/usr/bin/etcdctl", "--endpoints", cluster->endpoint(0), "compact",
                  fmt::format("{}", now.revision)});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  end = backup();
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_THAT(end.output, HasSubstr("compacted away"));
  EXPECT_THAT(end.output, HasSubstr("g00002-full-"));
  end = Ctl({}, {"backup", "verify", store});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  end = Ctl({}, {"backup", "list", store});
  EXPECT_THAT(end.output, HasSubstr("generation 1"));
  EXPECT_THAT(end.output, HasSubstr("2 increments"));
  EXPECT_THAT(end.output, HasSubstr("generation 2"));

  LoseAndRestore(*cluster, store, {"--revision", fmt::format("{}", half_revision)});
  StartAll(*cluster);
  EXPECT_EQ(Everything(cluster->endpoint(0)), half);
  EXPECT_EQ(StateOf(cluster->Endpoints()).revision, half_revision + kBump);

  // Another incarnation: full again. --keep drops the oldest generation.
  end = Ctl(cluster->Endpoints(), {"backup", store, "--keep", "2"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_THAT(end.output, HasSubstr("another incarnation"));
  EXPECT_THAT(end.output, HasSubstr("removed generation 1"));
  const auto all = ctl::ListBackups(store);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->size(), 2u);

  // A byte changes on the backup's disk.
  const std::string victim = all->front().files.front().path;
  std::fstream file(victim, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(300);
  file.put('!');
  file.close();
  end = Ctl({}, {"backup", "verify", store});
  EXPECT_EQ(end.exit_code, 5) << end.output;
  EXPECT_THAT(end.output, HasSubstr(victim));
}

// Counts up in the source, key by key, so that something lost or done twice would show.
class EtcdWriter {
 public:
  explicit EtcdWriter(const std::string& endpoint) : client_(OpenClient({endpoint})) {
    thread_ = std::thread([this] { Run(); });
  }
  ~EtcdWriter() { Stop(); }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  int written() const { return written_; }

 private:
  void Run() {
    while (!stop_) {
      const int n = written_;
      if (n % 10 == 9) {
        client_->Delete(fmt::format("/load/{}", n % 40)).status().IgnoreError();
      } else {
        client_->Put(fmt::format("/load/{}", n % 40), fmt::format("{}", n)).status().IgnoreError();
      }
      ++written_;
    }
  }
  std::unique_ptr<Client> client_;
  std::atomic<bool> stop_{false};
  std::atomic<int> written_{0};
  std::thread thread_;
};

TEST_F(BackupTest, ALiveEtcdIsMovedOverWithNothingLostOrDoubled) {
  bench::LocalClusterOptions options;
  options.binary = "/usr/bin/etcd";
  options.members = 1;
  options.root = testing::TempDir();
  const auto etcd = LocalCluster::Start(options);
  ASSERT_TRUE(etcd.ok()) << etcd.status();
  const auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  const std::string& source = (*etcd)->endpoint(0);
  Fill(**etcd, 0, 400);
  const auto remote = Connect({source});
  ASSERT_TRUE(remote->Grant(1234, 600).ok());
  ASSERT_TRUE(remote->Grant(77, 2).ok());  // expires while we look
  ASSERT_TRUE(PutWithLease(source, "/held/long", 1234).ok());
  ASSERT_TRUE(PutWithLease(source, "/held/short", 77).ok());

  EtcdWriter writer(source);
  const auto migrate = [&](std::vector<std::string> more) {
    std::vector<std::string> args = {"migrate", "--from", source};
    args.insert(args.end(), more.begin(), more.end());
    return Ctl(cluster->Endpoints(), args);
  };
  // It catches up under load, is started again, and loses the target's leader on the way.
  ProgramEnd end = migrate({"--until-caught-up"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const int so_far = writer.written();
  EXPECT_TRUE(Eventually([&] { return writer.written() > so_far + 300; }));
  std::thread killer([&] {
    const auto leader = cluster->Leader();
    ASSERT_TRUE(leader.ok());
    ASSERT_TRUE(cluster->Kill(*leader).ok());
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
    ASSERT_TRUE(cluster->Restart(*leader).ok());
  });
  end = migrate({"--until-caught-up"});
  killer.join();
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_TRUE(Eventually([&] {  // the source takes it away, and so must the target
    return !Everything(source).contains("/held/short");
  }));
  writer.Stop();
  end = migrate({"--until-caught-up", "--verify", "--finish"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_THAT(end.output, HasSubstr("0 missing, 0 different, 0 only in the target"));
  // The member that was killed may be on its way back yet.
  EXPECT_TRUE(Eventually([&] {
    return OpenClient({cluster->endpoint(0)})
        ->Get("/held/long", ReadOptions().Deadline(absl::Seconds(2)))
        .ok();
  }));
  EXPECT_EQ(Everything(cluster->endpoint(0)), Everything(source));
  EXPECT_EQ(Everything(source).at("/held/long").second, 1234);
  const auto lease = Connect(cluster->Endpoints())->TimeToLive(1234);
  ASSERT_TRUE(lease.ok()) << lease.status();
  EXPECT_GT(lease->ttl(), 500);
  // With the marker gone it is no empty target any more.
  end = migrate({"--until-caught-up"});
  EXPECT_EQ(end.exit_code, 5) << end.output;
  EXPECT_THAT(end.output, HasSubstr("use an empty one"));
}

}  // namespace
}  // namespace holdfast
