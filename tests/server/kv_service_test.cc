// The KV service over a real in-process gRPC channel: validation, pipeline, state machine and store
// are the real ones, only Raft is a fake node.
#include "server/kv_service.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "etcd/rpc.grpc.pb.h"
#include "kv_fake_node.h"
#include "kv_test_member.h"
#include "kv_test_util.h"
#include "server/etcd_errors.h"
#include "server/state_machine.h"
#include "tests/storage_mvcc/copy_directory.h"

namespace holdfast::server {
namespace {

using etcdserverpb::CompactionRequest;
using etcdserverpb::CompactionResponse;
using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::DeleteRangeResponse;
using etcdserverpb::PutRequest;
using etcdserverpb::PutResponse;
using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;
using testing::FakeNode;
using ::testing::HasSubstr;
using testing::Parse;
using testing::Text;
using Mode = FakeNode::Mode;

// One call: what is sent with it, and what came back.
struct Call {
  grpc::ClientContext context;
  grpc::Status status;

  Call() = default;
  Call(const std::string& key, const std::string& value) { context.AddMetadata(key, value); }
  // "-" if there is none.
  std::string trailer(const char* key) const {
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto it = trailers.find(key);
    return it == trailers.end() ? "-" : std::string(it->second.data(), it->second.size());
  }
};

KvService::Options SmallLimits() {
  KvService::Options options;
  options.max_txn_ops = 4;
  options.max_answer_bytes = 4000;
  return options;
}

class KvServiceTest : public ::testing::Test, protected testing::TestMember {
 protected:
  KvServiceTest() : TestMember(SmallLimits()) {}

