#include "base/record_digest.h"

#include "base/strings.h"

#define XXH_INLINE_ALL  // the client library then needs no further shared object
#include <xxhash.h>

namespace holdfast::base {
namespace {

RecordDigest ToDigest(XXH128_hash_t hash) { return {hash.low64, hash.high64}; }

}  // namespace

std::string RecordDigest::ToBytes() const {
  std::string bytes;
  AppendBigEndian64(bytes, high);
  AppendBigEndian64(bytes, low);
  return bytes;
}

RecordDigest DigestOfContent(std::string_view key, std::string_view value) {
  // The key's hash seeds the value's: no copy, and no two splits of the same bytes are alike.
  const uint64_t seed = XXH3_64bits(key.data(), key.size());
  return ToDigest(XXH3_128bits_withSeed(value.data(), value.size(), seed ^ key.size()));
}

RecordDigest DigestOfRecord(const RecordDigest& content, uint64_t create_revision,
                            uint64_t mod_revision, uint64_t version, int64_t lease) {
  const uint64_t words[] = {content.low,  content.high, create_revision,
                            mod_revision, version,      static_cast<uint64_t>(lease)};
  return ToDigest(XXH3_128bits(words, sizeof(words)));
}

}  // namespace holdfast::base
