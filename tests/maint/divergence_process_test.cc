// One member's data is altered behind its back: it is found, fenced, alarmed and repaired while the
// others serve; and where nobody can tell who is right, nobody serves.
#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "storage/mvcc_codec.h"
#include "storage/mvcc_database.h"
#include "tests/maint/maint_calls.h"
#include "tests/process/member_calls.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kVictimKey[] = "/k/0007";
constexpr char kRight[] = "right";
constexpr char kWrong[] = "wrong";

void PutAll(MemberApi& api, int keys) {
  for (int i = 0; i < keys; ++i) {
    const grpc::Status put = api.Put(fmt::format("/k/{:04}", i), kRight);
    ASSERT_TRUE(put.ok()) << put.error_message();
  }
}

// Replaces the value of kVictimKey in the database of a member that does not run, with checksums
// that hold: what a bug would leave, or a disk that lies well.
void Plant(const std::string& data_dir) {
  std::ifstream file(data_dir + "/db/current");
  std::string name;
  ASSERT_TRUE(file >> name);
  storage::AppliedState applied;
  auto database = storage::mvcc::Database::Open({.dir = data_dir + "/db/" + name}, &applied);
  ASSERT_TRUE(database.ok()) << database.status();
  std::string bytes;
  ASSERT_TRUE((*database)
                  ->db()
                  ->Get(rocksdb::ReadOptions(), (*database)->current(), kVictimKey, &bytes)
                  .ok());
  ASSERT_TRUE(bytes.ends_with(kRight)) << "the value is the end of its record";
  bytes.replace(bytes.size() - std::string(kRight).size(), std::string::npos, kWrong);
  rocksdb::WriteBatch batch;
  ASSERT_TRUE(batch.Put((*database)->current(), kVictimKey, bytes).ok());
  ASSERT_TRUE((*database)->Write(&batch).ok());
  ASSERT_TRUE((*database)->Flush().ok());
}

std::string LogOf(bench::LocalCluster& cluster, int i) {
  std::ifstream in(cluster.log_file(i));
  return {std::istreambuf_iterator<char>(in), {}};
}

// Reads kVictimKey at one member again and again, from whatever answers there.
class Reader {
 public:
  explicit Reader(const std::string& endpoint) : api_(endpoint, absl::Milliseconds(500)) {
    thread_ = std::thread([this] {
      while (!stop_) Read();
    });
  }
  ~Reader() { Stop(); }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  bool saw_wrong() const { return saw_wrong_; }
  bool refused() const { return refused_; }
  bool wrong_after_refusal() const { return wrong_after_refusal_; }

 private:
  void Read() {
    std::optional<mvccpb::KeyValue> kv;
    const grpc::Status status = api_.Get(kVictimKey, /*serializable=*/true, &kv);
    if (status.error_code() == grpc::StatusCode::DATA_LOSS) refused_ = true;
    if (!status.ok() || !kv.has_value() || kv->value() == kRight) return;
    saw_wrong_ = true;
    if (refused_) wrong_after_refusal_ = true;
  }

  MemberApi api_;
  std::atomic<bool> stop_ = false;
  std::atomic<bool> saw_wrong_ = false;
  std::atomic<bool> refused_ = false;
  std::atomic<bool> wrong_after_refusal_ = false;
  std::thread thread_;
};

// Writes at one member all the time, and counts what failed.
class Writer {
 public:
  explicit Writer(const std::string& endpoint) : api_(endpoint) {
    thread_ = std::thread([this] {
      for (int i = 0; !stop_; ++i) {
        const grpc::Status put = api_.Put(fmt::format("/w/{}", i % 50), std::to_string(i));
        ++(put.ok() ? done_ : failed_);
      }
    });
  }
  ~Writer() { Stop(); }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  int done() const { return done_; }
  int failed() const { return failed_; }

