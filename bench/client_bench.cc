// What one call of libholdfast costs this process, servers not counted: many asynchronous reads or
// writes under way at once, against servers that are named, or against a child of this process that
// answers from memory at once, which leaves the client's own price.
//
//   client_bench [--endpoints a:2379,b:2379] [--op get|put] [--callers 1000] [--seconds 3]
//                [--value-size 256] [--unary] [--no-sessions]
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <CLI/CLI.hpp>

#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "holdfast/client.grpc.pb.h"
#include "holdfast/client.h"
#include "holdfast/exchange.grpc.pb.h"

namespace holdfast::bench {
namespace {

// --- the server from memory ---

class Stream : public grpc::ServerBidiReactor<v1::ExchangeRequests, v1::ExchangeReplies> {
 public:
  explicit Stream(size_t value_size) : value_(value_size, 'v') {
    outgoing_.mutable_limits()->set_max_batch_bytes(1 << 20);
    StartWrite(&outgoing_);
  }
  void OnWriteDone(bool ok) override {
    if (ok) StartRead(&incoming_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    outgoing_.Clear();
    outgoing_.mutable_header()->set_cluster_id(7);
    for (const v1::ExchangeRequest& request : incoming_.requests()) {
      v1::ExchangeReply* const reply = outgoing_.add_replies();
      reply->set_id(request.id());
      if (request.has_put()) {
        reply->mutable_put()->mutable_header()->set_revision(5);
        if (request.has_session()) reply->set_deduplicated(false);
        continue;
      }
      reply->mutable_range()->mutable_header()->set_revision(5);
      auto* const kv = reply->mutable_range()->add_kvs();
      kv->set_key(request.range().key());
      kv->set_value(value_);
      kv->set_mod_revision(5);
      reply->mutable_range()->set_count(1);
    }
    StartWrite(&outgoing_);
  }
  void OnDone() override { delete this; }

 private:
  const std::string value_;
  v1::ExchangeRequests incoming_;
  v1::ExchangeReplies outgoing_;
};

class Exchange : public v1::Exchange::CallbackService {
 public:
  explicit Exchange(size_t value_size) : value_size_(value_size) {}
  grpc::ServerBidiReactor<v1::ExchangeRequests, v1::ExchangeReplies>* Stream(
      grpc::CallbackServerContext*) override {
    return new bench::Stream(value_size_);
  }

 private:
  const size_t value_size_;
};

class Sessions : public v1::Sessions::CallbackService {
 public:
  grpc::ServerUnaryReactor* Open(grpc::CallbackServerContext* context,
                                 const v1::SessionOpenRequest*,
                                 v1::SessionOpenResponse* response) override {
    response->set_session(++last_);
    response->set_window(128);
    auto* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  std::atomic<uint64_t> last_{0};
};

[[noreturn]] void Serve(int port_out, size_t value_size) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  Exchange exchange(value_size);
  Sessions sessions;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&exchange);
  builder.RegisterService(&sessions);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  CHECK(server != nullptr);
  CHECK(write(port_out, &port, sizeof(port)) == sizeof(port));
  server->Wait();
  _exit(0);
}

// Before any thread of this process.
std::pair<pid_t, std::string> StartServer(size_t value_size) {
  int ends[2];
  CHECK(pipe(ends) == 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) Serve(ends[1], value_size);
  int port = 0;
  CHECK(read(ends[0], &port, sizeof(port)) == sizeof(port));
  return {child, fmt::format("127.0.0.1:{}", port)};
}

// --- the load ---

struct Flags {
  std::vector<std::string> endpoints;
  std::string op = "get";
  int callers = 1000;
  double seconds = 3;
  size_t value_size = 256;
  bool unary = false;
  bool no_sessions = false;
};

// Each caller asks again as soon as it has its answer.
class Load {
 public:
  Load(Client* client, const Flags& flags)
      : client_(client), put_(flags.op == "put"), value_(flags.value_size, 'v') {}

  void Call(int caller) {
    const std::string key = fmt::format("bench/{:08}", (caller * 7919 + ++number_ * 31) % 100'000);
    if (put_) {
      client_->Put(key, value_, WriteOptions(),
                   [this, caller](const auto& result) { Done(caller, result.ok()); });
    } else {
      client_->Get(key, ReadOptions(),
                   [this, caller](const auto& result) { Done(caller, result.ok()); });
    }
  }
  void Stop() { stop_ = true; }
  uint64_t done() const { return done_; }
  uint64_t failed() const { return failed_; }

 private:
  void Done(int caller, bool ok) {
    done_.fetch_add(1, std::memory_order_relaxed);
    if (!ok) failed_.fetch_add(1, std::memory_order_relaxed);
    if (!stop_) Call(caller);
  }

  Client* const client_;
  const bool put_;
  const std::string value_;
  std::atomic<int> number_{0};
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> done_{0};
  std::atomic<uint64_t> failed_{0};
};

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

int Run(Flags flags) {
  pid_t child = 0;
  if (flags.endpoints.empty()) {
    const auto [pid, endpoint] = StartServer(flags.value_size);
    child = pid;
    flags.endpoints = {endpoint};
  }
  auto client = Client::Open({.endpoints = flags.endpoints,
                              .exactly_once = !flags.no_sessions,
                              .batch_stream = !flags.unary});
  CHECK(client.ok());
  Load load(client->get(), flags);
  for (int i = 0; i < flags.callers; ++i) load.Call(i);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // until all is warm
  const double cpu = CpuSeconds();
  const uint64_t done = load.done();
  const auto start = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(std::chrono::duration<double>(flags.seconds));
  const double wall =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const auto calls = static_cast<double>(load.done() - done);
  const double spent = CpuSeconds() - cpu;
  load.Stop();
  std::printf("%s, %d callers: %.0f calls/s, %.2f us of CPU a call in this process, %lu failed\n",
              flags.op.c_str(), flags.callers, calls / wall, spent / calls * 1e6,
              static_cast<unsigned long>(load.failed()));
  client->reset();
  if (child != 0) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  return load.failed() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace holdfast::bench

int main(int argc, char** argv) {
  // Debian's Abseil is built with its deadlock detector on: it costs a call 0.5..4 us, more with
  // more callers. What is measured here is the library.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  holdfast::bench::Flags flags;
  CLI::App app("What a call of libholdfast costs");
  app.add_option("--endpoints", flags.endpoints)->delimiter(',');
  app.add_option("--op", flags.op)->check(CLI::IsMember({"get", "put"}));
  app.add_option("--callers", flags.callers)->check(CLI::PositiveNumber);
  app.add_option("--seconds", flags.seconds)->check(CLI::PositiveNumber);
  app.add_option("--value-size", flags.value_size);
  app.add_flag("--unary", flags.unary);
  app.add_flag("--no-sessions", flags.no_sessions);
  CLI11_PARSE(app, argc, argv);
  return holdfast::bench::Run(flags);
}
