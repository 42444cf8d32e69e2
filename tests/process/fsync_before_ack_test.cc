// No answer to a write leaves before the write is on the disks of a majority: told by the kernel,
// through strace, for both doors, on one member and on three, at the leader and at a follower.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include "base/rng.h"
#include "etcd/rpc.grpc.pb.h"
#include "tests/process/process_util.h"
#include "tests/process/strace_log.h"
#include "tests/server/exchange_caller.h"

namespace holdfast {
namespace {

using server::testing::ExchangeCaller;

// ---------------------------------------------------------------- the reader of traces

constexpr char kTrace[] =
    "11 100.000010 pwrite64(7<\\x2f\\x64\\x2f\\x6c>, \"\\x6d\\x61\\x72\\x6b\", 4, 0) = 4 "
    "<0.000005>\n"
    "12 100.000020 fdatasync(8<\\x2f\\x64\\x2f\\x78>) = 0 <0.000100>\n"
    "11 100.000030 fdatasync(7<\\x2f\\x64\\x2f\\x6c> <unfinished ...>\n"
    "13 100.000200 sendmsg(9<TCP:[127.0.0.1:81->127.0.0.1:90]>, {msg_iov=[{iov_base=\"\\x61\", "
    "iov_len=1}, {iov_base=\"\\x63\\x6b\", iov_len=2}], msg_iovlen=2}, 0) = 3 <0.000010>\n"
    "11 100.000500 <... fdatasync resumed>) = 0 <0.000470>\n"
    "14 100.000600 +++ exited with 0 +++\n";

TEST(StraceLog, KnowsWhenBytesWereOnTheDiskAndWhenOthersLeft) {
  const std::vector<SystemCall> calls = ParseStrace(kTrace);
  ASSERT_EQ(calls.size(), 4u);
  EXPECT_EQ(calls[0].target, "/d/l");
  EXPECT_EQ(calls[0].bytes, "mark");
  // By the file's own sync and when that ended: behind the answer, so this trace is of a lie.
  EXPECT_EQ(DurableAt(calls, "/d/", "mark"), 100'000'500);
  EXPECT_EQ(SentAt(calls, 81, "ack"), 100'000'200);
  EXPECT_EQ(SentAt(calls, 90, "ack"), std::nullopt);  // of the other end
  EXPECT_EQ(DurableAt(calls, "/e/", "mark"), std::nullopt);
  EXPECT_EQ(DurableAt(calls, "/d/", "nark"), std::nullopt);
}

TEST(StraceLog, ASyncThatFailedOrCameBeforeIsNone) {
  for (const char* trace :
       {"1 1.000001 fdatasync(7</d/l>) = 0 <0.000001>\n1 1.000100 pwrite64(7</d/l>, \"\\x6d\", 1, "
        "0) = "
        "1 <0.000001>\n",
        "1 1.000001 pwrite64(7</d/l>, \"\\x6d\", 1, 0) = 1 <0.000001>\n1 1.000100 "
        "fdatasync(7</d/l>) "
        "= -1 EIO (Input/output error) <0.000001>\n",
        "1 1.000001 pwrite64(7</d/l>, \"\\x6d\", 1, 0) = -1 ENOSPC (No space left on device) "
        "<0.000001>\n1 1.000100 fdatasync(7</d/l>) = 0 <0.000001>\n"}) {
    EXPECT_EQ(DurableAt(ParseStrace(trace), "/d/", "m"), std::nullopt) << trace;
  }
}

// ---------------------------------------------------------------- the servers

// A write, and the bytes by which its answer is known on the wire.
struct Sent {
  std::string what;
  int member = 0;
  std::string marker;  // in the value
  std::string answer;
};

class FsyncBeforeAck : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    bench::LocalClusterOptions options;
    options.members = GetParam();
    options.binary = bench::BinaryBesideOwn("holdfastd");
    options.root = ::testing::TempDir();
    auto cluster = bench::LocalCluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    for (int m = 0; m < GetParam(); ++m) {
      channels_.push_back(
          grpc::CreateChannel(cluster_->endpoint(m), grpc::InsecureChannelCredentials()));
    }
  }

  std::string NewMarker() { return fmt::format("<marker-{:016x}>", rng_.Next()); }

