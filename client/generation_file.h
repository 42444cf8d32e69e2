// One last-known-good copy: all records of a prefix at one revision. Layout: docs/cache.md.
//
// Threads: none of its own. Memory: when writing one block, when reading the records and one block.
// Errors of reading: DataLoss: damaged, cut off, or no such file at all; Unimplemented: written in
// a format of a later version; else the disk's. None is ever answered with records.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/record_digest.h"
#include "client/disk_file.h"
#include "client/last_good.h"
#include "client/stored_claim.h"
#include "holdfast/entry.h"

namespace holdfast::internal {

// The newest format that this code reads, and the one that it writes.
inline constexpr uint32_t kGenerationFormat = 1;
// Of keys and values in one block, which has its own CRC; one record more may come on top.
inline constexpr size_t kGenerationBlockBytes = size_t{128} << 10;

struct GenerationHeader {
  uint64_t number = 0;
  uint64_t cluster_id = 0;
  uint64_t incarnation = 0;
  uint64_t revision = 0;
  std::string prefix = {};
  StoredClaim claim = {};
};

struct GenerationContent {
  GenerationHeader header;
  std::vector<Entry> entries;  // by key; empty if they were not asked for
  size_t records = 0;
  size_t bytes = 0;            // of keys and values
  base::RecordDigest digest;   // of the records, as VersionStore::RecordsDigest
  base::RecordDigest content;  // of keys and values, as VersionStore::ContentDigest
  uint64_t file_bytes = 0;
};

// Writes it all to `file`; the caller syncs and commits. Returns what a reader will find, without
// the entries. InvalidArgument: the records are not in key order, not all of the prefix, or one is
// larger than a block may be.
absl::StatusOr<GenerationContent> WriteGeneration(const GenerationHeader& header,
                                                  RecordScan records, PartFile& file);

// NotFound: it is not there (any more).
absl::StatusOr<GenerationHeader> ReadGenerationHeader(const std::string& path);
absl::StatusOr<GenerationContent> ReadGenerationContent(const std::string& path, bool with_entries);

}  // namespace holdfast::internal
