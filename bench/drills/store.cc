#include "bench/drills/store.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "base/rng.h"
#include "base/strings.h"

namespace holdfast::bench {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kLeaderTimeout = absl::Seconds(30);
constexpr int kRecords = 200;
constexpr size_t kValueSize = 300;  // Workers KV's median value has 288 bytes
constexpr int kPortTries = 20;
constexpr size_t kPutsInTxn = 50;

// A port that was free a moment ago; 0: none.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  int port = 0;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    port = ntohs(address.sin_port);
  }
  close(fd);
  return port;
}

absl::StatusOr<int> ListenSomewhere(TcpProxy& proxy, int end, int target_port) {
  absl::Status status;
  for (int i = 0; i < kPortTries; ++i) {
    const int port = FreePort();
    status =
        port == 0 ? absl::UnavailableError("no free port") : proxy.Listen(end, port, target_port);
    if (status.ok()) return port;
  }
  return status;
}

absl::StatusOr<std::string> FreshDirectory(const std::string& root) {
  std::string path =
      (fs::path(root.empty() ? fs::temp_directory_path() : fs::path(root)) / "drill-XXXXXX")
          .string();
  if (mkdtemp(path.data()) == nullptr) {
    return absl::UnavailableError(
        fmt::format("no directory {}: {}", path, std::generic_category().message(errno)));
  }
  return path;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DrillStore>> DrillStore::Start(const DrillRun& run,
                                                              const Terms& terms) {
  const Options& options = run.options();
  std::unique_ptr<DrillStore> store(new DrillStore(run));
  auto dir = FreshDirectory(options.data_dir_root);
  if (!dir.ok()) return dir.status();
  store->dir_ = *std::move(dir);
  LocalClusterOptions local;
  local.binary = terms.etcd ? options.etcd : options.holdfastd;
  local.members = terms.members;
  local.root = options.data_dir_root;
  local.extra_args = terms.etcd ? options.etcd_args : options.holdfastd_args;
  local.extra_args.insert(local.extra_args.end(), terms.args.begin(), terms.args.end());
  local.proxied_peers = terms.proxied_peers;
  local.cancelled = &run.cancelled();
  auto cluster = LocalCluster::Start(local);
  if (!cluster.ok()) return cluster.status();
  store->cluster_ = *std::move(cluster);
  if (absl::Status status = store->OpenDoor(); !status.ok()) return status;
  if (terms.etcd) return store;
  auto admin = Client::Open({.endpoints = store->direct(), .seed = options.seed});
  if (!admin.ok()) return admin.status();
  store->admin_ = *std::move(admin);
  return store;
}

DrillStore::~DrillStore() {
  admin_.reset();
  door_.reset();
  cluster_.reset();
  std::error_code ignored;
  if (!dir_.empty()) fs::remove_all(dir_, ignored);
}

absl::Status DrillStore::OpenDoor() {
  auto door = TcpProxy::Start();
  if (!door.ok()) return door.status();
  door_ = *std::move(door);
  for (int i = 0; i < cluster_->size(); ++i) {
    const auto port = ListenSomewhere(*door_, i, cluster_->client_port(i));
    if (!port.ok()) return port.status();
    endpoints_.push_back(fmt::format("127.0.0.1:{}", *port));
  }
  // An end must listen somewhere to be one; nobody dials the services.
  const auto port = ListenSomewhere(*door_, kServicesEnd, 1);
  if (!port.ok()) return port.status();
  ServicesAre(getpid());
  return absl::OkStatus();
}

void DrillStore::ServicesAre(pid_t pid) {
  door_->SetProcess(kServicesEnd, [pid] { return pid; });
}

void DrillStore::CutServices() { door_->Cut(kServicesEnd, TcpProxy::kAll); }
void DrillStore::CutServicesFrom(int member) { door_->Cut(kServicesEnd, member); }

void DrillStore::SilenceServices(int member) {
  door_->Blackhole(kServicesEnd, member);
  door_->Blackhole(member, kServicesEnd);
}

void DrillStore::HealServices() { door_->HealAll(); }

uint64_t DrillStore::ServiceConnections(int member) const {
  return door_->Connections(kServicesEnd, member);
}

uint64_t DrillStore::ServiceConnections() const {
  uint64_t sum = 0;
  for (int i = 0; i < cluster_->size(); ++i) sum += ServiceConnections(i);
  return sum;
}

uint64_t DrillStore::BytesToServices() const {
  uint64_t sum = 0;
  for (int i = 0; i < cluster_->size(); ++i) sum += door_->Bytes(i, kServicesEnd);
  return sum;
}

void DrillStore::KillAll() {
  for (int i = 0; i < cluster_->size(); ++i) {
    if (cluster_->Running(i)) (void)cluster_->Kill(i);
  }
}

absl::Status DrillStore::KillTwo() {
  const absl::StatusOr<int> leader = cluster_->Leader();
  if (!leader.ok()) return leader.status();
  survivor_ = (*leader + 1) % cluster_->size();
  for (int i = 0; i < cluster_->size(); ++i) {
    if (i == survivor_) continue;
    if (absl::Status status = cluster_->Kill(i); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status DrillStore::BringBack() {
  for (int i = 0; i < cluster_->size(); ++i) {
    if (cluster_->Running(i)) continue;
    if (absl::Status status = cluster_->Restart(i); !status.ok()) return status;
  }
  return cluster_->WaitForLeader(kLeaderTimeout);
}

std::string DrillStore::Directory(const std::string& name) const {
  return (fs::path(dir_) / name).string();
}

absl::Status DrillStore::FillPrefix(const std::string& prefix, int records, size_t value_size) {
  base::Rng rng(run_.options().seed + 17);
  std::vector<Op> puts;
  for (int i = 0; i < records; ++i) {
    std::string value(value_size, '\0');
    for (char& c : value) c = char('a' + rng.Below(26));
    puts.push_back(Op::Put(fmt::format("{}{:06}", prefix, i), value));
    if (puts.size() < kPutsInTxn && i + 1 < records) continue;
    const auto result =
        admin_->Commit(Txn().Then(std::exchange(puts, {})), {.deadline = absl::Seconds(20)});
    if (!result.ok()) return result.status();
  }
  return absl::OkStatus();
}

absl::Status DrillStore::Fill() {
  for (const char* const prefix : {kConfigPrefix, kAuthPrefix}) {
    if (absl::Status status = FillPrefix(prefix, kRecords, kValueSize); !status.ok()) return status;
  }
  for (const char* const key : {kConfigKey, kAuthKey}) {
    const auto put = admin_->Put(key, "0", {.deadline = absl::Seconds(20)});
    if (!put.ok()) return put.status();
  }
  return absl::OkStatus();
}

ClientOptions DrillStore::ServiceOptions(const std::string& name,
                                         std::vector<PrefixOptions> prefixes) const {
  ClientOptions options;
  options.endpoints = endpoints_;
  options.prefixes = std::move(prefixes);
  options.disk_dir = Directory(name);
  options.name = name;
  return options;
}

}  // namespace holdfast::bench
