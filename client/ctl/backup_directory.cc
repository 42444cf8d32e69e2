#include "client/ctl/backup_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "base/strings.h"
#include "client/ctl/backup_file.h"
#include "client/ctl/remote.h"
#include "client/ctl/snapshot_commands.h"

namespace holdfast::ctl {
namespace {

namespace fs = std::filesystem;
using backup::v1::Frame;
using nlohmann::ordered_json;

constexpr std::string_view kSuffix = ".hfb";
// Events of one frame, before it is closed; one revision more may come on top.
constexpr size_t kFrameBytes = size_t{256} << 10;
// For an increment: how long no member may be heard while there are events to come.
constexpr absl::Duration kGiveUp = absl::Seconds(30);

ExitCode Fail(const absl::Status& status, Io io) {
  io.err << "holdfastctl: " << base::Message(status) << "\n";
  return ExitCodeOf(status);
}

bool TakeNumber(std::string_view* text, int64_t* number) {
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), *number);
  if (error != std::errc() || *number < 0) return false;
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return true;
}

bool TakeText(std::string_view* text, std::string_view what) {
  if (!text->starts_with(what)) return false;
  text->remove_prefix(what.size());
  return true;
}

std::optional<BackupFile> ParseName(std::string_view name) {
  BackupFile file;
  int64_t generation = 0;
  if (!TakeText(&name, "g") || !TakeNumber(&name, &generation) || generation > INT32_MAX) {
    return std::nullopt;
  }
  file.generation = static_cast<int>(generation);
  if (TakeText(&name, "-inc-")) {
    if (!TakeNumber(&name, &file.after) || file.after == 0 || !TakeText(&name, "-")) {
      return std::nullopt;
    }
  } else if (!TakeText(&name, "-full-")) {
    return std::nullopt;
  }
  if (!TakeNumber(&name, &file.revision) || name != kSuffix) return std::nullopt;
  return file;
}

// The one process that adds to the directory.
class DirectoryLock {
 public:
  static absl::StatusOr<std::unique_ptr<DirectoryLock>> Take(const std::string& dir) {
    std::error_code error;
    fs::create_directories(dir, error);
    const std::string path = dir + "/LOCK";
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
      return absl::InternalError(
          base::ToAbsl(fmt::format("cannot write in {}: {}", dir, std::strerror(errno))));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
      close(fd);
      return absl::FailedPreconditionError(
          base::ToAbsl(dir + " is in use by another `holdfastctl backup`"));
    }
    return std::unique_ptr<DirectoryLock>(new DirectoryLock(fd));
  }
  ~DirectoryLock() { close(fd_); }
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  const int fd_;
};

// What is alive now, with the time it was granted.
absl::Status AddLeases(Remote& remote, std::map<int64_t, int64_t>* leases) {
  const auto ids = remote.Leases();
  if (!ids.ok()) return ids.status();
  for (const int64_t id : *ids) {
    if (leases->contains(id)) continue;
    const auto lease = remote.TimeToLive(id);
    if (!lease.ok()) return lease.status();
    if (lease->ttl() > 0 && lease->grantedttl() > 0) (*leases)[id] = lease->grantedttl();
  }
  return absl::OkStatus();
}

absl::Status WriteLeases(const std::map<int64_t, int64_t>& leases, BackupWriter* writer) {
  Frame frame;
  for (const auto& [id, ttl_s] : leases) {
    auto& lease = *frame.mutable_leases()->add_leases();
    lease.set_id(id);
    lease.set_granted_ttl_s(ttl_s);
    if (frame.ByteSizeLong() < kFrameBytes) continue;
    if (absl::Status status = writer->Write(frame); !status.ok()) return status;
    frame.Clear();
  }
  return frame.has_leases() ? writer->Write(frame) : absl::OkStatus();
}

// Every event with after < revision <= up_to.
absl::Status WriteEvents(Remote& remote, int64_t after, int64_t up_to, BackupWriter* writer) {
  Frame frame;
  size_t bytes = 0;
  absl::Status written;
  RevisionWatch watch(&remote);
  const absl::Status watched = watch.Run(after + 1, kGiveUp, [&](WatchedRevision revision) {
    if (revision.revision > up_to) return false;
    auto& out = *frame.mutable_revisions()->add_revisions();
    out.set_revision(revision.revision);
    for (mvccpb::Event& event : revision.events) *out.add_events() = std::move(event);
    bytes += out.ByteSizeLong();
    if (bytes >= kFrameBytes || revision.revision == up_to) {
      written = writer->Write(frame);
      frame.Clear();
      bytes = 0;
    }
    return written.ok() && revision.revision < up_to;
  });
  if (!written.ok()) return written;
  if (!watched.ok()) return watched;
  return frame.has_revisions() ? writer->Write(frame) : absl::OkStatus();
}

