// One list of cases for every door that KV requests come in by: what it is answered, word for word,
// is the same whatever the envelope. The member is real but for Raft (kv_test_member.h).
#include "door.h"

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "door_cases.h"
#include "door_member.h"
#include "kv_test_util.h"
#include "server/apply_command.h"
#include "server/etcd_errors.h"
#include "server/session_table.h"

namespace holdfast::server {
namespace {

using testing::DoorAnswer;
using testing::DoorCase;
using testing::DoorKind;
using testing::DoorMember;
using testing::FakeNode;
using ::testing::HasSubstr;
using testing::Parse;
using testing::Text;
using v1::ExchangeReply;
using v1::ExchangeRequest;
using Mode = FakeNode::Mode;

constexpr uint64_t kSession = 0xab;

bool IsRead(const ExchangeRequest& request, const ExchangeReply& reply) {
  return request.has_range() || (reply.has_txn() && reply.source() != ExchangeReply::UNKNOWN);
}

// What a case says, and besides: one answer, a whole header.
void Check(const DoorCase& one, DoorAnswer answer) {
  SCOPED_TRACE(one.name);
  ExchangeReply& reply = answer.reply;
  EXPECT_EQ(answer.times, 1);
  EXPECT_EQ(reply.code(), static_cast<uint32_t>(one.status.code())) << reply.message();
  EXPECT_EQ(reply.message(), std::string(one.status.message()));
  if (!one.status.ok()) {
    EXPECT_EQ(reply.response_case(), ExchangeReply::RESPONSE_NOT_SET);
    return;
  }
  etcdserverpb::ResponseHeader* const header = testing::HeaderOf(&reply);
  ASSERT_NE(header, nullptr);
  EXPECT_EQ(Text(*header), fmt::format("cluster_id: {} member_id: {} revision: {} raft_term: 3",
                                       DoorMember::kCluster, DoorMember::kMember, one.revision));
  if (IsRead(one.request, reply)) {
    EXPECT_EQ(reply.source(), ExchangeReply::LEADER);
  } else {
    EXPECT_FALSE(reply.has_age_ms());
  }
  ExchangeReply expected = Parse<ExchangeReply>(one.response);
  ExchangeReply response = reply;
  testing::HeaderOf(&response)->Clear();
  testing::HeaderOf(&expected)->Clear();
  response.clear_age_ms();
  response.clear_source();
  EXPECT_EQ(Text(response), Text(expected));
}

class DoorTest : public ::testing::TestWithParam<DoorKind>, protected DoorMember {
 protected:
  DoorTest() : DoorMember(GetParam()) {}

