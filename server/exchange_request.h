// What the batch door asks of a request before it does anything with it, the command that a write
// becomes, and the reply that its result becomes.
//
// Pure functions. Threads: all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "google/protobuf/arena.h"
#include "holdfast/command.pb.h"
#include "holdfast/exchange.pb.h"

namespace holdfast::server {

bool IsWrite(const v1::ExchangeRequest& request);
// What the limit on a request's size is about; as at the unary door, ranges have none.
size_t SizeOf(const v1::ExchangeRequest& request);
bool WantsSerializable(const v1::ExchangeRequest& request);
// It may read much, so it is answered on the scans' threads.
bool Scans(const v1::ExchangeRequest& request);
// Moves a write into a command of the same arena. REQUIRES: IsWrite(*request); both of `arena`.
command::v1::Command* ToCommand(v1::ExchangeRequest* request, google::protobuf::Arena* arena);

// Of a reply's header only the revision is told for each.
void ClearHeader(etcdserverpb::ResponseHeader* header);
// Moves what the state machine answered to a write into the reply.
void FillResponse(std::unique_ptr<google::protobuf::Message> response, v1::ExchangeReply* reply);
v1::ExchangeReply ErrorReply(uint64_t id, const absl::Status& status);

}  // namespace holdfast::server
