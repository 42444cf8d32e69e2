#include "server/peer_snapshot_assembler.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/crc32c.h"
#include "base/log.h"
#include "base/strings.h"

namespace holdfast::server {
namespace {

using raft::v1::SnapshotChunk;
using raft::v1::SnapshotFile;
using raft::v1::SnapshotMeta;

// The record: [meta bytes: 4][their CRC32C: 4][slot 0][slot 1][meta], numbers big endian. The two
// slots are written in turn, so that a torn write spares the older one.
constexpr size_t kRecordHeadBytes = 8;
// [synced bytes: 8][CRC32C of them: 4][CRC32C of these twelve: 4]
constexpr size_t kSlotBytes = 16;
constexpr size_t kSlots = 2;
constexpr size_t kMetaOffset = kRecordHeadBytes + kSlots * kSlotBytes;
// kMaxSnapshotFiles of the longest names, and the membership.
constexpr size_t kMaxRecordBytes = size_t{32} << 20;
constexpr size_t kVerifyBlockBytes = size_t{1} << 20;

absl::Status Refused(const std::string& what) {
  return absl::InvalidArgumentError(base::ToAbsl("snapshot refused: " + what));
}

absl::Status Useless(const std::string& what) {
  return absl::DataLossError(base::ToAbsl("of no use: " + what));
}

bool IsPlainName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxSnapshotNameBytes && name != "." &&
         name.find("..") == std::string_view::npos && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

absl::Status CheckSize(const SnapshotMeta& meta) {
  uint64_t total = 0;
  for (const SnapshotFile& file : meta.files()) {
    if (file.size() > kMaxSnapshotBytes || (total += file.size()) > kMaxSnapshotBytes) {
      return Refused(fmt::format("more than {} bytes", kMaxSnapshotBytes));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSpace(const std::string& dir, uint64_t needed) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(dir, error);
  if (error || space.available >= needed + kSnapshotSpaceReserve) {
    return absl::OkStatus();  // of an error, writing will tell
  }
  return absl::ResourceExhaustedError(base::ToAbsl(
      fmt::format("snapshot refused: it needs {} bytes and {} to spare, and {} has {} free: make "
                  "room, it will be sent again",
                  needed, kSnapshotSpaceReserve, dir, space.available)));
}

std::string EncodeSlot(uint64_t bytes, uint32_t crc32c) {
  std::string slot;
  base::AppendBigEndian64(slot, bytes);
  base::AppendBigEndian32(slot, crc32c);
  base::AppendBigEndian32(slot, base::Crc32c(slot));
  return slot;
}

}  // namespace

absl::Status CheckSnapshotMeta(const SnapshotMeta& meta) {
  if (meta.files_size() > kMaxSnapshotFiles) {
    return Refused(
        fmt::format("{} files, at most {} are taken", meta.files_size(), kMaxSnapshotFiles));
  }
  if (meta.membership().size() > kMaxSnapshotMembershipBytes) {
    return Refused(fmt::format("a membership of {} bytes", meta.membership().size()));
  }
  if (meta.index() == 0 || meta.index_term() == 0 || meta.term() < meta.index_term()) {
    return Refused(fmt::format("index {} of term {} from a leader of term {}", meta.index(),
                               meta.index_term(), meta.term()));
  }
  if (meta.snapshot_id() == 0) return Refused("it has no id");
  std::set<std::string_view> names;
  for (const SnapshotFile& file : meta.files()) {
    if (!IsPlainName(file.name())) {
      return Refused(fmt::format("'{}' is no plain file name", base::Printable(file.name())));
    }
    if (!names.insert(file.name()).second) {
      return Refused(fmt::format("two files '{}'", base::Printable(file.name())));
    }
  }
  return CheckSize(meta);
}

uint64_t SnapshotBytes(const SnapshotMeta& meta) {
  uint64_t total = 0;
  for (const SnapshotFile& file : meta.files()) total += file.size();
  return total;
}

SnapshotAssembler::SnapshotAssembler(storage::FileSystem* fs, SnapshotMeta meta, std::string parent,
                                     std::string name)
    : fs_(fs),
      meta_(std::move(meta)),
      parent_(std::move(parent)),
      name_(std::move(name)),
      dir_(parent_ + "/" + name_) {}

absl::StatusOr<std::unique_ptr<SnapshotAssembler>> SnapshotAssembler::Create(
    storage::FileSystem* fs, const SnapshotMeta& meta, const std::string& parent,
    const std::string& name) {
  if (absl::Status status = CheckSnapshotMeta(meta); !status.ok()) return status;
  if (absl::Status status = CheckSpace(parent, SnapshotBytes(meta)); !status.ok()) return status;
  std::unique_ptr<SnapshotAssembler> assembler(new SnapshotAssembler(fs, meta, parent, name));
  if (absl::Status status = fs->CreateDir(assembler->dir_); !status.ok()) return status;
  if (absl::Status status = assembler->WriteRecord(); !status.ok()) return status;
  if (absl::Status status = assembler->NextFile(); !status.ok()) return status;
  return assembler;
}

absl::StatusOr<std::unique_ptr<SnapshotAssembler>> SnapshotAssembler::Resume(
    storage::FileSystem* fs, const std::string& parent, const std::string& name) {
  SnapshotMeta meta;
  const absl::StatusOr<Progress> progress = ReadProgress(fs, parent, name, &meta);
  if (!progress.ok()) return progress.status();
  const uint64_t missing = SnapshotBytes(meta) - progress->bytes;
  if (absl::Status status = CheckSpace(parent, missing); !status.ok()) return status;
  std::unique_ptr<SnapshotAssembler> assembler(
      new SnapshotAssembler(fs, std::move(meta), parent, name));
  assembler->ours_ = false;  // until it has proved to be of use, it is the caller's
  if (absl::Status status = assembler->Verify(*progress); !status.ok()) return status;
  auto record = fs->Open(assembler->dir_ + kPartialSuffix, storage::OpenMode::kExisting);
  if (!record.ok()) return record.status();
  assembler->record_ = *std::move(record);
  if (absl::Status status = assembler->RecordProgress(); !status.ok()) return status;
  if (absl::Status status = assembler->NextFile(); !status.ok()) return status;
  assembler->ours_ = true;
  return assembler;
}

absl::StatusOr<SnapshotMeta> SnapshotAssembler::ReadRecord(storage::FileSystem* fs,
                                                           const std::string& parent,
                                                           const std::string& name) {
  SnapshotMeta meta;
  const absl::StatusOr<Progress> progress = ReadProgress(fs, parent, name, &meta);
  if (!progress.ok()) return progress.status();
  return meta;
}

void SnapshotAssembler::RemovePartial(const std::string& parent, const std::string& name) {
  const std::string dir = parent + "/" + name;
  std::error_code error;
  // The record last: without it nobody would know what the directory is.
  std::filesystem::remove_all(dir, error);
  if (!error) std::filesystem::remove(dir + kPartialSuffix, error);
  if (error) LOG_WARN("cannot remove {}: {}; it will go at the next start", dir, error.message());
}

SnapshotAssembler::~SnapshotAssembler() {
  file_.reset();
  record_.reset();
  if (ours_) RemovePartial(parent_, name_);
}

// --- the record ---

absl::Status SnapshotAssembler::WriteRecord() {
  auto record = fs_->Open(dir_ + kPartialSuffix, storage::OpenMode::kCreate);
  if (!record.ok()) return record.status();
  record_ = *std::move(record);
  const std::string meta = meta_.SerializeAsString();
  std::string bytes;
  base::AppendBigEndian32(bytes, static_cast<uint32_t>(meta.size()));
  base::AppendBigEndian32(bytes, base::Crc32c(meta));
  for (size_t i = 0; i < kSlots; ++i) bytes += EncodeSlot(0, 0);
  bytes += meta;
  if (absl::Status status = record_->WriteAt(0, bytes); !status.ok()) return status;
  if (absl::Status status = record_->SyncData(); !status.ok()) return status;
  return fs_->SyncDir(parent_);
}

absl::Status SnapshotAssembler::RecordProgress() {
  const uint64_t slot = records_written_++ % kSlots;
  return record_->WriteAt(kRecordHeadBytes + slot * kSlotBytes, EncodeSlot(have_bytes_, crc32c_));
}

absl::StatusOr<SnapshotAssembler::Progress> SnapshotAssembler::ReadProgress(
    storage::FileSystem* fs, const std::string& parent, const std::string& name,
    SnapshotMeta* meta) {
  auto file = fs->Open(parent + "/" + name + kPartialSuffix, storage::OpenMode::kExisting);
  if (!file.ok()) return file.status();
  const absl::StatusOr<std::string> bytes = (*file)->ReadAt(0, kMaxRecordBytes);
  if (!bytes.ok()) return bytes.status();
  if (bytes->size() < kMetaOffset) return Useless("a record cut short");
  const std::string_view record = *bytes;
  const std::string_view encoded = record.substr(kMetaOffset);
  if (base::ReadBigEndian32(record) != encoded.size() ||
      base::ReadBigEndian32(record.substr(4)) != base::Crc32c(encoded) ||
      !meta->ParseFromArray(encoded.data(), static_cast<int>(encoded.size()))) {
    return Useless("a damaged record");
  }
  if (absl::Status status = CheckSnapshotMeta(*meta); !status.ok()) return status;
  std::optional<Progress> newest;
  for (size_t i = 0; i < kSlots; ++i) {
    const std::string_view slot = record.substr(kRecordHeadBytes + i * kSlotBytes, kSlotBytes);
    const Progress progress{base::ReadBigEndian64(slot), base::ReadBigEndian32(slot.substr(8))};
    if (base::ReadBigEndian32(slot.substr(12)) != base::Crc32c(slot.substr(0, 12))) continue;
    if (!newest || progress.bytes > newest->bytes) newest = progress;
  }
  if (!newest || newest->bytes > SnapshotBytes(*meta)) return Useless("a damaged record");
  return *newest;
}

absl::Status SnapshotAssembler::Verify(const Progress& synced) {
  while (have_bytes_ < synced.bytes) {
    const SnapshotFile& due = meta_.files(current_);
    if (absl::Status status = OpenDue(); !status.ok()) return status;
    const uint64_t wanted =
        std::min({uint64_t{kVerifyBlockBytes}, due.size() - offset_, synced.bytes - have_bytes_});
    if (wanted > 0) {
      const absl::StatusOr<std::string> data = file_->ReadAt(offset_, wanted);
      if (!data.ok()) return data.status();
      if (data->size() != wanted) return Useless(due.name() + " is shorter than recorded");
      crc32c_ = base::ExtendCrc32c(crc32c_, *data);
      offset_ += wanted;
      have_bytes_ += wanted;
    }
    // The last one may be complete too: NextFile then syncs and closes it once more.
    if (offset_ == due.size() && have_bytes_ < synced.bytes) {
      file_.reset();
      ++current_;
      offset_ = 0;
    }
  }
  if (crc32c_ != synced.crc32c) return Useless("its bytes are not the ones that were received");
  return absl::OkStatus();
}

// --- the data ---

absl::Status SnapshotAssembler::Sync() {
  if (unsynced_bytes_ == 0) return absl::OkStatus();
  if (absl::Status status = file_->SyncData(); !status.ok()) return status;
  if (std::exchange(created_, false)) {
    if (absl::Status status = fs_->SyncDir(dir_); !status.ok()) return status;
  }
  unsynced_bytes_ = 0;
  return RecordProgress();
}

absl::Status SnapshotAssembler::OpenDue() {
  if (file_ != nullptr) return absl::OkStatus();
  const std::string path = dir_ + "/" + meta_.files(current_).name();
  // After a pause it is there.
  auto file = fs_->Open(path, storage::OpenMode::kExisting);
  if (absl::IsNotFound(file.status())) {
    file = fs_->Open(path, storage::OpenMode::kCreate);
    created_ = true;
  }
  if (!file.ok()) return file.status();
  file_ = *std::move(file);
  return absl::OkStatus();
}

absl::Status SnapshotAssembler::NextFile() {
  while (current_ < meta_.files_size()) {
    if (absl::Status status = OpenDue(); !status.ok()) return status;
    if (offset_ < meta_.files(current_).size()) return absl::OkStatus();
    if (absl::Status status = Sync(); !status.ok()) return status;
    file_.reset();
    ++current_;
    offset_ = 0;
  }
  return absl::OkStatus();
}

absl::Status SnapshotAssembler::Take(const SnapshotChunk& chunk) {
  if (current_ == meta_.files_size()) return Refused("a chunk after the last file's end");
  const SnapshotFile& due = meta_.files(current_);
  if (chunk.file() != static_cast<uint32_t>(current_) || chunk.offset() != offset_) {
    return Refused(fmt::format("a chunk of file {} at {} where file {} at {} is due", chunk.file(),
                               chunk.offset(), current_, offset_));
  }
  if (chunk.data().empty()) return Refused(fmt::format("an empty chunk of {}", due.name()));
  if (chunk.data().size() > due.size() - offset_) {
    return Refused(fmt::format("more than the {} bytes announced for {}", due.size(), due.name()));
  }
  if (base::Crc32c(chunk.data()) != chunk.crc32c()) {
    return absl::DataLossError(base::ToAbsl(fmt::format(
        "snapshot refused: wrong checksum in {} at {}: damaged on the way", due.name(), offset_)));
  }
  if (absl::Status status = NextFile(); !status.ok()) return status;  // opens it after a pause
  if (absl::Status status = file_->WriteAt(offset_, chunk.data()); !status.ok()) return status;
  offset_ += chunk.data().size();
  have_bytes_ += chunk.data().size();
  crc32c_ = base::ExtendCrc32c(crc32c_, chunk.data());
  unsynced_bytes_ += chunk.data().size();
  if (unsynced_bytes_ >= kSnapshotSyncBytes) {
    if (absl::Status status = Sync(); !status.ok()) return status;
  }
  return NextFile();
}

absl::Status SnapshotAssembler::Pause() {
  if (absl::Status status = Sync(); !status.ok()) return status;
  file_.reset();
  return absl::OkStatus();
}

absl::StatusOr<std::string> SnapshotAssembler::Finish() {
  if (current_ != meta_.files_size()) {
    return absl::AbortedError(base::ToAbsl(
        fmt::format("snapshot refused: it ended at byte {} of {}, {} of {} files complete", offset_,
                    meta_.files(current_).name(), current_, meta_.files_size())));
  }
  if (absl::Status status = fs_->SyncDir(dir_); !status.ok()) return status;
  record_.reset();
  if (absl::Status status = fs_->Remove(dir_ + kPartialSuffix); !status.ok()) return status;
  if (absl::Status status = fs_->SyncDir(parent_); !status.ok()) return status;
  ours_ = false;
  return dir_;
}

}  // namespace holdfast::server
