#include "client/uplink.h"

#include <atomic>
#include <charconv>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/client_callback.h>

#include "base/strings.h"
#include "client/grpc_time.h"
#include "client/rpc.h"
#include "etcd/rpc.grpc.pb.h"
#include "holdfast/client.grpc.pb.h"
#include "holdfast/types.h"

namespace holdfast::internal {
namespace {

using etcdserverpb::WatchRequest;
using etcdserverpb::WatchResponse;

constexpr char kClassKey[] = "holdfast-class";
constexpr char kRetryAfterKey[] = "holdfast-retry-after-ms";
constexpr int64_t kRetryAfterMsMax = 10 * 60 * 1000;
constexpr int64_t kPageKeys = 1000;
constexpr absl::Duration kUnaryDeadline = absl::Seconds(5);
constexpr size_t kSaidMax = 300;

absl::Status ToStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      base::ToAbsl(base::Printable(status.error_message(), kSaidMax)));
}

std::optional<absl::Duration> RetryAfterOf(const grpc::ClientContext& context) {
  const auto& trailing = context.GetServerTrailingMetadata();
  const auto it = trailing.find(kRetryAfterKey);
  if (it == trailing.end()) return std::nullopt;
  int64_t ms = 0;
  const char* end = it->second.data() + it->second.size();
  const auto [stop, error] = std::from_chars(it->second.data(), end, ms);
  if (error != std::errc() || stop != end || ms < 0) return std::nullopt;
  return absl::Milliseconds(std::min(ms, kRetryAfterMsMax));
}

// The stubs live as long as any call made by them.
struct Stubs {
  explicit Stubs(const std::shared_ptr<grpc::Channel>& channel)
      : watch(channel), mirror(channel), kv(channel) {}
  etcdserverpb::Watch::Stub watch;
  v1::Mirror::Stub mirror;
  etcdserverpb::KV::Stub kv;
};

// What both kinds of stream share: whom to tell, on which thread, and how much is on its way there.
class Delivery {
 public:
  Delivery(std::shared_ptr<Scheduler> scheduler, uint64_t connection,
           std::weak_ptr<UplinkSink> sink)
      : scheduler_(std::move(scheduler)), connection_(connection), sink_(std::move(sink)) {}

  uint64_t connection() const { return connection_; }
  void Silence() { silent_ = true; }

  template <class F>
  void Tell(F tell) {
    scheduler_->Post([sink = sink_, silent = &silent_, tell = std::move(tell)]() mutable {
      if (*silent) return;
      if (const auto to = sink.lock()) tell(*to);
    });
  }
  const std::shared_ptr<Scheduler>& scheduler() const { return scheduler_; }

 private:
  const std::shared_ptr<Scheduler> scheduler_;
  const uint64_t connection_;
  const std::weak_ptr<UplinkSink> sink_;
  std::atomic<bool> silent_ = false;
};

