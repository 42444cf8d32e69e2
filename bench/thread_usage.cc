#include "bench/thread_usage.h"

#include <dirent.h>
#include <fmt/format.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "base/strings.h"
#include "bench/proc_stats.h"

namespace holdfast::bench {
namespace {

// Fields of a stat line behind the name, numbered as in proc(5).
constexpr int kFirstAfterName = 3;
constexpr int kUserTicks = 14;
constexpr int kSystemTicks = 15;
constexpr size_t kNetlinkBuffer = size_t{64} << 10;

std::optional<std::string> Contents(const std::string& path) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// The number in the line "name: 123", 0 if there is none.
uint64_t NumberIn(const std::string& text, std::string_view name) {
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != ':') continue;
    return std::strtoull(line.c_str() + name.size() + 1, nullptr, 10);
  }
  return 0;
}

// Nothing of a thread that ended while it was looked at.
std::optional<std::pair<std::string, ThreadUsage>> ReadThread(const std::string& dir) {
  const auto stat = Contents(dir + "/stat");
  const auto status = Contents(dir + "/status");
  if (!stat || !status) return std::nullopt;
  const std::optional<StatLine> line = ParseStatLine(*stat);
  if (!line) return std::nullopt;
  const double tick_seconds = 1.0 / double(sysconf(_SC_CLK_TCK));
  ThreadUsage usage;
  usage.threads = 1;
  usage.cpu_seconds = double(line->user_ticks + line->system_ticks) * tick_seconds;
  usage.system_seconds = double(line->system_ticks) * tick_seconds;
  usage.waits = NumberIn(*status, "voluntary_ctxt_switches");
  usage.preempted = NumberIn(*status, "nonvoluntary_ctxt_switches");
  // The same time in nanoseconds, where the kernel keeps it.
  if (std::ifstream in(dir + "/schedstat"); in) {
    double ran_ns = 0;
    double waited_ns = 0;
    if (in >> ran_ns >> waited_ns) {
      usage.cpu_seconds = ran_ns * 1e-9;
      usage.waited_seconds = waited_ns * 1e-9;
    }
  }
  return std::pair(line->name, usage);
}

struct NetlinkRequest {
  nlmsghdr header;
  inet_diag_req_v2 body;
};

// False: the list has ended.
bool TakeMessages(const char* data, size_t size, std::vector<TcpEnd>& ends, bool& failed) {
  const auto* header = reinterpret_cast<const nlmsghdr*>(data);
  unsigned left = unsigned(size);
  for (; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
    if (header->nlmsg_type == NLMSG_DONE) return false;
    if (header->nlmsg_type == NLMSG_ERROR) {
      failed = true;
      return false;
    }
    const auto* found = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
    TcpEnd end{.local_port = ntohs(found->id.idiag_sport),
               .remote_port = ntohs(found->id.idiag_dport),
               .sent_bytes = 0,
               .received_bytes = 0,
               .sent_segments = 0};
    const auto* attribute = reinterpret_cast<const rtattr*>(found + 1);
    unsigned rest = header->nlmsg_len - unsigned(NLMSG_LENGTH(sizeof(*found)));
    for (; RTA_OK(attribute, rest); attribute = RTA_NEXT(attribute, rest)) {
      if (attribute->rta_type != INET_DIAG_INFO) continue;
      tcp_info info = {};  // an older kernel tells less
      std::memcpy(&info, RTA_DATA(attribute),
                  std::min<size_t>(sizeof(info), RTA_PAYLOAD(attribute)));
      end.sent_bytes = info.tcpi_bytes_acked;
      end.received_bytes = info.tcpi_bytes_received;
      end.sent_segments = info.tcpi_data_segs_out;
    }
    ends.push_back(end);
  }
  return true;
}

bool AskFor(int fd, uint8_t family, std::vector<TcpEnd>& ends) {
  NetlinkRequest request = {};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.body.sdiag_family = family;
  request.body.sdiag_protocol = IPPROTO_TCP;
  request.body.idiag_ext = 1 << (INET_DIAG_INFO - 1);
  request.body.idiag_states = 1 << 1;  // TCP_ESTABLISHED
  if (send(fd, &request, sizeof(request), 0) != ssize_t(sizeof(request))) return false;
  const auto buffer = std::make_unique<char[]>(kNetlinkBuffer);
  for (bool failed = false;;) {
    const ssize_t got = recv(fd, buffer.get(), kNetlinkBuffer, 0);
    if (got <= 0) return false;
    if (!TakeMessages(buffer.get(), size_t(got), ends, failed)) return !failed;
  }
}

}  // namespace

