#include "storage/log_recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "base/strings.h"
#include "storage/log_record.h"

namespace holdfast::storage {
namespace {

constexpr std::string_view kWhatToDo =
    "the log was left as it is; restore the file from a copy, or wipe this member's data and let "
    "it join "
    "again as a new member";

absl::Status Damaged(RecoveryRow row, const std::string& path, uint64_t offset,
                     std::string_view what) {
  return absl::DataLossError(base::ToAbsl(fmt::format(
      "raft log {} offset {}: {} [{}]; {}", path, offset, what, RecoveryRowName(row), kWhatToDo)));
}

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
  Index first() const { return index_.first(); }
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
  LogMark mark_;
  LogIndex index_;
  std::map<Index, EntryRef> configs_;  // kConfig entries above the mark
  bool has_base_ = false;              // of the oldest segment: before it the index means nothing
};

// True if a whole frame with a number above `write_number` begins in `bytes`.
bool LaterFrameIn(const SegmentSalt& salt, std::string_view bytes, uint64_t write_number) {
  while (bytes.size() >= kFrameHeaderBytes) {
    const Frame frame = ParseFrame(salt, bytes);
    if (frame.state == FrameState::kValid && frame.write_number > write_number) return true;
    bytes.remove_prefix(kFrameAlignment);
  }
  return false;
}

class Recovery {
 public:
  Recovery(const std::string& dir, const SegmentDir::Found& found) : dir_(dir), found_(found) {}

  absl::StatusOr<LogRecovery> Run() && {
    if (found_.segments.empty()) return RunEmpty();
    if (absl::Status s = ReadHeaders(); !s.ok()) return s;
    for (size_t i = 0; i < found_.segments.size(); ++i) {
      if (absl::Status s = ReplaySegment(i); !s.ok()) return s;
    }
    if (!replay_.HasAllEntriesBehindMark()) {
      return Damaged(RecoveryRow::kMissingEntries, found_.segments.front().path, 0,
                     fmt::format("entries {} to {} are missing", replay_.mark_index().value + 1,
                                 replay_.first().value - 1));
    }
    replay_.MoveTo(out_);
    return std::move(out_);
  }

 private:
  absl::StatusOr<LogRecovery> RunEmpty() {
    if (found_.spares == 0) return std::move(out_);
    return Damaged(RecoveryRow::kNoSegments, dir_, 0, "every segment is missing");
  }

  absl::Status ReadHeaders() {
    const uint32_t first = found_.segments.front().number;
    for (size_t i = 0; i < found_.segments.size(); ++i) {
      const Segment& segment = found_.segments[i];
      if (segment.number != first + i) {
        return Damaged(RecoveryRow::kMissingSegment, dir_, 0,
                       fmt::format("segment {} is missing", first + i));
      }
      const absl::StatusOr<std::string> bytes = segment.file->ReadAt(0, kSegmentHeaderBytes);
      if (!bytes.ok()) return bytes.status();
      const absl::StatusOr<SegmentHeader> header = DecodeSegmentHeader(*bytes);
      if (absl::IsFailedPrecondition(header.status())) {
        return absl::FailedPreconditionError(base::ToAbsl(
            fmt::format("raft log {}: {} [{}]", segment.path, base::Message(header.status()),
                        RecoveryRowName(RecoveryRow::kOtherVersion))));
      }
      if (!header.ok()) {
        return Damaged(RecoveryRow::kBadHeader, segment.path, 0, base::Message(header.status()));
      }
      if (i > 0 && header->previous_end <= kSegmentHeaderBytes) {
        return Damaged(RecoveryRow::kBadHeader, segment.path, 0,
                       "the segment header names an impossible end of the segment before");
      }
      if (header->segment != segment.number ||
          (i > 0 && header->log_id != headers_.front().log_id)) {
        return Damaged(RecoveryRow::kForeignSegment, segment.path, 0,
                       "this file is not the segment that its name says");
      }
      headers_.push_back(*header);
    }
    out_.log_id = headers_.front().log_id;
    return absl::OkStatus();
  }

  absl::Status ReplaySegment(size_t i) {
    const Segment& segment = found_.segments[i];
    const bool last = i + 1 == found_.segments.size();
    absl::StatusOr<std::string> bytes = segment.file->ReadAt(0, segment.size_bytes);
    if (!bytes.ok()) return bytes.status();
    // Behind the end that the next segment's header gives lies nothing but stale bytes.
    if (!last && headers_[i + 1].previous_end < bytes->size()) {
      bytes->resize(headers_[i + 1].previous_end);
    }
    const SegmentSalt salt = SegmentSalt::For(out_.log_id, segment.number);
    uint64_t offset = kSegmentHeaderBytes;
    Frame frame = ParseFrame(salt, std::string_view(*bytes).substr(offset));
    // Where the oldest segment's numbers begin is for its first frame to say.
    if (i == 0 && frame.state == FrameState::kValid) out_.next_write_number = frame.write_number;
    while (IsNext(frame)) {
      if (!replay_.ApplyFrame(segment, offset, frame.body)) {
        return Damaged(RecoveryRow::kBadRecord, segment.path, offset,
                       "the checksums hold but a record makes no sense");
      }
      out_.last_frame_offset = offset;
      offset += frame.bytes;
      ++out_.next_write_number;
      frame = ParseFrame(salt, std::string_view(*bytes).substr(offset));
    }
    if (offset == kSegmentHeaderBytes) {
      return Damaged(RecoveryRow::kBadOpening, segment.path, offset,
                     "the segment's first frame is damaged");
    }
    if (last) return DecideTail(segment, salt, *bytes, offset, frame);
    if (offset != headers_[i + 1].previous_end) {
      return Damaged(RecoveryRow::kBadOlderSegment, segment.path, offset,
                     "an acknowledged write is damaged");
    }
    return absl::OkStatus();
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
    if (LaterFrameIn(salt, rest.substr(skip), out_.next_write_number)) {
      return Damaged(RecoveryRow::kHole, segment.path, offset,
                     "an acknowledged write is damaged: a later one follows");
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
    case RecoveryRow::kMissingEntries:
      return "missing entries";
  }
  return "unknown";
}

absl::StatusOr<LogRecovery> RecoverLog(const std::string& dir, const SegmentDir::Found& found) {
  return Recovery(dir, found).Run();
}

}  // namespace holdfast::storage