  RangeResponse Range(Call& call, const std::string& request) {
    RangeResponse response;
    call.status = stub_->Range(&call.context, Parse<RangeRequest>(request), &response);
    return response;
  }
  PutResponse Put(Call& call, const std::string& request) {
    PutResponse response;
    call.status = stub_->Put(&call.context, Parse<PutRequest>(request), &response);
    return response;
  }
  TxnResponse Txn(Call& call, const std::string& request) {
    TxnResponse response;
    call.status = stub_->Txn(&call.context, Parse<TxnRequest>(request), &response);
    return response;
  }
  CompactionResponse Compact(Call& call, const std::string& request) {
    CompactionResponse response;
    call.status = stub_->Compact(&call.context, Parse<CompactionRequest>(request), &response);
    return response;
  }
  void PutOk(const std::string& request) {
    Call call;
    Put(call, request);
    CHECK(call.status.ok());
  }
  // A claim that is `age` old now (Elapsed adds its margin of 1 ms and 0.2 %).
  raft::Claim ClaimOf(absl::Duration age) {
    raft::Claim claim;
    claim.at = clock_.Sample();
    claim.extra = age;
    return claim;
  }
  Index applied() const { return machine_->applied(); }
};

void ExpectError(const Call& call, const absl::Status& expected) {
  EXPECT_EQ(static_cast<int>(call.status.error_code()), static_cast<int>(expected.code()));
  EXPECT_EQ(call.status.error_message(), std::string(expected.message()));
}

TEST_F(KvServiceTest, EveryCallAnswersWithAFullHeader) {
  const auto at = [](int revision) {
    return fmt::format("header {{ cluster_id: 11 member_id: 22 revision: {} raft_term: 3 }}",
                       revision);
  };
  Call put, get, del, txn, compact;
  EXPECT_EQ(Text(Put(put, "key: 'a' value: '1'")), at(2));
  EXPECT_EQ(Text(Range(get, "key: 'a'")),
            at(2) +
                " kvs { key: \"a\" create_revision: 2 mod_revision: 2 version: 1 value: "
                "\"1\" } count: 1");
  EXPECT_EQ(Text(Txn(txn, "success { request_put { key: 'b' prev_kv: true } }")),
            at(3) + " succeeded: true responses { response_put { header { revision: 3 } } }");
  DeleteRangeResponse deleted;
  del.status = stub_->DeleteRange(&del.context,
                                  Parse<DeleteRangeRequest>("key: 'a' range_end: 'z'"), &deleted);
  EXPECT_EQ(Text(deleted), at(4) + " deleted: 2");
  EXPECT_EQ(Text(Compact(compact, "revision: 3")), at(4));
  for (const Call* call : {&put, &get, &del, &txn, &compact}) EXPECT_TRUE(call->status.ok());
}

TEST_F(KvServiceTest, RefusesBeforeProposing) {
  Call put, range, del, txn, ops, dup, large;
  Put(put, "value: 'x'");
  ExpectError(put, ErrEmptyKey());
  Range(range, "key: 'a' sort_target: 9");
  ExpectError(range, ErrInvalidSortOption());
  DeleteRangeResponse deleted;
  del.status = stub_->DeleteRange(&del.context, DeleteRangeRequest(), &deleted);
  ExpectError(del, ErrEmptyKey());
  Txn(txn, "success {}");
  ExpectError(txn, ErrKeyNotFound());
  Txn(ops,
      "compare { key: 'a' } compare { key: 'a' } compare { key: 'a' } compare { key: 'a' } "
      "compare { key: 'a' }");
  ExpectError(ops, ErrTooManyOps());
  Txn(dup, "success { request_put { key: 'a' } } success { request_put { key: 'a' } }");
  ExpectError(dup, ErrDuplicateKey());
  PutRequest request;
  request.set_key("a");
  request.set_value(std::string(1536 * 1024, 'x'));
  PutResponse response;
  large.status = stub_->Put(&large.context, request, &response);
  ExpectError(large, ErrRequestTooLarge());
  EXPECT_EQ(applied(), Index(0));
}

TEST_F(KvServiceTest, RefusalsAtApplyReachTheCallerWithTheirExactText) {
  PutOk("key: 'a' value: '1'");
  Call missing, lease, future, compacted, future_compaction;
  Put(missing, "key: 'no' ignore_value: true");
  ExpectError(missing, ErrKeyNotFound());
  Put(lease, "key: 'a' lease: 7");
  ExpectError(lease, ErrLeaseNotFound());
  Range(future, "key: 'a' revision: 9");
  ExpectError(future, ErrFutureRev());
  PutOk("key: 'a' value: '2'");
  Call compact;
  Compact(compact, "revision: 3");
  Range(compacted, "key: 'a' revision: 2 serializable: true");
  ExpectError(compacted, ErrCompacted());
  Compact(future_compaction, "revision: 9");
  ExpectError(future_compaction, ErrFutureRev());
}

TEST_F(KvServiceTest, OnlyItsOwnCommandsAnswer) {
  node_->set_proposals(Mode::kHold);
  std::thread caller([this] {
    Call call;
    EXPECT_EQ(Put(call, "key: 'mine'").header().revision(), 3);
  });
  while (node_->held_proposals() == 0) std::this_thread::yield();
  // The same sequence from another process.
  node_->ApplyForeign(Parse<command::v1::Command>("origin: 7 sequence: 1 put { key: 'theirs' }")
                          .SerializeAsString());
  node_->ReleaseHeld();
  caller.join();
  EXPECT_EQ(applied(), Index(2));
}

TEST_F(KvServiceTest, WritesWithoutALeaderFailAtOnce) {
  node_->set_proposals(Mode::kRefuse, absl::UnavailableError("no leader"));
  node_->set_reads(Mode::kRefuse, absl::UnavailableError("no leader"));
  Call put, get, txn;
  Put(put, "key: 'a'");
  ExpectError(put, ErrNoLeader());
  Range(get, "key: 'a'");
  ExpectError(get, ErrNoLeader());
  EXPECT_EQ(get.trailer(kAgeKey), "-");
  Txn(txn, "success { request_range { key: 'a' } }");
  ExpectError(txn, ErrNoLeader());
}

TEST_F(KvServiceTest, HasLeader) {
  PutOk("key: 'a' value: '1'");
  Call with_leader("hasleader", "true");
  EXPECT_EQ(Range(with_leader, "key: 'a' serializable: true").count(), 1);
  node_->set_leader(NodeId(0), Term(4), absl::Seconds(1));
  Call get("hasleader", "true"), put("hasleader", "true"), compact("hasleader", "true");
  Call plain, off("hasleader", "false");
  Range(get, "key: 'a' serializable: true");
  ExpectError(get, ErrNoLeader());
  Put(put, "key: 'a'");
  ExpectError(put, ErrNoLeader());
  Compact(compact, "revision: 2");
  ExpectError(compact, ErrNoLeader());
  EXPECT_EQ(Range(plain, "key: 'a' serializable: true").count(), 1);
  EXPECT_EQ(Range(off, "key: 'a' serializable: true").count(), 1);
}

// --- freshness ---

TEST_F(KvServiceTest, ALinearizableAnswerIsAsOldAsItsRequest) {
  node_->set_reads(Mode::kHold);
  node_->set_claim(ClaimOf(absl::Hours(1)));  // has no part in it
  Call call;
  std::thread caller([&] { Range(call, "key: 'a'"); });
  while (node_->held_reads() == 0) std::this_thread::yield();
  clock_.Advance(absl::Milliseconds(100));
  node_->AnswerRead(Index(0));
  caller.join();
  EXPECT_TRUE(call.status.ok());
  EXPECT_EQ(call.trailer(kAgeKey), "102");  // 100 * 1.002 + 1, rounded up
  EXPECT_EQ(call.trailer(kProofKey), "proven");
  EXPECT_EQ(call.trailer(kSourceKey), "leader");
}

TEST_F(KvServiceTest, ASerializableAnswerCarriesTheClaimsAge) {
  node_->set_reads(Mode::kRefuse);
  node_->set_claim(ClaimOf(absl::Milliseconds(500)));
  node_->set_leader(NodeId(2), Term(3));
  clock_.Advance(absl::Milliseconds(200));
  Call get, txn;
  Range(get, "key: 'a' serializable: true");
  Txn(txn, "success { request_range { key: 'a' serializable: true } }");
  for (const Call* call : {&get, &txn}) {
    EXPECT_TRUE(call->status.ok()) << call->status.error_message();
    EXPECT_EQ(call->trailer(kAgeKey), "702");
    EXPECT_EQ(call->trailer(kProofKey), "proven");
    EXPECT_EQ(call->trailer(kSourceKey), "follower");
  }
}

TEST_F(KvServiceTest, AnUnknownAgeIsServedAndSaysSo) {
  PutOk("key: 'a' value: '1'");
  node_->set_leader(NodeId(0), Term(3), absl::Hours(5));
  Call call;
  EXPECT_EQ(Range(call, "key: 'a' serializable: true").count(), 1);
  EXPECT_EQ(call.trailer(kAgeKey), "-");
  EXPECT_EQ(call.trailer(kProofKey), "unknown");
  EXPECT_EQ(call.trailer(kSourceKey), "follower");
}

TEST_F(KvServiceTest, WritesCarryNoAge) {
  Call put, txn;
  Put(put, "key: 'a'");
  Txn(txn, "success { request_put { key: 'b' } }");
  EXPECT_EQ(put.trailer(kProofKey), "-");
  EXPECT_EQ(txn.trailer(kProofKey), "-");
}

TEST_F(KvServiceTest, ABoundedReadWithinItsBoundAsksNobody) {
  node_->set_claim(ClaimOf(absl::Milliseconds(50)));
  Call call(kMaxAgeKey, "51");
  Range(call, "key: 'a' serializable: true");
  EXPECT_TRUE(call.status.ok());
  EXPECT_EQ(call.trailer(kAgeKey), "51");
  EXPECT_EQ(node_->fresh_claims_asked(), 0);
}

TEST_F(KvServiceTest, ABoundedReadGetsAYoungerClaimOnce) {
  PutOk("key: 'a' value: '1'");
  node_->set_claim(ClaimOf(absl::Seconds(5)));
  node_->set_fresh_claim(ClaimOf(absl::Milliseconds(3)));
  Call get(kMaxAgeKey, "100"), txn(kMaxAgeKey, "2");
  EXPECT_EQ(Range(get, "key: 'a' serializable: true").count(), 1);
  EXPECT_TRUE(get.status.ok());
  EXPECT_EQ(get.trailer(kAgeKey), "4");
  EXPECT_EQ(node_->fresh_claims_asked(), 1);
  EXPECT_EQ(node_->last_fresh_claim_timeout(), KvService::kFreshClaimWait);
  Txn(txn, "success { request_range { key: 'a' serializable: true } }");
  EXPECT_EQ(txn.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(node_->fresh_claims_asked(), 2);
}

TEST_F(KvServiceTest, TheCallersDeadlineBoundsTheWait) {
  node_->set_fresh_claim(ClaimOf(absl::Milliseconds(3)));
  Call call(kMaxAgeKey, "100");
  call.context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(400));
  Range(call, "key: 'a' serializable: true");
  // (On a machine that stalls, the call may have been late on its own.)
  EXPECT_LT(node_->last_fresh_claim_timeout(), absl::Milliseconds(401));
}

TEST_F(KvServiceTest, ABoundedReadThatCanNotBeServedIsRefusedWithItsAge) {
  node_->set_claim(ClaimOf(absl::Seconds(5)));
  Call old(kMaxAgeKey, "100");
  Range(old, "key: 'a' serializable: true");
  EXPECT_EQ(old.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(old.status.error_message(),
            "holdfast: answer would be 5001 ms old, older than holdfast-max-age-ms 100: ask "
            "another member, or allow a larger age");
  EXPECT_EQ(old.trailer(kAgeKey), "5001");
  EXPECT_EQ(old.trailer(kProofKey), "proven");

  node_->set_claim(std::nullopt);
  Call unknown(kMaxAgeKey, "100");
  Range(unknown, "key: 'a' serializable: true");
  EXPECT_EQ(unknown.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(unknown.status.error_message(), HasSubstr("answer would be of unknown age"));
  EXPECT_EQ(unknown.trailer(kAgeKey), "-");
  EXPECT_EQ(unknown.trailer(kProofKey), "unknown");
}

TEST_F(KvServiceTest, MinRevision) {
  PutOk("key: 'a' value: '1'");  // revision 2
  Call at(kMinRevisionKey, "2"), above(kMinRevisionKey, "3"), txn(kMinRevisionKey, "3");
  EXPECT_EQ(Range(at, "key: 'a' serializable: true").count(), 1);
  Range(above, "key: 'a' serializable: true");
  EXPECT_EQ(above.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(above.status.error_message(),
            "holdfast: this member is at revision 2, below holdfast-min-revision 3: ask another "
            "member");
  Txn(txn, "success { request_range { key: 'a' } }");
  EXPECT_EQ(txn.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(KvServiceTest, MalformedTermsAreRefused) {
  for (const char* key : {kMaxAgeKey, kMinRevisionKey}) {
    for (const char* value : {"", "x", "-1", "1.5", "10ms", " 1", "99999999999999999999"}) {
      Call call(key, value);
      Range(call, "key: 'a' serializable: true");
      EXPECT_EQ(call.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << value;
      EXPECT_THAT(call.status.error_message(), HasSubstr(key));
    }
  }
}

// --- transactions that only read ---

TEST_F(KvServiceTest, AReadOnlyTransactionIsNotProposed) {
  PutOk("key: 'a' value: '1'");
  node_->set_proposals(Mode::kRefuse);
  Call call;
  EXPECT_EQ(Text(Txn(call,
                     "compare { key: 'a' target: VERSION version: 1 } "
                     "success { request_range { key: 'a' count_only: true } } "
                     "failure { request_range { key: 'b' } }")),
            "header { cluster_id: 11 member_id: 22 revision: 2 raft_term: 3 } succeeded: true "
            "responses { response_range { header { revision: 2 } count: 1 } }");
  EXPECT_EQ(call.trailer(kProofKey), "proven");
}

TEST_F(KvServiceTest, ATransactionIsSerializableOnlyIfAllItsRangesAre) {
  node_->set_reads(Mode::kRefuse);
  Call all, some, none;
  Txn(all, "success { request_range { key: 'a' serializable: true } }");
  EXPECT_TRUE(all.status.ok());
  Txn(some,
      "success { request_range { key: 'a' serializable: true } } "
      "failure { request_range { key: 'a' } }");
  ExpectError(some, ErrNoLeader());
  Txn(none, "compare { key: 'a' }");
  ExpectError(none, ErrNoLeader());
}

TEST_F(KvServiceTest, AnAnswerTooLargeTellsToPage) {
  for (int i = 0; i < 5; ++i)
    PutOk(fmt::format("key: 'k{}' value: '{}'", i, std::string(900, 'x')));
  Call all, page, txn;
  Range(all, "key: 'k' range_end: 'l'");
  EXPECT_EQ(all.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(all.status.error_message(), HasSubstr("limit"));
  EXPECT_EQ(Range(page, "key: 'k' range_end: 'l' limit: 3").kvs_size(), 3);
  Txn(txn,
      "success { request_range { key: 'k' range_end: 'k3' } } "
      "success { request_range { key: 'k3' range_end: 'l' } }");
  EXPECT_EQ(txn.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(KvServiceTest, APhysicalCompactionIsFlushed) {
  for (int i = 0; i < 3; ++i) PutOk("key: 'a' value: 'x'");
  Call call, again;
  EXPECT_EQ(Compact(call, "revision: 3 physical: true").header().revision(), 4);
  EXPECT_TRUE(call.status.ok());
  // What was flushed does not need the log: a copy of the files as they are now has it all.
  ASSERT_NO_FATAL_FAILURE(storage::CopyDirectoryInUse(dir_ / "sm", dir_ / "copy"));
  KvStateMachine::Options options;
  options.dir = dir_ / "copy";
  options.cluster_id = kCluster;
  const auto copy = KvStateMachine::Open(options);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ((*copy)->applied_state().compact_revision, 3);
  Compact(again, "revision: 3 physical: true");
  ExpectError(again, ErrCompacted());
}

// --- callers that go away, and the end ---

TEST_F(KvServiceTest, ACallerThatGoesAwayLeavesNoTrace) {
  node_->set_proposals(Mode::kHold);
  node_->set_reads(Mode::kHold);
  for (int i = 0; i < 20; ++i) {
    Call put, get;
    const auto soon = std::chrono::system_clock::now() + std::chrono::milliseconds(5);
    put.context.set_deadline(soon);
    get.context.set_deadline(soon);
    Put(put, "key: 'a'");
    Range(get, "key: 'a'");
    EXPECT_EQ(put.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    EXPECT_EQ(get.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  while (node_->held_reads() > 0) node_->AnswerRead(Index(0));
  node_->ReleaseHeld();
  node_->set_proposals(Mode::kApply);
  Call call;
  EXPECT_TRUE(Put(call, "key: 'b'").header().revision() > 1);
}

TEST_F(KvServiceTest, StopAnswersCallsUnderWay) {
  node_->set_proposals(Mode::kHold);
  std::thread caller([this] {
    Call call;
    Put(call, "key: 'a'");
    ExpectError(call, ErrStopped());
  });
  while (node_->held_proposals() == 0) std::this_thread::yield();
  pipeline_->Stop();
  caller.join();
}

TEST_F(KvServiceTest, ManyCallersAtOnce) {
  constexpr int kThreads = 8;
  constexpr int kCalls = 100;
  std::vector<std::thread> callers;
  for (int t = 0; t < kThreads; ++t) {
    callers.emplace_back([this, t] {
      for (int i = 0; i < kCalls; ++i) {
        Call put, get;
        const int64_t revision =
            Put(put, fmt::format("key: 'k{}' value: '{}'", t, i)).header().revision();
        CHECK(put.status.ok());
        const RangeResponse response = Range(get, fmt::format("key: 'k{}'", t));
        CHECK(get.status.ok());
        CHECK(response.kvs(0).value() == fmt::format("{}", i));
        CHECK(response.kvs(0).mod_revision() == revision);
        CHECK(response.header().revision() >= revision);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(machine_->applied_state().revision, 1 + kThreads * kCalls);
}

}  // namespace
}  // namespace holdfast::server
