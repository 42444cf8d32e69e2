// The batch door against callers without rules, from a seed (HOLDFAST_SEED): what ever is sent, in
// whatever order, each id of a stream is answered at most once, exactly once if the stream ends OK,
// and in its kind; bytes that are no message end one stream and harm no other.
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "door_member.h"
#include "exchange_caller.h"
#include "kv_test_util.h"
#include "server/exchange_codec.h"

namespace holdfast::server {
namespace {

using testing::DoorAnswer;
using testing::DoorKind;
using testing::DoorMember;
using testing::ExchangeCaller;
using testing::Parse;
using testing::Text;
using v1::ExchangeReplies;
using v1::ExchangeReply;
using v1::ExchangeRequest;
using v1::ExchangeRequests;

uint64_t Seed() {
  const char* const text = std::getenv("HOLDFAST_SEED");
  return text == nullptr ? base::RandomSeed() : std::strtoull(text, nullptr, 10);
}

std::string RandomKey(base::Rng& rng) {
  return rng.OneIn(20) ? "" : std::string(1, static_cast<char>('a' + rng.Below(6)));
}

ExchangeRequest RandomRequest(base::Rng& rng, uint64_t id) {
  ExchangeRequest request;
  request.set_id(id);
  switch (rng.Below(6)) {
    case 0:
    case 1:
      request.mutable_range()->set_key(RandomKey(rng));
      if (rng.OneIn(3)) request.mutable_range()->set_range_end("z");
      request.mutable_range()->set_serializable(rng.OneIn(2));
      if (rng.OneIn(8)) request.mutable_range()->set_revision(static_cast<int64_t>(rng.Below(50)));
      if (rng.OneIn(8)) {
        request.mutable_range()->set_sort_order(
            static_cast<etcdserverpb::RangeRequest::SortOrder>(rng.Below(5)));
      }
      break;
    case 2:
      request.mutable_put()->set_key(RandomKey(rng));
      request.mutable_put()->set_value(std::string(rng.OneIn(10) ? 5000 : rng.Below(20), 'v'));
      request.mutable_put()->set_prev_kv(rng.OneIn(3));
      request.mutable_put()->set_ignore_value(rng.OneIn(10));
      if (rng.OneIn(10)) request.mutable_put()->set_lease(static_cast<int64_t>(rng.Below(3)));
      break;
    case 3:
      request.mutable_delete_range()->set_key(RandomKey(rng));
      if (rng.OneIn(3)) request.mutable_delete_range()->set_range_end("d");
      request.mutable_delete_range()->set_prev_kv(rng.OneIn(2));
      break;
    case 4: {
      etcdserverpb::TxnRequest* const txn = request.mutable_txn();
      for (uint64_t i = rng.Below(6); i > 0; --i) {
        etcdserverpb::RequestOp* const op = rng.OneIn(2) ? txn->add_success() : txn->add_failure();
        if (rng.OneIn(2)) op->mutable_request_range()->set_key(RandomKey(rng));
        if (rng.OneIn(3)) op->mutable_request_put()->set_key(RandomKey(rng));
      }
      if (rng.OneIn(2)) txn->add_compare()->set_key(RandomKey(rng));
      break;
    }
    default:
      break;  // of no kind
  }
  if (rng.OneIn(4)) request.set_timeout_ms(rng.OneIn(2) ? 1 + rng.Below(3) : 100'000);
  if (rng.OneIn(6)) request.set_max_age_ms(rng.OneIn(4) ? UINT64_MAX : rng.Below(1000));
  if (rng.OneIn(6)) request.set_min_revision(rng.OneIn(4) ? UINT64_MAX : rng.Below(40));
  request.set_require_leader(rng.OneIn(6));
  if (rng.OneIn(5)) {
    request.mutable_session()->set_session(rng.Below(3));
    request.mutable_session()->set_sequence(rng.Below(4));
    request.mutable_session()->set_lowest_unacknowledged(rng.Below(4));
    request.mutable_session()->set_digest(rng.Below(2));
  }
  return request;
}

class ExchangeRandomTest : public ::testing::Test, protected DoorMember {
 protected:
  ExchangeRandomTest()
      : DoorMember(DoorKind::kExchange,
                   {.max_bytes_under_way = 60'000, .max_bytes_unread = 30'000, .part_bytes = 500}) {
  }

  // One stream from its begin to its end.
  void RunStream(base::Rng& rng) {
    ExchangeCaller caller(Connect());
    std::map<uint64_t, ExchangeRequest> sent;
    uint64_t cancelled = 0, next = 1;
    bool broken = false;
    for (uint64_t batches = rng.Below(12); batches > 0 && !broken; --batches) {
      ExchangeRequests batch;
      for (uint64_t count = rng.Below(rng.OneIn(4) ? 200 : 8); count > 0; --count) {
        ExchangeRequest request = RandomRequest(rng, next);
        sent[next++] = request;
        *batch.add_requests() = std::move(request);
      }
      for (uint64_t count = rng.OneIn(3) ? rng.Below(5) : 0; count > 0; --count, ++cancelled) {
        batch.add_cancel(rng.Below(next + 2));
      }
      if (rng.OneIn(40)) {
        batch.add_requests()->set_id(0);
        broken = true;
      }
      if (rng.OneIn(6)) caller.PauseReading();
      if (rng.OneIn(3)) caller.GoOnReading();
      if (rng.OneIn(5)) clock_.Advance(absl::Milliseconds(rng.Below(5)));
      // A caller that does not read is held back at some time: this one reads before it is.
      if (rng.OneIn(2)) caller.GoOnReading();
      if (batch.requests_size() > 20) caller.GoOnReading();
      if (!caller.Send(batch)) break;
    }
    const bool goes = rng.OneIn(5);
    if (goes) caller.Cancel();
    if (!goes) caller.CloseWrites();
    caller.GoOnReading();
    const auto end = caller.AwaitEnd();
    ASSERT_TRUE(end.has_value()) << "the stream does not end";
    if (!goes) {
      EXPECT_EQ(end->error_code(),
                broken ? grpc::StatusCode::INVALID_ARGUMENT : grpc::StatusCode::OK)
          << end->error_message();
    }
    if (end->ok()) {
      EXPECT_GE(caller.answers() + cancelled, sent.size());
    }
    for (const auto& [id, request] : sent) {
      const auto answer = caller.Find(id);
      if (!answer.has_value()) continue;
      CheckAnswer(request, *answer);
    }
    for (const uint64_t id : caller.order()) EXPECT_TRUE(sent.contains(id)) << id;
    EXPECT_EQ(caller.stray_limits(), 0);
  }

  void CheckAnswer(const ExchangeRequest& request, const DoorAnswer& answer) {
    SCOPED_TRACE(Text(request) + " -> " + Text(answer.reply));
    EXPECT_EQ(answer.times, 1);
    const ExchangeReply& reply = answer.reply;
    if (reply.code() != 0) {
      EXPECT_EQ(reply.response_case(), ExchangeReply::RESPONSE_NOT_SET);
      EXPECT_FALSE(reply.message().empty());
      return;
    }
    // The kinds have the same numbers in both.
    EXPECT_EQ(static_cast<int>(reply.response_case()), static_cast<int>(request.request_case()));
  }
};

TEST_F(ExchangeRandomTest, WhateverIsSentIsAnsweredOnceOrTheStreamEnds) {
  const uint64_t seed = Seed();
  SCOPED_TRACE(fmt::format("HOLDFAST_SEED={}", seed));
  base::Rng rng(seed);
  Apply("session_open { session: 1 ttl_ms: 60000 }");
  node_->set_claim(ClaimOf(absl::Milliseconds(300)));
  for (int i = 0; i < 150 && !HasFailure(); ++i) RunStream(rng);
}

TEST_F(ExchangeRandomTest, ManyAtOnce) {
  const uint64_t seed = Seed();
  SCOPED_TRACE(fmt::format("HOLDFAST_SEED={}", seed));
  base::Rng rng(seed);
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([this, own = base::Rng(rng.Next())]() mutable {
      for (int i = 0; i < 25; ++i) RunStream(own);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// ---------------------------------------------------------------- bytes

class RawStream {
 public:
  explicit RawStream(const std::shared_ptr<grpc::Channel>& channel) : stub_(channel) {}

  // Sends these as messages, says that this is all, and returns how the stream ended.
  grpc::Status Run(const std::vector<std::string>& messages) {
    call_ = stub_.PrepareCall(&context_, "/holdfast.v1.Exchange/Stream", &queue_);
    call_->StartCall(Tag());
    bool open = Next();
    for (const std::string& message : messages) {
      if (!open) break;
      const grpc::Slice slice(message);
      call_->Write(grpc::ByteBuffer(&slice, 1), Tag());
      open = Next();
    }
    if (open) {
      call_->WritesDone(Tag());
      Next();
    }
    for (bool more = true; more;) {
      grpc::ByteBuffer reply;
      call_->Read(&reply, Tag());
      more = Next();
    }
    grpc::Status status;
    call_->Finish(&status, Tag());
    Next();
    return status;
  }

 private:
  void* Tag() { return this; }
  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    CHECK(queue_.Next(&tag, &ok));
    return ok;
  }
  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

TEST_F(ExchangeRandomTest, BytesThatAreNoMessageEndTheirStreamAlone) {
  const uint64_t seed = Seed();
  SCOPED_TRACE(fmt::format("HOLDFAST_SEED={}", seed));
  base::Rng rng(seed);
  const auto channel = Connect();
  int refused = 0;
  for (int i = 0; i < 300; ++i) {
    ExchangeRequests batch;
    for (uint64_t id = 1; id <= 1 + rng.Below(5); ++id) {
      *batch.add_requests() = RandomRequest(rng, id);
    }
    std::string bytes = batch.SerializeAsString();
    for (uint64_t changes = 1 + rng.Below(4); changes > 0 && !bytes.empty(); --changes) {
      const size_t at = rng.Below(bytes.size());
      switch (rng.Below(3)) {
        case 0:
          bytes[at] = static_cast<char>(rng.Below(256));
          break;
        case 1:
          bytes.resize(at);
          break;
        default:
          bytes.insert(at, 1, static_cast<char>(rng.Below(256)));
      }
    }
    ExchangeRequests read;
    const bool valid = read.ParseFromString(bytes) &&
                       std::none_of(read.requests().begin(), read.requests().end(),
                                    [](const ExchangeRequest& one) { return one.id() == 0; });
    const grpc::Status status = RawStream(channel).Run({bytes});
    EXPECT_EQ(status.ok(), valid) << status.error_message();
    if (!valid) {
      ++refused;
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_EQ(door().Call(Parse<ExchangeRequest>("range { key: 'a' }")).reply.code(), 0u);
}

// ---------------------------------------------------------------- encoded by hand

// What the codec writes without protobuf is, byte for byte, what protobuf would have written.
TEST(ExchangeCodec, WritesWhatGeneratedCodeWrites) {
  const uint64_t seed = Seed();
  SCOPED_TRACE(fmt::format("HOLDFAST_SEED={}", seed));
  base::Rng rng(seed);
  const auto number = [&rng]() -> uint64_t {
    if (rng.OneIn(5)) return 0;
    return rng.Next() >> rng.Below(64);
  };
  for (int i = 0; i < 5000; ++i) {
    std::string out;
    ExchangeReplies expected;
    const uint64_t id = number();
    const auto revision = static_cast<int64_t>(number() >> 1);
    switch (rng.Below(3)) {
      case 0: {
        const std::string key(rng.Below(300), 'k'), value(rng.Below(40'000), 'v');
        storage::KeyValueView kv;
        kv.key = key;
        kv.value = value;
        kv.create_revision = static_cast<int64_t>(number() >> 1);
        kv.mod_revision = static_cast<int64_t>(number() >> 1);
        kv.version = static_cast<int64_t>(number() >> 1);
        kv.lease = static_cast<int64_t>(number());
        ReplyFreshness fresh;
        if (rng.OneIn(2)) fresh.age_ms = number();
        fresh.source = static_cast<ExchangeReply::Source>(rng.Below(3));
        std::string response;
        const bool found = rng.OneIn(2);
        AppendGetResponse(found ? &kv : nullptr, revision, &response);
        AppendRangeReply(id, response, fresh, &out);
        ExchangeReply* const reply = expected.add_replies();
        reply->set_id(id);
        reply->mutable_range()->mutable_header()->set_revision(revision);
        if (found) {
          mvccpb::KeyValue* const one = reply->mutable_range()->add_kvs();
          one->set_key(key);
          one->set_value(value);
          one->set_create_revision(kv.create_revision);
          one->set_mod_revision(kv.mod_revision);
          one->set_version(kv.version);
          one->set_lease(kv.lease);
          reply->mutable_range()->set_count(1);
        }
        if (fresh.age_ms.has_value()) reply->set_age_ms(*fresh.age_ms);
        reply->set_source(fresh.source);
        break;
      }
      case 1: {
        std::optional<bool> deduplicated;
        if (rng.OneIn(2)) deduplicated = rng.OneIn(2);
        AppendPutReply(id, revision, deduplicated, &out);
        ExchangeReply* const reply = expected.add_replies();
        reply->set_id(id);
        reply->mutable_put()->mutable_header()->set_revision(revision);
        if (deduplicated.has_value()) reply->set_deduplicated(*deduplicated);
        break;
      }
      default: {
        const std::string bytes(rng.Below(1000), 'b');
        const bool last = rng.OneIn(2);
        AppendPart(id, bytes, last, &out);
        v1::ExchangePart* const part = expected.add_parts();
        part->set_id(id);
        part->set_bytes(bytes);
        part->set_last(last);
      }
    }
    ASSERT_EQ(out, expected.SerializeAsString()) << Text(expected);
  }
}

}  // namespace
}  // namespace holdfast::server
