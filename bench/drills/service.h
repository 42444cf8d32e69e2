// A small service in a process of its own: what drills crash, stop, restart and clone.
//
// The bench starts itself as `holdfast-bench drill-service ARGS`. The child tells on stdout, in
// lines, what it does; see ServiceReport. It dies with the bench.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/drill_oracle.h"
#include "bench/drills/timeline.h"

namespace holdfast::bench {

inline constexpr const char* kServiceCommand = "drill-service";

// --- the child ---

// The process's exit code. The arguments are those of ServiceTerms::Args().
int RunService(const std::vector<std::string>& args);

enum class ServiceRole {
  kReader,    // reads a key of a mirrored prefix, as fast as it is told to
  kFeatures,  // the bot management of november-18: obeys a feature file (features.h)
  kPlain,     // the same on a plain etcd client: takes what it gets
  kForks,     // forks while it has a client, and writes in both
  kDisk,      // writes generations of a copy to disk_dir, one after the other (generations.h)
};

struct ServiceTerms {
  ServiceRole role = ServiceRole::kReader;
  std::vector<std::string> endpoints;
  std::string name;
  std::string disk_dir;
  std::string prefix;
  std::string key;
  // FailClosedAfter so much; Infinite: FailStatic.
  absl::Duration bound = absl::InfiniteDuration();
  absl::Duration probation = absl::Seconds(60);
  double reads_per_second = 200;

  std::vector<std::string> Args() const;
  static absl::StatusOr<ServiceTerms> Parse(const std::vector<std::string>& args);
};

// --- the bench's side ---

// What the child has told. Of its present life, where not said otherwise.
struct ServiceReport {
  bool opened = false;        // Client::Open came back OK
  absl::Duration open_time;   // how long that took
  absl::Duration until_read;  // from the process's start to its first answer
  std::string failed;         // why it gave up; empty: it did not
  uint64_t written = 0;       // kDisk: the newest generation on disk
  // The newest sample.
  double age_s = -1;  // of the newest answer; < 0: unknown, or none yet
  std::string proof;
  std::string source;
  std::string link;
  std::string value;  // what was read, its first word
  uint64_t revision = 0;
  uint64_t rejections = 0;
  bool superseded = false;
  uint64_t samples = 0;
  // Of all lives.
  uint64_t served = 0;
  uint64_t refused = 0;
  uint64_t errors = 0;
  uint64_t poisoned = 0;  // bad values that the service was given to use
  std::string last_error;
  double cpu_s = 0;  // of the newest life
};

// Threads: one, the one that outlives the children (LocalCluster has the same rule).
class Service {
 public:
  // Both may be null, and must live longer.
  Service(ServiceTerms terms, Track* track, DrillOracle::Reader* oracle);
  ~Service();  // SIGKILL
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  absl::Status Start();  // REQUIRES: it does not run
  void Kill();           // SIGKILL, and waits for its end; nothing if it does not run
  void Pause();          // SIGSTOP
  void Resume();         // SIGCONT
  // Reaps it if it has ended by itself.
  bool Running();
  // As of waitpid(2), of the last life that ended.
  std::optional<int> wait_status() const { return wait_status_; }
  int starts() const { return starts_; }
  pid_t pid() const { return pid_; }
  ServiceReport report() const;
  ServiceTerms& terms() { return terms_; }

  // A supervisor's work, to be called often: starts a service that has crashed again after `pause`.
  absl::Status Tend(absl::Duration pause);

 private:
  void Listen(int fd);
  void Take(const std::string& line);

  ServiceTerms terms_;
  Track* const track_;
  DrillOracle::Reader* const oracle_;
  pid_t pid_ = 0;
  int starts_ = 0;
  int64_t started_ns_ = 0;
  int64_t ended_ns_ = 0;
  std::optional<int> wait_status_;
  mutable std::mutex mutex_;
  ServiceReport report_;  // guarded by mutex_
  std::thread listener_;
};

}  // namespace holdfast::bench
