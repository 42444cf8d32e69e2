#include "server/watch_codec.h"

#include <google/protobuf/wire_format_lite.h>

#include <utility>

#include "base/check.h"

namespace holdfast::server {
namespace {

using etcdserverpb::WatchResponse;
using google::protobuf::internal::WireFormatLite;
using mvccpb::Event;
using mvccpb::KeyValue;
using storage::KeyValueView;

constexpr size_t kVarintBytesMax = 10;
// Tags, lengths and numbers of an event beside its key and value.
constexpr size_t kEventOverheadMax = 128;

void AppendVarint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

size_t VarintBytes(uint64_t value) {
  size_t bytes = 1;
  for (; value >= 0x80; value >>= 7) ++bytes;
  return bytes;
}

void AppendTag(std::string& out, int field, WireFormatLite::WireType type) {
  AppendVarint(out, WireFormatLite::MakeTag(field, type));
}

// A field that has its default value is left out, as proto3 does.
void AppendNumber(std::string& out, int field, uint64_t value) {
  if (value == 0) return;
  AppendTag(out, field, WireFormatLite::WIRETYPE_VARINT);
  AppendVarint(out, value);
}

void AppendSigned(std::string& out, int field, int64_t value) {
  AppendNumber(out, field, static_cast<uint64_t>(value));
}

void AppendBytes(std::string& out, int field, std::string_view bytes) {
  AppendTag(out, field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
  AppendVarint(out, bytes.size());
  out.append(bytes);
}

// The key comes first: `key_end` is where it ends.
std::string EncodeKeyValue(const KeyValueView& kv, size_t* key_end) {
  std::string out;
  out.reserve(kv.key.size() + kv.value.size() + kEventOverheadMax);
  AppendBytes(out, KeyValue::kKeyFieldNumber, kv.key);
  *key_end = out.size();
  AppendSigned(out, KeyValue::kCreateRevisionFieldNumber, kv.create_revision);
  AppendSigned(out, KeyValue::kModRevisionFieldNumber, kv.mod_revision);
  AppendSigned(out, KeyValue::kVersionFieldNumber, kv.version);
  if (!kv.value.empty()) AppendBytes(out, KeyValue::kValueFieldNumber, kv.value);
  AppendSigned(out, KeyValue::kLeaseFieldNumber, kv.lease);
  return out;
}

}  // namespace

EncodedEvent::EncodedEvent(const storage::EventView& event, bool with_previous)
    : revision_(event.revision), is_delete_(event.is_delete), knows_previous_(with_previous) {
  size_t key_end = 0;
  const std::string kv = EncodeKeyValue(event.kv, &key_end);
  const size_t type_bytes = is_delete_ ? 2 : 0;
  const size_t inner_bytes = type_bytes + 1 + VarintBytes(kv.size()) + kv.size();
  std::string out;
  out.reserve(inner_bytes + 1 + kVarintBytesMax);
  AppendTag(out, WatchResponse::kEventsFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
  AppendVarint(out, inner_bytes);
  inner_begin_ = out.size();
  if (is_delete_) AppendNumber(out, Event::kTypeFieldNumber, Event::DELETE);
  AppendBytes(out, Event::kKvFieldNumber, kv);
  CHECK(out.size() == inner_begin_ + inner_bytes);
  key_bytes_ = event.kv.key.size();
  key_begin_ = out.size() - kv.size() + key_end - key_bytes_;
  plain_ = std::make_shared<const std::string>(std::move(out));
  if (with_previous && event.previous.has_value()) {
    AppendBytes(previous_, Event::kPrevKvFieldNumber, EncodeKeyValue(*event.previous, &key_end));
  }
}

const SharedBytes& EncodedEvent::with_previous() const {
  CHECK(knows_previous_);
  if (full_ != nullptr) return full_;
  if (previous_.empty()) return full_ = plain_;
  const std::string_view inner = std::string_view(*plain_).substr(inner_begin_);
  std::string out;
  out.reserve(inner.size() + previous_.size() + 1 + kVarintBytesMax);
  AppendTag(out, WatchResponse::kEventsFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
  AppendVarint(out, inner.size() + previous_.size());
  out.append(inner).append(previous_);
  return full_ = std::make_shared<const std::string>(std::move(out));
}

std::string EncodeHead(const ResponseHead& head) {
  using etcdserverpb::ResponseHeader;
  std::string header;
  header.reserve(4 * (1 + kVarintBytesMax));
  AppendNumber(header, ResponseHeader::kClusterIdFieldNumber, head.cluster_id);
  AppendNumber(header, ResponseHeader::kMemberIdFieldNumber, head.member_id);
  AppendSigned(header, ResponseHeader::kRevisionFieldNumber, head.revision);
  AppendNumber(header, ResponseHeader::kRaftTermFieldNumber, head.raft_term);
  std::string out;
  out.reserve(header.size() + 2 + 1 + kVarintBytesMax + 2);
  AppendBytes(out, WatchResponse::kHeaderFieldNumber, header);
  AppendSigned(out, WatchResponse::kWatchIdFieldNumber, head.watch_id);
  AppendNumber(out, WatchResponse::kFragmentFieldNumber, head.fragment ? 1 : 0);
  return out;
}

std::string EncodeControl(const ResponseHead& head, WatchResponse response) {
  etcdserverpb::ResponseHeader* header = response.mutable_header();
  header->set_cluster_id(head.cluster_id);
  header->set_member_id(head.member_id);
  header->set_revision(head.revision);
  header->set_raft_term(head.raft_term);
  response.set_watch_id(head.watch_id);
  return response.SerializeAsString();
}

}  // namespace holdfast::server