  // Revisions 2 to 8 (door_cases.h).
  void MakeState() {
    Apply(fmt::format("lease_grant {{ id: {} ttl_s: 60 }}", testing::kDoorLease));
    for (const ExchangeRequest& request : testing::DoorState()) {
      ASSERT_EQ(door().Call(request).reply.code(), 0u);
    }
    Apply(fmt::format("compaction {{ revision: {} }}", testing::kDoorCompacted));
    ASSERT_EQ(revision(), testing::kDoorRevision);
  }
  void OpenSession() {
    Apply(fmt::format("session_open {{ session: {} ttl_ms: 60000 }}", kSession));
  }
  ExchangeReply Call(const std::string& request) {
    return door().Call(Parse<ExchangeRequest>(request)).reply;
  }
  // As Call, on a thread of its own; joined by the test.
  std::thread CallAside(const std::string& request, ExchangeReply* reply) {
    return std::thread([this, request, reply] { *reply = Call(request); });
  }
  ExchangeReply Stamped(const std::string& request, const std::string& stamp) {
    return Call(request + " session { " + stamp + " }");
  }
  void ExpectRefused(const std::string& request, const absl::Status& expected) {
    const ExchangeReply reply = Call(request);
    EXPECT_EQ(reply.code(), static_cast<uint32_t>(expected.code())) << request;
    EXPECT_EQ(reply.message(), std::string(expected.message())) << request;
    EXPECT_EQ(reply.response_case(), ExchangeReply::RESPONSE_NOT_SET) << request;
  }
  int64_t revision() const { return machine_->applied_state().revision; }
};

INSTANTIATE_TEST_SUITE_P(Doors, DoorTest, ::testing::ValuesIn(testing::AllDoors()),
                         [](const auto& info) { return testing::NameOf(info.param); });

// ---------------------------------------------------------------- the list

TEST_P(DoorTest, AnswersReads) {
  MakeState();
  for (const DoorCase& one : testing::ReadCases()) Check(one, door().Call(one.request));
}

TEST_P(DoorTest, RefusesWordForWord) {
  MakeState();
  for (const DoorCase& one : testing::RefusalCases()) Check(one, door().Call(one.request));
  EXPECT_EQ(revision(), testing::kDoorRevision);
}

TEST_P(DoorTest, Writes) {
  MakeState();
  for (const DoorCase& one : testing::WriteCases()) Check(one, door().Call(one.request));
}

// What changes nothing, all at once and several times over.
TEST_P(DoorTest, AnswersReadsAndRefusalsAllAtOnce) {
  MakeState();
  std::vector<DoorCase> cases = testing::ReadCases();
  for (const DoorCase& one : testing::RefusalCases()) cases.push_back(one);
  const uint64_t seed = base::RandomSeed();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  base::Rng rng(seed);
  std::vector<ExchangeRequest> requests;
  std::vector<size_t> which;
  for (int i = 0; i < 400; ++i) {
    which.push_back(rng.Below(cases.size()));
    requests.push_back(cases[which.back()].request);
  }
  const std::vector<DoorAnswer> answers = door().CallAll(requests);
  ASSERT_EQ(answers.size(), requests.size());
  for (size_t i = 0; i < answers.size(); ++i) Check(cases[which[i]], answers[i]);
  EXPECT_EQ(revision(), testing::kDoorRevision);
}

// Whoever sends writes together leaves their order to the server, which takes it as it came: no
// caller may rely on it, but the log has some order, and each revision is one write's.
TEST_P(DoorTest, WritesSentTogetherGetARevisionEach) {
  std::vector<ExchangeRequest> requests;
  for (int i = 0; i < 300; ++i) {
    requests.push_back(Parse<ExchangeRequest>(
        i % 3 == 0   ? fmt::format("put {{ key: 'k{}' value: '{}' prev_kv: true }}", i, i)
        : i % 3 == 1 ? fmt::format("txn {{ success {{ request_put {{ key: 'k{}' }} }} }}", i)
                     : fmt::format("delete_range {{ key: 'none{}' }}", i)));
  }
  const std::vector<DoorAnswer> answers = door().CallAll(requests);
  std::map<int64_t, int> writers;
  for (size_t i = 0; i < answers.size(); ++i) {
    ExchangeReply reply = answers[i].reply;
    ASSERT_EQ(reply.code(), 0u) << reply.message();
    EXPECT_EQ(answers[i].times, 1);
    if (i % 3 != 2) ++writers[testing::HeaderOf(&reply)->revision()];
    EXPECT_EQ(reply.has_put(), i % 3 == 0);
    EXPECT_EQ(reply.has_txn(), i % 3 == 1);
    EXPECT_EQ(reply.has_delete_range(), i % 3 == 2);
  }
  EXPECT_EQ(writers.size(), 200u);
  EXPECT_EQ(revision(), 201);
  for (int i = 0; i < 300; i += 3) {
    const ExchangeReply found = Call(fmt::format("range {{ key: 'k{}' }}", i));
    ASSERT_EQ(found.range().kvs_size(), 1);
    EXPECT_EQ(found.range().kvs(0).value(), std::to_string(i));
    ExchangeReply put = answers[static_cast<size_t>(i)].reply;
    EXPECT_EQ(found.range().kvs(0).mod_revision(), testing::HeaderOf(&put)->revision());
  }
}

// ---------------------------------------------------------------- sizes

TEST_P(DoorTest, ARequestTooLargeIsRefusedAndOneThatJustFitsIsNot) {
  const auto put_of = [](size_t size) {
    ExchangeRequest request;
    request.mutable_put()->set_key("large");
    request.mutable_put()->set_value(std::string(size, 'x'));
    return request;
  };
  constexpr size_t kLimit = 1536 * 1024;
  // The first is larger by itself, the second only as an entry of the log.
  for (const size_t size : {kLimit + 1, kLimit - 14}) {
    const ExchangeReply reply = door().Call(put_of(size)).reply;
    EXPECT_EQ(reply.code(), 3u);
    EXPECT_EQ(reply.message(), "etcdserver: request is too large");
  }
  EXPECT_EQ(revision(), 1);
  EXPECT_EQ(door().Call(put_of(kLimit - 100)).reply.code(), 0u);
  EXPECT_EQ(Call("range { key: 'large' keys_only: true }").range().count(), 1);
}

TEST_P(DoorTest, AnAnswerTooLargeTellsToPage) {
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(
        Call(fmt::format("put {{ key: 'k{}' value: '{}' }}", i, std::string(9000, 'x'))).code(),
        0u);
  }
  const ExchangeReply all = Call("range { key: 'k' range_end: 'l' }");
  EXPECT_EQ(all.code(), 8u);
  EXPECT_THAT(all.message(), HasSubstr("limit"));
  EXPECT_EQ(Call("range { key: 'k' range_end: 'l' limit: 3 }").range().kvs_size(), 3);
  EXPECT_EQ(Call("txn { success { request_range { key: 'k' range_end: 'k3' } } "
                 "success { request_range { key: 'k3' range_end: 'l' } } }")
                .code(),
            8u);
}

// ---------------------------------------------------------------- the member's state

TEST_P(DoorTest, WithoutALeaderNothingThatNeedsOneIsDone) {
  MakeState();
  node_->set_proposals(Mode::kRefuse, absl::UnavailableError("no leader"));
  node_->set_reads(Mode::kRefuse, absl::UnavailableError("no leader"));
  node_->set_leader(NodeId(0), Term(4), absl::Seconds(1));
  for (const char* request :
       {"put { key: 'a/1' }", "delete_range { key: 'a/1' }", "range { key: 'a/1' }",
        "range { key: 'a/' range_end: 'b' }", "txn { success { request_put { key: 'a/1' } } }",
        "txn { success { request_range { key: 'a/1' } } }", "txn {}",
        "range { key: 'a/1' serializable: true } require_leader: true",
        "put { key: 'a/1' } require_leader: true",
        "txn { success { request_range { key: 'a/1' serializable: true } } } require_leader: "
        "true"}) {
    ExpectRefused(request, ErrNoLeader());
  }
  const ExchangeReply served = Call("range { key: 'a/1' serializable: true }");
  EXPECT_EQ(served.range().count(), 1);
  EXPECT_FALSE(served.has_age_ms());
  EXPECT_EQ(served.source(), ExchangeReply::FOLLOWER);
  EXPECT_EQ(Call("range { key: 'a/' range_end: 'b' serializable: true }").range().count(), 3);
}

TEST_P(DoorTest, AValidationErrorComesBeforeAnyOther) {
  node_->set_proposals(Mode::kRefuse, absl::UnavailableError("no leader"));
  node_->set_leader(NodeId(0), Term(4), absl::Seconds(1));
  admission_->SetShortOfSpace(true);
  ExpectRefused("put {} require_leader: true", ErrEmptyKey());
  ExpectRefused("range {} require_leader: true", ErrEmptyKey());
  ExpectRefused("put { key: 'a' } require_leader: true", ErrNoSpace());
  ExpectRefused("delete_range { key: 'a' } require_leader: true", ErrNoLeader());
}

TEST_P(DoorTest, ShortOfSpaceOnlyWhatGrowsIsRefused) {
  MakeState();
  admission_->SetShortOfSpace(true);
  ExpectRefused("put { key: 'a/1' }", ErrNoSpace());
  ExpectRefused("txn { failure { request_txn { success { request_put { key: 'a/1' } } } } }",
                ErrNoSpace());
  EXPECT_EQ(Call("range { key: 'a/1' }").range().count(), 1);
  EXPECT_EQ(Call("delete_range { key: 'a/1' }").delete_range().deleted(), 1);
  EXPECT_EQ(Call("txn { success { request_delete_range { key: 'a/3' } } }").code(), 0u);
  admission_->SetShortOfSpace(false);
  EXPECT_EQ(Call("put { key: 'a/1' }").code(), 0u);
}

TEST_P(DoorTest, TheSpaceAlarmIsLookedAtWhenApplied) {
  MakeState();
  Apply("alarm { action: ACTIVATE member_id: 22 type: 1 }");
  ExpectRefused("put { key: 'a/1' }", ErrNoSpace());
  ExpectRefused("txn { success { request_put { key: 'a/1' } } }", ErrNoSpace());
  EXPECT_EQ(Call("delete_range { key: 'a/1' }").delete_range().deleted(), 1);
  EXPECT_EQ(Call("range { key: 'a/3' }").range().count(), 1);
  Apply("alarm { action: DEACTIVATE member_id: 22 type: 1 }");
  EXPECT_EQ(Call("put { key: 'a/1' }").code(), 0u);
}

TEST_P(DoorTest, AMemberThatIsFencedOffAnswersNobody) {
  MakeState();
  admission_->Fence();
  for (const char* request :
       {"put { key: 'a/1' }", "delete_range { key: 'a/1' }", "range { key: 'a/1' }",
        "range { key: 'a/1' serializable: true }", "range { key: 'a/' range_end: 'b' }",
        "txn { success { request_range { key: 'a/1' serializable: true } } }",
        "txn { success { request_put { key: 'a/1' } } }"}) {
    ExpectRefused(request, ErrCorrupt());
  }
}

// Admitted before, and to be answered after: whose data is right is not known any more.
TEST_P(DoorTest, AMemberThatIsFencedOffWhileReadsWaitDoesNotAnswerThem) {
  MakeState();
  node_->set_reads(Mode::kHold);
  const char* const kRequests[] = {"range { key: 'a/1' }", "range { key: 'a/' range_end: 'b' }",
                                   "txn { success { request_range { key: 'a/1' } } }"};
  ExchangeReply replies[3];
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.push_back(CallAside(kRequests[i], &replies[i]));
    while (node_->held_reads() == static_cast<size_t>(i)) std::this_thread::yield();
  }
  admission_->Fence();
  while (node_->held_reads() > 0) node_->AnswerRead(machine_->applied());
  for (std::thread& caller : callers) caller.join();
  for (const ExchangeReply& reply : replies) {
    EXPECT_EQ(reply.code(), 15u);
    EXPECT_EQ(reply.message(), "etcdserver: corrupt cluster");
    EXPECT_EQ(reply.response_case(), ExchangeReply::RESPONSE_NOT_SET);
  }
}

