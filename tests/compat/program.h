// A child process with its standard streams on pipes: etcdctl, or a server asked for its version.
//
// Output and errors share one pipe, in the order in which they were written. The child dies with
// the thread that started it. Threads: one at a time.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace holdfast::compat {

// The words of a command line as a shell would see them: '...' and "..." keep spaces, and within
// "..." \n, \" and \\ are what they are in C. No other expansion.
std::vector<std::string> SplitCommand(const std::string& line);

class Program {
 public:
  // argv[0] is looked up in $PATH. No ETCDCTL_ or HOLDFAST_ variable of the environment is passed
  // on but ETCDCTL_API=3. Failing to start looks like a program that ends with 127.
  explicit Program(const std::vector<std::string>& argv, const std::string& directory = "");
  ~Program();  // SIGKILL
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void Type(const std::string& text);
  void CloseInput();
  // One line without its end; false: none came in time, or the output has ended.
  bool ReadLine(absl::Duration timeout, std::string* line);
  // All that is left, up to its end or the timeout, after which the process is killed.
  std::string ReadAll(absl::Duration timeout);
  void Signal(int signal);
  // The exit code; -signal if one ended it. Waits: call it after ReadAll().
  int Wait();

 private:
  // False when the output has ended or the deadline has passed.
  bool Fill(absl::Time deadline);

  pid_t pid_ = -1;
  int input_ = -1;
  int output_ = -1;
  std::string buffer_;
  bool reaped_ = false;
  int exit_code_ = 127;
};

}  // namespace holdfast::compat
