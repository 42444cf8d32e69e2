// The names of the files in a cache directory. STEM is of the prefix:
//
//   STEM.000000000012.good       a generation; .unproven until its probation is over
//   STEM.claim                   the newest claim for the newest generation
//   STEM.lock                    whose holder writes generations and claims
//   STEM.part                    a generation that is being written
//   STEM.trial-TOKEN             what the process TOKEN has on trial; locked while it lives
//   STEM.begin-TOKEN             the same, on its way to that name
//   STEM.override.json           the operator's
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace holdfast::internal {

// Of letters, digits, '-' and '_', at most 57 bytes: what can be read of the prefix, and a hash.
std::string CacheStem(std::string_view prefix);

struct GenerationName {
  std::string stem;
  uint64_t number = 0;
  bool good = false;
};
std::string FileNameOf(const GenerationName& name);

struct CacheFiles {
  std::vector<GenerationName> generations;  // newest first; by stem before that
  std::vector<std::string> trials;          // file names
  std::vector<std::string> beginnings;
};
// `stem` empty: of all prefixes. Errors: the directory's.
absl::StatusOr<CacheFiles> ListCacheFiles(const std::string& dir, std::string_view stem);

}  // namespace holdfast::internal