TEST_P(DoorTest, EveryAnswerTellsTheIncarnation) {
  EXPECT_EQ(door().Call(Parse<ExchangeRequest>("put { key: 'a' }")).incarnation, 0u);
  Apply("cluster_birth { incarnation: 0x5eed }");
  for (const char* request :
       {"put { key: 'a' }", "range { key: 'a' }", "range { key: 'a' serializable: true }",
        "delete_range { key: 'a' }", "txn {}", "txn { success { request_put { key: 'a' } } }"}) {
    EXPECT_EQ(door().Call(Parse<ExchangeRequest>(request)).incarnation, 0x5eedu) << request;
  }
}

TEST_P(DoorTest, TheHeaderNamesTheTermAsOfTheAnswer) {
  Call("put { key: 'a' }");
  node_->set_leader(NodeId(9), Term(8));
  for (const char* request : {"put { key: 'a' }", "range { key: 'a' }"}) {
    ExchangeReply reply = Call(request);
    EXPECT_EQ(testing::HeaderOf(&reply)->raft_term(), 8u) << request;
  }
}

// ---------------------------------------------------------------- freshness

TEST_P(DoorTest, ALinearizableAnswerIsAsOldAsItsRequest) {
  node_->set_reads(Mode::kHold);
  node_->set_claim(ClaimOf(absl::Hours(1)));  // has no part in it
  for (const char* request : {"range { key: 'a' }", "range { key: 'a' range_end: 'b' }",
                              "txn { success { request_range { key: 'a' } } }"}) {
    ExchangeReply reply;
    std::thread caller = CallAside(request, &reply);
    while (node_->held_reads() == 0) std::this_thread::yield();
    clock_.Advance(absl::Milliseconds(100));
    node_->AnswerRead(Index(0));
    caller.join();
    EXPECT_EQ(reply.code(), 0u);
    ASSERT_TRUE(reply.has_age_ms()) << request;
    EXPECT_EQ(reply.age_ms(), 102u) << request;  // 100 * 1.002 + 1, rounded up
    EXPECT_EQ(reply.source(), ExchangeReply::LEADER);
  }
}

