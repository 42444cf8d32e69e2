// The state machine's data on RocksDB: etcd's data model without etcd's in-memory index.
//
// Column families (atomic_flush, WAL off: the Raft log is the one source of truth on disk):
//   current: key -> {create, mod (main, sub), version, lease, value}; a deleted key stays as a
//            tombstone until a compaction passes its revision.
//   history: (main, sub) big endian -> {event: put or delete, kv, previous record}: an undo log in
//            revision order. A read at revision R walks a key back from its current record;
//            compaction is one range delete of a sorted prefix.
//   meta:    applied {index, term, revision, compact revision}, which keys are attached to which
//            lease, and the state machine's own records.
// The applied index is written in the same WriteBatch as the data it belongs to.
//
// Threads: one Writer at a time (the apply thread). Views, Checkpoint and Flush from any thread,
// beside it.
// Errors: Status with RocksDB's text. A failed Commit or Flush is final: the caller stops the node.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/ids.h"

namespace holdfast::storage {

struct KeyValue {
  std::string key;
  std::string value;
  int64_t create_revision = 0;
  int64_t mod_revision = 0;
  int64_t version = 0;
  int64_t lease = 0;
};

// A record in somebody else's memory.
struct KeyValueView {
  std::string_view key;
  std::string_view value;
  int64_t create_revision = 0;
  int64_t mod_revision = 0;
  int64_t version = 0;
  int64_t lease = 0;
};

// One change of one key. `sub` orders the changes of one revision. Of a delete, `kv` has the key
// and the revision (as its mod_revision) alone.
struct EventView {
  int64_t revision = 0;
  uint32_t sub = 0;
  bool is_delete = false;
  KeyValueView kv = {};
  // What the key held before; nullopt: nothing, or it was deleted.
  std::optional<KeyValueView> previous = std::nullopt;
};

// As of the last committed batch. An empty store is at revision 1, as etcd's is.
struct AppliedState {
  Index index;
  Term term;
  int64_t revision = 1;
  int64_t compact_revision = 0;
};

enum class SortTarget { kKey, kVersion, kCreate, kMod, kValue };
enum class SortOrder { kNone, kAscend, kDescend };

// etcd's RangeRequest. [key, range_end); an empty range_end means `key` alone; "\0" means no end.
struct RangeOptions {
  std::string key;
  std::string range_end;
  int64_t limit = 0;     // 0: none
  int64_t revision = 0;  // <= 0: newest
  SortOrder sort_order = SortOrder::kNone;
  SortTarget sort_target = SortTarget::kKey;
  bool keys_only = false;
  bool count_only = false;
  int64_t min_mod_revision = 0, max_mod_revision = 0;        // 0: no bound
  int64_t min_create_revision = 0, max_create_revision = 0;  // 0: no bound
  // A named limit, not etcd's: the answer's keys and values together. Beyond it ResourceExhausted.
  size_t max_bytes = SIZE_MAX;
  // Asked before the answer grows by so many bytes (in steps of some 64 KiB); false ends the read
  // with ResourceExhausted. Null: nobody counts.
  std::function<bool(size_t bytes)> take = nullptr;
  // One page of a longer read in key order: what lies behind the answer is not counted (`count` is
  // of what was looked at), and the answer ends, `more` set, at about so many bytes, but not before
  // its first record. 0: no page.
  size_t page_bytes = 0;
};

struct RangeResult {
  std::vector<KeyValue> kvs;
  bool more = false;
  int64_t count = 0;  // of the whole range at that revision, before limit and filters
  int64_t bytes = 0;  // the keys and values that were counted
};

// Errors that callers tell apart by code: OutOfRange with payload text exactly
// kCompactedText or kFutureRevisionText.
inline constexpr std::string_view kCompactedText = "required revision has been compacted";
inline constexpr std::string_view kFutureRevisionText = "required revision is a future revision";

class MvccStore {
 public:
  struct Options {
    std::string dir;
    size_t block_cache_bytes = size_t{64} << 20;
    // Of the newest records that were read or written last: what hits here is not looked up.
    size_t record_cache_bytes = size_t{48} << 20;
    size_t write_buffer_bytes = size_t{32}
                                << 20;  // of all column families together, before a flush
  };

