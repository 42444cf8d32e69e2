// Mirror.Load on real members: a copy is loaded, resumed, found unchanged and loaded anew, on every
// member, across a compaction, without a quorum, and by members that come back.
#include <chrono>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include "base/record_digest.h"
#include "client/ctl/clients_command.h"
#include "etcd/rpc.grpc.pb.h"
#include "holdfast/client.grpc.pb.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

using v1::LoadHead;

struct Copy {
  grpc::Status status;
  LoadHead head;
  std::vector<mvccpb::KeyValue> records;

  v1::LoadRequest Again(const std::string& prefix) const {
    v1::LoadRequest request;
    request.set_prefix(prefix);
    request.set_revision(head.revision());
    request.set_incarnation(head.incarnation());
    base::RecordDigest sum;
    for (const mvccpb::KeyValue& kv : records) {
      sum.Add(base::DigestOfRecord(base::DigestOfContent(kv.key(), kv.value()),
                                   static_cast<uint64_t>(kv.create_revision()),
                                   static_cast<uint64_t>(kv.mod_revision()),
                                   static_cast<uint64_t>(kv.version()), kv.lease()));
    }
    request.set_digest(sum.ToBytes());
    return request;
  }
};

std::shared_ptr<grpc::Channel> Dial(const std::string& endpoint) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), arguments);
}

Copy Load(const std::string& endpoint, const v1::LoadRequest& request) {
  const auto stub = v1::Mirror::NewStub(Dial(endpoint));
  Copy copy;
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  const auto reader = stub->Load(&context, request);
  v1::LoadResponse response;
  while (reader->Read(&response)) {
    if (response.has_head()) copy.head = response.head();
    for (auto& kv : *response.mutable_records()) copy.records.push_back(std::move(kv));
  }
  copy.status = reader->Finish();
  return copy;
}

v1::LoadRequest Nothing(const std::string& prefix) {
  v1::LoadRequest request;
  request.set_prefix(prefix);
  return request;
}

