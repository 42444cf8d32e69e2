#include "server/lease_record.h"

#include "base/strings.h"

namespace holdfast::server {

std::string LeaseMetaKey(int64_t id) {
  std::string key = kMetaLeasePrefix;
  base::AppendBigEndian64(key, static_cast<uint64_t>(id));
  return key;
}

bool ParseLeaseMetaKey(std::string_view key, int64_t* id) {
  const std::string_view prefix = kMetaLeasePrefix;
  if (!key.starts_with(prefix) || key.size() != prefix.size() + sizeof(uint64_t)) return false;
  *id = static_cast<int64_t>(base::ReadBigEndian64(key.substr(prefix.size())));
  return true;
}

std::string EncodeLeaseRecord(const LeaseRecord& record) {
  std::string bytes;
  base::AppendBigEndian64(bytes, static_cast<uint64_t>(record.ttl_s));
  base::AppendBigEndian64(bytes, static_cast<uint64_t>(record.remaining_ms));
  return bytes;
}

bool DecodeLeaseRecord(std::string_view bytes, LeaseRecord* record) {
  if (bytes.size() != 2 * sizeof(uint64_t)) return false;
  record->ttl_s = static_cast<int64_t>(base::ReadBigEndian64(bytes));
  record->remaining_ms = static_cast<int64_t>(base::ReadBigEndian64(bytes.substr(8)));
  return true;
}

}  // namespace holdfast::server
