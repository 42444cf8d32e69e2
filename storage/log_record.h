// The bytes of a Raft log segment: header, frames, records. Pure functions, no I/O.
//
//   segment   header | frame | frame | ... | stale or zero bytes
//   header    magic 8 | version 4 | crc(magic, version) 4 | log id 8 | segment 8 |
//             end of the previous segment 8 | zero 4 | crc of all before 4            = 48 bytes
//   frame     tag 4 | body length 4 | write number 8 | body crc 4 | header crc 4 |
//             records | zeros up to a multiple of 8                          24 bytes + body
//   record    crc 4 | payload length 4 | type 1 | payload
//
// One frame is one write() and one fdatasync(), thus one LogStore::Append: it counts whole or not
// at all. A record's crc covers everything behind it in the record; the body crc covers the crcs
// of the records (so that every byte is hashed once); the header crc covers the frame's header.
// All integers are big endian, all crcs CRC32C.
//
// Salt: the crcs and the tag of a frame start from crc(log id, segment number). CRC32C is linear,
// so a frame that is valid under one salt never is under another one: what a recycled file still
// holds from its former life cannot pass for a frame. The log id is random, so that a client
// cannot craft a value that looks like a frame either.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "storage/log_store.h"

namespace holdfast::storage {

inline constexpr uint32_t kLogFormatVersion = 1;
inline constexpr size_t kSegmentHeaderBytes = 48;
inline constexpr size_t kFrameHeaderBytes = 24;
inline constexpr size_t kFrameAlignment = 8;
inline constexpr size_t kRecordHeaderBytes = 9;
inline constexpr size_t kEntryFixedBytes = 17;  // term, index, entry type
// Offsets in a segment are 32 bits in the index; a frame beyond this would not be one Raft turn.
inline constexpr uint64_t kFrameBytesMax = uint64_t{1} << 30;

struct SegmentSalt {
  uint32_t tag = 0;   // first word of every frame: makes a scan for frames cheap
  uint32_t seed = 0;  // where every crc starts

  static SegmentSalt For(uint64_t log_id, uint64_t segment);
};

struct SegmentHeader {
  uint64_t log_id = 0;        // random, equal in all segments of a log
  uint64_t segment = 0;       // equals the number in the file's name
  uint64_t previous_end = 0;  // where the frames of the segment before end; 0 in the first
};

std::string EncodeSegmentHeader(const SegmentHeader& header);
// FailedPrecondition: written by another version of the format. DataLoss: not a valid header.
absl::StatusOr<SegmentHeader> DecodeSegmentHeader(std::string_view bytes);

// Stored on disk: never renumber.
enum class RecordType : uint8_t {
  kEntry = 1,      // one entry; an index at or below the last one replaces the suffix from there
  kHardState = 2,  // the whole hard state
  kMark = 3,       // Compact: the mark moved here
  kReset = 4,      // every entry is dropped and the log starts anew behind this mark
  kBase = 5,       // opens a segment: the last index of the log at this moment
};

struct Record {
  RecordType type;
  std::string_view payload;
  uint32_t offset = 0;  // of the record, from the start of its frame
  uint32_t bytes = 0;   // of the whole record
};

// Where a record went: what the index keeps.
struct RecordPlace {
  uint32_t offset = 0;  // from the start of the frame
  uint32_t bytes = 0;
};

// Builds one frame. Finish() ends its life.
class FrameBuilder {
 public:
  // `reserve_bytes`: the frame's size if known, to allocate once.
  FrameBuilder(const SegmentSalt& salt, uint64_t write_number, size_t reserve_bytes = 0);
  RecordPlace AddEntry(const Entry& entry);
  void AddHardState(const HardState& state);
  void AddMark(RecordType type, const LogMark& mark);  // kMark or kReset
  void AddBase(Index last);
  std::string Finish() &&;

 private:
  size_t BeginRecord(RecordType type);
  RecordPlace EndRecord(size_t begin);

  const SegmentSalt salt_;
  const uint64_t write_number_;
  uint32_t body_crc_;
  std::string out_;
};

// Sizes on disk, for the decision to roll before anything is encoded.
constexpr size_t EntryRecordBytes(size_t payload) {
  return kRecordHeaderBytes + kEntryFixedBytes + payload;
}
constexpr size_t MarkRecordBytes(size_t membership) { return kRecordHeaderBytes + 16 + membership; }
inline constexpr size_t kHardStateRecordBytes = kRecordHeaderBytes + 24;
inline constexpr size_t kBaseRecordBytes = kRecordHeaderBytes + 8;
constexpr size_t FrameBytes(size_t body) {
  return (kFrameHeaderBytes + body + kFrameAlignment - 1) / kFrameAlignment * kFrameAlignment;
}

enum class FrameState {
  kNone,        // no frame of this segment begins here
  kTornHeader,  // one began, but its header is damaged
  kTornBody,    // the header holds, the body does not
  kValid,
};

struct Frame {
  FrameState state = FrameState::kNone;
  uint64_t write_number = 0;   // kTornBody, kValid
  uint64_t bytes = 0;          // kTornBody, kValid: header, body and padding
  std::string_view body = {};  // kValid
};

// What stands at the beginning of `bytes`, which reach to the end of the segment.
Frame ParseFrame(const SegmentSalt& salt, std::string_view bytes);

// Walks the records of a valid frame's body.
class RecordCursor {
 public:
  explicit RecordCursor(std::string_view body) : rest_(body) {}
  // Nothing at the end. REQUIRES: the body of a kValid frame.
  std::optional<Record> Next();

 private:
  std::string_view rest_;
  uint32_t offset_ = kFrameHeaderBytes;
};

// Checks the crc of a single record, for reads by place. Nothing when it does not hold.
std::optional<Record> CheckRecord(const SegmentSalt& salt, std::string_view bytes);

// Payload decoders. Nothing when the payload has not the shape of its type.
std::optional<Entry> DecodeEntry(std::string_view payload);
std::optional<HardState> DecodeHardState(std::string_view payload);
std::optional<LogMark> DecodeMark(std::string_view payload);
std::optional<Index> DecodeBase(std::string_view payload);

}  // namespace holdfast::storage
