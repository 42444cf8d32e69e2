#include "client/ctl/backup_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/strings.h"

namespace holdfast::ctl {
namespace {

using backup::v1::Frame;
using base::BackupRules;

absl::Status FileError(std::string_view what, const std::string& path, int error) {
  const std::string text = fmt::format("cannot {} {}: {}", what, path, std::strerror(error));
  if (error == ENOSPC || error == EDQUOT) return absl::ResourceExhaustedError(base::ToAbsl(text));
  if (error == ENOENT) return absl::NotFoundError(base::ToAbsl(text));
  return absl::InternalError(base::ToAbsl(text));
}

absl::Status WithPath(const absl::Status& status, const std::string& path) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      base::ToAbsl(fmt::format("{}: {}", path, base::Message(status))));
}

BackupRules::Record RecordOf(const mvccpb::KeyValue& kv) {
  return {kv.key(), kv.create_revision(), kv.mod_revision(), kv.version(), kv.lease()};
}

absl::Status CheckRevisions(const backup::v1::Revisions& revisions, BackupRules& rules) {
  for (const auto& revision : revisions.revisions()) {
    absl::Status status = rules.OnRevision(revision.revision(), revision.events_size());
    for (const mvccpb::Event& event : revision.events()) {
      if (status.ok()) {
        status = rules.OnEvent(RecordOf(event.kv()), event.type() == mvccpb::Event::DELETE);
      }
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckFrame(const Frame& frame, BackupRules& rules) {
  absl::Status status;
  switch (frame.part_case()) {
    case Frame::kHeader:
      return rules.OnHeader(
          {frame.header().format(), frame.header().revision(), frame.header().after_revision()});
    case Frame::kRecords:
      for (const auto& kv : frame.records().kvs()) {
        if (status.ok()) status = rules.OnRecord(RecordOf(kv));
      }
      return status;
    case Frame::kLeases:
      for (const auto& lease : frame.leases().leases()) {
        if (status.ok()) status = rules.OnLease(lease.id(), lease.granted_ttl_s());
      }
      return status;
    case Frame::kRevisions:
      return CheckRevisions(frame.revisions(), rules);
    case Frame::kEnd:
      return rules.OnEnd({frame.end().records(), frame.end().leases(), frame.end().events()});
    case Frame::kPadding:
      return rules.OnPadding();
    case Frame::PART_NOT_SET:
      break;
  }
  return absl::DataLossError("not a sound backup: a frame of no kind that this program knows");
}

// A file that is open for reading.
class Input {
 public:
  static absl::StatusOr<std::unique_ptr<Input>> Open(const std::string& path) {
    std::unique_ptr<Input> input(new Input);
    input->fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (input->fd_ < 0) return FileError("open", path, errno);
    struct stat st = {};
    if (fstat(input->fd_, &st) != 0) return FileError("read", path, errno);
    if (!S_ISREG(st.st_mode)) {
      return absl::FailedPreconditionError(base::ToAbsl(path + " is no file"));
    }
    input->bytes_ = static_cast<uint64_t>(st.st_size);
    return input;
  }
  ~Input() {
    if (fd_ >= 0) close(fd_);
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;
  int fd() const { return fd_; }
  uint64_t bytes() const { return bytes_; }

 private:
  Input() = default;
  int fd_ = -1;
  uint64_t bytes_ = 0;
};

// What etcd's own snapshots (bbolt files) have at bytes 16 to 19: page header, then their magic.
bool LooksLikeEtcd(int fd) {
  unsigned char bytes[20] = {};
  static constexpr unsigned char kBoltMagic[] = {0xed, 0xda, 0x0c, 0xed};
  return pread(fd, bytes, sizeof(bytes), 0) == sizeof(bytes) &&
         std::memcmp(bytes + 16, kBoltMagic, sizeof(kBoltMagic)) == 0;
}

absl::Status CheckHash(const Input& input, uint64_t frame_bytes, const std::string& sha256) {
  std::string told(base::kBackupHashBytes, '\0');
  const ssize_t got = pread(input.fd(), told.data(), told.size(), static_cast<off_t>(frame_bytes));
  if (got != static_cast<ssize_t>(told.size()) || told != sha256) {
    return absl::DataLossError(
        "its SHA-256 is not the one at its end: the file was changed after it was written");
  }
  return absl::OkStatus();
}

// The frames of `input`, checked. `hash` may be null.
absl::Status ReadFrames(const Input& input, uint64_t limit, Sha256* hash,
                        const std::function<absl::Status(const Frame&)>& visit, BackupInfo* info) {
  const base::FrameReader::Source from = base::SourceOf(input.fd(), limit);
  base::FrameReader frames([&](char* out, size_t n) {
    absl::StatusOr<size_t> got = from(out, n);
    if (got.ok() && hash != nullptr) hash->Add({out, *got});
    return got;
  });
  BackupRules rules;
  std::string bytes;
  Frame frame;
  while (true) {
    const absl::StatusOr<bool> more = frames.Next(&bytes);
    if (!more.ok()) return more.status();
    if (!*more) break;
    if (!frame.ParseFromString(bytes)) {
      return absl::DataLossError("not a sound backup: a frame is no message");
    }
    if (absl::Status status = CheckFrame(frame, rules); !status.ok()) return status;
    if (frame.has_header()) info->header = frame.header();
    if (visit && !frame.has_padding()) {
      if (absl::Status status = visit(frame); !status.ok()) return status;
    }
  }
  info->counts = rules.counts();
  return rules.OnFinish();
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr);
}
Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }
void Sha256::Add(std::string_view bytes) {
  EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), bytes.data(), bytes.size());
}
std::string Sha256::Finish() {
  std::string digest(base::kBackupHashBytes, '\0');
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_),
                     reinterpret_cast<unsigned char*>(digest.data()), nullptr);
  return digest;
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status SyncDirectory(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return FileError("open", path, errno);
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error == 0 ? absl::OkStatus() : FileError("sync", path, error);
}

