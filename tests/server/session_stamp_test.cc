// Stamps over a real in-process channel: what the metadata says, and what the answer carries.
#include "server/session_stamp.h"

#include <string>

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "kv_test_member.h"
#include "kv_test_util.h"
#include "server/session_table.h"

namespace holdfast::server {
namespace {

using ::testing::HasSubstr;
using testing::Parse;
using testing::Text;

TEST(SessionStamp, IsFourNumbers) {
  const auto stamp = ParseSessionStamp("5f3a-17-16-9c01");
  ASSERT_TRUE(stamp.ok());
  EXPECT_EQ(stamp->session(), 0x5f3au);
  EXPECT_EQ(stamp->sequence(), 17u);
  EXPECT_EQ(stamp->lowest_unacknowledged(), 16u);
  EXPECT_EQ(stamp->digest(), 0x9c01u);
  EXPECT_TRUE(
      ParseSessionStamp("ffffffffffffffff-18446744073709551615-18446744073709551615-0").ok());
  EXPECT_TRUE(ParseSessionStamp("1-128-1-0").ok());
}

TEST(SessionStamp, ThatIsNotExactlyThatIsRefused) {
  for (const char* text : {"",
                           "-",
                           "1",
                           "1-1-1",
                           "1-1-1-",
                           "1-1-1-1-",
                           "1-1-1-1-1",
                           "1-1-1-g",
                           "g-1-1-1",
                           "1-a-1-1",
                           "1--1-1",
                           " 1-1-1-1",
                           "1-1-1-1 ",
                           "0-1-1-1",
                           "1-0-0-1",
                           "1-1-0-1",
                           "1-1-2-1",
                           "1-129-1-1",
                           "10000000000000000-1-1-1",
                           "1-18446744073709551616-1-1",
                           "1-+1-1-1",
                           "1-1-1-0x1"}) {
    EXPECT_EQ(ParseSessionStamp(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

class StampedCalls : public ::testing::Test, protected testing::TestMember {
 protected:
  StampedCalls() : TestMember({}) {
    command::v1::Command open;
    open.mutable_session_open()->set_session(0xab);
    open.mutable_session_open()->set_ttl_ms(60'000);
    node_->ApplyForeign(open.SerializeAsString());
  }
  struct Answer {
    grpc::Status status;
    std::string text;
    std::string deduplicated;  // "-": not told
  };
  template <class Request, class Response, class Method>
  Answer Call(Method method, const std::string& request, std::vector<std::string> stamps) {
    grpc::ClientContext context;
    for (const std::string& stamp : stamps) context.AddMetadata("holdfast-session", stamp);
    Response response;
    Answer answer;
    answer.status = ((*stub_).*method)(&context, Parse<Request>(request), &response);
    answer.text = Text(response);
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto it = trailers.find("holdfast-deduplicated");
    answer.deduplicated =
        it == trailers.end() ? "-" : std::string(it->second.data(), it->second.size());
    return answer;
  }
  Answer Put(const std::string& request, std::vector<std::string> stamps) {
    return Call<etcdserverpb::PutRequest, etcdserverpb::PutResponse>(&etcdserverpb::KV::Stub::Put,
                                                                     request, std::move(stamps));
  }
  Answer Delete(const std::string& request, std::vector<std::string> stamps) {
    return Call<etcdserverpb::DeleteRangeRequest, etcdserverpb::DeleteRangeResponse>(
        &etcdserverpb::KV::Stub::DeleteRange, request, std::move(stamps));
  }
  Answer Txn(const std::string& request, std::vector<std::string> stamps) {
    return Call<etcdserverpb::TxnRequest, etcdserverpb::TxnResponse>(&etcdserverpb::KV::Stub::Txn,
                                                                     request, std::move(stamps));
  }
  int64_t revision() const { return machine_->applied_state().revision; }
};

TEST_F(StampedCalls, TellWhetherTheyWereAnsweredBefore) {
  const Answer plain = Put("key: 'a'", {});
  EXPECT_EQ(plain.deduplicated, "-");
  const Answer first = Put("key: 'a' prev_kv: true", {"ab-1-1-7"});
  ASSERT_TRUE(first.status.ok());
  EXPECT_EQ(first.deduplicated, "0");
  const Answer second = Put("key: 'a' prev_kv: true", {"ab-1-1-7"});
  ASSERT_TRUE(second.status.ok());
  EXPECT_EQ(second.deduplicated, "1");
  EXPECT_EQ(second.text, first.text);
  EXPECT_EQ(revision(), 3);
}

TEST_F(StampedCalls, ComeInAllKindsOfWrites) {
  ASSERT_TRUE(Put("key: 'a'", {}).status.ok());
  const Answer deleted = Delete("key: 'a'", {"ab-1-1-7"});
  EXPECT_THAT(deleted.text, HasSubstr("deleted: 1"));
  EXPECT_EQ(Delete("key: 'a'", {"ab-1-1-7"}).text, deleted.text);
  const Answer txn = Txn("success { request_put { key: 'b' } }", {"ab-2-1-7"});
  EXPECT_EQ(txn.deduplicated, "0");
  const Answer again = Txn("success { request_put { key: 'b' } }", {"ab-2-1-7"});
  EXPECT_EQ(again.deduplicated, "1");
  EXPECT_EQ(again.text, txn.text);
  EXPECT_EQ(revision(), 4);
  // One that only reads is no write.
  EXPECT_EQ(Txn("success { request_range { key: 'b' } }", {"nonsense"}).deduplicated, "-");
}

TEST_F(StampedCalls, AreRefusedByTheStateMachineWithWordsThatAClientCanGoBy) {
  ASSERT_TRUE(Put("key: 'a'", {"ab-1-1-7"}).status.ok());
  const Answer forked = Put("key: 'b'", {"ab-1-1-8"});
  EXPECT_EQ(forked.status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(forked.status.error_message(), HasSubstr("holdfast: SESSION_FORKED: "));
  EXPECT_EQ(forked.deduplicated, "-");
  const Answer expired = Put("key: 'b'", {"ac-1-1-8"});
  EXPECT_EQ(expired.status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(expired.status.error_message(), HasSubstr("holdfast: SESSION_EXPIRED: "));
  ASSERT_TRUE(Put("key: 'a'", {"ab-2-2-7"}).status.ok());
  const Answer late = Put("key: 'a'", {"ab-1-1-7"});
  EXPECT_EQ(late.status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(late.status.error_message(), HasSubstr("holdfast: SESSION_ACKNOWLEDGED: "));
  EXPECT_EQ(revision(), 3);
  // Of a refusal that is kept both answers are told to be final.
  EXPECT_EQ(Put("key: 'a' lease: 9", {"ab-3-3-7"}).deduplicated, "0");
  EXPECT_EQ(Put("key: 'a' lease: 9", {"ab-3-3-7"}).deduplicated, "1");
}

TEST_F(StampedCalls, ThatAreMalformedAreRefusedBeforeTheLog) {
  const Index before = machine_->applied();
  EXPECT_EQ(Put("key: 'a'", {"ab-1-1"}).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Put("key: 'a'", {"ab-1-1-7", "ab-2-1-7"}).status.error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Delete("key: 'a'", {"x"}).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Txn("success { request_put { key: 'b' } }", {"x"}).status.error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(machine_->applied(), before);
}

TEST_F(StampedCalls, OfWhichNobodyHeardTheAnswerAreAnsweredToWhoeverAsksAgain) {
  node_->set_proposals(testing::FakeNode::Mode::kHold);
  grpc::ClientContext gone;
  gone.AddMetadata("holdfast-session", "ab-1-1-7");
  gone.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
  etcdserverpb::PutResponse response;
  EXPECT_FALSE(
      stub_->Put(&gone, Parse<etcdserverpb::PutRequest>("key: 'a' value: '1'"), &response).ok());
  node_->ReleaseHeld();
  node_->set_proposals(testing::FakeNode::Mode::kApply);
  const Answer again = Put("key: 'a' value: '1'", {"ab-1-1-7"});
  ASSERT_TRUE(again.status.ok());
  EXPECT_EQ(again.deduplicated, "1");
  EXPECT_EQ(revision(), 2);
}

}  // namespace
}  // namespace holdfast::server
