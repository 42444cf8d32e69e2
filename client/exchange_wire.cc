#include "client/exchange_wire.h"

#include <algorithm>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include "base/check.h"

namespace holdfast::internal {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;
using v1::ExchangeReply;
using v1::ExchangeRequest;
using v1::ExchangeRequests;

constexpr WireFormatLite::WireType kVarint = WireFormatLite::WIRETYPE_VARINT;
constexpr WireFormatLite::WireType kFixed64 = WireFormatLite::WIRETYPE_FIXED64;
constexpr WireFormatLite::WireType kBytes = WireFormatLite::WIRETYPE_LENGTH_DELIMITED;

// All fields of these messages have numbers below 16.
constexpr size_t kTagSize = 1;
constexpr size_t kFixed64Size = 8;

constexpr uint8_t Tag(int field, WireFormatLite::WireType type) {
  return static_cast<uint8_t>(WireFormatLite::MakeTag(field, type));
}

size_t VarintSize(uint64_t value) { return CodedOutputStream::VarintSize64(value); }
size_t VarintFieldSize(uint64_t value) { return kTagSize + VarintSize(value); }

uint8_t* WriteVarint(uint8_t tag, uint64_t value, uint8_t* to) {
  *to++ = tag;
  return CodedOutputStream::WriteVarint64ToArray(value, to);
}
uint8_t* WriteFixed64(uint8_t tag, uint64_t value, uint8_t* to) {
  *to++ = tag;
  return CodedOutputStream::WriteLittleEndian64ToArray(value, to);
}

int FieldOf(Method method) {
  switch (method) {
    case Method::kRange:
      return ExchangeRequest::kRangeFieldNumber;
    case Method::kPut:
      return ExchangeRequest::kPutFieldNumber;
    case Method::kDeleteRange:
      return ExchangeRequest::kDeleteRangeFieldNumber;
    case Method::kTxn:
      return ExchangeRequest::kTxnFieldNumber;
    case Method::kSessionOpen:
    case Method::kSessionClose:
      break;
  }
  return 0;
}

// Up, so that the server does not give up before the caller does, and never to 0, its own.
uint64_t ToMs(absl::Duration timeout) {
  return static_cast<uint64_t>(
      std::max<int64_t>(1, absl::ToInt64Milliseconds(absl::Ceil(timeout, absl::Milliseconds(1)))));
}

uint64_t MaxAgeMs(const RpcRequest& request) {
  return static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Milliseconds(*request.max_age)));
}

Source SourceOf(ExchangeReply::Source source) {
  switch (source) {
    case ExchangeReply::LEADER:
      return Source::kLeader;
    case ExchangeReply::FOLLOWER:
      return Source::kFollower;
    default:
      return Source::kUnknown;
  }
}

}  // namespace

bool OnStream(Method method) { return FieldOf(method) != 0; }

RequestItem::RequestItem(uint64_t id, const RpcRequest& request)
    : request_(request), id_(id), timeout_ms_(ToMs(request.timeout)) {
  CHECK(OnStream(request.method));
  message_size_ = VarintFieldSize(id) + kTagSize + VarintSize(request.body.size()) +
                  request.body.size() + VarintFieldSize(timeout_ms_);
  if (request.max_age.has_value()) message_size_ += VarintFieldSize(MaxAgeMs(request));
  if (request.require_leader) message_size_ += kTagSize + 1;
  if (request.stamp.has_value()) {
    stamp_size_ = 2 * (kTagSize + kFixed64Size) + VarintFieldSize(request.stamp->sequence) +
                  VarintFieldSize(request.stamp->lowest_unacknowledged);
    message_size_ += kTagSize + VarintSize(stamp_size_) + stamp_size_;
  }
  size_ = kTagSize + VarintSize(message_size_) + message_size_;
}

void RequestItem::AppendTo(std::string* out) const {
  const size_t begin = out->size();
  out->resize(begin + size_);
  auto* to = reinterpret_cast<uint8_t*>(out->data() + begin);
  to = WriteVarint(Tag(ExchangeRequests::kRequestsFieldNumber, kBytes), message_size_, to);
  to = WriteVarint(Tag(ExchangeRequest::kIdFieldNumber, kVarint), id_, to);
  to = WriteVarint(Tag(FieldOf(request_.method), kBytes), request_.body.size(), to);
  to = std::copy(request_.body.begin(), request_.body.end(), to);
  to = WriteVarint(Tag(ExchangeRequest::kTimeoutMsFieldNumber, kVarint), timeout_ms_, to);
  if (request_.max_age.has_value()) {
    to = WriteVarint(Tag(ExchangeRequest::kMaxAgeMsFieldNumber, kVarint), MaxAgeMs(request_), to);
  }
  if (request_.require_leader) {
    to = WriteVarint(Tag(ExchangeRequest::kRequireLeaderFieldNumber, kVarint), 1, to);
  }
  if (request_.stamp.has_value()) {
    using command::v1::SessionStamp;
    const Stamp& stamp = *request_.stamp;
    to = WriteVarint(Tag(ExchangeRequest::kSessionFieldNumber, kBytes), stamp_size_, to);
    to = WriteFixed64(Tag(SessionStamp::kSessionFieldNumber, kFixed64), stamp.session, to);
    to = WriteVarint(Tag(SessionStamp::kSequenceFieldNumber, kVarint), stamp.sequence, to);
    to = WriteVarint(Tag(SessionStamp::kLowestUnacknowledgedFieldNumber, kVarint),
                     stamp.lowest_unacknowledged, to);
    to = WriteFixed64(Tag(SessionStamp::kDigestFieldNumber, kFixed64), stamp.digest, to);
  }
  CHECK(to == reinterpret_cast<uint8_t*>(out->data() + out->size()));
}

void AppendCancels(const std::vector<uint64_t>& ids, std::string* out) {
  if (ids.empty()) return;
  v1::ExchangeRequests message;
  for (const uint64_t id : ids) message.add_cancel(id);
  message.AppendToString(out);
}

void ToReply(v1::ExchangeReply& from, const v1::ExchangeReplies& message, RpcReply* reply) {
  *reply = RpcReply();
  if (from.code() != 0) {
    // What is no code of gRPC's is not known to be harmless.
    const auto code = from.code() <= grpc::StatusCode::UNAUTHENTICATED
                          ? static_cast<grpc::StatusCode>(from.code())
                          : grpc::StatusCode::UNKNOWN;
    reply->status = grpc::Status(code, from.message());
    if (from.retry_after_ms() != 0) {
      const auto most = static_cast<uint64_t>(absl::ToInt64Milliseconds(kRetryAfterMax));
      reply->retry_after = absl::Milliseconds(std::min(from.retry_after_ms(), most));
    }
  }
  reply->exchange = &from;
  reply->header = &message.header();
  reply->incarnation = message.incarnation();
  reply->age.source = SourceOf(from.source());
  if (from.has_age_ms() && from.age_ms() <= static_cast<uint64_t>(kAgeMsMax)) {
    reply->age.age = absl::Milliseconds(static_cast<int64_t>(from.age_ms()));
  }
  if (from.has_deduplicated()) reply->deduplicated = from.deduplicated();
}

}  // namespace holdfast::internal