  void PutUnary(int member, std::vector<Sent>* sent) {
    auto stub = etcdserverpb::KV::NewStub(channels_[static_cast<size_t>(member)]);
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    etcdserverpb::PutRequest request;
    etcdserverpb::PutResponse response;
    request.set_key("/fsync/unary");
    request.set_value(NewMarker());
    const grpc::Status status = stub->Put(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    // Its revision is its own.
    sent->push_back({"unary put", member, request.value(), response.SerializeAsString()});
  }

  void PutBatch(int member, ExchangeCaller* caller, std::vector<Sent>* sent) {
    v1::ExchangeRequests batch;
    std::vector<uint64_t> ids;
    for (int i = 0; i < 5; ++i) {
      v1::ExchangeRequest* const request = batch.add_requests();
      ids.push_back(rng_.Next() | uint64_t{1} << 63);  // nine bytes that nothing else has
      request->set_id(ids.back());
      request->mutable_put()->set_key(fmt::format("/fsync/batch/{}", i));
      request->mutable_put()->set_value(NewMarker());
    }
    ASSERT_TRUE(caller->Send(batch));
    for (int i = 0; i < 5; ++i) {
      const auto answer = caller->Await(ids[static_cast<size_t>(i)]);
      ASSERT_TRUE(answer.has_value());
      ASSERT_EQ(answer->reply.code(), 0u) << answer->reply.message();
      v1::ExchangeReply only_id;
      only_id.set_id(ids[static_cast<size_t>(i)]);
      sent->push_back(
          {"put of a batch", member, batch.requests(i).put().value(), only_id.SerializeAsString()});
    }
  }

  base::Rng rng_{SeedFromEnvironment()};
  std::unique_ptr<bench::LocalCluster> cluster_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
};

INSTANTIATE_TEST_SUITE_P(Members, FsyncBeforeAck, ::testing::Values(1, 3));

TEST_P(FsyncBeforeAck, EachAnswerLeavesAfterAMajorityHasSynced) {
  const int members = GetParam();
  std::vector<std::unique_ptr<ExchangeCaller>> callers;
  std::vector<Sent> warm_up, sent;
  for (int m = 0; m < members; ++m) {
    callers.push_back(std::make_unique<ExchangeCaller>(channels_[static_cast<size_t>(m)]));
    PutUnary(m, &warm_up);
    PutBatch(m, callers.back().get(), &warm_up);
  }
  if (HasFatalFailure()) return;
  std::vector<std::unique_ptr<Tracer>> tracers;
  for (int m = 0; m < members; ++m) {
    auto tracer = Tracer::Attach(
        cluster_->pid(m), fmt::format("{}holdfast-strace-{:x}", ::testing::TempDir(), rng_.Next()));
    if (absl::IsUnavailable(tracer.status())) {
      GTEST_SKIP() << "not shown on this machine: " << tracer.status().message();
    }
    ASSERT_TRUE(tracer.ok()) << tracer.status();
    tracers.push_back(*std::move(tracer));
  }
  for (int round = 0; round < 3; ++round) {
    for (int m = 0; m < members; ++m) {
      PutUnary(m, &sent);
      PutBatch(m, callers[static_cast<size_t>(m)].get(), &sent);
    }
  }
  // We saw every answer, strace perhaps not yet: to detach now could lose the last ones.
  for (const Sent& one : sent) {
    EXPECT_TRUE(Eventually([&] {
      return SentAt(tracers[static_cast<size_t>(one.member)]->SoFar(),
                    cluster_->client_port(one.member), one.answer)
          .has_value();
    })) << one.what
        << " at member " << one.member << ": its answer is not in the trace";
  }
  std::vector<std::vector<SystemCall>> calls;
  for (const auto& tracer : tracers) calls.push_back(tracer->Detach());
  if (HasFatalFailure()) return;
  ASSERT_EQ(sent.size(), static_cast<size_t>(3 * members * 6));

  int64_t least_us = INT64_MAX;
  for (const Sent& one : sent) {
    SCOPED_TRACE(fmt::format("{} at member {}: {}", one.what, one.member, one.marker));
    const auto answered_us = SentAt(calls[static_cast<size_t>(one.member)],
                                    cluster_->client_port(one.member), one.answer);
    ASSERT_TRUE(answered_us.has_value()) << "the answer is not in the trace";
    std::vector<int64_t> durable_us;
    for (int m = 0; m < members; ++m) {
      const auto at_us =
          DurableAt(calls[static_cast<size_t>(m)], cluster_->data_dir(m) + "/log", one.marker);
      if (at_us.has_value()) durable_us.push_back(*at_us);
    }
    std::sort(durable_us.begin(), durable_us.end());
    const size_t majority = static_cast<size_t>(members) / 2 + 1;
    ASSERT_GE(durable_us.size(), majority) << "the value was not synced to the logs of a majority";
    EXPECT_LE(durable_us[majority - 1], *answered_us);
    least_us = std::min(least_us, *answered_us - durable_us[majority - 1]);
  }
  fmt::print(
      "{} member(s): {} puts by both doors, each value in the log and the log synced on a majority "
      "before the answer's sendmsg, by {} us or more\n",
      members, sent.size(), least_us);
}

}  // namespace
}  // namespace holdfast
