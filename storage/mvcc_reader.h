// Reading records: of one key or in key order, newest or as of a revision, of the database alone or
// with a writer's uncommitted records on top.
//
// A key's record as of revision R: start at its newest record; while that is younger than R, its
// history entry tells the record before it. Tombstones are records like others, so a walk leads
// through a deletion and a re-creation too.
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <rocksdb/iterator.h>
#include <rocksdb/options.h>
#include <rocksdb/slice.h>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "storage/mvcc_codec.h"
#include "storage/mvcc_database.h"
#include "storage/mvcc_overlay.h"

namespace holdfast::storage::mvcc {

inline constexpr int64_t kNewest = INT64_MAX;

// etcd's key and range_end. Points into the strings it was made from.
struct KeySpan {
  enum class Kind { kSingle, kBounded, kUnbounded };

  Kind kind = Kind::kSingle;
  std::string_view begin;
  std::string_view end;  // of kBounded

  static KeySpan Of(std::string_view key, std::string_view range_end);
  bool empty() const { return kind == Kind::kBounded && begin >= end; }
};

// A record with the memory it points into. Reuse one for many reads.
struct FoundRecord {
  Record record;
  std::string_view bytes;
  rocksdb::PinnableSlice pin;
};

class RecordReader {
 public:
  // `snapshot` and `overlay` may be null. All must outlive the reader. `revision` is the
  // snapshot's; kNewest without one, which only the writer may do (RecordCache).
  RecordReader(const Database& database, const rocksdb::Snapshot* snapshot, int64_t revision,
               const RecordOverlay* overlay);

  // The newest record, tombstones included. False: the key has none.
  absl::StatusOr<bool> FindNewest(std::string_view key, FoundRecord* found) const;
  // As FindNewest for each key, of the database alone: without the overlay. `visit` is called once
  // for each key, in any order, until it returns false; null: the key has none. What it is given
  // lives as long as the call. The first error ends it. Holds about kManyBytesMax, or one record,
  // at a time.
  absl::Status FindMany(
      absl::Span<const std::string_view> keys,
      absl::FunctionRef<bool(size_t index, const FoundRecord* found)> visit) const;
  // The live record as of revision `at`. False: no such key then.
  // REQUIRES: `at` is not below the compact revision.
  absl::StatusOr<bool> FindAt(std::string_view key, int64_t at, FoundRecord* found) const;
  absl::StatusOr<std::optional<KeyValue>> Get(std::string_view key) const;
  // A record of the state machine's own, of the database alone.
  absl::StatusOr<std::optional<std::string>> GetMeta(std::string_view key) const;
  // Keys of the meta family as they lie there, prefix byte included, in order; `metas`, if not
  // null, goes before the database.
  absl::Status ScanMeta(std::string_view prefix, std::string_view from, const MetaOverlay* metas,
                        const MvccStore::MetaVisitor& visit) const;
  // See MvccStore::View.
  absl::Status ScanRecords(std::string_view from,
                           const std::function<bool(const KeyValueView&)>& visit) const;
  // REQUIRES: `at` is not below the compact revision.
  absl::Status ScanRecordsAt(int64_t at, std::string_view from,
                             const std::function<bool(const KeyValueView&)>& visit) const;
  // Of the database alone. REQUIRES: from_revision is not below the compact revision.
  absl::Status ScanHistory(int64_t from_revision,
                           const std::function<bool(const EventView&)>& visit) const;

 private:
  friend class RecordCursor;

  // So many keys are looked up at once, and so many bytes of values kept for that.
  static constexpr size_t kManyKeys = 128;
  static constexpr size_t kManyBytesMax = size_t{1} << 20;

  // False: the cache does not know. Else `*exists`, and what there is in `found`.
  bool FindCached(std::string_view key, FoundRecord* found, bool* exists) const;
  absl::Status FindManyInDatabase(
      absl::Span<const std::string_view> keys, std::vector<size_t> order,
      absl::FunctionRef<bool(size_t index, const FoundRecord* found)> visit) const;
  absl::StatusOr<bool> FindBase(std::string_view key, FoundRecord* found) const;
  absl::StatusOr<bool> FindUncommitted(const PendingRecord* newest, int64_t at,
                                       FoundRecord* found) const;
  // From found->record back to the last one not younger than `at`. False: there was none.
  absl::StatusOr<bool> WalkBack(int64_t at, FoundRecord* found) const;

  const Database& database_;
  const RecordOverlay* const overlay_;
  const int64_t revision_;
  rocksdb::ReadOptions options_;
};

// The live records of a span as of a revision, in key order.
// The overlay may gain records between two calls of Next(), at keys up to the current one.
class RecordCursor {
 public:
  // REQUIRES: the reader, and the strings behind the span, outlive the cursor.
  RecordCursor(const RecordReader& reader, const KeySpan& span, int64_t at);

  // False at the end, or on an error: see status().
  bool Next();
  const absl::Status& status() const { return status_; }

  // Of the record Next() found; valid until the next call.
  std::string_view key() const { return key_; }
  const Record& record() const { return found_.record; }
  std::string_view bytes() const { return found_.bytes; }

 private:
  // Moves to the smallest key behind key_ that has any record. False at the end.
  bool AdvanceKey();
  // The record of key_ as of at_. False: none, or an error in status_.
  bool ReadKey();
  absl::StatusOr<bool> ReadBase();
  bool InSpan(std::string_view key) const;

  const RecordReader& reader_;
  const KeySpan span_;
  const int64_t at_;
  rocksdb::Slice upper_bound_;
  std::unique_ptr<rocksdb::Iterator> base_;
  const PendingRecord* uncommitted_ = nullptr;  // of key_, if the overlay has it
  bool in_base_ = false;                        // base_ stands on key_
  bool started_ = false;
  std::string_view key_;
  FoundRecord found_;
  absl::Status status_;
};

// Key of the meta family for the state machine's `key`.
std::string UserMetaKey(std::string_view key);

}  // namespace holdfast::storage::mvcc
