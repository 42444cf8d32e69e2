#include "tests/client/fake_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <set>

#include <fmt/format.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include "base/check.h"
#include "holdfast/client.grpc.pb.h"

namespace holdfast::test {
namespace {

void Fill(const Answer& answer, etcdserverpb::ResponseHeader* header) {
  header->set_cluster_id(answer.cluster_id);
  header->set_member_id(1);
  header->set_revision(answer.revision);
}

void Fill(const Answer& answer, etcdserverpb::RangeResponse* response) {
  Fill(answer, response->mutable_header());
  for (const auto& [key, value] : answer.kvs) {
    auto* kv = response->add_kvs();
    kv->set_key(key);
    kv->set_value(value);
    kv->set_create_revision(1);
    kv->set_mod_revision(1);
    kv->set_version(1);
  }
  response->set_more(answer.more);
  response->set_count(answer.count >= 0 ? answer.count : static_cast<int64_t>(answer.kvs.size()));
}

void Fill(const Answer& answer, etcdserverpb::PutResponse* response) {
  Fill(answer, response->mutable_header());
}

void Fill(const Answer& answer, etcdserverpb::DeleteRangeResponse* response) {
  Fill(answer, response->mutable_header());
  response->set_deleted(answer.deleted);
}

void Fill(const Answer& answer, etcdserverpb::TxnResponse* response) {
  Fill(answer, response->mutable_header());
  response->set_succeeded(answer.succeeded);
}

void Fill(const Answer& answer, v1::SessionOpenResponse* response) {
  Fill(answer, response->mutable_header());
  response->set_session(answer.session);
  response->set_ttl_ms(3'600'000);
  response->set_window(answer.window);
}

void Fill(const Answer& answer, v1::SessionCloseResponse* response) {
  Fill(answer, response->mutable_header());
}

// A TCP socket bound to a free port of the loopback.
int BindAny(std::string* endpoint) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  CHECK(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
  CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  *endpoint = fmt::format("127.0.0.1:{}", ntohs(address.sin_port));
  return fd;
}

}  // namespace

Answer Answer::WithAge(int age_ms, int64_t revision, std::string source) {
  Answer answer = Ok(revision);
  answer.trailing = {{"holdfast-age-ms", std::to_string(age_ms)},
                     {"holdfast-proof", "proven"},
                     {"holdfast-source", std::move(source)}};
  return answer;
}

class FakeServer::Service : public etcdserverpb::KV::CallbackService {
 public:
  grpc::ServerUnaryReactor* Range(grpc::CallbackServerContext* context,
                                  const etcdserverpb::RangeRequest* request,
                                  etcdserverpb::RangeResponse* response) override {
    return Handle({.method = "Range", .range = *request}, context, response);
  }
  grpc::ServerUnaryReactor* Put(grpc::CallbackServerContext* context,
                                const etcdserverpb::PutRequest* request,
                                etcdserverpb::PutResponse* response) override {
    return Handle({.method = "Put", .put = *request}, context, response);
  }
  grpc::ServerUnaryReactor* DeleteRange(grpc::CallbackServerContext* context,
                                        const etcdserverpb::DeleteRangeRequest* request,
                                        etcdserverpb::DeleteRangeResponse* response) override {
    return Handle({.method = "DeleteRange", .delete_range = *request}, context, response);
  }
  grpc::ServerUnaryReactor* Txn(grpc::CallbackServerContext* context,
                                const etcdserverpb::TxnRequest* request,
                                etcdserverpb::TxnResponse* response) override {
    return Handle({.method = "Txn", .txn = *request}, context, response);
  }

  absl::Mutex mutex;
  Handler handler ABSL_GUARDED_BY(mutex) = [](const Seen&) { return Answer::Ok(); };
  std::vector<Seen> seen ABSL_GUARDED_BY(mutex);

  // A call that has not been answered.
  class Reactor : public grpc::ServerUnaryReactor {
   public:
    explicit Reactor(Service* service) : service_(service) {}
    void OnCancel() override { service_->Release(this, grpc::Status::CANCELLED); }
    void OnDone() override { delete this; }
    std::function<void(const Answer&)> answer;

   private:
    Service* const service_;
  };
  std::set<Reactor*> held ABSL_GUARDED_BY(mutex);

  void Release(Reactor* reactor, const grpc::Status& status) {
    {
      absl::MutexLock lock(&mutex);
      if (held.erase(reactor) == 0) return;
    }
    reactor->Finish(status);
  }

