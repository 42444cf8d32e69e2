// The bytes of the batch door (api/holdfast/exchange.proto).
//
// Replies are encoded one by one, as they come, into the message that is sent next: a protobuf
// message is its fields one after another, so what is appended needs no object. The plain get and
// the put, which are nearly all there is, are encoded by hand; the rest through generated code.
// Pure functions; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <grpcpp/support/byte_buffer.h>

#include "google/protobuf/arena.h"
#include "holdfast/exchange.pb.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

// What a reply says of the age of what it tells.
struct ReplyFreshness {
  std::optional<uint64_t> age_ms;  // proven
  v1::ExchangeReply::Source source = v1::ExchangeReply::UNKNOWN;
};

// Null: not such a message. It lives as long as the arena.
v1::ExchangeRequests* ParseExchangeRequests(grpc::ByteBuffer* bytes,
                                            google::protobuf::Arena* arena);

// One RangeResponse: of a plain get. `kv` null: no such key.
void AppendGetResponse(const storage::KeyValueView* kv, int64_t revision, std::string* out);

// One field `replies` of ExchangeReplies.
//   With an encoded RangeResponse.
void AppendRangeReply(uint64_t id, std::string_view response, const ReplyFreshness& fresh,
                      std::string* out);
//   Of a put without prev_kv.
void AppendPutReply(uint64_t id, int64_t revision, std::optional<bool> deduplicated,
                    std::string* out);
void AppendReply(const v1::ExchangeReply& reply, std::string* out);

// One field `parts`.
void AppendPart(uint64_t id, std::string_view bytes, bool last, std::string* out);

}  // namespace holdfast::server
