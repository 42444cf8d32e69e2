// raft::Message <-> the wire (api/holdfast/raft.proto).
//
// Decoding is strict: what a correct member never says is an error with a text, so that neither
// another version nor a corrupted peer can reach an assertion of the core. Threads: all.
#pragma once

#include <cstddef>

#include "absl/status/statusor.h"
#include "holdfast/raft.pb.h"
#include "replication/messages.h"

namespace holdfast::server {

// No less than what EncodeMessage makes of it; also what the message is charged for in a queue.
size_t MaxEncodedBytes(const raft::Message& message);

// REQUIRES: message.type is not kSnapshot, and `out` is empty. Payloads are copied once.
void EncodeMessage(const raft::Message& message, raft::v1::Message* out);

// Payloads are moved out of `in`. InvalidArgument says what is wrong.
absl::StatusOr<raft::Message> DecodeMessage(raft::v1::Message&& in);

}  // namespace holdfast::server
