#include "server/range_stream.h"

#include <memory>
#include <string>
#include <utility>

#include "server/etcd_errors.h"
#include "server/kv_codec.h"
#include "server/kv_validate.h"
#include "server/read_terms.h"

namespace holdfast::server {
namespace {

using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::RangeStreamResponse;

absl::Status CheckStream(const RangeRequest& request) {
  if (absl::Status status = CheckRange(request); !status.ok()) return status;
  if (request.sort_target() != RangeRequest::KEY || request.sort_order() == RangeRequest::DESCEND) {
    return absl::UnimplementedError("RangeStream does not support custom sort orders");
  }
  if (request.min_mod_revision() != 0 || request.max_mod_revision() != 0 ||
      request.min_create_revision() != 0 || request.max_create_revision() != 0) {
    return absl::UnimplementedError("RangeStream does not support revision filters");
  }
  return absl::OkStatus();
}

class RangeStream : public grpc::ServerWriteReactor<RangeStreamResponse> {
 public:
  RangeStream(grpc::CallbackServerContext* context, const RangeRequest* request,
              RangeStreamOptions options)
      : context_(context),
        options_(std::move(options)),
        range_(ToRangeOptions(*request, SIZE_MAX)) {
    absl::Status status = options_.admission->Admit(*context, Admission::Call::kRead);
    if (status.ok()) status = CheckStream(*request);
    if (!status.ok()) {
      Finish(ToGrpc(status));
      return;
    }
    range_.page_bytes = options_.part_bytes;
    if (request->serializable()) {
      Post();
      return;
    }
    options_.pipeline->LinearizableRead([this](absl::Status waited) {
      if (!waited.ok()) return Finish(ToGrpc(waited));
      Post();
    });
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    if (last_) return Finish(grpc::Status::OK);
    Post();
  }
  void OnDone() override { delete this; }

 private:
  void Post() {
    if (absl::Status posted = options_.scans->Post([this] { SendPart(); }); !posted.ok()) {
      Finish(ToGrpc(posted));
    }
  }

  void SendPart() {
    if (context_->IsCancelled()) return Finish(grpc::Status::CANCELLED);
    response_.Clear();
    absl::Status status = ReadPart(response_.mutable_range_response());
    if (!status.ok()) {
      if (options_.on_damage) options_.on_damage(status);
      AddIncarnation(context_, options_.machine->incarnation());
      return Finish(ToGrpc(ReadErrorForClient(status, SIZE_MAX)));
    }
    StartWrite(&response_);
  }

  absl::Status ReadPart(RangeResponse* response) {
    if (absl::Status status = options_.admission->CheckTrust(); !status.ok()) return status;
    const std::shared_ptr<storage::MvccStore> store = options_.machine->store();
    const std::unique_ptr<storage::MvccStore::View> view = store->NewView();
    if (header_revision_ == 0) {
      header_revision_ = view->applied().revision;
      if (range_.revision <= 0) range_.revision = header_revision_;
    }
    storage::RangeResult part;
    if (absl::Status status = view->Range(range_, &part); !status.ok()) return status;
    const auto sent = static_cast<int64_t>(part.kvs.size());
    count_ += range_.count_only ? part.count : sent;
    const bool limited = range_.limit > 0 && sent >= range_.limit;
    last_ = !part.more || limited;
    if (last_) {
      int64_t rest = 0;
      if (part.more) {
        storage::RangeOptions behind = range_;
        behind.key = part.kvs.back().key + '\0';
        behind.limit = 0;
        behind.count_only = true;
        behind.page_bytes = 0;
        storage::RangeResult counted;
        if (absl::Status status = view->Range(behind, &counted); !status.ok()) return status;
        rest = counted.count;
      }
      Conclude(rest, response);
    } else {
      range_.key = part.kvs.back().key + '\0';
      if (range_.limit > 0) range_.limit -= sent;
    }
    for (storage::KeyValue& kv : part.kvs) FillKeyValue(std::move(kv), response->add_kvs());
    return absl::OkStatus();
  }

  void Conclude(int64_t rest, RangeResponse* response) {
    response->set_more(rest > 0);
    response->set_count(count_ + rest);
    etcdserverpb::ResponseHeader* header = response->mutable_header();
    header->set_cluster_id(options_.cluster_id);
    header->set_member_id(options_.member_id);
    header->set_revision(header_revision_);
    header->set_raft_term(options_.node->status().term.value);
    AddIncarnation(context_, options_.machine->incarnation());
  }

  grpc::CallbackServerContext* const context_;
  const RangeStreamOptions options_;
  storage::RangeOptions range_;  // of the next part
  int64_t header_revision_ = 0;  // 0: no part was read yet
  int64_t count_ = 0;
  bool last_ = false;
  RangeStreamResponse response_;
};

}  // namespace

grpc::ServerWriteReactor<RangeStreamResponse>* StartRangeStream(
    grpc::CallbackServerContext* context, const RangeRequest* request, RangeStreamOptions options) {
  return new RangeStream(context, request, std::move(options));
}

}  // namespace holdfast::server