TEST_P(DoorTest, ASerializableAnswerCarriesTheClaimsAge) {
  node_->set_reads(Mode::kRefuse);
  node_->set_claim(ClaimOf(absl::Milliseconds(500)));
  node_->set_leader(NodeId(2), Term(3));
  clock_.Advance(absl::Milliseconds(200));
  for (const char* request :
       {"range { key: 'a' serializable: true }",
        "range { key: 'a' range_end: 'b' serializable: true }",
        "txn { success { request_range { key: 'a' serializable: true } } }"}) {
    const ExchangeReply reply = Call(request);
    EXPECT_EQ(reply.code(), 0u) << reply.message();
    ASSERT_TRUE(reply.has_age_ms()) << request;
    EXPECT_EQ(reply.age_ms(), 702u);
    EXPECT_EQ(reply.source(), ExchangeReply::FOLLOWER);
  }
}

TEST_P(DoorTest, ABoundedReadWithinItsBoundAsksNobody) {
  node_->set_claim(ClaimOf(absl::Milliseconds(50)));
  const ExchangeReply reply = Call("range { key: 'a' serializable: true } max_age_ms: 51");
  EXPECT_EQ(reply.code(), 0u);
  EXPECT_EQ(reply.age_ms(), 51u);
  EXPECT_EQ(node_->fresh_claims_asked(), 0);
}

