#include "storage/log_recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "base/strings.h"
#include "storage/damage.h"
#include "storage/log_record.h"

namespace holdfast::storage {
namespace {

constexpr std::string_view kWhatToDo =
    "the log was left as it is. A member must not vote or acknowledge with such a log: it is to be "
    "replaced by a new one that copies the others' data (docs/recovery.md)";
// How finely an unreadable file is searched for the place: a sector of today's disks.
constexpr size_t kProbeBytes = 4096;

// The state that the frames add up to, so far.
class Replay {
 public:
  // False: a record makes no sense after those before it.
  bool ApplyFrame(const Segment& segment, uint64_t frame_offset, std::string_view body) {
    RecordCursor cursor(body);
    while (const std::optional<Record> record = cursor.Next()) {
      const LogSlot slot = {.segment = segment.number,
                            .offset = static_cast<uint32_t>(frame_offset + record->offset),
                            .bytes = record->bytes};
      if (!ApplyRecord(*record, slot)) return false;
    }
    return true;
  }

  // Hands the result over. REQUIRES: no further call.
  void MoveTo(LogRecovery& out) {
    out.log.hard_state = hard_state_;
    out.log.mark = std::move(mark_);
    out.log.last = index_.last();
    out.log.term_runs = index_.RunsFrom(out.log.mark.index + 1);
    for (auto& [index, entry] : configs_) out.log.config_entries.push_back(std::move(entry));
    out.index = std::move(index_);
  }

  bool HasAllEntriesBehindMark() const { return index_.first() <= mark_.index + 1; }
  bool has_hard_state() const { return has_hard_state_; }
  bool has_base() const { return has_base_; }
  Index first() const { return index_.first(); }
  Index last() const { return index_.last(); }
  Index mark_index() const { return mark_.index; }

 private:
  bool ApplyRecord(const Record& record, LogSlot slot) {
    switch (record.type) {
      case RecordType::kEntry:
        return ApplyEntry(record.payload, slot);
      case RecordType::kHardState: {
        const std::optional<HardState> state = DecodeHardState(record.payload);
        if (!state.has_value() || state->term < hard_state_.term) return false;
        hard_state_ = *state;
        has_hard_state_ = true;
        return true;
      }
      case RecordType::kMark:
        return ApplyMark(DecodeMark(record.payload));
      case RecordType::kReset:
        return ApplyReset(DecodeMark(record.payload));
      case RecordType::kBase:
        return ApplyBase(DecodeBase(record.payload));
    }
    return false;
  }

  bool ApplyEntry(std::string_view payload, LogSlot slot) {
    std::optional<Entry> entry = DecodeEntry(payload);
    if (!has_base_ || !entry.has_value()) return false;
    const Index index = entry->index;
    if (index <= mark_.index || index > index_.last() + 1) return false;
    if (index > index_.first() && index_.TermAt(index - 1) > entry->term) return false;
    index_.Append(index, entry->term, slot);
    configs_.erase(configs_.lower_bound(index), configs_.end());
    if (entry->type == EntryType::kConfig) {
      configs_.emplace(index, std::make_shared<const Entry>(*std::move(entry)));
    }
    return true;
  }

  bool ApplyMark(std::optional<LogMark> mark) {
    // The first mark opens the oldest segment; the base that follows it sets the index.
    if (!mark.has_value() || mark->index < mark_.index) return false;
    if (has_base_ && mark->index > index_.last()) return false;
    mark_ = *std::move(mark);
    configs_.erase(configs_.begin(), configs_.upper_bound(mark_.index));
    return true;
  }

  bool ApplyReset(std::optional<LogMark> mark) {
    if (!has_base_ || !mark.has_value()) return false;
    mark_ = *std::move(mark);
    index_.Reset(mark_.index + 1);
    configs_.clear();
    return true;
  }

  bool ApplyBase(std::optional<Index> last) {
    if (!last.has_value() || *last < mark_.index) return false;
    if (has_base_) return *last == index_.last();
    has_base_ = true;
    index_.Reset(*last + 1);
    return true;
  }

