#include "server/peer_codec.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace holdfast::server {
namespace {

using raft::MessageType;
using storage::EntryType;

// Tag and value of every scalar field at its longest, and the frame's own tag and length.
constexpr size_t kMaxScalarBytes = 256;
// The same of one entry without its payload.
constexpr size_t kMaxEntryOverhead = 48;
constexpr size_t kMaxPayloadOverhead = 16;

absl::Status Malformed(const std::string& what) {
  return absl::InvalidArgumentError(base::ToAbsl("malformed peer message: " + what));
}

// kSnapshot is the driver's own word and never comes from a peer.
bool IsWireType(uint32_t type) {
  return type >= static_cast<uint32_t>(MessageType::kAppend) &&
         type <= static_cast<uint32_t>(MessageType::kTimeoutNow);
}

// Raft paper 5.3: entries follow prev_index without a gap, terms never fall, and none is newer
// than the leader that sends it.
absl::Status DecodeEntries(raft::v1::Message& in, raft::Message* out) {
  out->entries.reserve(in.entries_size());
  Index expected = out->prev_index;
  Term newest = out->prev_term;
  for (raft::v1::WireEntry& wire : *in.mutable_entries()) {
    ++expected;
    if (wire.type() > static_cast<uint32_t>(EntryType::kConfig)) {
      return Malformed(fmt::format("entry {} has unknown type {}", wire.index(), wire.type()));
    }
    if (wire.index() != expected.value) {
      return Malformed(fmt::format("entry {} where {} is due", wire.index(), expected.value));
    }
    if (wire.term() < newest.value || wire.term() > out->term.value) {
      return Malformed(fmt::format("entry {} of term {}, outside [{}, {}]", wire.index(),
                                   wire.term(), newest.value, out->term.value));
    }
    newest = Term(wire.term());
    auto entry = std::make_shared<storage::Entry>();
    entry->term = newest;
    entry->index = expected;
    entry->type = static_cast<EntryType>(wire.type());
    entry->payload = std::move(*wire.mutable_payload());
    out->entries.push_back(std::move(entry));
  }
  return absl::OkStatus();
}

absl::Status CheckEnvelope(const raft::v1::Message& in) {
  if (!IsWireType(in.type())) return Malformed(fmt::format("unknown type {}", in.type()));
  if (in.from() == 0 || in.to() == 0) return Malformed("sender or receiver is missing");
  const auto type = static_cast<MessageType>(in.type());
  if (in.entries_size() > 0 && type != MessageType::kAppend) {
    return Malformed(fmt::format("type {} carries entries", in.type()));
  }
  if (in.payloads_size() > 0 && type != MessageType::kPropose) {
    return Malformed(fmt::format("type {} carries payloads", in.type()));
  }
  return absl::OkStatus();
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

void EncodeMessage(const raft::Message& message, raft::v1::Message* out) {
  CHECK(message.type != MessageType::kSnapshot);
  out->set_type(static_cast<uint32_t>(message.type));
  out->set_from(message.from.value);
  out->set_to(message.to.value);
  out->set_term(message.term.value);
  out->set_prev_index(message.prev_index.value);
  out->set_prev_term(message.prev_term.value);
  out->set_commit(message.commit.value);
  for (const raft::EntryRef& entry : message.entries) {
    raft::v1::WireEntry* wire = out->add_entries();
    wire->set_term(entry->term.value);
    wire->set_index(entry->index.value);
    wire->set_type(static_cast<uint32_t>(entry->type));
    wire->set_payload(entry->payload);
  }
  out->set_reject(message.reject);
  out->set_hint_index(message.hint_index.value);
  out->set_hint_term(message.hint_term.value);
  out->set_match_index(message.match_index.value);
  out->set_round(message.round);
  out->set_read_id(message.read_id);
  out->set_read_index(message.read_index.value);
  out->set_nonce(message.nonce);
  out->set_boot(message.boot);
  out->set_urgent(message.urgent);
  out->set_pre_vote(message.pre_vote);
  out->set_forced(message.forced);
  out->set_propose_id(message.propose_id);
  for (const std::string& payload : message.payloads) out->add_payloads(payload);
}

absl::StatusOr<raft::Message> DecodeMessage(raft::v1::Message&& in) {
  if (absl::Status status = CheckEnvelope(in); !status.ok()) return status;
  raft::Message out;
  out.type = static_cast<MessageType>(in.type());
  out.from = NodeId(in.from());
  out.to = NodeId(in.to());
  out.term = Term(in.term());
  out.prev_index = Index(in.prev_index());
  out.prev_term = Term(in.prev_term());
  out.commit = Index(in.commit());
  if (absl::Status status = DecodeEntries(in, &out); !status.ok()) return status;
  out.reject = in.reject();
  out.hint_index = Index(in.hint_index());
  out.hint_term = Term(in.hint_term());
  out.match_index = Index(in.match_index());
  out.round = in.round();
  out.read_id = in.read_id();
  out.read_index = Index(in.read_index());
  out.nonce = in.nonce();
  out.boot = in.boot();
  out.urgent = in.urgent();
  out.pre_vote = in.pre_vote();
  out.forced = in.forced();
  out.propose_id = in.propose_id();
  out.payloads.reserve(in.payloads_size());
  for (std::string& payload : *in.mutable_payloads()) out.payloads.push_back(std::move(payload));
  return out;
}

}  // namespace holdfast::server
