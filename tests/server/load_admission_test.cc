// Who gets a whole copy when: all of it in virtual time.
#include "server/load_admission.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <queue>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace holdfast::server {
namespace {

constexpr LoadClass kAuth = LoadClass::kAuth;
constexpr LoadClass kConfig = LoadClass::kConfig;
constexpr LoadClass kBulk = LoadClass::kBulk;
constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr absl::Duration kLater = absl::Minutes(1);

// As it is after a rush that has opened in full.
LoadAdmission Opened(const LoadLimits& limits) {
  LoadAdmission admission(limits, 1);
  for (int i = 0; i <= 3; ++i) {
    EXPECT_FALSE(admission.AdmitSnapshot(kConfig, 1, kLater - absl::Seconds(20 * (3 - i))));
    admission.LeaveSnapshot(kConfig);
  }
  return admission;
}

int Fill(LoadAdmission& admission, LoadClass load_class, absl::Duration now) {
  int admitted = 0;
  while (!admission.AdmitSnapshot(load_class, kMiB, now).has_value()) ++admitted;
  return admitted;
}

TEST(LoadAdmission, AQuarterOfThePlacesIsForAuthAndHalfOfTheRestForBulk) {
  LoadAdmission bulk = Opened({.snapshots = 32});
  EXPECT_EQ(Fill(bulk, kBulk, kLater), 12);
  EXPECT_EQ(Fill(bulk, kConfig, kLater + absl::Seconds(1)), 12);
  EXPECT_EQ(Fill(bulk, kAuth, kLater + absl::Seconds(1)), 8);
  LoadAdmission config = Opened({.snapshots = 32});
  EXPECT_EQ(Fill(config, kConfig, kLater), 24);
  LoadAdmission auth = Opened({.snapshots = 32});
  EXPECT_EQ(Fill(auth, kAuth, kLater), 32);
}

TEST(LoadAdmission, WhileAuthIsToComeBackTheOthersHaveOnePlaceEach) {
  LoadAdmission admission = Opened({.snapshots = 8});
  EXPECT_EQ(Fill(admission, kAuth, kLater), 8);
  for (int i = 0; i < 200; ++i) admission.AdmitSnapshot(kAuth, 8 * kMiB, kLater);
  for (int i = 0; i < 8; ++i) admission.LeaveSnapshot(kAuth);
  EXPECT_GT(admission.backlog(kAuth, kLater), absl::Seconds(10));
  EXPECT_EQ(Fill(admission, kConfig, kLater), 1);
  EXPECT_EQ(Fill(admission, kBulk, kLater), 1);
  // When their turns have passed, whether they came or not, it is over.
  const absl::Duration over = kLater + absl::Seconds(20);
  EXPECT_EQ(admission.backlog(kAuth, over), absl::ZeroDuration());
  EXPECT_GT(Fill(admission, kConfig, over), 3);
}

TEST(LoadAdmission, ARushBeginsWithAQuarterOfThePlacesForOthersThanAuth) {
  LoadAdmission admission({.snapshots = 32}, 1);
  EXPECT_EQ(Fill(admission, kConfig, absl::ZeroDuration()), 6);
  EXPECT_EQ(Fill(admission, kConfig, absl::Seconds(5)), 9);
  EXPECT_EQ(Fill(admission, kConfig, absl::Seconds(10)), 9);
  LoadAdmission again({.snapshots = 32}, 1);
  EXPECT_EQ(Fill(again, kAuth, absl::ZeroDuration()), 32);
}

TEST(LoadAdmission, RefusedOnesAreSpreadOverTheTimeThatTheirCopiesTake) {
  LoadAdmission admission = Opened({.snapshots = 4, .bytes_per_second = kMiB});
  Fill(admission, kConfig, kLater);
  absl::Duration last = absl::ZeroDuration();
  for (int i = 0; i < 20; ++i) {
    last = *admission.AdmitSnapshot(kConfig, kMiB, kLater);
    EXPECT_GE(last, std::max(absl::Milliseconds(500), absl::Seconds(i)));
    EXPECT_LE(last, 1.5 * absl::Seconds(i + 2));
  }
  // A better class does not stand behind them.
  Fill(admission, kAuth, kLater);
  EXPECT_LT(*admission.AdmitSnapshot(kAuth, kMiB, kLater), absl::Seconds(5));
  for (int i = 0; i < 1000; ++i) last = *admission.AdmitSnapshot(kConfig, kMiB, kLater);
  EXPECT_LE(last, absl::Seconds(90));
  EXPECT_LE(admission.backlog(kBulk, kLater), absl::Seconds(65));
}

TEST(LoadAdmission, BytesArePacedAndAuthDoesNotWaitForTheOthers) {
  LoadAdmission admission = Opened({.bytes_per_second = 10 * kMiB});
  absl::Duration wait;
  for (int i = 0; i < 20; ++i) wait = admission.Send(kBulk, kMiB, kLater);
  EXPECT_NEAR(absl::ToDoubleSeconds(wait), 1.8, 0.01);
  EXPECT_EQ(admission.Send(kAuth, kMiB, kLater), absl::ZeroDuration());
  EXPECT_NEAR(absl::ToDoubleSeconds(admission.Send(kAuth, kMiB, kLater)), 0, 0.01);
  EXPECT_NEAR(absl::ToDoubleSeconds(admission.Send(kConfig, kMiB, kLater)), 2.1, 0.01);
  LoadAdmission free({.bytes_per_second = 0}, 1);
  for (int i = 0; i < 20; ++i) wait = free.Send(kBulk, 1000 * kMiB, kLater);
  EXPECT_EQ(wait, absl::ZeroDuration());
}

TEST(LoadAdmission, ResumesAreRefusedOnlyBeyondTheirRate) {
  LoadAdmission admission({.resumes_per_second = 100}, 1);
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(admission.AdmitResume(kLater)) << i;
  EXPECT_TRUE(admission.AdmitResume(kLater).has_value());
  EXPECT_FALSE(admission.AdmitResume(kLater + absl::Milliseconds(11)));
  EXPECT_TRUE(admission.AdmitResume(kLater + absl::Milliseconds(11)).has_value());
}

TEST(LoadAdmission, AQuarterOfThoseWhoWaitForAScanCanOnlyBeAuth) {
  LoadAdmission admission({.waiting = 8}, 1);
  for (int i = 0; i < 6; ++i) EXPECT_FALSE(admission.AdmitWaiting(kBulk, kLater));
  EXPECT_TRUE(admission.AdmitWaiting(kConfig, kLater).has_value());
  EXPECT_FALSE(admission.AdmitWaiting(kAuth, kLater));
  EXPECT_FALSE(admission.AdmitWaiting(kAuth, kLater));
  EXPECT_TRUE(admission.AdmitWaiting(kAuth, kLater).has_value());
  admission.LeaveWaiting(kBulk);
  EXPECT_FALSE(admission.AdmitWaiting(kAuth, kLater));
}

// --- A herd ---

struct Herd {
  static constexpr int kClients = 10'000;
  struct Client {
    LoadClass load_class = kConfig;
    uint64_t bytes = 0;
    uint64_t sent = 0;
    int asked = 0;
    absl::Duration live = absl::InfiniteDuration();
    bool admitted = false;
  };
  struct Event {
    absl::Duration at;
    int client = 0;
    bool operator>(const Event& other) const {
      return std::pair(at, client) > std::pair(other.at, other.client);
    }
  };

