// Long reads: RangeStream, and the memory that large answers may take together.
#include "server/range_stream.h"

#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "etcd/rpc.grpc.pb.h"
#include "kv_test_member.h"
#include "kv_test_util.h"
#include "server/answer_budget.h"
#include "server/txn_execution.h"

namespace holdfast::server {
namespace {

using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::RangeStreamResponse;
using testing::Parse;
using testing::Text;

KvService::Options SmallParts() {
  KvService::Options options;
  options.stream_part_bytes = 64;
  options.max_answers_bytes = 200 << 10;  // three steps of the budget
  return options;
}

class RangeStreamTest : public ::testing::Test, protected testing::TestMember {
 protected:
  RangeStreamTest() : TestMember(SmallParts()) {}

  void Put(const std::string& key, const std::string& value) {
    grpc::ClientContext context;
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_value(value);
    etcdserverpb::PutResponse response;
    ASSERT_TRUE(stub_->Put(&context, request, &response).ok());
  }
  RangeResponse Range(const RangeRequest& request) {
    grpc::ClientContext context;
    RangeResponse response;
    const grpc::Status status = stub_->Range(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  // All parts merged; `parts` their number.
  grpc::Status Stream(const RangeRequest& request, RangeResponse* merged, int* parts) {
    grpc::ClientContext context;
    auto reader = stub_->RangeStream(&context, request);
    RangeStreamResponse part;
    *parts = 0;
    while (reader->Read(&part)) {
      EXPECT_FALSE(merged->has_header()) << "header before the last part";
      merged->MergeFrom(part.range_response());
      ++*parts;
    }
    return reader->Finish();
  }
};

TEST_F(RangeStreamTest, MergedPartsAreWhatRangeAnswers) {
  for (int i = 0; i < 40; ++i) Put(fmt::format("k{:02}", i), "a value of some length");
  for (const char* text :
       {"key: 'k' range_end: 'l'", "key: 'k' range_end: 'l' limit: 7",
        "key: 'k' range_end: 'l' limit: 40", "key: 'k' range_end: 'l' limit: 41",
        "key: 'k' range_end: 'l' keys_only: true", "key: 'k' range_end: 'l' count_only: true",
        "key: 'k10'", "key: 'none'", "key: 'k' range_end: 'l' revision: 20",
        "key: 'k' range_end: 'l' serializable: true limit: 3", "key: 'z' range_end: 'a'"}) {
    const auto request = Parse<RangeRequest>(text);
    RangeResponse merged;
    int parts = 0;
    const grpc::Status status = Stream(request, &merged, &parts);
    ASSERT_TRUE(status.ok()) << text << ": " << status.error_message();
    EXPECT_EQ(Text(merged), Text(Range(request))) << text;
  }
}

TEST_F(RangeStreamTest, ALargeRangeComesInManyParts) {
  for (int i = 0; i < 40; ++i) Put(fmt::format("k{:02}", i), "a value of some length");
  RangeResponse merged;
  int parts = 0;
  ASSERT_TRUE(Stream(Parse<RangeRequest>("key: 'k' range_end: 'l'"), &merged, &parts).ok());
  EXPECT_GT(parts, 8);
  EXPECT_EQ(merged.kvs_size(), 40);
}

TEST_F(RangeStreamTest, ThePartsAreOfOneRevisionWhateverIsWrittenMeanwhile) {
  for (int i = 0; i < 2000; ++i) Put(fmt::format("k{:04}", i), std::string(100, 'x'));
  grpc::ClientContext context;
  auto reader = stub_->RangeStream(&context, Parse<RangeRequest>("key: 'k' range_end: 'l'"));
  RangeStreamResponse part;
  ASSERT_TRUE(reader->Read(&part));
  // Far more was not read yet than gRPC's windows hold.
  for (int i = 0; i < 2000; i += 100) Put(fmt::format("k{:04}", i), "new");
  RangeResponse merged = part.range_response();
  while (reader->Read(&part)) merged.MergeFrom(part.range_response());
  ASSERT_TRUE(reader->Finish().ok());
  ASSERT_EQ(merged.kvs_size(), 2000);
  for (const auto& kv : merged.kvs()) EXPECT_EQ(kv.value().size(), 100u) << kv.key();
  EXPECT_EQ(merged.header().revision(), 2001);
}

TEST_F(RangeStreamTest, RefusesWhatItCanNotStream) {
  RangeResponse merged;
  int parts = 0;
  grpc::Status status =
      Stream(Parse<RangeRequest>("key: 'k' range_end: 'l' sort_order: DESCEND"), &merged, &parts);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(status.error_message(), "RangeStream does not support custom sort orders");
  status =
      Stream(Parse<RangeRequest>("key: 'k' range_end: 'l' min_mod_revision: 3"), &merged, &parts);
  EXPECT_EQ(status.error_message(), "RangeStream does not support revision filters");
  status = Stream(Parse<RangeRequest>("key: 'k' revision: 99"), &merged, &parts);
  EXPECT_EQ(status.error_message(), "etcdserver: mvcc: required revision is a future revision");
}

TEST_F(RangeStreamTest, AnswersBeyondTheBudgetAreRefusedAndItComesBack) {
  for (int i = 0; i < 300; ++i) Put(fmt::format("k{:03}", i), std::string(1000, 'x'));
  grpc::ClientContext context;
  RangeResponse response;
  const grpc::Status status =
      stub_->Range(&context, Parse<RangeRequest>("key: 'k' range_end: 'l'"), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(status.error_message().find("page through the range with limit"), std::string::npos);
  // Ten times what the budget holds, one after the other. A call gives its share back a little
  // after its answer is here.
  const auto page = Parse<RangeRequest>("key: 'k' range_end: 'l' limit: 100");
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  for (int answered = 0; answered < 20;) {
    ASSERT_LT(absl::Now(), deadline);
    grpc::ClientContext again;
    response.Clear();
    if (!stub_->Range(&again, page, &response).ok()) continue;
    EXPECT_EQ(response.kvs_size(), 100);
    ++answered;
  }
}

// What a transaction reads, here without leases.
class OnWriter : public KvReader {
 public:
  explicit OnWriter(const storage::MvccStore::Writer& writer) : writer_(writer) {}
  int64_t revision() const override { return writer_.revision(); }
  int64_t compact_revision() const override { return writer_.compact_revision(); }
  absl::StatusOr<std::optional<storage::KeyValue>> Get(std::string_view key) const override {
    return writer_.Get(key);
  }
  absl::Status Range(const storage::RangeOptions& options,
                     storage::RangeResult* result) const override {
    return writer_.Range(options, result);
  }
  absl::StatusOr<bool> LeaseExists(int64_t) const override { return false; }

 private:
  const storage::MvccStore::Writer& writer_;
};

TEST(DeleteLimit, MoreThanOneWriteHoldsIsRefusedBeforeAnythingIsDeleted) {
  testing::TempDir dir;
  const auto store = testing::OpenStore(dir / "db");
  const auto writer = store->NewWriter();
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(testing::ApplyAlone(Parse<command::v1::Command>(
                                        fmt::format("put {{ key: 'k{}' value: '12345678' }}", i)),
                                    false, *writer)
                    .ok());
  }
  const OnWriter reader(*writer);
  const auto all = Parse<etcdserverpb::DeleteRangeRequest>("key: 'k' range_end: 'l'");
  const size_t each = 2 + 8 + kDeleteOverheadBytes;
  EXPECT_TRUE(TxnExecution(reader, writer.get(), 1000, 10 * each).PrepareDelete(all).ok());
  const absl::Status refused =
      TxnExecution(reader, writer.get(), 1000, 10 * each - 1).PrepareDelete(all);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  // Two in one transaction count together.
  TxnExecution two(reader, writer.get(), 1000, 15 * each);
  EXPECT_TRUE(two.PrepareDelete(all).ok());
  EXPECT_FALSE(two.PrepareDelete(all).ok());
}

TEST(AnswerBudget, GivesBackWhatWasTaken) {
  AnswerBudget budget(100);
  {
    AnswerBudget::Reservation one(&budget);
    EXPECT_TRUE(one.Grow(60));
    AnswerBudget::Reservation other(&budget);
    EXPECT_FALSE(other.Grow(41));
    EXPECT_TRUE(other.refused());
    EXPECT_TRUE(other.Grow(40));
  }
  AnswerBudget::Reservation all(&budget);
  EXPECT_TRUE(all.Grow(100));
  EXPECT_FALSE(all.refused());
}

}  // namespace
}  // namespace holdfast::server
