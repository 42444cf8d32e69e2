// The alarms in force: part of the replicated state, kept in the store's meta records and, for the
// apply thread, in memory.
//
// What they do here (docs/etcd-compatibility.md says where that differs from etcd):
//   NOSPACE of any member: nothing that makes the data larger is applied.
//   CORRUPT of member 0:   nobody can tell who is right: nothing is applied or read.
//   CORRUPT of a member:   that one is fenced (server/divergence.h); the others go on.
// Threads: one.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>

namespace holdfast::server {

// etcdserverpb.AlarmType
enum class AlarmType : uint8_t { kNone = 0, kNoSpace = 1, kCorrupt = 2 };

inline constexpr char kMetaAlarmPrefix[] =
    "alarm/";  // + member, 8 bytes big endian, + type, 1 byte

class AlarmSet {
 public:
  using Alarm = std::pair<uint64_t, AlarmType>;  // whose

  // True: it was not in force before.
  bool Raise(const Alarm& alarm) { return alarms_.insert(alarm).second; }
  // True: it was in force.
  bool Clear(const Alarm& alarm) { return alarms_.erase(alarm) > 0; }

  bool no_space() const { return Any(AlarmType::kNoSpace); }
  bool all_corrupt() const { return alarms_.contains({0, AlarmType::kCorrupt}); }
  bool corrupt(uint64_t member) const { return alarms_.contains({member, AlarmType::kCorrupt}); }
  bool Any(AlarmType type) const {
    for (const Alarm& alarm : alarms_) {
      if (alarm.second == type) return true;
    }
    return false;
  }
  // By member, then type.
  const std::set<Alarm>& alarms() const { return alarms_; }

 private:
  std::set<Alarm> alarms_;
};

std::string AlarmMetaKey(const AlarmSet::Alarm& alarm);
// False: not a key that AlarmMetaKey made.
bool ParseAlarmMetaKey(std::string_view key, AlarmSet::Alarm* alarm);

}  // namespace holdfast::server