class DirectoryBackup {
 public:
  DirectoryBackup(const Common& common, const BackupArgs& args, Remote* remote, Io io)
      : common_(common), args_(args), remote_(*remote), io_(io) {}

  absl::Status Run();

 private:
  // Why an increment will not do; empty: it will.
  absl::StatusOr<std::string> WhyFull(const std::vector<Generation>& all, const StoreState& now,
                                      backup::v1::Header* tail);
  absl::Status AddFull(int generation);
  absl::Status AddIncrement(const Generation& generation, const backup::v1::Header& tail,
                            const StoreState& now);
  absl::Status DropOld();
  void Report(const std::string& path, const BackupInfo& info);

  const Common& common_;
  const BackupArgs& args_;
  Remote& remote_;
  Io io_;
};

absl::StatusOr<std::string> DirectoryBackup::WhyFull(const std::vector<Generation>& all,
                                                     const StoreState& now,
                                                     backup::v1::Header* tail) {
  if (all.empty()) return std::string("the directory has none yet");
  if (args_.full) return std::string("--full");
  const Generation& newest = all.back();
  const auto header = ReadBackupHeader(newest.files.back().path);
  if (!header.ok()) {
    return fmt::format("the newest backup cannot be continued ({})",
                       base::Message(header.status()));
  }
  *tail = *header;
  if (tail->cluster_id() != now.cluster_id || tail->incarnation() != now.incarnation) {
    return fmt::format(
        "this is another incarnation: cluster {:x}, incarnation {:x}, before {:x}, {:x}",
        now.cluster_id, now.incarnation, tail->cluster_id(), tail->incarnation());
  }
  if (now.revision < tail->revision()) {
    return fmt::format("the revision went back, from {} to {}", tail->revision(), now.revision);
  }
  if (static_cast<int>(newest.files.size()) > args_.increments_max) {
    return fmt::format("the generation has {} increments", newest.files.size() - 1);
  }
  return std::string();
}

absl::Status DirectoryBackup::Run() {
  const auto all = ListBackups(args_.dir);
  if (!all.ok()) return all.status();
  const auto now = remote_.State();
  if (!now.ok()) return now.status();
  backup::v1::Header tail;
  auto why = WhyFull(*all, *now, &tail);
  if (!why.ok()) return why.status();
  if (why->empty()) {
    if (now->revision == tail.revision()) {
      if (!common_.json) {
        io_.out << fmt::format("nothing new since revision {}\n", tail.revision());
      }
      return absl::OkStatus();
    }
    const absl::Status added = AddIncrement(all->back(), tail, *now);
    if (added.ok()) return DropOld();
    if (!absl::IsOutOfRange(added) && !absl::IsFailedPrecondition(added)) return added;
    *why = std::string(base::Message(added));
  }
  if (!all->empty() && !args_.full) io_.err << "holdfastctl: a new full backup: " << *why << "\n";
  const int number = all->empty() ? 1 : all->back().number + 1;
  if (absl::Status status = AddFull(number); !status.ok()) return status;
  return DropOld();
}

absl::Status DirectoryBackup::AddFull(int generation) {
  const auto saved = SaveBackup(remote_, args_.dir + "/new-full");
  if (!saved.ok()) return saved.status();
  const std::string path =
      fmt::format("{}/{}", args_.dir, BackupName(generation, 0, saved->info.header.revision()));
  if (absl::Status status = saved->file->Commit(path); !status.ok()) return status;
  Report(path, saved->info);
  return absl::OkStatus();
}

