#include "client/outcome.h"

#include <string>

namespace holdfast::internal {
namespace {

bool IsEtcdText(const grpc::Status& status, std::string_view text) {
  return std::string_view(status.error_message()).starts_with(text);
}

// The codes by which gRPC, or a server that is going away, says "no answer".
bool IsLostConnection(grpc::StatusCode code) {
  return code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::CANCELLED ||
         code == grpc::StatusCode::ABORTED || code == grpc::StatusCode::INTERNAL;
}

}  // namespace

Outcome Classify(const grpc::Status& status, const Asked& asked) {
  if (status.ok()) return Outcome::kOk;
  const grpc::StatusCode code = status.error_code();
  if (!asked.sent) {
    // This client itself holds as much as it may.
    if (code == grpc::StatusCode::RESOURCE_EXHAUSTED) return Outcome::kOverloaded;
    return code == grpc::StatusCode::DEADLINE_EXCEEDED ? Outcome::kTimedOut : Outcome::kNotSent;
  }
  // By text first: servers put some of these under more than one code.
  if (IsEtcdText(status, "etcdserver: no leader")) return Outcome::kNoLeader;
  if (IsEtcdText(status, "etcdserver: too many requests")) return Outcome::kOverloaded;
  if (asked.told_when && code == grpc::StatusCode::RESOURCE_EXHAUSTED) return Outcome::kOverloaded;
  if (IsEtcdText(status, "etcdserver: rpc not supported for learner")) return Outcome::kWrongMember;
  if (IsEtcdText(status, "etcdserver: request timed out") ||
      IsEtcdText(status, "etcdserver: leader changed") ||
      IsEtcdText(status, "etcdserver: server stopped")) {
    return Outcome::kNoQuorum;
  }
  if (asked.serializable &&
      IsEtcdText(status, "etcdserver: mvcc: required revision is a future revision")) {
    return Outcome::kBehind;
  }
  if (asked.bounded && code == grpc::StatusCode::FAILED_PRECONDITION) return Outcome::kTooOld;
  // ABORTED, which otherwise is a lost connection.
  if (IsEtcdText(status, kSessionText)) return Outcome::kRefused;
  if (code == grpc::StatusCode::DEADLINE_EXCEEDED) return Outcome::kTimedOut;
  if (IsLostConnection(code)) return Outcome::kBroken;
  // An UNKNOWN without a text that is known to be harmless could mean anything.
  if (code == grpc::StatusCode::UNKNOWN) return Outcome::kNoQuorum;
  return Outcome::kRefused;
}

SessionWord SessionWordOf(const grpc::Status& status) {
  if (!IsEtcdText(status, kSessionText)) return SessionWord::kNone;
  const std::string_view word =
      std::string_view(status.error_message()).substr(kSessionText.size());
  if (word.starts_with("EXPIRED")) return SessionWord::kExpired;
  if (word.starts_with("FORKED")) return SessionWord::kForked;
  if (word.starts_with("ACKNOWLEDGED")) return SessionWord::kAcknowledged;
  if (word.starts_with("ANSWER_TOO_LARGE")) return SessionWord::kAnswerTooLarge;
  return SessionWord::kNone;
}

bool CertainlyNoEffect(Outcome outcome) {
  switch (outcome) {
    case Outcome::kNotSent:
    case Outcome::kNoLeader:
    case Outcome::kOverloaded:
    case Outcome::kWrongMember:
    case Outcome::kTooOld:
    case Outcome::kBehind:
    case Outcome::kRefused:
      return true;
    case Outcome::kOk:
    case Outcome::kNoQuorum:
    case Outcome::kBroken:
    case Outcome::kTimedOut:
      return false;
  }
  return false;
}

bool MayDifferElsewhere(Outcome outcome) {
  return outcome != Outcome::kOk && outcome != Outcome::kRefused;
}

bool Reached(Outcome outcome) {
  return outcome != Outcome::kNotSent && outcome != Outcome::kBroken &&
         outcome != Outcome::kTimedOut;
}

std::string_view ToString(Outcome outcome) {
  switch (outcome) {
    case Outcome::kOk:
      return "ok";
    case Outcome::kNotSent:
      return "not sent";
    case Outcome::kNoLeader:
      return "no leader";
    case Outcome::kOverloaded:
      return "overloaded";
    case Outcome::kWrongMember:
      return "wrong member";
    case Outcome::kTooOld:
      return "too old";
    case Outcome::kBehind:
      return "behind";
    case Outcome::kNoQuorum:
      return "no quorum";
    case Outcome::kBroken:
      return "connection lost";
    case Outcome::kTimedOut:
      return "timed out";
    case Outcome::kRefused:
      return "refused";
  }
  return "?";
}

}  // namespace holdfast::internal
