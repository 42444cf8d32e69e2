// What the state machine keeps of sessions (docs/sessions.md), in the store's meta records: it
// travels with checkpoints, and the members compare it (server/apply_check.h). Not with backups: a
// restored cluster is another incarnation, in which no session of before means anything.
//
//   session/clock             SessionClockRecord: one for all
//   session/s/ + id           SessionRecord
//   session/r/ + id sequence  SessionResult: what a write was answered, until that is acknowledged
// Numbers are 8 bytes, big endian.
//
// Which results there are says the session's record, in one bit each. So a write that was never
// executed costs two lookups (clock, session) and two small records, and the one that acknowledges
// it a deletion; nothing is looked for in vain, and no work grows with what was done before.
//
// Threads: any (pure functions).
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace holdfast::server {

// Part of the state machine: all members must have the same, so they are constants and no settings.
//   Sequences from the lowest unacknowledged one on that may be used: so many results are kept.
inline constexpr uint64_t kSessionWindow = 128;
//   One encoded response. Of a larger one only the revision is kept. With the window this bounds
//   what a session holds: 1 MiB.
inline constexpr size_t kSessionAnswerBytesMax = size_t{8} << 10;
inline constexpr uint64_t kSessionsMax = 100'000;
//   What one SessionTime may do: sessions looked at, and records deleted. (One session more than
//   the latter may go, with all its results.)
inline constexpr size_t kSessionsExaminedMax = 2048;
inline constexpr size_t kSessionRecordsDroppedMax = 8192;
//   And by how much it may set the time forward.
inline constexpr uint64_t kSessionAdvanceMsMax = 20'000;

inline constexpr char kMetaSessionClock[] = "session/clock";
inline constexpr char kMetaSessionPrefix[] = "session/s/";
inline constexpr char kMetaSessionResultPrefix[] = "session/r/";

struct SessionClockRecord {
  uint64_t now_ms = 0;      // the logged time: what all SessionTimes so far add up to
  uint64_t sessions = 0;    // how many records there are
  uint64_t cursor = 0;      // the id from which the next SessionTime looks for idle ones
  uint64_t generation = 0;  // how often another incarnation took the place of one
};

struct SessionRecord {
  uint64_t generation = 0;  // of the clock when it was opened; in another one it is unknown
  uint64_t ttl_ms = 0;
  uint64_t used_ms = 0;  // the logged time of its last write
  // Every answer below it is acknowledged, and forgotten.
  uint64_t lowest = 1;
  // Bit `sequence % kSessionWindow`: there is a result, for lowest <= sequence < lowest + window.
  std::bitset<kSessionWindow> answered = {};

  bool Answered(uint64_t sequence) const { return answered[sequence % kSessionWindow]; }
};

struct SessionResult {
  uint64_t digest = 0;
  // command.v1.Command::OpCase of the write.
  uint32_t op = 0;
  enum class Kind : uint8_t {
    kAnswer = 0,    // `text` is the encoded response
    kTooLarge = 1,  // took effect at `revision`; the response is gone
    kRefusal = 2,   // had no effect; `code` and `text` are the status
  } kind = Kind::kAnswer;
  uint32_t code = 0;
  uint64_t revision = 0;
  std::string text = {};
};

std::string SessionMetaKey(uint64_t session);
// False: not a key that SessionMetaKey made.
bool ParseSessionMetaKey(std::string_view key, uint64_t* session);
std::string SessionResultMetaKey(uint64_t session, uint64_t sequence);

std::string Encode(const SessionClockRecord& record);
std::string Encode(const SessionRecord& record);
std::string Encode(const SessionResult& result);
// False on bytes that no encoder made.
bool Decode(std::string_view bytes, SessionClockRecord* record);
bool Decode(std::string_view bytes, SessionRecord* record);
bool Decode(std::string_view bytes, SessionResult* result);

// Refusals. The first word after "holdfast: " is the contract: clients go by it. All are ABORTED
// but the last two.
//   No such session, so nobody can tell whether the write was executed before.
absl::Status ErrSessionExpired(uint64_t session);
//   Another writer has used this sequence: the write was not executed, and will not be.
absl::Status ErrSessionForked(uint64_t session, uint64_t sequence);
//   Not executed now. Somebody has said that he has its answer.
absl::Status ErrSessionAcknowledged(uint64_t sequence);
//   ALREADY_EXISTS: it took effect once; what it read is not kept.
absl::Status ErrSessionAnswerTooLarge(uint64_t sequence, uint64_t revision);
//   RESOURCE_EXHAUSTED.
absl::Status ErrTooManySessions();

}  // namespace holdfast::server
