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
constexpr const char* kLife = "process_start_time_seconds";
constexpr int64_t kSecondNs = 1'000'000'000;
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

double RequestsOf(const std::string& text) {
  return SumOfMetric(text, kMetric) - SumOfMetric(text, "holdfast_exchange_batches_total") +
         SumOfMetric(text, "holdfast_exchange_requests_total");
}

void SeenCounter::Saw(int64_t at_ns, double count, double life) {
  if (points_.empty()) {
    points_.push_back({at_ns, 0});
  } else if (life == life_) {
    points_.push_back({at_ns, points_.back().total + count - last_});
  } else {
    const double total = points_.back().total;
    if (nobody_ns_ > points_.back().at_ns) points_.push_back({nobody_ns_, total});
    points_.push_back({at_ns, total + count});
  }
  last_ = count;
  life_ = life;
}

void SeenCounter::SawNobody(int64_t at_ns) { nobody_ns_ = at_ns; }

double SeenCounter::At(int64_t at_ns) const {
  if (points_.empty() || at_ns <= points_.front().at_ns) return 0;
  if (at_ns >= points_.back().at_ns) return points_.back().total;
  const auto after = std::ranges::upper_bound(points_, at_ns, {}, &Point::at_ns);
  const auto before = after - 1;
  const double share =
      double(at_ns - before->at_ns) / double(std::max<int64_t>(after->at_ns - before->at_ns, 1));
  return before->total + share * (after->total - before->total);
}

RequestRate::RequestRate(std::vector<std::string> endpoints, const Timeline* timeline)
    : endpoints_(std::move(endpoints)),
      timeline_(timeline),
      counters_(endpoints_.size()),
      thread_([this] { Run(); }) {}

void RequestRate::Stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void RequestRate::Run() {
  while (!stop_) {
    const int64_t due_ns = MonotonicNs() + absl::ToInt64Nanoseconds(kInterval);
    for (size_t i = 0; i < endpoints_.size(); ++i) {
      const auto text = HttpGet(endpoints_[i], "/metrics", kTimeout);
      const int64_t now_ns = BootNs();
      std::lock_guard lock(mutex_);
      if (text.ok()) {
        counters_[i].Saw(now_ns, RequestsOf(*text), SumOfMetric(*text, kLife));
      } else {
        counters_[i].SawNobody(now_ns);
      }
    }
    SleepUntilNs(due_ns);
  }
}

double RequestRate::Requests(int64_t from_ns, int64_t to_ns) const {
  std::lock_guard lock(mutex_);
  double sum = 0;
  for (const SeenCounter& counter : counters_) sum += counter.At(to_ns) - counter.At(from_ns);
  return sum;
}

double RequestRate::Peak(int64_t from_ns, int64_t to_ns) const {
  double peak = 0;
  for (int64_t at_ns = from_ns; at_ns < to_ns; at_ns += kSlotNs) {
    peak = std::max(peak, Requests(at_ns - kSecondNs, at_ns));
  }
  return peak;
}

double RequestRate::Mean(int64_t from_ns, int64_t to_ns) const {
  return to_ns > from_ns ? Requests(from_ns, to_ns) / (double(to_ns - from_ns) * 1e-9) : 0;
}

std::vector<PlotPoint> RequestRate::Points(int64_t until_ns) const {
  const int64_t step_ns = absl::ToInt64Nanoseconds(kInterval);
  std::vector<PlotPoint> points;
  for (int64_t at_ns = timeline_->begin_ns() + step_ns; at_ns <= until_ns; at_ns += step_ns) {
    points.push_back({timeline_->Seconds(at_ns), Mean(at_ns - step_ns, at_ns)});
  }
  return points;
}

}  // namespace holdfast::bench