// Reads one message after the other for as long as the backlog allows. The hold keeps the RPC alive
// while no read is outstanding; it goes with the last read, or with Cancel.
class WatchCall : public grpc::ClientBidiReactor<WatchRequest, WatchResponse>,
                  public std::enable_shared_from_this<WatchCall> {
 public:
  WatchCall(std::shared_ptr<Scheduler> scheduler, uint64_t connection,
            std::weak_ptr<UplinkSink> sink, std::shared_ptr<Stubs> stubs)
      : delivery_(std::move(scheduler), connection, std::move(sink)), stubs_(std::move(stubs)) {}

  void Start() {
    self_ = shared_from_this();
    stubs_->watch.async()->Watch(&context_, this);
    AddHold();
    StartRead(&response_);
    StartCall();
  }

  void Send(const WatchRequest& request) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    requests_.push_back(request);
    if (requests_.size() == 1) StartWrite(&requests_.front());
  }

  void Cancel() {
    delivery_.Silence();
    context_.TryCancel();
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (paused_ && !ended_) End();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      std::lock_guard lock(mutex_);
      if (!ended_) End();
      return;
    }
    const size_t bytes = response_.ByteSizeLong();
    {
      std::lock_guard lock(mutex_);
      backlog_ += bytes;
    }
    delivery_.Tell([self = shared_from_this(), response = std::move(response_),
                    bytes](UplinkSink& sink) mutable {
      sink.OnWatch(self->delivery_.connection(), std::move(response));
      self->Consumed(bytes);
    });
    response_ = WatchResponse();
    std::lock_guard lock(mutex_);
    if (ended_) return;
    if (cancelled_) return End();  // nobody takes what waits, so a pause would never end
    paused_ = backlog_ > kUplinkBacklogMax;
    if (!paused_) StartRead(&response_);
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    requests_.pop_front();
    if (!ok || ended_) return;
    if (!requests_.empty()) StartWrite(&requests_.front());
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<WatchCall> self = std::move(self_);
    delivery_.Tell([connection = delivery_.connection(), said = ToStatus(status)](
                       UplinkSink& sink) { sink.OnWatchEnd(connection, said); });
    // The tasks that were posted read a flag of the call: it goes behind them.
    const std::shared_ptr<Scheduler> scheduler = delivery_.scheduler();
    scheduler->Post([self] {});
  }

 private:
  void End() {
    ended_ = true;
    RemoveHold();
  }

  void Consumed(size_t bytes) {
    std::lock_guard lock(mutex_);
    backlog_ -= bytes;
    if (!paused_ || ended_ || backlog_ > kUplinkBacklogMax / 2) return;
    paused_ = false;
    StartRead(&response_);
  }

  Delivery delivery_;
  const std::shared_ptr<Stubs> stubs_;
  grpc::ClientContext context_;
  WatchResponse response_;
  std::shared_ptr<WatchCall> self_;  // until OnDone
  std::mutex mutex_;
  bool ended_ = false;   // no operation is started any more
  bool paused_ = false;  // no read is outstanding
  bool cancelled_ = false;
  size_t backlog_ = 0;
  std::deque<WatchRequest> requests_;  // the first one is being written
};

