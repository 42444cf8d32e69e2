#include "bench/demo/service_watch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace holdfast::bench {
namespace {

// The text behind "name=", up to the next space.
std::string Field(const std::string& line, const std::string& name) {
  const size_t at = line.find(" " + name + "=");
  if (at == std::string::npos) return "";
  const size_t begin = at + name.size() + 2;
  return line.substr(begin, line.find(' ', begin) - begin);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServiceWatch>> ServiceWatch::Start(
    const std::string& binary, const std::vector<std::string>& args) {
  if (access(binary.c_str(), X_OK) != 0) return absl::NotFoundError("no program " + binary);
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return absl::InternalError("pipe failed");
  std::vector<char*> argv{const_cast<char*>(binary.c_str())};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid < 0) return absl::InternalError("fork failed");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(fds[1], STDOUT_FILENO);
    execv(binary.c_str(), argv.data());
    _exit(127);
  }
  close(fds[1]);
  return std::unique_ptr<ServiceWatch>(new ServiceWatch(pid, fds[0]));
}

ServiceWatch::ServiceWatch(pid_t pid, int fd)
    : pid_(pid), fd_(fd), reader_([this] { ReadLines(); }) {}

ServiceWatch::~ServiceWatch() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  reader_.join();
  close(fd_);
}

ServiceReport ServiceWatch::Take() {
  absl::MutexLock lock(&mutex_);
  report_.longest_silence = std::max(report_.longest_silence, absl::Now() - last_answer_);
  return std::exchange(report_, {});
}

void ServiceWatch::ReadLines() {
  std::string pending;
  char buffer[4096];
  for (ssize_t n = read(fd_, buffer, sizeof(buffer)); n > 0;
       n = read(fd_, buffer, sizeof(buffer))) {
    pending.append(buffer, static_cast<size_t>(n));
    for (size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
      NoteLine(pending.substr(0, end));
      pending.erase(0, end + 1);
    }
  }
}

void ServiceWatch::NoteLine(const std::string& line) {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = absl::Now();
  report_.last_line = line;
  if (line.find(" error=") != std::string::npos) {
    ++report_.errors;
    report_.last_error = line;
    return;
  }
  ++report_.reads;
  report_.longest_silence = std::max(report_.longest_silence, now - last_answer_);
  last_answer_ = now;
  if (Field(line, "proof") != "proven") {
    ++report_.unknown;
    return;
  }
  ++report_.proven;
  report_.age_last_s = std::atof(Field(line, "age").c_str());
  if (report_.age_first_s < 0) report_.age_first_s = report_.age_last_s;
}

}  // namespace holdfast::bench
