// What one try of one RPC came to, and what may be done next: the one place that decides whether
// something is sent again.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include <grpcpp/support/status.h>

namespace holdfast::internal {

enum class Outcome {
  kOk,
  kNotSent,      // no connection: nothing has left this process
  kNoLeader,     // the member knows no leader and did nothing
  kOverloaded,   // the server pushed back and did nothing
  kWrongMember,  // this member cannot, another can; it did nothing
  kTooOld,       // a bounded read: this member's data is older than the bound
  kBehind,       // this member has not reached the revision that was asked for
  kNoQuorum,     // the server answered that it could not find out; a write may have taken effect
  kBroken,       // the connection broke, or the server died: no answer
  kTimedOut,     // no answer in time
  kRefused,      // a definite no: the same request gets the same answer everywhere
};
inline constexpr size_t kOutcomes = 11;

// What was asked, as far as the outcome depends on it.
struct Asked {
  bool write = false;
  bool bounded = false;       // with a bound on the age
  bool serializable = false;  // of one member's own data
  bool sent = true;           // false: proven that nothing left this process
  bool told_when = false;     // the server said when to come again
};

// With what every refusal that concerns a session begins (docs/sessions.md).
inline constexpr std::string_view kSessionText = "holdfast: SESSION_";
enum class SessionWord {
  kNone,
  kExpired,         // not executed now; before, who knows
  kForked,          // not executed, never: the sequence is another write's
  kAcknowledged,    // not executed now; somebody said that he has the answer
  kAnswerTooLarge,  // executed, once
};
SessionWord SessionWordOf(const grpc::Status& status);

// Pure. The texts are etcd's contract (etcd-api section 9): its clients and we go by them.
Outcome Classify(const grpc::Status& status, const Asked& asked);

// Whether a write with this outcome has certainly had no effect and never will.
bool CertainlyNoEffect(Outcome outcome);
// Whether another try, here or on another endpoint, can give another answer.
bool MayDifferElsewhere(Outcome outcome);
// Whether the member was reached and is able to answer.
bool Reached(Outcome outcome);

std::string_view ToString(Outcome outcome);

}  // namespace holdfast::internal
