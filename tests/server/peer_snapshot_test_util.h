// Checkpoints, senders played by hand, and what a SnapshotSend came to.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "base/strings.h"
#include "holdfast/raft.grpc.pb.h"
#include "peer_test_util.h"

namespace holdfast::server::test {

using Files = std::map<std::string, std::string>;

Files Contents(const std::string& dir);
std::string RandomBytes(size_t n, uint64_t seed);

inline bool Says(const absl::Status& status, std::string_view text) {
  return base::Message(status).find(text) != std::string_view::npos;
}

// A checkpoint directory that goes with the object.
class Checkpoint {
 public:
  explicit Checkpoint(const Files& files);
  ~Checkpoint();
  const std::string& dir() const { return dir_; }

 private:
  std::string dir_;
};

// The outcome of one SendSnapshot.
class Outcome {
 public:
  absl::AnyInvocable<void(absl::Status) &&> Done();
  absl::Status Wait();
  bool called() const { return state_->called.HasBeenNotified(); }

 private:
  struct State {
    absl::Notification called;
    absl::Status status;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// In term 7, where a FakeNode leads.
Outcome Send(TestMember& from, uint64_t to, const std::string& dir, uint64_t index = 500);

// Of member 1 for member 2.
raft::v1::SnapshotMeta Meta(const std::vector<std::pair<std::string, uint64_t>>& files,
                            uint64_t index = 500, uint64_t id = 1);
raft::v1::SnapshotChunk MetaChunk(const raft::v1::SnapshotMeta& meta);
raft::v1::SnapshotChunk DataChunk(uint32_t file, uint64_t offset, const std::string& data);
// All of it, cut at file ends and at `bytes`.
std::vector<raft::v1::SnapshotChunk> Chunks(const raft::v1::SnapshotMeta& meta, const Files& files,
                                            size_t bytes);

class HandSender {
 public:
  explicit HandSender(const TestMember& to);
  bool Write(const raft::v1::SnapshotChunk& chunk) { return stream_->Write(chunk); }
  // The first answer; ends the test's patience if the call is over.
  uint64_t Have();
  // Orderly: the receiver has read everything when this returns.
  grpc::Status Finish();
  grpc::Status Cancel();
  // For the receiver to end the call.
  grpc::Status Wait();
  uint64_t installed() const { return answer_.installed_index(); }

 private:
  std::unique_ptr<raft::v1::Peer::Stub> stub_;
  grpc::ClientContext context_;
  raft::v1::SnapshotAnswer answer_;
  std::unique_ptr<grpc::ClientReaderWriter<raft::v1::SnapshotChunk, raft::v1::SnapshotAnswer>>
      stream_;
};

}  // namespace holdfast::server::test