TEST_P(DoorTest, ABoundedReadGetsAYoungerClaimOnce) {
  MakeState();
  node_->set_claim(ClaimOf(absl::Seconds(5)));
  node_->set_fresh_claim(ClaimOf(absl::Milliseconds(3)));
  const ExchangeReply get = Call("range { key: 'a/1' serializable: true } max_age_ms: 100");
  EXPECT_EQ(get.code(), 0u) << get.message();
  EXPECT_EQ(get.range().count(), 1);
  EXPECT_EQ(get.age_ms(), 4u);
  EXPECT_EQ(node_->fresh_claims_asked(), 1);
  EXPECT_LE(node_->last_fresh_claim_timeout(), KvService::kFreshClaimWait);
  const ExchangeReply txn =
      Call("txn { success { request_range { key: 'a/1' serializable: true } } } max_age_ms: 2");
  EXPECT_EQ(txn.code(), 9u);
  EXPECT_EQ(txn.response_case(), ExchangeReply::RESPONSE_NOT_SET);
  EXPECT_EQ(node_->fresh_claims_asked(), 2);
}

TEST_P(DoorTest, ABoundedScanGetsAYoungerClaimToo) {
  MakeState();
  node_->set_claim(ClaimOf(absl::Seconds(5)));
  node_->set_fresh_claim(ClaimOf(absl::Milliseconds(3)));
  const ExchangeReply scan =
      Call("range { key: 'a/' range_end: 'b' serializable: true } max_age_ms: 100");
  EXPECT_EQ(scan.range().count(), 3);
  EXPECT_EQ(scan.age_ms(), 4u);
  EXPECT_EQ(node_->fresh_claims_asked(), 1);
}

