#include "replication/read_queue.h"

#include <iterator>
#include <utility>

namespace holdfast::raft {
namespace {

constexpr int64_t kExpiryEveryNs = 50'000'000;

void MoveInto(std::vector<ReadWaiter>& to, std::vector<ReadWaiter>& from) {
  std::move(from.begin(), from.end(), std::back_inserter(to));
  from.clear();
}

void Fail(std::vector<ReadWaiter>& waiters, const absl::Status& why) {
  for (ReadWaiter& waiter : std::exchange(waiters, {})) std::move(waiter.done)(why);
}

}  // namespace

std::optional<uint64_t> ReadQueue::Ask(int64_t now_ns) {
  if (waiting_.empty()) return std::nullopt;
  const uint64_t id = NextId();
  asked_.emplace(id, Asked{now_ns, std::exchange(waiting_, {})});
  return id;
}

void ReadQueue::Grant(uint64_t id, Index index) {
  auto node = asked_.extract(id);
  if (node.empty() || node.mapped().waiters.empty()) return;
  granted_.emplace(index, std::move(node.mapped().waiters));
}

void ReadQueue::AskAgain(uint64_t id) {
  auto node = asked_.extract(id);
  if (!node.empty()) MoveInto(waiting_, node.mapped().waiters);
}

void ReadQueue::OnApplied(Index applied) {
  while (!granted_.empty() && granted_.begin()->first <= applied) {
    auto node = granted_.extract(granted_.begin());
    for (ReadWaiter& waiter : node.mapped()) std::move(waiter.done)(applied);
  }
}

void ReadQueue::ExpireIn(std::vector<ReadWaiter>& waiters, int64_t now_ns) {
  std::vector<ReadWaiter> still;
  for (ReadWaiter& waiter : std::exchange(waiters, {})) {
    if (waiter.deadline_ns <= now_ns) {
      std::move(waiter.done)(absl::DeadlineExceededError("the read waited too long"));
    } else {
      still.push_back(std::move(waiter));
    }
  }
  waiters = std::move(still);
}

void ReadQueue::Expire(int64_t now_ns) {
  if (now_ns < next_expiry_ns_) return;
  next_expiry_ns_ = now_ns + kExpiryEveryNs;
  for (auto it = asked_.begin(); it != asked_.end();) {
    if (now_ns - it->second.at_ns >= ask_again_ns_) {
      MoveInto(waiting_, it->second.waiters);
      it = asked_.erase(it);
    } else {
      ++it;
    }
  }
  ExpireIn(waiting_, now_ns);
  for (auto& [index, waiters] : granted_) ExpireIn(waiters, now_ns);
}

void ReadQueue::Refuse(const absl::Status& why) {
  Fail(waiting_, why);
  for (auto& [id, asked] : std::exchange(asked_, {})) Fail(asked.waiters, why);
}

void ReadQueue::RefuseAll(const absl::Status& why) {
  Refuse(why);
  for (auto& [index, waiters] : std::exchange(granted_, {})) Fail(waiters, why);
}

}  // namespace holdfast::raft
