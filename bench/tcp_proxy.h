// A network between processes of this machine that can fail: cuts, silence in one direction, delay.
//
// "Ends" are numbered processes (the members of a LocalCluster). Each has a port of the proxy in
// front of its own; who dialed is found in /proc by the dialing socket's owner, so nothing of what
// flows is parsed, and any protocol will do. One connection carries two directions of traffic, each
// under the rule of its own link. Whoever is no known end is forwarded without rules.
//
// A rule holds for connections that stand and for new ones, until it is healed.
//   Cut        Both ways: connections are reset, new ones too, as when a process dies.
//   Blackhole  One way: nothing passes, the connection stands, as when a cable is pulled. What was
//              sent waits (as in TCP's retransmission), the end of a connection included, and
//              arrives after Heal. In both ways: two calls.
//   Delay      One way: everything passes so much later, in order.
//
// Threads: all methods from any thread; one thread of its own does the work. A change of rules has
// taken effect when the method returns.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace holdfast::bench {

class TcpProxy {
 public:
  // As an argument: every other end that is known now.
  static constexpr int kAll = -1;

  // Unavailable: no more file descriptors or threads.
  static absl::StatusOr<std::unique_ptr<TcpProxy>> Start();
  // Resets all connections.
  ~TcpProxy();
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  // Connections to 127.0.0.1:listen_port go on to 127.0.0.1:target_port, where `end` listens. They
  // are refused while nobody listens there. Unavailable: the port is taken. REQUIRES: end >= 0.
  absl::Status Listen(int end, int listen_port, int target_port);
  // The process of an end; 0: none. `spawn` runs before any further connection is attributed, so
  // that not even the first one of a new process is taken for a stranger's.
  void SetProcess(int end, absl::FunctionRef<pid_t()> spawn);

  void Cut(int a, int b);
  void Blackhole(int from, int to);
  void Delay(int from, int to, absl::Duration delay);
  void Heal(int a, int b);  // both ways, of everything
  void HealAll();

  // Bytes that reached `to` from `from` so far.
  uint64_t Bytes(int from, int to) const;
  // Connections that `from` dialed to `to` so far, whether they got through or not.
  uint64_t Connections(int from, int to) const;

 private:
  struct Rule {
    bool cut = false;
    bool blackhole = false;
    int64_t delay_ns = 0;
  };
  struct End {
    int listener = -1;
    int listen_port = 0;
    int target_port = 0;
    pid_t pid = 0;
  };
  struct Chunk;
  struct Pipe;
  struct Connection;
  using Link = std::pair<int, int>;  // from, to

  TcpProxy();
  // Runs `change` and waits until the thread has seen it.
  void Change(absl::FunctionRef<void()> change);
  // For each ordered pair of known ends that the arguments name.
  void ForEachLink(int from, int to, absl::FunctionRef<void(Rule&)> f)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Rule RuleOf(int from, int to) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // The thread.
  void Loop();
  void TakeChanges();
  void PollOnce();
  void Accept(int end);
  int WhoDialed(int dialing_port, int listen_port);
  bool Serve(Connection& connection, const short* revents);
  void Receive(Connection& connection, int side);
  void Send(Connection& connection, int to_side);

  int wake_fd_ = -1;  // eventfd
  mutable absl::Mutex mutex_;
  std::map<int, End> ends_ ABSL_GUARDED_BY(mutex_);
  std::map<Link, Rule> rules_ ABSL_GUARDED_BY(mutex_);
  std::map<Link, uint64_t> bytes_ ABSL_GUARDED_BY(mutex_);
  std::map<Link, uint64_t> connects_ ABSL_GUARDED_BY(mutex_);
  uint64_t changes_asked_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t changes_seen_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;

  std::list<Connection> connections_;  // the thread's own
  std::thread thread_;
};

}  // namespace holdfast::bench
