#include "client/ctl/snapshot_commands.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/strings.h"
#include "client/ctl/backup_directory.h"
#include "client/grpc_time.h"

namespace holdfast::ctl {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// A server that sends nothing for so long is taken for dead; the whole may take hours.
constexpr absl::Duration kSilenceMax = absl::Seconds(60);

ExitCode Fail(const absl::Status& status, Io io) {
  io.err << "holdfastctl: " << base::Message(status) << "\n";
  return absl::IsInvalidArgument(status) ? kUsage : ExitCodeOf(status);
}

std::string Hex(const std::string& bytes) { return absl::BytesToHexString(base::ToAbsl(bytes)); }

std::string TimeText(int64_t unix_ms) {
  if (unix_ms == 0) return "unknown";
  return absl::FormatTime(absl::RFC3339_sec, absl::FromUnixMillis(unix_ms), absl::UTCTimeZone());
}

// Cancels a stream that has gone silent.
class Watchdog {
 public:
  explicit Watchdog(grpc::ClientContext* context) : context_(context), thread_([this] { Run(); }) {}
  ~Watchdog() {
    {
      std::lock_guard lock(mutex_);
      done_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }
  void Heard() {
    std::lock_guard lock(mutex_);
    heard_ = true;
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, absl::ToChronoSeconds(kSilenceMax), [this] { return done_; })) {
      if (!std::exchange(heard_, false)) context_->TryCancel();
    }
  }

  grpc::ClientContext* const context_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool heard_ = true;
  bool done_ = false;
  std::thread thread_;
};

absl::Status StreamInto(const std::shared_ptr<grpc::Channel>& channel, DurableFile* file) {
  grpc::ClientContext context;
  const auto stub = etcdserverpb::Maintenance::NewStub(channel);
  Watchdog watchdog(&context);
  const auto stream = stub->Snapshot(&context, {});
  etcdserverpb::SnapshotResponse response;
  while (stream->Read(&response)) {
    watchdog.Heard();
    if (absl::Status status = file->Write(response.blob()); !status.ok()) {
      context.TryCancel();
      while (stream->Read(&response)) continue;
      stream->Finish();
      return status;
    }
  }
  return FromGrpc(stream->Finish());
}

ordered_json ToJson(const BackupInfo& info) {
  return {{"hash", Hex(info.sha256)},
          {"revision", info.header.revision()},
          {"afterRevision", info.header.after_revision()},
          {"compactRevision", info.header.compact_revision()},
          {"totalKey", info.counts.records},
          {"totalEvents", info.counts.events},
          {"totalLeases", info.counts.leases},
          {"totalSize", info.file_bytes},
          {"clusterId", fmt::format("{:x}", info.header.cluster_id())},
          {"incarnation", fmt::format("{:x}", info.header.incarnation())},
          {"time", TimeText(info.header.wall_time_unix_ms())},
          {"version", info.header.version()},
          {"hashChecked", info.had_hash}};
}

std::vector<std::vector<std::string>> ToRows(const BackupInfo& info) {
  const auto& header = info.header;
  return {
      {"HASH", "REVISION", "TOTAL KEYS", "LEASES", "TOTAL SIZE", "CLUSTER", "INCARNATION", "TIME",
       "VERSION"},
      {Hex(info.sha256).substr(0, 16), fmt::format("{}", header.revision()),
       fmt::format("{}", header.after_revision() == 0 ? info.counts.records : info.counts.events),
       fmt::format("{}", info.counts.leases), fmt::format("{}", info.file_bytes),
       fmt::format("{:x}", header.cluster_id()), fmt::format("{:x}", header.incarnation()),
       TimeText(header.wall_time_unix_ms()), header.version()}};
}

// What is cheap to see before anything is written; holdfastd checks the rest.
absl::Status CheckCluster(const RestoreArgs& args) {
  std::set<std::string> named, advertised;
  for (const auto part : absl::StrSplit(args.initial_cluster, ',')) {
    const std::pair<std::string, std::string> item = absl::StrSplit(part, absl::MaxSplits('=', 1));
    if (item.first.empty() || item.second.empty()) {
      return absl::InvalidArgumentError(
          "--initial-cluster is NAME=URL[,NAME=URL...], the same on all members");
    }
    if (item.first == args.name) named.insert(item.second);
  }
  for (const auto url : absl::StrSplit(args.initial_advertise_peer_urls, ',')) {
    advertised.insert(std::string(url));
  }
  if (named.empty()) {
    return absl::InvalidArgumentError(
        base::ToAbsl(fmt::format("--initial-cluster does not name this member, '{}'", args.name)));
  }
  if (named != advertised) {
    return absl::InvalidArgumentError(base::ToAbsl(
        fmt::format("--initial-cluster says {} for '{}', and --initial-advertise-peer-urls says {}",
                    fmt::join(named, ","), args.name, fmt::join(advertised, ","))));
  }
  if (args.bump_revision < 0) {
    return absl::InvalidArgumentError("--bump-revision cannot be negative");
  }
  return absl::OkStatus();
}

