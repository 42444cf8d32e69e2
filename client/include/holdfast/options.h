// How a client, a read and a write behave. All defaults are meant for production.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "holdfast/observer.h"
#include "holdfast/policy.h"

namespace holdfast {

namespace base {
class Clock;
}  // namespace base

inline constexpr absl::Duration kDefaultDeadline = absl::Seconds(5);

// How often and how fast a call tries again. Two rules are not options: a write that may have taken
// effect is never sent again without its session's stamp (ClientOptions::exactly_once), and gRPC's
// own retries are off.
struct RetryPolicy {
  // Of one call, over all endpoints. The budget below bounds the load; this bounds one call's
  // waits.
  int max_attempts = 10;
  // Waits are uniform in [0, min(base * 2^n, cap)] ("full jitter"). The first round over the
  // endpoints does not wait.
  absl::Duration base = absl::Milliseconds(50);
  absl::Duration cap = absl::Seconds(10);
  // One try of a read gets this long, and never more than half of the time that is left, so that an
  // endpoint that accepts and never answers cannot eat the deadline.
  absl::Duration try_timeout = absl::Seconds(2);
  // An endpoint's failures are forgotten only after it was healthy for this long.
  absl::Duration healthy_after = absl::Seconds(60);
  // Writes and linearizable reads fail fast: once no endpoint has served one for this long, a call
  // asks each endpoint once and then says so, instead of trying until its deadline. Longer than an
  // election, so that a failover is waited out.
  absl::Duration quorum_patience = absl::Seconds(3);
  // What the client may send beyond one attempt per call: this share of the calls plus so many a
  // second. In an outage the servers see at most (1 + budget_ratio) x calls + budget_per_second.
  double budget_ratio = 0.1;
  double budget_per_second = 1.0;

  absl::Status Validate() const;
};

// A second try beside the first, for a read that accepts a stale answer and takes longer than most.
struct HedgePolicy {
  // After this share of the recent reads' times, and never sooner than `floor`.
  double after_quantile = 0.95;
  absl::Duration floor = absl::Milliseconds(5);
  // At most this share of the bounded reads; 0: never.
  double budget_ratio = 0.02;

  absl::Status Validate() const;
};

struct ClientOptions {
  // Seeds: "host:port", "10.0.0.1:2379", "[::1]:2379" or "http://host:port"; 1 to 32, DNS names are
  // resolved again on every reconnect. Name every member: the client knows no others.
  std::vector<std::string> endpoints;
  RetryPolicy retry = {};
  HedgePolicy hedge = {};
  // The prefixes of which this process keeps a copy (holdfast/mirror.h), or never does.
  std::vector<PrefixOptions> prefixes = {};
  // Where last-known-good copies lie; created with mode 0700. Empty: $HOLDFAST_CACHE_DIR, else
  // $STATE_DIRECTORY/holdfast (systemd), else $XDG_STATE_HOME/holdfast, else
  // $HOME/.local/state/holdfast. Several processes may share it.
  std::string disk_dir = {};
  // An end on purpose is no crash: where SIGTERM, SIGINT or SIGHUP is left to the kernel (SIG_DFL),
  // Open() takes it, says on disk that this process was told to end, and then lets the kernel go
  // on. The service's own handlers are never touched; a service that has one destroys its Client in
  // an orderly end. False: no handler at all.
  bool handle_termination = true;
  // As `holdfastctl clients` shows this process. Empty: the executable's name.
  std::string name = {};
  std::shared_ptr<Observer> observer = nullptr;
  // Writes carry a session, so that they take effect once however often they are sent. False: a
  // write is sent once, and its outcome may stay unknown. (etcd has no sessions: there it is
  // false.)
  bool exactly_once = true;
  // Reads and writes travel in batches, many a message, on one stream for each endpoint: what is
  // asked while a message is being written goes with the next. False: each is a call of its own.
  // (A server without the batch door, etcd, is found out, and gets calls.)
  bool batch_stream = true;
  // Connections are plain text for now; run the client and the store in one trusted network.

  // By how much this machine's clock may run slow (0.002 = 0.2 %): widens every age.
  double max_clock_slow = 0.002;

  // For tests: the clock that ages, budgets and back-offs are measured with (null: the kernel's)
  // and the seed of all jitter and shuffling (nullopt: from the operating system).
  std::shared_ptr<const base::Clock> clock = nullptr;
  std::optional<uint64_t> seed = std::nullopt;

  absl::Status Validate() const;
};

// "At least this revision": hand it from the process that wrote to the one that reads.
struct Token {
  uint64_t revision = 0;
  uint64_t cluster_id = 0;  // 0: not checked
  // Of the cluster; another one after a restart from one member's data or from a backup, where the
  // revision means nothing. 0: not checked.
  uint64_t incarnation = 0;

  std::string Serialize() const;
  // InvalidArgument if `text` is not a token.
  static absl::StatusOr<Token> Parse(std::string_view text);
};

// Which answers a read accepts. A linearizable read is never silently downgraded: a stale answer
// comes only out of Bounded(), AtLeast() or an explicit OrStale().
class ReadOptions {
 public:
  // Linearizable().
  ReadOptions() = default;

  // Shows every write acknowledged before the call. Needs a quorum.
  static ReadOptions Linearizable() { return ReadOptions(); }
  // Any member's answer whose age is proven to be at most `max_age`; the other members are asked if
  // one is too old. InfiniteDuration() accepts any answer, of unknown age too.
  static ReadOptions Bounded(absl::Duration max_age);
  // Any member's answer that is at or past the token; a linearizable read if no member is.
  static ReadOptions AtLeast(Token token);
  // This process's copy alone, at once: the network is never used. FAILED_PRECONDITION if the key
  // is of no mirrored prefix, or older than the prefix's policy allows.
  static ReadOptions Local();

  // The ladder: if the read above cannot be had within half of the deadline, any member's answer of
  // at most `max_age` (InfiniteDuration(): of any age, unknown too). While the store has no quorum,
  // the first rung is probed about once a second and the other reads go straight to the second.
  // The last rung is this process's own copy, if the key is of a mirrored prefix.
  ReadOptions& OrStale(absl::Duration max_age);
  // For the whole call, all its attempts included.
  ReadOptions& Deadline(absl::Duration deadline);
  // Never a second try beside the first (see HedgePolicy).
  ReadOptions& NoHedge();
  // Scan only: more keys than this is RESOURCE_EXHAUSTED, not an answer without end.
  ReadOptions& MaxEntries(int64_t entries);

  enum class Level { kLinearizable, kBounded, kAtLeast, kLocal };
  Level level() const { return level_; }
  absl::Duration max_age() const { return max_age_; }  // of kBounded
  const Token& token() const { return token_; }        // of kAtLeast
  std::optional<absl::Duration> or_stale() const { return or_stale_; }
  absl::Duration deadline() const { return deadline_; }
  bool hedge() const { return hedge_; }
  int64_t max_entries() const { return max_entries_; }

 private:
  Level level_ = Level::kLinearizable;
  absl::Duration max_age_ = absl::ZeroDuration();
  Token token_;
  std::optional<absl::Duration> or_stale_;
  absl::Duration deadline_ = kDefaultDeadline;
  bool hedge_ = true;
  int64_t max_entries_ = 100'000;
};

struct WriteOptions {
  absl::Duration deadline = kDefaultDeadline;
};

}  // namespace holdfast
