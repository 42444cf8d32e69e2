// holdfastctl's commands: what they print, and what they tell the script that called them.
#include <optional>
#include <sstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "client/ctl/commands.h"
#include "tests/client/fake_server.h"

namespace holdfast::ctl {
namespace {

using test::Answer;
using test::DeadEndpoint;
using test::FakeServer;
using test::Seen;
using testing::HasSubstr;

class CtlTest : public testing::Test {
 protected:
  CtlTest() { common_.endpoints = {server_.endpoint()}; }
  Io io() { return {in_, out_, err_}; }

  FakeServer server_;
  Common common_;
  std::istringstream in_;
  std::ostringstream out_, err_;
};

TEST_F(CtlTest, GetPrintsKeyAndValueByteForByte) {
  Answer answer = Answer::Ok();
  answer.kvs = {{"k", std::string("a\0b", 3)}};
  server_.Always(answer);
  EXPECT_EQ(Get(common_, {.key = "k"}, io()), kOk);
  EXPECT_EQ(out_.str(), std::string("k\na\0b\n", 6));
}

TEST_F(CtlTest, GetOfAMissingKeyPrintsNothingOnStandardOutput) {
  EXPECT_EQ(Get(common_, {.key = "k"}, io()), kNotFound);
  EXPECT_EQ(out_.str(), "");
  EXPECT_THAT(err_.str(), HasSubstr("no such key: k"));
  // Nothing counted is a result.
  EXPECT_EQ(Get(common_, {.key = "k", .count_only = true}, io()), kOk);
  EXPECT_EQ(out_.str(), "0\n");
}

TEST_F(CtlTest, GetInJsonHasBase64AndFreshness) {
  Answer answer = Answer::WithAge(40, 5);
  answer.kvs = {{"k", std::string("\xff\0", 2)}};
  server_.Always(answer);
  common_.json = true;
  GetArgs args{.key = "k", .consistency = *ParseConsistency("bounded=5s")};
  EXPECT_EQ(Get(common_, args, io()), kOk);
  const auto json = nlohmann::json::parse(out_.str());
  EXPECT_EQ(json["kvs"][0]["key"], "aw==");
  EXPECT_EQ(json["kvs"][0]["value"], "/wA=");
  EXPECT_EQ(json["freshness"]["proof"], "proven");
  EXPECT_EQ(json["freshness"]["source"], "follower");
  EXPECT_EQ(json["freshness"]["revision"], 5);
  EXPECT_GE(json["freshness"]["age_seconds"], 0.04);
}

TEST_F(CtlTest, GetReadsAllPagesAtOneRevision) {
  server_.SetHandler([](const Seen& seen) {
    Answer answer = Answer::Ok(9);
    answer.count = 2;
    const bool first = seen.range.revision() == 0;
    answer.kvs = {{first ? "p/1" : "p/2", "v"}};
    answer.more = first;
    return answer;
  });
  EXPECT_EQ(Get(common_, {.key = "p/", .prefix = true, .keys_only = true}, io()), kOk);
  EXPECT_EQ(out_.str(), "p/1\np/2\n");
  EXPECT_EQ(server_.seen().at(1).range.revision(), 9);
  EXPECT_EQ(server_.seen().at(1).range.key(), std::string("p/1\0", 4));
}

TEST_F(CtlTest, PutTakesTheValueFromStandardInput) {
  in_.str(std::string("a\0b\n", 4));
  EXPECT_EQ(Put(common_, "k", std::nullopt, io()), kOk);
  EXPECT_EQ(out_.str(), "OK\n");
  EXPECT_EQ(server_.seen().at(0).put.value(), std::string("a\0b\n", 4));
}

TEST_F(CtlTest, ExitCodesTellTheOutcome) {
  server_.Always(Answer::Error(grpc::StatusCode::UNAVAILABLE, "etcdserver: request timed out"));
  EXPECT_EQ(Put(common_, "k", "v", io()), kMaybeCommitted);
  EXPECT_THAT(err_.str(), HasSubstr("outcome unknown"));
  server_.Always(
      Answer::Error(grpc::StatusCode::PERMISSION_DENIED, "etcdserver: permission denied"));
  EXPECT_EQ(Delete(common_, "k", false, io()), kRefused);
  common_.timeout = absl::Milliseconds(300);
  server_.Always(Answer::NoLeader());
  EXPECT_EQ(Put(common_, "k", "v", io()), kUnavailable);
  GetArgs bounded{.key = "k", .consistency = *ParseConsistency("bounded=5s")};
  server_.Always(Answer::WithAge(6000));
  EXPECT_EQ(Get(common_, bounded, io()), kUnavailable);
  common_.endpoints = {DeadEndpoint()};
  EXPECT_EQ(Get(common_, {.key = "k"}, io()), kUnavailable);
  EXPECT_EQ(Status(common_, io()), kUnavailable);
  common_.endpoints = {"nonsense"};
  EXPECT_EQ(Get(common_, {.key = "k"}, io()), kUsage);
  EXPECT_EQ(Status(common_, io()), kUsage);
}

TEST_F(CtlTest, TxnTellsWhichSideRan) {
  in_.str("mod(k) = 1\n\nput k v\n\nget k\n");
  EXPECT_EQ(RunTxn(common_, io()), kOk);
  EXPECT_THAT(out_.str(), HasSubstr("SUCCESS"));
  Answer failed = Answer::Ok();
  failed.succeeded = false;
  server_.Always(failed);
  in_.clear();
  in_.str("mod(k) = 1\n\nput k v\n\nget k\n");
  EXPECT_EQ(RunTxn(common_, io()), kNotFound);
  in_.clear();
  in_.str("nonsense\n");
  EXPECT_EQ(RunTxn(common_, io()), kUsage);
}

TEST_F(CtlTest, StatusShowsAnEndpointThatIsDownAsSuch) {
  const std::string dead = DeadEndpoint();
  common_.endpoints = {dead};
  EXPECT_EQ(Status(common_, io()), kUnavailable);
  EXPECT_THAT(out_.str(), HasSubstr(dead));
  EXPECT_THAT(out_.str(), HasSubstr("unreachable"));
}

}  // namespace
}  // namespace holdfast::ctl
