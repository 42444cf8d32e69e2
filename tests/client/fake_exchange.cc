#include "tests/client/fake_exchange.h"

#include <chrono>
#include <utility>

#include <fmt/format.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include "base/check.h"

namespace holdfast::test {

class FakeExchange::Service : public v1::Exchange::CallbackService {
 public:
  explicit Service(const Options& options) : options(options) {}
  grpc::ServerBidiReactor<v1::ExchangeRequests, v1::ExchangeReplies>* Stream(
      grpc::CallbackServerContext*) override;

  const Options options;
  absl::Mutex mutex;
  int streams ABSL_GUARDED_BY(mutex) = 0;
  FakeExchange::Stream* newest ABSL_GUARDED_BY(mutex) = nullptr;  // null: it is over
  std::vector<v1::ExchangeRequests> messages ABSL_GUARDED_BY(mutex);
  std::vector<v1::ExchangeRequest> requests ABSL_GUARDED_BY(mutex);
  std::vector<uint64_t> cancels ABSL_GUARDED_BY(mutex);
};

class FakeExchange::Stream
    : public grpc::ServerBidiReactor<v1::ExchangeRequests, v1::ExchangeReplies> {
 public:
  explicit Stream(Service* service) : service_(service) {}

  void Begin() {
    if (!service_->options.implement) {
      return End({grpc::StatusCode::UNIMPLEMENTED, "not here"});
    }
    if (service_->options.greet) Greet();
    if (service_->options.read) StartRead(&incoming_);
  }
  void Greet() {
    v1::ExchangeReplies first;
    first.mutable_limits()->set_max_batch_bytes(service_->options.max_batch_bytes);
    first.mutable_limits()->set_max_request_bytes(service_->options.max_request_bytes);
    Send(std::move(first));
  }
  void Send(v1::ExchangeReplies replies) {
    absl::MutexLock lock(&mutex_);
    outgoing_.push_back(std::move(replies));
    if (outgoing_.size() == 1) StartWrite(&outgoing_.front());
  }
  void End(const grpc::Status& status) {
    absl::MutexLock lock(&mutex_);
    if (!std::exchange(ended_, true)) Finish(status);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End(grpc::Status::OK);
    {
      absl::MutexLock lock(&service_->mutex);
      service_->messages.push_back(incoming_);
      for (const auto& request : incoming_.requests()) service_->requests.push_back(request);
      for (const uint64_t id : incoming_.cancel()) service_->cancels.push_back(id);
    }
    StartRead(&incoming_);
  }
  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    outgoing_.pop_front();
    if (ok && !outgoing_.empty()) StartWrite(&outgoing_.front());
  }
  void OnCancel() override { End(grpc::Status::CANCELLED); }
  void OnDone() override {
    {
      absl::MutexLock lock(&service_->mutex);
      if (service_->newest == this) service_->newest = nullptr;
    }
    delete this;
  }

 private:
  Service* const service_;
  v1::ExchangeRequests incoming_;
  absl::Mutex mutex_;
  std::deque<v1::ExchangeReplies> outgoing_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

grpc::ServerBidiReactor<v1::ExchangeRequests, v1::ExchangeReplies>* FakeExchange::Service::Stream(
    grpc::CallbackServerContext*) {
  auto* stream = new FakeExchange::Stream(this);
  {
    absl::MutexLock lock(&mutex);
    ++streams;
    newest = stream;
  }
  stream->Begin();
  return stream;
}

FakeExchange::FakeExchange(Options options)
    : options_(options), service_(std::make_unique<Service>(options)) {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(service_.get());
  server_ = builder.BuildAndStart();
  CHECK(server_ != nullptr && port != 0);
  endpoint_ = fmt::format("127.0.0.1:{}", port);
}

FakeExchange::~FakeExchange() {
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

int FakeExchange::streams() const {
  absl::MutexLock lock(&service_->mutex);
  return service_->streams;
}

std::vector<v1::ExchangeRequest> FakeExchange::WaitForRequests(size_t count) const {
  Service* const service = service_.get();
  absl::MutexLock lock(&service->mutex);
  auto enough = [service, count]()
                    ABSL_NO_THREAD_SAFETY_ANALYSIS { return service->requests.size() >= count; };
  service->mutex.Await(absl::Condition(&enough));
  return service->requests;
}

std::vector<uint64_t> FakeExchange::WaitForCancels(size_t count) const {
  Service* const service = service_.get();
  absl::MutexLock lock(&service->mutex);
  auto enough = [service, count]()
                    ABSL_NO_THREAD_SAFETY_ANALYSIS { return service->cancels.size() >= count; };
  service->mutex.Await(absl::Condition(&enough));
  return service->cancels;
}

std::vector<v1::ExchangeRequests> FakeExchange::messages() const {
  absl::MutexLock lock(&service_->mutex);
  return service_->messages;
}

void FakeExchange::WaitForStreams(int count) const {
  Service* const service = service_.get();
  absl::MutexLock lock(&service->mutex);
  auto enough = [service, count]()
                    ABSL_NO_THREAD_SAFETY_ANALYSIS { return service->streams >= count; };
  service->mutex.Await(absl::Condition(&enough));
}

void FakeExchange::Greet() {
  absl::MutexLock lock(&service_->mutex);
  CHECK(service_->newest != nullptr);
  service_->newest->Greet();
}

void FakeExchange::Send(v1::ExchangeReplies replies) {
  absl::MutexLock lock(&service_->mutex);
  CHECK(service_->newest != nullptr);
  service_->newest->Send(std::move(replies));
}

v1::ExchangeReply FakeExchange::PutReply(uint64_t id, int64_t revision) {
  v1::ExchangeReply reply;
  reply.set_id(id);
  reply.mutable_put()->mutable_header()->set_revision(revision);
  return reply;
}

void FakeExchange::End(const grpc::Status& status) {
  absl::MutexLock lock(&service_->mutex);
  CHECK(service_->newest != nullptr);
  service_->newest->End(status);
}

}  // namespace holdfast::test
