#include "bench/drills/request_rate.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "base/strings.h"
#include "bench/drill_oracle.h"
#include "bench/monotonic.h"

namespace holdfast::bench {
namespace {

constexpr const char* kMetric = "grpc_server_msg_received_total";
constexpr absl::Duration kTimeout = absl::Milliseconds(400);
constexpr size_t kMaxAnswerBytes = size_t{8} << 20;

class Socket {
 public:
  Socket() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {}
  ~Socket() { close(fd_); }
  int fd() const { return fd_; }
  bool Wait(short events, int64_t until_ns) const {
    pollfd one = {.fd = fd_, .events = events, .revents = 0};
    const int64_t left_ms = (until_ns - MonotonicNs()) / 1'000'000;
    return left_ms > 0 && poll(&one, 1, int(left_ms)) == 1;
  }

 private:
  const int fd_;
};

}  // namespace

absl::StatusOr<std::string> HttpGet(const std::string& endpoint, const std::string& path,
                                    absl::Duration timeout) {
  const int64_t until_ns = MonotonicNs() + absl::ToInt64Nanoseconds(timeout);
  const auto failed = [&] {
    return absl::UnavailableError(base::ToAbsl("no answer to GET http://" + endpoint + path));
  };
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(uint16_t(std::atoi(endpoint.substr(endpoint.rfind(':') + 1).c_str())));
  const Socket socket;
  (void)!connect(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  if (!socket.Wait(POLLOUT, until_ns)) return failed();
  const std::string request =
      "GET " + path + " HTTP/1.1\r\nHost: " + endpoint + "\r\nConnection: close\r\n\r\n";
  if (send(socket.fd(), request.data(), request.size(), MSG_NOSIGNAL) != ssize_t(request.size())) {
    return failed();
  }
  std::string answer;
  char buffer[64 * 1024];
  while (answer.size() < kMaxAnswerBytes) {
    if (!socket.Wait(POLLIN, until_ns)) return failed();
    const ssize_t got = recv(socket.fd(), buffer, sizeof(buffer), 0);
    if (got < 0) return failed();
    if (got == 0) break;
    answer.append(buffer, size_t(got));
  }
  if (!answer.starts_with("HTTP/1.1 200")) return failed();
  return answer;
}

double SumOfMetric(const std::string& text, const std::string& name) {
  double sum = 0;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (!line.starts_with(name)) continue;
    if (line.size() == name.size() || (line[name.size()] != '{' && line[name.size()] != ' ')) {
      continue;
    }
    const size_t value = line.rfind(' ');
    sum += std::strtod(std::string(line.substr(value + 1)).c_str(), nullptr);
  }
  return sum;
}

RequestRate::RequestRate(std::vector<std::string> endpoints, const Timeline* timeline)
    : endpoints_(std::move(endpoints)), timeline_(timeline), thread_([this] { Run(); }) {}

void RequestRate::Stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void RequestRate::Run() {
  std::vector<double> before(endpoints_.size(), -1);
  int64_t due_ns = BootNs();
  while (!stop_) {
    double requests = 0;
    for (size_t i = 0; i < endpoints_.size(); ++i) {
      const auto text = HttpGet(endpoints_[i], "/metrics", kTimeout);
      if (!text.ok()) continue;
      const double now = SumOfMetric(*text, kMetric);
      // A member that was restarted counts from 0 again; what one has had before we first asked is
      // no part of any interval.
      if (before[i] >= 0) requests += now >= before[i] ? now - before[i] : now;
      before[i] = now;
    }
    {
      std::lock_guard lock(mutex_);
      samples_.push_back({BootNs(), requests});
    }
    due_ns = std::max(due_ns + absl::ToInt64Nanoseconds(kInterval), BootNs());
    const int64_t left_ns = due_ns - BootNs();
    if (left_ns > 0) SleepUntilNs(MonotonicNs() + left_ns);
  }
}

std::vector<RequestRate::Sample> RequestRate::samples() const {
  std::lock_guard lock(mutex_);
  return samples_;
}

double RequestRate::Peak(int64_t from_ns, int64_t to_ns) const {
  const std::vector<Sample> all = samples();
  double peak = 0;
  for (size_t i = 2; i < all.size(); ++i) {
    if (all[i].at_ns < from_ns || all[i].at_ns >= to_ns) continue;
    const double seconds = double(all[i].at_ns - all[i - 2].at_ns) * 1e-9;
    peak = std::max(peak, (all[i].requests + all[i - 1].requests) / seconds);
  }
  return peak;
}

double RequestRate::Mean(int64_t from_ns, int64_t to_ns) const {
  const std::vector<Sample> all = samples();
  double requests = 0;
  int64_t first_ns = 0, last_ns = 0;
  for (size_t i = 1; i < all.size(); ++i) {
    if (all[i].at_ns < from_ns || all[i].at_ns >= to_ns) continue;
    if (first_ns == 0) first_ns = all[i - 1].at_ns;
    last_ns = all[i].at_ns;
    requests += all[i].requests;
  }
  return last_ns > first_ns ? requests / (double(last_ns - first_ns) * 1e-9) : 0;
}

std::vector<PlotPoint> RequestRate::Points() const {
  const std::vector<Sample> all = samples();
  std::vector<PlotPoint> points;
  for (size_t i = 1; i < all.size(); ++i) {
    const double seconds = double(all[i].at_ns - all[i - 1].at_ns) * 1e-9;
    points.push_back({timeline_->Seconds(all[i].at_ns), all[i].requests / seconds});
  }
  return points;
}

}  // namespace holdfast::bench