TEST_P(DoorTest, ABoundedReadThatCanNotBeServedIsRefusedWithItsAge) {
  node_->set_claim(ClaimOf(absl::Seconds(5)));
  const ExchangeReply old = Call("range { key: 'a' serializable: true } max_age_ms: 100");
  EXPECT_EQ(old.code(), 9u);
  EXPECT_EQ(old.message(),
            "holdfast: answer would be 5001 ms old, older than holdfast-max-age-ms 100: ask "
            "another member, or allow a larger age");
  ASSERT_TRUE(old.has_age_ms());
  EXPECT_EQ(old.age_ms(), 5001u);
  EXPECT_EQ(old.source(), ExchangeReply::LEADER);
  node_->set_claim(std::nullopt);
  const ExchangeReply unknown = Call("range { key: 'a' serializable: true } max_age_ms: 100");
  EXPECT_EQ(unknown.code(), 9u);
  EXPECT_FALSE(unknown.has_age_ms());
}

// The bound is for serializable reads: a linearizable one asks the quorum, and has its age.
TEST_P(DoorTest, ALinearizableReadHasNoBoundToKeep) {
  node_->set_claim(std::nullopt);
  const ExchangeReply reply = Call("range { key: 'a' } max_age_ms: 0");
  EXPECT_EQ(reply.code(), 0u) << reply.message();
  EXPECT_EQ(node_->fresh_claims_asked(), 0);
}

TEST_P(DoorTest, ManyBoundedReadsTogetherEachKeepTheirOwnBound) {
  MakeState();
  node_->set_claim(ClaimOf(absl::Milliseconds(499)));  // 500 ms
  std::vector<ExchangeRequest> requests;
  for (uint64_t i = 0; i < 200; ++i) {
    ExchangeRequest request = Parse<ExchangeRequest>(
        i % 2 == 0 ? "range { key: 'a/1' serializable: true }"
                   : "range { key: 'a/' range_end: 'b' serializable: true }");
    request.set_max_age_ms(400 + i);
    if (i % 5 == 0) request.set_min_revision(i / 10);  // up to 19: above 8 from 90 on
    requests.push_back(request);
  }
  const std::vector<DoorAnswer> answers = door().CallAll(requests);
  for (uint64_t i = 0; i < 200; ++i) {
    const ExchangeReply& reply = answers[i].reply;
    const bool old = 400 + i < 500;
    const bool behind = i % 5 == 0 && i / 10 > 8;
    EXPECT_EQ(reply.code(), old || behind ? 9u : 0u) << i << ": " << reply.message();
    ASSERT_TRUE(reply.has_age_ms());
    EXPECT_EQ(reply.age_ms(), 500u);
    if (old) {
      EXPECT_THAT(reply.message(), HasSubstr("answer would be 500 ms old"));
    } else if (behind) {
      EXPECT_THAT(reply.message(), HasSubstr("below holdfast-min-revision"));
    } else {
      EXPECT_EQ(reply.range().count(), i % 2 == 0 ? 1 : 3);
    }
  }
}

// ---------------------------------------------------------------- sessions

TEST_P(DoorTest, AWriteWithoutAStampSaysNothingOfOne) {
  EXPECT_FALSE(Call("put { key: 'a' }").has_deduplicated());
}

