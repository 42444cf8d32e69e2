#include "bench/tcp_proxy.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "base/check.h"
#include "bench/monotonic.h"

namespace holdfast::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kBacklog = 64;
constexpr size_t kReadBytes = 64 * 1024;
// Per direction of a connection: then its sender is not read any more, and TCP holds it up.
constexpr size_t kBufferBytes = size_t{4} << 20;
constexpr int kDialer = 0;
constexpr int kTarget = 1;
constexpr int kStranger = -1;

absl::Status Unavailable(const std::string& what) {
  return absl::UnavailableError(
      fmt::format("{}: {}", what, std::generic_category().message(errno)));
}

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(uint16_t(port));
  return address;
}

void SendAtOnce(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

void Close(int fd, bool reset) {
  if (fd < 0) return;
  const linger at_once = {.l_onoff = 1, .l_linger = 0};
  if (reset) setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(fd);
}

// The inode of the socket bound to local_port and connected to remote_port, both of 127.0.0.1; 0 if
// there is none (any more). gRPC dials IPv4 from IPv6 sockets, which have a table of their own.
uint64_t SocketInode(int local_port, int remote_port) {
  for (const char* const file : {"/proc/net/tcp6", "/proc/net/tcp"}) {
    std::ifstream table(file);
    std::string line;
    std::getline(table, line);  // the heading
    while (std::getline(table, line)) {
      unsigned local = 0, remote = 0;
      unsigned long inode = 0;
      // sl, local, remote, state, queues, timer, retransmits, uid, timeout, inode
      if (std::sscanf(line.c_str(), " %*d: %*[^:]:%x %*[^:]:%x %*x %*x:%*x %*x:%*x %*x %*u %*u %lu",
                      &local, &remote, &inode) == 3 &&
          int(local) == local_port && int(remote) == remote_port && inode != 0) {
        return inode;
      }
    }
  }
  return 0;
}

bool HasSocket(pid_t pid, uint64_t inode) {
  const std::string wanted = fmt::format("socket:[{}]", inode);
  std::error_code error;
  for (fs::directory_iterator it(fmt::format("/proc/{}/fd", pid), error), end; !error && it != end;
       it.increment(error)) {
    std::error_code gone;
    if (fs::read_symlink(it->path(), gone) == wanted) return true;
  }
  return false;
}

}  // namespace

struct TcpProxy::Chunk {
  int64_t read_ns;
  std::string data;
};

// One direction of a connection.
struct TcpProxy::Pipe {
  std::deque<Chunk> chunks;
  size_t sent = 0;   // of the first chunk
  size_t bytes = 0;  // of all
  bool ended = false;
  bool reset = false;
  int64_t ended_ns = 0;
};

struct TcpProxy::Connection {
  std::array<int, 2> ends = {kStranger, kStranger};
  std::array<int, 2> fds = {-1, -1};  // [kTarget] is -1 until the first rule lets a dial through
  std::array<Pipe, 2> from;           // by the side that sends
  int target_port = 0;
  std::array<Rule, 2> rules;  // by the side that sends; as of this turn
};

absl::StatusOr<std::unique_ptr<TcpProxy>> TcpProxy::Start() {
  std::unique_ptr<TcpProxy> proxy(new TcpProxy());
  proxy->wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (proxy->wake_fd_ < 0) return Unavailable("eventfd");
  proxy->thread_ = std::thread([p = proxy.get()] { p->Loop(); });
  return proxy;
}

TcpProxy::TcpProxy() = default;

TcpProxy::~TcpProxy() {
  if (thread_.joinable()) {
    Change([this] {
      mutex_.AssertHeld();
      stop_ = true;
    });
    thread_.join();
  }
  for (const Connection& connection : connections_) {
    for (const int fd : connection.fds) Close(fd, true);
  }
  for (const auto& [number, end] : ends_) close(end.listener);
  if (wake_fd_ >= 0) close(wake_fd_);
}

