// What a bench needs of a WatchResponse, read from its bytes without building the message.
#pragma once

#include <cstdint>
#include <string_view>

namespace holdfast::bench {

struct WatchMessage {
  int64_t revision = 0;  // of the header
  int64_t watch_id = 0;
  bool created = false;
  bool canceled = false;
  int64_t compact_revision = 0;
  std::string_view cancel_reason;
  std::string_view events;  // the first one's bytes up to the last one's, for NextWatchEvent()
};
// Views into `bytes`. False if they are no WatchResponse.
bool ParseWatchMessage(std::string_view bytes, WatchMessage* message);

struct WatchEvent {
  bool is_delete = false;
  std::string_view key;
  std::string_view value;
  int64_t mod_revision = 0;
};
// Takes the next event from the front of `events`; false at their end or if it does not parse,
// which `events` tells: empty at the end.
bool NextWatchEvent(std::string_view* events, WatchEvent* event);

}  // namespace holdfast::bench
