// Leases on three real members: through a follower, over a leader change, a stalled leader, and a
// leader that is killed while it lets leases end.
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "etcd/rpc.grpc.pb.h"
#include "server/peer_channel.h"
#include "tests/process/member_calls.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

using etcdserverpb::LeaseKeepAliveRequest;
using etcdserverpb::LeaseKeepAliveResponse;

// One member's services, as a client of that member alone sees them.
class LeaseClient {
 public:
  explicit LeaseClient(const std::string& endpoint) {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
    const auto channel =
        grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args);
    leases_ = etcdserverpb::Lease::NewStub(channel);
    kv_ = etcdserverpb::KV::NewStub(channel);
  }

  grpc::Status Grant(int64_t id, int64_t ttl_s) {
    Context context;
    etcdserverpb::LeaseGrantRequest request;
    request.set_id(id);
    request.set_ttl(ttl_s);
    etcdserverpb::LeaseGrantResponse response;
    return leases_->LeaseGrant(&context, request, &response);
  }
  grpc::Status Put(const std::string& key, int64_t lease) {
    Context context;
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_lease(lease);
    etcdserverpb::PutResponse response;
    return kv_->Put(&context, request, &response);
  }
  // The TTL of the answer; -1: the stream ended.
  int64_t KeepAlive(int64_t id) {
    Context context;
    const auto stream = leases_->LeaseKeepAlive(&context);
    LeaseKeepAliveRequest request;
    request.set_id(id);
    LeaseKeepAliveResponse response;
    const bool answered = stream->Write(request) && stream->Read(&response);
    stream->WritesDone();
    context.TryCancel();
    stream->Finish();
    return answered ? response.ttl() : -1;
  }
  // Seconds left; -1: there is no such lease; -2: no answer.
  int64_t Left(int64_t id) {
    Context context;
    etcdserverpb::LeaseTimeToLiveRequest request;
    request.set_id(id);
    etcdserverpb::LeaseTimeToLiveResponse response;
    return leases_->LeaseTimeToLive(&context, request, &response).ok() ? response.ttl() : -2;
  }
  // Of keys with this prefix; -1: no answer.
  int64_t Count(const std::string& prefix) {
    Context context;
    etcdserverpb::RangeRequest request;
    request.set_key(prefix);
    request.set_range_end(prefix + "\xff");
    request.set_count_only(true);
    etcdserverpb::RangeResponse response;
    if (!kv_->Range(&context, request, &response).ok()) return -1;
    revision_ = response.header().revision();
    return response.count();
  }
  int64_t revision() const { return revision_; }  // as of the last Count

 private:
  struct Context : grpc::ClientContext {
    Context() { set_deadline(server::GrpcDeadline(absl::Seconds(10))); }
  };
  std::unique_ptr<etcdserverpb::Lease::Stub> leases_;
  std::unique_ptr<etcdserverpb::KV::Stub> kv_;
  int64_t revision_ = 0;
};

int FollowerOf(int leader) { return (leader + 1) % 3; }

TEST(Leases, LiveAsLongAsTheyAreRenewedThroughAFollower) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  LeaseClient client(cluster->endpoint(FollowerOf(*cluster->Leader())));
  ASSERT_TRUE(client.Grant(1, 2).ok());
  ASSERT_TRUE(client.Grant(2, 2).ok());
  ASSERT_TRUE(client.Put("kept", 1).ok());
  ASSERT_TRUE(client.Put("lost", 2).ok());
  ASSERT_TRUE(Eventually([&] {
    EXPECT_EQ(client.KeepAlive(1), 2);
    return client.Count("lost") == 0;
  }));
  EXPECT_EQ(client.Count("kept"), 1);
  EXPECT_EQ(client.KeepAlive(2), 0);
  EXPECT_EQ(client.Left(2), -1);
  EXPECT_TRUE(Eventually([&] { return client.Count("kept") == 0; }));
}