absl::Status TcpProxy::Listen(int end, int listen_port, int target_port) {
  CHECK(end >= 0);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const sockaddr_in address = Loopback(listen_port);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(fd, kBacklog) != 0) {
    const absl::Status status = Unavailable(fmt::format("proxy port {}", listen_port));
    close(fd);
    return status;
  }
  Change([&] {
    mutex_.AssertHeld();
    CHECK(!ends_.contains(end));
    ends_[end] = {.listener = fd, .listen_port = listen_port, .target_port = target_port};
  });
  return absl::OkStatus();
}

void TcpProxy::SetProcess(int end, absl::FunctionRef<pid_t()> spawn) {
  absl::MutexLock lock(&mutex_);
  ends_.at(end).pid = spawn();
}

void TcpProxy::Change(absl::FunctionRef<void()> change) {
  absl::MutexLock lock(&mutex_);
  change();
  const uint64_t mine = ++changes_asked_;
  const uint64_t one = 1;
  CHECK(write(wake_fd_, &one, sizeof(one)) == ssize_t(sizeof(one)));
  const auto seen = [&] {
    mutex_.AssertHeld();
    return changes_seen_ >= mine;
  };
  mutex_.Await(absl::Condition(&seen));
}

void TcpProxy::ForEachLink(int from, int to, absl::FunctionRef<void(Rule&)> f) {
  for (const auto& [a, end_a] : ends_) {
    for (const auto& [b, end_b] : ends_) {
      if (a != b && (from == kAll || from == a) && (to == kAll || to == b)) f(rules_[{a, b}]);
    }
  }
}

TcpProxy::Rule TcpProxy::RuleOf(int from, int to) const {
  const auto it = rules_.find({from, to});
  return it == rules_.end() ? Rule() : it->second;
}

void TcpProxy::Cut(int a, int b) {
  Change([&] {
    mutex_.AssertHeld();
    ForEachLink(a, b, [](Rule& rule) { rule.cut = true; });
    ForEachLink(b, a, [](Rule& rule) { rule.cut = true; });
  });
}

void TcpProxy::Blackhole(int from, int to) {
  Change([&] {
    mutex_.AssertHeld();
    ForEachLink(from, to, [](Rule& rule) { rule.blackhole = true; });
  });
}

void TcpProxy::Delay(int from, int to, absl::Duration delay) {
  Change([&] {
    mutex_.AssertHeld();
    ForEachLink(from, to, [&](Rule& rule) { rule.delay_ns = absl::ToInt64Nanoseconds(delay); });
  });
}

void TcpProxy::Heal(int a, int b) {
  Change([&] {
    mutex_.AssertHeld();
    ForEachLink(a, b, [](Rule& rule) { rule = Rule(); });
    ForEachLink(b, a, [](Rule& rule) { rule = Rule(); });
  });
}

void TcpProxy::HealAll() { Heal(kAll, kAll); }

uint64_t TcpProxy::Bytes(int from, int to) const {
  absl::MutexLock lock(&mutex_);
  const auto it = bytes_.find({from, to});
  return it == bytes_.end() ? 0 : it->second;
}

uint64_t TcpProxy::Connections(int from, int to) const {
  absl::MutexLock lock(&mutex_);
  const auto it = connects_.find({from, to});
  return it == connects_.end() ? 0 : it->second;
}

void TcpProxy::Loop() {
  while (true) {
    TakeChanges();
    {
      absl::MutexLock lock(&mutex_);
      changes_seen_ = changes_asked_;
      if (stop_) return;
    }
    PollOnce();
  }
}