class LoadCall : public grpc::ClientReadReactor<v1::LoadResponse>,
                 public std::enable_shared_from_this<LoadCall> {
 public:
  LoadCall(std::shared_ptr<Scheduler> scheduler, uint64_t connection, size_t feed,
           std::weak_ptr<UplinkSink> sink, std::shared_ptr<Stubs> stubs, v1::LoadRequest request)
      : delivery_(std::move(scheduler), connection, std::move(sink)),
        feed_(feed),
        stubs_(std::move(stubs)),
        request_(std::move(request)) {}

  void Start(const std::string& klass) {
    self_ = shared_from_this();
    context_.AddMetadata(kClassKey, klass);
    stubs_->mirror.async()->Load(&context_, &request_, this);
    AddHold();
    StartRead(&response_);
    StartCall();
    WatchSilence(0);
  }

  void Cancel() {
    delivery_.Silence();
    context_.TryCancel();
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (page_context_ != nullptr) page_context_->TryCancel();
    if (paused_ && !ended_) End();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      std::lock_guard lock(mutex_);
      if (!ended_) End();
      return;
    }
    Deliver(std::move(response_));
    response_ = v1::LoadResponse();
    std::lock_guard lock(mutex_);
    if (ended_) return;
    if (cancelled_) return End();  // nobody takes what waits, so a pause would never end
    paused_ = backlog_ > kUplinkBacklogMax;
    if (!paused_) StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED && parts_ == 0) {
      NextPage();
      return;
    }
    Finish(ToStatus(status), RetryAfterOf(context_));
  }

 private:
  void End() {
    ended_ = true;
    RemoveHold();
  }

  void Deliver(v1::LoadResponse part) {
    const size_t bytes = part.ByteSizeLong();
    {
      std::lock_guard lock(mutex_);
      backlog_ += bytes;
      ++parts_;
    }
    delivery_.Tell(
        [self = shared_from_this(), part = std::move(part), bytes](UplinkSink& sink) mutable {
          sink.OnLoadPart(self->delivery_.connection(), self->feed_, std::move(part));
          self->Consumed(bytes);
        });
  }

  void Consumed(size_t bytes) {
    std::lock_guard lock(mutex_);
    backlog_ -= bytes;
    if (!paused_ || ended_ || backlog_ > kUplinkBacklogMax / 2) return;
    paused_ = false;
    StartRead(&response_);
  }

  void Finish(const absl::Status& status, std::optional<absl::Duration> retry_after) {
    const std::shared_ptr<LoadCall> self = std::move(self_);
    finished_ = true;
    delivery_.Tell([self, status, retry_after](UplinkSink& sink) {
      sink.OnLoadEnd(self->delivery_.connection(), self->feed_, status, retry_after);
    });
    const std::shared_ptr<Scheduler> scheduler = delivery_.scheduler();
    scheduler->Post([self] {});
  }

  // A server that accepted the call and says nothing more holds up one prefix only: the watch
  // stream's marks look after the connection.
  void WatchSilence(uint64_t parts_before) {
    delivery_.scheduler()->After(kLoadSilenceMax, [weak = weak_from_this(), parts_before] {
      const auto self = weak.lock();
      if (self == nullptr || self->finished_) return;
      uint64_t parts = 0;
      bool paused = false;
      {
        std::lock_guard lock(self->mutex_);
        parts = self->parts_;
        paused = self->paused_;
      }
      if (parts == parts_before && !paused) {
        self->context_.TryCancel();
        return;
      }
      self->WatchSilence(parts);
    });
  }

  // --- etcd: no Mirror service; pages at one revision ---
  void NextPage() {
    etcdserverpb::RangeRequest request;
    request.set_key(page_from_.empty() ? request_.prefix() : page_from_);
    request.set_range_end(PrefixEnd(request_.prefix()));
    request.set_limit(kPageKeys);
    request.set_revision(page_revision_);
    // The first page tells the revision that all are of; it must not be older than it can be told.
    request.set_serializable(page_revision_ != 0);
    page_request_ = std::move(request);
    page_response_.Clear();
    bool stopped = false;
    {
      std::lock_guard lock(mutex_);
      stopped = cancelled_;
      page_context_ = std::make_unique<grpc::ClientContext>();
      page_context_->set_deadline(ToGrpcTimespan(kUnaryDeadline));
    }
    if (stopped) return Finish(absl::CancelledError(""), std::nullopt);
    stubs_->kv.async()->Range(page_context_.get(), &page_request_, &page_response_,
                              [this](const grpc::Status& status) { OnPage(status); });
  }

  void OnPage(const grpc::Status& status) {
    if (!status.ok()) return Finish(ToStatus(status), std::nullopt);
    v1::LoadResponse part;
    if (page_revision_ == 0) {
      page_revision_ = page_response_.header().revision();
      v1::LoadHead* head = part.mutable_head();
      head->set_kind(v1::LoadHead::SNAPSHOT);
      head->set_revision(static_cast<uint64_t>(page_revision_));
      head->set_cluster_id(page_response_.header().cluster_id());
      head->set_records(static_cast<uint64_t>(page_response_.count()));
      Deliver(std::move(part));
      part = v1::LoadResponse();
    }
    const bool more = page_response_.more() && page_response_.kvs_size() > 0;
    if (more) page_from_ = page_response_.kvs(page_response_.kvs_size() - 1).key() + '\0';
    *part.mutable_records() = std::move(*page_response_.mutable_kvs());
    part.set_last(!more);
    Deliver(std::move(part));
    if (more) return NextPage();
    Finish(absl::OkStatus(), std::nullopt);
  }

  Delivery delivery_;
  const size_t feed_;
  const std::shared_ptr<Stubs> stubs_;
  const v1::LoadRequest request_;
  grpc::ClientContext context_;
  v1::LoadResponse response_;
  std::shared_ptr<LoadCall> self_;  // until Finish
  std::atomic<bool> finished_ = false;

  std::mutex mutex_;
  bool ended_ = false;
  bool paused_ = false;
  bool cancelled_ = false;
  size_t backlog_ = 0;
  uint64_t parts_ = 0;

  int64_t page_revision_ = 0;
  std::string page_from_;
  etcdserverpb::RangeRequest page_request_;
  etcdserverpb::RangeResponse page_response_;
  std::unique_ptr<grpc::ClientContext> page_context_;
};