TEST(Leases, AStalledLeaderDoesNotLetThemEndWhenItComesBack) {
  // Alone, so that it leads on when it comes back.
  auto cluster = StartProxiedCluster(1);
  ASSERT_NE(cluster, nullptr);
  LeaseClient client(cluster->endpoint(0));
  for (int64_t id = 1; id <= 50; ++id) {
    ASSERT_TRUE(client.Grant(id, 4).ok());
    ASSERT_TRUE(client.Put("key" + std::to_string(id), id).ok());
  }
  ASSERT_TRUE(cluster->Pause(0).ok());
  absl::SleepFor(absl::Seconds(6));  // longer than every TTL: nothing can be polled meanwhile
  ASSERT_TRUE(cluster->Resume(0).ok());
  for (int64_t id = 1; id <= 50; ++id) EXPECT_EQ(client.KeepAlive(id), 4) << "lease " << id;
  EXPECT_EQ(client.Count("key"), 50);
}

TEST(Leases, AStalledLeaderOfThreeDoesNotLetThemEndEither) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  const int stalled = *cluster->Leader();
  LeaseClient client(cluster->endpoint(FollowerOf(stalled)));
  for (int64_t id = 1; id <= 30; ++id) {
    ASSERT_TRUE(client.Grant(id, 5).ok());
    ASSERT_TRUE(client.Put("key" + std::to_string(id), id).ok());
  }
  ASSERT_TRUE(cluster->Pause(stalled).ok());
  ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
  const absl::Time start = absl::Now();
  // The clients renew with whoever leads now; then the old leader comes back with its old clock.
  while (absl::Now() - start < absl::Seconds(6)) {
    for (int64_t id = 1; id <= 30; ++id) EXPECT_EQ(client.KeepAlive(id), 5) << "lease " << id;
  }
  ASSERT_TRUE(cluster->Resume(stalled).ok());
  ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
  for (int64_t id = 1; id <= 30; ++id) EXPECT_EQ(client.KeepAlive(id), 5) << "lease " << id;
  EXPECT_EQ(client.Count("key"), 30);
}

TEST(Leases, ALeaderKilledWhileTheyEndLeavesEachToEndOnce) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  const int leader = *cluster->Leader();
  LeaseClient client(cluster->endpoint(FollowerOf(leader)));
  constexpr int64_t kLeases = 200;
  for (int64_t id = 1; id <= kLeases; ++id) {
    ASSERT_TRUE(client.Grant(id, 2).ok());
    ASSERT_TRUE(client.Put("key" + std::to_string(id), id).ok());
  }
  // Each with a revision of its own: counted, nothing can have gone twice.
  ASSERT_GE(client.Count("key"), 0);
  const int64_t before = 1 + kLeases;
  ASSERT_TRUE(Eventually([&] {
    const int64_t left = client.Count("key");
    return left >= 0 && left < kLeases;
  }));
  ASSERT_TRUE(cluster->Kill(leader).ok());
  ASSERT_TRUE(Eventually([&] { return client.Count("key") == 0; }));
  EXPECT_EQ(client.revision(), before + kLeases);
  ASSERT_TRUE(cluster->Restart(leader).ok());
  LeaseClient returned(cluster->endpoint(leader));
  ASSERT_TRUE(Eventually([&] { return returned.Count("key") == 0; }));
  EXPECT_EQ(returned.revision(), before + kLeases);
}

TEST(Leases, ANewLeaderKnowsThemAndGivesThemTheirTime) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  const int first = *cluster->Leader();
  LeaseClient client(cluster->endpoint(FollowerOf(first)));
  ASSERT_TRUE(client.Grant(1, 600).ok());
  ASSERT_TRUE(client.Grant(2, 3).ok());
  ASSERT_TRUE(client.Put("short", 2).ok());
  const auto to = IdOf(cluster->endpoint(FollowerOf(first)));
  ASSERT_TRUE(to.ok());
  ASSERT_TRUE(MoveLeader(cluster->endpoint(first), *to).ok());
  int64_t left = -2;
  ASSERT_TRUE(Eventually([&] { return (left = client.Left(1)) >= -1; }));
  EXPECT_GE(left, 590);
  EXPECT_LE(left, 600);
  EXPECT_EQ(client.KeepAlive(2), 3);
  EXPECT_EQ(client.Count("short"), 1);
  EXPECT_TRUE(Eventually([&] { return client.Count("short") == 0; }));
  EXPECT_GE(client.Left(1), 500);
}

}  // namespace
}  // namespace holdfast