absl::StatusOr<std::unique_ptr<DurableFile>> DurableFile::Create(const std::string& path) {
  const std::string part = path + ".part";
  const int fd = open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return FileError("create", part, errno);
  return std::unique_ptr<DurableFile>(new DurableFile(fd, path));
}

DurableFile::~DurableFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(part_.c_str());
}

absl::Status DurableFile::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError("write", part_, errno);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status DurableFile::Sync() {
  return fsync(fd_) == 0 ? absl::OkStatus() : FileError("sync", part_, errno);
}

absl::Status DurableFile::Commit(const std::string& path) {
  const std::string& to = path.empty() ? path_ : path;
  if (absl::Status status = Sync(); !status.ok()) return status;
  if (rename(part_.c_str(), to.c_str()) != 0) return FileError("rename", part_, errno);
  close(fd_);
  fd_ = -1;
  return SyncDirectory(DirectoryOf(to));
}

absl::StatusOr<BackupInfo> ReadBackup(const std::string& path,
                                      const std::function<absl::Status(const Frame&)>& visit) {
  const auto input = Input::Open(path);
  if (!input.ok()) return input.status();
  BackupInfo info;
  info.file_bytes = (*input)->bytes();
  info.had_hash = info.file_bytes % base::kBackupAlignment == base::kBackupHashBytes;
  info.frame_bytes = info.file_bytes - (info.had_hash ? base::kBackupHashBytes : 0);
  Sha256 hash;
  absl::Status status = ReadFrames(**input, info.frame_bytes, &hash, visit, &info);
  if (status.ok()) {
    info.sha256 = hash.Finish();
    if (info.had_hash) status = CheckHash(**input, info.frame_bytes, info.sha256);
  } else if (LooksLikeEtcd((*input)->fd())) {
    status = absl::FailedPreconditionError(
        "it is a snapshot of etcd, which Holdfast cannot read: copy the keys from the running etcd "
        "with `holdfastctl migrate`, or restore the snapshot into an etcd and migrate from that");
  }
  if (!status.ok()) return WithPath(status, path);
  return info;
}

absl::StatusOr<backup::v1::Header> ReadBackupHeader(const std::string& path) {
  const auto input = Input::Open(path);
  if (!input.ok()) return input.status();
  BackupInfo info;
  const absl::Status enough = absl::CancelledError("enough");
  const absl::Status status = ReadFrames(
      **input, (*input)->bytes(), nullptr, [&](const Frame&) { return enough; }, &info);
  if (!absl::IsCancelled(status)) return WithPath(status, path);
  return info.header;
}

BackupWriter::BackupWriter(DurableFile* file, const backup::v1::Header& header)
    : file_(*file),
      frames_([this](std::string_view bytes) {
        hash_.Add(bytes);
        return file_.Write(bytes);
      }),
      header_(header) {}

absl::Status BackupWriter::Put(const Frame& frame) {
  if (absl::Status status = CheckFrame(frame, rules_); !status.ok()) return status;
  return frames_.Write(frame.SerializeAsString());
}

absl::Status BackupWriter::Write(const Frame& frame) {
  if (!begun_) {
    Frame first;
    *first.mutable_header() = header_;
    if (absl::Status status = Put(first); !status.ok()) return status;
    begun_ = true;
  }
  return frame.part_case() == Frame::PART_NOT_SET ? absl::OkStatus() : Put(frame);
}

absl::Status BackupWriter::Finish() {
  if (absl::Status status = Write({}); !status.ok()) return status;
  Frame frame;
  frame.mutable_end()->set_records(rules_.counts().records);
  frame.mutable_end()->set_leases(rules_.counts().leases);
  frame.mutable_end()->set_events(rules_.counts().events);
  if (absl::Status status = Put(frame); !status.ok()) return status;
  if (const uint64_t padding = base::BackupPadding(frames_.bytes()); padding != base::kNoPadding) {
    frame.set_padding(std::string(padding, '\0'));
    if (absl::Status status = Put(frame); !status.ok()) return status;
  }
  return file_.Write(hash_.Finish());
}

}  // namespace holdfast::ctl
