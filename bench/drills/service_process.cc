// The bench's side of bench/drills/service.h.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>
#include <system_error>
#include <utility>

#include "bench/drills/service.h"

namespace holdfast::bench {
namespace {

absl::Status Failed(const char* what) {
  return absl::UnavailableError(
      fmt::format("{}: {}", what, std::generic_category().message(errno)));
}

// In the child, between fork and exec: only async-signal-safe calls.
[[noreturn]] void BecomeService(char* const* argv, int out, int quiet, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  dup2(out, STDOUT_FILENO);
  if (quiet >= 0) dup2(quiet, STDERR_FILENO);
  execv("/proc/self/exe", argv);
  _exit(127);
}

}  // namespace

Service::Service(ServiceTerms terms, Track* track, DrillOracle::Reader* oracle)
    : terms_(std::move(terms)), track_(track), oracle_(oracle) {}

Service::~Service() {
  Kill();
  if (listener_.joinable()) listener_.join();
}

absl::Status Service::Start() {
  if (listener_.joinable()) listener_.join();
  // Each life is a session of its own, which may begin with what is on disk.
  if (oracle_ != nullptr) oracle_->NewIncarnation();
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) return Failed("pipe");
  // What a service says on stderr when it crashes is part of the drill, not of the report.
  const int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
  std::vector<std::string> words = terms_.Args();
  words.insert(words.begin(), {"holdfast-bench", kServiceCommand});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  {
    std::lock_guard lock(mutex_);
    ServiceReport fresh;
    fresh.served = report_.served;
    fresh.refused = report_.refused;
    fresh.errors = report_.errors;
    fresh.poisoned = report_.poisoned;
    fresh.last_error = report_.last_error;
    report_ = std::move(fresh);
  }
  const pid_t parent = getpid();
  started_ns_ = BootNs();
  pid_ = fork();
  if (pid_ == 0) BecomeService(argv.data(), pipe_fds[1], quiet, parent);
  close(pipe_fds[1]);
  if (quiet >= 0) close(quiet);
  if (pid_ < 0) {
    pid_ = 0;
    close(pipe_fds[0]);
    return Failed("fork");
  }
  ++starts_;
  listener_ = std::thread([this, fd = pipe_fds[0]] { Listen(fd); });
  return absl::OkStatus();
}

void Service::Kill() {
  if (pid_ == 0) return;
  kill(pid_, SIGKILL);
  int status = 0;
  if (waitpid(pid_, &status, 0) == pid_) wait_status_ = status;
  pid_ = 0;
  ended_ns_ = BootNs();
}

void Service::Pause() {
  if (pid_ != 0) kill(pid_, SIGSTOP);
}

void Service::Resume() {
  if (pid_ != 0) kill(pid_, SIGCONT);
}

bool Service::Running() {
  if (pid_ == 0) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  wait_status_ = status;
  pid_ = 0;
  ended_ns_ = BootNs();
  return false;
}

absl::Status Service::Tend(absl::Duration pause) {
  if (Running() || BootNs() - ended_ns_ < absl::ToInt64Nanoseconds(pause)) return absl::OkStatus();
  return Start();
}

ServiceReport Service::report() const {
  std::lock_guard lock(mutex_);
  return report_;
}

void Service::Listen(int fd) {
  FILE* const lines = fdopen(fd, "r");
  char* line = nullptr;
  size_t size = 0;
  ssize_t length = 0;
  while ((length = getline(&line, &size, lines)) > 0) {
    Take(std::string(line, size_t(length) - (line[length - 1] == '\n' ? 1 : 0)));
  }
  free(line);
  fclose(lines);
}

void Service::Take(const std::string& line) {
  std::istringstream words(line.substr(std::min<size_t>(2, line.size())));
  std::lock_guard lock(mutex_);
  switch (line.empty() ? ' ' : line[0]) {
    case 'O': {
      int64_t us = 0;
      words >> us;
      report_.opened = true;
      report_.open_time = absl::Microseconds(us);
      return;
    }
    case 'F': {
      int64_t us = 0;
      words >> us;
      report_.until_read = absl::Microseconds(us);
      return;
    }
    case 'V':
      words >> report_.written;
      return;
    case 'X':
      report_.failed = words.str();
      return;
    case 'E':
      report_.last_error = words.str();
      return;
    case 'G': {
      ClaimGroup group;
      words >> group.revision >> group.claimed_ns >> group.claimed_half_ns >> group.reads;
      if (oracle_ != nullptr) oracle_->Add(group);
      return;
    }
    case 'S':
      break;
    default:
      return;
  }
  int64_t at_ns = 0, age_us = 0;
  uint64_t served = 0, reduced = 0, refused = 0, failed = 0, poisoned = 0, unproven = 0;
  int superseded = 0;
  words >> at_ns >> served >> reduced >> refused >> failed >> poisoned >> age_us >> unproven >>
      report_.proof >> report_.source >> report_.link >> report_.revision >> report_.rejections >>
      superseded >> report_.cpu_s >> report_.value;
  report_.superseded = superseded != 0;
  report_.age_s = age_us < 0 ? -1 : double(age_us) * 1e-6;
  ++report_.samples;
  report_.served += served;
  report_.refused += refused;
  report_.errors += failed;
  report_.poisoned += poisoned;
  if (track_ == nullptr) return;
  track_->Add(at_ns, CallOutcome::kServed, uint32_t(served - reduced));
  track_->Add(at_ns, CallOutcome::kReduced, uint32_t(reduced));
  track_->Add(at_ns, CallOutcome::kRefused, uint32_t(refused));
  track_->Add(at_ns, CallOutcome::kFailed, uint32_t(failed));
  if (age_us >= 0 && served > 0) track_->AddAge(at_ns, absl::Microseconds(age_us));
}

}  // namespace holdfast::bench
