// The bytes of frames and headers.
#include "storage/log_record.h"

#include <gtest/gtest.h>

#include "base/crc32c.h"
#include "base/rng.h"
#include "base/strings.h"
#include "tests/storage_log/log_model.h"

namespace holdfast::storage {
namespace {

std::string FrameOfEverything(const SegmentSalt& salt, uint64_t number) {
  FrameBuilder builder(salt, number);
  builder.AddEntry(*MakeEntry(5, 2, "payload"));
  builder.AddHardState({.term = Term(2), .vote = NodeId(1), .commit = Index(4)});
  builder.AddMark(RecordType::kMark, {.index = Index(3), .term = Term(1), .membership = "m"});
  builder.AddMark(RecordType::kReset, {.index = Index(9), .term = Term(2), .membership = ""});
  builder.AddBase(Index(77));
  return std::move(builder).Finish();
}

TEST(LogRecord, AFrameComesBackRecordByRecord) {
  const SegmentSalt salt = SegmentSalt::For(1, 2);
  const std::string bytes = FrameOfEverything(salt, 42);
  EXPECT_EQ(bytes.size() % kFrameAlignment, 0u);
  const std::string segment = bytes + "whatever follows";
  const Frame frame = ParseFrame(salt, segment);
  ASSERT_EQ(frame.state, FrameState::kValid);
  EXPECT_EQ(frame.write_number, 42u);
  EXPECT_EQ(frame.bytes, bytes.size());

  RecordCursor cursor(frame.body);
  const auto entry = cursor.Next();
  ASSERT_EQ(entry->type, RecordType::kEntry);
  EXPECT_EQ(DecodeEntry(entry->payload)->payload, "payload");
  EXPECT_TRUE(CheckRecord(salt, bytes.substr(entry->offset, entry->bytes)).has_value());
  EXPECT_EQ(DecodeHardState(cursor.Next()->payload)->commit, Index(4));
  EXPECT_EQ(DecodeMark(cursor.Next()->payload)->membership, "m");
  EXPECT_EQ(DecodeMark(cursor.Next()->payload)->index, Index(9));
  EXPECT_EQ(DecodeBase(cursor.Next()->payload), Index(77));
  EXPECT_FALSE(cursor.Next().has_value());
}

TEST(LogRecord, SizesAreKnownBeforehand) {
  const SegmentSalt salt = SegmentSalt::For(1, 2);
  const size_t body = EntryRecordBytes(7) + kHardStateRecordBytes + MarkRecordBytes(1) +
                      MarkRecordBytes(0) + kBaseRecordBytes;
  EXPECT_EQ(FrameOfEverything(salt, 1).size(), FrameBytes(body));
  EXPECT_EQ(FrameBuilder(salt, 1).AddEntry(*MakeEntry(1, 1, "")).bytes, EntryRecordBytes(0));
}

TEST(LogRecord, EveryFlippedBitOfAFrameIsNoticed) {
  const SegmentSalt salt = SegmentSalt::For(1, 2);
  const std::string good = FrameOfEverything(salt, 42);
  const size_t body = ParseFrame(salt, good).body.size();
  for (size_t bit = 0; bit < (kFrameHeaderBytes + body) * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_NE(ParseFrame(salt, bad).state, FrameState::kValid) << bit;
  }
}

TEST(LogRecord, AFrameMixedFromTwoWritesIsNoticed) {
  // The same shape twice, in the same segment: each record's own crc holds wherever it is.
  const SegmentSalt salt = SegmentSalt::For(1, 2);
  const auto frame_of = [&](uint64_t number, char filling) {
    FrameBuilder builder(salt, number);
    builder.AddEntry(*MakeEntry(1, 1, std::string(100, filling)));
    builder.AddEntry(*MakeEntry(2, 1, std::string(100, filling)));
    return std::move(builder).Finish();
  };
  const std::string older = frame_of(6, 'a');
  std::string newer = frame_of(7, 'b');
  ASSERT_EQ(ParseFrame(salt, newer).state, FrameState::kValid);
  const size_t second = kFrameHeaderBytes + EntryRecordBytes(100);
  newer.replace(second, EntryRecordBytes(100), older, second, EntryRecordBytes(100));
  EXPECT_EQ(ParseFrame(salt, newer).state, FrameState::kTornBody);
}

TEST(LogRecord, EveryShorterFrameIsNoticed) {
  const SegmentSalt salt = SegmentSalt::For(1, 2);
  const std::string good = FrameOfEverything(salt, 42);
  for (size_t n = 0; n < good.size(); ++n) {
    EXPECT_NE(ParseFrame(salt, std::string_view(good).substr(0, n)).state, FrameState::kValid);
  }
}

TEST(LogRecord, AFrameOfAnotherSegmentOrAnotherLogIsNone) {
  const std::string frame = FrameOfEverything(SegmentSalt::For(1, 2), 42);
  for (uint64_t segment = 3; segment < 2000; ++segment) {
    ASSERT_NE(ParseFrame(SegmentSalt::For(1, segment), frame).state, FrameState::kValid);
  }
  EXPECT_NE(ParseFrame(SegmentSalt::For(2, 2), frame).state, FrameState::kValid);
}

TEST(LogRecord, RandomBytesAreNeverAFrameAndNeverCrash) {
  base::Rng rng(11);
  const SegmentSalt salt = SegmentSalt::For(1, 2);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes;
    base::AppendBigEndian32(bytes, salt.tag);
    for (uint64_t n = rng.Below(60); n > 0; --n) bytes.push_back(static_cast<char>(rng.Below(256)));
    ASSERT_NE(ParseFrame(salt, bytes).state, FrameState::kValid);
  }
}

TEST(LogRecord, PayloadsOfTheWrongShapeAreRefused) {
  EXPECT_FALSE(DecodeEntry(std::string(kEntryFixedBytes - 1, '\0')).has_value());
  EXPECT_FALSE(DecodeEntry(std::string(16, '\0') + "\x03").has_value());  // no such entry type
  EXPECT_FALSE(DecodeHardState(std::string(23, '\0')).has_value());
  EXPECT_FALSE(DecodeHardState(std::string(25, '\0')).has_value());
  EXPECT_FALSE(DecodeMark(std::string(15, '\0')).has_value());
  EXPECT_FALSE(DecodeBase(std::string(9, '\0')).has_value());
}

TEST(SegmentHeader, ComesBack) {
  const auto header =
      DecodeSegmentHeader(EncodeSegmentHeader({.log_id = 5, .segment = 6, .previous_end = 7}));
  ASSERT_TRUE(header.ok());
  EXPECT_EQ(header->log_id, 5u);
  EXPECT_EQ(header->segment, 6u);
  EXPECT_EQ(header->previous_end, 7u);
}

TEST(SegmentHeader, EveryFlippedBitIsDataLossAndNeverAnotherVersion) {
  const std::string good = EncodeSegmentHeader({.log_id = 5, .segment = 6, .previous_end = 7});
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_TRUE(absl::IsDataLoss(DecodeSegmentHeader(bad).status())) << bit;
  }
}

}  // namespace
}  // namespace holdfast::storage
