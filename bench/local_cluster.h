// A cluster of server processes on this machine, for benches, process tests and drills.
//
// The servers are holdfastd or etcd: both take etcd's flags. Every member has its own data
// directory and log file below one fresh directory, listens on loopback alone, and dies with this
// process whatever kills it (PR_SET_PDEATHSIG).
//
//   auto cluster = LocalCluster::Start({.binary = "/usr/bin/etcd"});
//   if (!cluster.ok()) ...
//   (*cluster)->Kill(0);
//   (*cluster)->Restart(0);
//
// Ports are drawn from below the kernel's ephemeral range, so that no outgoing connection (nor a
// client that connects to itself) can take the port of a member while it is down, and reserved
// against other LocalClusters on this machine as long as this one lives.
//
// Threads: one at a time. Start() and Restart() must be called from a thread that outlives the
// members: the kernel kills a child when the thread that forked it ends.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace holdfast::bench {

inline constexpr int kMaxLocalMembers = 9;

struct LocalClusterOptions {
  std::string binary;                   // a path, or a name to be found in $PATH
  int members = 3;                      // 1..kMaxLocalMembers
  std::string root;                     // fresh directory goes below it; empty: the temp dir
  std::vector<std::string> extra_args;  // behind the others, for every member
  std::string log_level = "warn";
  bool keep_files = false;
  absl::Duration start_timeout = absl::Seconds(30);
  // Start() and WaitForLeader() give up with Cancelled once it is set; may be null.
  const std::atomic<bool>* cancelled = nullptr;
};

class LocalCluster {
 public:
  // Returns when all members name the same leader. InvalidArgument: no such binary or a bad
  // number of members. Unavailable: a member ended or no leader came in time; the text holds the
  // last lines of a member's log.
  static absl::StatusOr<std::unique_ptr<LocalCluster>> Start(const LocalClusterOptions& options);

  // Kills (SIGKILL) what still runs, reaps it, and removes the files unless they are to be kept.
  ~LocalCluster();
  LocalCluster(const LocalCluster&) = delete;
  LocalCluster& operator=(const LocalCluster&) = delete;

  int size() const { return int(members_.size()); }
  // REQUIRES for all below: 0 <= i < size().
  const std::string& endpoint(int i) const { return At(i).endpoint; }  // "127.0.0.1:port"
  int client_port(int i) const { return At(i).client_port; }
  int peer_port(int i) const { return At(i).peer_port; }
  const std::string& data_dir(int i) const { return At(i).data_dir; }
  // stdout and stderr of all its lives.
  const std::string& log_file(int i) const { return At(i).log_file; }
  // 0 while it does not run.
  pid_t pid(int i) const { return At(i).pid; }
  // How its last process ended, as of waitpid(2); nothing before the first end.
  std::optional<int> wait_status(int i) const { return At(i).wait_status; }
  // True if its process exists, paused or not; reaps one that has ended by itself.
  bool Running(int i);

  std::vector<std::string> Endpoints() const;
  std::vector<pid_t> Pids() const;  // of the running ones

  // FailedPrecondition for all five if the member is not running (Restart: is running).
  absl::Status Kill(int i);  // SIGKILL, waits for its end
  // SIGTERM; DeadlineExceeded if it still runs after `timeout`.
  absl::Status Stop(int i, absl::Duration timeout = absl::Seconds(10));
  absl::Status Pause(int i);   // SIGSTOP
  absl::Status Resume(int i);  // SIGCONT
  // The same command line, data and ports. Does not wait until it serves.
  absl::Status Restart(int i, const std::vector<std::string>& more_args = {});

  // Waits until all running, not paused members name the same one of them as leader.
  absl::Status WaitForLeader(absl::Duration timeout);
  // That leader, without waiting; NotFound while there is none.
  absl::StatusOr<int> Leader();

  // Bytes that the data directories of all members take on the disk.
  uint64_t DiskBytes() const;
  // The end of the member's log, for messages.
  std::string LogTail(int i) const;

 private:
  struct Member {
    std::string name;
    std::string endpoint;
    std::string data_dir;
    std::string log_file;
    int client_port = 0;
    int peer_port = 0;
    pid_t pid = 0;
    bool paused = false;
    std::optional<int> wait_status;
  };

  explicit LocalCluster(const LocalClusterOptions& options) : options_(options) {}
  absl::Status CreateMembers();
  absl::StatusOr<int> ReservePort();
  std::vector<std::string> CommandLine(const Member& member) const;
  const Member& At(int i) const;
  Member& At(int i);
  void Reap(Member& member);
  std::optional<int> AgreedLeader();

  LocalClusterOptions options_;
  std::string dir_;
  std::vector<Member> members_;
  std::vector<int> reservations_;  // sockets, see ReservePort()
};

// The executable that lies beside this process's own, for example "holdfastd".
std::string BinaryBesideOwn(const std::string& name);

}  // namespace holdfast::bench
