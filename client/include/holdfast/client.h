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

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "holdfast/error.h"
#include "holdfast/freshness.h"
#include "holdfast/live.h"
#include "holdfast/mirror.h"
#include "holdfast/options.h"
#include "holdfast/txn.h"
#include "holdfast/types.h"

namespace holdfast {

// Threads: all methods from any thread. The client owns one thread (with mirrors: a few more, for
// their feed, the disk and the validators; docs/client.md); it drives every call and runs
// every callback, one at a time, so a callback must not block. A synchronous method called on that
// thread (from a callback) is refused with FailedPrecondition instead of waiting for itself.
//
// Destruction cancels what is outstanding, waits until every callback has run (with CANCELLED, or
// UNKNOWN for a write that may have been sent), and joins the thread. No method may be called once
// it has begun, except from callbacks, where calls are answered CANCELLED (through a plain pointer:
// a unique_ptr that is being reset is already null). It first tells the store that its session is
// over, if it has one, which takes a quarter of a second at most. REQUIRES: not destroyed from a
// callback.
//
// After a fork() the child can not use the parent's client, and must open its own: every call there
// is answered ABORTED at once (a form with a callback: inside the call).
//
// Limits: memory grows only with the calls that are outstanding, and each ends at its deadline.
class Client {
 public:
  using Options = ClientOptions;

  // Without mirrored prefixes it never touches the network. With them it succeeds at once if each
  // has a usable copy on disk, store up or down; else it waits for the store up to the policy's
  // StartupWait, then takes the policy's defaults. Errors: InvalidArgument for an endpoint that
  // cannot be parsed or an option that makes no sense; DATA_LOSS if a prefix has nothing to serve.
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

  // The copy of a prefix, or of the mirrored prefix that `key_or_prefix` lies in; null: there is
  // none. Lives as long as the client.
  Mirror* mirror(std::string_view key_or_prefix) const;

  // A typed value that stays parsed: see holdfast/live.h. From now on `parse` judges each new value
  // of the key too: a set in which it fails is refused, and the value before it stays.
  // FAILED_PRECONDITION: the key is of no mirrored prefix. NOT_FOUND: it does not exist.
  // Otherwise what `parse` said of the value that is there now.
  template <class T>
  absl::StatusOr<Live<T>> Open(std::string_view key,
                               std::function<absl::StatusOr<T>(std::string_view)> parse) {
    auto core = OpenLive(key,
                         [parse = std::move(parse)](
                             std::string_view bytes) -> absl::StatusOr<internal::LiveCore::Any> {
                           absl::StatusOr<T> value = parse(bytes);
                           if (!value.ok()) return value.status();
                           return std::make_shared<const T>(*std::move(value));
                         });
    if (!core.ok()) return core.status();
    return Live<T>(*std::move(core));
  }

  // Of the mirrored prefix that the key lies in; kConnecting if there is none.
  Link state(std::string_view key_or_prefix) const;
  // What this client knows of itself, for people: endpoints, prefixes, ages, refusals, disk.
  std::string Dump() const;
  // The same as figures, in the Prometheus text format.
  std::string Metrics() const;

  // Asks again for the outcome of a write that ended as MaybeCommitted: the write itself, sent once
  // more under its own number, which can not take effect twice. OK with what it did, now or then.
  // FAILED_PRECONDITION if `maybe_committed` is of no write of this client that can still be asked
  // for (without exactly_once; or too many came after it).
  absl::StatusOr<WriteResult> Resolve(const absl::Status& maybe_committed,
                                      const WriteOptions& options = {});

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
  using ParseAny = std::function<absl::StatusOr<internal::LiveCore::Any>(std::string_view)>;
  absl::StatusOr<std::shared_ptr<internal::LiveCore>> OpenLive(std::string_view key,
                                                               ParseAny parse);
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
