#include "tests/process/strace_log.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <utility>

#include <fmt/format.h>

#include "absl/time/clock.h"

namespace holdfast {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 0;
}

// strace's "\x41\x42"; whatever else is kept as it is.
std::string Unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && text[i + 1] == 'x') {
      out.push_back(static_cast<char>(HexDigit(text[i + 2]) << 4 | HexDigit(text[i + 3])));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// PID SECONDS.MICROSECONDS NAME(FD<TARGET>, ...) = RESULT <SECONDS>
std::optional<SystemCall> ParseCall(int64_t start_us, std::string_view text) {
  const size_t open = text.find('(');
  const size_t equals = text.rfind(" = ");
  if (open == std::string_view::npos || equals == std::string_view::npos) return std::nullopt;
  SystemCall call;
  call.name = std::string(text.substr(0, open));
  call.start_us = start_us;
  const std::string_view arguments = text.substr(open + 1, equals - open - 1);
  const std::string tail(text.substr(equals + 3));
  char* rest = nullptr;
  call.result = std::strtoll(tail.c_str(), &rest, 10);
  const size_t took = tail.rfind('<');
  if (rest == tail.c_str() || took == std::string::npos) return std::nullopt;
  call.end_us =
      start_us + static_cast<int64_t>(std::strtod(tail.c_str() + took + 1, nullptr) * 1e6);
  // "->" within a socket's name is no end of it.
  const size_t begin = arguments.find('<');
  size_t end = begin;
  do {
    end = arguments.find('>', end + 1);
  } while (end != std::string_view::npos && arguments[end - 1] == '-');
  if (begin != std::string_view::npos && end != std::string_view::npos) {
    call.target = Unescape(arguments.substr(begin + 1, end - begin - 1));
  }
  for (size_t quote = arguments.find('"'); quote != std::string_view::npos;) {
    const size_t close = arguments.find('"', quote + 1);
    if (close == std::string_view::npos) break;
    call.bytes += Unescape(arguments.substr(quote + 1, close - quote - 1));
    quote = arguments.find('"', close + 1);
  }
  return call;
}

bool IsOneOf(const std::string& name, std::initializer_list<std::string_view> names) {
  for (const std::string_view one : names) {
    if (name == one) return true;
  }
  return false;
}

}  // namespace

std::vector<SystemCall> ParseStrace(std::string_view text) {
  std::vector<SystemCall> calls;
  std::map<std::string, std::pair<int64_t, std::string>> unfinished;  // by thread
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1);
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    const size_t thread_end = line.find(' ');
    if (thread_end == std::string_view::npos) continue;
    const std::string thread(line.substr(0, thread_end));
    line.remove_prefix(line.find_first_not_of(' ', thread_end));
    const size_t time_end = line.find(' ');
    if (time_end == std::string_view::npos) continue;
    const std::string time(line.substr(0, time_end));
    const size_t dot = time.find('.');
    if (dot == std::string::npos) continue;
    const int64_t start_us = std::strtoll(time.c_str(), nullptr, 10) * 1'000'000 +
                             std::strtoll(time.c_str() + dot + 1, nullptr, 10);
    std::string_view body = line.substr(time_end + 1);
    constexpr std::string_view kCut = "<unfinished ...>", kResumed = " resumed>";
    if (body.ends_with(kCut)) {
      body.remove_suffix(kCut.size());
      unfinished[thread] = {start_us, std::string(body)};
      continue;
    }
    std::optional<SystemCall> call;
    if (body.starts_with("<... ")) {
      const auto begun = unfinished.find(thread);
      const size_t resumed = body.find(kResumed);
      if (begun == unfinished.end() || resumed == std::string_view::npos) continue;
      auto [began_us, whole] = std::move(begun->second);
      unfinished.erase(begun);
      whole += body.substr(resumed + kResumed.size());
      call = ParseCall(began_us, whole);
    } else {
      call = ParseCall(start_us, body);
    }
    if (call.has_value()) calls.push_back(*std::move(call));
  }
  return calls;
}

std::optional<int64_t> DurableAt(const std::vector<SystemCall>& calls, std::string_view dir,
                                 std::string_view bytes) {
  std::optional<int64_t> durable_us;
  for (const SystemCall& write : calls) {
    if (!IsOneOf(write.name, {"pwrite64", "pwritev", "pwritev2", "write", "writev"})) continue;
    if (write.result <= 0 || !std::string_view(write.target).starts_with(dir)) continue;
    if (write.bytes.find(bytes) == std::string::npos) continue;
    for (const SystemCall& sync : calls) {
      if (!IsOneOf(sync.name, {"fdatasync", "fsync"}) || sync.result != 0) continue;
      if (sync.target != write.target || sync.start_us < write.end_us) continue;
      if (!durable_us.has_value() || sync.end_us < *durable_us) durable_us = sync.end_us;
    }
  }
  return durable_us;
}

std::optional<int64_t> SentAt(const std::vector<SystemCall>& calls, int port,
                              std::string_view bytes) {
  const std::string own_end = fmt::format(":{}->", port);
  for (const SystemCall& send : calls) {
    if (!IsOneOf(send.name, {"sendmsg", "sendto", "write", "writev"})) continue;
    if (send.target.find(own_end) == std::string::npos) continue;
    if (send.bytes.find(bytes) != std::string::npos) return send.start_us;
  }
  return std::nullopt;
}

absl::StatusOr<std::unique_ptr<Tracer>> Tracer::Attach(pid_t pid, const std::string& file) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return absl::InternalError("pipe2");
  const std::string process = std::to_string(pid);
  const pid_t strace = fork();
  if (strace == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(fds[1], STDERR_FILENO);
    execlp("strace", "strace", "-f", "-ttt", "-T", "-yy", "-xx", "-s", "65536", "-e",
           "trace=fdatasync,fsync,pwrite64,pwritev,pwritev2,write,writev,sendmsg,sendto", "-e",
           "signal=none", "-o", file.c_str(), "-p", process.c_str(), nullptr);
    _exit(127);
  }
  close(fds[1]);
  std::unique_ptr<Tracer> tracer(new Tracer(strace, file));
  // It says so when the process and all its threads are traced.
  std::string said;
  const absl::Time give_up = absl::Now() + absl::Seconds(20);
  while (said.find(" attached") == std::string::npos) {
    pollfd wait{fds[0], POLLIN, 0};
    char buffer[512];
    const ssize_t n = poll(&wait, 1, 1000) > 0 ? read(fds[0], buffer, sizeof(buffer)) : 0;
    if (n > 0) said.append(buffer, static_cast<size_t>(n));
    if ((n <= 0 && (wait.revents & POLLHUP) != 0) || absl::Now() > give_up) {
      close(fds[0]);
      return absl::UnavailableError("strace can not trace here: " +
                                    (said.empty() ? "is it installed?" : said));
    }
  }
  close(fds[0]);
  return tracer;
}

Tracer::~Tracer() { Detach(); }

std::vector<SystemCall> Tracer::SoFar() const {
  std::ifstream in(file_);
  std::stringstream text;
  text << in.rdbuf();
  return ParseStrace(text.str());
}

std::vector<SystemCall> Tracer::Detach() {
  if (pid_ != 0) {
    kill(pid_, SIGTERM);
    waitpid(std::exchange(pid_, 0), nullptr, 0);
  }
  std::vector<SystemCall> seen = SoFar();
  unlink(file_.c_str());
  return seen;
}

}  // namespace holdfast
