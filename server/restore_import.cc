#include "server/restore_import.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "base/frames.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/apply_command.h"
#include "server/backup_reader.h"
#include "server/db_directory.h"
#include "server/lease_record.h"
#include "storage/mvcc_import.h"
#include "storage/segmented_log.h"

namespace holdfast::server {
namespace {

namespace fs = std::filesystem;
using backup::v1::Frame;
using storage::MvccImport;

constexpr std::string_view kRestoreDir = "restore";
constexpr std::string_view kPlanFile = "plan.json";
constexpr int kPlanFormat = 1;
// The snapshot that the restored state is.
constexpr Index kFirstIndex{1};
constexpr Term kFirstTerm{1};

std::string RestoreDir(const std::string& data_dir) {
  return fmt::format("{}/{}", data_dir, kRestoreDir);
}

std::string PlanPath(const std::string& data_dir) {
  return fmt::format("{}/{}", RestoreDir(data_dir), kPlanFile);
}

absl::Status FileError(std::string_view what, const std::string& path, int error) {
  return absl::InternalError(fmt::format("cannot {} {}: {}", what, path, std::strerror(error)));
}

class Sha256 {
 public:
  Sha256() { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void Add(std::string_view bytes) { EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()); }
  std::string Finish() {
    std::string digest(32, '\0');
    EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), nullptr);
    return digest;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_{EVP_MD_CTX_new(), &EVP_MD_CTX_free};
};

class OpenFile {
 public:
  explicit OpenFile(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~OpenFile() {
    if (fd_ >= 0) close(fd_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

// The plan's numbers are signed, and its text is a file that anybody may have edited.
absl::StatusOr<RestorePlan> Parse(const nlohmann::json& json) {
  RestorePlan plan;
  plan.name = json.at("name").get<std::string>();
  plan.initial_cluster = json.at("initial_cluster").get<std::string>();
  plan.initial_cluster_token = json.at("initial_cluster_token").get<std::string>();
  plan.initial_advertise_peer_urls = json.at("initial_advertise_peer_urls").get<std::string>();
  plan.revision = json.at("revision").get<int64_t>();
  plan.bump_revision = json.at("bump_revision").get<int64_t>();
  for (const nlohmann::json& item : json.at("files")) {
    RestorePlan::File file;
    file.name = item.at("name").get<std::string>();
    file.bytes = item.at("bytes").get<uint64_t>();
    file.sha256 = item.at("sha256").get<std::string>();
    if (file.name.empty() || file.name.find('/') != std::string::npos || file.sha256.size() != 64) {
      return absl::DataLossError("its files are not named as they should be");
    }
    plan.files.push_back(std::move(file));
  }
  if (plan.files.empty() || plan.revision < 1 || plan.bump_revision < 0 ||
      plan.bump_revision > kBumpRevisionMax || plan.revision > INT64_MAX - kBumpRevisionMax) {
    return absl::DataLossError("its files or revisions cannot be");
  }
  return plan;
}

// Everything in `dir`, but not itself.
absl::Status Wipe(const std::string& dir) {
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    fs::remove_all(it->path(), error);
    if (error) break;
  }
  if (error) return FileError("empty", dir, error.value());
  return DataDir::SyncDirectory(dir);
}

// One backup after the other, into the store.
class Importer {
 public:
  Importer(const RestorePlan& plan, std::string dir, MvccImport* store, const RestoreStep& step)
      : plan_(plan), dir_(std::move(dir)), store_(*store), step_(step) {}

  absl::Status Run();

 private:
  absl::Status ImportFile(size_t number);
  absl::Status TakeHeader(const backup::v1::Header& header, size_t number);
  absl::Status TakeFrame(const Frame& frame);
  absl::Status TakeEvents(const backup::v1::Revisions& revisions);
  absl::Status WriteLeases();
  absl::Status Put(const mvccpb::KeyValue& kv) {
    return store_.Put(
        {kv.key(), kv.value(), kv.create_revision(), kv.mod_revision(), kv.version(), kv.lease()});
  }

  const RestorePlan& plan_;
  const std::string dir_;
  MvccImport& store_;
  const RestoreStep& step_;
  backup::v1::Header header_;          // of the file before
  std::map<int64_t, int64_t> leases_;  // id -> TTL in seconds
};

absl::Status Importer::Run() {
  for (size_t i = 0; i < plan_.files.size(); ++i) {
    if (absl::Status status = ImportFile(i); !status.ok()) {
      return absl::Status(
          status.code(),
          base::ToAbsl(fmt::format(
              "{}/{}: {}. Nothing of this member counts yet: remove the data directory and run "
              "`holdfastctl snapshot restore` again, from a sound copy",
              dir_, plan_.files[i].name, base::Message(status))));
    }
    if (step_) step_("file");
  }
  if (header_.revision() < plan_.revision) {
    return absl::DataLossError(fmt::format("the backups end at revision {}, before {}",
                                           header_.revision(), plan_.revision));
  }
  return WriteLeases();
}

absl::Status Importer::ImportFile(size_t number) {
  const RestorePlan::File& file = plan_.files[number];
  const std::string path = fmt::format("{}/{}", dir_, file.name);
  const OpenFile in(path);
  if (in.fd() < 0) return FileError("open", path, errno);
  Sha256 hash;
  uint64_t bytes = 0;
  const base::FrameReader::Source from = base::SourceOf(in.fd(), file.bytes);
  BackupReader reader([&](char* out, size_t n) {
    absl::StatusOr<size_t> got = from(out, n);
    if (got.ok()) {
      hash.Add({out, *got});
      bytes += *got;
    }
    return got;
  });
  Frame frame;
  while (true) {
    const absl::StatusOr<bool> more = reader.Next(&frame);
    if (!more.ok()) return more.status();
    if (!*more) break;
    const absl::Status status =
        frame.has_header() ? TakeHeader(frame.header(), number) : TakeFrame(frame);
    if (!status.ok()) return status;
    if (step_) step_("frame");
  }
  const std::string digest = hash.Finish();
  if (bytes != file.bytes || absl::BytesToHexString(base::ToAbsl(digest)) != file.sha256) {
    return absl::DataLossError("it is not the file that was laid down: its SHA-256 differs");
  }
  return absl::OkStatus();
}

absl::Status Importer::TakeHeader(const backup::v1::Header& header, size_t number) {
  const bool fits = number == 0 ? header.after_revision() == 0
                                : header.after_revision() == header_.revision() &&
                                      header.cluster_id() == header_.cluster_id() &&
                                      header.incarnation() == header_.incarnation();
  if (!fits) {
    return absl::DataLossError(
        fmt::format("it begins behind revision {} of cluster {:x}, incarnation {:x}, and does not "
                    "continue the one before, which ends at {} of {:x}, {:x}",
                    header.after_revision(), header.cluster_id(), header.incarnation(),
                    header_.revision(), header_.cluster_id(), header_.incarnation()));
  }
  if (number == 0 && header.revision() > plan_.revision) {
    return absl::DataLossError(fmt::format("it is of revision {}, behind the {} asked for",
                                           header.revision(), plan_.revision));
  }
  // Those of the files before count only if this one lists leases of a later moment than asked for:
  // then some that were alive may be gone from its list.
  if (number == 0 || header.revision() <= plan_.revision) leases_.clear();
  header_ = header;
  return absl::OkStatus();
}

absl::Status Importer::TakeFrame(const Frame& frame) {
  for (const mvccpb::KeyValue& kv : frame.records().kvs()) {
    if (absl::Status status = Put(kv); !status.ok()) return status;
  }
  for (const backup::v1::Leases::Lease& lease : frame.leases().leases()) {
    leases_[lease.id()] = lease.granted_ttl_s();
  }
  return TakeEvents(frame.revisions());
}

absl::Status Importer::TakeEvents(const backup::v1::Revisions& revisions) {
  for (const backup::v1::Revisions::Revision& revision : revisions.revisions()) {
    if (revision.revision() > plan_.revision) break;
    for (const mvccpb::Event& event : revision.events()) {
      const absl::Status status =
          event.type() == mvccpb::Event::DELETE ? store_.Delete(event.kv().key()) : Put(event.kv());
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::Status Importer::WriteLeases() {
  const absl::Status visited = store_.VisitLeases(
      [this](int64_t lease) { leases_.try_emplace(lease, kUnknownLeaseTtlSeconds); });
  if (!visited.ok()) return visited;
  for (const auto& [id, ttl_s] : leases_) {
    if (absl::Status status = store_.PutMeta(LeaseMetaKey(id), EncodeLeaseRecord({.ttl_s = ttl_s}));
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status ImportData(const RestorePlan& plan, const std::string& data_dir,
                        const Identity& identity, const storage::MvccStore::Options& options,
                        const RestoreStep& step) {
  const auto import = MvccImport::Open(options);
  if (!import.ok()) return import.status();
  std::string cluster_id;
  base::AppendBigEndian64(cluster_id, identity.cluster_id);
  if (absl::Status status = (*import)->PutMeta(kMetaClusterId, cluster_id); !status.ok()) {
    return status;
  }
  Importer importer(plan, RestoreDir(data_dir), import->get(), step);
  if (absl::Status status = importer.Run(); !status.ok()) return status;
  const int64_t revision = plan.revision + plan.bump_revision;
  return (*import)->Finish({.index = kFirstIndex,
                            .term = kFirstTerm,
                            .revision = revision,
                            .compact_revision = revision});
}

absl::Status WriteLog(const std::string& log_dir, const Identity& identity) {
  const auto log = storage::SegmentedLog::Open({.dir = log_dir});
  if (!log.ok()) return log.status();
  storage::LogBatch batch;
  batch.reset = {
      .index = kFirstIndex, .term = kFirstTerm, .membership = identity.bootstrap.Encode()};
  batch.hard_state = {.term = kFirstTerm, .vote = NodeId(), .commit = kFirstIndex};
  return (*log)->Append({std::move(batch)});
}

}  // namespace

absl::StatusOr<std::optional<RestorePlan>> ReadRestorePlan(const std::string& data_dir) {
  const std::string path = PlanPath(data_dir);
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    if (!fs::exists(RestoreDir(data_dir), ignored)) return std::nullopt;
    const auto owner = DataDir::ReadOwner(data_dir);
    // One that cannot be read is its reader's to tell.
    if (!owner.ok() || owner->has_value()) return std::nullopt;
    return absl::FailedPreconditionError(
        fmt::format("{} is not complete, so `holdfastctl snapshot restore` did not get to its end: "
                    "remove {} and run it again",
                    RestoreDir(data_dir), data_dir));
  }
  std::ifstream in(path);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  std::string why = "it is no JSON";
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    const int format = json.at("format").get<int>();
    if (format != kPlanFormat) {
      return absl::FailedPreconditionError(
          fmt::format("{} has format {}, and this holdfastd reads format {}: restore with the "
                      "holdfastctl of the same release",
                      path, format, kPlanFormat));
    }
    absl::StatusOr<RestorePlan> plan = Parse(json);
    if (plan.ok()) return *std::move(plan);
    why = base::Message(plan.status());
  } catch (const nlohmann::json::exception& error) {
    why = error.what();
  }
  return absl::DataLossError(
      fmt::format("{} cannot be read ({}): remove the data directory and run `holdfastctl snapshot "
                  "restore` again",
                  path, base::Printable(why, 200)));
}

void RemoveRestoreLeftovers(const std::string& data_dir) {
  std::error_code error;
  fs::remove_all(RestoreDir(data_dir), error);
  if (error) LOG_WARN("cannot remove {}: {}", RestoreDir(data_dir), error.message());
}

absl::StatusOr<Config> ConfigFor(const RestorePlan& plan, Config config) {
  if (plan.name != config.name) {
    return absl::FailedPreconditionError(fmt::format(
        "{} was restored for the member '{}', and --name is '{}': every member needs a --data-dir "
        "of its own, restored with its own --name",
        config.data_dir, base::Printable(plan.name), config.name));
  }
  auto cluster = ParseInitialCluster(plan.initial_cluster);
  if (!cluster.ok()) return cluster.status();
  config.initial_cluster = *std::move(cluster);
  config.initial_cluster_token = plan.initial_cluster_token;
  config.initial_cluster_state = ClusterState::kNew;
  for (const ClusterMember& member : config.initial_cluster) {
    if (member.name == config.name) config.initial_advertise_peer_urls = member.peer_urls;
  }
  if (absl::Status status = config.Validate(); !status.ok()) return status;
  return config;
}

absl::StatusOr<Identity> RestoredIdentity(const Config& config, const RestorePlan& plan) {
  absl::StatusOr<Identity> identity = IdentityOf(config);
  if (!identity.ok()) return identity.status();
  Sha256 hash;
  hash.Add(fmt::format("holdfast restore\n{:016x}\n{}\n{}\n", identity->cluster_id, plan.revision,
                       plan.bump_revision));
  for (const RestorePlan::File& file : plan.files) hash.Add(file.sha256 + "\n");
  identity->cluster_id = base::ReadBigEndian64(hash.Finish());
  return identity;
}

absl::Status ImportRestore(const RestorePlan& plan, const std::string& data_dir, const DataDir& dir,
                           const Identity& identity, storage::MvccStore::Options store,
                           const RestoreStep& step) {
  const auto at = [&step](const char* name) {
    if (step) step(name);
  };
  LOG_INFO("restoring revision {} from {} file(s) in {}", plan.revision, plan.files.size(),
           RestoreDir(data_dir));
  for (const std::string& part : {dir.db_dir(), dir.log_dir()}) {
    if (absl::Status status = Wipe(part); !status.ok()) return status;
    at("wiped");
  }
  const absl::StatusOr<DbDirectory> directory = DbDirectory::Open(dir.db_dir());
  if (!directory.ok()) return directory.status();
  store.dir = directory->current();
  at("opened");
  if (absl::Status status = ImportData(plan, data_dir, identity, store, step); !status.ok()) {
    return status;
  }
  at("data");
  // The new directories and `current` themselves.
  if (absl::Status status = DataDir::SyncDirectory(store.dir); !status.ok()) return status;
  if (absl::Status status = DataDir::SyncDirectory(dir.db_dir()); !status.ok()) return status;
  if (absl::Status status = WriteLog(dir.log_dir(), identity); !status.ok()) return status;
  at("log");
  const std::string path = PlanPath(data_dir);
  if (unlink(path.c_str()) != 0) return FileError("remove", path, errno);
  if (absl::Status status = DataDir::SyncDirectory(RestoreDir(data_dir)); !status.ok()) {
    return status;
  }
  at("done");
  RemoveRestoreLeftovers(data_dir);
  LOG_INFO("restored: the store begins at revision {}, everything before it is compacted",
           plan.revision + plan.bump_revision);
  return absl::OkStatus();
}

}  // namespace holdfast::server
