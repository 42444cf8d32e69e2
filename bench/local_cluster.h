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
// With `proxied_peers` the members talk to each other through a TcpProxy, whose ends are the
// members by index: links() cuts, silences and delays what flows between them. Clients are never
// affected.
//
// Members can come and go: AddMember() and Retire(). An index stays its member's for good.
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
#include "bench/tcp_proxy.h"

namespace holdfast::bench {

inline constexpr int kMaxLocalMembers = 9;

struct LocalClusterOptions {
  std::string binary;                   // a path, or a name to be found in $PATH
  int members = 3;                      // 1..kMaxLocalMembers
  std::string root;                     // fresh directory goes below it; empty: the temp dir
  std::vector<std::string> extra_args;  // behind the others, for every member
  std::string log_level = "warn";
  bool proxied_peers = false;
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

  int size() const { return int(members_.size()); }  // retired ones included
  // REQUIRES for all below: 0 <= i < size().
  const std::string& endpoint(int i) const { return At(i).endpoint; }  // "127.0.0.1:port"
  int client_port(int i) const { return At(i).client_port; }
  int peer_port(int i) const { return At(i).peer_port; }  // the advertised one
  std::string peer_url(int i) const;
  const std::string& data_dir(int i) const { return At(i).data_dir; }
  // stdout and stderr of all its lives.
  const std::string& log_file(int i) const { return At(i).log_file; }
  // 0 while it does not run.
  pid_t pid(int i) const { return At(i).pid; }
  // How its last process ended, as of waitpid(2); nothing before the first end.
  std::optional<int> wait_status(int i) const { return At(i).wait_status; }
  // True if its process exists, paused or not; reaps one that has ended by itself.
  bool Running(int i);

  std::vector<std::string> Endpoints() const;  // of all but retired ones
  std::vector<pid_t> Pids() const;             // of the running ones

  // FailedPrecondition for all five if the member is not running (Restart: is running).
  absl::Status Kill(int i);  // SIGKILL, waits for its end
  // SIGTERM; DeadlineExceeded if it still runs after `timeout`.
  absl::Status Stop(int i, absl::Duration timeout = absl::Seconds(10));
  absl::Status Pause(int i);   // SIGSTOP
  absl::Status Resume(int i);  // SIGCONT
  // The same command line, data and ports. Does not wait until it serves. A flag of `more_args`
  // ("--name=value") takes the place of the cluster's own of that name, this time.
  absl::Status Restart(int i, const std::vector<std::string>& more_args = {});
  // Removes the data of a member that does not run. It starts again as one that joins
  // (--initial-cluster-state=existing).
  absl::Status Wipe(int i);

  // One more member, not started: its index. Restart() starts it, as one that joins the present
  // members, after it was added under its peer_url() by the Cluster RPCs.
  absl::StatusOr<int> NewMember();
  // NewMember(), the MemberAdd RPC to the leader (as etcd has it: a voter), Restart(). Does not
  // wait until it serves.
  absl::StatusOr<int> AddMember(absl::Duration timeout = absl::Seconds(10));
  // After its removal by the Cluster RPCs: kills it if it runs, and leaves it out of what members
  // that join later are told.
  void Retire(int i);
  bool retired(int i) const { return At(i).retired; }

  // The network between the members. REQUIRES: proxied_peers.
  TcpProxy& links();

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
    int listen_peer_port = 0;  // behind the proxy, if there is one
    pid_t pid = 0;
    bool paused = false;
    bool joins = false;
    bool started = false;  // ever
    bool retired = false;
    std::optional<int> wait_status;
  };

  explicit LocalCluster(const LocalClusterOptions& options) : options_(options) {}
  absl::Status CreateDirectory();
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
  std::unique_ptr<TcpProxy> links_;
};

// The executable that lies beside this process's own, for example "holdfastd".
std::string BinaryBesideOwn(const std::string& name);

}  // namespace holdfast::bench
