// Tries over the batch stream: what is sent together, what is proven unsent, and what is not.
#include "client/exchange_link.h"

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/mutex.h"
#include "client/endpoint.h"
#include "holdfast/client.h"
#include "tests/client/fake_exchange.h"
#include "tests/client/fake_server.h"

namespace holdfast::internal {
namespace {

using grpc::StatusCode;
using test::FakeExchange;
using test::FakeServer;

// Waits for one try.
class Waiter : public TryOwner {
 public:
  struct Reply {
    grpc::Status status;
    bool sent = false;
    int64_t revision = 0;
    std::string value = {};
    uint64_t cluster_id = 0;
    bool aged = false;
  };
  void OnTryDone(bool, RpcReply& reply) override {
    absl::MutexLock lock(&mutex_);
    ASSERT_FALSE(reply_.has_value()) << "told twice";
    reply_ = Reply{.status = reply.status, .sent = reply.sent, .aged = reply.age.age.has_value()};
    if (reply.exchange == nullptr) return;
    reply_->cluster_id = reply.header->cluster_id();
    if (reply.exchange->has_put()) reply_->revision = reply.exchange->put().header().revision();
    if (reply.exchange->range().kvs_size() > 0) {
      reply_->value = reply.exchange->range().kvs(0).value();
    }
  }
  Reply Wait() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](Waiter* self) ABSL_NO_THREAD_SAFETY_ANALYSIS { return self->reply_.has_value(); },
        this));
    return *reply_;
  }
  bool done() {
    absl::MutexLock lock(&mutex_);
    return reply_.has_value();
  }

 private:
  absl::Mutex mutex_;
  std::optional<Reply> reply_;
};

RpcRequest Put(const std::string& key, absl::Duration timeout = absl::Seconds(60)) {
  etcdserverpb::PutRequest put;
  put.set_key(key);
  return {.method = Method::kPut,
          .body = put.SerializeAsString(),
          .require_leader = true,
          .stamp = Stamp{7, 3, 2, 99},
          .timeout = timeout};
}

class ExchangeLinkTest : public testing::Test {
 protected:
  // Close's contract: every try has been told. The end of a test's server ends what it left open.
  ~ExchangeLinkTest() override {
    for (const auto& waiter : waiters_) waiter->Wait();
    link_.Close();
    loop_.Stop();
  }
  void Connect(const std::string& endpoint) { channel_ = MakeChannel(*ParseEndpoint(endpoint)); }
  std::shared_ptr<Waiter> Start(RpcRequest request) {
    auto waiter = std::make_shared<Waiter>();
    last_ = link_.Start(channel_, std::move(request), waiter, false);
    waiters_.push_back(waiter);
    return waiter;
  }
  // One write goes through, so that the stream is open.
  void Open(FakeExchange& server) {
    const auto first = Start(Put("first"));
    const uint64_t id = server.WaitForRequests(1)[0].id();
    v1::ExchangeReplies replies;
    *replies.add_replies() = FakeExchange::PutReply(id, 1);
    server.Send(std::move(replies));
    ASSERT_TRUE(first->Wait().status.ok());
  }

  EventLoop loop_;
  ExchangeLink link_{&loop_};
  std::shared_ptr<grpc::Channel> channel_;
  TryHandle last_;
  std::vector<std::shared_ptr<Waiter>> waiters_;  // of all tries
};

