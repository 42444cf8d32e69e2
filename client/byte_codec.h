// Bytes of the files in a cache directory: fixed big endian integers, strings behind their length.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "base/clock.h"
#include "base/record_digest.h"
#include "base/strings.h"

namespace holdfast::internal {

class ByteEncoder {
 public:
  void U8(uint8_t value) { out_.push_back(static_cast<char>(value)); }
  void U32(uint32_t value) { base::AppendBigEndian32(out_, value); }
  void U64(uint64_t value) { base::AppendBigEndian64(out_, value); }
  void I64(int64_t value) { U64(static_cast<uint64_t>(value)); }
  void Text(std::string_view text) {
    U32(static_cast<uint32_t>(text.size()));
    out_ += text;
  }
  void Raw(std::string_view bytes) { out_ += bytes; }
  void Digest(const base::RecordDigest& digest) { out_ += digest.ToBytes(); }
  void Sample(const base::ClockSample& sample) {
    I64(sample.boot_ns);
    I64(sample.mono_ns);
    I64(sample.raw_ns);
  }
  // Nanoseconds; below zero: infinite.
  void Length(absl::Duration d) {
    I64(d == absl::InfiniteDuration() ? -1 : absl::ToInt64Nanoseconds(d));
  }

  const std::string& bytes() const { return out_; }
  size_t size() const { return out_.size(); }
  void Clear() { out_.clear(); }
  std::string Take() { return std::move(out_); }

 private:
  std::string out_;
};

// Past the end everything reads as zero, and ok() is false for good.
class ByteDecoder {
 public:
  explicit ByteDecoder(std::string_view in) : in_(in) {}

  std::string_view Raw(size_t n) {
    if (n > in_.size()) {
      ok_ = false;
      in_ = {};
      return {};
    }
    const std::string_view out = in_.substr(0, n);
    in_.remove_prefix(n);
    return out;
  }
  uint8_t U8() {
    const std::string_view b = Raw(1);
    return b.empty() ? 0 : static_cast<uint8_t>(b[0]);
  }
  uint32_t U32() {
    const std::string_view b = Raw(4);
    return b.empty() ? 0 : base::ReadBigEndian32(b);
  }
  uint64_t U64() {
    const std::string_view b = Raw(8);
    return b.empty() ? 0 : base::ReadBigEndian64(b);
  }
  int64_t I64() { return static_cast<int64_t>(U64()); }
  std::string_view Text() { return Raw(U32()); }
  base::RecordDigest Digest() {
    const uint64_t high = U64();
    return {.low = U64(), .high = high};
  }
  base::ClockSample Sample() {
    base::ClockSample sample;
    sample.boot_ns = I64();
    sample.mono_ns = I64();
    sample.raw_ns = I64();
    return sample;
  }
  absl::Duration Length() {
    const int64_t ns = I64();
    return ns < 0 ? absl::InfiniteDuration() : absl::Nanoseconds(ns);
  }

  bool ok() const { return ok_; }
  bool at_end() const { return in_.empty(); }

 private:
  std::string_view in_;
  bool ok_ = true;
};

}  // namespace holdfast::internal
