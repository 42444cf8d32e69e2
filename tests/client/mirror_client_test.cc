// The whole client with mirrors, on a store in this process: what a service sees.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <thread>

#include "absl/synchronization/notification.h"
#include "base/strings.h"
#include "holdfast/client.h"
#include "holdfast/testing/fake_clock.h"
#include "holdfast/testing/fake_store.h"

namespace holdfast {
namespace {

using testing::FakeClock;
using testing::FakeStore;

constexpr absl::Duration kSoon = absl::Seconds(10);

class Recorder : public Observer {
 public:
  void OnState(const StateChange& change) override {
    std::lock_guard lock(mutex_);
    states_.push_back(change.to);
  }
  void OnRejected(const Rejection& rejection) override {
    std::lock_guard lock(mutex_);
    rejections_.push_back(rejection);
  }
  void OnLastGoodWritten(std::string_view, uint64_t revision) override { written_ = revision; }
  void OnDiskProblem(std::string_view, const absl::Status& status) override {
    std::lock_guard lock(mutex_);
    problems_.push_back(status);
  }
  std::vector<Rejection> rejections() const {
    std::lock_guard lock(mutex_);
    return rejections_;
  }
  std::vector<absl::Status> problems() const {
    std::lock_guard lock(mutex_);
    return problems_;
  }
  uint64_t written() const { return written_; }

 private:
  mutable std::mutex mutex_;
  std::vector<Link> states_;
  std::vector<Rejection> rejections_;
  std::vector<absl::Status> problems_;
  std::atomic<uint64_t> written_{0};
};

class MirrorClientTest : public ::testing::Test {
 protected:
  MirrorClientTest() : store_({.clock = clock_.clock()}), recorder_(std::make_shared<Recorder>()) {
    std::string dir = ::testing::TempDir() + "mirrorXXXXXX";
    dir_ = mkdtemp(dir.data());
  }
  ~MirrorClientTest() override {
    client_.reset();
    std::filesystem::remove_all(dir_);
  }

  absl::Status Open(Policy policy, std::string prefix = "/c/") {
    client_.reset();
    recorder_ = std::make_shared<Recorder>();
    auto client = Client::Open({.endpoints = store_.endpoints(),
                                .prefixes = {{std::move(prefix), std::move(policy)}},
                                .disk_dir = dir_,
                                .name = "test",
                                .observer = recorder_,
                                .clock = clock_.clock()});
    if (!client.ok()) return client.status();
    client_ = *std::move(client);
    return absl::OkStatus();
  }
  Mirror& mirror() { return *client_->mirror("/c/"); }
  // The mirror has shown this revision, or newer.
  void Shows(uint64_t revision) {
    const absl::Status status =
        mirror().WaitFor({.revision = revision, .cluster_id = 7, .incarnation = 0}, kSoon);
    ASSERT_TRUE(status.ok()) << status;
  }
  std::string Value(std::string_view key = "/c/k") {
    const auto read = mirror().Get(key);
    if (!read.ok()) return "error: " + std::string(base::Message(read.status()));
    return read->value ? read->value->value : "none";
  }
  // Until the engine has seen what makes this true; nothing else tells the test.
  template <class F>
  bool Eventually(F condition) {
    const absl::Time end = absl::Now() + kSoon;
    while (!condition()) {
      if (absl::Now() > end) return false;
      std::this_thread::yield();
    }
    return true;
  }

