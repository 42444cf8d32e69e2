// What the kernel says of a process's threads, of its disk and of its TCP connections: what a cost
// by stage is made of. Linux only.
//
// Threads: functions without state.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace holdfast::bench {

// One line of /proc/PID/stat or /proc/PID/task/TID/stat.
struct StatLine {
  pid_t id = 0;
  std::string name = {};  // at most 15 bytes; may hold spaces and parentheses
  uint64_t user_ticks = 0;
  uint64_t system_ticks = 0;
};
// nullopt: not such a line, or cut off before the times.
std::optional<StatLine> ParseStatLine(std::string_view line);

// Of all threads of one name, since their start. Those that have ended are not in it.
struct ThreadUsage {
  int threads = 0;
  double cpu_seconds = 0;
  double system_seconds = 0;  // the kernel's part, which is told in ticks of 10 ms only
  double waited_seconds = 0;  // ready to run, while every core was busy with others
  uint64_t waits = 0;         // voluntary context switches: it had nothing to do
  uint64_t preempted = 0;     // involuntary ones
  ThreadUsage& operator+=(const ThreadUsage& other);
  ThreadUsage operator-(const ThreadUsage& earlier) const;
};

struct ProcessDetail {
  std::map<std::string, ThreadUsage> threads = {};  // by name
  double cpu_seconds = 0;                           // of the process, ended threads included
  uint64_t rss_anon_bytes = 0;
  uint64_t disk_write_bytes = 0;  // handed to the block layer
  uint64_t write_calls = 0;       // system calls that write files; sockets have others
};
// NotFound if there is no such process, PermissionDenied if it is another user's.
absl::StatusOr<ProcessDetail> ReadProcessDetail(pid_t pid);

// One end of an established TCP connection of this network namespace.
struct TcpEnd {
  uint16_t local_port = 0;
  uint16_t remote_port = 0;
  uint64_t sent_bytes = 0;  // payload, acknowledged by the other end
  uint64_t received_bytes = 0;
  uint64_t sent_segments = 0;  // those with payload
};
// By netlink (sock_diag), for whoever may open such a socket. Unavailable if the kernel does not
// answer; the order is the kernel's.
absl::StatusOr<std::vector<TcpEnd>> ReadTcpEnds();
// Pure: what each connection of `end` carried since `begin`. One that has been closed meanwhile is
// left out; one that is new counts whole.
std::vector<TcpEnd> TcpBetween(const std::vector<TcpEnd>& begin, const std::vector<TcpEnd>& end);

}  // namespace holdfast::bench
