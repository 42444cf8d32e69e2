#include "client/trial_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "base/rng.h"
#include "client/byte_codec.h"
#include "client/cache_directory.h"
#include "client/slot_file.h"

namespace holdfast::internal {
namespace {

constexpr uint8_t kTrialFormat = 1;
constexpr size_t kSlotBytes = kTrialBytesMax + kSlotHeadBytes;
// Written beforehand, so that a small trial can be noted on a full disk.
constexpr size_t kReservedBytes = 4096;
constexpr int kCreateTries = 3;

std::string EncodeTrial(const Trial& trial) {
  ByteEncoder out;
  out.U8(kTrialFormat);
  out.U32(static_cast<uint32_t>(trial.changes.size()));
  for (const Suspect& suspect : trial.changes) {
    out.Text(suspect.key);
    out.Digest(suspect.content);
  }
  out.U8(trial.set.has_value() ? 1 : 0);
  out.Digest(trial.set.value_or(base::RecordDigest{}));
  const TrialGeneration generation = trial.generation.value_or(TrialGeneration{});
  out.U8(trial.generation.has_value() ? 1 : 0);
  out.U64(generation.number);
  out.Digest(generation.digest);
  return out.Take();
}

// nullopt: of a later version.
std::optional<Trial> DecodeTrial(std::string_view bytes) {
  ByteDecoder in(bytes);
  Trial trial;
  if (in.U8() != kTrialFormat) return std::nullopt;
  for (uint32_t left = in.U32(); left > 0 && in.ok(); --left) {
    Suspect suspect;
    suspect.key = in.Text();
    suspect.content = in.Digest();
    trial.changes.push_back(std::move(suspect));
  }
  const bool has_set = in.U8() != 0;
  const base::RecordDigest set = in.Digest();
  if (has_set) trial.set = set;
  const bool has_generation = in.U8() != 0;
  TrialGeneration generation;
  generation.number = in.U64();
  generation.digest = in.Digest();
  if (has_generation) trial.generation = generation;
  return in.ok() ? trial : Trial{};
}

// Nobody holds it: whoever made it is dead. The lock that this takes is shared, so that two readers
// do not take each other for the owner.
bool Dead(int fd) { return flock(fd, LOCK_SH | LOCK_NB) == 0; }

void RemoveDeadBeginnings(const std::string& dir, const CacheFiles& files) {
  for (const std::string& name : files.beginnings) {
    const std::string path = dir + "/" + name;
    const auto fd = OpenFile(path, O_RDONLY | O_NONBLOCK);
    if (fd.ok() && Dead(fd->get())) unlink(path.c_str());
  }
}

absl::Status Reserve(int fd, const std::string& path) {
  const std::string zeros(kReservedBytes, '\0');
  for (const size_t offset : {size_t{0}, kSlotBytes}) {
    const ssize_t n = pwrite(fd, zeros.data(), zeros.size(), static_cast<off_t>(offset));
    if (n != static_cast<ssize_t>(zeros.size())) {
      return DiskError("write", path, n < 0 ? errno : ENOSPC);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TrialFile>> TrialFile::Create(const std::string& dir,
                                                             std::string_view stem) {
  absl::Status status;
  for (int i = 0; i < kCreateTries; ++i) {
    const std::string token = fmt::format("{}-{:016x}", getpid(), base::RandomSeed());
    // It gets the name under which others look for it only once it is locked.
    const std::string begin = fmt::format("{}/{}.begin-{}", dir, stem, token);
    auto fd = OpenFile(begin, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW);
    if (!fd.ok()) return fd.status();
    std::string path = fmt::format("{}/{}.trial-{}", dir, stem, token);
    if (flock(fd->get(), LOCK_EX | LOCK_NB) != 0) {
      status = DiskError("lock", begin, errno);
      continue;  // somebody tidies up, and took it for a dead one's
    }
    if (status = Reserve(fd->get(), begin); !status.ok()) {
      unlink(begin.c_str());
      return status;
    }
    if (rename(begin.c_str(), path.c_str()) == 0) {
      return std::unique_ptr<TrialFile>(new TrialFile(std::move(path), *std::move(fd)));
    }
    status = DiskError("rename", begin, errno);
  }
  return status;
}

TrialFile::~TrialFile() {
  if (OfThisProcess()) unlink(path_.c_str());
}

absl::Status TrialFile::Note(const Trial& trial) {
  absl::Status status = WriteSlot(fd_.get(), path_, kSlotBytes, sequence_ + 1, EncodeTrial(trial));
  if (status.ok()) ++sequence_;
  return status;
}

std::vector<DeadTrial> ReadDeadTrials(const std::string& dir, std::string_view stem, bool tidy) {
  const auto files = ListCacheFiles(dir, stem);
  if (!files.ok()) return {};
  if (tidy) RemoveDeadBeginnings(dir, *files);
  std::vector<DeadTrial> all;
  for (const std::string& name : files->trials) {
    DeadTrial dead{.path = dir + "/" + name};
    const auto fd = OpenFile(dead.path, O_RDONLY | O_NONBLOCK);
    if (!fd.ok() || !Dead(fd->get())) continue;
    struct stat info = {};
    if (fstat(fd->get(), &info) != 0) continue;
    dead.modified_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
    if (const auto record = ReadSlots(fd->get(), kSlotBytes)) {
      auto trial = DecodeTrial(record->bytes);
      if (!trial.has_value()) continue;
      dead.trial = *std::move(trial);
    }
    if (!dead.trial.empty()) {
      all.push_back(std::move(dead));
    } else if (tidy) {
      unlink(dead.path.c_str());
    }
  }
  std::sort(all.begin(), all.end(), [](const DeadTrial& a, const DeadTrial& b) {
    return std::tie(b.modified_ns, b.path) < std::tie(a.modified_ns, a.path);
  });
  while (all.size() > kDeadTrialsMax) {
    if (tidy) unlink(all.back().path.c_str());
    all.pop_back();
  }
  return all;
}

}  // namespace holdfast::internal
