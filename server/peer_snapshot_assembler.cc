#include "server/peer_snapshot_assembler.h"

#include <fmt/format.h>

#include <filesystem>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/crc32c.h"
#include "base/log.h"
#include "base/strings.h"

namespace holdfast::server {
namespace {

absl::Status Refused(const std::string& what) {
  return absl::InvalidArgumentError(base::ToAbsl("snapshot refused: " + what));
}

bool IsPlainName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxSnapshotNameBytes && name != "." &&
         name.find("..") == std::string_view::npos && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

absl::StatusOr<uint64_t> TotalBytes(const raft::v1::SnapshotMeta& meta) {
  uint64_t total = 0;
  for (const raft::v1::SnapshotFile& file : meta.files()) {
    if (file.size() > kMaxSnapshotBytes || (total += file.size()) > kMaxSnapshotBytes) {
      return Refused(fmt::format("more than {} bytes", kMaxSnapshotBytes));
    }
  }
  return total;
}

absl::Status CheckSpace(const std::string& dir, uint64_t needed) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(dir, error);
  if (error || space.available >= needed) return absl::OkStatus();  // writing will tell
  return absl::ResourceExhaustedError(
      base::ToAbsl(fmt::format("snapshot refused: it needs {} bytes and {} has {} free: make room",
                               needed, dir, space.available)));
}

}  // namespace

absl::Status CheckSnapshotMeta(const raft::v1::SnapshotMeta& meta) {
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
  std::set<std::string_view> names;
  for (const raft::v1::SnapshotFile& file : meta.files()) {
    if (!IsPlainName(file.name())) {
      return Refused(fmt::format("'{}' is no plain file name", base::Printable(file.name())));
    }
    if (!names.insert(file.name()).second) {
      return Refused(fmt::format("two files '{}'", base::Printable(file.name())));
    }
  }
  return TotalBytes(meta).status();
}

absl::StatusOr<std::unique_ptr<SnapshotAssembler>> SnapshotAssembler::Create(
    storage::FileSystem* fs, const raft::v1::SnapshotMeta& meta, const std::string& parent,
    const std::string& name) {
  if (absl::Status status = CheckSnapshotMeta(meta); !status.ok()) return status;
  if (absl::Status status = CheckSpace(parent, *TotalBytes(meta)); !status.ok()) return status;
  std::string dir = parent + "/" + name;
  if (absl::Status status = fs->CreateDir(dir); !status.ok()) return status;
  std::unique_ptr<SnapshotAssembler> assembler(new SnapshotAssembler(fs, parent, std::move(dir)));
  assembler->files_.reserve(meta.files_size());
  for (const raft::v1::SnapshotFile& file : meta.files()) {
    assembler->files_.push_back({file.name(), file.size()});
  }
  if (absl::Status status = assembler->NextFile(); !status.ok()) return status;
  return assembler;
}

SnapshotAssembler::~SnapshotAssembler() {
  if (!ours_) return;
  file_.reset();
  std::error_code error;
  std::filesystem::remove_all(dir_, error);
  if (error) LOG_WARN("cannot remove {}: {}; it will go at the next start", dir_, error.message());
}

absl::Status SnapshotAssembler::NextFile() {
  while (true) {
    if (file_ != nullptr) {
      if (offset_ < files_[current_].size) return absl::OkStatus();
      if (absl::Status status = file_->SyncData(); !status.ok()) return status;
      file_.reset();
      ++current_;
    }
    if (current_ == files_.size()) return absl::OkStatus();
    absl::StatusOr<std::unique_ptr<storage::File>> file =
        fs_->Open(dir_ + "/" + files_[current_].name, storage::OpenMode::kCreate);
    if (!file.ok()) return file.status();
    file_ = *std::move(file);
    offset_ = 0;
  }
}

absl::Status SnapshotAssembler::Take(const raft::v1::SnapshotChunk& chunk) {
  if (file_ == nullptr) return Refused("a chunk after the last file's end");
  const FileToCome& due = files_[current_];
  if (chunk.file() != current_ || chunk.offset() != offset_) {
    return Refused(fmt::format("a chunk of file {} at {} where file {} at {} is due", chunk.file(),
                               chunk.offset(), current_, offset_));
  }
  if (chunk.data().empty()) return Refused(fmt::format("an empty chunk of {}", due.name));
  if (chunk.data().size() > due.size - offset_) {
    return Refused(fmt::format("more than the {} bytes announced for {}", due.size, due.name));
  }
  if (base::Crc32c(chunk.data()) != chunk.crc32c()) {
    return absl::DataLossError(base::ToAbsl(fmt::format(
        "snapshot refused: wrong checksum in {} at {}: damaged on the way", due.name, offset_)));
  }
  if (absl::Status status = file_->WriteAt(offset_, chunk.data()); !status.ok()) return status;
  offset_ += chunk.data().size();
  return NextFile();
}

absl::StatusOr<std::string> SnapshotAssembler::Finish() {
  if (current_ != files_.size()) {
    return Refused(fmt::format("it ended at byte {} of {}, {} of {} files complete", offset_,
                               files_[current_].name, current_, files_.size()));
  }
  if (absl::Status status = fs_->SyncDir(dir_); !status.ok()) return status;
  if (absl::Status status = fs_->SyncDir(parent_); !status.ok()) return status;
  ours_ = false;
  return dir_;
}

}  // namespace holdfast::server
