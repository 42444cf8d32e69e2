#include "server/session_table.h"

#include <fmt/format.h>

#include "base/strings.h"

namespace holdfast::server {
namespace {

constexpr size_t kWord = sizeof(uint64_t);
constexpr size_t kAnsweredWords = kSessionWindow / 64;
static_assert(kAnsweredWords * 64 == kSessionWindow);
constexpr std::bitset<kSessionWindow> kLowWord(UINT64_MAX);
// digest, op, kind, code, revision
constexpr size_t kResultHeaderBytes = kWord + 4 + 1 + 4 + kWord;

// Takes numbers off the front; the caller has checked the size.
uint64_t Take64(std::string_view* bytes) {
  const uint64_t value = base::ReadBigEndian64(*bytes);
  bytes->remove_prefix(kWord);
  return value;
}

uint32_t Take32(std::string_view* bytes) {
  const uint32_t value = base::ReadBigEndian32(*bytes);
  bytes->remove_prefix(4);
  return value;
}

}  // namespace

std::string SessionMetaKey(uint64_t session) {
  std::string key = kMetaSessionPrefix;
  base::AppendBigEndian64(key, session);
  return key;
}

bool ParseSessionMetaKey(std::string_view key, uint64_t* session) {
  const std::string_view prefix = kMetaSessionPrefix;
  if (!key.starts_with(prefix) || key.size() != prefix.size() + kWord) return false;
  *session = base::ReadBigEndian64(key.substr(prefix.size()));
  return true;
}

std::string SessionResultMetaKey(uint64_t session, uint64_t sequence) {
  std::string key = kMetaSessionResultPrefix;
  base::AppendBigEndian64(key, session);
  base::AppendBigEndian64(key, sequence);
  return key;
}

std::string Encode(const SessionClockRecord& record) {
  std::string bytes;
  bytes.reserve(4 * kWord);
  for (const uint64_t number : {record.now_ms, record.sessions, record.cursor, record.generation}) {
    base::AppendBigEndian64(bytes, number);
  }
  return bytes;
}

bool Decode(std::string_view bytes, SessionClockRecord* record) {
  if (bytes.size() != 4 * kWord) return false;
  record->now_ms = Take64(&bytes);
  record->sessions = Take64(&bytes);
  record->cursor = Take64(&bytes);
  record->generation = Take64(&bytes);
  return true;
}

std::string Encode(const SessionRecord& record) {
  std::string bytes;
  bytes.reserve((4 + kAnsweredWords) * kWord);
  for (const uint64_t number : {record.generation, record.ttl_ms, record.used_ms, record.lowest}) {
    base::AppendBigEndian64(bytes, number);
  }
  for (size_t word = 0; word < kAnsweredWords; ++word) {
    base::AppendBigEndian64(bytes, (record.answered >> (word * 64) & kLowWord).to_ullong());
  }
  return bytes;
}

bool Decode(std::string_view bytes, SessionRecord* record) {
  if (bytes.size() != (4 + kAnsweredWords) * kWord) return false;
  record->generation = Take64(&bytes);
  record->ttl_ms = Take64(&bytes);
  record->used_ms = Take64(&bytes);
  record->lowest = Take64(&bytes);
  record->answered.reset();
  for (size_t word = 0; word < kAnsweredWords; ++word) {
    record->answered |= std::bitset<kSessionWindow>(Take64(&bytes)) << (word * 64);
  }
  return true;
}

std::string Encode(const SessionResult& result) {
  std::string bytes;
  bytes.reserve(kResultHeaderBytes + result.text.size());
  base::AppendBigEndian64(bytes, result.digest);
  base::AppendBigEndian32(bytes, result.op);
  bytes.push_back(static_cast<char>(result.kind));
  base::AppendBigEndian32(bytes, result.code);
  base::AppendBigEndian64(bytes, result.revision);
  bytes.append(result.text);
  return bytes;
}

bool Decode(std::string_view bytes, SessionResult* result) {
  if (bytes.size() < kResultHeaderBytes) return false;
  result->digest = Take64(&bytes);
  result->op = Take32(&bytes);
  const auto kind = static_cast<uint8_t>(bytes.front());
  bytes.remove_prefix(1);
  if (kind > static_cast<uint8_t>(SessionResult::Kind::kRefusal)) return false;
  result->kind = static_cast<SessionResult::Kind>(kind);
  result->code = Take32(&bytes);
  result->revision = Take64(&bytes);
  result->text = bytes;
  return true;
}

absl::Status ErrSessionExpired(uint64_t session) {
  return absl::AbortedError(fmt::format(
      "holdfast: SESSION_EXPIRED: session {:x} is not known (any more), so whether this "
      "write was executed before cannot be told, and it was not executed now: look, "
      "then write in a new session",
      session));
}

absl::Status ErrSessionForked(uint64_t session, uint64_t sequence) {
  return absl::AbortedError(fmt::format(
      "holdfast: SESSION_FORKED: sequence {} of session {:x} is another write's, so two "
      "writers use one session (a fork, a copied machine); this write had no effect: "
      "give each process a client of its own, then write again",
      sequence, session));
}

absl::Status ErrSessionAcknowledged(uint64_t sequence) {
  return absl::AbortedError(
      fmt::format("holdfast: SESSION_ACKNOWLEDGED: session sequence {} was acknowledged, so its "
                  "answer is forgotten; it was not executed now: a new write needs a new sequence",
                  sequence));
}

absl::Status ErrSessionAnswerTooLarge(uint64_t sequence, uint64_t revision) {
  return absl::AlreadyExistsError(
      fmt::format("holdfast: SESSION_ANSWER_TOO_LARGE: the write with session sequence {} took "
                  "effect, once, at revision {}; its answer was too large to be kept: read the "
                  "keys, at that revision if need be",
                  sequence, revision));
}

absl::Status ErrTooManySessions() {
  return absl::ResourceExhaustedError(
      fmt::format("holdfast: there are {} sessions, as many as there may be: close some, or wait "
                  "until idle ones expire",
                  kSessionsMax));
}

}  // namespace holdfast::server