  HardState hard_state_;
  bool has_hard_state_ = false;
  LogMark mark_;
  LogIndex index_;
  std::map<Index, EntryRef> configs_;  // kConfig entries above the mark
  bool has_base_ = false;              // of the oldest segment: before it the index means nothing
};

// Where in `bytes` a whole frame with a number above `write_number` begins.
std::optional<size_t> LaterFrameIn(const SegmentSalt& salt, std::string_view bytes,
                                   uint64_t write_number) {
  for (size_t at = 0; at + kFrameHeaderBytes <= bytes.size(); at += kFrameAlignment) {
    const Frame frame = ParseFrame(salt, bytes.substr(at));
    if (frame.state == FrameState::kValid && frame.write_number > write_number) return at;
  }
  return std::nullopt;
}

// The first entry that a frame holds; 0: none.
Index FirstEntryIn(std::string_view body) {
  RecordCursor cursor(body);
  while (const std::optional<Record> record = cursor.Next()) {
    if (record->type != RecordType::kEntry) continue;
    const std::optional<Entry> entry = DecodeEntry(record->payload);
    return entry.has_value() ? entry->index : Index(0);
  }
  return Index(0);
}

// Where a file that as a whole cannot be read begins and ends to be unreadable.
struct ByteRange {
  uint64_t first = 0;
  uint64_t last = 0;
};
ByteRange UnreadableIn(const File& file, uint64_t size) {
  std::optional<ByteRange> range;
  for (uint64_t at = 0; at < size; at += kProbeBytes) {
    if (file.ReadAt(at, kProbeBytes).ok()) continue;
    if (!range.has_value()) range = ByteRange{.first = at};
    range->last = std::min(at + kProbeBytes, size) - 1;
  }
  // A disk that reads at the second try has lost this range all the same: nobody knows what it
  // gave.
  return range.value_or(ByteRange{.first = 0, .last = size == 0 ? 0 : size - 1});
}

// Entries that damage takes along; first 0: not known. last 0: all from `first` on.
struct IndexRange {
  Index first = Index(0);
  Index last = Index(0);
};

class Recovery {
 public:
  Recovery(const std::string& dir, const SegmentDir::Found& found) : dir_(dir), found_(found) {}

  absl::StatusOr<LogRecovery> Run() && {
    if (found_.segments.empty()) return RunEmpty();
    if (absl::Status s = ReadHeaders(); !s.ok()) return s;
    for (size_t i = 0; i < found_.segments.size(); ++i) {
      if (absl::Status s = ReplaySegment(i); !s.ok()) return s;
    }
    if (!replay_.has_hard_state()) {
      return Damaged(RecoveryRow::kNoHardState, found_.segments.front().path, {},
                     "the log holds no term and no vote");
    }
    if (!replay_.HasAllEntriesBehindMark()) {
      const IndexRange lost = {.first = replay_.mark_index() + 1,
                               .last = Index(replay_.first().value - 1)};
      return Damaged(RecoveryRow::kMissingEntries, dir_, {}, "the segments before the first one",
                     lost);
    }
    replay_.MoveTo(out_);
    return std::move(out_);
  }

 private:
  absl::Status Damaged(RecoveryRow row, const std::string& path, ByteRange bytes,
                       std::string_view what, IndexRange lost = {}) const {
    if (lost.last < lost.first) lost.last = Index(0);
    return DamageError({.part = Damage::Part::kLog,
                        .file = path,
                        .first_byte = bytes.first,
                        .last_byte = bytes.last,
                        .first_index = lost.first,
                        .last_index = lost.last,
                        .what = fmt::format("{} [{}]", what, RecoveryRowName(row))},
                       kWhatToDo);
  }

  absl::StatusOr<LogRecovery> RunEmpty() {
    if (found_.spares == 0) return std::move(out_);
    return Damaged(RecoveryRow::kNoSegments, dir_, {}, "every segment is missing",
                   {.first = Index(1)});
  }

  absl::Status ReadHeaders() {
    const uint32_t first = found_.segments.front().number;
    for (size_t i = 0; i < found_.segments.size(); ++i) {
      const Segment& segment = found_.segments[i];
      if (segment.number != first + i) {
        return Damaged(RecoveryRow::kMissingSegment, dir_, {},
                       fmt::format("segment {} is missing", first + i), LostFrom(i, i));
      }
      const absl::StatusOr<std::string> bytes = segment.file->ReadAt(0, kSegmentHeaderBytes);
      if (!bytes.ok()) return Unreadable(i, bytes.status());
      if (absl::Status s = CheckHeader(i, DecodeSegmentHeader(*bytes)); !s.ok()) return s;
    }
    out_.log_id = headers_.front().log_id;
    return absl::OkStatus();
  }

