#include "client/stored_claim.h"

#include <algorithm>

namespace holdfast::internal {
namespace {

constexpr int64_t kNoTime = INT64_MIN;

int64_t WallNs(absl::Time time) {
  return time == absl::InfinitePast() ? kNoTime : absl::ToUnixNanos(time);
}

absl::Time WallTime(int64_t ns) {
  return ns == kNoTime ? absl::InfinitePast() : absl::FromUnixNanos(ns);
}

// The same clock took the stored samples: they may be compared with its samples of now.
bool SameClock(const StoredClaim& stored, const Surroundings& surroundings,
               const base::ClockSample& now) {
  return !stored.boot_id.empty() && stored.boot_id == surroundings.boot_id &&
         stored.time_namespace == surroundings.time_namespace &&
         // Names of namespaces are given out again; a reading from the future is another clock's.
         stored.claim.at.boot_ns <= stored.written.boot_ns && stored.written.boot_ns <= now.boot_ns;
}

absl::Duration AgeByWall(const StoredClaim& stored, const WallReading& wall,
                         double max_clock_slow) {
  const absl::Duration when_written =
      stored.claim.extra + base::Elapsed(stored.claim.at, stored.written, max_clock_slow);
  return when_written + std::max(absl::ZeroDuration(), wall.now - stored.wall.now) +
         stored.wall.error + wall.error;
}

Claim Unknown(Claim claim) {
  claim.extra = absl::InfiniteDuration();
  claim.proof = Proof::kUnknown;
  return claim;
}

// Of a claim whose clock went on running. Never proven if that clock may have stood still.
Claim ByClock(const StoredClaim& stored, const base::ClockSample& now, WallReading wall,
              double max_clock_slow) {
  Claim claim = stored.claim;
  if (stored.wall.now == absl::InfinitePast()) return claim;
  const absl::Duration boot = absl::Nanoseconds(now.boot_ns - stored.written.boot_ns);
  if (wall.now - stored.wall.now - boot <= kWallGainMax) return claim;
  claim.proof = std::max(claim.proof, Proof::kEstimated);
  // An unbounded error would make every age infinite because a clock was set for the first time.
  WallReading then = stored.wall;
  for (WallReading* reading : {&then, &wall}) {
    if (reading->error == absl::InfiniteDuration()) reading->error = absl::ZeroDuration();
  }
  StoredClaim known = stored;
  known.wall = then;
  const absl::Duration by_wall = AgeByWall(known, wall, max_clock_slow);
  if (by_wall > claim.extra + base::Elapsed(claim.at, now, max_clock_slow)) {
    claim.at = now;
    claim.extra = by_wall;
  }
  return claim;
}

}  // namespace

StoredClaim StoreClaim(const Claim& claim, const Surroundings& surroundings) {
  StoredClaim stored;
  stored.claim = claim;
  stored.boot_id = surroundings.boot_id;
  stored.time_namespace = surroundings.time_namespace;
  // In this order, an interruption in between makes later ages larger.
  stored.wall = surroundings.wall();
  stored.written = surroundings.clock->Sample();
  return stored;
}

void Encode(const StoredClaim& stored, ByteEncoder& out) {
  out.Text(stored.boot_id);
  out.Text(stored.time_namespace);
  out.Sample(stored.claim.at);
  out.Length(stored.claim.extra);
  out.U8(static_cast<uint8_t>(stored.claim.proof));
  out.U64(stored.claim.revision);
  out.U8(stored.claim.superseded ? 1 : 0);
  out.Sample(stored.written);
  out.I64(WallNs(stored.wall.now));
  out.U8(stored.wall.synchronized ? 1 : 0);
  out.Length(stored.wall.error);
}

StoredClaim DecodeStoredClaim(ByteDecoder& in) {
  StoredClaim stored;
  stored.boot_id = in.Text();
  stored.time_namespace = in.Text();
  stored.claim.at = in.Sample();
  stored.claim.extra = in.Length();
  const uint8_t proof = in.U8();
  stored.claim.proof =
      proof <= static_cast<uint8_t>(Proof::kUnknown) ? static_cast<Proof>(proof) : Proof::kUnknown;
  stored.claim.source = Source::kDisk;
  stored.claim.revision = in.U64();
  stored.claim.superseded = in.U8() != 0;
  stored.written = in.Sample();
  stored.wall.now = WallTime(in.I64());
  stored.wall.synchronized = in.U8() != 0;
  stored.wall.error = in.Length();
  return stored;
}

Claim ClaimNow(const StoredClaim& stored, const Surroundings& surroundings, double max_clock_slow,
               absl::Time latest_wall) {
  // The sample first: an interruption in between makes the age larger.
  const base::ClockSample now = surroundings.clock->Sample();
  const WallReading wall = surroundings.wall();
  const Claim& claim = stored.claim;
  if (claim.proof == Proof::kUnknown || claim.extra == absl::InfiniteDuration()) {
    return Unknown(claim);
  }
  if (SameClock(stored, surroundings, now)) return ByClock(stored, now, wall, max_clock_slow);
  const bool believed = stored.wall.synchronized && wall.synchronized &&
                        stored.wall.now != absl::InfinitePast() && wall.now >= stored.wall.now &&
                        wall.now >= latest_wall;
  const absl::Duration age =
      believed ? AgeByWall(stored, wall, max_clock_slow) : absl::InfiniteDuration();
  if (age == absl::InfiniteDuration()) return Unknown(claim);
  Claim estimated = claim;
  estimated.at = now;
  estimated.extra = age;
  estimated.proof = Proof::kEstimated;
  return estimated;
}

const Claim& Better(const Claim& a, const Claim& b, const base::ClockSample& now,
                    double max_clock_slow) {
  if (a.proof != b.proof) return a.proof < b.proof ? a : b;
  const auto age = [&](const Claim& claim) {
    return claim.extra + base::Elapsed(claim.at, now, max_clock_slow);
  };
  return age(b) < age(a) ? b : a;
}

}  // namespace holdfast::internal