TEST_F(ExchangeLinkTest, ARequestCarriesAllThatMetadataWould) {
  FakeExchange server;
  Connect(server.endpoint());
  const auto put = Start(Put("k"));
  const v1::ExchangeRequest seen = server.WaitForRequests(1)[0];
  EXPECT_EQ(seen.put().key(), "k");
  EXPECT_TRUE(seen.require_leader());
  EXPECT_FALSE(seen.has_max_age_ms());
  EXPECT_GT(seen.timeout_ms(), 59'000u);
  EXPECT_LE(seen.timeout_ms(), 60'000u);
  EXPECT_EQ(seen.session().session(), 7u);
  EXPECT_EQ(seen.session().sequence(), 3u);
  EXPECT_EQ(seen.session().lowest_unacknowledged(), 2u);
  EXPECT_EQ(seen.session().digest(), 99u);
  v1::ExchangeReplies replies;
  replies.mutable_header()->set_cluster_id(5);
  *replies.add_replies() = FakeExchange::PutReply(seen.id(), 12);
  server.Send(std::move(replies));
  const Waiter::Reply reply = put->Wait();
  EXPECT_TRUE(reply.status.ok());
  EXPECT_TRUE(reply.sent);
  EXPECT_EQ(reply.revision, 12);
  EXPECT_EQ(reply.cluster_id, 5u);
  EXPECT_FALSE(reply.aged);
}

TEST_F(ExchangeLinkTest, WhatWaitsForTheStreamIsOneMessageAndAnswersComeInAnyOrder) {
  FakeExchange server({.greet = false});
  Connect(server.endpoint());
  std::vector<std::shared_ptr<Waiter>> puts;
  for (int i = 0; i < 100; ++i) puts.push_back(Start(Put("k" + std::to_string(i))));
  server.WaitForStreams(1);
  server.Greet();
  const auto requests = server.WaitForRequests(100);
  EXPECT_EQ(server.messages().size(), 1u);
  v1::ExchangeReplies replies;
  for (auto it = requests.rbegin(); it != requests.rend(); ++it) {
    const int number = std::stoi(it->put().key().substr(1));
    *replies.add_replies() = FakeExchange::PutReply(it->id(), 1000 + number);
  }
  server.Send(std::move(replies));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(puts[static_cast<size_t>(i)]->Wait().revision, 1000 + i);
  EXPECT_EQ(server.streams(), 1);
}

TEST_F(ExchangeLinkTest, NoMessageIsLargerThanTheServerTakes) {
  FakeExchange server({.greet = false, .max_batch_bytes = 200});
  Connect(server.endpoint());
  for (int i = 0; i < 20; ++i) Start(Put(std::string(60, 'k')));
  server.WaitForStreams(1);
  server.Greet();
  server.WaitForRequests(20);
  for (const auto& message : server.messages()) EXPECT_LE(message.ByteSizeLong(), 200u);
  server.End({StatusCode::UNAVAILABLE, "over"});
}

TEST_F(ExchangeLinkTest, ALargeAnswerComesInParts) {
  FakeExchange server;
  Connect(server.endpoint());
  etcdserverpb::RangeRequest range;
  range.set_key("k");
  const auto get = Start(
      {.method = Method::kRange, .body = range.SerializeAsString(), .timeout = absl::Seconds(60)});
  const uint64_t id = server.WaitForRequests(1)[0].id();
  v1::ExchangeReply whole;
  whole.set_id(id);
  whole.mutable_range()->add_kvs()->set_value(std::string(100'000, 'v'));
  const std::string bytes = whole.SerializeAsString();
  for (size_t at = 0; at < bytes.size(); at += 30'000) {
    v1::ExchangeReplies replies;
    auto* part = replies.add_parts();
    part->set_id(id);
    part->set_bytes(bytes.substr(at, 30'000));
    part->set_last(at + 30'000 >= bytes.size());
    server.Send(std::move(replies));
  }
  EXPECT_EQ(get->Wait().value, std::string(100'000, 'v'));
}

TEST_F(ExchangeLinkTest, ABreakLeavesWhatWasWrittenInDoubt) {
  FakeExchange server;
  Connect(server.endpoint());
  const auto put = Start(Put("k"));
  server.WaitForRequests(1);
  server.End({StatusCode::INTERNAL, "crashed"});
  const Waiter::Reply reply = put->Wait();
  EXPECT_EQ(reply.status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_TRUE(reply.sent);
  // The next one opens another stream.
  Start(Put("again"));
  EXPECT_EQ(server.WaitForRequests(2)[1].put().key(), "again");
  EXPECT_EQ(server.streams(), 2);
  server.End({StatusCode::UNAVAILABLE, "over"});
}

TEST_F(ExchangeLinkTest, ABreakBeforeTheGreetingProvesThatNothingWasSent) {
  FakeExchange server({.greet = false});
  Connect(server.endpoint());
  const auto put = Start(Put("k"));
  server.WaitForStreams(1);
  server.End({StatusCode::UNAVAILABLE, "going away"});
  const Waiter::Reply reply = put->Wait();
  EXPECT_EQ(reply.status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_FALSE(reply.sent);
  EXPECT_TRUE(server.WaitForRequests(0).empty());
}

TEST_F(ExchangeLinkTest, ARefusedConnectionProvesThatNothingWasSent) {
  Connect(test::DeadEndpoint());
  const Waiter::Reply reply = Start(Put("k"))->Wait();
  EXPECT_EQ(reply.status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_FALSE(reply.sent);
}

TEST_F(ExchangeLinkTest, AServerWithoutTheDoorGetsCallsAndEachOnce) {
  FakeServer server;
  Connect(server.endpoint());
  std::vector<std::shared_ptr<Waiter>> puts;
  for (int i = 0; i < 10; ++i) puts.push_back(Start(Put("k")));
  for (const auto& put : puts) EXPECT_TRUE(put->Wait().status.ok());
  EXPECT_EQ(server.calls("Put"), 10);
  EXPECT_TRUE(Start(Put("k"))->Wait().status.ok());
  EXPECT_EQ(server.calls("Put"), 11);
  EXPECT_EQ(server.seen()[0].metadata.at("hasleader"), "true");
  EXPECT_EQ(server.seen()[0].metadata.at("holdfast-session"), "7-3-2-63");
  EXPECT_EQ(link_.counts().streams, 1u);  // asked once
}

TEST_F(ExchangeLinkTest, ADeadlineIsKeptWhereverTheRequestIs) {
  FakeExchange server({.greet = false});
  Connect(server.endpoint());
  const auto waiting = Start(Put("k", absl::Milliseconds(20)));
  const Waiter::Reply unsent = waiting->Wait();
  EXPECT_EQ(unsent.status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_FALSE(unsent.sent);
  server.WaitForStreams(1);
  server.Greet();
  const auto under_way = Start(Put("l", absl::Milliseconds(300)));
  const auto requests = server.WaitForRequests(1);
  // Never the one that was proven to be unsent.
  EXPECT_EQ(requests[0].put().key(), "l");
  const Waiter::Reply sent = under_way->Wait();
  EXPECT_EQ(sent.status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(sent.sent);
  EXPECT_EQ(server.WaitForCancels(1)[0], requests[0].id());
  // Its answer comes too late, and finds nobody.
  v1::ExchangeReplies replies;
  *replies.add_replies() = FakeExchange::PutReply(requests[0].id(), 1);
  server.Send(std::move(replies));
  const auto next = Start(Put("m"));
  v1::ExchangeReplies more;
  *more.add_replies() = FakeExchange::PutReply(server.WaitForRequests(2)[1].id(), 2);
  server.Send(std::move(more));
  EXPECT_EQ(next->Wait().revision, 2);
}

TEST_F(ExchangeLinkTest, ACancelIsToldToTheServer) {
  FakeExchange server;
  Connect(server.endpoint());
  const auto put = Start(Put("k"));
  const uint64_t id = server.WaitForRequests(1)[0].id();
  last_.Cancel();
  const Waiter::Reply reply = put->Wait();
  EXPECT_EQ(reply.status.error_code(), StatusCode::CANCELLED);
  EXPECT_TRUE(reply.sent);
  EXPECT_EQ(server.WaitForCancels(1)[0], id);
}

TEST_F(ExchangeLinkTest, AServerThatReadsNothingCannotMakeThisProcessGrow) {
  FakeExchange server({.read = false});
  Connect(server.endpoint());
  etcdserverpb::PutRequest put;
  put.set_key("k");
  put.set_value(std::string(900'000, 'v'));
  std::vector<std::shared_ptr<Waiter>> puts;
  for (int i = 0; i < 90; ++i) {
    RpcRequest request = Put("k");
    request.body = put.SerializeAsString();
    puts.push_back(Start(std::move(request)));
  }
  const Waiter::Reply reply = puts.back()->Wait();
  EXPECT_EQ(reply.status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_FALSE(reply.sent);
  server.End({StatusCode::UNAVAILABLE, "over"});
  int unsent = 0;
  for (const auto& one : puts) unsent += one->Wait().sent ? 0 : 1;
  EXPECT_GT(unsent, 60);
}

TEST(ExchangeClientTest, ClosingTheClientAnswersWhatIsUnderWay) {
  FakeExchange server;
  absl::Status status;
  {
    auto client = Client::Open({.endpoints = {server.endpoint()}, .exactly_once = false});
    ASSERT_TRUE(client.ok());
    (*client)->Put("k", "v", WriteOptions(), [&](auto result) { status = result.status(); });
    server.WaitForRequests(1);
  }
  EXPECT_TRUE(MaybeCommitted(status)) << status;
}

}  // namespace
}  // namespace holdfast::internal