 private:
  MemberApi api_;
  std::atomic<bool> stop_ = false;
  std::atomic<int> done_ = 0;
  std::atomic<int> failed_ = 0;
  std::thread thread_;
};

void ExpectEqualEverywhere(bench::LocalCluster& cluster) {
  MemberApi any(cluster.endpoint(0));
  ASSERT_TRUE(any.Put("/last", "x").ok());
  std::optional<mvccpb::KeyValue> kv;
  ASSERT_TRUE(any.Get("/last", false, &kv).ok());
  const int64_t revision = kv->mod_revision();
  std::vector<uint32_t> hashes;
  for (int i = 0; i < cluster.size(); ++i) {
    MemberApi api(cluster.endpoint(i));
    ASSERT_TRUE(api.Get("/last", false, &kv).ok()) << "linearizable: it has everything";
    etcdserverpb::HashKVResponse hash;
    ASSERT_TRUE(api.HashKv(revision, &hash).ok());
    hashes.push_back(hash.hash());
    ASSERT_TRUE(api.Get(kVictimKey, true, &kv).ok());
    EXPECT_EQ(kv->value(), kRight);
  }
  EXPECT_THAT(hashes, testing::Each(hashes[0]));
}

// Of the member that was altered, from its start to its repair.
void ExpectFoundAndRepaired(bench::LocalCluster& cluster, int victim, uint64_t old_id) {
  const int other = (victim + 1) % 3;
  ASSERT_TRUE(Eventually([&] { return !cluster.Running(victim); })) << cluster.LogTail(other);
  EXPECT_THAT(LogOf(cluster, victim), HasSubstr("differs from the"));
  EXPECT_TRUE(fs::exists(cluster.data_dir(victim) + "/damage"));
  MemberApi api(cluster.endpoint(other));
  ASSERT_TRUE(Eventually([&] {
    const auto alarms = api.Alarms();
    return alarms.size() == 1 && alarms[0].memberid() == old_id &&
           alarms[0].alarm() == etcdserverpb::CORRUPT;
  })) << cluster.LogTail(other);

  ASSERT_TRUE(cluster.Restart(victim).ok());
  const auto members =
      AwaitMembers(cluster.endpoint(other), [old_id](const std::vector<ListedMember>& members) {
        return members.size() == 3 && FindMember(members, old_id) == nullptr &&
               std::ranges::all_of(
                   members, [](const ListedMember& m) { return !m.learner && !m.name.empty(); });
      });
  EXPECT_EQ(members.size(), 3u);
  EXPECT_EQ(FindMember(members, old_id), nullptr) << cluster.LogTail(victim);
  EXPECT_TRUE(Eventually([&] { return api.Alarms().empty(); })) << cluster.LogTail(other);
  EXPECT_FALSE(fs::exists(cluster.data_dir(victim) + "/damage"));
}

TEST(DivergenceProcess, AFollowerThatDiffersIsFencedAndRepairedWhileTheOthersServe) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  const int leader = *cluster->Leader();
  const int victim = (leader + 1) % 3;
  MemberApi api(cluster->endpoint(leader));
  PutAll(api, 50);
  const auto old_id = IdOf(cluster->endpoint(victim));
  ASSERT_TRUE(old_id.ok());
  // It has everything before it stops.
  std::optional<mvccpb::KeyValue> kv;
  ASSERT_TRUE(MemberApi(cluster->endpoint(victim)).Get(kVictimKey, false, &kv).ok());
  ASSERT_TRUE(cluster->Stop(victim).ok());
  Plant(cluster->data_dir(victim));
  Writer writer(cluster->endpoint(leader));
  Reader reader(cluster->endpoint(victim));
  ASSERT_TRUE(cluster->Restart(victim).ok());
  ExpectFoundAndRepaired(*cluster, victim, *old_id);
  reader.Stop();
  writer.Stop();
  EXPECT_TRUE(reader.saw_wrong()) << "else this test shows nothing";
  EXPECT_FALSE(reader.wrong_after_refusal());
  EXPECT_GT(writer.done(), 100);
  EXPECT_EQ(writer.failed(), 0);
  ExpectEqualEverywhere(*cluster);
}

