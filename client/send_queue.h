// Encoded requests of one stream that wait to be sent, joined to messages as they come.
//
// What was taken out of the queue by its deadline stays among the bytes until its message is sent,
// which leaves it out; where that is never sent, until half of the bytes are of no use.
//
// Pure. Threads: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"

namespace holdfast::internal {

class SendQueue {
 public:
  // Whether a request is still to be sent.
  using Alive = absl::FunctionRef<bool(uint64_t id)>;

  explicit SendQueue(size_t max_batch_bytes) : max_batch_bytes_(max_batch_bytes) {}

  // Where the next item of so many bytes is to be appended to, whole, by the caller. Invalid with
  // the next call of any method. REQUIRES: not larger than max_batch_bytes().
  std::string* Add(uint64_t id, size_t bytes);
  // A request of so many bytes is not alive any more.
  void OnDead(size_t bytes, Alive alive);

  // The next message, an encoded ExchangeRequests; empty: nothing waits. Each of its requests was
  // asked for with `alive`, once, and is in the message if that was true.
  std::string Take(Alive alive);
  // What waits and is alive, in order, item by item; none is in the queue any more.
  std::vector<std::pair<uint64_t, std::string>> TakeAll(Alive alive);

  // REQUIRES: the queue is empty.
  void set_max_batch_bytes(size_t bytes) { max_batch_bytes_ = bytes; }
  size_t max_batch_bytes() const { return max_batch_bytes_; }

  bool empty() const { return messages_.empty(); }
  size_t bytes() const { return bytes_; }

 private:
  struct Part {
    uint64_t id = 0;
    size_t end = 0;  // in the message's bytes; it begins where the one before ends
  };
  struct Message {
    std::string bytes = {};
    std::vector<Part> parts = {};
  };

  size_t max_batch_bytes_;
  std::deque<Message> messages_;
  std::vector<Part> spare_;  // of a message that was taken, for the next one
  size_t last_bytes_ = 0;    // of the message that was taken last: the next will be like it
  size_t bytes_ = 0;         // of all items
  size_t dead_bytes_ = 0;    // about: of those that are not alive
};

}  // namespace holdfast::internal