std::optional<StatLine> ParseStatLine(std::string_view line) {
  // The name stands in parentheses and may hold any, so the last one ends it.
  const size_t open = line.find('(');
  const size_t close = line.rfind(')');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) {
    return std::nullopt;
  }
  StatLine result;
  if (!absl::SimpleAtoi(base::ToAbsl(line.substr(0, open)), &result.id)) return std::nullopt;
  result.name = std::string(line.substr(open + 1, close - open - 1));
  std::istringstream rest{std::string(line.substr(close + 1))};
  std::string field;
  for (int i = kFirstAfterName; rest >> field; ++i) {
    if (i == kUserTicks && !absl::SimpleAtoi(field, &result.user_ticks)) return std::nullopt;
    if (i != kSystemTicks) continue;
    if (!absl::SimpleAtoi(field, &result.system_ticks)) return std::nullopt;
    return result;
  }
  return std::nullopt;
}

ThreadUsage& ThreadUsage::operator+=(const ThreadUsage& other) {
  threads += other.threads;
  cpu_seconds += other.cpu_seconds;
  system_seconds += other.system_seconds;
  waited_seconds += other.waited_seconds;
  waits += other.waits;
  preempted += other.preempted;
  return *this;
}

// A thread that ended in between takes its past with it: then there is less than before, told as
// nothing.
ThreadUsage ThreadUsage::operator-(const ThreadUsage& earlier) const {
  const auto less = [](auto now, auto then) { return now > then ? now - then : decltype(now){}; };
  return {.threads = threads,
          .cpu_seconds = less(cpu_seconds, earlier.cpu_seconds),
          .system_seconds = less(system_seconds, earlier.system_seconds),
          .waited_seconds = less(waited_seconds, earlier.waited_seconds),
          .waits = less(waits, earlier.waits),
          .preempted = less(preempted, earlier.preempted)};
}

absl::StatusOr<ProcessDetail> ReadProcessDetail(pid_t pid) {
  const absl::StatusOr<ProcessUsage> usage = ReadProcessUsage(pid);
  if (!usage.ok()) return usage.status();
  ProcessDetail detail;
  detail.cpu_seconds = usage->cpu_seconds;
  detail.rss_anon_bytes = usage->rss_anon_bytes;
  const std::string dir = fmt::format("/proc/{}", pid);
  const auto io = Contents(dir + "/io");
  if (!io || io->empty()) {
    return absl::PermissionDeniedError(
        base::ToAbsl(fmt::format("{}/io cannot be read: run as the user of process {}", dir, pid)));
  }
  detail.disk_write_bytes = NumberIn(*io, "write_bytes");
  detail.write_calls = NumberIn(*io, "syscw");
  const std::unique_ptr<DIR, int (*)(DIR*)> tasks(opendir((dir + "/task").c_str()), closedir);
  if (tasks == nullptr) {
    return absl::NotFoundError(base::ToAbsl(fmt::format("no process {}", pid)));
  }
  while (const dirent* entry = readdir(tasks.get())) {
    if (entry->d_name[0] == '.') continue;
    if (const auto thread = ReadThread(fmt::format("{}/task/{}", dir, entry->d_name))) {
      detail.threads[thread->first] += thread->second;
    }
  }
  return detail;
}

absl::StatusOr<std::vector<TcpEnd>> ReadTcpEnds() {
  const int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  std::vector<TcpEnd> ends;
  const bool answered = fd >= 0 && AskFor(fd, AF_INET, ends) && AskFor(fd, AF_INET6, ends);
  if (fd >= 0) close(fd);
  if (answered) return ends;
  return absl::UnavailableError(
      "the kernel tells nothing of TCP connections (sock_diag): bytes between members are unknown");
}

std::vector<TcpEnd> TcpBetween(const std::vector<TcpEnd>& begin, const std::vector<TcpEnd>& end) {
  std::map<std::pair<uint16_t, uint16_t>, const TcpEnd*> before;
  for (const TcpEnd& one : begin) before[{one.local_port, one.remote_port}] = &one;
  std::vector<TcpEnd> carried;
  for (TcpEnd one : end) {
    const auto it = before.find({one.local_port, one.remote_port});
    // Less than before: another connection that has got the same ports.
    if (it != before.end() && it->second->sent_bytes <= one.sent_bytes &&
        it->second->received_bytes <= one.received_bytes) {
      one.sent_bytes -= it->second->sent_bytes;
      one.received_bytes -= it->second->received_bytes;
      one.sent_segments -= it->second->sent_segments;
    }
    carried.push_back(one);
  }
  return carried;
}

}  // namespace holdfast::bench
