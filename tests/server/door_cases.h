// What every door must answer, as a table: requests and the answers to them, word for word.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "holdfast/exchange.pb.h"

namespace holdfast::server::testing {

// The transaction limit under which the cases hold.
inline constexpr size_t kDoorMaxTxnOps = 4;

struct DoorCase {
  std::string name;
  v1::ExchangeRequest request = {};
  absl::Status status = {};
  // Of an OK answer, in protobuf's text format: the response without its header...
  std::string response = {};
  // ...and the header's revision.
  int64_t revision = 0;
};

// Writes that make the state of which the other lists speak (revisions 2 to 8), in this order. A
// compaction at kDoorCompacted follows, and lease kDoorLease is there before.
std::vector<v1::ExchangeRequest> DoorState();
inline constexpr int64_t kDoorCompacted = 3;
inline constexpr int64_t kDoorLease = 7;
inline constexpr int64_t kDoorRevision = 8;

// Change nothing, whether they are answered or refused: any order, any number at once.
std::vector<DoorCase> ReadCases();
std::vector<DoorCase> RefusalCases();
// In this order, each on what those before it left behind.
std::vector<DoorCase> WriteCases();

}  // namespace holdfast::server::testing