  std::vector<Client> clients;
  std::map<int64_t, int> asked_in_second;
  std::map<int64_t, uint64_t> bytes_in_second;
  int most_at_once = 0;

  // Everybody comes within ten seconds, and obeys.
  void Run(const LoadLimits& limits, uint64_t seed) {
    LoadAdmission admission(limits, seed);
    base::Rng rng(seed);
    std::priority_queue<Event, std::vector<Event>, std::greater<>> events;
    for (int i = 0; i < kClients; ++i) {
      Client& client = clients.emplace_back();
      const uint64_t dice = rng.Below(10);
      client.load_class = dice < 2 ? kAuth : dice < 8 ? kConfig : kBulk;
      client.bytes = dice < 2 ? kMiB / 16 : dice < 8 ? kMiB / 2 : 2 * kMiB;
      events.push({absl::Microseconds(rng.Below(10'000'000)), i});
    }
    while (!events.empty()) {
      const Event event = events.top();
      events.pop();
      Client& client = clients[static_cast<size_t>(event.client)];
      if (!client.admitted) {
        ++client.asked;
        ++asked_in_second[absl::ToInt64Seconds(event.at)];
        if (const auto later = admission.AdmitSnapshot(client.load_class, client.bytes, event.at)) {
          events.push({event.at + *later, event.client});
          continue;
        }
        client.admitted = true;
        most_at_once =
            std::max(most_at_once, admission.snapshots(kAuth) + admission.snapshots(kConfig) +
                                       admission.snapshots(kBulk));
      }
      if (client.sent == client.bytes) {
        admission.LeaveSnapshot(client.load_class);
        client.live = event.at;
        continue;
      }
      const uint64_t part = std::min(kMiB, client.bytes - client.sent);
      client.sent += part;
      const absl::Duration at = event.at + admission.Send(client.load_class, part, event.at);
      bytes_in_second[absl::ToInt64Seconds(at)] += part;
      // The way to the client and back.
      events.push({at + absl::Milliseconds(2), event.client});
    }
  }
  // By when so many in a hundred of a class are live.
  absl::Duration LiveAt(LoadClass load_class, int percent) const {
    std::vector<absl::Duration> live;
    for (const Client& client : clients) {
      if (client.load_class == load_class) live.push_back(client.live);
    }
    std::ranges::sort(live);
    return live[(live.size() - 1) * static_cast<size_t>(percent) / 100];
  }
};

TEST(LoadAdmissionHerd, TenThousandComeBackAuthFirstAndNobodyCollapses) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    Herd herd;
    const LoadLimits limits;
    herd.Run(limits, seed);
    uint64_t bytes = 0;
    int asked = 0;
    for (const Herd::Client& client : herd.clients) {
      ASSERT_LT(client.live, absl::InfiniteDuration());
      bytes += client.bytes;
      asked += client.asked;
    }
    const absl::Duration ideal =
        absl::Seconds(static_cast<double>(bytes) / static_cast<double>(limits.bytes_per_second));
    RecordProperty("ideal_s", static_cast<int>(absl::ToInt64Seconds(ideal)));
    RecordProperty("auth_s", static_cast<int>(absl::ToInt64Seconds(herd.LiveAt(kAuth, 100))));
    RecordProperty("all_s", static_cast<int>(absl::ToInt64Seconds(herd.LiveAt(kBulk, 100))));
    RecordProperty("asked", asked);
    EXPECT_LE(herd.most_at_once, limits.snapshots + 2);
    // Auth is live about when the last of it has come; the others wait their turn.
    EXPECT_LT(herd.LiveAt(kAuth, 99), absl::Seconds(13));
    EXPECT_LT(herd.LiveAt(kAuth, 100), herd.LiveAt(kConfig, 50));
    EXPECT_LT(herd.LiveAt(kConfig, 50), herd.LiveAt(kBulk, 50));
    // Nearly as fast as the rate allows, with few questions each.
    EXPECT_LT(herd.LiveAt(kConfig, 100), 2.5 * ideal);
    EXPECT_LT(herd.LiveAt(kBulk, 100), 2.5 * ideal + limits.retry_max);
    EXPECT_LT(asked, 4 * Herd::kClients);
    // The first wave is the clients' own (a thousand a second); none behind it is higher.
    for (const auto& [second, count] : herd.asked_in_second) {
      EXPECT_LE(count, 2000) << "in second " << second;
    }
    for (const auto& [second, sent] : herd.bytes_in_second) {
      EXPECT_LE(sent, limits.bytes_per_second * 3 / 2) << "in second " << second;
    }
  }
}

}  // namespace
}  // namespace holdfast::server