class GrpcUplink : public Uplink {
 public:
  GrpcUplink(std::shared_ptr<Scheduler> scheduler, const Endpoint& endpoint, uint64_t connection,
             std::weak_ptr<UplinkSink> sink)
      : scheduler_(std::move(scheduler)),
        connection_(connection),
        sink_(std::move(sink)),
        channel_(MakeChannel(endpoint)),
        stubs_(std::make_shared<Stubs>(channel_)) {}

  ~GrpcUplink() override {
    if (watch_ != nullptr) watch_->Cancel();
    for (const auto& load : loads_) {
      if (const auto call = load.lock()) call->Cancel();
    }
  }

  void Load(size_t feed, const v1::LoadRequest& request, const std::string& klass) override {
    auto call = std::make_shared<LoadCall>(scheduler_, connection_, feed, sink_, stubs_, request);
    std::erase_if(loads_, [](const auto& load) { return load.expired(); });
    loads_.push_back(call);
    call->Start(klass);
  }

  void Watch(const WatchRequest& request) override {
    if (watch_ == nullptr) {
      watch_ = std::make_shared<WatchCall>(scheduler_, connection_, sink_, stubs_);
      watch_->Start();
    }
    watch_->Send(request);
  }

  void Report(const v1::ReportRequest& request) override {
    struct Call {
      std::shared_ptr<Stubs> stubs;
      grpc::ClientContext context;
      v1::ReportRequest request;
      v1::ReportResponse response;
    };
    auto call = std::make_shared<Call>();
    call->stubs = stubs_;
    call->request = request;
    call->context.set_deadline(ToGrpcTimespan(kUnaryDeadline));
    stubs_->mirror.async()->Report(&call->context, &call->request, &call->response,
                                   [call](const grpc::Status&) {});
  }

 private:
  const std::shared_ptr<Scheduler> scheduler_;
  const uint64_t connection_;
  const std::weak_ptr<UplinkSink> sink_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::shared_ptr<Stubs> stubs_;
  std::shared_ptr<WatchCall> watch_;
  std::vector<std::weak_ptr<LoadCall>> loads_;
};

// gRPC 1.51 ends its callback threads with the last channel that used them, and joins them on the
// thread that drops it: on one of themselves, if a callback held the last reference, as ours may.
// So one channel that goes nowhere is kept for as long as the process lives.
void KeepCallbackThreads() {
  struct Keeper {
    Keeper()
        : stub(grpc::CreateChannel("unix:/dev/null/none", grpc::InsecureChannelCredentials())) {
      context.set_deadline(ToGrpcTimespan(absl::ZeroDuration()));
      stub.async()->Range(&context, &request, &response, [](const grpc::Status&) {});
    }
    etcdserverpb::KV::Stub stub;
    grpc::ClientContext context;
    etcdserverpb::RangeRequest request;
    etcdserverpb::RangeResponse response;
  };
  [[maybe_unused]] static const auto* kept = new Keeper;
}

class GrpcUplinks : public UplinkFactory {
 public:
  explicit GrpcUplinks(std::shared_ptr<Scheduler> scheduler) : scheduler_(std::move(scheduler)) {}
  std::unique_ptr<Uplink> Connect(const Endpoint& endpoint, uint64_t connection,
                                  std::weak_ptr<UplinkSink> sink) override {
    return std::make_unique<GrpcUplink>(scheduler_, endpoint, connection, std::move(sink));
  }

 private:
  const std::shared_ptr<Scheduler> scheduler_;
};

}  // namespace

std::unique_ptr<UplinkFactory> MakeGrpcUplinks(std::shared_ptr<Scheduler> scheduler) {
  KeepCallbackThreads();
  return std::make_unique<GrpcUplinks>(std::move(scheduler));
}

}  // namespace holdfast::internal