TEST(DivergenceProcess, ALeaderThatDiffersHandsOverAndIsRepaired) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  const int victim = *cluster->Leader();
  MemberApi api(cluster->endpoint(victim));
  PutAll(api, 50);
  const auto old_id = IdOf(cluster->endpoint(victim));
  ASSERT_TRUE(old_id.ok());
  ASSERT_TRUE(cluster->Stop(victim).ok());
  Plant(cluster->data_dir(victim));
  ASSERT_TRUE(cluster->Restart(victim).ok());
  // Leadership goes to it at once, before the others can find anything. Should they be quicker,
  // this is the test above once more.
  (void)Eventually(
      [&] {
        const auto leader = cluster->Leader();
        return !cluster->Running(victim) || (leader.ok() && *leader == victim) ||
               (leader.ok() && MoveLeader(cluster->endpoint(*leader), *old_id).ok());
      },
      absl::Seconds(5));
  ExpectFoundAndRepaired(*cluster, victim, *old_id);
  ExpectEqualEverywhere(*cluster);
}

TEST(DivergenceProcess, OfTwoThatDifferNobodyServesUntilAPersonDecides) {
  bench::LocalClusterOptions options;
  options.binary = bench::BinaryBesideOwn("holdfastd");
  options.root = testing::TempDir();
  options.members = 2;
  auto cluster = bench::LocalCluster::Start(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const int leader = *(*cluster)->Leader();
  const int victim = 1 - leader;
  MemberApi api((*cluster)->endpoint(leader));
  PutAll(api, 10);
  ASSERT_TRUE((*cluster)->Stop(victim).ok());
  Plant((*cluster)->data_dir(victim));
  ASSERT_TRUE((*cluster)->Restart(victim).ok());
  ASSERT_TRUE((*cluster)->WaitForLeader(kGiveUp).ok());
  std::optional<mvccpb::KeyValue> kv;
  for (int i = 0; i < 2; ++i) {
    MemberApi member((*cluster)->endpoint(i));
    for (const bool serializable : {true, false}) {
      EXPECT_TRUE(Eventually([&] {
        return member.Get(kVictimKey, serializable, &kv).error_message() ==
               "etcdserver: corrupt cluster";
      })) << i;
    }
    EXPECT_EQ(member.Put("/k", "v").error_message(), "etcdserver: corrupt cluster");
    EXPECT_EQ(member.Delete("/k").error_message(), "etcdserver: corrupt cluster");
    EXPECT_TRUE((*cluster)->Running(i)) << "nobody knows whose data to throw away";
    etcdserverpb::StatusResponse status;
    ASSERT_TRUE(member.Status(&status).ok());
    EXPECT_THAT(status.errors(), testing::Contains("alarm:CORRUPT "));
  }
  // The person finds out which one is wrong and takes it out, while both still vote; then clears
  // the alarm.
  const auto victim_id = IdOf((*cluster)->endpoint(victim));
  ASSERT_TRUE(victim_id.ok());
  ASSERT_TRUE(
      Eventually([&] { return RemoveMember((*cluster)->endpoint(leader), *victim_id).ok(); }));
  std::vector<etcdserverpb::AlarmMember> cleared;
  ASSERT_TRUE(Eventually([&] {
    return api.Alarm(etcdserverpb::AlarmRequest::DEACTIVATE, 0, etcdserverpb::CORRUPT, &cleared)
        .ok();
  }));
  EXPECT_EQ(cleared.size(), 1u);
  EXPECT_TRUE(api.Put("/k", "v").ok());
  ASSERT_TRUE(api.Get(kVictimKey, false, &kv).ok());
  EXPECT_EQ(kv->value(), kRight);
}

}  // namespace
}  // namespace holdfast