void Compact(const std::string& endpoint, uint64_t revision) {
  const auto stub = etcdserverpb::KV::NewStub(Dial(endpoint));
  grpc::ClientContext context;
  etcdserverpb::CompactionRequest request;
  request.set_revision(static_cast<int64_t>(revision));
  etcdserverpb::CompactionResponse response;
  const grpc::Status status = stub->Compact(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

// A member that is a little behind says so; then it is asked again.
Copy LoadSoon(const std::string& endpoint, const v1::LoadRequest& request) {
  Copy copy;
  EXPECT_TRUE(Eventually([&] {
    copy = Load(endpoint, request);
    return copy.status.error_code() != grpc::StatusCode::FAILED_PRECONDITION &&
           copy.status.error_code() != grpc::StatusCode::UNAVAILABLE;
  }));
  return copy;
}

TEST(MirrorLoad, IsServedByEveryMemberAcrossCompactionLossOfTheQuorumAndRestarts) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  const auto client = OpenClient(cluster->Endpoints());
  for (int i = 0; i < 50; ++i) {
    const auto put = client->Put(fmt::format("/c/{:03}", i), std::string(50'000, 'x'));
    ASSERT_TRUE(put.ok()) << put.status();
  }
  ASSERT_TRUE(client->Put("/d/other", "x").ok());

  // Loaded at one member, gone on with at the others.
  Copy copy;
  EXPECT_TRUE(Eventually([&] {  // it may be a little behind the member that took the writes
    copy = LoadSoon(cluster->endpoint(0), Nothing("/c/"));
    return copy.records.size() == 50;
  }));
  ASSERT_TRUE(copy.status.ok()) << copy.status.error_message();
  EXPECT_EQ(copy.head.kind(), LoadHead::SNAPSHOT);
  EXPECT_EQ(copy.records.size(), 50u);
  EXPECT_EQ(copy.head.bytes(), 50u * (50'000 + 6));
  EXPECT_NE(copy.head.incarnation(), 0u);
  const v1::LoadRequest again = copy.Again("/c/");
  for (int i = 0; i < 3; ++i) {
    const Copy resumed = LoadSoon(cluster->endpoint(i), again);
    EXPECT_EQ(resumed.head.kind(), LoadHead::RESUME) << i << resumed.status.error_message();
    EXPECT_EQ(resumed.head.revision(), copy.head.revision());
  }

  // Without the history behind it, the records are compared: unchanged, then changed.
  uint64_t last = 0;
  for (int i = 0; i < 5; ++i) last = client->Put("/d/other", "y")->token.revision;
  Compact(cluster->endpoint(0), last);
  for (int i = 0; i < 3; ++i) {
    Copy loaded;
    EXPECT_TRUE(Eventually([&] {
      loaded = LoadSoon(cluster->endpoint(i), again);
      return loaded.head.kind() != LoadHead::RESUME;  // the compaction has reached it
    }));
    EXPECT_EQ(loaded.head.kind(), LoadHead::UNCHANGED)
        << i << loaded.status.error_message() << loaded.head.ShortDebugString();
    EXPECT_GE(loaded.head.revision(), copy.head.revision());
  }
  ASSERT_TRUE(client->Delete("/c/007").ok());
  last = client->Put("/c/100", "new")->token.revision;
  Compact(cluster->endpoint(1), last);
  v1::LoadRequest newer = Nothing("/c/");
  newer.set_revision(last - 2);
  newer.set_incarnation(again.incarnation());
  newer.set_digest(again.digest());
  Copy loaded;
  EXPECT_TRUE(Eventually([&] {
    loaded = LoadSoon(cluster->endpoint(2), newer);
    return loaded.head.kind() == LoadHead::SNAPSHOT;
  }));
  EXPECT_EQ(loaded.records.size(), 50u);
  EXPECT_EQ(loaded.records.back().key(), "/c/100");

  // Without a quorum, and by a member that has just started.
  const v1::LoadRequest whole = loaded.Again("/c/");
  ASSERT_TRUE(cluster->Kill(0).ok());
  ASSERT_TRUE(cluster->Kill(1).ok());
  ASSERT_TRUE(cluster->Kill(2).ok());
  ASSERT_TRUE(cluster->Restart(2).ok());
  const Copy alone = LoadSoon(cluster->endpoint(2), whole);
  EXPECT_TRUE(alone.status.ok()) << alone.status.error_message();
  EXPECT_EQ(alone.head.kind(), LoadHead::RESUME);
  const Copy all = Load(cluster->endpoint(2), Nothing("/c/"));
  ASSERT_TRUE(all.status.ok()) << all.status.error_message();
  EXPECT_EQ(all.Again("/c/").digest(), whole.digest());
  // Ahead of everything that this member knows.
  v1::LoadRequest ahead = whole;
  ahead.set_revision(whole.revision() + 1000);
  EXPECT_EQ(Load(cluster->endpoint(2), ahead).status.error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
}

void Report(const std::string& endpoint, const std::string& id, bool leaving = false) {
  const auto stub = v1::Mirror::NewStub(Dial(endpoint));
  grpc::ClientContext context;
  v1::ReportRequest request;
  request.set_client_id(id);
  request.set_name("edge");
  request.set_leaving(leaving);
  v1::PrefixReport* prefix = request.add_prefixes();
  prefix->set_prefix("/c/");
  prefix->set_link("live");
  prefix->set_revision(7);
  v1::ReportResponse response;
  const grpc::Status status = stub->Report(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST(MirrorReports, AreListedFromAllMembersByHoldfastctl) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  Report(cluster->endpoint(0), "c1");
  Report(cluster->endpoint(1), "c2");
  Report(cluster->endpoint(1), "c3");
  Report(cluster->endpoint(1), "c3", /*leaving=*/true);
  std::istringstream in;
  std::ostringstream out, err;
  ctl::Common common;
  common.endpoints = cluster->Endpoints();
  EXPECT_EQ(ctl::Clients(common, {in, out, err}), ctl::kOk) << err.str();
  EXPECT_THAT(out.str(), testing::MatchesRegex("c1, edge, 127.0.0.1:[0-9]+, /c/, live, -, 7, -, "
                                               "[0-9.]+s\nc2, edge, 127.0.0.1:[0-9]+, /c/, live, "
                                               "-, 7, -, [0-9.]+s\n"));
}

}  // namespace
}  // namespace holdfast
