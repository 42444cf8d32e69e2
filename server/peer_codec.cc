#include "server/peer_codec.h"

#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace holdfast::server {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;
using raft::MessageType;
using storage::EntryType;

// Tag and value of every scalar field at its longest, and the frame's own tag and length.
constexpr size_t kMaxScalarBytes = 256;
// The same of one entry without its payload.
constexpr size_t kMaxEntryOverhead = 48;
constexpr size_t kMaxPayloadOverhead = 16;

// Field numbers of raft.proto.
constexpr uint32_t kFrameHello = 1;
constexpr uint32_t kFrameMessages = 2;
constexpr uint32_t kEntryTerm = 1;
constexpr uint32_t kEntryIndex = 2;
constexpr uint32_t kEntryType = 3;
constexpr uint32_t kEntryPayload = 4;
constexpr uint32_t kMessageType = 1;
constexpr uint32_t kMessageFrom = 2;
constexpr uint32_t kMessageTo = 3;
constexpr uint32_t kMessageTerm = 4;
constexpr uint32_t kMessagePrevIndex = 5;
constexpr uint32_t kMessagePrevTerm = 6;
constexpr uint32_t kMessageCommit = 7;
constexpr uint32_t kMessageEntries = 8;
constexpr uint32_t kMessageReject = 9;
constexpr uint32_t kMessageHintIndex = 10;
constexpr uint32_t kMessageHintTerm = 11;
constexpr uint32_t kMessageMatchIndex = 12;
constexpr uint32_t kMessageRound = 13;
constexpr uint32_t kMessageReadId = 14;
constexpr uint32_t kMessageReadIndex = 15;
constexpr uint32_t kMessageNonce = 16;
constexpr uint32_t kMessageBoot = 17;
constexpr uint32_t kMessageUrgent = 18;
constexpr uint32_t kMessagePreVote = 19;
constexpr uint32_t kMessageForced = 20;
constexpr uint32_t kMessagePayloads = 21;
constexpr uint32_t kMessageProposeId = 22;

constexpr uint32_t VarintTag(uint32_t field) { return field << 3; }
constexpr uint32_t BytesTag(uint32_t field) {
  return field << 3 | WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
}

absl::Status Malformed(const std::string& what) {
  return absl::InvalidArgumentError(base::ToAbsl("malformed peer message: " + what));
}

// ---------------------------------------------------------------- encoding

// Counts what Writer writes.
class Counter {
 public:
  size_t bytes() const { return bytes_; }
  void Varint(uint64_t value) { bytes_ += CodedOutputStream::VarintSize64(value); }
  void Tag(uint32_t tag) { bytes_ += CodedOutputStream::VarintSize32(tag); }
  void Bytes(const std::string& bytes) { bytes_ += bytes.size(); }

 private:
  size_t bytes_ = 0;
};

class Writer {
 public:
  explicit Writer(uint8_t* at) : at_(at) {}
  uint8_t* at() const { return at_; }
  void Varint(uint64_t value) { at_ = CodedOutputStream::WriteVarint64ToArray(value, at_); }
  void Tag(uint32_t tag) { at_ = CodedOutputStream::WriteVarint32ToArray(tag, at_); }
  void Bytes(const std::string& bytes) {
    at_ = CodedOutputStream::WriteRawToArray(bytes.data(), static_cast<int>(bytes.size()), at_);
  }

 private:
  uint8_t* at_;
};

// As protobuf does: a field with its default value is left out.
template <class Sink>
void PutScalar(Sink& out, uint32_t field, uint64_t value) {
  if (value == 0) return;
  out.Tag(VarintTag(field));
  out.Varint(value);
}

template <class Sink>
void PutBytes(Sink& out, uint32_t field, const std::string& bytes) {
  out.Tag(BytesTag(field));
  out.Varint(bytes.size());
  out.Bytes(bytes);
}

