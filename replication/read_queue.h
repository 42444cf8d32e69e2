// Linearizable reads on the raft thread: waiting, asked, granted, done.
//
// All reads of a turn share one read id. Every waiter is called exactly once.
// Threads: one. Limits: waiters came through the node's inbox and each has a deadline.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "base/ids.h"

namespace holdfast::raft {

struct ReadWaiter {
  int64_t deadline_ns = 0;
  absl::AnyInvocable<void(absl::StatusOr<Index>) &&> done;
};

class ReadQueue {
 public:
  // `boot`: random per process start; ids begin there, so that none is that of a former life.
  ReadQueue(int64_t ask_again_ns, uint64_t boot)
      : ask_again_ns_(ask_again_ns), next_id_((boot >> 1) + 1) {}

  void Add(ReadWaiter waiter) { waiting_.push_back(std::move(waiter)); }
  uint64_t NextId() { return next_id_++; }
  // The id under which to ask for everything that waits; nullopt: nothing does.
  std::optional<uint64_t> Ask(int64_t now_ns);
  // The core's answers.
  void Grant(uint64_t id, Index index);
  void AskAgain(uint64_t id);
  void OnApplied(Index applied);
  // Fails those past their deadline; asks again for what had no answer for ask_again_ns.
  void Expire(int64_t now_ns);
  // Those not yet granted.
  void Refuse(const absl::Status& why);
  void RefuseAll(const absl::Status& why);

 private:
  struct Asked {
    int64_t at_ns = 0;
    std::vector<ReadWaiter> waiters;
  };
  static void ExpireIn(std::vector<ReadWaiter>& waiters, int64_t now_ns);

  const int64_t ask_again_ns_;
  uint64_t next_id_;
  int64_t next_expiry_ns_ = 0;
  std::vector<ReadWaiter> waiting_;
  std::map<uint64_t, Asked> asked_;
  std::multimap<Index, std::vector<ReadWaiter>> granted_;  // wait for apply
};

}  // namespace holdfast::raft