  using MetaVisitor = std::function<bool(std::string_view key, std::string_view value)>;

  // An immutable view of one applied index. Cheap (a RocksDB snapshot); do not keep it for long.
  // Threads: one at a time. Must not outlive the store.
  class View {
   public:
    virtual ~View() = default;
    virtual const AppliedState& applied() const = 0;
    // Never holds more than the answer (a sorted read with a limit keeps `limit` entries; counting
    // keeps none). OutOfRange: kCompactedText if 0 < revision < compact_revision,
    // kFutureRevisionText if revision > applied().revision.
    virtual absl::Status Range(const RangeOptions& options, RangeResult* result) const = 0;
    // nullopt: no such key (or deleted).
    virtual absl::StatusOr<std::optional<KeyValue>> Get(std::string_view key) const = 0;
    // As Get for each key; `visit` is called once for each, in any order, until it returns false.
    // What it is given lives as long as the call; null: no such key. The first error ends it. Holds
    // about a mebibyte, or one record, at a time.
    virtual absl::Status GetMany(
        absl::Span<const std::string_view> keys,
        absl::FunctionRef<bool(size_t index, const KeyValueView* kv)> visit) const;
    virtual absl::StatusOr<std::optional<std::string>> GetMeta(std::string_view key) const = 0;
    // Keys that begin with `prefix` and are not below `from`, in order; `visit` returns false to
    // stop.
    virtual absl::Status ScanMeta(std::string_view prefix, std::string_view from,
                                  const MetaVisitor& visit) const = 0;
    absl::Status ScanMeta(std::string_view prefix, const MetaVisitor& visit) const {
      return ScanMeta(prefix, prefix, visit);
    }

    // The next four hold one record at a time, however many there are. `visit` returns false to
    // stop; what it is given lives as long as the call.
    //   The newest live records from `from` on, in key order.
    virtual absl::Status ScanRecords(
        std::string_view from, const std::function<bool(const KeyValueView&)>& visit) const = 0;
    //   The live records as of `revision`, from `from` on, in key order. OutOfRange as Range's.
    virtual absl::Status ScanRecordsAt(
        int64_t revision, std::string_view from,
        const std::function<bool(const KeyValueView&)>& visit) const = 0;
    //   Every event with a revision >= from_revision, in order. A compacted event is not there:
    //   OutOfRange, kCompactedText, if from_revision < compact_revision. Of the compact revision's
    //   own events `previous` is not told.
    virtual absl::Status ScanHistory(int64_t from_revision,
                                     const std::function<bool(const EventView&)>& visit) const = 0;
    //   The keys attached to a lease, in key order.
    virtual absl::Status ScanLeaseKeys(
        int64_t lease, const std::function<bool(std::string_view key)>& visit) const = 0;
  };

  // Collects the effect of many log entries and commits them in one WriteBatch.
  // Reads through it see what it wrote. Revisions: BeginRevision(), writes, EndRevision(); a
  // revision in which nothing was written is given back, so that a delete of nothing bumps nothing.
  class Writer {
   public:
    virtual ~Writer() = default;
    // The revision the next write would get is revision() + 1; inside BeginRevision..EndRevision
    // revision() stays the last finished one and every write shares revision() + 1 with rising sub.
    virtual int64_t revision() const = 0;
    virtual int64_t compact_revision() const = 0;
    virtual void BeginRevision() = 0;
    // True if anything was written (then revision() is one more).
    virtual bool EndRevision() = 0;

    // A hint, between two revisions: these keys are about to be written or read. Looks up at once
    // what the commands of a batch would look up one by one. An error shows when they do.
    virtual void Prefetch(absl::Span<const std::string_view> keys) { static_cast<void>(keys); }

