// etcd's RangeRequest rules over a RecordReader: revision, count, filters, sort, limit.
//
// Threads: one at a time.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "storage/mvcc_reader.h"
#include "storage/mvcc_store.h"

namespace holdfast::storage::mvcc {

// Which revisions may be asked for.
struct ReadableRevisions {
  int64_t newest = 1;
  int64_t compact = 0;
};

// `*result` is emptied first. Errors: see MvccStore::View::Range.
absl::Status ReadRange(const RecordReader& reader, const RangeOptions& options,
                       const ReadableRevisions& readable, RangeResult* result);

absl::Status CompactedError();
absl::Status FutureRevisionError();

}  // namespace holdfast::storage::mvcc
