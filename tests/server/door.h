// A way in for KV requests, so that one list of cases is asked of each: the unary KV service, and
// the batch door (api/holdfast/exchange.proto), which must be its equal.
//
// Requests and answers have the batch door's form, which names everything that unary calls have in
// metadata. Threads: a Door any.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <grpcpp/channel.h>

#include "holdfast/exchange.pb.h"

namespace holdfast::server::testing {

struct DoorAnswer {
  // Without an id; the response's header is whole, as a unary caller would have it.
  v1::ExchangeReply reply;
  uint64_t incarnation = 0;  // of an OK answer; 0: not told
  int times = 0;             // answered so often
};

class Door {
 public:
  virtual ~Door() = default;
  // The request's id is the door's to choose.
  virtual DoorAnswer Call(const v1::ExchangeRequest& request) = 0;
  // All under way at once, in one batch where the door has batches. Answers in the order of the
  // requests.
  virtual std::vector<DoorAnswer> CallAll(const std::vector<v1::ExchangeRequest>& requests) = 0;
};

std::unique_ptr<Door> OpenUnaryDoor(const std::shared_ptr<grpc::Channel>& channel);
// One stream for all calls of this door.
std::unique_ptr<Door> OpenExchangeDoor(const std::shared_ptr<grpc::Channel>& channel);

// The response's header, whatever its kind; null: there is no response.
etcdserverpb::ResponseHeader* HeaderOf(v1::ExchangeReply* reply);

}  // namespace holdfast::server::testing
