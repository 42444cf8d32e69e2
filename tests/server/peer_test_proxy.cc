#include "peer_test_proxy.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "base/check.h"

namespace holdfast::server::test {
namespace {

constexpr int kPollMs = 5;

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

}  // namespace

TcpProxy::TcpProxy(int target_port)
    : target_port_(target_port), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  CHECK(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0);
  CHECK(::listen(listener_, 16) == 0);
  CHECK(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Loop(); });
}

TcpProxy::~TcpProxy() {
  stop_ = true;
  thread_.join();
  for (const Pair& pair : pairs_) Close(pair);
  ::close(listener_);
}

std::string TcpProxy::url() const { return fmt::format("http://127.0.0.1:{}", port_); }

void TcpProxy::Loop() {
  while (!stop_) {
    if (cut_.exchange(false)) {
      for (const Pair& pair : pairs_) Close(pair);
      pairs_.clear();
    }
    const bool frozen = frozen_;
    std::vector<pollfd> fds = {{listener_, POLLIN, 0}};
    for (const Pair& pair : pairs_) {
      const short events = frozen ? 0 : POLLIN;
      fds.push_back({pair.client, events, 0});
      fds.push_back({pair.server, events, 0});
    }
    ::poll(fds.data(), fds.size(), kPollMs);
    size_t i = 1;
    for (auto it = pairs_.begin(); it != pairs_.end(); i += 2) {
      const bool alive =
          frozen || ((fds[i].revents == 0 || Forward(it->client, it->server, true)) &&
                     (fds[i + 1].revents == 0 || Forward(it->server, it->client, false)));
      if (!alive) Close(*it);
      it = alive ? std::next(it) : pairs_.erase(it);
    }
    if (fds[0].revents != 0) AcceptOne();
  }
}

void TcpProxy::AcceptOne() {
  const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (client < 0) return;
  const int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(target_port_);
  if (::connect(server, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    Close({client, server});
    return;
  }
  pairs_.push_back({client, server});
}

bool TcpProxy::Forward(int from, int to, bool from_client) {
  char buffer[65536];
  const ssize_t n = ::read(from, buffer, sizeof(buffer));
  if (n <= 0) return false;
  if (from_client) {
    ++reads_from_client_;
    bytes_from_client_ += static_cast<uint64_t>(n);
  }
  for (ssize_t sent = 0; sent < n;) {
    const ssize_t m = ::send(to, buffer + sent, static_cast<size_t>(n - sent), MSG_NOSIGNAL);
    if (m <= 0) return false;
    sent += m;
  }
  return true;
}

void TcpProxy::Close(const Pair& pair) {
  const linger reset{1, 0};  // RST, as from a killed process with unread bytes
  for (const int fd : {pair.client, pair.server}) {
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    ::close(fd);
  }
}

}  // namespace holdfast::server::test
