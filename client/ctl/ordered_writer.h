// Writes a sequence of transactions in order, each exactly once, many at a time in flight.
//
// One key of the target (the marker) says how far the sequence has come. Each transaction carries
// its own changes, compares the marker with what the one before it leaves there, and moves it on;
// so one that overtakes another, or comes a second time, changes nothing. Whatever goes wrong
// (refused compare, timeout, another leader), the writer waits until nothing is in flight, reads
// the marker, and goes on behind the step it names: an unknown outcome needs no guess, and neither
// does a process that starts again.
//
// Threads: Push and Drain from one thread; answers come on gRPC's. Memory: what is not yet
// acknowledged, at most kWindowSteps steps and kWindowBytes and one step more.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/ctl/remote.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast::ctl {

inline constexpr size_t kWindowSteps = 64;
inline constexpr size_t kWindowBytes = size_t{16} << 20;

class OrderedWriter {
 public:
  struct Step {
    std::vector<etcdserverpb::RequestOp> ops;
    std::string marker;  // afterwards; no two steps have the same
    size_t bytes = 0;    // of the operations
  };

  // `marker`: what the target's marker says now (it must be there).
  OrderedWriter(Remote* target, std::string marker_key, std::string marker);
  ~OrderedWriter();  // waits for what is in flight

  // Blocks while the window is full. An error is final: the marker is not where any of our own
  // steps leaves it (FailedPrecondition: another process writes it), the target refused a step
  // (its error), or no endpoint answered for `give_up` long (Unavailable).
  absl::Status Push(Step step);
  // Until everything pushed is acknowledged.
  absl::Status Drain();
  // Of the last step that is acknowledged with all before it.
  const std::string& acknowledged() const { return acknowledged_; }

 private:
  struct Flight {
    Step step;
    grpc::ClientContext context;
    etcdserverpb::TxnRequest request;
    etcdserverpb::TxnResponse response;
    bool done = false;
    grpc::Status status;
  };
  // Waits for the oldest to be answered, and takes it off if it is well.
  absl::Status Settle();
  void Send(Step step, const std::string& before);
  // Nothing is in flight afterwards, and what the marker does not yet name is sent again.
  absl::Status Recover(const absl::Status& why);
  absl::StatusOr<std::string> ReadMarker();

  Remote& target_;
  const std::string marker_key_;
  std::string acknowledged_;
  std::string last_;  // the marker after the youngest step
  std::unique_ptr<etcdserverpb::KV::Stub> stub_;
  std::deque<std::unique_ptr<Flight>> flights_;  // the oldest first
  size_t bytes_ = 0;
  absl::Time last_progress_;
  std::mutex mutex_;  // of Flight::done and status
  std::condition_variable changed_;
};

}  // namespace holdfast::ctl
