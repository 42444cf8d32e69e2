#include "bench/watch_message.h"

namespace holdfast::bench {
namespace {

// The encoding of protocol buffers: a tag (number << 3 | wire type), then the value.
constexpr uint32_t kVarint = 0;
constexpr uint32_t kFixed64 = 1;
constexpr uint32_t kBytes = 2;
constexpr uint32_t kFixed32 = 5;
constexpr uint32_t kEventsField = 11;  // of WatchResponse

struct Field {
  uint32_t number = 0;
  uint32_t type = kVarint;
  uint64_t number_value = 0;  // kVarint
  std::string_view bytes;     // kBytes
};

bool TakeVarint(std::string_view* in, uint64_t* out) {
  *out = 0;
  for (int shift = 0; shift < 64 && !in->empty(); shift += 7) {
    const uint8_t byte = uint8_t(in->front());
    in->remove_prefix(1);
    *out |= uint64_t(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

bool TakeField(std::string_view* in, Field* field) {
  uint64_t tag = 0;
  if (!TakeVarint(in, &tag)) return false;
  field->number = uint32_t(tag >> 3);
  field->type = uint32_t(tag & 7);
  if (field->type == kVarint) return TakeVarint(in, &field->number_value);
  uint64_t size = 0;
  if (field->type == kBytes) {
    if (!TakeVarint(in, &size)) return false;
  } else if (field->type == kFixed64 || field->type == kFixed32) {
    size = field->type == kFixed64 ? 8 : 4;
  } else {
    return false;
  }
  if (size > in->size()) return false;
  field->bytes = in->substr(0, size);
  in->remove_prefix(size);
  return true;
}

bool ParseKeyValue(std::string_view in, WatchEvent* event) {
  Field field;
  while (!in.empty()) {
    if (!TakeField(&in, &field)) return false;
    if (field.number == 1 && field.type == kBytes) event->key = field.bytes;
    if (field.number == 3 && field.type == kVarint) {
      event->mod_revision = int64_t(field.number_value);
    }
    if (field.number == 5 && field.type == kBytes) event->value = field.bytes;
  }
  return true;
}

bool ParseHeader(std::string_view in, WatchMessage* message) {
  Field field;
  while (!in.empty()) {
    if (!TakeField(&in, &field)) return false;
    if (field.number == 3 && field.type == kVarint) message->revision = int64_t(field.number_value);
  }
  return true;
}

}  // namespace

bool ParseWatchMessage(std::string_view in, WatchMessage* message) {
  *message = WatchMessage();
  Field field;
  while (!in.empty()) {
    const std::string_view whole = in;
    if (!TakeField(&in, &field)) return false;
    if (field.type == kBytes) {
      if (field.number == 1 && !ParseHeader(field.bytes, message)) return false;
      if (field.number == 6) message->cancel_reason = field.bytes;
      if (field.number == kEventsField) {
        // The events are the field of the greatest number, so they stand together at the end.
        message->events = whole;
        return true;
      }
    } else if (field.type == kVarint) {
      const int64_t value = int64_t(field.number_value);
      if (field.number == 2) message->watch_id = value;
      if (field.number == 3) message->created = value != 0;
      if (field.number == 4) message->canceled = value != 0;
      if (field.number == 5) message->compact_revision = value;
    }
  }
  return true;
}

bool NextWatchEvent(std::string_view* events, WatchEvent* event) {
  *event = WatchEvent();
  Field field;
  std::string_view in = *events;
  if (in.empty()) return false;
  if (!TakeField(&in, &field) || field.number != kEventsField || field.type != kBytes) return false;
  std::string_view body = field.bytes;
  while (!body.empty()) {
    if (!TakeField(&body, &field)) return false;
    if (field.number == 1 && field.type == kVarint) event->is_delete = field.number_value == 1;
    if (field.number == 2 && field.type == kBytes && !ParseKeyValue(field.bytes, event)) {
      return false;
    }
  }
  *events = in;
  return true;
}

}  // namespace holdfast::bench
