#include "client/send_queue.h"

#include <algorithm>

#include "base/check.h"

namespace holdfast::internal {
namespace {

// Below this nothing is gained by clearing out.
constexpr size_t kDeadWorthwhile = size_t{64} << 10;

}  // namespace

std::string* SendQueue::Add(uint64_t id, size_t bytes) {
  CHECK(bytes <= max_batch_bytes_);
  if (messages_.empty() || messages_.back().bytes.size() + bytes > max_batch_bytes_) {
    messages_.emplace_back();
    messages_.back().parts.swap(spare_);
    messages_.back().bytes.reserve(last_bytes_);
  }
  Message& message = messages_.back();
  message.parts.push_back({id, message.bytes.size() + bytes});
  bytes_ += bytes;
  return &message.bytes;
}

void SendQueue::OnDead(size_t bytes, Alive alive) {
  dead_bytes_ += bytes;
  if (dead_bytes_ < kDeadWorthwhile || dead_bytes_ < bytes_ / 2) return;
  for (const auto& [id, item] : TakeAll(alive)) Add(id, item.size())->append(item);
}

std::string SendQueue::Take(Alive alive) {
  while (!messages_.empty()) {
    Message message = std::move(messages_.front());
    messages_.pop_front();
    bytes_ -= message.bytes.size();
    last_bytes_ = message.bytes.size();
    size_t begin = 0;
    size_t to = 0;
    for (const Part& part : message.parts) {
      const size_t size = part.end - begin;
      if (alive(part.id)) {
        if (to != begin) message.bytes.replace(to, size, message.bytes, begin, size);
        to += size;
      } else {
        dead_bytes_ -= std::min(dead_bytes_, size);
      }
      begin = part.end;
    }
    message.bytes.resize(to);
    message.parts.clear();
    spare_.swap(message.parts);
    if (!message.bytes.empty()) return std::move(message.bytes);
  }
  return {};
}

std::vector<std::pair<uint64_t, std::string>> SendQueue::TakeAll(Alive alive) {
  std::vector<std::pair<uint64_t, std::string>> items;
  for (const Message& message : messages_) {
    size_t begin = 0;
    for (const Part& part : message.parts) {
      if (alive(part.id))
        items.emplace_back(part.id, message.bytes.substr(begin, part.end - begin));
      begin = part.end;
    }
  }
  messages_.clear();
  bytes_ = dead_bytes_ = 0;
  return items;
}

}  // namespace holdfast::internal
