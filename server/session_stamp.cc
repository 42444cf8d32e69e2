#include "server/session_stamp.h"

#include <charconv>
#include <cstdint>

#include <fmt/format.h>

#include "base/strings.h"
#include "server/kv_service.h"
#include "server/session_table.h"

namespace holdfast::server {
namespace {

absl::Status Malformed(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(fmt::format(
      "holdfast: metadata {} is '{}': {} (SESSION-SEQUENCE-LOWEST-DIGEST, the first and "
      "the last in hex)",
      kSessionKey, base::Printable(text), why));
}

// Takes the next number, and the '-' behind it unless it is the last.
bool Take(std::string_view* text, int base, bool last, uint64_t* number) {
  const size_t length = last ? text->size() : text->find('-');
  if (length == std::string_view::npos) return false;
  const char* const end = text->data() + length;
  const auto [parsed, error] = std::from_chars(text->data(), end, *number, base);
  if (error != std::errc() || parsed != end) return false;
  text->remove_prefix(last ? length : length + 1);
  return true;
}

absl::Status CheckNumbers(const command::v1::SessionStamp& stamp, std::string_view text) {
  if (stamp.session() == 0 || stamp.lowest_unacknowledged() == 0)
    return Malformed(text, "no session and no sequence is 0");
  if (stamp.lowest_unacknowledged() > stamp.sequence()) {
    return Malformed(text, "the lowest unacknowledged sequence is at most this one");
  }
  if (stamp.sequence() - stamp.lowest_unacknowledged() >= kSessionWindow) {
    return Malformed(text,
                     fmt::format("at most {} writes may be unacknowledged: wait for the answer of "
                                 "the oldest",
                                 kSessionWindow));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<command::v1::SessionStamp> ParseSessionStamp(std::string_view text) {
  uint64_t session = 0, sequence = 0, lowest = 0, digest = 0;
  std::string_view rest = text;
  if (!Take(&rest, 16, false, &session) || !Take(&rest, 10, false, &sequence) ||
      !Take(&rest, 10, false, &lowest) || !Take(&rest, 16, true, &digest)) {
    return Malformed(text, "write four numbers with '-' between them");
  }
  command::v1::SessionStamp stamp;
  stamp.set_session(session);
  stamp.set_sequence(sequence);
  stamp.set_lowest_unacknowledged(lowest);
  stamp.set_digest(digest);
  if (absl::Status status = CheckNumbers(stamp, text); !status.ok()) return status;
  return stamp;
}

absl::Status CheckSessionStamp(const command::v1::SessionStamp& stamp) {
  if (CheckNumbers(stamp, "").ok()) return absl::OkStatus();
  return CheckNumbers(stamp, fmt::format("{:x}-{}-{}-{:x}", stamp.session(), stamp.sequence(),
                                         stamp.lowest_unacknowledged(), stamp.digest()));
}

absl::StatusOr<std::optional<command::v1::SessionStamp>> SessionStampOf(
    const grpc::CallbackServerContext& context) {
  const auto [begin, end] = context.client_metadata().equal_range(kSessionKey);
  if (begin == end) return std::optional<command::v1::SessionStamp>();
  const std::string_view text(begin->second.data(), begin->second.size());
  if (std::next(begin) != end) return Malformed(text, "send it once");
  absl::StatusOr<command::v1::SessionStamp> stamp = ParseSessionStamp(text);
  if (!stamp.ok()) return stamp.status();
  return std::optional<command::v1::SessionStamp>(*std::move(stamp));
}

}  // namespace holdfast::server
