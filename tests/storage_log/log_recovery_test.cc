// The recovery decision table, row by row, and every flipped bit.
#include "storage/log_recovery.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "base/crc32c.h"
#include "base/rng.h"
#include "base/strings.h"
#include "storage/damage.h"
#include "storage/log_record.h"
#include "storage/segmented_log.h"
#include "tests/storage_log/fault_file_system.h"
#include "tests/storage_log/log_model.h"

namespace holdfast::storage {
namespace {

constexpr uint64_t kLogId = 9;
constexpr uint64_t kSegmentBytes = 1024;
constexpr RecoveryRow kAllRows[] = {
    RecoveryRow::kNewLog,         RecoveryRow::kNoSegments,  RecoveryRow::kMissingSegment,
    RecoveryRow::kOtherVersion,   RecoveryRow::kUnreadable,  RecoveryRow::kBadHeader,
    RecoveryRow::kForeignSegment, RecoveryRow::kBadOpening,  RecoveryRow::kBadOlderSegment,
    RecoveryRow::kBadRecord,      RecoveryRow::kHole,        RecoveryRow::kTornTail,
    RecoveryRow::kCleanEnd,       RecoveryRow::kNoHardState, RecoveryRow::kMissingEntries,
};

std::string SegmentPath(uint32_t number) { return fmt::format("log/{:020}.log", number); }

// Where the frames of a segment lie; the last element is where they end.
std::vector<uint64_t> FrameOffsets(const FaultFileSystem& fs, uint32_t number) {
  const std::string& bytes = fs.Bytes(SegmentPath(number));
  std::vector<uint64_t> offsets = {kSegmentHeaderBytes};
  while (true) {
    const Frame frame = ParseFrame(SegmentSalt::For(kLogId, number),
                                   std::string_view(bytes).substr(offsets.back()));
    if (frame.state != FrameState::kValid) return offsets;
    offsets.push_back(offsets.back() + frame.bytes);
  }
}

SegmentedLog::Options OptionsOn(FaultFileSystem* fs) {
  return {.dir = "log", .segment_bytes = kSegmentBytes, .fs = fs, .new_log_id = kLogId};
}

absl::StatusOr<LogRecovery> RecoverOn(FaultFileSystem& fs) {
  SegmentDir dir(&fs, "log", kSegmentBytes);
  const auto found = dir.Scan();
  if (!found.ok()) return found.status();
  return RecoverLog("log", *found);
}

// The row an outcome belongs to. It must be exactly one.
RecoveryRow RowOf(const absl::StatusOr<LogRecovery>& outcome) {
  if (outcome.ok()) return outcome->row;
  std::vector<RecoveryRow> rows;
  for (const RecoveryRow row : kAllRows) {
    const std::string tag = fmt::format("[{}]", RecoveryRowName(row));
    if (base::Message(outcome.status()).find(tag) != std::string_view::npos) rows.push_back(row);
  }
  EXPECT_EQ(rows.size(), 1u) << outcome.status();
  return rows.empty() ? RecoveryRow::kNewLog : rows.front();
}

// A log of three segments that a process left without closing it, and what it holds.
struct Prepared {
  std::unique_ptr<FaultFileSystem> fs = std::make_unique<FaultFileSystem>(1);
  LogModel model;
};

Prepared PrepareLog(bool clean_stop) {
  Prepared prepared;
  auto log = SegmentedLog::Open(OptionsOn(prepared.fs.get()));
  EXPECT_TRUE(log.ok());
  base::Rng rng(5);
  uint64_t index = 1;
  const auto exists = [&](uint32_t number) {
    for (const std::string& path : prepared.fs->Paths()) {
      if (path == SegmentPath(number)) return true;
    }
    return false;
  };
  // Four frames into the third segment: opening, and three with content.
  int in_third = 0;
  while (in_third < 3) {
    LogBatch batch;
    for (int n = 0; n < 2; ++n, ++index) {
      batch.entries.push_back(MakeEntry(index, 1 + index / 7, std::string(rng.Below(90), 'p'),
                                        index % 5 == 0 ? EntryType::kConfig : EntryType::kNormal));
    }
    batch.hard_state = HardState{
        .term = batch.entries.back()->term, .vote = NodeId(2), .commit = Index(index - 1)};
    EXPECT_TRUE((*log)->Append({batch}).ok());
    prepared.model.Append({batch});
    in_third += exists(3) ? 1 : 0;
  }
  if (!clean_stop) prepared.fs->Stop();
  log->reset();
  prepared.fs->KillProcess();
  EXPECT_FALSE(exists(4));
  return prepared;
}

void FlipBit(FaultFileSystem& fs, uint32_t segment, uint64_t offset, int bit = 0) {
  std::string bytes = fs.Bytes(SegmentPath(segment));
  bytes[offset] = static_cast<char>(bytes[offset] ^ (1 << bit));
  fs.SetBytes(SegmentPath(segment), std::move(bytes));
}

void Replace(FaultFileSystem& fs, uint32_t segment, uint64_t offset, const std::string& with) {
  std::string bytes = fs.Bytes(SegmentPath(segment));
  if (bytes.size() < offset + with.size()) bytes.resize(offset + with.size());
  fs.SetBytes(SegmentPath(segment), bytes.replace(offset, with.size(), with));
}

std::string HeaderOfVersion(uint32_t version) {
  std::string header = EncodeSegmentHeader({.log_id = kLogId, .segment = 1, .previous_end = 0});
  std::string prefix = header.substr(0, 8);
  base::AppendBigEndian32(prefix, version);
  base::AppendBigEndian32(prefix, base::Crc32c(prefix));
  return header.replace(0, prefix.size(), prefix);
}

struct TableCase {
  std::string name;
  RecoveryRow row;
  absl::StatusCode code;
  std::function<void(FaultFileSystem&)> damage;
  // What the error must tell, where the case knows it.
  struct Place {
    uint32_t segment = 0;  // 0: the directory
    uint64_t first_byte = 0, last_byte = 0;
    uint64_t first_index = 0, last_index = 0;
  };
  std::function<Place(const Prepared&)> place = nullptr;
};

void PrintTo(const TableCase& one, std::ostream* out) { *out << one.name; }

// The entries of a frame, as indexes; {0, 0}: none.
std::pair<uint64_t, uint64_t> EntriesIn(const FaultFileSystem& fs, uint32_t segment, size_t nth) {
  const std::vector<uint64_t> offsets = FrameOffsets(fs, segment);
  const Frame frame =
      ParseFrame(SegmentSalt::For(kLogId, segment),
                 std::string_view(fs.Bytes(SegmentPath(segment))).substr(offsets[nth]));
  std::pair<uint64_t, uint64_t> range;
  RecordCursor cursor(frame.body);
  while (const auto record = cursor.Next()) {
    if (record->type != RecordType::kEntry) continue;
    const uint64_t index = DecodeEntry(record->payload)->index.value;
    if (range.first == 0) range.first = index;
    range.second = index;
  }
  return range;
}

// The entries of all frames of a segment together.
std::pair<uint64_t, uint64_t> EntriesIn(const FaultFileSystem& fs, uint32_t segment) {
  std::pair<uint64_t, uint64_t> range;
  for (size_t nth = 0; nth + 1 < FrameOffsets(fs, segment).size(); ++nth) {
    const auto [first, last] = EntriesIn(fs, segment, nth);
    if (first == 0) continue;
    if (range.first == 0) range.first = first;
    range.second = last;
  }
  return range;
}

// A frame for the place behind the last one; `ahead` 1 is the next write.
std::string NextFrame(FaultFileSystem& fs, const std::function<void(FrameBuilder&)>& fill,
                      uint64_t ahead = 1) {
  uint64_t number = 0;
  const std::string& bytes = fs.Bytes(SegmentPath(3));
  const SegmentSalt salt = SegmentSalt::For(kLogId, 3);
  for (const uint64_t offset : FrameOffsets(fs, 3)) {
    const Frame frame = ParseFrame(salt, std::string_view(bytes).substr(offset));
    if (frame.state == FrameState::kValid) number = frame.write_number;
  }
  FrameBuilder builder(salt, number + ahead);
  fill(builder);
  return std::move(builder).Finish();
}

void AppendNextFrame(FaultFileSystem& fs, const std::function<void(FrameBuilder&)>& fill) {
  Replace(fs, 3, FrameOffsets(fs, 3).back(), NextFrame(fs, fill));
}

using Place = TableCase::Place;

std::vector<TableCase> DirectoryCases() {
  using Row = RecoveryRow;
  constexpr auto kOk = absl::StatusCode::kOk;
  constexpr auto kLoss = absl::StatusCode::kDataLoss;
  const auto remove = [](uint32_t number) {
    return [number](FaultFileSystem& fs) { (void)fs.Remove(SegmentPath(number)); };
  };
  const auto remove_all = [](FaultFileSystem& fs) {
    for (const std::string& path : fs.Paths()) (void)fs.Remove(path);
  };
  return {
      {"nothing there", Row::kNewLog, kOk, remove_all},
      {"a foreign file alone", Row::kNewLog, kOk,
       [=](FaultFileSystem& fs) {
         remove_all(fs);
         fs.SetBytes("log/README", "hello");
         fs.SetBytes("log/1.log", "not a segment's name");
       }},
      {"a spare alone", Row::kNoSegments, kLoss,
       [=](FaultFileSystem& fs) {
         remove_all(fs);
         fs.SetBytes(fmt::format("log/spare-{:020}", 1), std::string(kSegmentBytes, '\0'));
       }},
      {"middle segment gone", Row::kMissingSegment, kLoss, remove(2),
       [](const Prepared& was) -> Place {
         const auto [first, last] = EntriesIn(*was.fs, 2);
         return {.first_index = first, .last_index = last};
       }},
      {"first segment gone", Row::kMissingEntries, kLoss, remove(1),
       [](const Prepared& was) -> Place {
         const auto [first, last] = EntriesIn(*was.fs, 1);
         return {.first_index = first, .last_index = last};
       }},
  };
}

std::vector<TableCase> HeaderCases() {
  using Row = RecoveryRow;
  constexpr auto kLoss = absl::StatusCode::kDataLoss;
  const auto flip = [](uint32_t number, uint64_t offset) {
    return [=](FaultFileSystem& fs) { FlipBit(fs, number, offset); };
  };
  const auto put = [](uint32_t number, const SegmentHeader& header) {
    return [=](FaultFileSystem& fs) { Replace(fs, number, 0, EncodeSegmentHeader(header)); };
  };
  return {
      {"newer format", Row::kOtherVersion, absl::StatusCode::kFailedPrecondition,
       [](FaultFileSystem& fs) { Replace(fs, 1, 0, HeaderOfVersion(kLogFormatVersion + 1)); }},
      {"a bad sector in the middle segment", Row::kUnreadable, kLoss,
       [](FaultFileSystem& fs) { fs.FailReads(SegmentPath(2), 700, 700); },
       [](const Prepared& was) -> Place {
         const auto [first, last] = EntriesIn(*was.fs, 2);
         return {.segment = 2,
                 .first_byte = 0,
                 .last_byte = kSegmentBytes - 1,
                 .first_index = first,
                 .last_index = last};
       }},
      {"a bad sector in a header", Row::kUnreadable, kLoss,
       [](FaultFileSystem& fs) { fs.FailReads(SegmentPath(3), 0, 0); }},
      {"magic damaged", Row::kBadHeader, kLoss, flip(2, 0),
       [](const Prepared& was) -> Place {
         const auto [first, last] = EntriesIn(*was.fs, 2);
         return {.segment = 2,
                 .first_byte = 0,
                 .last_byte = kSegmentHeaderBytes - 1,
                 .first_index = first,
                 .last_index = last};
       }},
      {"version damaged", Row::kBadHeader, kLoss, flip(2, 11)},
      {"header damaged", Row::kBadHeader, kLoss, flip(3, 40)},
      {"empty file", Row::kBadHeader, kLoss,
       [](FaultFileSystem& fs) { fs.SetBytes(SegmentPath(3), ""); }},
      {"end before impossible", Row::kBadHeader, kLoss,
       put(2, {.log_id = kLogId, .segment = 2, .previous_end = 3})},
      {"number of another", Row::kForeignSegment, kLoss,
       put(2, {.log_id = kLogId, .segment = 5, .previous_end = 800})},
      {"another log's", Row::kForeignSegment, kLoss,
       put(2, {.log_id = kLogId + 1, .segment = 2, .previous_end = 800})},
  };
}

std::vector<TableCase> FrameCases() {
  using Row = RecoveryRow;
  constexpr auto kLoss = absl::StatusCode::kDataLoss;
  // Flips a bit in frame `nth` of a segment; negative counts from the end.
  const auto flip_frame = [](uint32_t number, int nth, uint64_t in_frame) {
    return [=](FaultFileSystem& fs) {
      const std::vector<uint64_t> offsets = FrameOffsets(fs, number);
      const size_t at = nth >= 0 ? static_cast<size_t>(nth) : offsets.size() - 1 + nth;
      FlipBit(fs, number, offsets[at] + in_frame);
    };
  };
  const auto next = [](std::function<void(FrameBuilder&)> fill) {
    return [=](FaultFileSystem& fs) { AppendNextFrame(fs, fill); };
  };
  return {
      {"opening of an older segment", Row::kBadOpening, kLoss, flip_frame(2, 0, 30)},
      {"opening of the first segment", Row::kBadOpening, kLoss, flip_frame(1, 0, 30)},
      {"opening of the last segment", Row::kBadOpening, kLoss, flip_frame(3, 0, 30)},
      {"older segment, middle", Row::kBadOlderSegment, kLoss, flip_frame(1, 2, 30),
       [](const Prepared& was) -> Place {
         const std::vector<uint64_t> offsets = FrameOffsets(*was.fs, 1);
         return {.segment = 1,
                 .first_byte = offsets[2],
                 .last_byte = offsets[3] - 1,
                 .first_index = EntriesIn(*was.fs, 1, 2).first,
                 .last_index = EntriesIn(*was.fs, 1).second};
       }},
      {"older segment, its last frame", Row::kBadOlderSegment, kLoss, flip_frame(2, -1, 30)},
      {"older segment cut short", Row::kBadOlderSegment, kLoss,
       [](FaultFileSystem& fs) {
         const std::string bytes = fs.Bytes(SegmentPath(1));
         fs.SetBytes(SegmentPath(1), bytes.substr(0, FrameOffsets(fs, 1)[2]));
       }},
      {"gap in the entries", Row::kBadRecord, kLoss,
       next([](FrameBuilder& f) { f.AddEntry(*MakeEntry(999, 99, "")); })},
      {"term goes back", Row::kBadRecord, kLoss,
       next([](FrameBuilder& f) { f.AddHardState({.term = Term(0), .vote = {}, .commit = {}}); })},
      {"mark above the end", Row::kBadRecord, kLoss, next([](FrameBuilder& f) {
         f.AddMark(RecordType::kMark, {.index = Index(999), .term = Term(1), .membership = ""});
       })},
      {"base that is not the last", Row::kBadRecord, kLoss,
       next([](FrameBuilder& f) { f.AddBase(Index(1)); })},
      {"a log without term and vote", Row::kNoHardState, kLoss,
       [](FaultFileSystem& fs) {
         for (const uint32_t number : {2, 3}) (void)fs.Remove(SegmentPath(number));
         FrameBuilder opening(SegmentSalt::For(kLogId, 1), 1);
         opening.AddMark(RecordType::kMark, {});
         opening.AddBase(Index(0));
         fs.SetBytes(SegmentPath(1),
                     EncodeSegmentHeader({.log_id = kLogId, .segment = 1, .previous_end = 0}) +
                         std::move(opening).Finish() + std::string(kFrameHeaderBytes, '\0'));
       },
       [](const Prepared&) -> Place { return {.segment = 1}; }},
  };
}

std::vector<TableCase> TailCases() {
  using Row = RecoveryRow;
  constexpr auto kOk = absl::StatusCode::kOk;
  constexpr auto kLoss = absl::StatusCode::kDataLoss;
  const auto big_entry = [](FrameBuilder& f) {
    f.AddEntry(*MakeEntry(999, 99, std::string(400, 'z')));
  };
  // A torn next write: its bytes, with `tear` applied, behind the last frame.
  const auto torn = [=](std::function<void(std::string&)> tear) {
    return [=](FaultFileSystem& fs) {
      std::string frame = NextFrame(fs, big_entry);
      tear(frame);
      Replace(fs, 3, FrameOffsets(fs, 3).back(), frame);
    };
  };
  const auto flip_frame = [](int nth_from_end, uint64_t in_frame) {
    return [=](FaultFileSystem& fs) {
      const std::vector<uint64_t> offsets = FrameOffsets(fs, 3);
      FlipBit(fs, 3, offsets[offsets.size() - 1 - nth_from_end] + in_frame);
    };
  };
  return {
      {"untouched", Row::kCleanEnd, kOk, [](FaultFileSystem&) {}},
      {"garbage behind the end", Row::kCleanEnd, kOk,
       [](FaultFileSystem& fs) { Replace(fs, 3, FrameOffsets(fs, 3).back(), "garbage"); }},
      {"file ends at the last frame", Row::kCleanEnd, kOk,
       [](FaultFileSystem& fs) {
         const std::string bytes = fs.Bytes(SegmentPath(3));
         fs.SetBytes(SegmentPath(3), bytes.substr(0, FrameOffsets(fs, 3).back()));
       }},
      {"a frame of another segment behind the end", Row::kCleanEnd, kOk,
       [](FaultFileSystem& fs) {
         const std::vector<uint64_t> older = FrameOffsets(fs, 2);
         Replace(fs, 3, FrameOffsets(fs, 3).back(),
                 fs.Bytes(SegmentPath(2)).substr(older[1], older[2] - older[1]));
       }},
      {"a torn write whose first page is missing", Row::kCleanEnd, kOk,
       torn([](std::string& f) { f.replace(0, 64, 64, '\0'); })},
      {"a torn write whose last page is missing", Row::kTornTail, kOk,
       torn([](std::string& f) { f.replace(200, 100, 100, '\0'); })},
      {"a torn write whose header is half", Row::kTornTail, kOk,
       torn([](std::string& f) { f.replace(12, 12, 12, '\0'); })},
      {"a torn write whose content looks like a later frame", Row::kTornTail, kOk,
       [](FaultFileSystem& fs) {
         // Aligned as a frame would be: frame, record and entry headers come to 50 bytes.
         FrameBuilder later(SegmentSalt::For(kLogId, 3), 1'000'000);
         const std::string payload = std::string(6, 'x') + std::move(later).Finish() + "rest";
         std::string frame =
             NextFrame(fs, [&](FrameBuilder& f) { f.AddEntry(*MakeEntry(999, 99, payload)); });
         frame[frame.size() - 16] ^= 1;
         Replace(fs, 3, FrameOffsets(fs, 3).back(), frame);
       }},
      {"a torn write beyond the end of the file", Row::kTornTail, kOk,
       [=](FaultFileSystem& fs) {
         const std::string frame = NextFrame(fs, big_entry);
         const std::string bytes = fs.Bytes(SegmentPath(3)).substr(0, FrameOffsets(fs, 3).back());
         fs.SetBytes(SegmentPath(3), bytes + frame.substr(0, 100));
       }},
      {"last frame damaged: the admitted limit", Row::kTornTail, kOk, flip_frame(1, 30)},
      {"last but one damaged in its body", Row::kHole, kLoss, flip_frame(2, 30),
       [](const Prepared& was) -> Place {
         const std::vector<uint64_t> offsets = FrameOffsets(*was.fs, 3);
         const size_t nth = offsets.size() - 3;
         const auto [first, last] = EntriesIn(*was.fs, 3, nth);
         return {.segment = 3,
                 .first_byte = offsets[nth],
                 .last_byte = offsets[nth + 1] - 1,
                 .first_index = first,
                 .last_index = last};
       }},
      {"last but one damaged in its number", Row::kHole, kLoss, flip_frame(2, 10)},
      {"last but one damaged in its tag", Row::kHole, kLoss, flip_frame(2, 0)},
      {"last but one damaged in its length", Row::kHole, kLoss, flip_frame(2, 5)},
      {"a write is missing without a trace", Row::kHole, kLoss,
       [=](FaultFileSystem& fs) {
         Replace(fs, 3, FrameOffsets(fs, 3).back(),
                 NextFrame(
                     fs, [](FrameBuilder&) {}, 2));
       }},
      {"earlier frame damaged", Row::kHole, kLoss, flip_frame(3, 30)},
  };
}

std::vector<TableCase> AllCases() {
  std::vector<TableCase> all;
  for (auto cases : {DirectoryCases(), HeaderCases(), FrameCases(), TailCases()}) {
    for (TableCase& one : cases) all.push_back(std::move(one));
  }
  return all;
}

class LogRecoveryRow : public testing::TestWithParam<TableCase> {};

TEST_P(LogRecoveryRow, IsTaken) {
  const TableCase& one = GetParam();
  const Prepared prepared = PrepareLog(/*clean_stop=*/false);
  const auto fs = prepared.fs->Clone();
  one.damage(*fs);
  const auto outcome = RecoverOn(*fs);
  EXPECT_EQ(outcome.status().code(), one.code) << outcome.status();
  EXPECT_EQ(RowOf(outcome), one.row) << RecoveryRowName(RowOf(outcome));
  const std::optional<Damage> damage = DamageOf(outcome.status());
  ASSERT_EQ(damage.has_value(), absl::IsDataLoss(outcome.status()));
  if (damage.has_value()) {
    EXPECT_EQ(damage->part, Damage::Part::kLog);
    EXPECT_THAT(damage->file, testing::StartsWith("log"));
    EXPECT_THAT(
        std::string(base::Message(outcome.status())),
        testing::AllOf(testing::HasSubstr(Describe(*damage)), testing::HasSubstr("must not vote")));
  }
  if (one.place != nullptr) {
    const Place place = one.place(prepared);
    EXPECT_EQ(damage->file, place.segment == 0 ? "log" : SegmentPath(place.segment));
    EXPECT_EQ(damage->first_byte, place.first_byte);
    EXPECT_EQ(damage->last_byte, place.last_byte);
    EXPECT_EQ(damage->first_index.value, place.first_index);
    EXPECT_EQ(damage->last_index.value, place.last_index);
  }
  if (outcome.ok()) {
    EXPECT_EQ(outcome->log.torn_bytes > 0, one.row == RecoveryRow::kTornTail);
  }
  const auto opened = SegmentedLog::Open(OptionsOn(fs.get()));
  EXPECT_EQ(opened.status().code(), one.code);
}

// "last frame damaged: the admitted limit" -> "LastFrameDamagedTheAdmittedLimit".
std::string TestName(const testing::TestParamInfo<TableCase>& info) {
  std::string name;
  bool upper = true;
  for (const char c : info.param.name) {
    const bool letter = std::isalnum(static_cast<unsigned char>(c)) != 0;
    if (letter) name += upper ? static_cast<char>(std::toupper(c)) : c;
    upper = !letter;
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Table, LogRecoveryRow, testing::ValuesIn(AllCases()), TestName);

TEST(LogRecoveryTable, EveryRowHasACase) {
  const std::vector<TableCase> cases = AllCases();
  for (const RecoveryRow row : kAllRows) {
    EXPECT_TRUE(std::ranges::any_of(cases, [&](const TableCase& one) { return one.row == row; }))
        << RecoveryRowName(row);
  }
}

TEST(LogRecoveryTable, ARefusalChangesNothing) {
  const Prepared prepared = PrepareLog(/*clean_stop=*/false);
  for (const TableCase& one : AllCases()) {
    if (one.code == absl::StatusCode::kOk) continue;
    SCOPED_TRACE(one.name);
    const auto fs = prepared.fs->Clone();
    one.damage(*fs);
    const auto before = fs->Clone();
    EXPECT_FALSE(SegmentedLog::Open(OptionsOn(fs.get())).ok());
    ASSERT_EQ(fs->Paths(), before->Paths());
    for (const std::string& path : fs->Paths()) EXPECT_EQ(fs->Bytes(path), before->Bytes(path));
  }
}

TEST(LogRecoveryTable, ATornTailIsOverwrittenAndTheLogGoesOn) {
  const Prepared prepared = PrepareLog(/*clean_stop=*/false);
  for (const TableCase& one : TailCases()) {
    if (one.code != absl::StatusCode::kOk || one.name.starts_with("last frame")) continue;
    SCOPED_TRACE(one.name);
    const auto fs = prepared.fs->Clone();
    one.damage(*fs);
    LogModel model = prepared.model;
    for (int life = 0; life < 3; ++life) {
      auto log = SegmentedLog::Open(OptionsOn(fs.get()));
      ASSERT_TRUE(log.ok()) << log.status();
      ASSERT_EQ(Difference(model, **log), "");
      LogBatch batch;
      batch.entries.push_back(MakeEntry(model.last().value + 1, 99, "on it goes"));
      ASSERT_TRUE((*log)->Append({batch}).ok());
      model.Append({batch});
      fs->Stop();
      log->reset();
      fs->KillProcess();
    }
  }
}

TEST(LogRecoveryTable, OpenVouchesForTheLastFrameBeforeACrash) {
  const Prepared prepared = PrepareLog(/*clean_stop=*/false);
  const std::vector<uint64_t> offsets = FrameOffsets(*prepared.fs, 3);
  auto log = SegmentedLog::Open(OptionsOn(prepared.fs.get()));
  ASSERT_TRUE(log.ok());
  prepared.fs->Stop();
  log->reset();
  prepared.fs->KillProcess();
  FlipBit(*prepared.fs, 3, offsets[offsets.size() - 2] + 30);
  EXPECT_EQ(RowOf(RecoverOn(*prepared.fs)), RecoveryRow::kHole);
}

// Flips every bit of every segment and asks what Open makes of it.
void FlipEverywhere(const Prepared& prepared,
                    const std::function<bool(uint32_t segment, uint64_t offset)>& may_be_cut) {
  for (uint32_t segment = 1; segment <= 3; ++segment) {
    for (uint64_t bit = 0; bit < kSegmentBytes * 8; ++bit) {
      const uint64_t offset = bit / 8;
      const auto fs = prepared.fs->Clone();
      FlipBit(*fs, segment, offset, static_cast<int>(bit % 8));
      const auto log = SegmentedLog::Open(OptionsOn(fs.get()));
      if (!log.ok()) {
        ASSERT_TRUE(absl::IsDataLoss(log.status())) << log.status();
        continue;
      }
      const std::string difference = Difference(prepared.model, **log);
      ASSERT_TRUE(difference.empty() || may_be_cut(segment, offset))
          << "segment " << segment << " offset " << offset << ": " << difference;
    }
  }
}

TEST(LogRecoveryBits, AfterACleanStopNoFlippedBitGoesUnnoticed) {
  FlipEverywhere(PrepareLog(/*clean_stop=*/true), [](uint32_t, uint64_t) { return false; });
}

TEST(LogRecoveryBits, AfterACrashOnlyTheLastFrameCanBeMistakenForATornTail) {
  const Prepared prepared = PrepareLog(/*clean_stop=*/false);
  const std::vector<uint64_t> offsets = FrameOffsets(*prepared.fs, 3);
  const uint64_t last_frame = offsets[offsets.size() - 2];
  FlipEverywhere(prepared, [&](uint32_t segment, uint64_t offset) {
    return segment == 3 && offset >= last_frame;
  });
}

TEST(LogRecoveryBits, RandomDamageMatchesOneRowAndNeverCrashes) {
  const Prepared prepared = PrepareLog(/*clean_stop=*/true);
  for (uint64_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    base::Rng rng(seed);
    const auto fs = prepared.fs->Clone();
    for (uint64_t n = 1 + rng.Below(4); n > 0; --n) {
      const auto segment = static_cast<uint32_t>(1 + rng.Below(3));
      std::string bytes = fs->Bytes(SegmentPath(segment));
      if (bytes.empty()) continue;
      const uint64_t at = rng.Below(bytes.size());
      const uint64_t length = 1 + rng.Below(std::min<uint64_t>(64, bytes.size() - at));
      if (rng.OneIn(8)) {
        bytes.resize(at);
      } else if (rng.OneIn(2)) {
        bytes.replace(at, length, length, '\0');
      } else {
        bytes.replace(at, length, bytes, rng.Below(bytes.size() - length + 1), length);
      }
      fs->SetBytes(SegmentPath(segment), std::move(bytes));
    }
    const auto outcome = RecoverOn(*fs);
    (void)RowOf(outcome);
    const auto opened = SegmentedLog::Open(OptionsOn(fs.get()));
    ASSERT_EQ(opened.ok(), outcome.ok()) << opened.status();
  }
}

}  // namespace
}  // namespace holdfast::storage