// Frames alone: the hash is in the plan.
absl::Status CopyFrames(const std::string& from, const BackupInfo& info, const std::string& to) {
  auto file = DurableFile::Create(to);
  if (!file.ok()) return file.status();
  const int fd = open(from.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::NotFoundError(base::ToAbsl("cannot open " + from));
  const base::FrameReader::Source source = base::SourceOf(fd, info.frame_bytes);
  std::string chunk(size_t{1} << 20, '\0');
  Sha256 hash;
  absl::Status status;
  while (status.ok()) {
    const auto got = source(chunk.data(), chunk.size());
    if (!got.ok()) status = got.status();
    if (!got.ok() || *got == 0) break;
    hash.Add({chunk.data(), *got});
    status = (*file)->Write({chunk.data(), *got});
  }
  close(fd);
  if (!status.ok()) return status;
  if (hash.Finish() != info.sha256) {
    return absl::DataLossError(base::ToAbsl(from + " was changed while it was read"));
  }
  return (*file)->Commit();
}

absl::Status MakeEmptyDirectory(const std::string& dir) {
  std::error_code error;
  if (fs::exists(dir, error) && !fs::is_empty(dir, error)) {
    return absl::FailedPreconditionError(base::ToAbsl(
        fmt::format("{} is not empty: a backup is restored into a new directory", dir)));
  }
  fs::create_directories(dir, error);
  if (!error) fs::permissions(dir, fs::perms::owner_all, error);
  if (error) {
    return absl::InternalError(
        base::ToAbsl(fmt::format("cannot create {}: {}", dir, error.message())));
  }
  return absl::OkStatus();
}

struct Source {
  std::string path;
  BackupInfo info;
};

// The files that lead to the revision asked for, all of them verified.
absl::StatusOr<std::vector<Source>> Sources(const RestoreArgs& args) {
  std::vector<std::string> paths = {args.source};
  std::error_code ignored;
  if (fs::is_directory(args.source, ignored)) {
    const auto chain = ChainTo(args.source, args.revision);
    if (!chain.ok()) return chain.status();
    paths = *chain;
  }
  std::vector<Source> sources;
  for (const std::string& path : paths) {
    auto info = ReadBackup(path);
    if (!info.ok()) return info.status();
    sources.push_back({path, *std::move(info)});
  }
  if (sources.front().info.header.after_revision() != 0) {
    return absl::FailedPreconditionError(base::ToAbsl(fmt::format(
        "{} is an increment: give the directory it is in, which has the full backup before it",
        args.source)));
  }
  const int64_t first = sources.front().info.header.revision();
  const int64_t last = sources.back().info.header.revision();
  if (args.revision != 0 && (args.revision < first || args.revision > last)) {
    return absl::FailedPreconditionError(base::ToAbsl(fmt::format(
        "the backup holds revisions {} to {}, and not {}", first, last, args.revision)));
  }
  return sources;
}

// Everything durable before the plan, which is what makes it count.
absl::Status LayDown(const RestoreArgs& args, int64_t revision,
                     const std::vector<Source>& sources) {
  if (absl::Status status = MakeEmptyDirectory(args.data_dir); !status.ok()) return status;
  const std::string dir = args.data_dir + "/restore";
  if (absl::Status status = MakeEmptyDirectory(dir); !status.ok()) return status;
  ordered_json files = ordered_json::array();
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string name = fmt::format("backup-{:05}", i);
    const Source& source = sources[i];
    if (absl::Status status = CopyFrames(source.path, source.info, dir + "/" + name);
        !status.ok()) {
      return status;
    }
    files.push_back(
        {{"name", name}, {"bytes", source.info.frame_bytes}, {"sha256", Hex(source.info.sha256)}});
  }
  const ordered_json plan = {{"format", 1},
                             {"name", args.name},
                             {"initial_cluster", args.initial_cluster},
                             {"initial_cluster_token", args.initial_cluster_token},
                             {"initial_advertise_peer_urls", args.initial_advertise_peer_urls},
                             {"revision", revision},
                             {"bump_revision", args.bump_revision},
                             {"files", files}};
  std::error_code error;
  const std::string parent = DirectoryOf(fs::absolute(args.data_dir, error).lexically_normal());
  for (const std::string& path : {args.data_dir, parent}) {
    if (absl::Status status = SyncDirectory(path); !status.ok()) return status;
  }
  const auto file = DurableFile::Create(dir + "/plan.json");
  if (!file.ok()) return file.status();
  // UTF-8 or not, a name that came by the command line must not end the program.
  if (absl::Status status =
          (*file)->Write(plan.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
      !status.ok()) {
    return status;
  }
  return (*file)->Commit();
}

}  // namespace

