// raft::Message <-> the wire (api/holdfast/raft.proto), frame by frame.
//
// Written by hand, because this is where most of a member's bytes pass: a frame is encoded into one
// buffer, each payload copied once, and decoded from gRPC's buffers into the core's messages, each
// payload copied once. No protobuf object stands between. The bytes are exactly those that protobuf
// makes of raft.proto (a test compares them), so either side may be another version.
//
// Decoding is strict: what a correct member never says is an error with a text, so that neither
// another version nor a corrupted peer can reach an assertion of the core. Fields that are not
// known are skipped. Threads: all.
#pragma once

#include <grpc/slice.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "holdfast/raft.pb.h"
#include "replication/messages.h"

namespace holdfast::server {

// No less than what a message takes in a frame; also what it is charged for in a queue.
size_t MaxEncodedBytes(const raft::Message& message);

// Makes one frame.
class FrameWriter {
 public:
  // `max_bytes`: at least the sum of MaxEncodedBytes of what will be added.
  explicit FrameWriter(size_t max_bytes);
  ~FrameWriter();
  FrameWriter(const FrameWriter&) = delete;
  FrameWriter& operator=(const FrameWriter&) = delete;

  // REQUIRES: message.type is not kSnapshot.
  void Add(const raft::Message& message);
  grpc::ByteBuffer Finish() &&;

 private:
  grpc_slice slice_;
  uint8_t* at_;
};

grpc::ByteBuffer EncodeHello(const raft::v1::Hello& hello);

struct PeerFrame {
  std::optional<raft::v1::Hello> hello;
  std::vector<raft::Message> messages;
};
// InvalidArgument says what is wrong.
absl::StatusOr<PeerFrame> DecodeFrame(grpc::ByteBuffer* bytes);

}  // namespace holdfast::server
