// Between the public types and etcd's messages.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "client/call.h"
#include "etcd/rpc.pb.h"
#include "holdfast/txn.h"
#include "holdfast/types.h"

namespace holdfast::internal {

etcdserverpb::RangeRequest ToRequest(const RangeQuery& query);
etcdserverpb::TxnRequest ToRequest(const Txn& txn);
// An encoded RangeRequest of one key, and an encoded PutRequest: the requests that there are many
// of, without a message's detour.
std::string EncodeGet(std::string_view key);
std::string EncodePut(std::string_view key, std::string_view value);

// Moves the bytes out of `response`.
RangeResult FromResponse(etcdserverpb::RangeResponse& response);
Entry ToEntry(mvccpb::KeyValue& kv);
std::vector<OpResult> FromResponse(etcdserverpb::TxnResponse& response);

// What `options` accepts, best first.
std::vector<Rung> RungsOf(const ReadOptions& options);

absl::Status Check(const RangeQuery& query, const ReadOptions& options);
absl::Status Check(const Txn& txn);
absl::Status CheckKey(std::string_view key);

}  // namespace holdfast::internal
