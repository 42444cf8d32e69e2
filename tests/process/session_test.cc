// Exactly-once writes on real members: leaders are killed and stopped under writers that send
// again, and no write happens twice. A key's version counts the puts that it got, so it is the
// witness.
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include "absl/synchronization/mutex.h"
#include "base/rng.h"
#include "etcd/rpc.grpc.pb.h"
#include "holdfast/client.grpc.pb.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

constexpr int kWriters = 6;
constexpr absl::Duration kWriteDeadline = absl::Seconds(2);

// What one writer was told of its puts to its own key, none of which is like another.
struct Told {
  int acked = 0;
  int deduplicated = 0;  // of them
  int refused = 0;
  int resolved = 0;  // unknown at first
  std::vector<absl::Status> unknown;
};

std::string KeyOf(int writer) { return fmt::format("/session/{}", writer); }

void Write(Client& client, int writer, const std::atomic<bool>& stop, Told& told) {
  for (int n = 0; !stop; ++n) {
    const auto put =
        client.Put(KeyOf(writer), fmt::format("{}.{}", writer, n), {.deadline = kWriteDeadline});
    if (put.ok()) {
      ++told.acked;
      told.deduplicated += put->deduplicated ? 1 : 0;
    } else if (MaybeCommitted(put.status())) {
      told.unknown.push_back(put.status());
    } else {
      EXPECT_FALSE(absl::IsAborted(put.status())) << put.status();
      ++told.refused;
    }
  }
}

// Every unknown write gets an answer now that the cluster is whole.
void ResolveAll(Client& client, Told& told) {
  for (const absl::Status& unknown : told.unknown) {
    absl::Status last;
    EXPECT_TRUE(Eventually([&] {
      const auto resolved = client.Resolve(unknown, {.deadline = absl::Seconds(10)});
      last = resolved.status();
      if (resolved.ok()) ++told.resolved;
      return resolved.ok() || !MaybeCommitted(resolved.status());
    })) << last;
    EXPECT_TRUE(last.ok()) << last;
  }
}

TEST(Sessions, NoWriteTwiceAndNoneLostWhileLeadersAreKilledAndStopped) {
  const int rounds = FromEnvironment("HOLDFAST_KILLS", 8);
  const uint64_t seed = SeedFromEnvironment();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  base::Rng rng(seed);
  // Log truncation comes often, so that members come back by a snapshot that carries the sessions.
  auto cluster = StartCluster({"--snapshot-count=500"});
  ASSERT_NE(cluster, nullptr);
  std::atomic<bool> stop{false};
  std::vector<Told> told(kWriters);
  std::vector<std::unique_ptr<Client>> clients;
  std::vector<std::thread> threads;
  for (int w = 0; w < kWriters; ++w) clients.push_back(OpenClient(cluster->Endpoints()));
  for (int w = 0; w < kWriters; ++w) {
    const auto i = static_cast<size_t>(w);
    threads.emplace_back([&, w, i] { Write(*clients[i], w, stop, told[i]); });
  }
  const auto between = OpenClient(cluster->Endpoints());
  for (int round = 0; round < rounds; ++round) {
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
    const auto leader = cluster->Leader();
    if (!leader.ok()) continue;
    if (rng.OneIn(2)) {
      ASSERT_TRUE(cluster->Kill(*leader).ok());
      ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
      ASSERT_TRUE(cluster->Restart(*leader).ok());
    } else {
      // What it holds in its queues it does when it goes on, as a leader that is none any more.
      ASSERT_TRUE(cluster->Pause(*leader).ok());
      ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
      ASSERT_TRUE(cluster->Resume(*leader).ok());
    }
    ASSERT_TRUE(Eventually([&] { return between->Put("/between", std::to_string(round)).ok(); }));
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());

  Told all;
  size_t unknown = 0;
  for (int w = 0; w < kWriters; ++w) {
    Told& one = told[static_cast<size_t>(w)];
    ResolveAll(*clients[static_cast<size_t>(w)], one);
    const auto entry =
        between->Get(KeyOf(w), ReadOptions::Linearizable().Deadline(absl::Seconds(30)));
    ASSERT_TRUE(entry.ok()) << entry.status();
    ASSERT_TRUE(entry->value.has_value());
    EXPECT_EQ(entry->value->version, static_cast<uint64_t>(one.acked + one.resolved))
        << "writer " << w << ": " << one.acked << " acknowledged, " << one.resolved
        << " resolved later, " << one.refused << " refused";
    all.acked += one.acked;
    all.deduplicated += one.deduplicated;
    all.refused += one.refused;
    all.resolved += one.resolved;
    unknown += one.unknown.size();
  }
  fmt::print(
      "{} rounds: {} writes acknowledged, {} of them by an answer to an earlier try; {} unknown at "
      "their deadline, {} of those resolved; {} refused; each took effect once\n",
      rounds, all.acked, all.deduplicated, unknown, all.resolved, all.refused);
  EXPECT_GT(all.acked, 100);
}

