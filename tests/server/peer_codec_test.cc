#include "server/peer_codec.h"

#include <gtest/gtest.h>

#include <string>

#include "base/rng.h"
#include "base/strings.h"
#include "peer_test_util.h"

namespace holdfast::server::test {
namespace {

using raft::MessageType;
using storage::EntryType;

std::string RandomBytes(base::Rng& rng, size_t max) {
  std::string bytes(rng.Below(max + 1), '\0');
  for (char& c : bytes) c = static_cast<char>(rng.Below(256));
  return bytes;
}

// Every field is filled, whatever the type uses.
raft::Message RandomMessage(base::Rng& rng, MessageType type) {
  raft::Message m;
  m.type = type;
  m.from = NodeId(rng.Next() | 1);
  m.to = NodeId(rng.Next() | 1);
  m.prev_term = Term(rng.Below(1000));
  m.term = Term(m.prev_term.value + rng.Below(1000) + 100);
  m.prev_index = Index(rng.Next() >> 1);
  m.commit = Index(rng.Next());
  m.reject = rng.OneIn(2);
  m.hint_index = Index(rng.Next());
  m.hint_term = Term(rng.Next());
  m.match_index = Index(rng.Next());
  m.round = rng.Next();
  m.read_id = rng.Next();
  m.read_index = Index(rng.Next());
  m.nonce = rng.Next();
  m.boot = rng.Next();
  m.urgent = rng.OneIn(2);
  m.pre_vote = rng.OneIn(2);
  m.forced = rng.OneIn(2);
  m.propose_id = rng.Next();
  if (type == MessageType::kAppend) {
    for (uint64_t i = rng.Below(20), at = 1; at <= i; ++at) {
      auto entry = std::make_shared<storage::Entry>();
      entry->term = m.prev_term + at;
      entry->index = m.prev_index + at;
      entry->type = static_cast<EntryType>(rng.Below(3));
      entry->payload = RandomBytes(rng, 200);
      m.entries.push_back(std::move(entry));
    }
  }
  if (type == MessageType::kPropose) {
    for (uint64_t i = rng.Below(10); i > 0; --i) m.payloads.push_back(RandomBytes(rng, 200));
  }
  return m;
}

void ExpectEqual(const raft::Message& a, const raft::Message& b) {
  EXPECT_EQ(a.type, b.type);
  EXPECT_EQ(a.from, b.from);
  EXPECT_EQ(a.to, b.to);
  EXPECT_EQ(a.term, b.term);
  EXPECT_EQ(a.prev_index, b.prev_index);
  EXPECT_EQ(a.prev_term, b.prev_term);
  EXPECT_EQ(a.commit, b.commit);
  EXPECT_EQ(a.reject, b.reject);
  EXPECT_EQ(a.hint_index, b.hint_index);
  EXPECT_EQ(a.hint_term, b.hint_term);
  EXPECT_EQ(a.match_index, b.match_index);
  EXPECT_EQ(a.round, b.round);
  EXPECT_EQ(a.read_id, b.read_id);
  EXPECT_EQ(a.read_index, b.read_index);
  EXPECT_EQ(a.nonce, b.nonce);
  EXPECT_EQ(a.boot, b.boot);
  EXPECT_EQ(a.urgent, b.urgent);
  EXPECT_EQ(a.pre_vote, b.pre_vote);
  EXPECT_EQ(a.forced, b.forced);
  EXPECT_EQ(a.propose_id, b.propose_id);
  EXPECT_EQ(a.payloads, b.payloads);
  ASSERT_EQ(a.entries.size(), b.entries.size());
  for (size_t i = 0; i < a.entries.size(); ++i) {
    EXPECT_EQ(a.entries[i]->term, b.entries[i]->term);
    EXPECT_EQ(a.entries[i]->index, b.entries[i]->index);
    EXPECT_EQ(a.entries[i]->type, b.entries[i]->type);
    EXPECT_EQ(a.entries[i]->payload, b.entries[i]->payload);
  }
}

std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

// In slices of at most `slice_bytes`, as a network may cut it.
grpc::ByteBuffer BufferOf(const std::string& bytes, size_t slice_bytes = 1 << 20) {
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < bytes.size(); at += slice_bytes) {
    slices.emplace_back(bytes.substr(at, slice_bytes));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

std::string FrameOf(const raft::Message& message) {
  FrameWriter frame(MaxEncodedBytes(message));
  frame.Add(message);
  return BytesOf(std::move(frame).Finish());
}

raft::v1::Message Encoded(const raft::Message& message) {
  raft::v1::Frame frame;
  EXPECT_TRUE(frame.ParseFromString(FrameOf(message)));
  EXPECT_EQ(frame.messages_size(), 1);
  return frame.messages(0);
}

absl::StatusOr<raft::Message> DecodeMessage(raft::v1::Message wire) {
  raft::v1::Frame frame;
  *frame.add_messages() = std::move(wire);
  grpc::ByteBuffer bytes = BufferOf(frame.SerializeAsString());
  absl::StatusOr<PeerFrame> decoded = DecodeFrame(&bytes);
  if (!decoded.ok()) return decoded.status();
  EXPECT_EQ(decoded->messages.size(), 1u);
  return std::move(decoded->messages.at(0));
}

// An append of two entries that decodes, for tests that then spoil one thing.
raft::v1::Message GoodAppend() {
  raft::Message message = Append(1, 2, 10, 5);
  auto second = std::make_shared<storage::Entry>(*message.entries[0]);
  second->index = Index(12);
  message.entries.push_back(std::move(second));
  return Encoded(message);
}

void ExpectRefused(raft::v1::Message wire, std::string_view text) {
  const absl::StatusOr<raft::Message> decoded = DecodeMessage(std::move(wire));
  ASSERT_FALSE(decoded.ok());
  EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(base::Message(decoded.status()).find(text), std::string_view::npos) << decoded.status();
}

TEST(PeerCodec, EveryFieldOfEveryTypeSurvivesTheWire) {
  base::Rng rng(TestSeed());
  for (int type = 1; type <= static_cast<int>(MessageType::kTimeoutNow); ++type) {
    for (int i = 0; i < 50; ++i) {
      const raft::Message message = RandomMessage(rng, static_cast<MessageType>(type));
      const std::string bytes = FrameOf(message);
      EXPECT_LE(bytes.size(), MaxEncodedBytes(message));
      // Another version may use protobuf's own code: it writes the very same bytes.
      raft::v1::Frame proto;
      ASSERT_TRUE(proto.ParseFromString(bytes));
      EXPECT_EQ(proto.SerializeAsString(), bytes);
      grpc::ByteBuffer buffer = BufferOf(bytes, 1 + rng.Below(40));
      absl::StatusOr<PeerFrame> back = DecodeFrame(&buffer);
      ASSERT_TRUE(back.ok()) << back.status();
      ASSERT_EQ(back->messages.size(), 1u);
      EXPECT_FALSE(back->hello.has_value());
      ExpectEqual(message, back->messages[0]);
    }
  }
}

TEST(PeerCodec, UnknownTypesAreRefused) {
  for (const uint32_t type : {0u, 14u, 15u, 255u, 256u + 3u, 0xffffffffu}) {
    raft::v1::Message wire = Encoded(Heartbeat(1, 2, 3));
    wire.set_type(type);
    ExpectRefused(std::move(wire), "unknown type");
  }
  raft::v1::Message wire = GoodAppend();
  wire.mutable_entries(1)->set_type(3);
  ExpectRefused(std::move(wire), "unknown type 3");
}

TEST(PeerCodec, NamelessSendersAndReceiversAreRefused) {
  raft::v1::Message wire = Encoded(Heartbeat(1, 2, 3));
  wire.set_from(0);
  ExpectRefused(std::move(wire), "missing");
  wire = Encoded(Heartbeat(1, 2, 3));
  wire.set_to(0);
  ExpectRefused(std::move(wire), "missing");
}

TEST(PeerCodec, EntriesMustFollowPrevIndexWithoutAGap) {
  ASSERT_TRUE(DecodeMessage(GoodAppend()).ok());
  raft::v1::Message wire = GoodAppend();
  wire.mutable_entries(0)->set_index(12);
  ExpectRefused(std::move(wire), "entry 12 where 11 is due");
  wire = GoodAppend();
  wire.mutable_entries(1)->set_index(11);
  ExpectRefused(std::move(wire), "entry 11 where 12 is due");
}

TEST(PeerCodec, EntryTermsNeverFallNorExceedTheLeaders) {
  raft::v1::Message wire = GoodAppend();
  wire.mutable_entries(1)->set_term(0);
  ExpectRefused(std::move(wire), "outside");
  wire = GoodAppend();
  wire.mutable_entries(1)->set_term(2);
  ExpectRefused(std::move(wire), "outside");
  wire = GoodAppend();
  wire.set_term(5);
  wire.set_prev_term(3);
  ExpectRefused(std::move(wire), "outside");
}

TEST(PeerCodec, OnlyAppendsCarryEntriesAndOnlyProposalsPayloads) {
  raft::v1::Message wire = GoodAppend();
  wire.set_type(static_cast<uint32_t>(MessageType::kHeartbeat));
  ExpectRefused(std::move(wire), "carries entries");
  wire = Encoded(Heartbeat(1, 2, 3));
  wire.add_payloads("x");
  ExpectRefused(std::move(wire), "carries payloads");
}

TEST(PeerCodec, AFrameHoldsManyMessagesAndLargePayloads) {
  base::Rng rng(TestSeed());
  std::vector<raft::Message> messages;
  size_t bytes = 0;
  for (int i = 0; i < 20; ++i) {
    messages.push_back(RandomMessage(rng, static_cast<MessageType>(1 + rng.Below(13))));
  }
  messages.push_back(Append(1, 2, 10, size_t{3} << 20));
  for (const raft::Message& message : messages) bytes += MaxEncodedBytes(message);
  FrameWriter writer(bytes);
  for (const raft::Message& message : messages) writer.Add(message);
  grpc::ByteBuffer buffer = std::move(writer).Finish();
  const absl::StatusOr<PeerFrame> back = DecodeFrame(&buffer);
  ASSERT_TRUE(back.ok()) << back.status();
  ASSERT_EQ(back->messages.size(), messages.size());
  for (size_t i = 0; i < messages.size(); ++i) ExpectEqual(messages[i], back->messages[i]);
}

TEST(PeerCodec, AHelloIsAFrameAndFieldsOfALaterVersionAreSkipped) {
  raft::v1::Hello hello;
  hello.set_protocol(2);
  hello.set_from(7);
  hello.set_disk_id(99);
  grpc::ByteBuffer buffer = EncodeHello(hello);
  // Fields 77 (varint) and 78 (bytes), in the frame itself and in a message.
  const std::string unknown("\xe8\x04\x05\xf2\x04\x02xy", 8);
  std::string with_more = BytesOf(buffer) + unknown;
  const std::string message = Encoded(Heartbeat(1, 2, 3)).SerializeAsString() + unknown;
  with_more += "\x12" + std::string(1, static_cast<char>(message.size())) + message;
  grpc::ByteBuffer bytes = BufferOf(with_more, 3);
  const absl::StatusOr<PeerFrame> back = DecodeFrame(&bytes);
  ASSERT_TRUE(back.ok()) << back.status();
  ASSERT_TRUE(back->hello.has_value());
  EXPECT_EQ(back->hello->SerializeAsString(), hello.SerializeAsString());
  ASSERT_EQ(back->messages.size(), 1u);
  ExpectEqual(back->messages[0], Heartbeat(1, 2, 3));
}

TEST(PeerCodec, CutOffAnywhereItIsRefusedOrAShorterFrame) {
  raft::v1::Frame proto;
  const std::string whole = FrameOf(Append(1, 2, 10, 50));
  for (size_t n = 0; n < whole.size(); ++n) {
    grpc::ByteBuffer bytes = BufferOf(whole.substr(0, n), 7);
    const absl::StatusOr<PeerFrame> cut = DecodeFrame(&bytes);
    EXPECT_EQ(cut.ok(), proto.ParseFromString(whole.substr(0, n))) << n;
    EXPECT_TRUE(!cut.ok() || cut->messages.empty()) << n;
  }
}

// Mutations of real messages reach further into the decoder than noise does. Protobuf's own parser
// is the judge of what they say.
TEST(PeerCodec, DamagedBytesAreReadAsProtobufReadsThem) {
  base::Rng rng(TestSeed());
  int parsed = 0, accepted = 0, lenient = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bytes;
    if (i % 4 == 0) {
      bytes = RandomBytes(rng, 100);
    } else {
      bytes = FrameOf(RandomMessage(rng, static_cast<MessageType>(1 + rng.Below(13))));
      for (uint64_t n = 1 + rng.Below(4); n > 0; --n) {
        bytes[rng.Below(bytes.size())] = static_cast<char>(rng.Below(256));
      }
    }
    raft::v1::Frame proto;
    const bool is_frame = proto.ParseFromString(bytes);
    if (is_frame) ++parsed;
    grpc::ByteBuffer buffer = BufferOf(bytes, 1 + rng.Below(60));
    const absl::StatusOr<PeerFrame> frame = DecodeFrame(&buffer);
    if (!frame.ok()) continue;
    // Ours also takes varints that are longer than they need to be where protobuf's newer parser
    // does not; whatever is taken has passed every check, and means one thing.
    for (const raft::Message& message : frame->messages) {
      const absl::StatusOr<raft::Message> again = DecodeMessage(Encoded(message));
      ASSERT_TRUE(again.ok()) << again.status();
      ExpectEqual(message, *again);
    }
    if (!is_frame) {
      ++lenient;
      continue;
    }
    ++accepted;
    ASSERT_EQ(frame->messages.size(), static_cast<size_t>(proto.messages_size()));
    EXPECT_EQ(frame->hello.has_value(), proto.has_hello());
    for (int at = 0; at < proto.messages_size(); ++at) {
      proto.mutable_messages(at)->DiscardUnknownFields();
      EXPECT_EQ(Encoded(frame->messages[at]).SerializeAsString(),
                proto.messages(at).SerializeAsString());
    }
  }
  EXPECT_GT(parsed, 1000);
  EXPECT_GT(accepted, 100);
  EXPECT_LT(accepted, parsed);
  EXPECT_LT(lenient, accepted / 10);
}

}  // namespace
}  // namespace holdfast::server::test
