// MvccStore::Writer: collects the effect of log entries and commits it as one WriteBatch.
//
// History entries go into the batch at once, in revision order; records and meta records at the
// commit, from the overlays: each key once however often it was written, in key order, which is how
// a memtable takes them fastest.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <rocksdb/write_batch.h>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/mvcc_codec.h"
#include "storage/mvcc_database.h"
#include "storage/mvcc_overlay.h"
#include "storage/mvcc_reader.h"
#include "storage/mvcc_store.h"

namespace holdfast::storage::mvcc {

class RocksWriter : public MvccStore::Writer {
 public:
  // Writes the batch and makes `state`, which it holds, the store's applied state.
  using CommitFn =
      std::function<absl::Status(rocksdb::WriteBatch* batch, const AppliedState& state)>;

  // `base` is the store's applied state. REQUIRES: `database` and what `commit` refers to outlive
  // the writer.
  RocksWriter(const Database& database, const AppliedState& base, CommitFn commit);

  int64_t revision() const override { return state_.revision; }
  int64_t compact_revision() const override { return state_.compact_revision; }
  void BeginRevision() override;
  bool EndRevision() override;
  void Prefetch(absl::Span<const std::string_view> keys) override;
  absl::Status Put(std::string_view key, std::string_view value, int64_t lease,
                   std::optional<KeyValue>* prev) override;
  absl::StatusOr<int64_t> DeleteRange(std::string_view key, std::string_view range_end,
                                      std::vector<KeyValue>* prev) override;
  absl::StatusOr<std::optional<KeyValue>> Get(std::string_view key) const override;
  absl::Status Range(const RangeOptions& options, RangeResult* result) const override;
  absl::Status Compact(int64_t revision) override;
  void PutMeta(std::string_view key, std::string_view value) override;
  void PutNewMeta(std::string_view key, std::string_view value) override;
  void DeleteMeta(std::string_view key) override;
  absl::StatusOr<std::optional<std::string>> GetMeta(std::string_view key) const override;
  absl::Status ScanMeta(std::string_view prefix, std::string_view from,
                        const MvccStore::MetaVisitor& visit) const override;
  absl::Status ScanRecords(std::string_view from,
                           const std::function<bool(const KeyValueView&)>& visit) const override;
  absl::Status ScanLeaseKeys(int64_t lease,
                             const std::function<bool(std::string_view key)>& visit) const override;
  void SetEventSink(EventSink sink) override { sink_ = std::move(sink); }
  absl::Status Commit(Index index, Term term) override;

 private:
  // The place of the next event in the open revision.
  ModRevision NextMod();
  // Enters one event of `key`: overlay and history. `previous`: its encoded record before, or
  // empty.
  absl::Status Append(std::string_view key, const Record& record, std::string_view previous);
  absl::Status Delete(std::string_view key, const Record& old, std::string_view previous);
  // Moves `key` from one lease to another; 0: none.
  void Attach(std::string_view key, int64_t from_lease, int64_t to_lease);
  void KnowMeta(std::string_view key, const std::optional<std::string>& value) const;
  absl::Status FillBatch();
  void Clear();

  const Database& database_;
  const CommitFn commit_;
  AppliedState state_;     // what the next Commit would publish, but for index and term
  bool open_ = false;      // between BeginRevision and EndRevision
  uint32_t next_sub_ = 0;  // of the open revision; 0: nothing written in it
  RecordOverlay records_;
  MetaOverlay metas_;  // by key of the meta family, prefix byte included
  // What the database holds of meta records that were asked for, so that the next batch need not
  // look for them again. Right because one writer makes all changes. Emptied when it is full.
  mutable absl::flat_hash_map<std::string, std::optional<std::string>> known_metas_;
  mutable size_t known_metas_bytes_ = 0;
  EventSink sink_;
  rocksdb::WriteBatch batch_;
  RecordReader reader_;
  FoundRecord previous_;                   // scratch of Put
  std::vector<std::string_view> missing_;  // scratch of Prefetch
};

}  // namespace holdfast::storage::mvcc