template <class Sink>
void PutEntry(Sink& out, const storage::Entry& entry) {
  PutScalar(out, kEntryTerm, entry.term.value);
  PutScalar(out, kEntryIndex, entry.index.value);
  PutScalar(out, kEntryType, static_cast<uint32_t>(entry.type));
  if (!entry.payload.empty()) PutBytes(out, kEntryPayload, entry.payload);
}

// In the order of the field numbers, so that the bytes are those that protobuf writes.
template <class Sink>
void PutMessage(Sink& out, const raft::Message& m) {
  PutScalar(out, kMessageType, static_cast<uint32_t>(m.type));
  PutScalar(out, kMessageFrom, m.from.value);
  PutScalar(out, kMessageTo, m.to.value);
  PutScalar(out, kMessageTerm, m.term.value);
  PutScalar(out, kMessagePrevIndex, m.prev_index.value);
  PutScalar(out, kMessagePrevTerm, m.prev_term.value);
  PutScalar(out, kMessageCommit, m.commit.value);
  for (const raft::EntryRef& entry : m.entries) {
    Counter length;
    PutEntry(length, *entry);
    out.Tag(BytesTag(kMessageEntries));
    out.Varint(length.bytes());
    PutEntry(out, *entry);
  }
  PutScalar(out, kMessageReject, m.reject);
  PutScalar(out, kMessageHintIndex, m.hint_index.value);
  PutScalar(out, kMessageHintTerm, m.hint_term.value);
  PutScalar(out, kMessageMatchIndex, m.match_index.value);
  PutScalar(out, kMessageRound, m.round);
  PutScalar(out, kMessageReadId, m.read_id);
  PutScalar(out, kMessageReadIndex, m.read_index.value);
  PutScalar(out, kMessageNonce, m.nonce);
  PutScalar(out, kMessageBoot, m.boot);
  PutScalar(out, kMessageUrgent, m.urgent);
  PutScalar(out, kMessagePreVote, m.pre_vote);
  PutScalar(out, kMessageForced, m.forced);
  for (const std::string& payload : m.payloads) PutBytes(out, kMessagePayloads, payload);
  PutScalar(out, kMessageProposeId, m.propose_id);
}

// ---------------------------------------------------------------- decoding

// What a message says before it is believed.
struct WireMessage {
  uint32_t type = 0;
  raft::Message message;
};

// Each reads one thing and returns false where the bytes are no such thing.
bool Skip(CodedInputStream& in, uint32_t tag) {
  return tag >> 3 != 0 && WireFormatLite::SkipField(&in, tag);
}

bool ReadLength(CodedInputStream& in, int* out) {
  uint64_t length = 0;
  if (!in.ReadVarint64(&length)) return false;
  const int left = in.BytesUntilLimit();
  if (left < 0 || length > static_cast<uint64_t>(left)) return false;
  *out = static_cast<int>(length);
  return true;
}

bool ReadString(CodedInputStream& in, std::string* out) {
  int length = 0;
  return ReadLength(in, &length) && in.ReadString(out, length);
}

bool ReadEntry(CodedInputStream& in, storage::Entry* out, uint32_t* type) {
  while (const uint32_t tag = in.ReadTag()) {
    bool ok = true;
    switch (tag) {
      case VarintTag(kEntryTerm):
        ok = in.ReadVarint64(&out->term.value);
        break;
      case VarintTag(kEntryIndex):
        ok = in.ReadVarint64(&out->index.value);
        break;
      case VarintTag(kEntryType):
        ok = in.ReadVarint32(type);
        break;
      case BytesTag(kEntryPayload):
        ok = ReadString(in, &out->payload);
        break;
      default:  // of a later version
        ok = Skip(in, tag);
    }
    if (!ok) return false;
  }
  return in.ConsumedEntireMessage();
}

bool ReadNestedEntry(CodedInputStream& in, WireMessage* out) {
  auto entry = std::make_shared<storage::Entry>();
  uint32_t type = 0;
  int length = 0;
  if (!ReadLength(in, &length)) return false;
  const auto limit = in.PushLimit(length);
  if (!ReadEntry(in, entry.get(), &type)) return false;
  in.PopLimit(limit);
  // One that is not known is told as the smallest that is not.
  constexpr uint32_t kUnknown = static_cast<uint32_t>(EntryType::kConfig) + 1;
  entry->type = static_cast<EntryType>(std::min(type, kUnknown));
  out->message.entries.push_back(std::move(entry));
  return true;
}

