// Which keys a run touches, and the bytes of keys and values.
//
// Threads: KeyChooser one; DataShape is immutable after construction, all threads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/rng.h"

namespace holdfast::bench {

enum class KeyOrder { kSequential, kRandom, kZipf };

// Above it the scatter multiplier of the zipf order might share a factor with the key space.
inline constexpr uint64_t kMaxKeySpace = 2'000'000'000;

// Ranks 1..n with probability ~ rank^-0.99 (the exponent usual in storage benchmarks), by
// rejection from the integral of that curve: no table, so a huge key space costs nothing.
class ZipfRanks {
 public:
  // REQUIRES: n > 0.
  explicit ZipfRanks(uint64_t n);
  uint64_t Next(base::Rng& rng) const;

 private:
  uint64_t n_;
  double integral_low_;   // integral up to 1.5, less the whole weight of rank 1
  double integral_high_;  // integral up to n + 0.5
  double accept_within_;  // a candidate this close below its rank needs no further test
};

// YCSB's "scrambled zipfian" over [0, n): ranks of 10^10 items, the key of each by FNV-1a of its
// rank. The hottest keys lie anywhere, and several ranks may fall on one key.
class ScrambledZipf {
 public:
  // REQUIRES: n > 0.
  explicit ScrambledZipf(uint64_t n) : n_(n), ranks_(kItems) {}
  uint64_t Next(base::Rng& rng) const;

 private:
  static constexpr uint64_t kItems = 10'000'000'000;
  uint64_t n_;
  ZipfRanks ranks_;
};

// FNV-1a, 64 bits, of the number's eight bytes, the least first.
uint64_t FnvHash(uint64_t number);

// Numbers in [0, key_space).
class KeyChooser {
 public:
  // `worker` of `workers`: sequential choosers interleave so that together they count 0, 1, 2...
  // REQUIRES: 0 < key_space <= kMaxKeySpace, worker < workers.
  KeyChooser(KeyOrder order, uint64_t key_space, uint64_t worker, uint64_t workers, uint64_t seed);
  uint64_t Next();

 private:
  const KeyOrder order_;
  const uint64_t key_space_;
  const uint64_t stride_;
  uint64_t next_sequential_;
  base::Rng rng_;
  ZipfRanks zipf_;
};

// How a key number becomes bytes, and where values come from.
class DataShape {
 public:
  // Keys are `prefix` and the number in decimal, zero-filled to key_size bytes.
  // REQUIRES: key_size >= prefix.size() + DigitsFor(key space).
  DataShape(std::string prefix, size_t key_size, size_t value_size, uint64_t seed);

  void WriteKey(uint64_t number, std::string* out) const;
  // The end of a range that holds every such key.
  const std::string& PrefixEnd() const { return prefix_end_; }
  // Random bytes, which no store can compress; another slice for another (number, salt).
  std::string_view Value(uint64_t number, uint64_t salt) const;

  size_t key_size() const { return key_size_; }
  size_t value_size() const { return value_size_; }

  // Decimal digits of the greatest number below `key_space`.
  static size_t DigitsFor(uint64_t key_space);

 private:
  std::string prefix_;
  std::string prefix_end_;
  size_t key_size_;
  size_t value_size_;
  std::string pool_;
};

}  // namespace holdfast::bench
