// Copies on disk whose every record tells which generation it is of: a torn one shows.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "holdfast/entry.h"

namespace holdfast::bench {

inline constexpr const char* kGenerationPrefix = "/disk/";
inline constexpr int kGenerationRecords = 60;

// The records of one generation.
std::vector<Entry> GenerationRecords(uint64_t number);
// Which one it is. DataLoss: records of several, or not all of one.
absl::StatusOr<uint64_t> WhichGeneration(const std::vector<Entry>& records);

// Goes on with the newest generation below `dir` and writes one after the other, without end;
// `tell` hears "V <number>" of each that is on disk. Returns only if the disk cannot be used.
int WriteGenerations(const std::string& dir, const std::function<void(const std::string&)>& tell);
// The newest one that can be read.
absl::StatusOr<uint64_t> NewestGeneration(const std::string& dir);

}  // namespace holdfast::bench
