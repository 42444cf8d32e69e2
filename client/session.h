// Writes that take effect once (docs/sessions.md): the client's side of a session.
//
// A session is opened with the first write, and further ones when more writes are under way than
// the windows of those have room for. Each write gets the next sequence, and keeps it however often
// it is sent; what it may not be sure of, the store's session knows. A write whose outcome is still
// unknown at its deadline is kept, within limits, so that it can be asked for once more; until it
// is settled or given up, the store keeps everything from it on (`lowest unacknowledged`).
//
// No write is ever put under a second stamp once a try of it may have taken effect: a session that
// the store does not know any more cannot tell, and so the outcome stays unknown.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/call.h"
#include "client/dispatcher.h"
#include "client/event_loop.h"

namespace holdfast::internal {

// A write before it is stamped.
struct WriteRequest {
  CallName what;  // for error texts
  Method method = Method::kPut;
  std::string body;  // the encoded request
  absl::Duration deadline;
  // Keeps the answer for the caller; false if it cannot be parsed.
  absl::AnyInvocable<bool(RpcReply&, AnswerHeader*)> decode;
};

// The writes of one session that are not settled. Pure. Threads: one at a time.
class OpenWrites {
 public:
  bool empty() const { return row_.empty(); }
  // REQUIRES: not empty.
  uint64_t lowest() const { return first_; }
  bool lowest_under_way() const { return row_.front() == State::kUnderWay; }
  bool any_under_way() const;

  // Under way. REQUIRES: the next sequence after that of the last one added.
  void Add(uint64_t sequence);
  // Whether a call is under way for it. REQUIRES: it is not settled.
  void Set(uint64_t sequence, bool under_way);
  void Settle(uint64_t sequence);

 private:
  enum class State : uint8_t { kUnderWay, kAside, kSettled };

  uint64_t first_ = 0;
  std::deque<State> row_;  // from `first_` on, which is not settled; no longer than the window
};

// Threads: all methods from any thread; `done` runs on the loop's thread.
class WriteSessions {
 public:
  // Unresolved writes; the oldest are given up for newer ones.
  static constexpr size_t kUnresolvedMax = 256;
  static constexpr size_t kUnresolvedBytesMax = size_t{16} << 20;
  // Writes that wait for a session, or for room in its window; each until its deadline at most.
  static constexpr size_t kWaitingMax = 10'000;
  // Sessions at once. Each holds as many writes under way as its window has room for (the server
  // says; 128), so one more is opened when all are full: many callers, many sessions.
  static constexpr size_t kSessionsMax = 64;
  // After a further session could not be opened, none is asked for until then.
  static constexpr absl::Duration kOpenAgain = absl::Seconds(1);
  // What the destructor of the client spends on telling the store that the session is over.
  static constexpr absl::Duration kCloseWait = absl::Milliseconds(250);

  // `enabled` false: every write goes out unstamped. REQUIRES: the dispatcher outlives this, and is
  // closed before this is destroyed.
  WriteSessions(Dispatcher* dispatcher, bool enabled);

  void Start(WriteRequest request, Call::Done done);
  // Asks again for the write that `ticket` (client/claim.h) stands for. False: none that can be
  // asked for; `done` is then not used. `decode` gets the answer and the method that was called.
  using DecodeAny = std::function<bool(Method method, RpcReply&, AnswerHeader*)>;
  bool Resolve(uint64_t ticket, absl::Duration deadline, DecodeAny decode, Call::Done& done);

  // Best effort, before the dispatcher is closed: sends the store word that the session is over,
  // unless writes are under way, and waits for the answer, kCloseWait at most. REQUIRES: not on the
  // loop's thread.
  void Close();

 private:
  using Steady = std::chrono::steady_clock;
  struct Session {
    uint64_t id = 0;
    uint64_t window = 0;
    uint64_t next = 1;
    OpenWrites open = {};
    bool dead = false;    // the store does not know it, or somebody else writes in it
    bool in_use = false;  // new writes may go into it: it is in `sessions_`

    bool has_room() const { return open.empty() || next - open.lowest() < window; }
  };
  // A write on its way.
  struct Job {
    WriteSessions* owner = nullptr;
    WriteRequest request;
    Call::Done done;
    Steady::time_point deadline;
    WriteFate fate = {};  // of the call that is under way for it
    uint64_t digest = 0;
    std::shared_ptr<Session> session = nullptr;
    uint64_t sequence = 0;
    int stamps = 0;  // sessions that it was in
  };
  struct Unresolved {
    CallName what;
    Method method = Method::kPut;
    std::string body;
    uint64_t digest = 0;
    std::shared_ptr<Session> session = nullptr;
    uint64_t sequence = 0;
    bool asked = false;  // a Resolve is under way
  };
  using Jobs = std::vector<std::shared_ptr<Job>>;
  // What is to be done once the lock is released.
  struct Work {
    Jobs launch = {};                         // stamped, or to go out without
    std::shared_ptr<Job> open_for = nullptr;  // a session is to be opened, in this one's time
    std::vector<uint64_t> close = {};         // sessions that nobody needs any more
  };

  void Pump(Work* work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Do(Work work);
  void OpenSession(const std::shared_ptr<Job>& job);
  void OnOpened(const std::shared_ptr<Job>& job, uint64_t id, uint64_t window,
                const absl::Status& status);
  void Launch(const std::shared_ptr<Job>& job);
  void OnDone(const std::shared_ptr<Job>& job, Call::Verdict verdict);
  // Sees to it that a write which waits is told at its deadline.
  void ArmTimer(Steady::time_point deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnTimer();
  void OnResolved(uint64_t ticket, const WriteFate& fate, Call::Verdict* verdict);
  void CloseSession(uint64_t id, Call::Done done);
  Stamp StampOf(const Session& session, uint64_t sequence, uint64_t digest);
  // The sequence is settled, or given up.
  void Settle(const std::shared_ptr<Session>& session, uint64_t sequence, Work* work)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // One with room; null: all are full.
  std::shared_ptr<Session> FindRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // New writes go elsewhere from now on.
  void Retire(const std::shared_ptr<Session>& session) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Abandon(const std::shared_ptr<Session>& session) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint64_t Keep(const Job& job, Work* work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FailWaiting(const Jobs& jobs, const absl::Status& status);

  Dispatcher* const dispatcher_;
  const uint64_t salt_;  // of the digests: no two clients' equal writes look alike

  absl::Mutex mutex_;
  bool enabled_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<Job> opening_for_ ABSL_GUARDED_BY(mutex_);  // null: no session is being opened
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::shared_ptr<Session>> sessions_ ABSL_GUARDED_BY(mutex_);  // for new writes
  size_t filled_ ABSL_GUARDED_BY(mutex_) = 0;  // which of them took the last write
  Steady::time_point open_not_before_ ABSL_GUARDED_BY(mutex_) = {};
  std::deque<std::shared_ptr<Job>> waiting_ ABSL_GUARDED_BY(mutex_);
  // One for all that wait: nearly all go on long before their time. Null: none is set.
  std::shared_ptr<EventLoop::Timer> timer_ ABSL_GUARDED_BY(mutex_);
  Steady::time_point timer_at_ ABSL_GUARDED_BY(mutex_) = {};
  uint64_t last_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, Unresolved> unresolved_ ABSL_GUARDED_BY(mutex_);  // by ticket: by age
  size_t unresolved_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace holdfast::internal
