// The Holdfast client: reads and writes on a Holdfast (or etcd v3) store that go on through failing
// endpoints, and that always say how old the answer can be.
//
//   auto client = holdfast::Client::Open({.endpoints = {"a:2379", "b:2379", "c:2379"}});
//   auto read = (*client)->Get("/config/limits",
//                              ReadOptions::Linearizable().OrStale(absl::Minutes(10)));
//   if (read.ok() && read->value) Use(read->value->value, read->fresh.MaxAge());
//
// Errors: see holdfast/error.h.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "holdfast/error.h"
#include "holdfast/freshness.h"
#include "holdfast/options.h"
#include "holdfast/txn.h"
#include "holdfast/types.h"

namespace holdfast {

// Threads: all methods from any thread. The client owns one thread; it drives every call and runs
// every callback, one at a time, so a callback must not block. A synchronous method called on that
// thread (from a callback) is refused with FailedPrecondition instead of waiting for itself.
//
// Destruction cancels what is outstanding, waits until every callback has run (with CANCELLED, or
// UNKNOWN for a write that may have been sent), and joins the thread. No method may be called once
// it has begun, except from callbacks, where calls are answered CANCELLED (through a plain pointer:
// a unique_ptr that is being reset is already null). REQUIRES: not destroyed from a callback.
//
// Limits: memory grows only with the calls that are outstanding, and each ends at its deadline.
class Client {
 public:
  using Options = ClientOptions;

  // Never touches the network, so it succeeds with the store down. InvalidArgument for an endpoint
  // that cannot be parsed or an option that makes no sense.
  static absl::StatusOr<std::unique_ptr<Client>> Open(Options options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // A key that does not exist is an OK answer, nullopt, with a freshness like any other.
  Result<std::optional<Entry>> Get(std::string_view key, const ReadOptions& options = {});
  // All keys with this prefix, at one revision, fetched page by page. The freshness is that of the
  // first page. OUT_OF_RANGE if a compaction overtakes the scan: scan again.
  Result<std::vector<Entry>> Scan(std::string_view prefix, const ReadOptions& options = {});
  // One page.
  Result<RangeResult> Range(const RangeQuery& query, const ReadOptions& options = {});

  absl::StatusOr<WriteResult> Put(std::string_view key, std::string_view value,
                                  const WriteOptions& options = {});
  // Of a key that does not exist: OK, with deleted == 0.
  absl::StatusOr<WriteResult> Delete(std::string_view key, const WriteOptions& options = {});
  absl::StatusOr<WriteResult> DeletePrefix(std::string_view prefix,
                                           const WriteOptions& options = {});
  absl::StatusOr<TxnResult> Commit(const Txn& txn, const WriteOptions& options = {});

  // The same, asynchronous; the methods above are built on these. `done` runs exactly once, on the
  // client's thread, never inside the call itself.
  void Get(std::string_view key, const ReadOptions& options, Done<Read<std::optional<Entry>>> done);
  void Scan(std::string_view prefix, const ReadOptions& options,
            Done<Read<std::vector<Entry>>> done);
  void Range(const RangeQuery& query, const ReadOptions& options, Done<Read<RangeResult>> done);
  void Put(std::string_view key, std::string_view value, const WriteOptions& options,
           Done<WriteResult> done);
  void Delete(std::string_view key, const WriteOptions& options, Done<WriteResult> done);
  void DeletePrefix(std::string_view prefix, const WriteOptions& options, Done<WriteResult> done);
  void Commit(const Txn& txn, const WriteOptions& options, Done<TxnResult> done);

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