absl::Status DirectoryBackup::AddIncrement(const Generation& generation,
                                           const backup::v1::Header& tail, const StoreState& now) {
  auto file = DurableFile::Create(args_.dir + "/new-inc");
  if (!file.ok()) return file.status();
  backup::v1::Header header = tail;
  header.set_after_revision(tail.revision());
  header.set_revision(now.revision);
  header.set_wall_time_unix_ms(absl::ToUnixMillis(absl::Now()));
  header.set_version("holdfastctl " HOLDFAST_VERSION);
  BackupWriter writer(file->get(), header);
  // What was alive at `now` was so before or is so after, but for what lived only between.
  std::map<int64_t, int64_t> leases;
  if (absl::Status status = AddLeases(remote_, &leases); !status.ok()) return status;
  if (absl::Status status = WriteEvents(remote_, tail.revision(), now.revision, &writer);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = AddLeases(remote_, &leases); !status.ok()) return status;
  if (absl::Status status = WriteLeases(leases, &writer); !status.ok()) return status;
  if (absl::Status status = writer.Finish(); !status.ok()) return status;
  // The events came by calls of their own: from the same incarnation only if it is the same now.
  const auto after = remote_.State();
  if (!after.ok()) return after.status();
  if (after->cluster_id != now.cluster_id || after->incarnation != now.incarnation) {
    return absl::FailedPreconditionError("the incarnation changed meanwhile");
  }
  const auto info = ReadBackup((*file)->part_path());
  if (!info.ok()) return info.status();
  const std::string path =
      fmt::format("{}/{}", args_.dir, BackupName(generation.number, tail.revision(), now.revision));
  if (absl::Status status = (*file)->Commit(path); !status.ok()) return status;
  Report(path, *info);
  return absl::OkStatus();
}

// The increments of a generation before its full backup, the newest first: what a crash leaves of
// it can still be restored.
absl::Status DirectoryBackup::DropOld() {
  if (args_.keep == 0) return absl::OkStatus();
  const auto all = ListBackups(args_.dir);
  if (!all.ok()) return all.status();
  for (size_t i = 0; i + static_cast<size_t>(args_.keep) < all->size(); ++i) {
    const Generation& old = (*all)[i];
    for (auto file = old.files.rbegin(); file != old.files.rend(); ++file) {
      std::error_code error;
      fs::remove(file->path, error);
      if (error) {
        return absl::InternalError(
            base::ToAbsl(fmt::format("cannot remove {}: {}", file->path, error.message())));
      }
    }
    io_.err << fmt::format("holdfastctl: removed generation {}\n", old.number);
  }
  return SyncDirectory(args_.dir);
}

void DirectoryBackup::Report(const std::string& path, const BackupInfo& info) {
  if (common_.json) {
    const ordered_json out = {{"path", path},
                              {"afterRevision", info.header.after_revision()},
                              {"revision", info.header.revision()},
                              {"totalKey", info.counts.records},
                              {"totalEvents", info.counts.events},
                              {"totalSize", info.file_bytes}};
    io_.out << out.dump(-1, ' ', false, ordered_json::error_handler_t::replace) << std::endl;
  } else if (info.header.after_revision() == 0) {
    io_.out << fmt::format("{}: {} keys at revision {}, {} bytes", path, info.counts.records,
                           info.header.revision(), info.file_bytes)
            << std::endl;
  } else {
    io_.out << fmt::format("{}: {} events up to revision {}, {} bytes", path, info.counts.events,
                           info.header.revision(), info.file_bytes)
            << std::endl;
  }
}

}  // namespace

std::string BackupName(int generation, int64_t after, int64_t revision) {
  return after == 0
             ? fmt::format("g{:05}-full-{:012}{}", generation, revision, kSuffix)
             : fmt::format("g{:05}-inc-{:012}-{:012}{}", generation, after, revision, kSuffix);
}

absl::StatusOr<std::vector<Generation>> ListBackups(const std::string& dir) {
  std::error_code error;
  std::vector<BackupFile> files;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    auto file = ParseName(it->path().filename().string());
    if (!file) continue;
    file->path = it->path().string();
    files.push_back(*std::move(file));
  }
  if (error) {
    return absl::NotFoundError(
        base::ToAbsl(fmt::format("cannot list {}: {}", dir, error.message())));
  }
  std::sort(files.begin(), files.end(), [](const BackupFile& a, const BackupFile& b) {
    return std::tie(a.generation, a.after, a.revision) <
           std::tie(b.generation, b.after, b.revision);
  });
  std::vector<Generation> all;
  for (BackupFile& file : files) {
    if (file.after == 0) {
      all.push_back({.number = file.generation, .files = {std::move(file)}});
    } else if (!all.empty() && all.back().number == file.generation &&
               all.back().files.back().revision == file.after) {
      all.back().files.push_back(std::move(file));
    }
  }
  return all;
}

