// What a process asked of the kernel, as strace saw it: whether bytes were on the disk before other
// bytes left for a socket.
//
// Times are strace's: wall clock, in microseconds, of one machine, so that those of several
// processes can be compared.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace holdfast {

struct SystemCall {
  std::string name;
  std::string target;  // the path of a file, or "TCP:[...]" of a socket
  std::string bytes;   // all that it was given, one piece after the other
  int64_t result = -1;
  int64_t start_us = 0;
  int64_t end_us = 0;
};

// Calls that ended; one that was cut in two by another thread's is put together again.
std::vector<SystemCall> ParseStrace(std::string_view text);

// When `bytes` were on the disk of a process: a write of them to a file below `dir` that was
// followed by a successful fsync or fdatasync of that file. nullopt: never.
std::optional<int64_t> DurableAt(const std::vector<SystemCall>& calls, std::string_view dir,
                                 std::string_view bytes);
// When `bytes` began to leave by a socket of this port. nullopt: never.
std::optional<int64_t> SentAt(const std::vector<SystemCall>& calls, int port,
                              std::string_view bytes);

// Traces a process, with all its threads, as long as it lives.
class Tracer {
 public:
  // Returns once the process is traced. Unavailable: there is no strace, or it may not.
  static absl::StatusOr<std::unique_ptr<Tracer>> Attach(pid_t pid, const std::string& file);
  ~Tracer();
  Tracer(const Tracer&) = delete;
  Tracer& operator=(const Tracer&) = delete;
  // What was written down. The last calls may still be missing: whoever was sent something can see
  // it before strace sees the end of the call that sent it.
  std::vector<SystemCall> SoFar() const;
  // Lets the process go on untraced; what was seen. Once.
  std::vector<SystemCall> Detach();

 private:
  Tracer(pid_t pid, std::string file) : pid_(pid), file_(std::move(file)) {}
  pid_t pid_;  // strace's; 0: ended
  const std::string file_;
};

}  // namespace holdfast
