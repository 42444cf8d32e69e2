#include "storage/log_segment.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <utility>

namespace holdfast::storage {
namespace {

constexpr std::string_view kSegmentSuffix = ".log";
constexpr std::string_view kSparePrefix = "spare-";
constexpr std::string_view kNewName = "next.tmp";
constexpr size_t kNumberDigits = 20;

std::optional<uint32_t> ParseNumber(std::string_view digits) {
  uint32_t number = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), number, 10);
  if (digits.size() != kNumberDigits || error != std::errc() ||
      end != digits.data() + digits.size()) {
    return std::nullopt;
  }
  return number;
}

std::optional<uint32_t> ParseSegmentName(std::string_view name) {
  if (!name.ends_with(kSegmentSuffix)) return std::nullopt;
  return ParseNumber(name.substr(0, name.size() - kSegmentSuffix.size()));
}

std::optional<uint32_t> ParseSpareName(std::string_view name) {
  if (!name.starts_with(kSparePrefix)) return std::nullopt;
  return ParseNumber(name.substr(kSparePrefix.size()));
}

}  // namespace

SegmentDir::SegmentDir(FileSystem* fs, std::string dir, uint64_t segment_bytes)
    : fs_(fs), dir_(std::move(dir)), segment_bytes_(segment_bytes) {}

std::string SegmentDir::SegmentPath(uint32_t number) const {
  return fmt::format("{}/{:0{}}{}", dir_, number, kNumberDigits, kSegmentSuffix);
}

std::string SegmentDir::SparePath(uint32_t number) const {
  return fmt::format("{}/{}{:0{}}", dir_, kSparePrefix, number, kNumberDigits);
}

absl::StatusOr<SegmentDir::Found> SegmentDir::Scan() {
  absl::StatusOr<std::vector<std::string>> names = fs_->List(dir_);
  if (!names.ok()) return names.status();
  std::vector<uint32_t> segments;
  std::vector<uint32_t> spares;
  for (const std::string& name : *names) {
    if (const auto segment = ParseSegmentName(name)) segments.push_back(*segment);
    if (const auto spare = ParseSpareName(name)) spares.push_back(*spare);
    if (name == kNewName) {
      if (absl::Status s = fs_->Remove(dir_ + "/" + name); !s.ok()) return s;
    }
  }
  std::sort(segments.begin(), segments.end());
  std::sort(spares.begin(), spares.end());

  Found found;
  found.spares = spares.size();
  for (const uint32_t number : segments) {
    absl::StatusOr<Segment> segment = OpenSegment(number);
    if (!segment.ok()) return segment.status();
    disk_bytes_ += segment->size_bytes;
    found.segments.push_back(*std::move(segment));
  }
  absl::StatusOr<std::vector<uint32_t>> kept = ScanSpares(spares);
  if (!kept.ok()) return kept.status();
  spares_ = *std::move(kept);
  return found;
}

absl::StatusOr<Segment> SegmentDir::OpenSegment(uint32_t number) {
  Segment segment = {.number = number, .path = SegmentPath(number)};
  absl::StatusOr<std::unique_ptr<File>> file = fs_->Open(segment.path, OpenMode::kExisting);
  if (!file.ok()) return file.status();
  segment.file = *std::move(file);
  const absl::StatusOr<uint64_t> size = segment.file->Size();
  if (!size.ok()) return size.status();
  segment.size_bytes = *size;
  return segment;
}

absl::StatusOr<std::vector<uint32_t>> SegmentDir::ScanSpares(const std::vector<uint32_t>& numbers) {
  std::vector<uint32_t> kept;
  for (const uint32_t number : numbers) {
    const std::string path = SparePath(number);
    absl::StatusOr<std::unique_ptr<File>> file = fs_->Open(path, OpenMode::kExisting);
    if (!file.ok()) return file.status();
    const absl::StatusOr<uint64_t> size = (*file)->Size();
    if (!size.ok()) return size.status();
    if (*size == segment_bytes_ && kept.size() < kSpareSegmentsMax) {
      kept.push_back(number);
      disk_bytes_ += *size;
    } else if (absl::Status s = fs_->Remove(path); !s.ok()) {
      return s;
    }
  }
  return kept;
}

absl::StatusOr<Segment> SegmentDir::Create(uint32_t number, std::string_view opening,
                                           uint64_t bytes_min) {
  Segment segment = {.number = number,
                     .path = SegmentPath(number),
                     .size_bytes = std::max(segment_bytes_, bytes_min)};
  const bool recycle = !spares_.empty() && segment.size_bytes == segment_bytes_;
  const std::string birth_path =
      recycle ? SparePath(spares_.back()) : fmt::format("{}/{}", dir_, kNewName);
  absl::StatusOr<std::unique_ptr<File>> file =
      fs_->Open(birth_path, recycle ? OpenMode::kExisting : OpenMode::kCreate);
  if (!file.ok()) return file.status();
  segment.file = *std::move(file);
  if (!recycle) {
    if (absl::Status s = segment.file->Allocate(segment.size_bytes); !s.ok()) return s;
  }
  if (absl::Status s = segment.file->WriteAt(0, opening); !s.ok()) return s;
  if (absl::Status s = segment.file->SyncData(); !s.ok()) return s;
  if (absl::Status s = fs_->Rename(birth_path, segment.path); !s.ok()) return s;
  if (absl::Status s = fs_->SyncDir(dir_); !s.ok()) return s;
  if (recycle) {
    spares_.pop_back();
  } else {
    disk_bytes_ += segment.size_bytes;
  }
  return segment;
}

absl::Status SegmentDir::Retire(Segment segment) {
  // Whoever still reads this segment found it in the table before it left there, and nobody can
  // find it any more: alone means alone for good.
  const bool alone = segment.file.use_count() == 1;
  segment.file.reset();
  if (alone && segment.size_bytes == segment_bytes_ && spares_.size() < kSpareSegmentsMax) {
    if (absl::Status s = fs_->Rename(segment.path, SparePath(segment.number)); !s.ok()) return s;
    spares_.push_back(segment.number);
  } else {
    if (absl::Status s = fs_->Remove(segment.path); !s.ok()) return s;
    disk_bytes_ -= segment.size_bytes;
  }
  return fs_->SyncDir(dir_);
}

}  // namespace holdfast::storage
