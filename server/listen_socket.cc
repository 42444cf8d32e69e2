#include "server/listen_socket.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace holdfast::server {
namespace {

// Of a socket that only tries.
constexpr int kTryBacklog = 1;
constexpr int kBacklog = SOMAXCONN;
// Port 0, several addresses behind one name: what the system chose for the first may be taken for
// the second.
constexpr int kPortChoicesMax = 16;

using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

absl::StatusOr<Addresses> Resolve(std::string_view flag, const Url& url) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string port = fmt::format("{}", url.port);
  if (const int error = getaddrinfo(url.host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return absl::NotFoundError(
        fmt::format("cannot listen on {}: the host is not known here: {}; write an address of this "
                    "machine in --{}",
                    url.ToString(), gai_strerror(error), flag));
  }
  return Addresses(found, freeaddrinfo);
}

struct Opened {
  int fd = -1;
  int error = 0;
};

Opened OpenSocket(const sockaddr* address, socklen_t length, bool v6_only, int backlog) {
  const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return {.error = errno};
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (address->sa_family == AF_INET6) {
    const int only = v6_only ? 1 : 0;
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
  }
  if (bind(fd, address, length) == 0 && listen(fd, backlog) == 0) return {.fd = fd};
  const Opened failed = {.error = errno};
  close(fd);
  return failed;
}

// A name may have an IPv6 address where IPv6 is off.
bool NotHere(int error) { return error == EADDRNOTAVAIL || error == EAFNOSUPPORT; }

uint16_t PortOf(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                   : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

void SetPort(sockaddr* address, uint16_t port) {
  if (address->sa_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(address)->sin6_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in*>(address)->sin_port = htons(port);
  }
}

absl::Status CheckOne(std::string_view flag, const Url& url) {
  absl::StatusOr<Addresses> addresses = Resolve(flag, url);
  if (!addresses.ok()) return addresses.status();
  bool any = false;
  int last_error = 0;
  for (const addrinfo* a = addresses->get(); a != nullptr; a = a->ai_next) {
    const Opened opened = OpenSocket(a->ai_addr, a->ai_addrlen, true, kTryBacklog);
    if (opened.fd >= 0) {
      close(opened.fd);
      any = true;
    } else if (NotHere(opened.error)) {
      last_error = opened.error;
    } else {
      return ExplainListen(opened.error, flag, url);
    }
  }
  return any ? absl::OkStatus() : ExplainListen(last_error, flag, url);
}

// All addresses at one port. Returns an errno; the sockets are added to `fds`.
int OpenAll(const addrinfo* addresses, Url* url, std::vector<int>* fds) {
  int last_error = EADDRNOTAVAIL;
  for (const addrinfo* a = addresses; a != nullptr; a = a->ai_next) {
    SetPort(a->ai_addr, url->port);
    const Opened opened = OpenSocket(a->ai_addr, a->ai_addrlen, true, kBacklog);
    if (opened.fd < 0) {
      last_error = opened.error;
      if (NotHere(opened.error)) continue;
      return opened.error;
    }
    fds->push_back(opened.fd);
    url->port = PortOf(opened.fd);
  }
  return fds->empty() ? last_error : 0;
}

// Both families in one socket; an errno where there is no IPv6.
int OpenDual(Url* url, std::vector<int>* fds) {
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  any.sin6_addr = in6addr_any;
  any.sin6_port = htons(url->port);
  const Opened opened =
      OpenSocket(reinterpret_cast<const sockaddr*>(&any), sizeof(any), false, kBacklog);
  if (opened.fd < 0) return opened.error;
  fds->push_back(opened.fd);
  url->port = PortOf(opened.fd);
  return 0;
}

}  // namespace

absl::Status ExplainListen(int error, std::string_view flag, const Url& url) {
  const std::string what = fmt::format("cannot listen on {}: ", url.ToString());
  switch (error) {
    case EADDRINUSE:
      return absl::FailedPreconditionError(fmt::format(
          "{}address in use by another process: stop that one, or choose another port in --{} "
          "(`ss -ltnp` shows who listens)",
          what, flag));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(fmt::format(
          "{}{}: ports below 1024 need root; choose another in --{}", what, strerror(error), flag));
    case EADDRNOTAVAIL:
      return absl::NotFoundError(fmt::format(
          "{}this machine has no such address: write one it has, or http://0.0.0.0:{}, in --{}",
          what, url.port, flag));
    default:
      return absl::InternalError(fmt::format("{}{} (--{})", what, strerror(error), flag));
  }
}

absl::Status CheckCanListen(std::string_view flag, const std::vector<Url>& urls) {
  for (const Url& url : urls) {
    if (absl::Status status = CheckOne(flag, url); !status.ok()) return status;
  }
  return absl::OkStatus();
}

ListenSockets::~ListenSockets() {
  for (const int fd : fds_) close(fd);
}

absl::StatusOr<ListenSockets> ListenSockets::Open(std::string_view flag, Url* url) {
  if (url->IsWildcard()) {
    ListenSockets sockets;
    const int error = OpenDual(url, &sockets.fds_);
    if (error == 0) return sockets;
    if (!NotHere(error)) return ExplainListen(error, flag, *url);
  }
  absl::StatusOr<Addresses> addresses = Resolve(flag, *url);
  if (!addresses.ok()) return addresses.status();
  const uint16_t wanted = url->port;
  int error = 0;
  for (int choice = 0; choice < kPortChoicesMax; ++choice) {
    ListenSockets sockets;
    url->port = wanted;
    error = OpenAll(addresses->get(), url, &sockets.fds_);
    if (error == 0) return sockets;
    if (wanted != 0 || error != EADDRINUSE) break;
  }
  url->port = wanted;
  return ExplainListen(error, flag, *url);
}

}  // namespace holdfast::server
