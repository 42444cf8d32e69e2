#include "storage/log_record.h"

#include <fmt/format.h>

#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/strings.h"

namespace holdfast::storage {
namespace {

using base::AppendBigEndian32;
using base::AppendBigEndian64;
using base::ExtendCrc32c;
using base::ReadBigEndian32;
using base::ReadBigEndian64;

constexpr std::string_view kMagic = "HFRAFTLG";

// Offsets in the segment header.
constexpr size_t kVersionAt = 8;
constexpr size_t kPrefixCrcAt = 12;
constexpr size_t kLogIdAt = 16;
constexpr size_t kSegmentAt = 24;
constexpr size_t kPreviousEndAt = 32;
constexpr size_t kHeaderCrcAt = 44;

// Offsets in the frame header.
constexpr size_t kBodyLengthAt = 4;
constexpr size_t kWriteNumberAt = 8;
constexpr size_t kBodyCrcAt = 16;
constexpr size_t kFrameCrcAt = 20;

// Offsets in the record header.
constexpr size_t kRecordLengthAt = 4;
constexpr size_t kRecordTypeAt = 8;

// In place: a record is built for every entry.
template <class Int>
void StoreBigEndian(char* at, Int value) {
  for (size_t i = 0; i < sizeof(Int); ++i) {
    at[i] = static_cast<char>(value >> (8 * (sizeof(Int) - 1 - i)));
  }
}

void PutBigEndian32(std::string& out, size_t at, uint32_t value) {
  StoreBigEndian(out.data() + at, value);
}

// The first record of `bytes` as its length field says, unchecked; nothing when it does not fit.
std::optional<Record> SplitRecord(std::string_view bytes) {
  if (bytes.size() < kRecordHeaderBytes) return std::nullopt;
  const size_t length = ReadBigEndian32(bytes.substr(kRecordLengthAt));
  if (length > bytes.size() - kRecordHeaderBytes) return std::nullopt;
  return Record{.type = static_cast<RecordType>(bytes[kRecordTypeAt]),
                .payload = bytes.substr(kRecordHeaderBytes, length),
                .bytes = static_cast<uint32_t>(kRecordHeaderBytes + length)};
}

}  // namespace

SegmentSalt SegmentSalt::For(uint64_t log_id, uint64_t segment) {
  std::string bytes;
  AppendBigEndian64(bytes, log_id);
  AppendBigEndian64(bytes, segment);
  const uint32_t seed = base::Crc32c(bytes);
  return {.tag = ExtendCrc32c(seed, "frame"), .seed = seed};
}

std::string EncodeSegmentHeader(const SegmentHeader& header) {
  std::string out(kMagic);
  AppendBigEndian32(out, kLogFormatVersion);
  AppendBigEndian32(out, base::Crc32c(out));
  AppendBigEndian64(out, header.log_id);
  AppendBigEndian64(out, header.segment);
  AppendBigEndian64(out, header.previous_end);
  AppendBigEndian32(out, 0);
  AppendBigEndian32(out, base::Crc32c(out));
  CHECK(out.size() == kSegmentHeaderBytes);
  return out;
}

absl::StatusOr<SegmentHeader> DecodeSegmentHeader(std::string_view bytes) {
  // Magic, version and their crc stay where they are in every future version: that is how another
  // version is told from a damaged header.
  if (bytes.size() < kSegmentHeaderBytes || bytes.substr(0, kMagic.size()) != kMagic ||
      base::Crc32c(bytes.substr(0, kPrefixCrcAt)) != ReadBigEndian32(bytes.substr(kPrefixCrcAt))) {
    return absl::DataLossError("the segment header is damaged");
  }
  const uint32_t version = ReadBigEndian32(bytes.substr(kVersionAt));
  if (version != kLogFormatVersion) {
    return absl::FailedPreconditionError(base::ToAbsl(
        fmt::format("raft log format {}, and this program knows format {} only; start the version "
                    "that wrote it",
                    version, kLogFormatVersion)));
  }
  if (base::Crc32c(bytes.substr(0, kHeaderCrcAt)) != ReadBigEndian32(bytes.substr(kHeaderCrcAt))) {
    return absl::DataLossError("the segment header is damaged");
  }
  return SegmentHeader{.log_id = ReadBigEndian64(bytes.substr(kLogIdAt)),
                       .segment = ReadBigEndian64(bytes.substr(kSegmentAt)),
                       .previous_end = ReadBigEndian64(bytes.substr(kPreviousEndAt))};
}

FrameBuilder::FrameBuilder(const SegmentSalt& salt, uint64_t write_number, size_t reserve_bytes)
    : salt_(salt), write_number_(write_number), body_crc_(salt.seed) {
  out_.reserve(reserve_bytes);
  out_.resize(kFrameHeaderBytes);
}

size_t FrameBuilder::BeginRecord(RecordType type) {
  const size_t begin = out_.size();
  out_.resize(begin + kRecordTypeAt);
  out_.push_back(static_cast<char>(type));
  return begin;
}

RecordPlace FrameBuilder::EndRecord(size_t begin) {
  const size_t bytes = out_.size() - begin;
  CHECK(out_.size() <= kFrameBytesMax);
  PutBigEndian32(out_, begin + kRecordLengthAt, static_cast<uint32_t>(bytes - kRecordHeaderBytes));
  const std::string_view record = std::string_view(out_).substr(begin);
  PutBigEndian32(out_, begin, ExtendCrc32c(salt_.seed, record.substr(kRecordLengthAt)));
  body_crc_ = ExtendCrc32c(body_crc_, record.substr(0, kRecordLengthAt));
  return {.offset = static_cast<uint32_t>(begin), .bytes = static_cast<uint32_t>(bytes)};
}

RecordPlace FrameBuilder::AddEntry(const Entry& entry) {
  const size_t begin = out_.size();
  char head[kRecordHeaderBytes + kEntryFixedBytes] = {};
  head[kRecordTypeAt] = static_cast<char>(RecordType::kEntry);
  StoreBigEndian(head + kRecordHeaderBytes, entry.term.value);
  StoreBigEndian(head + kRecordHeaderBytes + 8, entry.index.value);
  head[kRecordHeaderBytes + 16] = static_cast<char>(entry.type);
  out_.append(head, sizeof(head));
  out_.append(entry.payload);
  return EndRecord(begin);
}

void FrameBuilder::AddHardState(const HardState& state) {
  const size_t begin = BeginRecord(RecordType::kHardState);
  AppendBigEndian64(out_, state.term.value);
  AppendBigEndian64(out_, state.vote.value);
  AppendBigEndian64(out_, state.commit.value);
  EndRecord(begin);
}

void FrameBuilder::AddMark(RecordType type, const LogMark& mark) {
  CHECK(type == RecordType::kMark || type == RecordType::kReset);
  const size_t begin = BeginRecord(type);
  AppendBigEndian64(out_, mark.index.value);
  AppendBigEndian64(out_, mark.term.value);
  out_.append(mark.membership);
  EndRecord(begin);
}

void FrameBuilder::AddBase(Index last) {
  const size_t begin = BeginRecord(RecordType::kBase);
  AppendBigEndian64(out_, last.value);
  EndRecord(begin);
}

std::string FrameBuilder::Finish() && {
  std::string header;
  header.reserve(kFrameHeaderBytes);
  AppendBigEndian32(header, salt_.tag);
  AppendBigEndian32(header, static_cast<uint32_t>(out_.size() - kFrameHeaderBytes));
  AppendBigEndian64(header, write_number_);
  AppendBigEndian32(header, body_crc_);
  AppendBigEndian32(header, ExtendCrc32c(salt_.seed, header));
  CHECK(header.size() == kFrameHeaderBytes);
  out_.replace(0, kFrameHeaderBytes, header);
  out_.resize(FrameBytes(out_.size() - kFrameHeaderBytes));
  return std::move(out_);
}

Frame ParseFrame(const SegmentSalt& salt, std::string_view bytes) {
  if (bytes.size() < kFrameHeaderBytes || ReadBigEndian32(bytes) != salt.tag) return {};
  if (ExtendCrc32c(salt.seed, bytes.substr(0, kFrameCrcAt)) !=
      ReadBigEndian32(bytes.substr(kFrameCrcAt))) {
    return {.state = FrameState::kTornHeader};
  }
  const uint64_t body_length = ReadBigEndian32(bytes.substr(kBodyLengthAt));
  Frame frame = {.state = FrameState::kTornBody,
                 .write_number = ReadBigEndian64(bytes.substr(kWriteNumberAt)),
                 .bytes = FrameBytes(body_length)};
  if (frame.bytes > bytes.size()) return frame;
  const std::string_view body = bytes.substr(kFrameHeaderBytes, body_length);
  uint32_t body_crc = salt.seed;
  for (std::string_view rest = body; !rest.empty();) {
    const std::optional<Record> record = CheckRecord(salt, rest);
    if (!record.has_value()) return frame;
    body_crc = ExtendCrc32c(body_crc, rest.substr(0, kRecordLengthAt));
    rest.remove_prefix(record->bytes);
  }
  if (body_crc != ReadBigEndian32(bytes.substr(kBodyCrcAt))) return frame;
  frame.state = FrameState::kValid;
  frame.body = body;
  return frame;
}

std::optional<Record> RecordCursor::Next() {
  if (rest_.empty()) return std::nullopt;
  std::optional<Record> record = SplitRecord(rest_);
  CHECK(record.has_value());
  record->offset = offset_;
  offset_ += record->bytes;
  rest_.remove_prefix(record->bytes);
  return record;
}

std::optional<Record> CheckRecord(const SegmentSalt& salt, std::string_view bytes) {
  const std::optional<Record> record = SplitRecord(bytes);
  if (!record.has_value()) return std::nullopt;
  const std::string_view covered = bytes.substr(kRecordLengthAt, record->bytes - kRecordLengthAt);
  if (ExtendCrc32c(salt.seed, covered) != ReadBigEndian32(bytes)) return std::nullopt;
  return record;
}

std::optional<Entry> DecodeEntry(std::string_view payload) {
  if (payload.size() < kEntryFixedBytes) return std::nullopt;
  const auto type = static_cast<uint8_t>(payload[16]);
  if (type > static_cast<uint8_t>(EntryType::kConfig)) return std::nullopt;
  return Entry{.term = Term(ReadBigEndian64(payload)),
               .index = Index(ReadBigEndian64(payload.substr(8))),
               .type = static_cast<EntryType>(type),
               .payload = std::string(payload.substr(kEntryFixedBytes))};
}

std::optional<HardState> DecodeHardState(std::string_view payload) {
  if (payload.size() != 24) return std::nullopt;
  return HardState{.term = Term(ReadBigEndian64(payload)),
                   .vote = NodeId(ReadBigEndian64(payload.substr(8))),
                   .commit = Index(ReadBigEndian64(payload.substr(16)))};
}

std::optional<LogMark> DecodeMark(std::string_view payload) {
  if (payload.size() < 16) return std::nullopt;
  return LogMark{.index = Index(ReadBigEndian64(payload)),
                 .term = Term(ReadBigEndian64(payload.substr(8))),
                 .membership = std::string(payload.substr(16))};
}

std::optional<Index> DecodeBase(std::string_view payload) {
  if (payload.size() != 8) return std::nullopt;
  return Index(ReadBigEndian64(payload));
}

}  // namespace holdfast::storage