    // REQUIRES: between BeginRevision and EndRevision. `prev`, if not null, gets the record before.
    virtual absl::Status Put(std::string_view key, std::string_view value, int64_t lease,
                             std::optional<KeyValue>* prev) = 0;
    // Deletes every live key in the range (RangeOptions' rules for range_end); `prev`, if not null,
    // gets the deleted records in key order.
    virtual absl::StatusOr<int64_t> DeleteRange(std::string_view key, std::string_view range_end,
                                                std::vector<KeyValue>* prev) = 0;
    virtual absl::StatusOr<std::optional<KeyValue>> Get(std::string_view key) const = 0;
    // As View::Range, over the base and what was written so far (also inside an open revision,
    // where "newest" includes it).
    virtual absl::Status Range(const RangeOptions& options, RangeResult* result) const = 0;
    // Logical at once: reads below `revision` answer kCompactedText from this batch on. Space is
    // freed in the background. OutOfRange: kCompactedText if revision <= compact_revision(),
    // kFutureRevisionText if revision > revision().
    virtual absl::Status Compact(int64_t revision) = 0;
    virtual void PutMeta(std::string_view key, std::string_view value) = 0;
    // The same, and the caller knows that there is no such record: should it be deleted again
    // before the commit, nothing of it is written.
    virtual void PutNewMeta(std::string_view key, std::string_view value) { PutMeta(key, value); }
    virtual void DeleteMeta(std::string_view key) = 0;
    virtual absl::StatusOr<std::optional<std::string>> GetMeta(std::string_view key) const = 0;
    // As View's, over the base and what was written so far. `visit` must not write.
    virtual absl::Status ScanMeta(std::string_view prefix, std::string_view from,
                                  const MetaVisitor& visit) const = 0;
    absl::Status ScanMeta(std::string_view prefix, const MetaVisitor& visit) const {
      return ScanMeta(prefix, prefix, visit);
    }
    virtual absl::Status ScanRecords(
        std::string_view from, const std::function<bool(const KeyValueView&)>& visit) const = 0;
    virtual absl::Status ScanLeaseKeys(
        int64_t lease, const std::function<bool(std::string_view key)>& visit) const = 0;

    // Called for each event as it is written, in order, before it is committed; null: for none.
    // What it is given lives as long as the call.
    using EventSink = std::function<void(const EventView&)>;
    virtual void SetEventSink(EventSink sink) = 0;

    // One atomic WriteBatch of everything, the applied state included; views made after this see
    // it. Then the writer is empty and may be used again.
    virtual absl::Status Commit(Index index, Term term) = 0;
  };

  virtual ~MvccStore() = default;

  // Creates the directory if missing. FailedPrecondition: in use by another process, or written by
  // a newer format. DataLoss: corrupt.
  static absl::StatusOr<std::unique_ptr<MvccStore>> Open(const Options& options);

  virtual AppliedState applied() const = 0;  // of the last Commit
  virtual std::unique_ptr<View> NewView() const = 0;
  virtual std::unique_ptr<Writer> NewWriter() = 0;

  // Writes memtables to synced files; on success everything applied before the call survives a
  // power cut, and the log may be compacted up to the returned index.
  virtual absl::StatusOr<Index> Flush() = 0;

  // A consistent copy (hard links where possible) in `dir`, which must not exist; returns what it
  // holds. It opens with MvccStore::Open.
  virtual absl::StatusOr<AppliedState> Checkpoint(const std::string& dir) = 0;

  // Flushes, and gives back what deleted keys and compacted history still take. Reads and writes go
  // on meanwhile. Rewrites whole files, so it needs as much free space as the data takes for the
  // time; `stop`, once set, ends it early, with OK. A failure to write is final, as Flush's.
  virtual absl::Status Defragment(std::atomic<bool>* stop) = 0;

  virtual uint64_t disk_bytes() const = 0;    // files and memtables
  virtual uint64_t in_use_bytes() const = 0;  // estimated live data
};

}  // namespace holdfast::storage
