#include "server/alarm_set.h"

#include "base/strings.h"

namespace holdfast::server {

std::string AlarmMetaKey(const AlarmSet::Alarm& alarm) {
  std::string key = kMetaAlarmPrefix;
  base::AppendBigEndian64(key, alarm.first);
  key.push_back(static_cast<char>(alarm.second));
  return key;
}

bool ParseAlarmMetaKey(std::string_view key, AlarmSet::Alarm* alarm) {
  const std::string_view prefix = kMetaAlarmPrefix;
  if (!key.starts_with(prefix) || key.size() != prefix.size() + sizeof(uint64_t) + 1) return false;
  const auto type = static_cast<uint8_t>(key.back());
  if (type != static_cast<uint8_t>(AlarmType::kNoSpace) &&
      type != static_cast<uint8_t>(AlarmType::kCorrupt)) {
    return false;
  }
  *alarm = {base::ReadBigEndian64(key.substr(prefix.size())), static_cast<AlarmType>(type)};
  return true;
}

}  // namespace holdfast::server
