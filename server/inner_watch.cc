#include "server/inner_watch.h"

#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/strings.h"
#include "server/grpc_status.h"

namespace holdfast::server {
namespace {

class InnerWatchCall
    : public InnerWatch,
      public grpc::ClientBidiReactor<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse> {
 public:
  InnerWatchCall(std::shared_ptr<const InnerClient::Stubs> stubs,
                 std::shared_ptr<grpc::ClientContext> context,
                 std::vector<etcdserverpb::WatchCreateRequest> watches, OnResponse on_response,
                 OnEnd on_end)
      : stubs_(std::move(stubs)),
        context_(std::move(context)),
        watches_(std::move(watches)),
        on_response_(std::move(on_response)),
        on_end_(std::move(on_end)) {}

  void Open(const std::shared_ptr<InnerWatchCall>& self) {
    self_ = self;
    stubs_->watch->async()->Watch(context_.get(), this);
    // For the reads that are started outside of reactions.
    AddHold();
    WriteNext();
    StartRead(&response_);
    StartCall();
  }

  void Next() override {
    {
      absl::MutexLock lock(&mutex_);
      if (released_) return;
      reading_ = true;
    }
    StartRead(&response_);
  }

  void Cancel() override {
    context_->TryCancel();
    bool release = false;
    {
      absl::MutexLock lock(&mutex_);
      cancelled_ = true;
      // A read that is under way ends by itself.
      release = !reading_ && !released_;
      released_ = released_ || release;
    }
    if (release) RemoveHold();
  }

 private:
  void WriteNext() {
    if (written_ == watches_.size()) return;
    *request_.mutable_create_request() = watches_[written_++];
    StartWrite(&request_);
  }
  void OnWriteDone(bool ok) override {
    if (ok) WriteNext();
  }
  void OnReadDone(bool ok) override {
    bool release = false;
    {
      absl::MutexLock lock(&mutex_);
      reading_ = false;
      release = (!ok || cancelled_) && !released_;
      released_ = released_ || release;
    }
    if (release) {
      RemoveHold();
    } else {
      on_response_(std::move(response_));
    }
  }
  void OnDone(const grpc::Status& status) override {
    absl::Status end = FromGrpc(status);
    if (end.ok()) end = absl::UnavailableError("the watch stream ended");
    on_end_(end);
    self_.reset();
  }

  const std::shared_ptr<const InnerClient::Stubs> stubs_;
  const std::shared_ptr<grpc::ClientContext> context_;
  const std::vector<etcdserverpb::WatchCreateRequest> watches_;
  const OnResponse on_response_;
  const OnEnd on_end_;
  std::shared_ptr<InnerWatchCall> self_;
  size_t written_ = 0;
  etcdserverpb::WatchRequest request_;    // the write under way
  etcdserverpb::WatchResponse response_;  // the read under way
  absl::Mutex mutex_;
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;  // from Open on
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool released_ ABSL_GUARDED_BY(mutex_) = false;  // the hold
};

// Where there is no channel yet.
class NoStream : public InnerWatch {
 public:
  void Next() override {}
  void Cancel() override {}
};

}  // namespace

std::shared_ptr<InnerWatch> InnerWatch::Start(const InnerClient& client, const CallerTerms& terms,
                                              std::vector<etcdserverpb::WatchCreateRequest> watches,
                                              OnResponse on_response, OnEnd on_end) {
  std::shared_ptr<const InnerClient::Stubs> stubs = client.stubs();
  if (stubs == nullptr) {
    on_end(InnerClient::NotReady());
    return std::make_shared<NoStream>();
  }
  auto call = std::make_shared<InnerWatchCall>(
      std::move(stubs), terms.NewContext(std::chrono::milliseconds::zero()), std::move(watches),
      std::move(on_response), std::move(on_end));
  call->Open(call);
  return call;
}

absl::Status CancelStatus(const etcdserverpb::WatchResponse& response) {
  // Some reasons are written as a whole gRPC status.
  static constexpr std::string_view kText = " desc = ";
  std::string_view reason = response.cancel_reason();
  const size_t at = reason.find(kText);
  if (at != std::string_view::npos) reason.remove_prefix(at + kText.size());
  if (reason.empty()) reason = "the server cancelled the watch";
  return absl::FailedPreconditionError(base::ToAbsl(reason));
}

}  // namespace holdfast::server
