// Between the wire's messages (api/etcd) and the store's structs. Pure functions; any thread.
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "etcd/kv.pb.h"
#include "etcd/rpc.pb.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

// REQUIRES: a request that CheckRange (kv_validate.h) accepts. `max_bytes` limits the answer.
storage::RangeOptions ToRangeOptions(const etcdserverpb::RangeRequest& request, size_t max_bytes);

// Moves key and value out of `kv`.
void FillKeyValue(storage::KeyValue&& kv, mvccpb::KeyValue* out);

// Everything but the header.
void FillRangeResponse(storage::RangeResult&& result, etcdserverpb::RangeResponse* out);

// What a client is told of a failed read: etcd's texts for revisions; a hint to page for an answer
// beyond `max_bytes`; everything else as the store said it.
absl::Status ReadErrorForClient(const absl::Status& status, size_t max_bytes);

// True if a failed read is an answer to the request (its revision, its size), the same on every
// member; false if this member's disk failed.
bool IsAnswer(const absl::Status& read_error);

// The bytes that count against limits of an answer.
size_t AnswerBytes(const storage::KeyValue& kv);

}  // namespace holdfast::server