bool ReadFlag(CodedInputStream& in, bool* out) {
  uint64_t value = 0;
  if (!in.ReadVarint64(&value)) return false;
  *out = value != 0;
  return true;
}

uint64_t* ScalarOf(raft::Message& m, uint32_t field) {
  switch (field) {
    case kMessageFrom:
      return &m.from.value;
    case kMessageTo:
      return &m.to.value;
    case kMessageTerm:
      return &m.term.value;
    case kMessagePrevIndex:
      return &m.prev_index.value;
    case kMessagePrevTerm:
      return &m.prev_term.value;
    case kMessageCommit:
      return &m.commit.value;
    case kMessageHintIndex:
      return &m.hint_index.value;
    case kMessageHintTerm:
      return &m.hint_term.value;
    case kMessageMatchIndex:
      return &m.match_index.value;
    case kMessageRound:
      return &m.round;
    case kMessageReadId:
      return &m.read_id;
    case kMessageReadIndex:
      return &m.read_index.value;
    case kMessageNonce:
      return &m.nonce;
    case kMessageBoot:
      return &m.boot;
    case kMessageProposeId:
      return &m.propose_id;
    default:
      return nullptr;
  }
}

bool* FlagOf(raft::Message& m, uint32_t field) {
  switch (field) {
    case kMessageReject:
      return &m.reject;
    case kMessageUrgent:
      return &m.urgent;
    case kMessagePreVote:
      return &m.pre_vote;
    case kMessageForced:
      return &m.forced;
    default:
      return nullptr;
  }
}

bool ReadMessageField(CodedInputStream& in, uint32_t tag, WireMessage* out) {
  if (tag == BytesTag(kMessageEntries)) return ReadNestedEntry(in, out);
  if (tag == BytesTag(kMessagePayloads)) {
    return ReadString(in, &out->message.payloads.emplace_back());
  }
  if (tag == VarintTag(kMessageType)) return in.ReadVarint32(&out->type);
  const uint32_t field = tag >> 3;
  if (tag == VarintTag(field)) {
    if (uint64_t* const scalar = ScalarOf(out->message, field)) return in.ReadVarint64(scalar);
    if (bool* const flag = FlagOf(out->message, field)) return ReadFlag(in, flag);
  }
  return Skip(in, tag);  // of a later version
}

bool ReadNestedMessage(CodedInputStream& in, WireMessage* out) {
  int length = 0;
  if (!ReadLength(in, &length)) return false;
  const auto limit = in.PushLimit(length);
  while (const uint32_t tag = in.ReadTag()) {
    if (!ReadMessageField(in, tag, out)) return false;
  }
  if (!in.ConsumedEntireMessage()) return false;
  in.PopLimit(limit);
  return true;
}

bool ReadHello(CodedInputStream& in, raft::v1::Hello* out) {
  int length = 0;
  if (!ReadLength(in, &length)) return false;
  const auto limit = in.PushLimit(length);
  if (!out->MergeFromCodedStream(&in) || !in.ConsumedEntireMessage()) return false;
  in.PopLimit(limit);
  return true;
}

// kSnapshot is the driver's own word and never comes from a peer.
bool IsWireType(uint32_t type) {
  return type >= static_cast<uint32_t>(MessageType::kAppend) &&
         type <= static_cast<uint32_t>(MessageType::kTimeoutNow);
}

