#include "bench/drills/generations.h"

#include <fmt/format.h>

#include "absl/strings/numbers.h"
#include "base/strings.h"
#include "client/last_good.h"

namespace holdfast::bench {
namespace {

constexpr size_t kPadding = 200;

absl::StatusOr<std::unique_ptr<internal::LastGood>> OpenDisk(const std::string& dir) {
  return internal::LastGood::Open({.dir = dir, .prefix = kGenerationPrefix});
}

}  // namespace

std::vector<Entry> GenerationRecords(uint64_t number) {
  std::vector<Entry> records;
  for (int i = 0; i < kGenerationRecords; ++i) {
    Entry entry;
    entry.key = fmt::format("{}{:04}", kGenerationPrefix, i);
    entry.value = fmt::format("{} {}", number, std::string(kPadding, 'x'));
    entry.create_revision = 1;
    entry.mod_revision = number;
    entry.version = number;
    records.push_back(std::move(entry));
  }
  return records;
}

absl::StatusOr<uint64_t> WhichGeneration(const std::vector<Entry>& records) {
  if (records.size() != size_t(kGenerationRecords)) {
    return absl::DataLossError(
        fmt::format("{} records in place of {}", records.size(), kGenerationRecords));
  }
  uint64_t number = 0;
  for (const Entry& entry : records) {
    uint64_t own = 0;
    const std::string digits = entry.value.substr(0, entry.value.find(' '));
    if (!absl::SimpleAtoi(digits, &own) || entry.value.size() != digits.size() + 1 + kPadding) {
      return absl::DataLossError(fmt::format("{} is torn", entry.key));
    }
    if (number != 0 && own != number) {
      return absl::DataLossError(fmt::format("records of {} and of {}", number, own));
    }
    number = own;
  }
  return number;
}

int WriteGenerations(const std::string& dir, const std::function<void(const std::string&)>& tell) {
  auto disk = OpenDisk(dir);
  if (!disk.ok()) return 1;
  uint64_t number = 0;
  if (const auto loaded = (*disk)->Load(nullptr); loaded.ok()) number = loaded->info.revision;
  while (true) {
    ++number;
    const std::vector<Entry> records = GenerationRecords(number);
    internal::GenerationInfo info;
    info.cluster_id = 1;
    info.incarnation = 1;
    info.revision = number;
    const absl::Status written = (*disk)->WriteRecords(
        [&](internal::RecordVisitor visit) {
          for (const Entry& entry : records) {
            const EntryView view = {entry.key,          entry.value,   entry.create_revision,
                                    entry.mod_revision, entry.version, entry.lease};
            if (!visit(view)) return;
          }
        },
        info, false);
    if (!written.ok()) return 1;
    if ((*disk)->writes()) tell(fmt::format("V {}", number));
  }
}

absl::StatusOr<uint64_t> NewestGeneration(const std::string& dir) {
  auto disk = OpenDisk(dir);
  if (!disk.ok()) return disk.status();
  const auto loaded = (*disk)->Load(nullptr);
  if (!loaded.ok()) return loaded.status();
  return WhichGeneration(loaded->entries);
}

}  // namespace holdfast::bench
