// Bytes of etcd's WatchResponse, put together by hand so that one encoded event serves all who
// watch its key: a response is a small head of its own and the shared bytes of its events.
//
// Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "etcd/rpc.pb.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

using SharedBytes = std::shared_ptr<const std::string>;

// One change of one key, as the field `events` of a WatchResponse, tag and length included.
class EncodedEvent {
 public:
  // `with_previous`: keep what the key held before, should somebody ask for it. Without it
  // knows_previous() is false.
  EncodedEvent(const storage::EventView& event, bool with_previous);

  int64_t revision() const { return revision_; }
  bool is_delete() const { return is_delete_; }
  bool knows_previous() const { return knows_previous_; }
  std::string_view key() const { return {plain_->data() + key_begin_, key_bytes_}; }
  const SharedBytes& plain() const { return plain_; }
  // With prev_kv; the same bytes as plain() if the key held nothing. Encoded at the first call.
  // REQUIRES: knows_previous(). Threads: one at a time.
  const SharedBytes& with_previous() const;
  // What it keeps in memory.
  size_t bytes() const { return sizeof(*this) + plain_->size() + 2 * previous_.size(); }

 private:
  const int64_t revision_;
  const bool is_delete_;
  const bool knows_previous_;
  SharedBytes plain_;
  size_t inner_begin_ = 0;  // of plain_: where the Event itself begins
  size_t key_begin_ = 0, key_bytes_ = 0;
  std::string previous_;  // the Event's field prev_kv; empty: the key held nothing
  mutable SharedBytes full_;
};

struct ResponseHead {
  uint64_t cluster_id = 0;
  uint64_t member_id = 0;
  uint64_t raft_term = 0;
  int64_t revision = 0;
  int64_t watch_id = 0;
  bool fragment = false;
};
// Everything of a WatchResponse but its events, which follow these bytes.
std::string EncodeHead(const ResponseHead& head);
// A response without events, whose other fields `response` has.
std::string EncodeControl(const ResponseHead& head, etcdserverpb::WatchResponse response);

}  // namespace holdfast::server
