#include "program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "absl/time/clock.h"

namespace holdfast::compat {
namespace {

// Only async-signal-safe calls: other threads may hold any lock.
[[noreturn]] void RunChild(pid_t parent, char* const* argv, char* const* environment,
                           const char* directory, int input, int output) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(input, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  if (directory[0] != '\0' && chdir(directory) != 0) _exit(127);
  execvpe(argv[0], argv, environment);
  _exit(127);
}

}  // namespace

std::vector<std::string> SplitCommand(const std::string& line) {
  std::vector<std::string> words;
  std::string word;
  char quote = 0;
  bool in_word = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quote == '"' && c == '\\' && i + 1 < line.size()) {
      ++i;
      word += line[i] == 'n' ? '\n' : line[i];
    } else if (quote != 0) {
      if (c == quote) {
        quote = 0;
      } else {
        word += c;
      }
    } else if (c == '\'' || c == '"') {
      quote = c;
      in_word = true;
    } else if (c == ' ') {
      if (in_word) words.push_back(word);
      word.clear();
      in_word = false;
    } else {
      word += c;
      in_word = true;
    }
  }
  if (in_word) words.push_back(word);
  return words;
}

Program::Program(const std::vector<std::string>& argv, const std::string& directory) {
  std::vector<char*> words;
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  std::string api = "ETCDCTL_API=3";
  std::vector<char*> environment = {api.data()};
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    if (!text.starts_with("ETCDCTL_") && !text.starts_with("HOLDFAST_")) {
      environment.push_back(*variable);
    }
  }
  environment.push_back(nullptr);
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0) return;
  if (pipe2(out, O_CLOEXEC) != 0) {
    close(in[0]);
    close(in[1]);
    return;
  }
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    RunChild(parent, words.data(), environment.data(), directory.c_str(), in[0], out[1]);
  }
  close(in[0]);
  close(out[1]);
  input_ = in[1];
  output_ = out[0];
  reaped_ = pid_ < 0;
}

Program::~Program() {
  Signal(SIGKILL);
  Wait();
  CloseInput();
  if (output_ >= 0) close(output_);
}

void Program::Type(const std::string& text) {
  size_t done = 0;
  while (input_ >= 0 && done < text.size()) {
    const ssize_t n = write(input_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // it has ended, which its exit code tells
    done += size_t(n);
  }
}

void Program::CloseInput() {
  if (input_ >= 0) close(input_);
  input_ = -1;
}

bool Program::Fill(absl::Time deadline) {
  if (output_ < 0) return false;
  while (true) {
    const int64_t left_ms = absl::ToInt64Milliseconds(deadline - absl::Now());
    pollfd wanted = {.fd = output_, .events = POLLIN, .revents = 0};
    const int ready = poll(&wanted, 1, int(std::clamp<int64_t>(left_ms, 0, 60'000)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    char bytes[16384];
    const ssize_t n = read(output_, bytes, sizeof(bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    buffer_.append(bytes, size_t(n));
    return true;
  }
}

bool Program::ReadLine(absl::Duration timeout, std::string* line) {
  const absl::Time deadline = absl::Now() + timeout;
  size_t end = 0;
  while ((end = buffer_.find('\n')) == std::string::npos) {
    if (!Fill(deadline)) return false;
  }
  *line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  return true;
}

std::string Program::ReadAll(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (Fill(deadline)) {
  }
  if (absl::Now() >= deadline) {
    Signal(SIGKILL);
    buffer_ += "\n(killed: it did not end)";
  }
  return std::exchange(buffer_, "");
}

void Program::Signal(int signal) {
  if (pid_ > 0 && !reaped_) kill(pid_, signal);
}

int Program::Wait() {
  if (reaped_ || pid_ <= 0) return exit_code_;
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  reaped_ = true;
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return exit_code_;
}

}  // namespace holdfast::compat
