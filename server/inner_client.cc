#include "server/inner_client.h"

#include <utility>

#include "base/check.h"
#include "server/grpc_status.h"

namespace holdfast::server {
namespace {

using etcdserverpb::KV;
using etcdserverpb::Lease;

// Lives from StartCall to OnDone, by itself.
class KeepAliveCall : public grpc::ClientBidiReactor<etcdserverpb::LeaseKeepAliveRequest,
                                                     etcdserverpb::LeaseKeepAliveResponse> {
 public:
  using Done = InnerClient::Done<etcdserverpb::LeaseKeepAliveResponse>;

  KeepAliveCall(std::shared_ptr<const InnerClient::Stubs> stubs,
                std::shared_ptr<grpc::ClientContext> context, int64_t lease, Done done)
      : stubs_(std::move(stubs)), context_(std::move(context)), done_(std::move(done)) {
    request_.set_id(lease);
  }
  void Start() {
    stubs_->lease->async()->LeaseKeepAlive(context_.get(), this);
    StartWriteLast(&request_, grpc::WriteOptions());
    StartRead(&response_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    answered_ = answered_ || ok;
    // The end of the stream is of no interest, but it has to be read before its status comes.
    if (ok) context_->TryCancel();
  }
  void OnDone(const grpc::Status& status) override {
    absl::Status result = answered_ ? absl::OkStatus() : FromGrpc(status);
    if (!answered_ && result.ok()) result = absl::UnavailableError("the stream ended early");
    done_(result, &response_);
    delete this;
  }

 private:
  const std::shared_ptr<const InnerClient::Stubs> stubs_;
  const std::shared_ptr<grpc::ClientContext> context_;
  const Done done_;
  etcdserverpb::LeaseKeepAliveRequest request_;
  etcdserverpb::LeaseKeepAliveResponse response_;
  bool answered_ = false;
};

}  // namespace

InnerClient::Stubs::Stubs(const std::shared_ptr<grpc::Channel>& channel)
    : kv(KV::NewStub(channel)),
      watch(etcdserverpb::Watch::NewStub(channel)),
      lease(Lease::NewStub(channel)) {}

void InnerClient::SetChannel(const std::shared_ptr<grpc::Channel>& channel) {
  absl::MutexLock lock(&mutex_);
  CHECK(stubs_ == nullptr);
  stubs_ = std::make_shared<const Stubs>(channel);
}

std::shared_ptr<const InnerClient::Stubs> InnerClient::stubs() const {
  absl::MutexLock lock(&mutex_);
  return stubs_;
}

absl::Status InnerClient::NotReady() {
  return absl::UnavailableError("holdfast: the member is starting");
}

template <class Service, class Request, class Response>
InnerClient::Call InnerClient::Start(
    const std::unique_ptr<Service> Stubs::*service,
    void (Service::async::*method)(grpc::ClientContext*, const Request*, Response*,
                                   std::function<void(grpc::Status)>),
    const CallerTerms& terms, const Request& request, Done<Response> done) {
  struct Messages {
    std::shared_ptr<const Stubs> stubs;
    Call context;
    Request request;
    Response response;
  };
  auto call = std::make_shared<Messages>();
  call->stubs = stubs();
  call->context = terms.NewContext(kCallMax);
  if (call->stubs == nullptr) {
    done(NotReady(), &call->response);
    return call->context;
  }
  call->request = request;
  auto* const async = (call->stubs.get()->*service)->async();
  (async->*method)(
      call->context.get(), &call->request, &call->response,
      [call, done](const grpc::Status& status) { done(FromGrpc(status), &call->response); });
  return call->context;
}

InnerClient::Call InnerClient::Range(const CallerTerms& terms,
                                     const etcdserverpb::RangeRequest& request,
                                     Done<etcdserverpb::RangeResponse> done) {
  return Start(&Stubs::kv, &KV::Stub::async::Range, terms, request, std::move(done));
}
InnerClient::Call InnerClient::DeleteRange(const CallerTerms& terms,
                                           const etcdserverpb::DeleteRangeRequest& request,
                                           Done<etcdserverpb::DeleteRangeResponse> done) {
  return Start(&Stubs::kv, &KV::Stub::async::DeleteRange, terms, request, std::move(done));
}
InnerClient::Call InnerClient::Txn(const CallerTerms& terms,
                                   const etcdserverpb::TxnRequest& request,
                                   Done<etcdserverpb::TxnResponse> done) {
  return Start(&Stubs::kv, &KV::Stub::async::Txn, terms, request, std::move(done));
}
InnerClient::Call InnerClient::Grant(const CallerTerms& terms,
                                     const etcdserverpb::LeaseGrantRequest& request,
                                     Done<etcdserverpb::LeaseGrantResponse> done) {
  return Start(&Stubs::lease, &Lease::Stub::async::LeaseGrant, terms, request, std::move(done));
}
InnerClient::Call InnerClient::Revoke(const CallerTerms& terms,
                                      const etcdserverpb::LeaseRevokeRequest& request,
                                      Done<etcdserverpb::LeaseRevokeResponse> done) {
  return Start(&Stubs::lease, &Lease::Stub::async::LeaseRevoke, terms, request, std::move(done));
}

InnerClient::Call InnerClient::KeepAliveOnce(const CallerTerms& terms, int64_t lease,
                                             Done<etcdserverpb::LeaseKeepAliveResponse> done) {
  std::shared_ptr<const Stubs> open = stubs();
  Call context = terms.NewContext(kCallMax);
  if (open == nullptr) {
    etcdserverpb::LeaseKeepAliveResponse none;
    done(NotReady(), &none);
    return context;
  }
  (new KeepAliveCall(std::move(open), context, lease, std::move(done)))->Start();
  return context;
}

}  // namespace holdfast::server