TEST_P(DoorTest, AStampedWriteTakesEffectOnce) {
  OpenSession();
  const char* const kPut = "put { key: 'a' prev_kv: true }";
  const char* const kStamp = "session: 0xab sequence: 1 lowest_unacknowledged: 1 digest: 7";
  ExchangeReply first = Stamped(kPut, kStamp);
  ASSERT_EQ(first.code(), 0u) << first.message();
  ASSERT_TRUE(first.has_deduplicated());
  EXPECT_FALSE(first.deduplicated());
  ExchangeReply second = Stamped(kPut, kStamp);
  ASSERT_TRUE(second.has_deduplicated());
  EXPECT_TRUE(second.deduplicated());
  second.set_deduplicated(false);
  EXPECT_EQ(Text(first), Text(second));
  EXPECT_EQ(revision(), 2);
}

TEST_P(DoorTest, EveryKindOfWriteIsStamped) {
  OpenSession();
  Call("put { key: 'a' }");
  const struct {
    const char* request;
    const char* stamp;
  } writes[] = {
      {"delete_range { key: 'a' prev_kv: true }",
       "session: 0xab sequence: 1 lowest_unacknowledged: 1 digest: 7"},
      {"txn { success { request_put { key: 'b' } } success { request_range { key: 'a' } } }",
       "session: 0xab sequence: 2 lowest_unacknowledged: 1 digest: 7"}};
  for (const auto& write : writes) {
    const ExchangeReply first = Stamped(write.request, write.stamp);
    ExchangeReply again = Stamped(write.request, write.stamp);
    EXPECT_FALSE(first.deduplicated());
    ASSERT_TRUE(again.deduplicated()) << write.request;
    again.set_deduplicated(false);
    EXPECT_EQ(Text(first), Text(again));
  }
  EXPECT_EQ(revision(), 4);
}

TEST_P(DoorTest, ARefusalIsAnAnswerToo) {
  OpenSession();
  const char* const kStamp = "session: 0xab sequence: 1 lowest_unacknowledged: 1 digest: 7";
  for (const bool again : {false, true}) {
    const ExchangeReply reply = Stamped("put { key: 'a' ignore_value: true }", kStamp);
    EXPECT_EQ(reply.code(), 3u);
    EXPECT_EQ(reply.message(), "etcdserver: key not found");
    ASSERT_TRUE(reply.has_deduplicated());
    EXPECT_EQ(reply.deduplicated(), again);
    Call("put { key: 'a' }");  // from here on it would succeed
  }
}

TEST_P(DoorTest, AnotherWriterOfTheSameSequenceIsFoundOut) {
  OpenSession();
  Stamped("put { key: 'a' value: '1' }",
          "session: 0xab sequence: 1 lowest_unacknowledged: 1 digest: 7");
  const ExchangeReply forked =
      Stamped("put { key: 'a' value: '2' }",
              "session: 0xab sequence: 1 lowest_unacknowledged: 1 digest: 8");
  EXPECT_EQ(forked.code(), 10u);
  EXPECT_EQ(forked.message(), std::string(ErrSessionForked(kSession, 1).message()));
  EXPECT_EQ(revision(), 2);
}

TEST_P(DoorTest, AnUnknownSessionIsToldApart) {
  const ExchangeReply expired =
      Stamped("put { key: 'a' }", "session: 0xab sequence: 1 lowest_unacknowledged: 1 digest: 7");
  EXPECT_EQ(expired.code(), 10u);
  EXPECT_EQ(expired.message(), std::string(ErrSessionExpired(kSession).message()));
  EXPECT_EQ(revision(), 1);
}

TEST_P(DoorTest, ALateCopyOfAnAcknowledgedWriteIsNotExecuted) {
  OpenSession();
  Stamped("put { key: 'a' }", "session: 0xab sequence: 1 lowest_unacknowledged: 1 digest: 7");
  Stamped("put { key: 'b' }", "session: 0xab sequence: 2 lowest_unacknowledged: 2 digest: 7");
  const ExchangeReply late =
      Stamped("put { key: 'a' }", "session: 0xab sequence: 1 lowest_unacknowledged: 1 digest: 7");
  EXPECT_EQ(late.code(), 10u);
  EXPECT_EQ(late.message(), std::string(ErrSessionAcknowledged(1).message()));
  EXPECT_EQ(revision(), 3);
}

