// What a member says to its cluster once it can: its name and client URLs; and, while it leads, the
// cluster's incarnation if there is none yet. Both go through the log like any write.
//
// Threads: one of its own, which ends once everything is said. Retries for ever, with backoff: a
// member that starts without a quorum has something to say as soon as there is one.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/time/time.h"
#include "server/member_view.h"

namespace holdfast::server {

class Publisher {
 public:
  static constexpr absl::Duration kPollInterval = absl::Milliseconds(50);
  static constexpr absl::Duration kBackoffMin = absl::Milliseconds(100);
  static constexpr absl::Duration kBackoffMax = absl::Seconds(5);

  // `incarnation`: random, not 0; what this member proposes if it comes to that.
  Publisher(const MemberView& member, MemberAttributes attributes, uint64_t incarnation);
  ~Publisher() { Stop(); }
  // Ends the thread. Idempotent. The member's pipeline may still call back afterwards.
  void Stop();

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool stopping = false;
    bool answered = false;
    absl::Status answer;
  };
  void Run();
  bool IsPublished() const;
  // Proposes and waits for the answer. False if it failed, or if Stop() came.
  bool ProposeAndWait(command::v1::Command command);
  bool Stopping() const;
  void Sleep(absl::Duration duration);

  const MemberView member_;
  const MemberAttributes attributes_;
  const uint64_t incarnation_;
  // Shared with the callbacks of proposals, which may come after Stop().
  const std::shared_ptr<State> state_ = std::make_shared<State>();
  std::thread thread_;
};

}  // namespace holdfast::server
