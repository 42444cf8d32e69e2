#include "server/kv_service.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "absl/synchronization/mutex.h"
#include "base/bounded_queue.h"
#include "base/check.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/etcd_errors.h"
#include "server/kv_validate.h"
#include "server/range_stream.h"
#include "server/read_terms.h"
#include "server/session_stamp.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using etcdserverpb::CompactionRequest;
using etcdserverpb::CompactionResponse;
using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::DeleteRangeResponse;
using etcdserverpb::PutRequest;
using etcdserverpb::PutResponse;
using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::RangeStreamResponse;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

// Physical compactions that wait for the next flush; one flush serves all of them.
constexpr size_t kMaxWaitingFlushes = 1024;

// Of gRPC's default reactors: request, response and context live until Finish, whether or not the
// caller is still there; Finish is called exactly once on every path.
ServerUnaryReactor* FinishNow(CallbackServerContext* context, const absl::Status& status) {
  ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

// Of a long read: holds the answer's memory until gRPC is done with the call.
class ScanReactor : public ServerUnaryReactor {
 public:
  explicit ScanReactor(AnswerBudget* budget) : reservation_(budget) {}
  AnswerBudget::Reservation& reservation() { return reservation_; }
  void OnDone() override { delete this; }

 private:
  AnswerBudget::Reservation reservation_;
};

class KvServiceImpl : public KvService, public etcdserverpb::KV::CallbackService {
 public:
  KvServiceImpl(const Options& options, raft::RaftNode* node, RequestPipeline* pipeline,
                KvStateMachine* machine, const Admission* admission)
      : options_(options),
        node_(node),
        pipeline_(pipeline),
        machine_(machine),
        admission_(admission),
        reads_({.cluster_id = options.cluster_id,
                .member_id = options.member_id,
                .max_answer_bytes = options.max_answer_bytes,
                .max_answers_bytes = options.max_answers_bytes,
                .scan_threads = options.scan_threads,
                .max_waiting_scans = options.max_waiting_scans,
                .on_fatal = options.on_fatal},
               node, machine, admission),
        flushes_(kMaxWaitingFlushes),
        flusher_([this] { FlushLoop(); }) {}

  ~KvServiceImpl() override { Stop(); }

  grpc::Service* service() override { return this; }
  KvReads* reads() override { return &reads_; }

  void Stop() override {
    reads_.scans().Stop();
    flushes_.Close();
    absl::MutexLock lock(&stop_mutex_);
    if (flusher_.joinable()) flusher_.join();
  }

  ServerUnaryReactor* Range(CallbackServerContext* context, const RangeRequest* request,
                            RangeResponse* response) override;
  ServerUnaryReactor* Put(CallbackServerContext* context, const PutRequest* request,
                          PutResponse* response) override;
  ServerUnaryReactor* DeleteRange(CallbackServerContext* context, const DeleteRangeRequest* request,
                                  DeleteRangeResponse* response) override;
  ServerUnaryReactor* Txn(CallbackServerContext* context, const TxnRequest* request,
                          TxnResponse* response) override;
  ServerUnaryReactor* Compact(CallbackServerContext* context, const CompactionRequest* request,
                              CompactionResponse* response) override;
  grpc::ServerWriteReactor<RangeStreamResponse>* RangeStream(CallbackServerContext* context,
                                                             const RangeRequest* request) override {
    return StartRangeStream(
        context, request,
        {.cluster_id = options_.cluster_id,
         .member_id = options_.member_id,
         .part_bytes = options_.stream_part_bytes,
         .node = node_,
         .pipeline = pipeline_,
         .machine = machine_,
         .admission = admission_,
         .scans = &reads_.scans(),
         .on_damage = [this](const absl::Status& status) { reads_.StopIfDamaged(status); }});
  }

 private:
  // A Range or a read-only Txn under way.
  template <class Request, class Response>
  struct Read {
    CallbackServerContext* context;
    const Request* request;
    Response* response;
    ServerUnaryReactor* reactor;
    AnswerBudget::Reservation* reservation;  // null: a short read
    ReadTerms terms;
    base::ClockSample arrival;  // before anything else was done
  };
  template <class Request, class Response>
  ServerUnaryReactor* StartRead(CallbackServerContext* context, const Request* request,
                                Response* response, bool serializable);
  // Here, or on the scan pool if the read is long.
  template <class R, class Job>
  void Run(const R& read, Job job);
  template <class R>
  void ReadLinearizable(R read);
  template <class R>
  void ReadSerializable(R read, bool may_refresh);
  template <class Response>
  ServerUnaryReactor* ProposeWrite(CallbackServerContext* context, Command command,
                                   Response* response);

  template <class Request>
  absl::Status CheckSize(const Request& request) const {
    return request.ByteSizeLong() > options_.max_request_bytes ? ErrRequestTooLarge()
                                                               : absl::OkStatus();
  }
  void FlushLoop();

  const Options options_;
  raft::RaftNode* const node_;
  RequestPipeline* const pipeline_;
  KvStateMachine* const machine_;
  const Admission* const admission_;

  KvReads reads_;
  base::BoundedQueue<ServerUnaryReactor*> flushes_;
  absl::Mutex stop_mutex_;  // joins once
  std::thread flusher_;     // last: it uses everything above
};

ServerUnaryReactor* KvServiceImpl::Range(CallbackServerContext* context,
                                         const RangeRequest* request, RangeResponse* response) {
  if (absl::Status status = CheckRange(*request); !status.ok()) return FinishNow(context, status);
  return StartRead(context, request, response, request->serializable());
}

ServerUnaryReactor* KvServiceImpl::Put(CallbackServerContext* context, const PutRequest* request,
                                       PutResponse* response) {
  absl::Status status = CheckPut(*request);
  if (status.ok()) status = CheckSize(*request);
  if (status.ok()) status = admission_->CheckSpace();
  if (!status.ok()) return FinishNow(context, status);
  Command command;
  *command.mutable_put() = *request;
  return ProposeWrite(context, std::move(command), response);
}

ServerUnaryReactor* KvServiceImpl::DeleteRange(CallbackServerContext* context,
                                               const DeleteRangeRequest* request,
                                               DeleteRangeResponse* response) {
  absl::Status status = CheckDeleteRange(*request);
  if (status.ok()) status = CheckSize(*request);
  if (!status.ok()) return FinishNow(context, status);
  Command command;
  *command.mutable_delete_range() = *request;
  return ProposeWrite(context, std::move(command), response);
}

ServerUnaryReactor* KvServiceImpl::Txn(CallbackServerContext* context, const TxnRequest* request,
                                       TxnResponse* response) {
  absl::Status status = CheckTxn(*request, {.max_ops = options_.max_txn_ops});
  if (status.ok()) status = CheckSize(*request);
  if (!status.ok()) return FinishNow(context, status);
  if (IsReadOnly(*request)) {
    return StartRead(context, request, response, IsSerializable(*request));
  }
  if (Puts(*request)) {
    status = admission_->CheckSpace();
    if (!status.ok()) return FinishNow(context, status);
  }
  Command command;
  *command.mutable_txn() = *request;
  return ProposeWrite(context, std::move(command), response);
}

template <class Request, class Response>
ServerUnaryReactor* KvServiceImpl::StartRead(CallbackServerContext* context, const Request* request,
                                             Response* response, bool serializable) {
  const base::ClockSample arrival = options_.clock->Sample();
  if (absl::Status status = admission_->Admit(*context, Admission::Call::kRead); !status.ok()) {
    return FinishNow(context, status);
  }
  const absl::StatusOr<ReadTerms> terms = ParseReadTerms(*context);
  if (!terms.ok()) return FinishNow(context, terms.status());
  Read<Request, Response> read{context, request, response, nullptr, nullptr, *terms, arrival};
  if (IsScan(*request)) {
    auto* reactor = new ScanReactor(&reads_.answers());
    read.reservation = &reactor->reservation();
    read.reactor = reactor;
  } else {
    read.reactor = context->DefaultReactor();
  }
  if (serializable) {
    Run(read, [this, read] { ReadSerializable(read, /*may_refresh=*/true); });
  } else {
    ReadLinearizable(read);
  }
  return read.reactor;
}

template <class R, class Job>
void KvServiceImpl::Run(const R& read, Job job) {
  if (read.reservation == nullptr) return job();
  if (absl::Status posted = reads_.scans().Post(std::move(job)); !posted.ok()) {
    read.reactor->Finish(ToGrpc(posted));
  }
}

template <class R>
void KvServiceImpl::ReadLinearizable(R read) {
  pipeline_->LinearizableRead([this, read](absl::Status status) {
    if (!status.ok()) return read.reactor->Finish(ToGrpc(status));
    Run(read, [this, read] {
      // Nobody is there any more: spare the store a range that may be large.
      if (read.context->IsCancelled()) return read.reactor->Finish(grpc::Status::CANCELLED);
      const absl::Status status =
          reads_.Evaluate(*read.request, read.terms.min_revision, read.reservation, read.response);
      // Freshness 5: the index was asked for after the arrival, so every write acknowledged before
      // the arrival is in the answer.
      AddFreshness(read.context, base::Elapsed(read.arrival, options_.clock->Sample()),
                   node_->status().role == raft::Role::kLeader);
      AddIncarnation(read.context, machine_->incarnation());
      read.reactor->Finish(ToGrpc(status));
    });
  });
}

template <class R>
void KvServiceImpl::ReadSerializable(R read, bool may_refresh) {
  const auto age_of = [this](const std::optional<raft::Claim>& claim) {
    return claim.has_value() ? std::optional(claim->AgeAt(options_.clock->Sample())) : std::nullopt;
  };
  const auto too_old = [&read](std::optional<absl::Duration> age) {
    return read.terms.max_age.has_value() && !(age.has_value() && *age <= *read.terms.max_age);
  };
  // The claim first, the state after it (RaftNode::claim); the age as of the answer.
  const std::optional<raft::Claim> claim = node_->claim();
  absl::Status status;
  std::optional<absl::Duration> age = age_of(claim);
  if (!too_old(age)) {
    status =
        reads_.Evaluate(*read.request, read.terms.min_revision, read.reservation, read.response);
    age = age_of(claim);
  }
  if (status.ok() && too_old(age)) {
    const absl::Duration wait = std::min(TimeLeft(*read.context), kFreshClaimWait);
    if (may_refresh && wait > absl::ZeroDuration()) {
      read.response->Clear();
      pipeline_->FreshClaim(*read.terms.max_age, wait, [this, read] {
        Run(read, [this, read] { ReadSerializable(read, /*may_refresh=*/false); });
      });
      return;
    }
    status = TooStale(age, *read.terms.max_age);
  }
  AddFreshness(read.context, age, node_->status().role == raft::Role::kLeader);
  AddIncarnation(read.context, machine_->incarnation());
  read.reactor->Finish(ToGrpc(status));
}

template <class Response>
ServerUnaryReactor* KvServiceImpl::ProposeWrite(CallbackServerContext* context, Command command,
                                                Response* response) {
  if (absl::Status status = admission_->Admit(*context, Admission::Call::kWrite); !status.ok()) {
    return FinishNow(context, status);
  }
  auto stamp = SessionStampOf(*context);
  if (!stamp.ok()) return FinishNow(context, stamp.status());
  if (stamp->has_value()) *command.mutable_session() = **std::move(stamp);
  ServerUnaryReactor* reactor = context->DefaultReactor();
  pipeline_->ProposeShort(
      std::move(command), [this, context, response, reactor](ApplyResult result) {
        if (result.stamp != ApplyResult::Stamp::kNone) {
          context->AddTrailingMetadata(kDeduplicatedKey,
                                       result.stamp == ApplyResult::Stamp::kRepeated ? "1" : "0");
        }
        if (result.status.ok()) {
          AddIncarnation(context, machine_->incarnation());
          CHECK(result.response != nullptr);
          response->Swap(static_cast<Response*>(result.response.get()));
          reads_.FillHeader(response->mutable_header());
        }
        reactor->Finish(ToGrpc(result.status));
      });
  return reactor;
}

ServerUnaryReactor* KvServiceImpl::Compact(CallbackServerContext* context,
                                           const CompactionRequest* request,
                                           CompactionResponse* response) {
  // It drops data for good: not while nobody knows whose is right.
  absl::Status status = admission_->Admit(*context, Admission::Call::kAdmin);
  if (status.ok()) status = admission_->CheckTrust();
  if (!status.ok()) return FinishNow(context, status);
  Command command;
  *command.mutable_compaction() = *request;
  ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool physical = request->physical();
  pipeline_->Propose(std::move(command), [this, response, reactor, physical](ApplyResult result) {
    if (!result.status.ok()) return reactor->Finish(ToGrpc(result.status));
    response->Swap(static_cast<CompactionResponse*>(result.response.get()));
    reads_.FillHeader(response->mutable_header());
    if (!physical) return reactor->Finish(grpc::Status::OK);
    ServerUnaryReactor* waiting = reactor;
    if (!flushes_.TryPush(std::move(waiting), 1)) {
      reactor->Finish(ToGrpc(flushes_.closed() ? ErrStopped() : ErrTooManyRequests()));
    }
  });
  return reactor;
}

void KvServiceImpl::FlushLoop() {
  for (;;) {
    const std::vector<ServerUnaryReactor*> waiting = flushes_.DrainAll();
    if (waiting.empty()) return;  // closed
    const absl::Status status = machine_->Flush().status();
    if (!status.ok() && options_.on_fatal) options_.on_fatal(status);
    for (ServerUnaryReactor* reactor : waiting) reactor->Finish(ToGrpc(status));
  }
}

}  // namespace

std::unique_ptr<KvService> KvService::Create(const Options& options, raft::RaftNode* node,
                                             RequestPipeline* pipeline, KvStateMachine* machine,
                                             const Admission* admission) {
  return std::make_unique<KvServiceImpl>(options, node, pipeline, machine, admission);
}

}  // namespace holdfast::server
