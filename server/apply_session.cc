#include "server/apply_session.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/strings.h"
#include "etcd/rpc.pb.h"
#include "holdfast/client.pb.h"
#include "server/session_table.h"
#include "storage/damage.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using command::v1::SessionStamp;
using google::protobuf::Message;
using storage::MvccStore;

absl::Status Damaged(const char* what) {
  return storage::DamageError({.part = storage::Damage::Part::kData, .what = what});
}

template <class Record>
absl::StatusOr<std::optional<Record>> Find(std::string_view key, const MvccStore::Writer& writer) {
  const auto bytes = writer.GetMeta(key);
  if (!bytes.ok()) return bytes.status();
  if (!bytes->has_value()) return std::optional<Record>();
  Record record;
  if (!Decode(**bytes, &record)) {
    return Damaged("a session's record is not in a form this program ever wrote");
  }
  return std::optional<Record>(std::move(record));
}

absl::StatusOr<SessionClockRecord> ReadClock(const MvccStore::Writer& writer) {
  const auto clock = Find<SessionClockRecord>(kMetaSessionClock, writer);
  if (!clock.ok()) return clock.status();
  return clock->value_or(SessionClockRecord());
}

// Moves `lowest` up; the results below it go. At most kSessionWindow of them, one as a rule.
void Acknowledge(uint64_t id, uint64_t lowest, SessionRecord* session, MvccStore::Writer& writer) {
  if (lowest <= session->lowest) return;
  const uint64_t end = std::min(lowest, session->lowest + kSessionWindow);
  for (uint64_t sequence = session->lowest; sequence < end; ++sequence) {
    if (!session->Answered(sequence)) continue;
    writer.DeleteMeta(SessionResultMetaKey(id, sequence));
    session->answered.reset(sequence % kSessionWindow);
  }
  session->lowest = lowest;
}

// All its records. Returns how many.
size_t Drop(uint64_t id, SessionRecord session, SessionClockRecord* clock,
            MvccStore::Writer& writer) {
  const size_t records = 1 + session.answered.count();
  Acknowledge(id, session.lowest + kSessionWindow, &session, writer);
  writer.DeleteMeta(SessionMetaKey(id));
  CHECK(clock->sessions > 0);
  --clock->sessions;
  return records;
}

std::unique_ptr<Message> EmptyResponse(Command::OpCase op) {
  switch (op) {
    case Command::kPut:
      return std::make_unique<etcdserverpb::PutResponse>();
    case Command::kDeleteRange:
      return std::make_unique<etcdserverpb::DeleteRangeResponse>();
    case Command::kTxn:
      return std::make_unique<etcdserverpb::TxnResponse>();
    default:
      return nullptr;
  }
}

SessionResult ResultOf(const Command& command, const ApplyResult& applied, uint64_t revision) {
  SessionResult result;
  result.digest = command.session().digest();
  result.op = static_cast<uint32_t>(command.op_case());
  if (!applied.status.ok()) {
    result.kind = SessionResult::Kind::kRefusal;
    result.code = static_cast<uint32_t>(applied.status.code());
    result.text = base::Message(applied.status);
    return result;
  }
  CHECK(applied.response != nullptr);
  result.revision = revision;
  if (applied.response->ByteSizeLong() > kSessionAnswerBytesMax) {
    result.kind = SessionResult::Kind::kTooLarge;
  } else {
    result.text = applied.response->SerializeAsString();
  }
  return result;
}

absl::StatusOr<ApplyResult> AnswerAgain(const Command& command, const SessionResult& result) {
  ApplyResult answer;
  answer.stamp = ApplyResult::Stamp::kRepeated;
  switch (result.kind) {
    case SessionResult::Kind::kRefusal:
      answer.status =
          absl::Status(static_cast<absl::StatusCode>(result.code), base::ToAbsl(result.text));
      break;
    case SessionResult::Kind::kTooLarge:
      answer.status = ErrSessionAnswerTooLarge(command.session().sequence(), result.revision);
      break;
    case SessionResult::Kind::kAnswer:
      answer.response = EmptyResponse(command.op_case());
      if (!answer.response->ParseFromString(result.text)) {
        return Damaged("a session's stored answer is not in a form this program ever wrote");
      }
      break;
  }
  return answer;
}

bool IsWellFormed(const SessionStamp& stamp) {
  return stamp.session() != 0 && stamp.lowest_unacknowledged() != 0 &&
         stamp.lowest_unacknowledged() <= stamp.sequence() &&
         stamp.sequence() - stamp.lowest_unacknowledged() < kSessionWindow;
}

}  // namespace

