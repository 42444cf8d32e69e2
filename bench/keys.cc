#include "bench/keys.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace holdfast::bench {
namespace {

constexpr double kZipfExponent = 0.99;
// A prime above kMaxKeySpace: multiplying by it modulo the key space is a permutation, so that
// the hottest ranks do not sit side by side in one block of the store.
constexpr uint64_t kScatterPrime = 2'654'435'761;
static_assert(kScatterPrime > kMaxKeySpace);
constexpr size_t kValuePoolBytes = 64 * 1024;

double Weight(double x) { return std::pow(x, -kZipfExponent); }
double Integral(double x) { return (std::pow(x, 1 - kZipfExponent) - 1) / (1 - kZipfExponent); }
double IntegralInverse(double y) {
  return std::pow(1 + y * (1 - kZipfExponent), 1 / (1 - kZipfExponent));
}

double UnitInterval(base::Rng& rng) { return double(rng.Next() >> 11) * 0x1p-53; }

}  // namespace

ZipfRanks::ZipfRanks(uint64_t n)
    : n_(n),
      integral_low_(Integral(1.5) - 1),
      integral_high_(Integral(double(n) + 0.5)),
      accept_within_(2 - IntegralInverse(Integral(2.5) - Weight(2))) {
  CHECK(n > 0);
}

// Hoermann and Derflinger, "Rejection-inversion to generate variates from monotone discrete
// distributions", 1996: the area of a rank's bar is compared with the area under the curve.
uint64_t ZipfRanks::Next(base::Rng& rng) const {
  while (true) {
    const double y = integral_high_ + UnitInterval(rng) * (integral_low_ - integral_high_);
    const double x = IntegralInverse(y);
    const double rank = std::clamp(std::round(x), 1.0, double(n_));
    if (rank - x <= accept_within_ || y >= Integral(rank + 0.5) - Weight(rank)) {
      return uint64_t(rank);
    }
  }
}

uint64_t FnvHash(uint64_t number) {
  uint64_t hash = 0xCBF29CE484222325;
  for (int i = 0; i < 8; ++i) {
    hash ^= (number >> (8 * i)) & 0xFF;
    hash *= 0x100000001B3;
  }
  return hash;
}

uint64_t ScrambledZipf::Next(base::Rng& rng) const { return FnvHash(ranks_.Next(rng) - 1) % n_; }

KeyChooser::KeyChooser(KeyOrder order, uint64_t key_space, uint64_t worker, uint64_t workers,
                       uint64_t seed)
    : order_(order),
      key_space_(key_space),
      stride_(workers),
      next_sequential_(worker),
      rng_(seed),
      zipf_(key_space) {
  CHECK(key_space <= kMaxKeySpace);
  CHECK(worker < workers);
}

uint64_t KeyChooser::Next() {
  switch (order_) {
    case KeyOrder::kSequential:
      return std::exchange(next_sequential_, next_sequential_ + stride_) % key_space_;
    case KeyOrder::kRandom:
      return rng_.Below(key_space_);
    case KeyOrder::kZipf:
      return (zipf_.Next(rng_) - 1) * kScatterPrime % key_space_;
  }
  CHECK_MSG(false, "unknown key order");
}

DataShape::DataShape(std::string prefix, size_t key_size, size_t value_size, uint64_t seed)
    : prefix_(std::move(prefix)), key_size_(key_size), value_size_(value_size) {
  CHECK(key_size_ > prefix_.size());
  // Behind the prefix come digits alone, and ':' is the byte after '9'.
  prefix_end_ = prefix_ + ":";
  base::Rng rng(seed);
  pool_.resize(kValuePoolBytes + value_size_);
  for (char& c : pool_) c = char(rng.Next());
}

void DataShape::WriteKey(uint64_t number, std::string* out) const {
  out->assign(prefix_);
  out->resize(key_size_, '0');
  for (size_t i = key_size_; number > 0; number /= 10) {
    CHECK(i > prefix_.size());
    (*out)[--i] = char('0' + number % 10);
  }
}

std::string_view DataShape::Value(uint64_t number, uint64_t salt) const {
  const uint64_t mixed = (number ^ (salt << 32)) * 0x9E3779B97F4A7C15;
  return std::string_view(pool_).substr((mixed >> 32) % kValuePoolBytes, value_size_);
}

size_t DataShape::DigitsFor(uint64_t key_space) {
  size_t digits = 1;
  for (uint64_t n = key_space - 1; n >= 10; n /= 10) ++digits;
  return digits;
}

}  // namespace holdfast::bench