  absl::Status CheckHeader(size_t i, const absl::StatusOr<SegmentHeader>& header) {
    const Segment& segment = found_.segments[i];
    constexpr ByteRange kHeader = {.first = 0, .last = kSegmentHeaderBytes - 1};
    if (absl::IsFailedPrecondition(header.status())) {
      return absl::FailedPreconditionError(base::ToAbsl(
          fmt::format("raft log {}: {} [{}]", segment.path, base::Message(header.status()),
                      RecoveryRowName(RecoveryRow::kOtherVersion))));
    }
    if (!header.ok()) {
      return Damaged(RecoveryRow::kBadHeader, segment.path, kHeader, base::Message(header.status()),
                     LostFrom(i, i + 1));
    }
    if (i > 0 && header->previous_end <= kSegmentHeaderBytes) {
      return Damaged(RecoveryRow::kBadHeader, segment.path, kHeader,
                     "the segment header names an impossible end of the segment before",
                     LostFrom(i, i + 1));
    }
    if (header->segment != segment.number || (i > 0 && header->log_id != headers_.front().log_id)) {
      return Damaged(RecoveryRow::kForeignSegment, segment.path, WholeOf(segment),
                     "this file is not the segment that its name says", LostFrom(i, i + 1));
    }
    headers_.push_back(*header);
    return absl::OkStatus();
  }

  absl::Status ReplaySegment(size_t i) {
    const Segment& segment = found_.segments[i];
    const bool last = i + 1 == found_.segments.size();
    absl::StatusOr<std::string> bytes = ReadFrames(i);
    if (!bytes.ok()) return Unreadable(i, bytes.status());
    const SegmentSalt salt = SegmentSalt::For(out_.log_id, segment.number);
    uint64_t offset = kSegmentHeaderBytes;
    Frame frame = ParseFrame(salt, std::string_view(*bytes).substr(offset));
    // Where the oldest segment's numbers begin is for its first frame to say.
    if (i == 0 && frame.state == FrameState::kValid) out_.next_write_number = frame.write_number;
    while (IsNext(frame)) {
      const Index before = replay_.last();
      if (!replay_.ApplyFrame(segment, offset, frame.body)) {
        return Damaged(RecoveryRow::kBadRecord, segment.path,
                       {.first = offset, .last = offset + frame.bytes - 1},
                       "the checksums hold but a record makes no sense", {.first = before + 1});
      }
      out_.last_frame_offset = offset;
      offset += frame.bytes;
      ++out_.next_write_number;
      frame = ParseFrame(salt, std::string_view(*bytes).substr(offset));
    }
    const IndexRange lost = {.first = replay_.has_base() ? replay_.last() + 1 : Index(0),
                             .last = BaseOf(i + 1)};
    const ByteRange damaged = RangeOf(frame, offset, bytes->size());
    if (offset == kSegmentHeaderBytes) {
      return Damaged(RecoveryRow::kBadOpening, segment.path, damaged,
                     "the segment's first frame is damaged", lost);
    }
    if (last) return DecideTail(segment, salt, *bytes, offset, frame);
    if (offset != headers_[i + 1].previous_end) {
      return Damaged(RecoveryRow::kBadOlderSegment, segment.path, damaged,
                     "an acknowledged write is damaged", lost);
    }
    return absl::OkStatus();
  }

  // Of segment i, as far as frames may lie in it. REQUIRES: headers_ has the next segment's.
  absl::StatusOr<std::string> ReadFrames(size_t i) const {
    const Segment& segment = found_.segments[i];
    absl::StatusOr<std::string> bytes = segment.file->ReadAt(0, segment.size_bytes);
    // Behind the end that the next segment's header gives lies nothing but stale bytes.
    if (bytes.ok() && i + 1 < headers_.size() && headers_[i + 1].previous_end < bytes->size()) {
      bytes->resize(headers_[i + 1].previous_end);
    }
    return bytes;
  }

  absl::Status Unreadable(size_t i, const absl::Status& error) const {
    const Segment& segment = found_.segments[i];
    return Damaged(
        RecoveryRow::kUnreadable, segment.path, UnreadableIn(*segment.file, segment.size_bytes),
        fmt::format("the disk does not give these bytes back ({})", base::Message(error)),
        LostFrom(i, i + 1));
  }

  static ByteRange WholeOf(const Segment& segment) {
    return {.first = 0, .last = segment.size_bytes == 0 ? 0 : segment.size_bytes - 1};
  }

  // From `offset` on, to the end of the frame if that is known, else to that of the bytes.
  static ByteRange RangeOf(const Frame& frame, uint64_t offset, uint64_t size) {
    const bool length_known = frame.state == FrameState::kTornBody;
    const uint64_t end = length_known ? std::min(offset + frame.bytes, size) : size;
    return {.first = offset, .last = std::max(end, offset + 1) - 1};
  }

