// A digest of a set of records that is kept up to date one record at a time: a mirror and a server
// compare their copies of a prefix by it.
//
// The sum, modulo 2^128 taken as two words, of one 128-bit XXH3 per record: no order, no whole-set
// pass, and a record is taken out by subtracting what was added for it. Not cryptographic: it tells
// apart copies that differ by accident, not by an attacker's design.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace holdfast::base {

struct RecordDigest {
  uint64_t low = 0;
  uint64_t high = 0;

  void Add(const RecordDigest& record) {
    low += record.low;
    high += record.high;
  }
  void Remove(const RecordDigest& record) {
    low -= record.low;
    high -= record.high;
  }
  // 16 bytes, big endian; what the wire and files carry.
  std::string ToBytes() const;
  friend bool operator==(const RecordDigest&, const RecordDigest&) = default;
};

// Of key and value alone: the same content under other revisions has the same digest.
RecordDigest DigestOfContent(std::string_view key, std::string_view value);
// Of everything in the record; `content` is DigestOfContent(key, value).
RecordDigest DigestOfRecord(const RecordDigest& content, uint64_t create_revision,
                            uint64_t mod_revision, uint64_t version, int64_t lease);

}  // namespace holdfast::base