// Rules are looked up once a turn: what a turn does, it does under one set of rules.
void TcpProxy::TakeChanges() {
  uint64_t ignored = 0;
  (void)!read(wake_fd_, &ignored, sizeof(ignored));
  absl::MutexLock lock(&mutex_);
  for (auto it = connections_.begin(); it != connections_.end();) {
    Connection& c = *it;
    c.rules = {RuleOf(c.ends[kDialer], c.ends[kTarget]), RuleOf(c.ends[kTarget], c.ends[kDialer])};
    if (!c.rules[kDialer].cut) {
      ++it;
      continue;
    }
    for (const int fd : c.fds) Close(fd, true);
    it = connections_.erase(it);
  }
}

void TcpProxy::PollOnce() {
  std::vector<pollfd> fds = {{.fd = wake_fd_, .events = POLLIN, .revents = 0}};
  std::vector<int> listening;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [number, end] : ends_) {
      listening.push_back(number);
      fds.push_back({.fd = end.listener, .events = POLLIN, .revents = 0});
    }
  }
  const int64_t now_ns = MonotonicNs();
  int64_t next_ns = now_ns + 1'000'000'000;
  const size_t first = fds.size();
  for (Connection& c : connections_) {
    if (c.fds[kTarget] < 0 && !c.rules[kDialer].blackhole) next_ns = now_ns;
    for (const int side : {kDialer, kTarget}) {
      const Pipe& out = c.from[size_t(side)];
      const Pipe& in = c.from[size_t(1 - side)];
      const Rule& out_rule = c.rules[size_t(side)];
      const Rule& in_rule = c.rules[size_t(1 - side)];
      int events = 0;
      if (!out.ended && !out_rule.blackhole && out.bytes < kBufferBytes) events |= POLLIN;
      if ((!in.chunks.empty() || in.ended) && !in_rule.blackhole) {
        const int64_t since_ns = in.chunks.empty() ? in.ended_ns : in.chunks.front().read_ns;
        const int64_t due_ns = since_ns + in_rule.delay_ns;
        if (due_ns <= now_ns) events |= POLLOUT;
        if (due_ns > now_ns) next_ns = std::min(next_ns, due_ns);
      }
      // An end that is not asked about is left out: poll would report its hang-up again and again.
      fds.push_back(
          {.fd = events == 0 ? -1 : c.fds[size_t(side)], .events = short(events), .revents = 0});
    }
  }
  const int64_t wait_ns = next_ns - now_ns;
  const timespec timeout = {.tv_sec = wait_ns / 1'000'000'000, .tv_nsec = wait_ns % 1'000'000'000};
  ppoll(fds.data(), nfds_t(fds.size()), &timeout, nullptr);
  if (fds[0].revents != 0) return;  // new rules first
  size_t i = first;
  for (auto it = connections_.begin(); it != connections_.end(); i += 2) {
    const short revents[2] = {fds[i].revents, fds[i + 1].revents};
    it = Serve(*it, revents) ? std::next(it) : connections_.erase(it);
  }
  for (size_t l = 0; l < listening.size(); ++l) {
    if (fds[1 + l].revents != 0) Accept(listening[l]);
  }
}

// Moves what can be moved. False: the connection is over, and closed.
bool TcpProxy::Serve(Connection& c, const short* revents) {
  if (c.fds[kTarget] < 0 && !c.rules[kDialer].blackhole) {
    c.fds[kTarget] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    SendAtOnce(c.fds[kTarget]);
    const sockaddr_in address = Loopback(c.target_port);
    // A refusal is reported by the first read.
    (void)!connect(c.fds[kTarget], reinterpret_cast<const sockaddr*>(&address), sizeof(address));
    return true;
  }
  for (const int side : {kDialer, kTarget}) {
    if ((revents[side] & (POLLIN | POLLHUP | POLLERR)) != 0) Receive(c, side);
  }
  for (const int side : {kDialer, kTarget}) Send(c, side);
  const int64_t now_ns = MonotonicNs();
  for (const int side : {kDialer, kTarget}) {
    const Pipe& pipe = c.from[size_t(side)];
    const Rule& rule = c.rules[size_t(side)];
    if (!pipe.ended || !pipe.chunks.empty() || rule.blackhole) continue;
    if (now_ns < pipe.ended_ns + rule.delay_ns) continue;
    Close(c.fds[size_t(1 - side)], pipe.reset);
    Close(c.fds[size_t(side)], true);
    return false;
  }
  return true;
}

