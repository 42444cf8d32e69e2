// One transaction, at apply or on a view: choose the path, check it, run it (see apply_command.h).
//
// A put or a delete on its own is a transaction of one operation: one set of rules for all.
// Threads: one. Refers to the request and the reader; lives for one command.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "etcd/rpc.pb.h"
#include "server/apply_command.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

// What a transaction reads: the writer at apply, a view otherwise.
class KvReader {
 public:
  virtual ~KvReader() = default;
  virtual int64_t revision() const = 0;
  virtual int64_t compact_revision() const = 0;
  virtual absl::StatusOr<std::optional<storage::KeyValue>> Get(std::string_view key) const = 0;
  virtual absl::Status Range(const storage::RangeOptions& options,
                             storage::RangeResult* result) const = 0;
  virtual absl::StatusOr<bool> LeaseExists(int64_t lease) const = 0;
};

class TxnExecution {
 public:
  // `writer` is null for a transaction that only reads. `max_bytes`: of the answer's records.
  // `max_delete_bytes`: another than kMaxDeleteBytes in tests only.
  TxnExecution(const KvReader& reader, storage::MvccStore::Writer* writer, size_t max_bytes,
               size_t max_delete_bytes = kMaxDeleteBytes)
      : reader_(reader),
        writer_(writer),
        max_bytes_(max_bytes),
        bytes_left_(max_bytes),
        delete_bytes_left_(max_delete_bytes) {}

  // Decides the path of `txn` and checks everything on it that may fail. Not OK: a refusal, or
  // fatal() is set. Nothing was written.
  absl::Status Prepare(const etcdserverpb::TxnRequest& txn);
  absl::Status PreparePut(const etcdserverpb::PutRequest& put) { return CheckPut(put); }
  absl::Status PrepareDelete(const etcdserverpb::DeleteRangeRequest& request) {
    return CheckDelete(request);
  }

  // The operations, in order. `response` null: nobody waits for the answer, only writes count.
  // Not OK: fatal() is set; or, on a view alone, an answer beyond `max_bytes`.
  // REQUIRES: prepared; for writes an open revision.
  absl::Status Run(const etcdserverpb::TxnRequest& txn, etcdserverpb::TxnResponse* response);
  absl::Status RunPut(const etcdserverpb::PutRequest& put, etcdserverpb::PutResponse* response);
  absl::Status RunDelete(const etcdserverpb::DeleteRangeRequest& request,
                         etcdserverpb::DeleteRangeResponse* response);

  // This member's disk failed: the node must stop.
  const absl::Status& fatal() const { return fatal_; }

 private:
  absl::Status ChoosePath(const etcdserverpb::TxnRequest& txn);
  absl::StatusOr<bool> Holds(const etcdserverpb::Compare& compare);

  absl::Status CheckBranch(const etcdserverpb::TxnRequest& txn);
  absl::Status CheckRange(const etcdserverpb::RangeRequest& request);
  absl::Status CheckPut(const etcdserverpb::PutRequest& put);
  absl::Status CheckDelete(const etcdserverpb::DeleteRangeRequest& request);
  bool DeletedOnPath(std::string_view key) const;

  absl::Status RunRange(const etcdserverpb::RangeRequest& request,
                        etcdserverpb::RangeResponse* response);

  // What the next operation's header says: the new revision from the first write on.
  int64_t HeaderRevision() const { return reader_.revision() + (wrote_ ? 1 : 0); }
  absl::Status FromRead(const absl::Status& status, size_t max_bytes);
  absl::Status FromWrite(const absl::Status& status);

  const KvReader& reader_;
  storage::MvccStore::Writer* const writer_;
  const size_t max_bytes_;
  size_t bytes_left_;
  size_t delete_bytes_left_;
  // True: success. In the order in which transactions are met on the chosen path; next_ is the next
  // to be met, in the check and again in the run.
  std::vector<bool> path_;
  size_t next_ = 0;
  std::vector<const etcdserverpb::DeleteRangeRequest*> deletes_on_path_;
  bool wrote_ = false;
  absl::Status fatal_;
};

}  // namespace holdfast::server
