// What docs/testing-your-service.md tells users to do, done: a service of a few lines, and its
// tests against outages.
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/numbers.h"
#include "holdfast/client.h"
#include "holdfast/testing/fake_clock.h"
#include "holdfast/testing/fake_store.h"

namespace holdfast::test {
namespace {

using testing::FakeClock;
using testing::FakeStore;
using ::testing::HasSubstr;

constexpr char kLimits[] = "/config/edge/limits";
constexpr absl::Duration kPatience = absl::Seconds(20);

absl::StatusOr<int> ParseLimits(std::string_view text) {
  int rps = 0;
  if (absl::SimpleAtoi({text.data(), text.size()}, &rps)) return rps;
  return absl::InvalidArgumentError("limits must be a number");
}

// The service: config that stays, and logins that end four hours after the store was last heard.
class EdgeService {
 public:
  explicit EdgeService(ClientOptions options) : client_(OpenClient(std::move(options))) {
    limits_.emplace(*client_->Open<int>(kLimits, ParseLimits));
  }
  int max_rps() const { return ***limits_; }
  Freshness fresh() const { return limits_->fresh(); }
  absl::StatusOr<bool> MayLogIn(std::string_view user) const {
    const auto read = client_->mirror("/auth/")->Get("/auth/" + std::string(user));
    if (!read.ok()) return read.status();
    return read->value.has_value();
  }
  Client* client() const { return client_.get(); }

 private:
  static std::unique_ptr<Client> OpenClient(ClientOptions options) {
    options.prefixes = {{"/config/edge/", Policy::FailStatic()},
                        {"/auth/", Policy::FailClosedAfter(absl::Hours(4))}};
    auto client = Client::Open(std::move(options));
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  const std::unique_ptr<Client> client_;
  std::optional<Live<int>> limits_;
};

class ServiceExample : public ::testing::Test {
 protected:
  ServiceExample() {
    std::string name = ::testing::TempDir() + "/holdfast_service.XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    dir_ = name;
    store_.Put(kLimits, "100");
    store_.Put("/auth/ann", "yes");
  }
  ~ServiceExample() override {
    service_.reset();
    std::filesystem::remove_all(dir_);
  }
  void Start() {
    service_.reset();
    service_ = std::make_unique<EdgeService>(
        ClientOptions{.endpoints = store_.endpoints(), .disk_dir = dir_, .clock = clock_.clock()});
  }
  // The service has what the store has, and knows it.
  void Settle() {
    for (const char* prefix : {"/config/edge/", "/auth/"}) {
      const Mirror* const mirror = service_->client()->mirror(prefix);
      ASSERT_TRUE(mirror->WaitFor({.revision = store_.revision()}, kPatience).ok());
      ASSERT_TRUE(mirror->WaitFresh(absl::Minutes(1), kPatience).ok());
    }
  }

  FakeClock clock_;
  FakeStore store_{{.clock = clock_.clock()}};
  std::string dir_;
  std::unique_ptr<EdgeService> service_;
};

TEST_F(ServiceExample, GoesOnWithoutAnyServerAndClosesLoginsInTime) {
  Start();
  Settle();
  store_.StopServing();
  clock_.Advance(absl::Hours(3));
  EXPECT_EQ(service_->max_rps(), 100);
  EXPECT_TRUE(service_->MayLogIn("ann").value_or(false));
  clock_.Advance(absl::Hours(70));
  EXPECT_EQ(service_->max_rps(), 100);
  EXPECT_GE(service_->fresh().MaxAge(), absl::Hours(73));
  EXPECT_EQ(service_->MayLogIn("ann").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ServiceExample, StartsDuringTheOutageAndStillKnowsTheAge) {
  Start();
  Settle();
  for (const char* prefix : {"/config/edge/", "/auth/"}) {
    service_->client()->mirror(prefix)->MarkGood(0);
  }
  store_.StopServing();
  clock_.Advance(absl::Hours(1));
  Start();
  EXPECT_EQ(service_->max_rps(), 100);
  EXPECT_EQ(service_->fresh().source(), Source::kDisk);
  EXPECT_EQ(service_->fresh().proof(), Proof::kProven);
  EXPECT_GE(service_->fresh().MaxAge(), absl::Hours(1));
  EXPECT_TRUE(service_->MayLogIn("ann").value_or(false));
  // After a reboot the age rests on the wall clock: config goes on, a proof for logins is gone.
  service_.reset();
  clock_.Reboot(absl::Minutes(2));
  Start();
  EXPECT_EQ(service_->max_rps(), 100);
  EXPECT_EQ(service_->fresh().proof(), Proof::kEstimated);
  EXPECT_FALSE(service_->MayLogIn("ann").ok());
}

TEST_F(ServiceExample, RefusesGarbageAndTellsTheStore) {
  Start();
  Settle();
  const uint64_t bad = store_.Put(kLimits, "a lot");
  ASSERT_TRUE(store_.WaitUntil([&] {
    const auto report = store_.report("/config/edge/");
    return report.has_value() && report->refused_revision == bad;
  }));
  EXPECT_THAT(store_.report("/config/edge/")->refused_why, HasSubstr("must be a number"));
  EXPECT_EQ(service_->max_rps(), 100);
  store_.Put(kLimits, "200");
  Settle();
  EXPECT_EQ(service_->max_rps(), 200);
}

TEST_F(ServiceExample, AHungStoreIsNoticedAndCostsNothing) {
  Start();
  Settle();
  store_.Hang();
  const int calls = store_.calls();
  for (int i = 0; i < 10'000; ++i) EXPECT_EQ(service_->max_rps(), 100);
  EXPECT_LE(store_.calls() - calls, 1);  // reads ask nobody; a report may be on its way
  store_.Unhang();
}

}  // namespace
}  // namespace holdfast::test