void TcpProxy::Receive(Connection& c, int side) {
  Pipe& pipe = c.from[size_t(side)];
  if (pipe.ended || c.rules[size_t(side)].blackhole) return;
  std::string data(kReadBytes, '\0');
  const ssize_t n = read(c.fds[size_t(side)], data.data(), data.size());
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  const int64_t now_ns = MonotonicNs();
  if (n <= 0) {
    pipe.ended = true;
    pipe.reset = n < 0;
    pipe.ended_ns = now_ns;
    return;
  }
  data.resize(size_t(n));
  pipe.bytes += data.size();
  pipe.chunks.push_back({now_ns, std::move(data)});
}

void TcpProxy::Send(Connection& c, int to_side) {
  Pipe& pipe = c.from[size_t(1 - to_side)];
  const Rule& rule = c.rules[size_t(1 - to_side)];
  const int fd = c.fds[size_t(to_side)];
  if (fd < 0 || rule.blackhole) return;
  const int64_t now_ns = MonotonicNs();
  uint64_t moved = 0;
  while (!pipe.chunks.empty() && pipe.chunks.front().read_ns + rule.delay_ns <= now_ns) {
    const std::string& data = pipe.chunks.front().data;
    const ssize_t n = send(fd, data.data() + pipe.sent, data.size() - pipe.sent, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EAGAIN || errno == EINTR || errno == ENOTCONN) break;
      // The receiver is gone: the other way ends too, once its rule lets that pass. Until then what
      // still comes for the receiver is dropped.
      Pipe& back = c.from[size_t(to_side)];
      if (!back.ended) back.ended_ns = now_ns;
      back.ended = back.reset = true;
      pipe.chunks.clear();
      pipe.sent = pipe.bytes = 0;
      break;
    }
    moved += uint64_t(n);
    pipe.sent += size_t(n);
    pipe.bytes -= size_t(n);
    if (pipe.sent < data.size()) break;
    pipe.sent = 0;
    pipe.chunks.pop_front();
  }
  if (moved == 0) return;
  absl::MutexLock lock(&mutex_);
  bytes_[{c.ends[size_t(1 - to_side)], c.ends[size_t(to_side)]}] += moved;
}

void TcpProxy::Accept(int end) {
  int listener = -1, listen_port = 0, target_port = 0;
  {
    absl::MutexLock lock(&mutex_);
    const End& it = ends_.at(end);
    listener = it.listener;
    listen_port = it.listen_port;
    target_port = it.target_port;
  }
  sockaddr_in dialer = {};
  socklen_t size = sizeof(dialer);
  const int fd =
      accept4(listener, reinterpret_cast<sockaddr*>(&dialer), &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  SendAtOnce(fd);
  Connection connection;
  connection.ends = {WhoDialed(ntohs(dialer.sin_port), listen_port), end};
  connection.fds[kDialer] = fd;
  connection.target_port = target_port;
  {
    absl::MutexLock lock(&mutex_);
    ++connects_[{connection.ends[kDialer], end}];
  }
  connections_.push_back(std::move(connection));
  // Its rules are looked up, and a cut one reset, before anything is read.
}

int TcpProxy::WhoDialed(int dialing_port, int listen_port) {
  const uint64_t inode = SocketInode(dialing_port, listen_port);
  if (inode == 0) return kStranger;
  absl::MutexLock lock(&mutex_);
  for (const auto& [number, end] : ends_) {
    if (end.pid != 0 && HasSocket(end.pid, inode)) return number;
  }
  return kStranger;
}

}  // namespace holdfast::bench
