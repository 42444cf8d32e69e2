// The service Exchange in this process, answering what and when a test says.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/server.h>
#include <grpcpp/support/status.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "holdfast/exchange.grpc.pb.h"

namespace holdfast::test {

// Threads: all methods from any thread. Methods that send or end a stream mean the newest one.
class FakeExchange {
 public:
  struct Options {
    bool greet = true;      // the first message, with the limits, at once; else by Greet()
    bool implement = true;  // false: the service says UNIMPLEMENTED
    bool read = true;       // false: nothing is read, ever
    uint64_t max_batch_bytes = 1 << 20;
    uint64_t max_request_bytes = 0;
  };

  FakeExchange() : FakeExchange(Options()) {}
  explicit FakeExchange(Options options);
  ~FakeExchange();

  const std::string& endpoint() const { return endpoint_; }

  int streams() const;
  // All that came, once there are so many.
  std::vector<v1::ExchangeRequest> WaitForRequests(size_t count) const;
  std::vector<uint64_t> WaitForCancels(size_t count) const;
  std::vector<v1::ExchangeRequests> messages() const;
  void WaitForStreams(int count) const;

  void Greet();
  void Send(v1::ExchangeReplies replies);
  // An OK answer at this revision, of a put.
  static v1::ExchangeReply PutReply(uint64_t id, int64_t revision);
  void End(const grpc::Status& status);

  class Stream;

 private:
  class Service;

  const Options options_;
  std::unique_ptr<Service> service_;
  std::string endpoint_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace holdfast::test
