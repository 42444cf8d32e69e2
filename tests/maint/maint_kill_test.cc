// kill -9 while history is compacted and while a backup is read: nothing is lost, nothing is
// doubled, and old revisions answer right.
#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "base/rng.h"
#include "tests/maint/maint_calls.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

constexpr int kKeys = 20;

// What every revision of every key held, as acknowledged.
struct Truth {
  std::map<std::string, std::vector<std::pair<int64_t, std::string>>> history;
  int64_t revision = 1;

  const std::pair<int64_t, std::string>* At(const std::string& key, int64_t revision) const {
    const std::pair<int64_t, std::string>* found = nullptr;
    for (const auto& one : history.at(key)) {
      if (one.first <= revision) found = &one;
    }
    return found;
  }
};

void Write(MemberApi& api, int count, Truth* truth) {
  for (int i = 0; i < count; ++i) {
    const std::string key = fmt::format("/k/{:02}", i % kKeys);
    const std::string value = fmt::format("{}-{}", truth->revision, std::string(2000, 'v'));
    const grpc::Status put = api.Put(key, value);
    ASSERT_TRUE(put.ok()) << put.error_message();
    truth->history[key].emplace_back(++truth->revision, value);
  }
}

void Verify(MemberApi& api, const Truth& truth, int64_t compact_from, int64_t compact_to,
            base::Rng& rng) {
  std::optional<mvccpb::KeyValue> kv;
  for (const auto& [key, values] : truth.history) {
    ASSERT_TRUE(api.Get(key, false, &kv).ok());
    ASSERT_TRUE(kv.has_value()) << key;
    EXPECT_EQ(kv->value(), values.back().second);
    EXPECT_EQ(kv->mod_revision(), values.back().first);
    EXPECT_EQ(kv->version(), static_cast<int64_t>(values.size())) << "lost or doubled";
  }
  // Whatever compaction the kill left is one that was asked for.
  etcdserverpb::HashKVResponse hash;
  ASSERT_TRUE(api.HashKv(0, &hash).ok());
  const int64_t compacted = std::max<int64_t>(hash.compact_revision(), 0);
  EXPECT_GE(compacted, compact_from) << "an acknowledged compaction was forgotten";
  EXPECT_LE(compacted, compact_to);
  for (int i = 0; i < 60; ++i) {
    const int64_t at = 2 + static_cast<int64_t>(rng.Below(truth.revision - 1));
    const std::string key = fmt::format("/k/{:02}", rng.Below(kKeys));
    const grpc::Status status = api.Get(key, true, &kv, at);
    if (at < compacted) {
      EXPECT_EQ(status.error_message(), "etcdserver: mvcc: required revision has been compacted");
      continue;
    }
    ASSERT_TRUE(status.ok()) << status.error_message();
    const auto* right = truth.At(key, at);
    ASSERT_EQ(kv.has_value(), right != nullptr) << key << " at " << at;
    if (right == nullptr) continue;
    EXPECT_EQ(kv->value(), right->second);
    EXPECT_EQ(kv->mod_revision(), right->first);
  }
}

TEST(MaintenanceKill, DuringCompactionAndBackup) {
  const uint64_t seed = SeedFromEnvironment();
  SCOPED_TRACE(fmt::format("HOLDFAST_SEED={}", seed));
  base::Rng rng(seed);
  bench::LocalClusterOptions options;
  options.binary = bench::BinaryBesideOwn("holdfastd");
  options.root = testing::TempDir();
  options.members = 1;
  options.extra_args = {"--auto-compaction-retention=0"};
  auto cluster = bench::LocalCluster::Start(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  Truth truth;
  int64_t acked = 0;
  const int rounds = FromEnvironment("HOLDFAST_KILLS", 6);
  for (int round = 0; round < rounds; ++round) {
    {
      MemberApi api((*cluster)->endpoint(0));
      Write(api, 300, &truth);
      if (HasFatalFailure()) return;
    }
    std::atomic<int64_t> asked = acked, done = acked;
    std::atomic<bool> begun = false;
    std::thread compactor([&] {
      MemberApi api((*cluster)->endpoint(0), absl::Seconds(2));
      for (int64_t to = acked + 1; to < truth.revision; to += 7) {
        asked = to;
        begun = true;
        if (!api.Compact(to, /*physical=*/true).ok()) return;
        done = to;
      }
    });
    std::thread backup([&] {
      MemberApi api((*cluster)->endpoint(0), absl::Seconds(2));
      while (api.Snapshot([](uint64_t) { return true; }).ok()) {
      }
    });
    std::thread defragment([&] {
      MemberApi api((*cluster)->endpoint(0), absl::Seconds(2));
      while (api.Defragment().ok()) {
      }
    });
    while (!begun) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(rng.Below(200)));
    ASSERT_TRUE((*cluster)->Kill(0).ok());
    compactor.join();
    backup.join();
    defragment.join();
    ASSERT_TRUE((*cluster)->Restart(0).ok());
    ASSERT_TRUE((*cluster)->WaitForLeader(kGiveUp).ok()) << (*cluster)->LogTail(0);
    MemberApi api((*cluster)->endpoint(0));
    Verify(api, truth, done, asked, rng);
    etcdserverpb::HashKVResponse hash;
    ASSERT_TRUE(api.HashKv(0, &hash).ok());
    acked = std::max<int64_t>(hash.compact_revision(), 0);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace holdfast