// Raft paper 5.3: entries follow prev_index without a gap, terms never fall, and none is newer
// than the leader that sends it.
absl::Status CheckEntries(const raft::Message& m) {
  Index expected = m.prev_index;
  Term newest = m.prev_term;
  for (const raft::EntryRef& entry : m.entries) {
    ++expected;
    if (entry->type > EntryType::kConfig) {
      return Malformed(fmt::format("entry {} has unknown type {}", entry->index.value,
                                   static_cast<uint32_t>(entry->type)));
    }
    if (entry->index != expected) {
      return Malformed(fmt::format("entry {} where {} is due", entry->index.value, expected.value));
    }
    if (entry->term < newest || entry->term > m.term) {
      return Malformed(fmt::format("entry {} of term {}, outside [{}, {}]", entry->index.value,
                                   entry->term.value, newest.value, m.term.value));
    }
    newest = entry->term;
  }
  return absl::OkStatus();
}

absl::Status Check(WireMessage* in) {
  raft::Message& m = in->message;
  if (!IsWireType(in->type)) return Malformed(fmt::format("unknown type {}", in->type));
  if (!m.from || !m.to) return Malformed("sender or receiver is missing");
  m.type = static_cast<MessageType>(in->type);
  if (!m.entries.empty() && m.type != MessageType::kAppend) {
    return Malformed(fmt::format("type {} carries entries", in->type));
  }
  if (!m.payloads.empty() && m.type != MessageType::kPropose) {
    return Malformed(fmt::format("type {} carries payloads", in->type));
  }
  return CheckEntries(m);
}

}  // namespace

size_t MaxEncodedBytes(const raft::Message& message) {
  size_t bytes = kMaxScalarBytes;
  for (const raft::EntryRef& entry : message.entries) {
    bytes += kMaxEntryOverhead + entry->payload.size();
  }
  for (const std::string& payload : message.payloads) {
    bytes += kMaxPayloadOverhead + payload.size();
  }
  return bytes;
}

FrameWriter::FrameWriter(size_t max_bytes)
    : slice_(grpc_slice_malloc(max_bytes)), at_(GRPC_SLICE_START_PTR(slice_)) {}

FrameWriter::~FrameWriter() { grpc_slice_unref(slice_); }

void FrameWriter::Add(const raft::Message& message) {
  CHECK(message.type != MessageType::kSnapshot);
  Counter length;
  PutMessage(length, message);
  Writer out(at_);
  out.Tag(BytesTag(kFrameMessages));
  out.Varint(length.bytes());
  PutMessage(out, message);
  at_ = out.at();
  CHECK(at_ <= GRPC_SLICE_END_PTR(slice_));
}

grpc::ByteBuffer FrameWriter::Finish() && {
  const auto bytes = static_cast<size_t>(at_ - GRPC_SLICE_START_PTR(slice_));
  const grpc::Slice slice(grpc_slice_sub(slice_, 0, bytes), grpc::Slice::STEAL_REF);
  return grpc::ByteBuffer(&slice, 1);
}

grpc::ByteBuffer EncodeHello(const raft::v1::Hello& hello) {
  raft::v1::Frame frame;
  *frame.mutable_hello() = hello;
  const grpc::Slice slice(frame.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

absl::StatusOr<PeerFrame> DecodeFrame(grpc::ByteBuffer* bytes) {
  grpc::ProtoBufferReader reader(bytes);
  if (!reader.status().ok()) return Malformed("the frame can not be read");
  CodedInputStream in(&reader);
  const auto limit = in.PushLimit(static_cast<int>(bytes->Length()));
  PeerFrame frame;
  while (const uint32_t tag = in.ReadTag()) {
    bool ok = true;
    if (tag == BytesTag(kFrameMessages)) {
      WireMessage wire;
      ok = ReadNestedMessage(in, &wire);
      if (ok) {
        if (absl::Status status = Check(&wire); !status.ok()) return status;
        frame.messages.push_back(std::move(wire.message));
      }
    } else if (tag == BytesTag(kFrameHello)) {
      if (!frame.hello) frame.hello.emplace();
      ok = ReadHello(in, &*frame.hello);
    } else {
      ok = Skip(in, tag);
    }
    if (!ok) return Malformed("not a frame");
  }
  if (!in.ConsumedEntireMessage()) return Malformed("not a frame");
  in.PopLimit(limit);
  return frame;
}

}  // namespace holdfast::server