TEST_P(DoorTest, AMalformedStampIsRefusedBeforeAnythingIsProposed) {
  OpenSession();
  const Index before = machine_->applied();
  const struct {
    const char* stamp;
    const char* text;
  } stamps[] = {
      {"sequence: 1 lowest_unacknowledged: 1", "no session and no sequence is 0"},
      {"session: 0xab", "no session and no sequence is 0"},
      {"session: 0xab sequence: 1", "no session and no sequence is 0"},
      {"session: 0xab sequence: 1 lowest_unacknowledged: 2", "at most this one"},
      {"session: 0xab sequence: 129 lowest_unacknowledged: 1", "writes may be unacknowledged"}};
  for (const auto& malformed : stamps) {
    for (const char* request : {"put { key: 'a' }", "delete_range { key: 'a' }",
                                "txn { success { request_put { key: 'a' } } }"}) {
      const ExchangeReply reply = Stamped(request, malformed.stamp);
      EXPECT_EQ(reply.code(), 3u) << malformed.stamp;
      EXPECT_THAT(reply.message(), HasSubstr(malformed.text));
      EXPECT_FALSE(reply.has_deduplicated());
    }
  }
  EXPECT_EQ(machine_->applied(), before);
}

TEST_P(DoorTest, StampedWritesAndTheirCopiesSentTogether) {
  OpenSession();
  std::vector<ExchangeRequest> requests;
  for (int i = 0; i < 100; ++i) {
    for (int copy = 0; copy < 2; ++copy) {
      requests.push_back(Parse<ExchangeRequest>(
          fmt::format("put {{ key: 'k{}' prev_kv: true }} session {{ session: 0xab sequence: {} "
                      "lowest_unacknowledged: 1 digest: {} }}",
                      i, i + 1, i)));
    }
  }
  const std::vector<DoorAnswer> answers = door().CallAll(requests);
  for (size_t i = 0; i < answers.size(); i += 2) {
    ExchangeReply one = answers[i].reply, two = answers[i + 1].reply;
    ASSERT_EQ(one.code(), 0u) << one.message();
    EXPECT_NE(one.deduplicated(), two.deduplicated());
    one.clear_deduplicated();
    two.clear_deduplicated();
    EXPECT_EQ(Text(one), Text(two));
  }
  EXPECT_EQ(revision(), 101);
}

// ---------------------------------------------------------------- deadlines

TEST_P(DoorTest, ARequestThatIsNotAnsweredInItsTimeIsToldSo) {
  node_->set_proposals(Mode::kHold);
  node_->set_reads(Mode::kHold);
  for (const char* request :
       {"put { key: 'a' } timeout_ms: 30", "range { key: 'a' } timeout_ms: 30",
        "range { key: 'a' range_end: 'b' } timeout_ms: 30"}) {
    std::atomic<bool> done{false};
    // The service's clock stands still unless it is told to go on.
    std::thread clock([&] {
      while (!done) {
        clock_.Advance(absl::Milliseconds(1));
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
    const ExchangeReply reply = Call(request);
    done = true;
    clock.join();
    EXPECT_EQ(reply.code(), 4u) << request << ": " << reply.message();
    EXPECT_EQ(reply.response_case(), ExchangeReply::RESPONSE_NOT_SET);
  }
  // A write that was given up may still take effect: its outcome was not known.
  node_->ReleaseHeld();
  while (node_->held_reads() > 0) node_->AnswerRead(machine_->applied());
  node_->set_reads(Mode::kApply);
  EXPECT_EQ(Call("range { key: 'a' }").range().count(), 1);
}

}  // namespace
}  // namespace holdfast::server
