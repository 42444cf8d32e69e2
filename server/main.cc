// holdfastd: one member of a cluster.
//
// Exit codes: 0 stopped as asked, or removed from the cluster; 1 could not start, or stopped itself
// because the disk or the logic broke a promise; 2 wrong flags, environment or configuration file.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/flags.h"
#include "server/server.h"
#include "server/version.h"

namespace holdfast::server {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

// SIGTERM and SIGINT: the first asks main to stop, the second ends the process where it stands,
// which is as safe as a power cut, and also works while the member still starts.
class StopSignals {
 public:
  // Before any other thread is there: all inherit that these signals are blocked.
  StopSignals() {
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGTERM);
    sigaddset(&signals_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }

  // Watches until the process ends.
  void Watch() {
    std::thread([this] {
      int signal_number = 0;
      sigwait(&signals_, &signal_number);
      LOG_INFO("received {}: stopping (once more to stop at once)", strsignal(signal_number));
      stop_.release();
      sigwait(&signals_, &signal_number);
      LOG_WARN("received {} again: leaving at once", strsignal(signal_number));
      base::FlushLog();
      _exit(kExitFailed);
    }).detach();
  }

  void WaitForFirst() { stop_.acquire(); }
  // As a signal would.
  void Stop() { stop_.release(); }

 private:
  sigset_t signals_;
  std::counting_semaphore<> stop_{0};
};

int Run(const CommandLine& line) {
  // Lives as long as the thread that watches: for ever.
  static StopSignals signals;
  if (absl::Status status = base::SetUpLog(line.config.log_level, line.config.name); !status.ok()) {
    fprintf(stderr, "holdfastd: %s\n", std::string(base::Message(status)).c_str());
    return kExitUsage;
  }
  signals.Watch();
  LOG_INFO("holdfastd {}, etcd API level {}", kVersion, kEtcdApiVersion);
  for (const std::string& warning : line.warnings) LOG_WARN("{}", warning);
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(line.config, [&line] {
    // Exit code 0, as etcd's: a supervisor that restarts what failed must leave it alone.
    LOG_ERROR(
        "this member was removed from the cluster: stopping. Its data directory {} is of no use "
        "any more: delete it before the member is added again",
        line.config.data_dir);
    signals.Stop();
  });
  if (!server.ok()) {
    LOG_ERROR("cannot start: {}", base::Message(server.status()));
    base::FlushLog();
    return kExitFailed;
  }
  signals.WaitForFirst();
  (*server)->Stop();
  server->reset();
  LOG_INFO("stopped");
  base::FlushLog();
  return 0;
}

int Main(int argc, char** argv) {
  // Debian's Abseil keeps a graph of all locks behind one global lock unless it is told not to.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  absl::StatusOr<CommandLine> line =
      ParseCommandLine(std::vector<std::string>(argv + 1, argv + argc), environment);
  if (!line.ok()) {
    fprintf(stderr, "holdfastd: %s\n", std::string(base::Message(line.status())).c_str());
    return kExitUsage;
  }
  if (!line->print.empty()) {
    fputs(line->print.c_str(), stdout);
    return 0;
  }
  return Run(*line);
}

}  // namespace
}  // namespace holdfast::server

int main(int argc, char** argv) { return holdfast::server::Main(argc, argv); }
