// One port, two protocols: what a connection says first decides who gets it.
//
// HTTP/2 with prior knowledge (gRPC's h2c) begins with a fixed preface, "PRI * HTTP/2.0"; whatever
// begins otherwise is taken for HTTP/1.1. The bytes are only looked at (MSG_PEEK): the new owner
// reads them itself.
//
// One loop accepts on all sockets and waits for the first bytes: a connection that has not said
// anything costs no thread, and is closed after `undecided_max`.
// Threads: the callbacks run on the acceptor's loop; they must not block.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "server/event_loop.h"
#include "server/listen_socket.h"

namespace holdfast::server {

enum class Protocol { kUndecided, kHttp1, kHttp2 };
// By the first bytes of a connection.
Protocol ProtocolOf(std::string_view first_bytes);

class ClientAcceptor {
 public:
  // Takes the descriptor over: non-blocking, TCP_NODELAY set.
  using Take = std::function<void(int fd)>;
  struct Options {
    Take on_http2;
    Take on_http1;
    Take on_http_only;  // connections of ports that speak nothing else, as they come
    // gRPC's clients send the preface at once, HTTP clients their request.
    std::chrono::milliseconds undecided_max{10'000};
    // Beyond it the connection that has been silent longest is closed.
    size_t max_undecided = 1024;
  };
  struct Port {
    ListenSockets sockets;
    bool http_only = false;
  };
  static absl::StatusOr<std::unique_ptr<ClientAcceptor>> Start(const Options& options,
                                                               std::vector<Port> ports);
  ~ClientAcceptor();

  // Closes the listening sockets and what is undecided; no callback runs after it. Idempotent.
  void Stop();
  // Accepted, and silent until now. Any thread.
  size_t undecided() const { return undecided_count_.load(); }

 private:
  ClientAcceptor(const Options& options, std::vector<Port> ports);
  absl::Status WatchPorts();
  void Accept(int listen_fd, bool http_only);
  void Look(int fd);
  void Decide(int fd, const Take& take);
  void Drop(int fd);
  void Sweep();
  bool Remove(int fd);

  const Options options_;
  std::vector<Port> ports_;

  // Loop thread. The map knows when each came, the queue their order; an entry of the queue whose
  // time differs is of a connection that is decided or gone. Such entries go when the silent ones
  // before them do, so the queue holds what came within `undecided_max`.
  using Time = EventLoop::Clock::time_point;
  struct Silent {
    Time since;
    int fd;
  };
  std::unordered_map<int, Time> undecided_;
  std::deque<Silent> order_;
  std::atomic<size_t> undecided_count_ = 0;
  bool paused_ = false;  // out of descriptors: no accepting until the next sweep
  std::shared_ptr<EventLoop> loop_;
};

}  // namespace holdfast::server
