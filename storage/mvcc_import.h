// Fills a new MVCC store from a backup: records as they were, with their own revisions, in batches.
// Nothing of it counts before Finish(): whoever imports throws the directory away after a crash and
// begins again.
//
// The store it leaves has no history: it begins at the revision given, everything before is
// compacted. Attachments of leases are written with the records.
//
// Threads: one at a time. Memory: kImportBatchBytes and one record more, besides RocksDB's own.
// Errors: as MvccStore's; after one the import is of no use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/mvcc_store.h"

namespace holdfast::storage {

inline constexpr size_t kImportBatchBytes = size_t{4} << 20;

class MvccImport {
 public:
  virtual ~MvccImport() = default;

  // FailedPrecondition: there is a store in options.dir that holds something.
  static absl::StatusOr<std::unique_ptr<MvccImport>> Open(const MvccStore::Options& options);

  // In any order; of a key the last one counts, for a backup is a state and then changes of it.
  virtual absl::Status Put(const KeyValueView& record) = 0;
  // OK if there is no such key.
  virtual absl::Status Delete(std::string_view key) = 0;
  virtual absl::Status PutMeta(std::string_view key, std::string_view value) = 0;

  // Every lease that a record has by now, once each, in the order of their unsigned numbers.
  virtual absl::Status VisitLeases(const std::function<void(int64_t lease)>& visit) = 0;

  // Writes what is left and `state`, synced. REQUIRES: 0 <= compact_revision <= revision; no
  // record's mod_revision above `revision`. Nothing else may be called after it.
  virtual absl::Status Finish(const AppliedState& state) = 0;
};

}  // namespace holdfast::storage
