#include "server/exchange_codec.h"

#include <cstddef>

#include <grpcpp/impl/codegen/proto_utils.h>

#include "base/check.h"

namespace holdfast::server {
namespace {

using google::protobuf::Message;
using v1::ExchangePart;
using v1::ExchangeReplies;
using v1::ExchangeReply;

// Wire types (protobuf's encoding).
constexpr uint32_t kVarint = 0;
constexpr uint32_t kBytes = 2;

size_t VarintBytes(uint64_t value) {
  size_t bytes = 1;
  for (; value >= 0x80; value >>= 7) ++bytes;
  return bytes;
}

void PutVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

constexpr uint32_t Tag(int field, uint32_t type) {
  return static_cast<uint32_t>(field) << 3 | type;
}

// A field with its default value is not sent, as generated code has it.
size_t NumberBytes(int field, uint64_t value) {
  return value == 0 ? 0 : VarintBytes(Tag(field, kVarint)) + VarintBytes(value);
}
void PutNumber(int field, uint64_t value, std::string* out) {
  if (value == 0) return;
  PutVarint(Tag(field, kVarint), out);
  PutVarint(value, out);
}

size_t FieldBytes(int field, size_t size) {
  return VarintBytes(Tag(field, kBytes)) + VarintBytes(size) + size;
}
void PutHead(int field, size_t size, std::string* out) {
  PutVarint(Tag(field, kBytes), out);
  PutVarint(size, out);
}
size_t TextBytes(int field, std::string_view text) {
  return text.empty() ? 0 : FieldBytes(field, text.size());
}
void PutText(int field, std::string_view text, std::string* out) {
  if (text.empty()) return;
  PutHead(field, text.size(), out);
  out->append(text);
}

// Of the header, only the revision is told with each reply.
using Header = etcdserverpb::ResponseHeader;
size_t HeaderBytes(int64_t revision) {
  return NumberBytes(Header::kRevisionFieldNumber, static_cast<uint64_t>(revision));
}
void PutHeader(int field, int64_t revision, std::string* out) {
  PutHead(field, HeaderBytes(revision), out);
  PutNumber(Header::kRevisionFieldNumber, static_cast<uint64_t>(revision), out);
}

size_t KvBytes(const storage::KeyValueView& kv) {
  using Kv = mvccpb::KeyValue;
  return TextBytes(Kv::kKeyFieldNumber, kv.key) +
         NumberBytes(Kv::kCreateRevisionFieldNumber, static_cast<uint64_t>(kv.create_revision)) +
         NumberBytes(Kv::kModRevisionFieldNumber, static_cast<uint64_t>(kv.mod_revision)) +
         NumberBytes(Kv::kVersionFieldNumber, static_cast<uint64_t>(kv.version)) +
         TextBytes(Kv::kValueFieldNumber, kv.value) +
         NumberBytes(Kv::kLeaseFieldNumber, static_cast<uint64_t>(kv.lease));
}
void PutKv(const storage::KeyValueView& kv, std::string* out) {
  using Kv = mvccpb::KeyValue;
  PutText(Kv::kKeyFieldNumber, kv.key, out);
  PutNumber(Kv::kCreateRevisionFieldNumber, static_cast<uint64_t>(kv.create_revision), out);
  PutNumber(Kv::kModRevisionFieldNumber, static_cast<uint64_t>(kv.mod_revision), out);
  PutNumber(Kv::kVersionFieldNumber, static_cast<uint64_t>(kv.version), out);
  PutText(Kv::kValueFieldNumber, kv.value, out);
  PutNumber(Kv::kLeaseFieldNumber, static_cast<uint64_t>(kv.lease), out);
}

// An optional field is sent with its default value too.
size_t OptionalBytes(int field, std::optional<uint64_t> value) {
  return value.has_value() ? VarintBytes(Tag(field, kVarint)) + VarintBytes(*value) : 0;
}
void PutOptional(int field, std::optional<uint64_t> value, std::string* out) {
  if (!value.has_value()) return;
  PutVarint(Tag(field, kVarint), out);
  PutVarint(*value, out);
}

}  // namespace

v1::ExchangeRequests* ParseExchangeRequests(grpc::ByteBuffer* bytes,
                                            google::protobuf::Arena* arena) {
  auto* requests = google::protobuf::Arena::CreateMessage<v1::ExchangeRequests>(arena);
  using Traits = grpc::SerializationTraits<v1::ExchangeRequests>;
  return Traits::Deserialize(bytes, requests).ok() ? requests : nullptr;
}

void AppendGetResponse(const storage::KeyValueView* kv, int64_t revision, std::string* out) {
  using Response = etcdserverpb::RangeResponse;
  PutHeader(Response::kHeaderFieldNumber, revision, out);
  if (kv == nullptr) return;
  PutHead(Response::kKvsFieldNumber, KvBytes(*kv), out);
  PutKv(*kv, out);
  PutNumber(Response::kCountFieldNumber, 1, out);
}

void AppendRangeReply(uint64_t id, std::string_view response, const ReplyFreshness& fresh,
                      std::string* out) {
  const auto source = static_cast<uint64_t>(fresh.source);
  PutHead(ExchangeReplies::kRepliesFieldNumber,
          NumberBytes(ExchangeReply::kIdFieldNumber, id) +
              FieldBytes(ExchangeReply::kRangeFieldNumber, response.size()) +
              OptionalBytes(ExchangeReply::kAgeMsFieldNumber, fresh.age_ms) +
              NumberBytes(ExchangeReply::kSourceFieldNumber, source),
          out);
  PutNumber(ExchangeReply::kIdFieldNumber, id, out);
  PutHead(ExchangeReply::kRangeFieldNumber, response.size(), out);
  out->append(response);
  PutOptional(ExchangeReply::kAgeMsFieldNumber, fresh.age_ms, out);
  PutNumber(ExchangeReply::kSourceFieldNumber, source, out);
}

void AppendPutReply(uint64_t id, int64_t revision, std::optional<bool> deduplicated,
                    std::string* out) {
  using Response = etcdserverpb::PutResponse;
  const size_t response = FieldBytes(Response::kHeaderFieldNumber, HeaderBytes(revision));
  PutHead(ExchangeReplies::kRepliesFieldNumber,
          NumberBytes(ExchangeReply::kIdFieldNumber, id) +
              FieldBytes(ExchangeReply::kPutFieldNumber, response) +
              OptionalBytes(ExchangeReply::kDeduplicatedFieldNumber, deduplicated),
          out);
  PutNumber(ExchangeReply::kIdFieldNumber, id, out);
  PutHead(ExchangeReply::kPutFieldNumber, response, out);
  PutHeader(Response::kHeaderFieldNumber, revision, out);
  PutOptional(ExchangeReply::kDeduplicatedFieldNumber, deduplicated, out);
}

void AppendReply(const ExchangeReply& reply, std::string* out) {
  PutHead(ExchangeReplies::kRepliesFieldNumber, reply.ByteSizeLong(), out);
  CHECK(reply.AppendToString(out));
}

void AppendPart(uint64_t id, std::string_view bytes, bool last, std::string* out) {
  PutHead(ExchangeReplies::kPartsFieldNumber,
          NumberBytes(ExchangePart::kIdFieldNumber, id) +
              TextBytes(ExchangePart::kBytesFieldNumber, bytes) +
              NumberBytes(ExchangePart::kLastFieldNumber, last ? 1 : 0),
          out);
  PutNumber(ExchangePart::kIdFieldNumber, id, out);
  PutText(ExchangePart::kBytesFieldNumber, bytes, out);
  PutNumber(ExchangePart::kLastFieldNumber, last ? 1 : 0, out);
}

}  // namespace holdfast::server
