// Small parts of maintenance: space limits, downgrade's versions, admission, the log of checks, the
// thread for long work.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/synchronization/notification.h"
#include "server/admission.h"
#include "server/divergence_checker.h"
#include "server/downgrade.h"
#include "server/etcd_errors.h"
#include "server/space_guard.h"
#include "server/work_thread.h"
#include "storage/damage.h"
#include "tests/server/config_fakes.h"

namespace holdfast::server {
namespace {

using ::testing::HasSubstr;

ApplyEffects Checked(uint64_t index, const CheckDigest& digest) {
  CheckResult result;
  result.index = Index(index);
  result.low = digest.low;
  result.high = digest.high;
  result.records = digest.records;
  ApplyEffects effects;
  effects.checks.push_back(std::move(result));
  return effects;
}

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint64_t kGib = uint64_t{1} << 30;

TEST(SpaceLimits, TheReserveIsHalfAGibibyteOrATwentiethOfTheDisk) {
  EXPECT_EQ(ReserveOf({}, 1000 * kGib), 512 * kMib);
  EXPECT_EQ(ReserveOf({}, 200 * kMib), 10 * kMib);
  EXPECT_EQ(ReserveOf({.reserve_bytes = 7}, 1000 * kGib), 7u);
  EXPECT_EQ(ReserveOf({.reserve_bytes = 0}, 1000 * kGib), 0u);
  EXPECT_EQ(ReserveOf({.reserve_bytes = -1}, 1000 * kGib), 0u);
}

TEST(SpaceLimits, EachLimitCountsForItself) {
  const DiskSpace roomy = {.free_bytes = kGib, .total_bytes = 100 * kGib};
  const DiskSpace tight = {.free_bytes = 512 * kMib - 1, .total_bytes = 100 * kGib};
  EXPECT_EQ(Shortage({}, roomy, 50 * kGib), std::nullopt) << "no quota by default";
  EXPECT_THAT(*Shortage({}, tight, 1), HasSubstr("--disk-reserve-bytes"));
  EXPECT_EQ(Shortage({.reserve_bytes = -1}, tight, 1), std::nullopt);
  EXPECT_EQ(Shortage({.reserve_bytes = -1}, DiskSpace{}, 1), std::nullopt);
  EXPECT_THAT(*Shortage({.quota_bytes = 100}, roomy, 100), HasSubstr("--quota-backend-bytes"));
  EXPECT_EQ(Shortage({.quota_bytes = 100}, roomy, 99), std::nullopt);
  EXPECT_EQ(Shortage({.quota_bytes = -1}, roomy, kGib), std::nullopt);
  // A disk that does not tell raises no alarm; the quota still holds.
  EXPECT_EQ(Shortage({}, std::nullopt, 1), std::nullopt);
  EXPECT_NE(Shortage({.quota_bytes = 1}, std::nullopt, 1), std::nullopt);
}

TEST(SpaceGuard, RaisesTheAlarmOnceAndAgainWhenItIsClearedTooEarly) {
  FakeNode node;
  FakeMachine machine;
  FakePipeline pipeline(&machine);
  node.set_status(LedStatus());
  Admission admission(&node);
  pipeline.refusals_ = 1;  // the first try is lost
  const MemberView view = {
      .cluster_id = 0xc, .self = kSelf, .node = &node, .machine = &machine, .pipeline = &pipeline};
  EXPECT_TRUE(admission.CheckSpace().ok());
  // FakeStore says 4096.
  SpaceGuard guard(view, &admission, testing::TempDir(),
                   {.quota_bytes = 4096, .reserve_bytes = -1});
  EXPECT_EQ(pipeline.WaitForProposals(2)[1].alarm().member_id(), kSelf.value);
  EXPECT_EQ(admission.CheckSpace(), ErrNoSpace());
  const AlarmSet::Alarm alarm = {kSelf.value, AlarmType::kNoSpace};
  while (!machine.alarms().alarms().contains(alarm)) std::this_thread::yield();
  machine.set_alarms({});  // an operator, too early
  pipeline.WaitForProposals(3);
  guard.Stop();
  EXPECT_EQ(pipeline.proposals(), 3u) << "once each";
}

TEST(Downgrade, VersionsAreReadAsEtcdReadsThem) {
  const auto parsed = [](std::string_view text) { return *ParseClusterVersion(text); };
  EXPECT_EQ(parsed("3.4"), "3.4.0");
  EXPECT_EQ(parsed("3.4.17"), "3.4.0");
  EXPECT_EQ(parsed("3.4.0-rc.1"), "3.4.0");
  EXPECT_EQ(parsed("3.4.0+build"), "3.4.0");
  for (const char* wrong : {"", "3", "3.", "v3.4.0", "3.4.", "3.4.0.1", "3.04", "-3.4", "3.4 ",
                            "x.y.z", "3.4.x", "99999999999999999999.1"}) {
    EXPECT_EQ(ParseClusterVersion(wrong).status(), ErrWrongDowngradeVersionFormat()) << wrong;
  }
}

TEST(Downgrade, OnlyToTheMinorVersionBelow) {
  EXPECT_EQ(*CheckDowngradeTarget("3.4.0", "3.5"), "3.4.0");
  for (const char* wrong : {"3.5.0", "3.3", "3.6", "2.4"}) {
    EXPECT_EQ(CheckDowngradeTarget(wrong, "3.5").status(), ErrInvalidDowngradeTargetVersion());
  }
  EXPECT_EQ(CheckDowngradeTarget("3.0", "4.0").status(), ErrInvalidDowngradeTargetVersion());
}

TEST(Admission, AlarmsOfOthersDoNotConcernThisMember) {
  FakeNode node;
  FakeMachine machine;
  AlarmWatch watch(&machine, kSelf);
  Admission admission(&node, &watch);
  const auto alarms = [&](std::vector<AlarmSet::Alarm> raised) {
    AlarmSet set;
    for (const AlarmSet::Alarm& alarm : raised) set.Raise(alarm);
    machine.set_alarms(set);
    ApplyEffects effects;
    effects.alarms_changed = true;
    watch.OnApplied({}, effects, false);
    return admission.CheckTrust();
  };
  EXPECT_TRUE(alarms({}).ok());
  EXPECT_TRUE(alarms({{kOther.value, AlarmType::kCorrupt}}).ok());
  EXPECT_TRUE(alarms({{kSelf.value, AlarmType::kNoSpace}}).ok());
  EXPECT_EQ(alarms({{kSelf.value, AlarmType::kCorrupt}}), ErrCorrupt());
  EXPECT_EQ(alarms({{0, AlarmType::kCorrupt}}), ErrCorrupt());
  EXPECT_TRUE(alarms({}).ok()) << "cleared";
  // A snapshot brings alarms too.
  AlarmSet all;
  all.Raise({0, AlarmType::kCorrupt});
  machine.set_alarms(all);
  watch.OnReplaced({});
  EXPECT_EQ(admission.CheckTrust(), ErrCorrupt());
  EXPECT_EQ(alarms({}), absl::OkStatus());
  admission.Fence();
  EXPECT_EQ(admission.CheckTrust(), ErrCorrupt()) << "for good";
}

TEST(CheckLog, KeepsTheNewest) {
  CheckLog log;
  EXPECT_FALSE(log.Newest().has_value());
  for (uint64_t i = 1; i <= 2 * CheckLog::kKept; ++i) {
    log.OnApplied({}, Checked(10 * i, {.low = i, .high = 2, .records = 3}), false);
  }
  EXPECT_EQ(log.Newest()->index, Index(20 * CheckLog::kKept));
  EXPECT_FALSE(log.Find(Index(10)).has_value()) << "forgotten";
  EXPECT_FALSE(log.Find(Index(20 * CheckLog::kKept - 1)).has_value()) << "never was";
  EXPECT_EQ(log.Find(Index(20 * CheckLog::kKept)),
            (CheckDigest{.low = 2 * CheckLog::kKept, .high = 2, .records = 3}));
}

TEST(PeerCheckService, AnswersItsOwnClusterAlone) {
  FakeNode node;
  FakeMachine machine;
  FakePipeline pipeline(&machine);
  node.set_status(LedStatus());
  const MemberView view = {
      .cluster_id = 0xc, .self = kSelf, .node = &node, .machine = &machine, .pipeline = &pipeline};
  CheckLog log;
  log.OnApplied({}, Checked(5, {.low = 7, .high = 8, .records = 9}), false);
  Admission admission(&node);
  absl::Notification ended;
  absl::Status fatal;
  DivergenceChecker checker(view, &log, &admission,
                            {.data_dir = "dir", .on_fatal = [&](const absl::Status& status) {
                               fatal = status;
                               ended.Notify();
                             }});
  PeerCheckService service(view, &log, &checker);
  raft::v1::DigestsRequest request;
  raft::v1::DigestsReply reply;
  request.set_cluster_id(0xc);
  request.set_to(kSelf.value);
  request.add_indexes(5);
  request.add_indexes(6);
  ASSERT_TRUE(service.Digests(nullptr, &request, &reply).ok());
  ASSERT_EQ(reply.digests_size(), 2);
  EXPECT_TRUE(reply.digests(0).known());
  EXPECT_EQ(reply.digests(0).low(), 7u);
  EXPECT_EQ(reply.digests(0).high(), 8u);
  EXPECT_EQ(reply.digests(0).records(), 9u);
  EXPECT_FALSE(reply.digests(1).known());
  request.set_to(kOther.value);
  EXPECT_FALSE(service.Digests(nullptr, &request, &reply).ok());

  raft::v1::FenceRequest fence;
  raft::v1::FenceReply fenced;
  fence.set_cluster_id(0xd);
  fence.set_to(kSelf.value);
  fence.set_why("because");
  EXPECT_FALSE(service.Fence(nullptr, &fence, &fenced).ok());
  EXPECT_FALSE(admission.fenced());
  fence.set_cluster_id(0xc);
  EXPECT_TRUE(service.Fence(nullptr, &fence, &fenced).ok());
  EXPECT_TRUE(admission.fenced()) << "at once, not when the process ends";
  ended.WaitForNotification();
  EXPECT_TRUE(storage::DamageOf(fatal).has_value()) << "else the next start would not repair it";
  EXPECT_THAT(std::string(fatal.message()), HasSubstr("because"));
  checker.Stop();
}

TEST(WorkThread, RefusesWhatIsTooMuchAndEndsWhatItTook) {
  WorkThread thread(1);
  absl::Notification begun, go_on;
  std::atomic<int> done = 0;
  ASSERT_TRUE(thread.TryPost([&](std::atomic<bool>*) {
    begun.Notify();
    go_on.WaitForNotification();
    ++done;
  }));
  begun.WaitForNotification();
  EXPECT_TRUE(thread.TryPost([&](std::atomic<bool>*) { ++done; }));
  EXPECT_FALSE(thread.TryPost([&](std::atomic<bool>*) { ++done; })) << "one runs and one waits";
  go_on.Notify();
  thread.Stop();
  EXPECT_EQ(done, 2);
  EXPECT_FALSE(thread.TryPost([&](std::atomic<bool>*) { ++done; }));
}

}  // namespace
}  // namespace holdfast::server
