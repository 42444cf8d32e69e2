#include "server/exchange_request.h"

#include <string>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "server/kv_reads.h"
#include "server/kv_validate.h"

namespace holdfast::server {

using command::v1::Command;
using google::protobuf::Arena;
using v1::ExchangeReply;
using v1::ExchangeRequest;

ExchangeReply ErrorReply(uint64_t id, const absl::Status& status) {
  ExchangeReply reply;
  reply.set_id(id);
  reply.set_code(static_cast<uint32_t>(status.code()));
  reply.set_message(std::string(base::Message(status)));
  return reply;
}

bool IsWrite(const ExchangeRequest& request) {
  switch (request.request_case()) {
    case ExchangeRequest::kPut:
    case ExchangeRequest::kDeleteRange:
      return true;
    case ExchangeRequest::kTxn:
      return !IsReadOnly(request.txn());
    default:
      return false;
  }
}

size_t SizeOf(const ExchangeRequest& request) {
  switch (request.request_case()) {
    case ExchangeRequest::kPut:
      return request.put().ByteSizeLong();
    case ExchangeRequest::kDeleteRange:
      return request.delete_range().ByteSizeLong();
    case ExchangeRequest::kTxn:
      return request.txn().ByteSizeLong();
    default:
      return 0;
  }
}

bool WantsSerializable(const ExchangeRequest& request) {
  return request.has_range() ? request.range().serializable() : IsSerializable(request.txn());
}

bool Scans(const ExchangeRequest& request) {
  return request.has_range() ? IsScan(request.range()) : IsScan(request.txn());
}

Command* ToCommand(ExchangeRequest* request, Arena* arena) {
  auto* command = Arena::CreateMessage<Command>(arena);
  switch (request->request_case()) {
    case ExchangeRequest::kPut:
      command->unsafe_arena_set_allocated_put(request->unsafe_arena_release_put());
      break;
    case ExchangeRequest::kDeleteRange:
      command->unsafe_arena_set_allocated_delete_range(
          request->unsafe_arena_release_delete_range());
      break;
    case ExchangeRequest::kTxn:
      command->unsafe_arena_set_allocated_txn(request->unsafe_arena_release_txn());
      break;
    default:
      CHECK(false);
  }
  if (request->has_session()) {
    command->unsafe_arena_set_allocated_session(request->unsafe_arena_release_session());
  }
  return command;
}

void FillResponse(std::unique_ptr<google::protobuf::Message> response, ExchangeReply* reply) {
  CHECK(response != nullptr);
  if (auto* put = dynamic_cast<etcdserverpb::PutResponse*>(response.get())) {
    reply->mutable_put()->Swap(put);
  } else if (auto* deleted = dynamic_cast<etcdserverpb::DeleteRangeResponse*>(response.get())) {
    reply->mutable_delete_range()->Swap(deleted);
  } else if (auto* txn = dynamic_cast<etcdserverpb::TxnResponse*>(response.get())) {
    reply->mutable_txn()->Swap(txn);
  } else {
    CHECK(false);
  }
}

void ClearHeader(etcdserverpb::ResponseHeader* header) {
  header->clear_cluster_id();
  header->clear_member_id();
  header->clear_raft_term();
}

}  // namespace holdfast::server