absl::StatusOr<std::vector<std::string>> ChainTo(const std::string& dir, int64_t revision) {
  const auto all = ListBackups(dir);
  if (!all.ok()) return all.status();
  for (auto it = all->rbegin(); it != all->rend(); ++it) {
    const auto& files = it->files;
    if (revision != 0 && (revision < files.front().revision || revision > files.back().revision)) {
      continue;
    }
    std::vector<std::string> chain;
    for (const BackupFile& file : files) {
      if (revision != 0 && file.after >= revision) break;
      chain.push_back(file.path);
    }
    return chain;
  }
  return absl::NotFoundError(base::ToAbsl(
      revision == 0 ? fmt::format("{} holds no backup", dir)
                    : fmt::format("no backup in {} holds revision {}: `holdfastctl backup list` "
                                  "shows what there is",
                                  dir, revision)));
}

ExitCode Backup(const Common& common, const BackupArgs& args, Io io) {
  const auto lock = DirectoryLock::Take(args.dir);
  if (!lock.ok()) return Fail(lock.status(), io);
  const auto remote = Remote::Open(common.endpoints, common.timeout);
  if (!remote.ok()) return Fail(remote.status(), io);
  BackupArgs once = args;
  while (true) {
    const absl::Time began = absl::Now();
    const absl::Status status = DirectoryBackup(common, once, remote->get(), io).Run();
    if (args.every == absl::ZeroDuration()) return status.ok() ? kOk : Fail(status, io);
    // The next round may find the cluster again; a monitor reads standard error, or the files.
    if (!status.ok()) Fail(status, io);
    once.full = once.full && !status.ok();  // asked for once
    std::this_thread::sleep_for(absl::ToChronoMilliseconds(
        std::max(absl::ZeroDuration(), args.every - (absl::Now() - began))));
  }
}

ExitCode BackupVerify(const Common& common, const std::string& dir, Io io) {
  const auto all = ListBackups(dir);
  if (!all.ok()) return Fail(all.status(), io);
  if (all->empty()) return Fail(absl::NotFoundError(base::ToAbsl(dir + " holds no backup")), io);
  size_t bad = 0, files = 0;
  for (const Generation& generation : *all) {
    backup::v1::Header before;
    for (const BackupFile& file : generation.files) {
      ++files;
      const auto info = ReadBackup(file.path);
      absl::Status status = info.status();
      if (status.ok() && (info->header.revision() != file.revision ||
                          info->header.after_revision() != file.after)) {
        status = absl::DataLossError("its name does not say what it holds");
      }
      if (status.ok() && file.after != 0 &&
          (info->header.cluster_id() != before.cluster_id() ||
           info->header.incarnation() != before.incarnation())) {
        status = absl::DataLossError("it is of another incarnation than the one before");
      }
      if (status.ok()) before = info->header;
      if (!status.ok()) ++bad;
      if (!status.ok()) {
        io.err << "holdfastctl: " << file.path << ": " << base::Message(status) << "\n";
      } else if (!common.json) {
        io.out << fmt::format("{}: sound\n", file.path);
      }
    }
  }
  if (common.json) io.out << ordered_json{{"files", files}, {"damaged", bad}}.dump() << "\n";
  return bad == 0 ? kOk : kRefused;
}

ExitCode BackupList(const Common& common, const std::string& dir, Io io) {
  const auto all = ListBackups(dir);
  if (!all.ok()) return Fail(all.status(), io);
  ordered_json list = ordered_json::array();
  for (const Generation& generation : *all) {
    const int64_t first = generation.files.front().revision;
    const int64_t last = generation.files.back().revision;
    uint64_t bytes = 0;
    for (const BackupFile& file : generation.files) {
      std::error_code ignored;
      bytes += fs::file_size(file.path, ignored);
    }
    const size_t increments = generation.files.size() - 1;
    if (common.json) {
      list.push_back({{"generation", generation.number},
                      {"firstRevision", first},
                      {"lastRevision", last},
                      {"increments", increments},
                      {"bytes", bytes}});
    } else {
      io.out << fmt::format("generation {}: revisions {} to {}, {} increments, {} bytes\n",
                            generation.number, first, last, increments, bytes);
    }
  }
  if (common.json) io.out << list.dump() << "\n";
  return kOk;
}

}  // namespace holdfast::ctl
