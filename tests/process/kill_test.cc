// kill -9 of any member under load: no acknowledged write missing, no two members differing.
#include <atomic>
#include <map>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "absl/synchronization/mutex.h"
#include "base/rng.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

constexpr int kWriters = 8;

// What one writer knows of its writes. Keys are its own: /k/WRITER/NUMBER, and one that it
// overwrites again and again.
struct Written {
  std::map<std::string, std::string> acked;  // key -> value
  int last_acked_counter = -1;
  int last_sent_counter = -1;
  int refused = 0;
  int unknown = 0;
};

void Write(Client& client, int writer, const std::atomic<bool>& stop, Written& written) {
  for (int n = 0; !stop; ++n) {
    const std::string key = fmt::format("/k/{}/{:07}", writer, n);
    const std::string value = fmt::format("{}-{}", n, std::string(100, 'v'));
    const auto put = client.Put(key, value);
    if (put.ok()) {
      written.acked[key] = value;
    } else {
      ++(MaybeCommitted(put.status()) ? written.unknown : written.refused);
    }
    written.last_sent_counter = n;
    if (client.Put(fmt::format("/counter/{}", writer), std::to_string(n)).ok()) {
      written.last_acked_counter = n;
    }
  }
}

void CheckNothingMissing(const std::vector<Entry>& dump, const std::vector<Written>& writers) {
  std::map<std::string, std::string> have;
  for (const Entry& entry : dump) have[entry.key] = entry.value;
  int missing = 0;
  for (int w = 0; w < kWriters; ++w) {
    const Written& written = writers[static_cast<size_t>(w)];
    for (const auto& [key, value] : written.acked) {
      const auto it = have.find(key);
      if (it == have.end() || it->second != value) {
        if (++missing <= 5) ADD_FAILURE() << "acknowledged, but missing or changed: " << key;
      }
    }
    if (written.last_acked_counter < 0) continue;
    // The newest acknowledged value, or one that was sent after it and whose fate was unknown.
    const int counter = std::atoi(have[fmt::format("/counter/{}", w)].c_str());
    EXPECT_GE(counter, written.last_acked_counter) << "writer " << w;
    EXPECT_LE(counter, written.last_sent_counter) << "writer " << w;
  }
  EXPECT_EQ(missing, 0);
}

TEST(Kill, AnyMemberUnderLoadLosesNothing) {
  const int kills = FromEnvironment("HOLDFAST_KILLS", 15);
  const uint64_t seed = base::RandomSeed();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  base::Rng rng(seed);
  // Flushes and log truncation come often, so that kills hit them.
  auto cluster = StartCluster({"--snapshot-count=2000"});
  ASSERT_NE(cluster, nullptr);

  std::atomic<bool> stop{false};
  std::vector<Written> writers(kWriters);
  std::vector<std::unique_ptr<Client>> clients;
  std::vector<std::thread> threads;
  for (int w = 0; w < kWriters; ++w) clients.push_back(OpenClient(cluster->Endpoints()));
  for (int w = 0; w < kWriters; ++w) {
    const auto i = static_cast<size_t>(w);
    threads.emplace_back([&, w, i] { Write(*clients[i], w, stop, writers[i]); });
  }
  const auto killer = OpenClient(cluster->Endpoints());
  for (int i = 0; i < kills; ++i) {
    const int victim = static_cast<int>(rng.Below(3));
    ASSERT_TRUE(cluster->Kill(victim).ok());
    // One time in four a second one goes with it: the quorum is lost, and must come back whole.
    const int second = rng.OneIn(4) ? (victim + 1) % 3 : -1;
    if (second >= 0) {
      ASSERT_TRUE(cluster->Kill(second).ok());
    }
    ASSERT_TRUE(cluster->Restart(victim).ok());
    if (second >= 0) {
      ASSERT_TRUE(cluster->Restart(second).ok());
    }
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok()) << cluster->LogTail(victim);
    // Load goes on between two kills: the next comes only after a write went through.
    absl::Status through;
    for (const absl::Time give_up = absl::Now() + kGiveUp; absl::Now() < give_up;) {
      through = killer->Put("/between", std::to_string(i)).status();
      if (through.ok()) break;
    }
    ASSERT_TRUE(through.ok()) << through;
  }
  stop = true;
  for (std::thread& t : threads) t.join();

  const auto last = killer->Get("/between", ReadOptions::Linearizable().Deadline(kGiveUp));
  ASSERT_TRUE(last.ok()) << last.status();
  const uint64_t revision = last->fresh.revision();
  std::vector<std::vector<Entry>> dumps;
  for (int m = 0; m < 3; ++m) {
    // A linearizable read brings the member up to `revision` before its own data is dumped.
    auto one = OpenClient({cluster->endpoint(m)});
    const auto read = one->Get("/between", ReadOptions::Linearizable().Deadline(kGiveUp));
    ASSERT_TRUE(read.ok()) << read.status();
    dumps.push_back(DumpAt(*cluster, m, revision));
    CheckNothingMissing(dumps.back(), writers);
  }
  for (int m = 1; m < 3; ++m) {
    ASSERT_EQ(dumps[0].size(), dumps[static_cast<size_t>(m)].size());
    for (size_t k = 0; k < dumps[0].size(); ++k) {
      const Entry& a = dumps[0][k];
      const Entry& b = dumps[static_cast<size_t>(m)][k];
      ASSERT_TRUE(a.key == b.key && a.value == b.value && a.create_revision == b.create_revision &&
                  a.mod_revision == b.mod_revision && a.version == b.version)
          << "members 0 and " << m << " differ at " << a.key << " / " << b.key;
    }
  }
  size_t acked = 0;
  int refused = 0, unknown = 0;
  for (const Written& w : writers) {
    acked += w.acked.size();
    refused += w.refused;
    unknown += w.unknown;
  }
  fmt::print(
      "{} kills, {} acknowledged keys all present on 3 members, {} refused, {} unknown, "
      "members equal at revision {}\n",
      kills, acked, refused, unknown, revision);
  EXPECT_GT(acked, 0u);
}

}  // namespace
}  // namespace holdfast
