#include "server/client_acceptor.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/statusor.h"
#include "base/log.h"

namespace holdfast::server {
namespace {

constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
// So many bytes of it cannot be anything else, for "PRI" is no method of HTTP/1.1.
constexpr size_t kEnough = std::string_view("PRI * HTTP/2").size();
// Accepted in one go, so that the other events of the round are not kept waiting.
constexpr int kAcceptsPerEvent = 64;
// What gRPC sets on the connections that it accepts itself: how long sent data may stay
// unacknowledged.
constexpr unsigned kUserTimeoutMs = 20'000;

void Prepare(int fd) {
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUserTimeoutMs, sizeof(kUserTimeoutMs));
}

}  // namespace

Protocol ProtocolOf(std::string_view first_bytes) {
  const size_t n = std::min(first_bytes.size(), kEnough);
  if (first_bytes.substr(0, n) != kHttp2Preface.substr(0, n)) return Protocol::kHttp1;
  return n == kEnough ? Protocol::kHttp2 : Protocol::kUndecided;
}

absl::StatusOr<std::unique_ptr<ClientAcceptor>> ClientAcceptor::Start(const Options& options,
                                                                      std::vector<Port> ports) {
  std::unique_ptr<ClientAcceptor> acceptor(new ClientAcceptor(options, std::move(ports)));
  acceptor->loop_ = EventLoop::Start("accept", [raw = acceptor.get()] { raw->Sweep(); });
  if (acceptor->loop_ == nullptr) return absl::ResourceExhaustedError("no descriptors are left");
  if (absl::Status status = acceptor->WatchPorts(); !status.ok()) return status;
  return acceptor;
}

ClientAcceptor::ClientAcceptor(const Options& options, std::vector<Port> ports)
    : options_(options), ports_(std::move(ports)) {}

ClientAcceptor::~ClientAcceptor() { Stop(); }

absl::Status ClientAcceptor::WatchPorts() {
  loop_->Post([this] {
    for (const Port& port : ports_) {
      for (const int fd : port.sockets.fds()) {
        const bool watched = loop_->Watch(
            fd, EPOLLIN,
            [this, fd, http_only = port.http_only](uint32_t) { Accept(fd, http_only); });
        if (!watched) LOG_ERROR("cannot wait for connections: epoll refuses descriptor {}", fd);
      }
    }
  });
  return absl::OkStatus();
}

void ClientAcceptor::Stop() {
  if (loop_ == nullptr) return;
  loop_->Post([this] {
    for (const Port& port : ports_) {
      for (const int fd : port.sockets.fds()) loop_->Forget(fd);
    }
    ports_.clear();
    for (const auto& [fd, since] : undecided_) {
      loop_->Forget(fd);
      close(fd);
    }
    undecided_.clear();
    undecided_count_ = 0;
  });
  loop_->Stop();
}

void ClientAcceptor::Accept(int listen_fd, bool http_only) {
  for (int i = 0; i < kAcceptsPerEvent; ++i) {
    const int fd = accept4(listen_fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      if (errno == ECONNABORTED || errno == EINTR || errno == EPROTO) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      // Out of descriptors or memory: trying again at once would only burn the processor.
      if (!std::exchange(paused_, true)) {
        LOG_WARN("cannot accept connections: {}; trying again", strerror(errno));
        for (const Port& port : ports_) {
          for (const int socket : port.sockets.fds()) loop_->Change(socket, 0);
        }
      }
      return;
    }
    Prepare(fd);
    if (http_only) {
      options_.on_http_only(fd);
      continue;
    }
    // Edge-triggered: the bytes stay where they are, and would wake the loop for ever.
    if (!loop_->Watch(fd, EPOLLIN | EPOLLRDHUP | EPOLLET, [this, fd](uint32_t) { Look(fd); })) {
      close(fd);
      continue;
    }
    undecided_[fd] = loop_->now();
    order_.push_back({loop_->now(), fd});
    if (undecided_.size() > options_.max_undecided) {
      while (!order_.empty()) {
        const Silent oldest = order_.front();
        order_.pop_front();
        const auto it = undecided_.find(oldest.fd);
        if (it == undecided_.end() || it->second != oldest.since) continue;
        Drop(oldest.fd);
        break;
      }
    }
    undecided_count_ = undecided_.size();
  }
}

void ClientAcceptor::Look(int fd) {
  std::array<char, kHttp2Preface.size()> first;
  const ssize_t n = recv(fd, first.data(), first.size(), MSG_PEEK);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return Drop(fd);
  switch (ProtocolOf({first.data(), static_cast<size_t>(n)})) {
    case Protocol::kUndecided:
      return;
    case Protocol::kHttp1:
      return Decide(fd, options_.on_http1);
    case Protocol::kHttp2:
      return Decide(fd, options_.on_http2);
  }
}

bool ClientAcceptor::Remove(int fd) {
  if (undecided_.erase(fd) == 0) return false;
  undecided_count_ = undecided_.size();
  loop_->Forget(fd);
  return true;
}

void ClientAcceptor::Decide(int fd, const Take& take) {
  if (Remove(fd)) take(fd);
}

void ClientAcceptor::Drop(int fd) {
  if (Remove(fd)) close(fd);
}

void ClientAcceptor::Sweep() {
  if (std::exchange(paused_, false)) {
    for (const Port& port : ports_) {
      for (const int fd : port.sockets.fds()) loop_->Change(fd, EPOLLIN);
    }
  }
  const Time oldest_allowed = loop_->now() - options_.undecided_max;
  while (!order_.empty()) {
    const Silent first = order_.front();
    const auto it = undecided_.find(first.fd);
    const bool still = it != undecided_.end() && it->second == first.since;
    if (still && first.since > oldest_allowed) return;
    order_.pop_front();
    if (still) Drop(first.fd);
  }
}

}  // namespace holdfast::server