  FakeClock clock_;
  FakeStore store_;
  std::shared_ptr<Recorder> recorder_;
  std::string dir_;
  std::unique_ptr<Client> client_;
};

TEST_F(MirrorClientTest, FollowsTheStore) {
  store_.Put("/c/k", "1");
  store_.Put("/other", "x");
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  EXPECT_EQ(Value(), "1");
  Shows(store_.Put("/c/k", "2"));
  EXPECT_EQ(Value(), "2");
  Shows(store_.Put("/c/l", "3"));
  ASSERT_TRUE(mirror().WaitFresh(absl::Seconds(1), kSoon).ok());
  const auto scan = mirror().Scan("/c/");
  ASSERT_TRUE(scan.ok());
  EXPECT_EQ(scan->value.size(), 2u);
  EXPECT_EQ(scan->fresh.proof(), Proof::kProven);
  EXPECT_EQ(scan->fresh.source(), Source::kMirror);
  EXPECT_EQ(scan->fresh.grade(), Grade::kFresh);
  Shows(store_.Delete("/c/k"));
  EXPECT_EQ(Value(), "none");
  EXPECT_EQ(mirror().Get("/other").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client_->mirror("/other"), nullptr);
}

TEST_F(MirrorClientTest, ASnapshotStaysWhatItIs) {
  store_.Put("/c/k", "1");
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  const auto before = mirror().Snapshot();
  Shows(store_.Put({{"/c/k", "2"}, {"/c/l", "2"}}));
  const auto after = mirror().Snapshot();
  EXPECT_EQ(before->value.Find("/c/k")->value, "1");
  EXPECT_EQ(before->value.size(), 1u);
  EXPECT_EQ(after->value.Find("/c/l")->value, "2");
}

TEST_F(MirrorClientTest, AfterAnOutageItGoesOnWhereItWas) {
  store_.Put("/c/k", "1");
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  ASSERT_TRUE(mirror().WaitFresh(absl::Seconds(1), kSoon).ok());
  store_.StopServing();
  EXPECT_EQ(Value(), "1");
  store_.Put("/c/k", "2");
  store_.Delete("/c/k");
  const uint64_t revision = store_.Put("/c/k", "3");
  store_.ResumeServing();
  Shows(revision);
  EXPECT_EQ(Value(), "3");
  EXPECT_EQ(store_.loads_whole(), 1);
  EXPECT_EQ(store_.loads_unchanged(), 0) << client_->Dump();
  EXPECT_EQ(store_.loads_resumed(), 1) << store_.calls("Load");
}

TEST_F(MirrorClientTest, WithoutHistoryADigestSpareTheTransferIfNothingChanged) {
  store_.Put("/c/k", "1");
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  ASSERT_TRUE(mirror().WaitFresh(absl::Seconds(1), kSoon).ok());
  store_.StopServing();
  for (int i = 0; i < 5; ++i) store_.Put("/other", "x");
  store_.Compact();
  store_.ResumeServing();
  Shows(store_.revision());
  EXPECT_EQ(store_.loads_whole(), 1);
  EXPECT_EQ(store_.loads_unchanged(), 1);
  store_.StopServing();
  store_.Put("/c/k", "2");
  store_.Put("/other", "x");
  store_.Compact();
  store_.ResumeServing();
  Shows(store_.revision());
  EXPECT_EQ(Value(), "2");
  EXPECT_EQ(store_.loads_whole(), 2);
}

TEST_F(MirrorClientTest, AgesGrowWithoutTheQuorumAndStayProven) {
  store_.Put("/c/k", "1");
  ASSERT_TRUE(Open(Policy::FailStatic().ReducedAfter(absl::Minutes(5))).ok());
  ASSERT_TRUE(mirror().WaitFresh(absl::Seconds(1), kSoon).ok());
  store_.LoseQuorum();
  clock_.Advance(absl::Hours(2));
  const auto read = mirror().Get("/c/k");
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->value->value, "1");
  EXPECT_GE(read->fresh.MaxAge(), absl::Hours(2));
  EXPECT_EQ(read->fresh.proof(), Proof::kProven);
  EXPECT_EQ(read->fresh.grade(), Grade::kReduced);
  EXPECT_FALSE(read->fresh.superseded());
}

TEST_F(MirrorClientTest, AuthClosesAtItsBoundOfDataAge) {
  store_.Put("/c/k", "user");
  ASSERT_TRUE(Open(Policy::FailClosedAfter(absl::Hours(4))).ok());
  ASSERT_TRUE(mirror().WaitFresh(absl::Seconds(1), kSoon).ok());
  store_.LoseQuorum();
  clock_.Advance(absl::Hours(3.9));
  EXPECT_EQ(Value(), "user");
  clock_.Advance(absl::Hours(0.2));
  const auto read = mirror().Get("/c/k");
  EXPECT_EQ(read.status().code(), absl::StatusCode::kFailedPrecondition);
  const auto best = BestAvailable(read.status());
  ASSERT_TRUE(best.has_value());
  EXPECT_GT(best->MaxAge(), absl::Hours(4));
  EXPECT_EQ(mirror().Scan("/c/").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(mirror().Snapshot().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client_->Get("/c/k", ReadOptions::Local()).status().code(),
            absl::StatusCode::kFailedPrecondition);
  store_.RestoreQuorum();
  EXPECT_TRUE(mirror().WaitFresh(absl::Seconds(1), kSoon).ok());
  EXPECT_EQ(Value(), "user");
}

TEST_F(MirrorClientTest, FailOpenServesItsDefaultsBeyondTheBound) {
  store_.Put("/c/k", "limit=10");
  ASSERT_TRUE(
      Open(Policy::FailOpenAfter(absl::Hours(1), {{.key = "/c/k", .value = "limit=1000"}})).ok());
  ASSERT_TRUE(mirror().WaitFresh(absl::Seconds(1), kSoon).ok());
  store_.StopServing();
  EXPECT_EQ(Value(), "limit=10");
  clock_.Advance(absl::Hours(2));
  EXPECT_EQ(Value(), "limit=1000");
  EXPECT_EQ(mirror().Get("/c/k")->fresh.source(), Source::kDefault);
}

TEST_F(MirrorClientTest, NeverStaleMeansLinearizableOrNothing) {
  store_.Put("/c/token", "t");
  ASSERT_TRUE(Open(Policy::NeverStale()).ok());
  EXPECT_EQ(client_->mirror("/c/"), nullptr);
  EXPECT_EQ(client_->Get("/c/token")->value->value, "t");
  for (const ReadOptions& options :
       {ReadOptions::Local(), ReadOptions::Bounded(absl::InfiniteDuration())}) {
    EXPECT_EQ(client_->Get("/c/token", options).status().code(),
              absl::StatusCode::kFailedPrecondition);
  }
  // By no way around.
  const auto bounded = ReadOptions::Bounded(absl::InfiniteDuration());
  for (const RangeQuery& query :
       {RangeQuery::Key("/c/token"), RangeQuery::Prefix("/"), RangeQuery::Prefix("/c/t")}) {
    EXPECT_EQ(client_->Range(query, bounded).status().code(),
              absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(client_->Range(query).ok());
  }
  EXPECT_EQ(client_->Scan("/", bounded).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(client_->Range(RangeQuery::Prefix("/d/"), bounded).ok());
  store_.LoseQuorum();
  auto ladder = ReadOptions::Linearizable().OrStale(absl::InfiniteDuration());
  ladder.Deadline(absl::Seconds(1));
  EXPECT_FALSE(client_->Get("/c/token", ladder).ok());
  EXPECT_FALSE(client_->Scan("/", ladder).ok());
  EXPECT_FALSE(client_->Range(RangeQuery::Prefix("/c/"), ladder).ok());
}

TEST_F(MirrorClientTest, TheLastRungOfALadderIsThisProcess) {
  store_.Put("/c/k", "1");
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  ASSERT_TRUE(mirror().WaitFresh(absl::Seconds(1), kSoon).ok());
  store_.StopServing();
  auto ladder = ReadOptions::Linearizable().OrStale(absl::Minutes(10));
  ladder.Deadline(absl::Seconds(1));
  const auto read = client_->Get("/c/k", ladder);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->value->value, "1");
  EXPECT_EQ(read->fresh.source(), Source::kMirror);
  EXPECT_EQ(client_->Scan("/c/", ladder)->value.size(), 1u);
  clock_.Advance(absl::Minutes(11));
  EXPECT_FALSE(client_->Get("/c/k", ladder).ok());
  // A linearizable read is never downgraded.
  EXPECT_FALSE(client_->Get("/c/k", ReadOptions().Deadline(absl::Seconds(1))).ok());
}

TEST_F(MirrorClientTest, ABoundedReadWithinItsBoundNeverLeavesTheProcess) {
  store_.Put("/c/k", "1");
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  ASSERT_TRUE(mirror().WaitFresh(absl::Seconds(1), kSoon).ok());
  const int before = store_.calls("Range");
  EXPECT_EQ(client_->Get("/c/k", ReadOptions::Bounded(absl::Minutes(1)))->value->value, "1");
  absl::Notification done;
  client_->Get("/c/k", ReadOptions::Local(), [&](auto read) {
    EXPECT_EQ(read->value->value, "1");
    done.Notify();
  });
  done.WaitForNotification();
  EXPECT_EQ(store_.calls("Range"), before);
}

absl::Status OnlyDigits(const MirrorSnapshot&, const MirrorSnapshot& after) {
  absl::Status status;
  after.Scan("", [&status](const EntryView& entry) {
    if (entry.value.find_first_not_of("0123456789") == std::string_view::npos) return true;
    status = absl::InvalidArgumentError("not a number: " + std::string(entry.key));
    return false;
  });
  return status;
}

TEST_F(MirrorClientTest, ABadSetIsRefusedTheOldOneServedAndTheServerTold) {
  store_.Put({{"/c/a", "1"}, {"/c/b", "2"}});
  ASSERT_TRUE(Open(Policy::FailStatic().Validate(OnlyDigits)).ok());
  const uint64_t bad = store_.Put("/c/a", "poison");
  ASSERT_TRUE(Eventually([&] { return !recorder_->rejections().empty(); }));
  EXPECT_EQ(Value("/c/a"), "1");
  EXPECT_EQ(recorder_->rejections()[0].revision, bad);
  EXPECT_TRUE(mirror().Get("/c/b")->fresh.superseded());
  EXPECT_TRUE(store_.WaitUntil([&] {
    const auto report = store_.report("/c/");
    return report.has_value() && report->refused_revision == bad;
  }));
  EXPECT_NE(store_.report("/c/")->refused_why.find("not a number: /c/a"), std::string::npos);
  // A good change behind it does not make it good; what mends it does.
  store_.Put("/c/b", "3");
  const uint64_t mended = store_.Put("/c/a", "4");
  Shows(mended);
  EXPECT_EQ(Value("/c/a"), "4");
  EXPECT_EQ(Value("/c/b"), "3");
  EXPECT_FALSE(mirror().Get("/c/b")->fresh.superseded());
}

// The first data is bad: the defaults are served, alone, until better data comes.
TEST_F(MirrorClientTest, DefaultsStandInForRefusedDataAndAreNeverMixedWithIt) {
  store_.Put("/c/k", "poison");
  ASSERT_TRUE(Open(Policy::FailStatic()
                       .Validate(OnlyDigits)
                       .StartupWait(absl::Milliseconds(300))
                       .Defaults({{.key = "/c/d", .value = "7"}}))
                  .ok());
  EXPECT_EQ(Value("/c/d"), "7");
  EXPECT_EQ(Value("/c/k"), "none");
  EXPECT_EQ(mirror().Get("/c/d")->fresh.source(), Source::kDefault);
  Shows(store_.Put("/c/k", "8"));
  EXPECT_EQ(Value("/c/k"), "8");
  EXPECT_EQ(Value("/c/d"), "none");
  EXPECT_EQ(mirror().Snapshot()->value.size(), 1u);
}

// A slow validator is at work when the wait of Open ends.
TEST_F(MirrorClientTest, DefaultsDoNotCollideWithDataThatIsBeingJudged) {
  store_.Put("/c/k", "1");
  absl::Notification opened;
  ASSERT_TRUE(Open(Policy::FailStatic()
                       .Validate(
                           [&opened](const MirrorSnapshot&, const MirrorSnapshot&) {
                             opened.WaitForNotification();
                             return absl::OkStatus();
                           },
                           absl::Seconds(5))
                       .StartupWait(absl::Milliseconds(100))
                       .Defaults({{.key = "/c/k", .value = "7"}}))
                  .ok());
  EXPECT_EQ(Value(), "7");
  opened.Notify();
  ASSERT_TRUE(Eventually([&] { return Value() == "1"; }));
}

TEST_F(MirrorClientTest, AValidatorThatHangsCostsNoRead) {
  store_.Put("/c/k", "1");
  absl::Notification release;
  std::atomic<bool> hang = false;
  ASSERT_TRUE(Open(Policy::FailStatic().Validate(
                       [&](const MirrorSnapshot&, const MirrorSnapshot&) {
                         if (hang) release.WaitForNotification();
                         return absl::OkStatus();
                       },
                       absl::Milliseconds(50)))
                  .ok());
  hang = true;
  store_.Put("/c/k", "2");
  ASSERT_TRUE(Eventually([&] { return !recorder_->rejections().empty(); }));
  EXPECT_EQ(recorder_->rejections()[0].why.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Value(), "1");
  // It was not bad, only slow: it is asked again, without another write.
  hang = false;
  release.Notify();
  ASSERT_TRUE(Eventually([&] { return Value() == "2"; }));
  Shows(store_.Put("/c/k", "3"));
  EXPECT_EQ(Value(), "3");
}

TEST_F(MirrorClientTest, MassDeletionIsHeldUntilSomebodyLooked) {
  std::vector<std::pair<std::string, std::string>> records;
  for (int i = 0; i < 20; ++i) records.emplace_back("/c/" + std::to_string(i), "v");
  store_.Put(records);
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  const uint64_t gone = store_.DeletePrefix("/c/1");  // 11 of 20
  ASSERT_TRUE(Eventually([&] { return !recorder_->rejections().empty(); }));
  EXPECT_EQ(mirror().Snapshot()->value.size(), 20u);
  mirror().MarkAccepted(gone);
  Shows(gone);
  EXPECT_EQ(mirror().Snapshot()->value.size(), 9u);
}

TEST_F(MirrorClientTest, ASetTwiceAsLargeIsHeld) {
  store_.Put("/c/file", std::string(10'000, 'x'));
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  store_.Put("/c/file", std::string(20'100, 'x'));
  ASSERT_TRUE(Eventually([&] { return !recorder_->rejections().empty(); }));
  EXPECT_EQ(Value("/c/file").size(), 10'000u);
  Shows(store_.Put("/c/file", std::string(15'000, 'x')));
  EXPECT_EQ(Value("/c/file").size(), 15'000u);
}

absl::StatusOr<int> ParseNumber(std::string_view text) {
  int n = 0;
  if (!absl::SimpleAtoi(base::ToAbsl(text), &n)) return absl::InvalidArgumentError("not a number");
  return n;
}

TEST_F(MirrorClientTest, ALiveValueIsAlwaysThere) {
  store_.Put("/c/k", "1");
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  EXPECT_EQ(client_->Open<int>("/c/none", ParseNumber).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(client_->Open<int>("/other", ParseNumber).status().code(),
            absl::StatusCode::kFailedPrecondition);
  auto live = client_->Open<int>("/c/k", ParseNumber);
  ASSERT_TRUE(live.ok()) << live.status();
  std::atomic<int> heard = 0;
  live->OnChange([&heard](std::shared_ptr<const int> value) { heard = *value; });
  EXPECT_EQ(***live, 1);
  Shows(store_.Put("/c/k", "2"));
  EXPECT_EQ(***live, 2);
  EXPECT_TRUE(Eventually([&] { return heard == 2; }));
  store_.Put("/c/k", "what");
  ASSERT_TRUE(Eventually([&] { return !recorder_->rejections().empty(); }));
  EXPECT_EQ(***live, 2);
  EXPECT_TRUE(live->fresh().superseded());
  // Its key may go; the value stays.
  Shows(store_.Put("/c/k", "3"));
  Shows(store_.Put("/c/other", "x"));
  Shows(store_.Delete("/c/k"));
  EXPECT_EQ(***live, 3);
}

// The store holds a value that only the parser of a live value would refuse, and that comes after
// Open.
TEST_F(MirrorClientTest, ALiveValueBeginsWithTheCopyOnDiskIfTheStoreIsPoisoned) {
  store_.Put("/c/k", "1");
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  ASSERT_TRUE(Eventually([&] { return recorder_->written() != 0; }));
  client_.reset();
  store_.Put("/c/k", "poison");
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  const auto live = client_->Open<int>("/c/k", ParseNumber);
  ASSERT_TRUE(live.ok()) << live.status();
  EXPECT_EQ(***live, 1);
  ASSERT_TRUE(Eventually([&] { return !recorder_->rejections().empty(); }));
  EXPECT_EQ(***live, 1);
  Shows(store_.Put("/c/k", "2"));
  EXPECT_EQ(***live, 2);
}

TEST_F(MirrorClientTest, ChangesAreToldInOrder) {
  store_.Put("/c/k", "0");
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  std::mutex mutex;
  std::vector<std::string> values;
  mirror().OnChange([&](const MirrorSnapshot& before, const MirrorSnapshot& after) {
    std::lock_guard lock(mutex);
    if (!values.empty()) {
      EXPECT_EQ(before.Find("/c/k")->value, values.back());
    }
    values.emplace_back(after.Find("/c/k")->value);
  });
  uint64_t revision = 0;
  for (int i = 1; i <= 100; ++i) revision = store_.Put("/c/k", std::to_string(i));
  Shows(revision);
  EXPECT_TRUE(Eventually([&] {
    std::lock_guard lock(mutex);
    return !values.empty() && values.back() == "100";
  }));
}

TEST_F(MirrorClientTest, ARestoredStoreIsTakenWhole) {
  store_.Put("/c/k", "1");
  const uint64_t backup = store_.revision();
  store_.Put("/c/k", "2");
  ASSERT_TRUE(Open(Policy::FailStatic().Validate(OnlyDigits)).ok());
  EXPECT_EQ(Value(), "2");
  store_.RestoreTo(backup);
  ASSERT_TRUE(Eventually([&] { return Value() == "1"; }));
  const auto read = mirror().Get("/c/k");
  EXPECT_LE(read->fresh.revision(), backup + 1);
}

TEST_F(MirrorClientTest, OpenWithoutTheStoreAndWithoutACopySaysWhatIsMissing) {
  store_.StopServing();
  const absl::Status status = Open(Policy::FailStatic().StartupWait(absl::Milliseconds(200)));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(Open(Policy::FailStatic()
                       .StartupWait(absl::Milliseconds(100))
                       .Defaults({{.key = "/c/k", .value = "built in"}}))
                  .ok());
  EXPECT_EQ(Value(), "built in");
}

TEST_F(MirrorClientTest, ARestartDuringAnOutageBeginsWithTheDisk) {
  store_.Put("/c/k", "1");
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  ASSERT_TRUE(mirror().WaitFresh(absl::Seconds(1), kSoon).ok());
  ASSERT_TRUE(Eventually([&] { return recorder_->written() != 0; }));
  store_.StopServing();
  clock_.Advance(absl::Minutes(10));
  ASSERT_TRUE(Open(Policy::FailStatic()).ok());
  const auto read = mirror().Get("/c/k");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->value->value, "1");
  EXPECT_EQ(read->fresh.source(), Source::kDisk);
  EXPECT_EQ(read->fresh.proof(), Proof::kProven);
  EXPECT_GE(read->fresh.MaxAge(), absl::Minutes(10));
  EXPECT_LT(read->fresh.MaxAge(), absl::Minutes(11));
  store_.ResumeServing();
  Shows(store_.Put("/c/k", "2"));
  EXPECT_EQ(Value(), "2");
  EXPECT_EQ(store_.loads_whole(), 1);
}

TEST_F(MirrorClientTest, AfterARebootTheAgeIsEstimatedAndAuthStaysClosed) {
  store_.Put("/c/k", "1");
  ASSERT_TRUE(Open(Policy::FailClosedAfter(absl::Hours(4))).ok());
  ASSERT_TRUE(mirror().WaitFresh(absl::Seconds(1), kSoon).ok());
  ASSERT_TRUE(Eventually([&] { return recorder_->written() != 0; }));
  client_.reset();
  store_.StopServing();
  clock_.Reboot(absl::Minutes(1));
  ASSERT_TRUE(Open(Policy::FailClosedAfter(absl::Hours(4), Proof::kEstimated)).ok());
  const auto read = mirror().Get("/c/k");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->fresh.proof(), Proof::kEstimated);
  ASSERT_TRUE(Open(Policy::FailClosedAfter(absl::Hours(4))).ok());
  EXPECT_EQ(mirror().Get("/c/k").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(MirrorClientTest, ClosingAndOpeningFastIsSafe) {
  store_.Put("/c/k", "1");
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(Open(Policy::FailStatic()).ok());
    store_.Put("/c/k", std::to_string(i));
  }
}

TEST_F(MirrorClientTest, APlainEtcdIsMirroredWithoutAges) {
  FakeStore etcd({.plain_etcd = true});
  for (int i = 0; i < 2500; ++i) etcd.Put("/c/" + std::to_string(i), "v");
  auto client = Client::Open(
      {.endpoints = etcd.endpoints(), .prefixes = {{"/c/", Policy::FailStatic().MemoryOnly()}}});
  ASSERT_TRUE(client.ok()) << client.status();
  Mirror& mirror = *(*client)->mirror("/c/");
  EXPECT_EQ(mirror.Snapshot()->value.size(), 2500u);
  const uint64_t revision = etcd.Put("/c/1", "w");
  ASSERT_TRUE(mirror.WaitFor({.revision = revision}, kSoon).ok());
  EXPECT_EQ(mirror.Get("/c/1")->value->value, "w");
  EXPECT_EQ(mirror.Get("/c/1")->fresh.proof(), Proof::kUnknown);
}

}  // namespace
}  // namespace holdfast