  template <class Response>
  grpc::ServerUnaryReactor* Handle(Seen call, grpc::CallbackServerContext* context,
                                   Response* response) {
    for (const auto& [key, value] : context->client_metadata()) {
      call.metadata[std::string(key.data(), key.size())] = std::string(value.data(), value.size());
    }
    auto* reactor = new Reactor(this);
    reactor->answer = [=](const Answer& answer) {
      for (const auto& [key, value] : answer.trailing) context->AddTrailingMetadata(key, value);
      Fill(answer, response);
      reactor->Finish(answer.status);
    };
    Answer answer;
    {
      absl::MutexLock lock(&mutex);
      answer = handler(call);
      seen.push_back(std::move(call));
      if (answer.hold) {
        held.insert(reactor);
        return reactor;
      }
    }
    reactor->answer(answer);
    return reactor;
  }
};

class FakeServer::SessionService : public v1::Sessions::CallbackService {
 public:
  explicit SessionService(FakeServer::Service* service) : service_(service) {}
  grpc::ServerUnaryReactor* Open(grpc::CallbackServerContext* context,
                                 const v1::SessionOpenRequest*,
                                 v1::SessionOpenResponse* response) override {
    return service_->Handle({.method = "SessionOpen"}, context, response);
  }
  grpc::ServerUnaryReactor* Close(grpc::CallbackServerContext* context,
                                  const v1::SessionCloseRequest* request,
                                  v1::SessionCloseResponse* response) override {
    return service_->Handle({.method = "SessionClose", .session = request->session()}, context,
                            response);
  }

 private:
  FakeServer::Service* const service_;
};

FakeServer::FakeServer(Sessions sessions)
    : service_(std::make_unique<Service>()), endpoint_("127.0.0.1:0") {
  if (sessions == Sessions::kYes) sessions_ = std::make_unique<SessionService>(service_.get());
  Start();
}

FakeServer::~FakeServer() { Stop(); }

void FakeServer::Start() {
  CHECK(server_ == nullptr);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(endpoint_, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(service_.get());
  if (sessions_ != nullptr) builder.RegisterService(sessions_.get());
  server_ = builder.BuildAndStart();
  CHECK(server_ != nullptr);
  CHECK(port != 0);
  endpoint_ = fmt::format("127.0.0.1:{}", port);
}

void FakeServer::Stop() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  server_ = nullptr;
}

void FakeServer::SetHandler(Handler handler) {
  absl::MutexLock lock(&service_->mutex);
  service_->handler = std::move(handler);
}

void FakeServer::Always(Answer answer) {
  SetHandler([answer = std::move(answer)](const Seen&) { return answer; });
}

int FakeServer::calls() const {
  absl::MutexLock lock(&service_->mutex);
  return static_cast<int>(service_->seen.size());
}

int FakeServer::calls(const std::string& method) const {
  absl::MutexLock lock(&service_->mutex);
  int count = 0;
  for (const Seen& call : service_->seen) count += call.method == method;
  return count;
}

std::vector<Seen> FakeServer::seen() const {
  absl::MutexLock lock(&service_->mutex);
  return service_->seen;
}

void FakeServer::WaitForHeld(int count) const {
  Service* const service = service_.get();
  absl::MutexLock lock(&service->mutex);
  auto enough = [service, count]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return static_cast<int>(service->held.size()) >= count;
  };
  service->mutex.Await(absl::Condition(&enough));
}

void FakeServer::WaitForCalls(int count) const {
  Service* const service = service_.get();
  absl::MutexLock lock(&service->mutex);
  auto enough = [service, count]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return static_cast<int>(service->seen.size()) >= count;
  };
  service->mutex.Await(absl::Condition(&enough));
}

void FakeServer::ReleaseHeld(const Answer& answer) {
  std::set<Service::Reactor*> held;
  {
    absl::MutexLock lock(&service_->mutex);
    held.swap(service_->held);
  }
  for (Service::Reactor* reactor : held) reactor->answer(answer);
}

std::string DeadEndpoint() {
  std::string endpoint;
  close(BindAny(&endpoint));
  return endpoint;
}

BlackHole::BlackHole() {
  socket_ = BindAny(&endpoint_);
  CHECK(listen(socket_, 64) == 0);
}

BlackHole::~BlackHole() { close(socket_); }

}  // namespace holdfast::test