  // For error texts. What goes with damage that begins behind segment `begin` - 1 and ends before
  // segment `end`, as far as the whole segments around it can tell.
  IndexRange LostFrom(size_t begin, size_t end) const {
    Replay before;
    for (size_t i = 0; i < std::min(begin, headers_.size()); ++i) {
      const absl::StatusOr<std::string> bytes = ReadFrames(i);
      if (!bytes.ok()) return {};
      const SegmentSalt salt = SegmentSalt::For(headers_.front().log_id, found_.segments[i].number);
      uint64_t offset = kSegmentHeaderBytes;
      Frame frame = ParseFrame(salt, std::string_view(*bytes).substr(offset));
      while (frame.state == FrameState::kValid) {
        if (!before.ApplyFrame(found_.segments[i], offset, frame.body)) return {};
        offset += frame.bytes;
        frame = ParseFrame(salt, std::string_view(*bytes).substr(offset));
      }
    }
    if (!before.has_base()) return {};
    return {.first = before.last() + 1, .last = BaseOf(end)};
  }

  // The last index of the log when segment i began; 0: there is no such segment, or it cannot tell.
  Index BaseOf(size_t i) const {
    if (i >= found_.segments.size() || headers_.empty()) return Index(0);
    const Segment& segment = found_.segments[i];
    const absl::StatusOr<std::string> bytes = segment.file->ReadAt(0, segment.size_bytes);
    if (!bytes.ok() || bytes->size() < kSegmentHeaderBytes) return Index(0);
    const Frame frame = ParseFrame(SegmentSalt::For(headers_.front().log_id, segment.number),
                                   std::string_view(*bytes).substr(kSegmentHeaderBytes));
    if (frame.state != FrameState::kValid) return Index(0);
    RecordCursor cursor(frame.body);
    while (const std::optional<Record> record = cursor.Next()) {
      if (record->type == RecordType::kBase) return DecodeBase(record->payload).value_or(Index(0));
    }
    return Index(0);
  }

  bool IsNext(const Frame& frame) const {
    return frame.state == FrameState::kValid && frame.write_number == out_.next_write_number;
  }

  // `frame`: what stands at `offset`, where the last segment's valid frames end.
  absl::Status DecideTail(const Segment& segment, const SegmentSalt& salt, std::string_view bytes,
                          uint64_t offset, const Frame& frame) {
    const std::string_view rest = bytes.substr(offset);
    const bool torn_body = frame.state == FrameState::kTornBody;
    // With the frame's length known, a later one can only begin behind it (F1).
    const bool length_known = torn_body && frame.write_number == out_.next_write_number;
    const uint64_t skip = length_known ? std::min<uint64_t>(frame.bytes, rest.size()) : 0;
    if (const auto later = LaterFrameIn(salt, rest.substr(skip), out_.next_write_number)) {
      const uint64_t end = offset + skip + *later;
      const Index next = FirstEntryIn(ParseFrame(salt, bytes.substr(end)).body);
      return Damaged(
          RecoveryRow::kHole, segment.path, {.first = offset, .last = end - 1},
          "an acknowledged write is damaged: a later one follows",
          {.first = replay_.last() + 1, .last = next.value > 0 ? Index(next.value - 1) : Index(0)});
    }
    out_.row = RecoveryRow::kCleanEnd;
    out_.end_offset = offset;
    if (torn_body || frame.state == FrameState::kTornHeader) {
      out_.row = RecoveryRow::kTornTail;
      out_.log.torn_bytes = length_known ? skip : kFrameHeaderBytes;
    }
    out_.last_frame = bytes.substr(out_.last_frame_offset, offset - out_.last_frame_offset);
    return absl::OkStatus();
  }

  const std::string& dir_;
  const SegmentDir::Found& found_;
  std::vector<SegmentHeader> headers_;
  Replay replay_;
  LogRecovery out_;
};

}  // namespace

std::string_view RecoveryRowName(RecoveryRow row) {
  switch (row) {
    case RecoveryRow::kNewLog:
      return "new log";
    case RecoveryRow::kNoSegments:
      return "no segments";
    case RecoveryRow::kMissingSegment:
      return "missing segment";
    case RecoveryRow::kOtherVersion:
      return "other version";
    case RecoveryRow::kUnreadable:
      return "unreadable";
    case RecoveryRow::kBadHeader:
      return "bad header";
    case RecoveryRow::kForeignSegment:
      return "foreign segment";
    case RecoveryRow::kBadOpening:
      return "bad opening";
    case RecoveryRow::kBadOlderSegment:
      return "bad older segment";
    case RecoveryRow::kBadRecord:
      return "bad record";
    case RecoveryRow::kHole:
      return "hole";
    case RecoveryRow::kTornTail:
      return "torn tail";
    case RecoveryRow::kCleanEnd:
      return "clean end";
    case RecoveryRow::kNoHardState:
      return "no hard state";
    case RecoveryRow::kMissingEntries:
      return "missing entries";
  }
  return "unknown";
}

absl::StatusOr<LogRecovery> RecoverLog(const std::string& dir, const SegmentDir::Found& found) {
  return Recovery(dir, found).Run();
}

}  // namespace holdfast::storage
