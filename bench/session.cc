#include "bench/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/strings.h"
#include "bench/endpoint.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(5);
// A native client with a mirror has fetched all of it by then.
constexpr absl::Duration kOpenTimeout = absl::Seconds(60);
// A load is a closed loop of large requests; more in flight only makes servers queue them.
constexpr uint32_t kLoadClients = 16;
constexpr absl::Duration kLoadTimeout = absl::Seconds(60);

}  // namespace

Session::Session(const Options& options, const std::atomic<bool>& cancelled)
    : options_(options),
      cancelled_(cancelled),
      shape_(options.key_prefix, options.key_size, options.value_size, options.seed) {}

absl::StatusOr<std::unique_ptr<Session>> Session::Open(const Options& options,
                                                       const std::vector<std::string>& endpoints,
                                                       const std::vector<pid_t>& pids,
                                                       const std::atomic<bool>& cancelled) {
  std::unique_ptr<Session> session(new Session(options, cancelled));
  session->pids_ = pids;
  auto targets = SelectTargets(endpoints, options.leader_only, kConnectTimeout);
  if (!targets.ok()) return targets.status();
  session->targets_ = *std::move(targets);
  auto status = GetEndpointStatus(session->targets_[0], kConnectTimeout);
  if (!status.ok()) return status.status();
  session->server_version_ = status->version;
  const size_t count = options.connections > 0 ? options.connections : session->targets_.size();
  auto connections = Connections::Open(session->targets_, count, kConnectTimeout);
  if (!connections.ok()) return connections.status();
  session->connections_ = *std::move(connections);
  return session;
}

uint64_t Session::TxnKeys() const {
  return std::clamp<uint64_t>(kMaxTxnBytes / (options_.key_size + options_.value_size), 1,
                              options_.txn_ops);
}

absl::StatusOr<LoadResult> Session::Load(uint64_t keys) { return Write(0, keys, 0); }

absl::StatusOr<LoadResult> Session::Write(uint64_t first, uint64_t keys, uint64_t key_space) {
  const uint64_t batch = TxnKeys();
  const WriteRange range = {
      .first = first, .keys = keys, .batch_keys = batch, .key_space = key_space};
  RunPlan plan;
  plan.clients = std::min(options_.clients, kLoadClients);
  plan.threads = 1;
  plan.total = LoadBatches(keys, batch);
  plan.timeout = kLoadTimeout;
  plan.source = [range](uint64_t worker, uint64_t workers) {
    return NewWriteSource(range, worker, workers);
  };
  absl::StatusOr<RunResult> result = Run(*connections_, shape_, plan, cancelled_);
  if (!result.ok()) return result.status();
  for (const auto& [code, error] : result->stats.errors()) {
    return absl::UnavailableError(
        fmt::format("loading {} keys failed: {} of {} transactions with gRPC code {}: {}", keys,
                    error.count, plan.total, code, error.example));
  }
  return LoadResult{.keys = keys, .seconds = result->stats.Seconds(), .keys_per_txn = batch};
}

absl::StatusOr<NativeClients*> Session::Native(const RunRequest& request) {
  const bool mirrored = request.workload.read == ReadLevel::kMirror;
  std::unique_ptr<NativeClients>& clients = native_[{request.exactly_once, mirrored}];
  if (clients == nullptr) {
    auto opened =
        NativeClients::Open({.endpoints = targets_,
                             .clients = options_.native_clients,
                             .exactly_once = request.exactly_once,
                             .mirrored_prefix = mirrored ? options_.key_prefix : std::string(),
                             .seed = options_.seed},
                            kOpenTimeout);
    if (!opened.ok()) return opened.status();
    clients = *std::move(opened);
  }
  return clients.get();
}

absl::StatusOr<RunResult> Session::RunOnce(const RunRequest& request) {
  const Workload& workload = request.workload;
  if (workload.read == ReadLevel::kMirror && request.api != Api::kNative) {
    return absl::UnimplementedError(fmt::format(
        "{} reads a copy that the client library holds: give --api native", workload.name));
  }
  uint64_t keys = options_.key_space;
  if (workload.key_space > 0) keys = std::min(keys, workload.key_space);
  const WorkloadData data = {
      .order = options_.order, .key_space = keys, .seed = options_.seed + request.run};
  std::optional<DataShape> own_shape;
  if (workload.value_size > 0) {
    own_shape.emplace(options_.key_prefix, options_.key_size, workload.value_size, options_.seed);
  }
  const DataShape& shape = own_shape.has_value() ? *own_shape : shape_;
  RunPlan plan;
  plan.clients = request.clients > 0 ? request.clients : options_.clients;
  plan.threads = options_.threads;
  plan.total = options_.total;
  plan.duration = options_.duration;
  plan.warmup = options_.warmup;
  plan.rate = options_.rate;
  plan.poisson = options_.poisson;
  plan.read = workload.read;
  plan.timeout = options_.timeout;
  plan.seed = options_.seed + request.run;
  plan.pids = pids_;
  plan.observe = request.observe;
  plan.source = NewWorkloadSource(workload, data);
  if (request.api == Api::kNative) {
    const auto clients = Native(request);
    if (!clients.ok()) return clients.status();
    NativeClients& native = **clients;
    // The clients' threads do the work of their workers; a mirror is read by the bench's own.
    if (plan.read != ReadLevel::kMirror) plan.threads = uint32_t(native.size());
    plan.transport = [&native, &shape, &plan](uint32_t worker, uint32_t slots) {
      return NewNativeTransport(native.client(worker % native.size()), shape,
                                {.slots = slots, .read = plan.read, .timeout = plan.timeout});
    };
  }
  absl::StatusOr<RunResult> result = Run(*connections_, shape, plan, cancelled_);
  if (result.ok()) result->kinds = KindsOf(workload);
  return result;
}

absl::StatusOr<std::unique_ptr<LocalCluster>> StartLocal(const Options& options, bool etcd,
                                                         const std::atomic<bool>& cancelled) {
  LocalClusterOptions cluster;
  cluster.binary = etcd ? options.etcd : options.holdfastd;
  cluster.members = etcd ? options.local_etcd : options.local;
  cluster.extra_args = etcd ? options.etcd_args : options.holdfastd_args;
  cluster.root = options.data_dir_root;
  cluster.cancelled = &cancelled;
  return LocalCluster::Start(cluster);
}

}  // namespace holdfast::bench
