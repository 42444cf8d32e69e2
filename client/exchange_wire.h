// Requests and replies of the stream Exchange (api/holdfast/exchange.proto), as bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "client/rpc.h"
#include "holdfast/exchange.pb.h"

namespace holdfast::internal {

// An ExchangeRequest as an element of ExchangeRequests, that is with its tag and length, around a
// request that is encoded already: measured first, then written to where it belongs.
class RequestItem {
 public:
  // REQUIRES: OnStream(request.method). Both outlive this.
  RequestItem(uint64_t id, const RpcRequest& request);

  size_t size() const { return size_; }
  void AppendTo(std::string* out) const;

 private:
  const RpcRequest& request_;
  const uint64_t id_;
  uint64_t timeout_ms_ = 0;
  size_t stamp_size_ = 0;
  size_t message_size_ = 0;
  size_t size_ = 0;
};

// Whether the stream carries such requests.
bool OnStream(Method method);

// `cancel` of ExchangeRequests.
void AppendCancels(const std::vector<uint64_t>& ids, std::string* out);

// What the reply of a message says, beside the answer itself: reply->exchange points into both.
void ToReply(v1::ExchangeReply& from, const v1::ExchangeReplies& message, RpcReply* reply);

}  // namespace holdfast::internal
