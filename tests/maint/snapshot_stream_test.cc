// Maintenance.Snapshot on the wire: sizes, the hash at the end, slow and vanishing callers.
#include "server/snapshot_stream.h"

#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/etcd_errors.h"
#include "storage/damage.h"

namespace holdfast::server {
namespace {

using etcdserverpb::SnapshotResponse;

// `size` bytes; fails after `fails_after` of them.
class FakeExport : public SnapshotExport {
 public:
  FakeExport(size_t size, size_t fails_after, std::atomic<int>* alive)
      : size_(size), fails_after_(fails_after), alive_(alive) {
    ++*alive_;
  }
  ~FakeExport() override { --*alive_; }
  absl::StatusOr<std::string> Next(size_t max_bytes) override {
    if (at_ >= fails_after_) {
      return storage::DamageError({.part = storage::Damage::Part::kData, .what = "rot"});
    }
    const size_t length = std::min(max_bytes, size_ - at_);
    at_ += length;
    return std::string(length, 'x');
  }
  bool done() const override { return at_ == size_; }
  int64_t revision() const override { return 5; }
  uint64_t remaining_bytes_estimate() const override { return std::max<uint64_t>(size_ - at_, 1); }

 private:
  const size_t size_, fails_after_;
  std::atomic<int>* const alive_;
  size_t at_ = 0;
};

class SnapshotStreamTest : public testing::Test, public etcdserverpb::Maintenance::CallbackService {
 protected:
  SnapshotStreamTest()
      : streams_({.version = "3.5.0",
                  .stall_max = absl::Milliseconds(300),
                  .on_damage = [this](const absl::Status&) { ++damages_; }}) {
    grpc::ServerBuilder builder;
    builder.RegisterService(static_cast<etcdserverpb::Maintenance::CallbackService*>(this));
    server_ = builder.BuildAndStart();
    stub_ = etcdserverpb::Maintenance::NewStub(server_->InProcessChannel({}));
  }
  ~SnapshotStreamTest() override {
    streams_.Stop();
    server_->Shutdown();
  }

  grpc::ServerWriteReactor<SnapshotResponse>* Snapshot(
      grpc::CallbackServerContext* context, const etcdserverpb::SnapshotRequest*) override {
    return streams_.Start(
        context, [this] { return std::make_unique<FakeExport>(size_, fails_after_, &alive_); });
  }

  size_t size_ = 512;
  size_t fails_after_ = SIZE_MAX;
  std::atomic<int> alive_ = 0;
  std::atomic<int> damages_ = 0;
  SnapshotStreams streams_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<etcdserverpb::Maintenance::Stub> stub_;
};

TEST_F(SnapshotStreamTest, EndsWithTheHashOfEverythingBefore) {
  for (const size_t size : {size_t{512}, SnapshotStreams::kPieceBytes, size_t{1024} * 1000}) {
    size_ = size;
    grpc::ClientContext context;
    auto reader = stub_->Snapshot(&context, {});
    std::vector<SnapshotResponse> all;
    for (SnapshotResponse one; reader->Read(&one);) all.push_back(one);
    ASSERT_TRUE(reader->Finish().ok());
    ASSERT_GE(all.size(), 2u);
    std::string bytes;
    for (size_t i = 0; i + 1 < all.size(); ++i) {
      bytes += all[i].blob();
      // Falls to 0 with the last byte.
      EXPECT_EQ(all[i].remaining_bytes() == 0, i + 2 == all.size());
      EXPECT_EQ(all[i].version(), "3.5.0");
    }
    EXPECT_EQ(bytes.size(), size);
    unsigned char sha[SHA256_DIGEST_LENGTH];
    SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), sha);
    EXPECT_EQ(all.back().blob(), std::string(reinterpret_cast<char*>(sha), sizeof(sha)));
    EXPECT_EQ(all.back().remaining_bytes(), 0u);
    EXPECT_EQ((bytes.size() + all.back().blob().size()) % 512, 32u) << "what etcdctl checks";
  }
  EXPECT_EQ(alive_, 0) << "the view is given back";
}

TEST_F(SnapshotStreamTest, ACallerThatTakesNothingIsCutOff) {
  size_ = size_t{1} << 30;
  grpc::ClientContext context;
  auto reader = stub_->Snapshot(&context, {});
  SnapshotResponse one;
  ASSERT_TRUE(reader->Read(&one));
  // Nothing more is read: the stream gives the store back by itself.
  while (alive_ > 0) std::this_thread::yield();
  while (reader->Read(&one)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(SnapshotStreamTest, ACallerThatGoesIsForgotten) {
  size_ = size_t{1} << 30;
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    auto reader = stub_->Snapshot(&context, {});
    SnapshotResponse one;
    ASSERT_TRUE(reader->Read(&one)) << i;
    context.TryCancel();
    while (reader->Read(&one)) {
    }
    EXPECT_FALSE(reader->Finish().ok());
    while (alive_ > 0) std::this_thread::yield();
  }
}

TEST_F(SnapshotStreamTest, OnlySoManyAtATime) {
  size_ = size_t{1} << 30;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<SnapshotResponse>>> readers;
  SnapshotResponse one;
  for (size_t i = 0; i < SnapshotStreams::kStreamsMax; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->Snapshot(contexts.back().get(), {}));
    ASSERT_TRUE(readers.back()->Read(&one));
  }
  grpc::ClientContext context;
  auto refused = stub_->Snapshot(&context, {});
  EXPECT_FALSE(refused->Read(&one));
  EXPECT_EQ(refused->Finish().error_message(), "etcdserver: too many requests");
  streams_.Stop();
  EXPECT_EQ(alive_, 0) << "a stop ends them all";
  grpc::ClientContext late_context;
  auto late = stub_->Snapshot(&late_context, {});
  EXPECT_FALSE(late->Read(&one));
  EXPECT_EQ(late->Finish().error_message(), "etcdserver: server stopped");
  for (auto& reader : readers) {
    while (reader->Read(&one)) {
    }
    EXPECT_FALSE(reader->Finish().ok());
  }
}

TEST_F(SnapshotStreamTest, RotIsReportedAndNoHashIsSent) {
  size_ = size_t{1} << 20;
  fails_after_ = size_ / 2;
  grpc::ClientContext context;
  auto reader = stub_->Snapshot(&context, {});
  size_t bytes = 0;
  for (SnapshotResponse one; reader->Read(&one);) bytes += one.blob().size();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(bytes % 512, 0u) << "etcdctl must not find a hash";
  EXPECT_EQ(damages_, 1);
}

}  // namespace
}  // namespace holdfast::server