// One process's use of a session, over plain gRPC: what a copy of it made by fork() would send too.
class RawWriter {
 public:
  RawWriter(const std::string& endpoint, uint64_t session, uint64_t next, std::string name)
      : kv_(etcdserverpb::KV::NewStub(
            grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()))),
        session_(session),
        next_(next),
        name_(std::move(name)) {}

  // Returns once it has an answer that settles it.
  grpc::Status Put(const std::string& key) {
    const uint64_t sequence = next_++;
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_value(fmt::format("{}.{}", name_, sequence));
    for (;;) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
      context.AddMetadata("holdfast-session",
                          fmt::format("{:x}-{}-{}-{:x}", session_, sequence, sequence,
                                      std::hash<std::string>()(request.value())));
      etcdserverpb::PutResponse response;
      const grpc::Status status = kv_->Put(&context, request, &response);
      if (status.ok() || status.error_code() == grpc::StatusCode::ABORTED) return status;
    }
  }

 private:
  const std::unique_ptr<etcdserverpb::KV::Stub> kv_;
  const uint64_t session_;
  uint64_t next_;
  const std::string name_;
};

// Drill 15: two processes go on with one memory, and so with one session.
TEST(Sessions, AForkedProcessThatWritesOnIsFoundOutAndNothingIsSwallowed) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  auto sessions = v1::Sessions::NewStub(
      grpc::CreateChannel(cluster->endpoint(0), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  v1::SessionOpenResponse opened;
  const grpc::Status status = sessions->Open(&context, {}, &opened);
  ASSERT_TRUE(status.ok()) << status.error_message();

  RawWriter before(cluster->endpoint(0), opened.session(), 1, "before");
  ASSERT_TRUE(before.Put("/fork").ok());
  RawWriter parent(cluster->endpoint(1), opened.session(), 2, "parent");
  RawWriter child(cluster->endpoint(2), opened.session(), 2, "child");
  std::atomic<int> done{1}, told{0}, else_refused{0};
  const auto write = [&](RawWriter* writer) {
    for (int i = 0; i < 50; ++i) {
      const grpc::Status put = writer->Put("/fork");
      if (put.ok()) {
        ++done;
      } else if (put.error_message().find("SESSION_FORKED") != std::string::npos ||
                 put.error_message().find("SESSION_ACKNOWLEDGED") != std::string::npos) {
        // The other one was there first, or is ahead.
        ++told;
      } else {
        ++else_refused;
      }
    }
  };
  std::thread one([&] { write(&parent); });
  std::thread two([&] { write(&child); });
  one.join();
  two.join();
  EXPECT_EQ(else_refused, 0);
  EXPECT_EQ(done + told, 101);
  EXPECT_GT(told, 0);
  const auto client = OpenClient(cluster->Endpoints());
  const auto entry = client->Get("/fork", ReadOptions::Linearizable().Deadline(absl::Seconds(30)));
  ASSERT_TRUE(entry.ok()) << entry.status();
  // Each was either done, once, or refused in words.
  EXPECT_EQ(entry->value->version, static_cast<uint64_t>(done.load()));
  fmt::print("{} writes done, {} told that they share a session\n", done.load(), told.load());
}

TEST(Sessions, AForcedNewClusterKnowsNoneOfThem) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  // A member that has not seen the cluster's first incarnation yet has nothing to tell apart.
  auto client = OpenClient({cluster->endpoint(0)});
  ASSERT_TRUE(Eventually([&] {
    const auto put = client->Put("/a", "1", {.deadline = kGiveUp});
    return put.ok() && put->token.incarnation != 0;
  }));
  auto raw = v1::Sessions::NewStub(
      grpc::CreateChannel(cluster->endpoint(0), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  v1::SessionOpenResponse opened;
  ASSERT_TRUE(raw->Open(&context, {}, &opened).ok());
  RawWriter writer(cluster->endpoint(0), opened.session(), 1, "w");
  ASSERT_TRUE(writer.Put("/b").ok());
  for (int m = 0; m < 3; ++m) ASSERT_TRUE(cluster->Kill(m).ok());
  ASSERT_TRUE(cluster->Restart(0, {"--force-new-cluster"}).ok());
  auto lone = OpenClient({cluster->endpoint(0)});
  ASSERT_TRUE(Eventually([&] { return lone->Put("/c", "1").ok(); }));
  // The new incarnation is given by the first leader, a moment after it leads.
  grpc::Status put;
  ASSERT_TRUE(Eventually([&] {
    put = writer.Put("/b");
    return put.error_message().find("SESSION_EXPIRED") != std::string::npos;
  })) << put.error_code()
      << " " << put.error_message() << "\n"
      << cluster->LogTail(0);
  // The library goes on by itself, in a new session.
  EXPECT_TRUE(Eventually([&] { return lone->Put("/c", "2").ok(); }));
}

}  // namespace
}  // namespace holdfast
