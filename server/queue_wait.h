// Waits until a key is the oldest of its prefix: all that were created before it are gone.
//
// One atomic look (a transaction that only reads) tells whether the key still exists as it was
// created, and which is the youngest of the older ones. Nothing older: the wait is over, and the
// key was there at that very revision. Otherwise the deletion of that one key is watched, so that
// each deletion wakes one waiter, and the own key's deletion, so that a waiter whose lease expired
// learns it at once. Whatever ends a watch (a compaction, a broken stream) leads to a new look, so
// nothing can be missed.
//
// Part of a WaitingCall, on its strand.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "etcd/rpc.pb.h"
#include "server/caller_terms.h"
#include "server/inner_watch.h"
#include "server/retry_pause.h"
#include "server/waiting_calls.h"

namespace holdfast::server {

class QueueWait {
 public:
  struct Place {
    std::string prefix;  // ends with '/'
    std::string key;
    int64_t revision = 0;  // its create revision
  };
  // OK, with the header of the look: the key is the oldest. NotFound: it is gone. Otherwise the
  // error of a call that is not worth another try.
  using OnEnd = std::function<void(const absl::Status&, const etcdserverpb::ResponseHeader&)>;

  // `owner` outlives this. Nothing happens before Start.
  QueueWait(WaitingCall* owner, CallerTerms terms, Place place, OnEnd on_end);

  // On the strand; on_end follows there, once, unless Cancel comes first.
  void Start();
  void Cancel();

 private:
  void Look();
  void OnLook(const absl::Status& status, const etcdserverpb::TxnResponse& answer);
  void Watch(const std::string& predecessor, int64_t from);
  void OnWatch(const etcdserverpb::WatchResponse& response);
  void CloseWatch();
  void Retry(const absl::Status& status);
  void End(const absl::Status& status, const etcdserverpb::ResponseHeader& header = {});

  WaitingCall* const owner_;
  const CallerTerms terms_;
  const Place place_;
  const OnEnd on_end_;
  bool ended_ = false;
  InnerClient::Call look_;
  std::shared_ptr<InnerWatch> watch_;
  uint64_t watch_number_ = 0;  // callbacks of earlier ones are ignored
  RetryPause::Clock::time_point watching_since_;
  RetryPause pause_;
  Timer timer_;
};

// The keys below `prefix`, which ends with '/'.
void SetPrefix(const std::string& prefix, etcdserverpb::RangeRequest* range);
std::string PrefixEnd(const std::string& prefix);

}  // namespace holdfast::server
