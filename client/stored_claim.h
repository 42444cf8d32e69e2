// A claim that was put on disk, and what may be said of its age later: Freshness 7.
//
// A reading of a machine's clock means something only on the same machine, while it runs: the
// stored claim says which boot of which machine its sample is of, and also what the wall clock was
// and whether that could be trusted. Both are read back with suspicion.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "client/byte_codec.h"
#include "client/claim.h"
#include "client/last_good.h"

namespace holdfast::internal {

// Freshness 7, last row: the wall clock gained more than this on BOOTTIME, so the machine's clocks
// may have stood still together (a paused virtual machine).
inline constexpr absl::Duration kWallGainMax = absl::Seconds(2);

struct StoredClaim {
  Claim claim = {};
  std::string boot_id;
  std::string time_namespace;
  base::ClockSample written;  // when it was put down, by the clock that took claim.at
  WallReading wall;           // just before `written`
};

// As of now.
StoredClaim StoreClaim(const Claim& claim, const Surroundings& surroundings);

void Encode(const StoredClaim& stored, ByteEncoder& out);
StoredClaim DecodeStoredClaim(ByteDecoder& in);  // look at in.ok() afterwards

// What the claim is worth now; of Source::kDisk. `latest_wall`: the latest wall time known of any
// file, for a wall clock that is before it was set back and says nothing.
Claim ClaimNow(const StoredClaim& stored, const Surroundings& surroundings, double max_clock_slow,
               absl::Time latest_wall);

// The one with the better proof, then the smaller age.
const Claim& Better(const Claim& a, const Claim& b, const base::ClockSample& now,
                    double max_clock_slow);

}  // namespace holdfast::internal
