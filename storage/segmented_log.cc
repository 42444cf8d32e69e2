#include "storage/segmented_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/strings.h"
#include "storage/damage.h"
#include "storage/log_recovery.h"

namespace holdfast::storage {
namespace {

constexpr uint64_t kSegmentBytesMin = 1024;
constexpr uint64_t kSegmentBytesMax = uint64_t{1} << 30;  // recovery holds one in memory
// Neighbours in a file are read together up to here: a lagging member is fed by long scans.
constexpr uint64_t kReadSpanBytesMax = uint64_t{1} << 20;

size_t EntryBytes(const LogSlot& slot) { return sizeof(Entry) + slot.bytes - EntryRecordBytes(0); }

}  // namespace

struct SegmentedLog::ReadSpan {
  Segment segment;  // shares the file, so that it stays readable while it is compacted away
  Index first;
  std::vector<LogSlot> slots;

  uint64_t begin() const { return slots.front().offset; }
  uint64_t end() const { return uint64_t{slots.back().offset} + slots.back().bytes; }
};

absl::Status SegmentedLog::Options::Validate() const {
  if (dir.empty()) return absl::InvalidArgumentError("raft log: no directory given");
  if (segment_bytes < kSegmentBytesMin || segment_bytes > kSegmentBytesMax) {
    return absl::InvalidArgumentError(
        base::ToAbsl(fmt::format("raft log: segment_bytes is {}, must be {} to {}", segment_bytes,
                                 kSegmentBytesMin, kSegmentBytesMax)));
  }
  if (entries_max == 0) return absl::InvalidArgumentError("raft log: entries_max is 0");
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<LogStore>> SegmentedLog::Open(Options options) {
  if (absl::Status s = options.Validate(); !s.ok()) return s;
  CHECK(options.fs != nullptr);
  if (absl::Status s = options.fs->CreateDir(options.dir); !s.ok()) return s;
  absl::StatusOr<std::unique_ptr<FileLock>> lock = options.fs->Lock(options.dir + "/LOCK");
  if (!lock.ok()) return lock.status();
  std::unique_ptr<SegmentedLog> log(new SegmentedLog(std::move(options), *std::move(lock)));
  if (absl::Status s = log->Recover(); !s.ok()) return s;
  log->failure_ = absl::OkStatus();
  return log;
}

SegmentedLog::SegmentedLog(Options options, std::unique_ptr<FileLock> lock)
    : options_(std::move(options)),
      lock_(std::move(lock)),
      segment_dir_(options_.fs, options_.dir, options_.segment_bytes),
      failure_(absl::FailedPreconditionError("the raft log is not open")) {}

SegmentedLog::~SegmentedLog() {
  if (!failure_.ok()) return;
  if (absl::Status s = WriteFrame(0, [](FrameBuilder&) {}); !s.ok()) {
    LOG_WARN("closing the raft log: {}; nothing acknowledged is lost", base::Message(s));
  }
}

absl::Status SegmentedLog::Recover() {
  absl::StatusOr<SegmentDir::Found> found = segment_dir_.Scan();
  if (!found.ok()) return found.status();
  absl::StatusOr<LogRecovery> recovery = RecoverLog(options_.dir, *found);
  if (!recovery.ok()) return recovery.status();
  if (recovery->row == RecoveryRow::kNewLog) return StartNewLog();

  recovered_ = std::move(recovery->log);
  hard_state_ = recovered_.hard_state;
  mark_ = recovered_.mark;
  log_id_ = recovery->log_id;
  next_write_number_ = recovery->next_write_number;
  end_offset_ = recovery->end_offset;
  const std::shared_ptr<File> last = found->segments.back().file;
  {
    absl::MutexLock lock(&tables_mutex_);
    index_ = std::move(recovery->index);
    for (Segment& segment : found->segments) segments_.push_back(std::move(segment));
  }
  if (recovered_.torn_bytes > 0) {
    LOG_WARN("raft log {}: cut {} bytes of a write that was never acknowledged", options_.dir,
             recovered_.torn_bytes);
  }
  // What recovery has seen may be in the kernel's caches alone, when the process before this one
  // died between an effect and its sync: the name of the last segment, and the last frame (see
  // LogRecovery::last_frame). Both go to the disk before anybody builds on them.
  absl::Status s = options_.fs->SyncDir(options_.dir);
  if (s.ok()) s = last->WriteAt(recovery->last_frame_offset, recovery->last_frame);
  if (s.ok()) s = last->SyncData();
  if (!s.ok()) return Fail(s);
  if (s = WriteFrame(0, [](FrameBuilder&) {}); !s.ok()) return s;
  return RetireSegmentsBehindMark();
}

absl::Status SegmentedLog::StartNewLog() {
  log_id_ = options_.new_log_id != 0 ? options_.new_log_id : base::RandomSeed();
  const std::string opening = OpeningBytes(1, 0);
  absl::StatusOr<Segment> segment = segment_dir_.Create(1, opening, opening.size());
  if (!segment.ok()) return Fail(segment.status());
  ++next_write_number_;
  end_offset_ = opening.size();
  absl::MutexLock lock(&tables_mutex_);
  segments_.push_back(*std::move(segment));
  return absl::OkStatus();
}

SegmentedLog::Plan SegmentedLog::MakePlan(absl::Span<const LogBatch> batches) const {
  Plan plan;
  Index mark = mark_.index;
  Index last;
  {
    absl::ReaderMutexLock lock(&tables_mutex_);
    last = index_.last();
  }
  for (const LogBatch& batch : batches) {
    if (batch.reset.has_value()) {
      plan.body_bytes += MarkRecordBytes(batch.reset->membership.size());
      mark = last = batch.reset->index;
    }
    if (!batch.entries.empty()) {
      CHECK_MSG(batch.entries.front()->index > mark, "an append at or below the mark");
      CHECK_MSG(batch.entries.front()->index <= last + 1, "an append with a gap");
      last = batch.entries.front()->index - 1;
    }
    for (const EntryRef& entry : batch.entries) {
      CHECK_MSG(entry->index == last + 1, "entries of a batch must be contiguous");
      last = entry->index;
      plan.body_bytes += EntryRecordBytes(entry->payload.size());
    }
    plan.entries += batch.entries.size();
    plan.must_write |= batch.reset.has_value() || !batch.entries.empty();
    if (batch.hard_state.has_value()) {
      const HardState& old = plan.hard_state != nullptr ? *plan.hard_state : hard_state_;
      CHECK_MSG(batch.hard_state->term >= old.term, "the term went back");
      plan.must_write |= batch.must_sync || batch.hard_state->term != old.term ||
                         batch.hard_state->vote != old.vote;
      plan.hard_state = &*batch.hard_state;
    }
  }
  if (plan.hard_state != nullptr) plan.body_bytes += kHardStateRecordBytes;
  return plan;
}

absl::Status SegmentedLog::Append(absl::Span<const LogBatch> batches) {
  if (!failure_.ok()) return failure_;
  const Plan plan = MakePlan(batches);
  if (!plan.must_write) {
    if (plan.hard_state != nullptr) {
      hard_state_ = *plan.hard_state;
      hint_unwritten_ = true;
    }
    return absl::OkStatus();
  }
  if (FrameBytes(plan.body_bytes + kHardStateRecordBytes) > kFrameBytesMax) {
    return absl::ResourceExhaustedError(base::ToAbsl(
        fmt::format("raft log: one append of {} bytes, the limit is {}; append in smaller turns",
                    plan.body_bytes, kFrameBytesMax)));
  }
  {
    absl::ReaderMutexLock lock(&tables_mutex_);
    if (index_.size() + plan.entries > options_.entries_max) {
      return absl::ResourceExhaustedError(base::ToAbsl(
          fmt::format("raft log: {} entries, the limit is {}; compaction has fallen behind, look "
                      "for its errors",
                      index_.size(), options_.entries_max)));
    }
  }
  if (plan.hard_state != nullptr) hint_unwritten_ = false;  // this one takes its place

  std::vector<LogSlot> slots;
  slots.reserve(plan.entries);
  bool reset = false;
  const absl::Status written = WriteFrame(plan.body_bytes, [&](FrameBuilder& frame) {
    for (const LogBatch& batch : batches) {
      if (batch.reset.has_value()) frame.AddMark(RecordType::kReset, *batch.reset);
      reset |= batch.reset.has_value();
      for (const EntryRef& entry : batch.entries) {
        const RecordPlace place = frame.AddEntry(*entry);
        slots.push_back({.offset = place.offset, .bytes = place.bytes});
      }
    }
    if (plan.hard_state != nullptr) frame.AddHardState(*plan.hard_state);
  });
  if (!written.ok()) return written;
  if (plan.hard_state != nullptr) hard_state_ = *plan.hard_state;
  ApplyToIndex(batches, slots);
  return reset ? RetireSegmentsBehindMark() : absl::OkStatus();
}

void SegmentedLog::ApplyToIndex(absl::Span<const LogBatch> batches,
                                const std::vector<LogSlot>& slots) {
  absl::MutexLock lock(&tables_mutex_);
  auto slot = slots.begin();
  for (const LogBatch& batch : batches) {
    if (batch.reset.has_value()) {
      mark_ = *batch.reset;
      index_.Reset(mark_.index + 1);
    }
    for (const EntryRef& entry : batch.entries) {
      index_.Append(entry->index, entry->term,
                    {.segment = segments_.back().number,
                     .offset = static_cast<uint32_t>(last_frame_offset_ + slot->offset),
                     .bytes = slot->bytes});
      ++slot;
    }
  }
  CHECK(slot == slots.end());
}

absl::Status SegmentedLog::WriteFrame(size_t body_bytes,
                                      const std::function<void(FrameBuilder&)>& add_records) {
  const bool add_hint = hint_unwritten_;
  const size_t frame_bytes = FrameBytes(body_bytes + (add_hint ? kHardStateRecordBytes : 0));
  std::shared_ptr<File> file;
  uint64_t room = 0;
  uint32_t number = 0;
  const auto load_last = [&] {
    absl::ReaderMutexLock lock(&tables_mutex_);
    file = segments_.back().file;
    number = segments_.back().number;
    room = segments_.back().size_bytes - end_offset_;
  };
  load_last();
  if (frame_bytes > room) {
    if (absl::Status s = Roll(frame_bytes); !s.ok()) return Fail(s);
    load_last();
  }
  FrameBuilder builder(SegmentSalt::For(log_id_, number), next_write_number_, frame_bytes);
  add_records(builder);
  if (add_hint) builder.AddHardState(hard_state_);
  const std::string bytes = std::move(builder).Finish();
  CHECK(bytes.size() == frame_bytes);
  absl::Status s = file->WriteAt(end_offset_, bytes);
  if (s.ok()) s = file->SyncData();
  if (!s.ok()) return Fail(s);
  last_frame_offset_ = end_offset_;
  end_offset_ += frame_bytes;
  ++next_write_number_;
  hint_unwritten_ = false;
  return absl::OkStatus();
}

std::string SegmentedLog::OpeningBytes(uint32_t number, uint64_t previous_end) const {
  FrameBuilder builder(SegmentSalt::For(log_id_, number), next_write_number_);
  builder.AddMark(RecordType::kMark, mark_);
  {
    absl::ReaderMutexLock lock(&tables_mutex_);
    builder.AddBase(index_.last());
  }
  builder.AddHardState(hard_state_);
  return EncodeSegmentHeader({.log_id = log_id_, .segment = number, .previous_end = previous_end}) +
         std::move(builder).Finish();
}

absl::Status SegmentedLog::Roll(size_t frame_bytes) {
  uint32_t number = 0;
  {
    absl::ReaderMutexLock lock(&tables_mutex_);
    number = segments_.back().number;
  }
  CHECK(number < std::numeric_limits<uint32_t>::max());
  ++number;
  const std::string opening = OpeningBytes(number, end_offset_);
  absl::StatusOr<Segment> segment =
      segment_dir_.Create(number, opening, opening.size() + frame_bytes);
  if (!segment.ok()) return segment.status();
  ++next_write_number_;
  end_offset_ = opening.size();
  absl::MutexLock lock(&tables_mutex_);
  segments_.push_back(*std::move(segment));
  return absl::OkStatus();
}

absl::Status SegmentedLog::Compact(const LogMark& mark) {
  if (!failure_.ok()) return failure_;
  {
    absl::ReaderMutexLock lock(&tables_mutex_);
    CHECK_MSG(mark.index >= mark_.index, "the mark went back");
    CHECK_MSG(mark.index <= index_.last(), "a mark above the last index");
    if (mark.index == mark_.index) return absl::OkStatus();
    CHECK_MSG(index_.TermAt(mark.index) == mark.term, "a mark with another term than its entry");
  }
  const absl::Status written =
      WriteFrame(MarkRecordBytes(mark.membership.size()),
                 [&](FrameBuilder& frame) { frame.AddMark(RecordType::kMark, mark); });
  if (!written.ok()) return written;
  mark_ = mark;
  return RetireSegmentsBehindMark();
}

absl::Status SegmentedLog::RetireSegmentsBehindMark() {
  while (true) {
    Segment oldest;
    {
      absl::MutexLock lock(&tables_mutex_);
      CHECK(index_.first() <= mark_.index + 1);
      const uint32_t keep = mark_.index < index_.last() ? index_.At(mark_.index + 1).segment
                                                        : segments_.back().number;
      if (segments_.front().number >= keep) return absl::OkStatus();
      oldest = std::move(segments_.front());
      segments_.pop_front();
      index_.DropSegmentsBelow(segments_.front().number);
    }
    if (absl::Status s = segment_dir_.Retire(std::move(oldest)); !s.ok()) return Fail(s);
  }
}

absl::Status SegmentedLog::Fail(const absl::Status& error) {
  const bool disk_full = absl::IsResourceExhausted(error);
  const std::string text =
      disk_full ? fmt::format("disk full: free space on {} and start this member again ({})",
                              options_.dir, base::Message(error))
                : fmt::format(
                      "raft log {} failed and takes no more writes: {}; check the disk and start "
                      "this member again, everything acknowledged is recovered",
                      options_.dir, base::Message(error));
  failure_ = absl::DataLossError(base::ToAbsl(text));
  return disk_full ? absl::ResourceExhaustedError(base::ToAbsl(text)) : failure_;
}

std::vector<SegmentedLog::ReadSpan> SegmentedLog::PlanRead(Index first, Index last,
                                                           size_t max_bytes) const {
  std::vector<ReadSpan> spans;
  absl::ReaderMutexLock lock(&tables_mutex_);
  if (first < index_.first() || first > index_.last()) return spans;
  size_t bytes = 0;
  for (Index i = first; i <= std::min(last, index_.last()); ++i) {
    const LogSlot& slot = index_.At(i);
    bytes += EntryBytes(slot);
    if (i > first && bytes > max_bytes) break;
    const bool joins =
        !spans.empty() && spans.back().segment.number == slot.segment &&
        slot.offset + uint64_t{slot.bytes} - spans.back().begin() <= kReadSpanBytesMax;
    if (!joins) {
      const Segment& segment = segments_[slot.segment - segments_.front().number];
      spans.push_back({.segment = segment, .first = i, .slots = {}});
    }
    spans.back().slots.push_back(slot);
  }
  return spans;
}

absl::StatusOr<std::vector<EntryRef>> SegmentedLog::Read(Index first, Index last,
                                                         size_t max_bytes) const {
  CHECK(first <= last);
  const std::vector<ReadSpan> spans = PlanRead(first, last, max_bytes);
  if (spans.empty()) {
    return absl::OutOfRangeError(base::ToAbsl(
        fmt::format("raft log: entry {} is compacted away or not there yet", first.value)));
  }
  std::vector<EntryRef> entries;
  for (const ReadSpan& span : spans) {
    if (absl::Status s = ReadSpanInto(span, entries); !s.ok()) return s;
  }
  return entries;
}

absl::Status SegmentedLog::ReadSpanInto(const ReadSpan& span, std::vector<EntryRef>& out) const {
  const SegmentSalt salt = SegmentSalt::For(log_id_, span.segment.number);
  absl::StatusOr<std::string> bytes =
      span.segment.file->ReadAt(span.begin(), span.end() - span.begin());
  if (!bytes.ok()) {
    return DamageError({.file = span.segment.path,
                        .first_byte = span.begin(),
                        .last_byte = span.end() - 1,
                        .first_index = span.first,
                        .last_index = span.first + (span.slots.size() - 1),
                        .what = fmt::format("the disk does not give these bytes back ({})",
                                            base::Message(bytes.status()))});
  }
  Index index = span.first;
  for (const LogSlot& slot : span.slots) {
    const uint64_t at = std::min<uint64_t>(slot.offset - span.begin(), bytes->size());
    const std::optional<Record> record =
        CheckRecord(salt, std::string_view(*bytes).substr(at, slot.bytes));
    std::optional<Entry> entry;
    if (record.has_value() && record->type == RecordType::kEntry) {
      entry = DecodeEntry(record->payload);
    }
    if (!entry.has_value() || entry->index != index) {
      return DamageError({.file = span.segment.path,
                          .first_byte = slot.offset,
                          .last_byte = uint64_t{slot.offset} + slot.bytes - 1,
                          .first_index = index,
                          .last_index = index,
                          .what = "the disk gave back something else than was written"});
    }
    out.push_back(std::make_shared<const Entry>(*std::move(entry)));
    ++index;
  }
  return absl::OkStatus();
}

}  // namespace holdfast::storage
