// What the state machine keeps of a lease, in the store's meta records: it travels with
// checkpoints. Which keys are attached to it, the store itself knows
// (MvccStore::View::ScanLeaseKeys). How much time is left, only the leader knows (server/lessor.h).
//
// Threads: any (pure functions).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace holdfast::server {

inline constexpr char kMetaLeasePrefix[] = "lease/";  // + id, 8 bytes, big endian

struct LeaseRecord {
  int64_t ttl_s = 0;  // as granted
  // As of the last LeaseCheckpoint, in milliseconds; -1: none yet, all of it.
  int64_t remaining_ms = -1;
};

std::string LeaseMetaKey(int64_t id);
// False: not a key that LeaseMetaKey made.
bool ParseLeaseMetaKey(std::string_view key, int64_t* id);
std::string EncodeLeaseRecord(const LeaseRecord& record);
bool DecodeLeaseRecord(std::string_view bytes, LeaseRecord* record);

}  // namespace holdfast::server