std::string FramedTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string line = "+";
  for (const size_t width : widths) line += std::string(width + 2, '-') + "+";
  line += "\n";
  std::string out = line;
  for (size_t i = 0; i < rows.size(); ++i) {
    out += "|";
    for (size_t j = 0; j < rows[i].size(); ++j) {
      out += fmt::format(" {:<{}} |", rows[i][j], widths[j]);
    }
    out += "\n";
    if (i == 0) out += line;
  }
  return out + line;
}

absl::StatusOr<SavedBackup> SaveBackup(const Remote& remote, const std::string& path) {
  absl::Status last;
  for (const auto& channel : remote.channels()) {
    auto file = DurableFile::Create(path);
    if (!file.ok()) return file.status();
    last = StreamInto(channel, file->get());
    if (absl::IsResourceExhausted(last) || absl::IsInternal(last)) return last;
    if (!last.ok()) continue;
    auto info = ReadBackup((*file)->part_path());
    if (!info.ok()) return info.status();
    if (!info->had_hash) {
      last = absl::DataLossError("the server sent no SHA-256 behind the backup: it was cut off");
      continue;
    }
    return SavedBackup{*std::move(file), *std::move(info)};
  }
  return last;
}

ExitCode SnapshotSave(const Common& common, const std::string& path, Io io) {
  const auto remote = Remote::Open(common.endpoints, common.timeout);
  if (!remote.ok()) return Fail(remote.status(), io);
  const auto saved = SaveBackup(**remote, path);
  if (!saved.ok()) return Fail(saved.status(), io);
  if (absl::Status status = saved->file->Commit(); !status.ok()) return Fail(status, io);
  if (common.json) {
    ordered_json out = ToJson(saved->info);
    out["path"] = path;
    io.out << out.dump(-1, ' ', false, ordered_json::error_handler_t::replace) << "\n";
  } else {
    io.out << "Snapshot saved at " << path << "\n";
  }
  return kOk;
}

ExitCode SnapshotStatus(const Common& common, const std::string& path, TableStyle style, Io io) {
  const auto info = ReadBackup(path);
  if (!info.ok()) return Fail(info.status(), io);
  if (common.json) {
    io.out << ToJson(*info).dump(-1, ' ', false, ordered_json::error_handler_t::replace) << "\n";
  } else if (style == TableStyle::kTable) {
    io.out << FramedTable(ToRows(*info));
  } else {
    io.out << fmt::format("{}\n", fmt::join(ToRows(*info)[1], ", "));
  }
  return kOk;
}

ExitCode SnapshotRestore(const Common& common, const RestoreArgs& args, Io io) {
  if (absl::Status status = CheckCluster(args); !status.ok()) return Fail(status, io);
  const auto sources = Sources(args);
  if (!sources.ok()) return Fail(sources.status(), io);
  const int64_t revision =
      args.revision != 0 ? args.revision : sources->back().info.header.revision();
  if (absl::Status status = LayDown(args, revision, *sources); !status.ok()) {
    return Fail(status, io);
  }
  const int64_t begins = revision + args.bump_revision;
  if (common.json) {
    const ordered_json out = {{"dataDir", args.data_dir},
                              {"revision", revision},
                              {"firstRevision", begins},
                              {"files", sources->size()}};
    io.out << out.dump() << "\n";
    return kOk;
  }
  io.out << fmt::format(
      "{} is ready for member '{}': start holdfastd with --data-dir={} --name={}.\n"
      "It will hold revision {}, and go on from {}.\n",
      args.data_dir, args.name, args.data_dir, args.name, revision, begins);
  return kOk;
}

}  // namespace holdfast::ctl
