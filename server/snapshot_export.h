// A view of the store as a backup stream (api/holdfast/backup.proto over base/frames.h), piece by
// piece: header, live records in key order, leases, end, padding to a multiple of 512 bytes.
//
// The stream depends on nothing but the view and Origin: two exports of one view are the same
// bytes. No hash is in it; Maintenance.Snapshot sends the SHA-256 of the stream behind it.
//
// Threads: one at a time, any. Next() reads RocksDB: not on a thread that must not wait for a disk.
// Memory: one piece, one frame that is being built (kExportFrameBytes and one record more).
// Ownership: keeps the view, and so its RocksDB snapshot, until it is destroyed; the store must
// outlive it (hand the shared_ptr in).
// Errors: the store's, as they come; after one the stream is of no use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

// Records of one frame, keys and values together, before it is closed.
inline constexpr size_t kExportFrameBytes = size_t{256} << 10;
// etcdctl takes size % 512 == 32 for "there is a SHA-256 at the end".
inline constexpr size_t kExportAlignment = 512;

class SnapshotExport {
 public:
  // Goes into the header of the backup.
  struct Origin {
    uint64_t cluster_id = 0;
    uint64_t incarnation = 0;
    std::string version;            // of this program
    int64_t wall_time_unix_ms = 0;  // for people
  };

  virtual ~SnapshotExport() = default;

  // REQUIRES: `view` is of `store`.
  static std::unique_ptr<SnapshotExport> Create(std::shared_ptr<storage::MvccStore> store,
                                                std::unique_ptr<storage::MvccStore::View> view,
                                                const Origin& origin);

  // The next bytes of the stream: exactly `max_bytes` (> 0), or fewer at its end; empty behind it.
  // So pieces of 32 KiB or more, each a message, are what etcd's own server sends.
  virtual absl::StatusOr<std::string> Next(size_t max_bytes) = 0;
  // True once everything has been handed out.
  virtual bool done() const = 0;

  // The revision that the backup holds.
  virtual int64_t revision() const = 0;
  // A guess of what is still to come, for SnapshotResponse.remaining_bytes. At least 1 until done.
  virtual uint64_t remaining_bytes_estimate() const = 0;
};

}  // namespace holdfast::server