absl::StatusOr<ApplyResult> ApplyStamped(const Command& command, MvccStore::Writer& writer,
                                         absl::FunctionRef<absl::StatusOr<ApplyResult>()> execute) {
  const SessionStamp& stamp = command.session();
  // The services let none through; a log may hold what another program wrote.
  if (!IsWellFormed(stamp)) {
    return ApplyResult{absl::InvalidArgumentError("holdfast: the session stamp makes no sense"),
                       nullptr};
  }
  const auto clock = ReadClock(writer);
  if (!clock.ok()) return clock.status();
  auto found = Find<SessionRecord>(SessionMetaKey(stamp.session()), writer);
  if (!found.ok()) return found.status();
  if (!found->has_value() || (*found)->generation != clock->generation) {
    return ApplyResult{ErrSessionExpired(stamp.session()), nullptr};
  }
  SessionRecord& session = **found;
  if (stamp.sequence() < session.lowest) {
    return ApplyResult{ErrSessionAcknowledged(stamp.sequence()), nullptr};
  }
  const std::string result_key = SessionResultMetaKey(stamp.session(), stamp.sequence());
  const bool known =
      stamp.sequence() < session.lowest + kSessionWindow && session.Answered(stamp.sequence());
  absl::StatusOr<ApplyResult> answer;
  if (known) {
    const auto result = Find<SessionResult>(result_key, writer);
    if (!result.ok()) return result.status();
    if (!result->has_value()) return Damaged("the answer of a session's write is gone");
    // Before its acknowledgement counts: it speaks for another writer's answers.
    if ((*result)->digest != stamp.digest() ||
        (*result)->op != static_cast<uint32_t>(command.op_case())) {
      return ApplyResult{ErrSessionForked(stamp.session(), stamp.sequence()), nullptr};
    }
    answer = AnswerAgain(command, **result);
    if (!answer.ok()) return answer.status();
  } else {
    answer = execute();
    if (!answer.ok()) return answer.status();
    answer->stamp = ApplyResult::Stamp::kFinal;
  }
  // What is in the way of the new bit goes first.
  Acknowledge(stamp.session(), stamp.lowest_unacknowledged(), &session, writer);
  if (!known) {
    // Its bit was not set: the database has none.
    writer.PutNewMeta(result_key,
                      Encode(ResultOf(command, *answer, static_cast<uint64_t>(writer.revision()))));
    session.answered.set(stamp.sequence() % kSessionWindow);
  }
  session.used_ms = clock->now_ms;
  writer.PutMeta(SessionMetaKey(stamp.session()), Encode(session));
  return answer;
}

absl::StatusOr<ApplyResult> ApplySessionOpen(const command::v1::SessionOpen& request,
                                             MvccStore::Writer& writer) {
  if (request.session() == 0 || request.ttl_ms() == 0) {
    return ApplyResult{absl::InvalidArgumentError("holdfast: a session needs an id and a TTL"),
                       nullptr};
  }
  auto clock = ReadClock(writer);
  if (!clock.ok()) return clock.status();
  if (clock->sessions >= kSessionsMax) return ApplyResult{ErrTooManySessions(), nullptr};
  const auto found = Find<SessionRecord>(SessionMetaKey(request.session()), writer);
  if (!found.ok()) return found.status();
  if (found->has_value()) {
    return ApplyResult{absl::UnavailableError("holdfast: the session's id is taken: try again"),
                       nullptr};
  }
  writer.PutMeta(SessionMetaKey(request.session()), Encode(SessionRecord{
                                                        .generation = clock->generation,
                                                        .ttl_ms = request.ttl_ms(),
                                                        .used_ms = clock->now_ms,
                                                    }));
  ++clock->sessions;
  writer.PutMeta(kMetaSessionClock, Encode(*clock));
  auto response = std::make_unique<v1::SessionOpenResponse>();
  response->mutable_header()->set_revision(writer.revision());
  response->set_session(request.session());
  response->set_ttl_ms(request.ttl_ms());
  response->set_window(kSessionWindow);
  return ApplyResult{absl::OkStatus(), std::move(response)};
}

absl::StatusOr<ApplyResult> ApplySessionClose(const command::v1::SessionClose& request,
                                              MvccStore::Writer& writer) {
  const auto found = Find<SessionRecord>(SessionMetaKey(request.session()), writer);
  if (!found.ok()) return found.status();
  if (found->has_value()) {
    auto clock = ReadClock(writer);
    if (!clock.ok()) return clock.status();
    Drop(request.session(), **found, &*clock, writer);
    writer.PutMeta(kMetaSessionClock, Encode(*clock));
  }
  auto response = std::make_unique<v1::SessionCloseResponse>();
  response->mutable_header()->set_revision(writer.revision());
  return ApplyResult{absl::OkStatus(), std::move(response)};
}

absl::StatusOr<ApplyResult> ApplySessionTime(const command::v1::SessionTime& request,
                                             const ApplyContext& context,
                                             MvccStore::Writer& writer) {
  if (request.term() != context.term.value) return ApplyResult{};
  auto clock = ReadClock(writer);
  if (!clock.ok()) return clock.status();
  clock->now_ms += std::min(request.advance_ms(), kSessionAdvanceMsMax);

  std::vector<std::pair<uint64_t, SessionRecord>> idle;
  size_t examined = 0, records = 0;
  uint64_t next = 0;
  absl::Status bad;
  const absl::Status scanned = writer.ScanMeta(
      kMetaSessionPrefix, SessionMetaKey(clock->cursor),
      [&](std::string_view key, std::string_view value) {
        uint64_t id = 0;
        SessionRecord session;
        if (!ParseSessionMetaKey(key, &id) || !Decode(value, &session)) {
          bad = Damaged("a session is not in a form this program ever wrote");
          return false;
        }
        if (examined == kSessionsExaminedMax || records >= kSessionRecordsDroppedMax) {
          next = id;
          return false;
        }
        ++examined;
        if (session.generation != clock->generation ||
            clock->now_ms - session.used_ms >= session.ttl_ms) {
          records += 1 + session.answered.count();
          idle.emplace_back(id, session);
        }
        return true;
      });
  if (!scanned.ok()) return scanned;
  if (!bad.ok()) return bad;
  for (const auto& [id, session] : idle) Drop(id, session, &*clock, writer);
  clock->cursor = next;
  writer.PutMeta(kMetaSessionClock, Encode(*clock));
  return ApplyResult{};
}

absl::Status ForgetSessions(MvccStore::Writer& writer) {
  auto clock = ReadClock(writer);
  if (!clock.ok()) return clock.status();
  ++clock->generation;
  writer.PutMeta(kMetaSessionClock, Encode(*clock));
  return absl::OkStatus();
}

}  // namespace holdfast::server
