#include "server/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/strings.h"
#include "replication/freshness_record.h"
#include "replication/raft_node.h"
#include "server/admission.h"
#include "server/alarm_watch.h"
#include "server/client_port.h"
#include "server/cluster_service.h"
#include "server/compactor.h"
#include "server/data_dir.h"
#include "server/divergence_checker.h"
#include "server/election_service.h"
#include "server/exchange_service.h"
#include "server/fatal.h"
#include "server/identity.h"
#include "server/join.h"
#include "server/kv_service.h"
#include "server/last_resort.h"
#include "server/lease_router.h"
#include "server/lease_service.h"
#include "server/lessor.h"
#include "server/listener.h"
#include "server/lock_service.h"
#include "server/maintenance_service.h"
#include "server/measured_storage.h"
#include "server/member_changer.h"
#include "server/member_service.h"
#include "server/member_view.h"
#include "server/metrics.h"
#include "server/mirror_service.h"
#include "server/peer_lease_service.h"
#include "server/peer_member_service.h"
#include "server/peer_transport.h"
#include "server/process_metrics.h"
#include "server/publisher.h"
#include "server/repair.h"
#include "server/request_pipeline.h"
#include "server/restore_import.h"
#include "server/rpc_metrics.h"
#include "server/server_metrics.h"
#include "server/session_clock.h"
#include "server/session_service.h"
#include "server/space_guard.h"
#include "server/state_machine.h"
#include "server/thread_policy.h"
#include "server/version.h"
#include "server/waiting_calls.h"
#include "server/watch_hub.h"
#include "server/watch_service.h"
#include "storage/damage.h"
#include "storage/segmented_log.h"

namespace holdfast::server {
namespace {

constexpr std::string_view kClientFlag = "listen-client-urls";
constexpr std::string_view kMetricsFlag = "listen-metrics-urls";
constexpr std::string_view kPeerFlag = "listen-peer-urls";
// The core counts time in ticks: fine enough to spread elections, coarse enough to cost nothing.
constexpr int kTicksPerHeartbeat = 10;
// etcd's request timeout, without the two election timeouts.
constexpr absl::Duration kRequestTimeoutBase = absl::Seconds(5);
// How long the client port waits for the log to be replayed up to what this member knew to be
// committed, so that its first answers are not older than its last ones. Bounded, because old
// answers (their age is told) are better than none.
constexpr absl::Duration kReplayWaitMax = absl::Seconds(1);
constexpr absl::Duration kReplayPoll = absl::Milliseconds(2);

// Whose calls are counted on /metrics.
std::vector<std::string> CountedServices() {
  return {"etcdserverpb.KV",      "etcdserverpb.Watch",       "etcdserverpb.Lease",
          "etcdserverpb.Cluster", "etcdserverpb.Maintenance", "v3electionpb.Election",
          "v3lockpb.Lock",        "holdfast.v1.Mirror",       "holdfast.v1.Sessions",
          "holdfast.v1.Exchange", "holdfast.v1.Members"};
}

uint64_t RandomNonZero() {
  uint64_t id = 0;
  while (id == 0) id = base::RandomSeed();
  return id;
}

class ServerImpl : public Server {
 public:
  // `restore`: what the data directory is to be filled from, if anything.
  ServerImpl(const Config& config, std::optional<RestorePlan> restore,
             std::function<void()> on_removed)
      : config_(config),
        restore_(std::move(restore)),
        on_removed_(std::move(on_removed)),
        on_fatal_(DieIn(config.data_dir)) {}
  ~ServerImpl() override { Stop(); }

  absl::Status StartAll();
  void Stop() override;
  std::string client_address() const override { return client_port_->bound().front().Address(); }

 private:
  absl::Status OpenMember();
  absl::Status CheckForDamage() const;
  absl::Status OpenParts();
  void CloseParts();
  absl::Status RepairSelf(const storage::Damage& damage);
  absl::Status FindIdentity();
  absl::Status OpenStorage();
  absl::Status StartNode();
  MemberView View() const;
  absl::Status OpenPeerPort();
  void WaitForReplay() const;
  HealthSources HealthOf() const;
  void RegisterMetrics();
  absl::Status OpenClientPort();
  void Publish();
  void CloseClientPort();
  void HandOver();

  const Config config_;
  const std::optional<RestorePlan> restore_;
  const std::function<void()> on_removed_;
  const std::function<void(const absl::Status&)> on_fatal_;
  Identity identity_;

  // In the order of their creation; destroyed the other way round.
  std::unique_ptr<DataDir> data_dir_;
  std::unique_ptr<RequestPipeline> pipeline_;
  // Those that listen to the machine outlive it, and what they ask outlives them.
  std::unique_ptr<AlarmWatch> alarm_watch_;
  std::unique_ptr<CheckLog> check_log_;
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<WatchHub> watch_hub_;
  std::unique_ptr<Lessor> lessor_;
  std::unique_ptr<KvStateMachine> machine_;
  std::unique_ptr<storage::LogStore> log_;
  Index known_commit_;  // as recovered; a hint
  std::unique_ptr<raft::FreshnessFile> freshness_file_;
  std::unique_ptr<PeerTransport> transport_;
  StorageMetrics storage_metrics_;
  AppliedMetrics applied_metrics_;
  RpcMetrics rpc_metrics_{CountedServices()};
  std::unique_ptr<storage::LogStore> measured_log_;
  std::unique_ptr<raft::StateMachine> measured_machine_;
  std::unique_ptr<raft::RaftNode> node_;
  std::unique_ptr<MemberChanger> member_changer_;
  std::unique_ptr<PeerMemberService> peer_member_service_;
  std::unique_ptr<LeaseRouter> lease_router_;
  std::unique_ptr<PeerLeaseService> peer_lease_service_;
  std::unique_ptr<DivergenceChecker> divergence_checker_;
  std::unique_ptr<PeerCheckService> peer_check_service_;
  std::unique_ptr<SpaceGuard> space_guard_;
  std::unique_ptr<Compactor> compactor_;
  std::unique_ptr<SessionClock> session_clock_;
  std::unique_ptr<KvService> kv_service_;
  std::unique_ptr<ExchangeService> exchange_service_;  // uses kv_service_
  std::unique_ptr<LeaseService> lease_service_;
  std::unique_ptr<ClusterService> cluster_service_;
  std::unique_ptr<MemberService> member_service_;
  std::unique_ptr<MaintenanceService> maintenance_service_;
  std::shared_ptr<WaitingCalls> waiting_calls_;
  std::unique_ptr<ElectionService> election_service_;
  std::unique_ptr<LockService> lock_service_;
  std::unique_ptr<SessionService> session_service_;
  std::unique_ptr<WatchService> watch_service_;
  std::unique_ptr<MirrorService> mirror_service_;
  PeerTransport::Options transport_options_;
  Listener peers_;
  MetricsRegistry metrics_;
  std::unique_ptr<ServerMetrics> server_metrics_;
  std::unique_ptr<ClientPort> client_port_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<ThreadPolicy> thread_policy_;
  std::once_flag stop_once_;
};

absl::Status ServerImpl::StartAll() {
  // A port that is taken shows before the disk is touched.
  if (absl::Status status = CheckCanListen(kClientFlag, config_.listen_client_urls); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckCanListen(kMetricsFlag, config_.listen_metrics_urls);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckCanListen(kPeerFlag, config_.listen_peer_urls); !status.ok()) {
    return status;
  }
  if (absl::Status status = OpenMember(); !status.ok()) return status;
  if (absl::Status status = OpenPeerPort(); !status.ok()) return status;
  WaitForReplay();
  if (absl::Status status = OpenClientPort(); !status.ok()) return status;
  Publish();
  if (config_.batch_scheduling) {
    thread_policy_ = std::make_unique<ThreadPolicy>([this] {
      return ApplyCounts{.calls = storage_metrics_.apply.values().total,
                         .entries = machine_->applied().value};
    });
  }
  return absl::OkStatus();
}

// A member that finds damage is repaired once, and starts as the new one that it has become.
absl::Status ServerImpl::OpenMember() {
  absl::Status status = CheckForDamage();
  if (status.ok()) status = OpenParts();
  const std::optional<storage::Damage> damage = storage::DamageOf(status);
  if (!damage.has_value()) return status;
  CloseParts();
  LOG_ERROR("{}", base::Message(status));
  if (config_.force_new_cluster) {
    return absl::FailedPreconditionError(fmt::format(
        "--force-new-cluster needs sound data, and this member's is damaged: {}. Choose another "
        "member that is left",
        Describe(*damage)));
  }
  if (status = RepairSelf(*damage); !status.ok()) return status;
  return OpenParts();
}

// What an earlier start, or a dying process, has left to be done.
absl::Status ServerImpl::CheckForDamage() const {
  const absl::StatusOr<std::optional<RepairPlan>> plan = ReadRepairPlan(config_.data_dir);
  if (!plan.ok()) return plan.status();
  std::optional<storage::Damage> damage = ReadDamageMarker(config_.data_dir);
  if (!damage.has_value() && plan->has_value()) {
    damage.emplace();
    damage->file = config_.data_dir;
    damage->what = "its repair was not finished";
  }
  return damage.has_value() ? storage::DamageError(*damage) : absl::OkStatus();
}

absl::Status ServerImpl::OpenParts() {
  if (absl::Status status = FindIdentity(); !status.ok()) return status;
  if (absl::Status status = OpenStorage(); !status.ok()) return status;
  return StartNode();
}

void ServerImpl::CloseParts() {
  // What calls into the node goes first.
  divergence_checker_.reset();
  if (lessor_ != nullptr) lessor_->Stop();
  lease_router_.reset();
  node_.reset();
  transport_.reset();
  log_.reset();
  machine_.reset();
  watch_hub_.reset();
  admission_.reset();
  check_log_.reset();
  alarm_watch_.reset();
  lessor_.reset();
  pipeline_.reset();
  data_dir_.reset();
}

absl::Status ServerImpl::RepairSelf(const storage::Damage& damage) {
  absl::StatusOr<std::optional<DataDir::Owner>> owner = DataDir::ReadOwner(config_.data_dir);
  // Who it was, the others know.
  if (storage::DamageOf(owner.status()).has_value()) owner = std::optional<DataDir::Owner>();
  if (!owner.ok()) return owner.status();
  absl::StatusOr<std::optional<RepairPlan>> plan = ReadRepairPlan(config_.data_dir);
  if (!plan.ok()) return plan.status();
  absl::StatusOr<Identity> self;
  if (owner->has_value()) {
    // So that no later start can overlook it, should the disk read once more.
    if (absl::Status noted = WriteDamageMarker(config_.data_dir, damage); !noted.ok()) {
      LOG_WARN("cannot note the damage: {}", base::Message(noted));
    }
    self = IdentityOf(config_, **owner);
  } else if (plan->has_value()) {
    self = Identity{.cluster_id = (*plan)->cluster_id, .self = (*plan)->old_id, .bootstrap = {}};
  } else {
    self = FormerIdentity(config_);
  }
  if (!self.ok()) return self.status();
  return RepairMember(config_, *self, damage);
}

// A member that has data is who its data says; one that has none is new in a new cluster, or joins.
absl::Status ServerImpl::FindIdentity() {
  absl::StatusOr<std::optional<DataDir::Owner>> found = DataDir::ReadOwner(config_.data_dir);
  if (!found.ok()) return found.status();
  absl::StatusOr<Identity> identity;
  if (found->has_value()) {
    identity = IdentityOf(config_, **found);
  } else if (restore_.has_value()) {
    identity = RestoredIdentity(config_, *restore_);
  } else if (config_.initial_cluster_state == ClusterState::kExisting) {
    identity = Join(config_);
  } else {
    identity = IdentityOf(config_);
  }
  if (!identity.ok()) return identity.status();
  identity_ = *std::move(identity);
  const bool founding = !found->has_value() && config_.initial_cluster_state == ClusterState::kNew;
  return founding ? CheckNeverStarted(config_, identity_) : absl::OkStatus();
}

absl::Status ServerImpl::OpenStorage() {
  const raft::Membership& bootstrap = identity_.bootstrap;
  const DataDir::Owner owner = {
      .cluster_id = identity_.cluster_id,
      .member_id = identity_.self,
      .name = config_.name,
      .bootstrap = bootstrap.voters.empty() ? std::string() : bootstrap.Encode()};
  absl::StatusOr<std::unique_ptr<DataDir>> data_dir = DataDir::Open(config_.data_dir, owner);
  if (!data_dir.ok()) return data_dir.status();
  data_dir_ = *std::move(data_dir);
  LOG_INFO("{} member {} (id {:x}) of cluster {:x} in {}",
           data_dir_->created() ? "created" : "restarting", config_.name, identity_.self.value,
           identity_.cluster_id, config_.data_dir);

  if (restore_.has_value()) {
    const absl::Status imported =
        ImportRestore(*restore_, config_.data_dir, *data_dir_, identity_,
                      {.dir = {}, .block_cache_bytes = config_.cache_bytes});
    if (!imported.ok()) return imported;
  } else {
    RemoveRestoreLeftovers(config_.data_dir);
  }

  pipeline_ = RequestPipeline::Create(
      {.origin = RandomNonZero(),
       .request_timeout = kRequestTimeoutBase + 2 * config_.election_timeout,
       .election_timeout = config_.election_timeout,
       .max_request_bytes = config_.max_request_bytes});
  KvStateMachine::Options machine_options;
  machine_options.dir = data_dir_->db_dir();
  machine_options.cluster_id = identity_.cluster_id;
  machine_options.member_id = identity_.self.value;
  machine_options.store.block_cache_bytes = config_.cache_bytes;
  machine_options.pipeline = pipeline_.get();
  absl::StatusOr<std::unique_ptr<KvStateMachine>> machine = KvStateMachine::Open(machine_options);
  if (!machine.ok()) return storage::Annotate(machine.status(), "cannot open the store");
  machine_ = *std::move(machine);
  alarm_watch_ = std::make_unique<AlarmWatch>(machine_.get(), identity_.self);
  check_log_ = std::make_unique<CheckLog>();
  machine_->AddListener(alarm_watch_.get());
  machine_->AddListener(check_log_.get());
  machine_->AddListener(&applied_metrics_);
  admission_ = std::make_unique<Admission>(/*node=*/nullptr, alarm_watch_.get());
  watch_hub_ =
      WatchHub::Create({.max_request_bytes = config_.max_request_bytes,
                        .progress_interval = config_.watch_progress_interval,
                        .election_timeout = config_.election_timeout,
                        .fence = [admission = admission_.get()] { return admission->CheckTrust(); },
                        .on_fatal = on_fatal_,
                        .seed = base::RandomSeed()});
  machine_->AddListener(watch_hub_.get());
  lessor_ = std::make_unique<Lessor>(
      Lessor::Options{.election_timeout = config_.election_timeout, .on_fatal = on_fatal_});
  machine_->AddListener(lessor_.get());

  absl::StatusOr<std::unique_ptr<storage::LogStore>> log =
      storage::SegmentedLog::Open({.dir = data_dir_->log_dir()});
  if (!log.ok()) return storage::Annotate(log.status(), "cannot open the Raft log");
  log_ = *std::move(log);
  if (bootstrap.voters.empty() && log_->recovered().mark.membership.empty()) {
    return absl::FailedPreconditionError(fmt::format(
        "{} was made by an earlier release and never used, and the flags describe another cluster: "
        "write --initial-cluster as at the first start, or remove the directory",
        config_.data_dir));
  }
  if (config_.force_new_cluster) {
    absl::StatusOr<bool> forced = ForceNewCluster(config_, identity_, log_.get(), *machine_);
    if (!forced.ok()) return storage::Annotate(forced.status(), "cannot go on alone");
    if (*forced) {
      log_.reset();
      log = storage::SegmentedLog::Open({.dir = data_dir_->log_dir()});
      if (!log.ok()) return storage::Annotate(log.status(), "cannot open the Raft log");
      log_ = *std::move(log);
    }
  } else {
    ForgetForcedNewCluster(config_.data_dir);
  }
  known_commit_ = log_->recovered().hard_state.commit;
  const storage::AppliedState applied = machine_->applied_state();
  LOG_INFO(
      "recovered: applied index {} at revision {}, log from {} to {}{}", applied.index.value,
      applied.revision, log_->recovered().mark.index.value + 1, log_->recovered().last.value,
      log_->recovered().torn_bytes == 0
          ? ""
          : fmt::format(", {} bytes of an unfinished write cut off", log_->recovered().torn_bytes));
  return absl::OkStatus();
}

absl::Status ServerImpl::StartNode() {
  transport_options_.self = identity_.self;
  transport_options_.cluster_id = identity_.cluster_id;
  transport_options_.snapshot_dir = data_dir_->snapshot_dir();
  transport_options_.disk_id = data_dir_->disk_id();
  transport_options_.incarnation = [this] { return machine_->incarnation(); };
  transport_options_.published_disk = [this](NodeId id) {
    const std::optional<MemberAttributes> published = machine_->member(id.value);
    return published ? published->disk_id : 0;
  };
  transport_options_.peer_disks_path = data_dir_->peer_disks_path();
  transport_options_.on_removed = on_removed_;
  transport_options_.snapshot_bytes_per_second = config_.snapshot_rate_bytes;
  absl::StatusOr<std::unique_ptr<PeerTransport>> transport =
      PeerTransport::Create(transport_options_);
  if (!transport.ok()) return transport.status();
  transport_ = *std::move(transport);

  raft::NodeOptions options;
  options.core.id = identity_.self;
  options.tick = config_.heartbeat_interval / kTicksPerHeartbeat;
  options.core.heartbeat_ticks = kTicksPerHeartbeat;
  options.core.election_ticks =
      static_cast<uint32_t>(absl::FDivDuration(config_.election_timeout, options.tick));
  options.seed = base::RandomSeed();
  options.boot = RandomNonZero();
  options.snapshot_count = config_.snapshot_count;
  options.snapshot_log_bytes = config_.log_bytes;
  freshness_file_ = std::make_unique<raft::FreshnessFile>(data_dir_->freshness_record_path());
  options.freshness_record = freshness_file_.get();
  options.on_fatal = on_fatal_;
  measured_log_ = MeasuredLog(log_.get(), &storage_metrics_);
  measured_machine_ = MeasuredMachine(machine_.get(), &storage_metrics_);
  absl::StatusOr<std::unique_ptr<raft::RaftNode>> node =
      raft::RaftNode::Start(std::move(options), identity_.bootstrap, measured_log_.get(),
                            measured_machine_.get(), transport_.get());
  if (!node.ok()) return storage::Annotate(node.status(), "cannot start the Raft node");
  node_ = *std::move(node);
  pipeline_->SetNode(node_.get());
  transport_->SetNode(node_.get());
  member_changer_ = std::make_unique<MemberChanger>(
      View(), MemberChanger::Options{.timeout = kRequestTimeoutBase + 2 * config_.election_timeout,
                                     .leaderless_max = 2 * config_.election_timeout});
  peer_member_service_ = std::make_unique<PeerMemberService>(View(), member_changer_.get());
  admission_->SetNode(node_.get());
  divergence_checker_ = std::make_unique<DivergenceChecker>(
      View(), check_log_.get(), admission_.get(),
      DivergenceChecker::Options{.data_dir = config_.data_dir, .on_fatal = on_fatal_});
  peer_check_service_ =
      std::make_unique<PeerCheckService>(View(), check_log_.get(), divergence_checker_.get());
  lessor_->Start(node_.get(), pipeline_.get(), machine_.get());
  lease_router_ = std::make_unique<LeaseRouter>(
      View(), lessor_.get(),
      LeaseRouter::Options{.timeout = kRequestTimeoutBase + 2 * config_.election_timeout,
                           .leaderless_max = 2 * config_.election_timeout});
  peer_lease_service_ = std::make_unique<PeerLeaseService>(View(), lessor_.get());
  return absl::OkStatus();
}

MemberView ServerImpl::View() const {
  return {.cluster_id = identity_.cluster_id,
          .self = identity_.self,
          .node = node_.get(),
          .machine = machine_.get(),
          .pipeline = pipeline_.get(),
          .admission = admission_.get()};
}

absl::Status ServerImpl::OpenPeerPort() {
  absl::StatusOr<Listener> peers =
      Listen({.flag = kPeerFlag,
              .urls = config_.listen_peer_urls,
              .callers = Callers::kPeers,
              .services = {transport_->service(), peer_member_service_.get(),
                           peer_lease_service_.get(), peer_check_service_.get()},
              .configure_peers = [this](grpc::ServerBuilder* builder) {
                PeerTransport::ConfigureServer(transport_options_, builder);
              }});
  if (!peers.ok()) return peers.status();
  peers_ = *std::move(peers);
  LOG_INFO("listening for peers on {}", fmt::join(ToStrings(peers_.bound), " "));
  return absl::OkStatus();
}

void ServerImpl::WaitForReplay() const {
  const auto deadline =
      std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(kReplayWaitMax);
  while (machine_->applied() < known_commit_ && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(absl::ToChronoMilliseconds(kReplayPoll));
  }
  LOG_INFO("replayed the log to index {} (known to be committed: {})", machine_->applied().value,
           known_commit_.value);
}

HealthSources ServerImpl::HealthOf() const {
  return {.alarms = [this] { return machine_->alarms(); },
          .has_leader = [this] { return static_cast<bool>(node_->status().leader); },
          .is_learner = [this] { return node_->status().is_learner; },
          .read =
              [this](bool serializable, HealthSources::ReadDone done) {
                if (!serializable) return pipeline_->LinearizableRead(std::move(done));
                // One lookup: a range, as etcd's check has it, would count every key here.
                const std::shared_ptr<storage::MvccStore> store = machine_->store();
                std::move(done)(store->NewView()->Get("health").status());
              }};
}

void ServerImpl::RegisterMetrics() {
  MetricsProviders providers;
  providers.watchers = [this] { return watch_hub_->stats().watches; };
  providers.slow_watchers = [this] { return watch_hub_->stats().lagging_watches; };
  providers.watch_streams = [this] { return watch_hub_->stats().streams; };
  providers.leases = [this] { return lessor_->stats().leases; };
  providers.quota_bytes = [this] {
    return static_cast<uint64_t>(std::max<int64_t>(config_.quota_backend_bytes, 0));
  };
  server_metrics_ = std::make_unique<ServerMetrics>(View(), log_.get(), &storage_metrics_,
                                                    &applied_metrics_, &rpc_metrics_, providers);
  server_metrics_->Register(&metrics_);
  mirror_service_->RegisterMetrics(&metrics_);
  exchange_service_->RegisterMetrics(&metrics_);
  rpc_metrics_.Register(&metrics_);
  AddProcessMetrics(&metrics_);
}

absl::Status ServerImpl::OpenClientPort() {
  kv_service_ = KvService::Create({.cluster_id = identity_.cluster_id,
                                   .member_id = identity_.self.value,
                                   .max_txn_ops = config_.max_txn_ops,
                                   .max_request_bytes = config_.max_request_bytes,
                                   .on_fatal = on_fatal_},
                                  node_.get(), pipeline_.get(), machine_.get(), admission_.get());
  exchange_service_ = ExchangeService::Create(
      {.max_txn_ops = config_.max_txn_ops, .max_request_bytes = config_.max_request_bytes},
      node_.get(), pipeline_.get(), machine_.get(), admission_.get(), kv_service_->reads());
  lease_service_ = LeaseService::Create({.heartbeat_interval = config_.heartbeat_interval,
                                         .election_timeout = config_.election_timeout,
                                         .on_fatal = on_fatal_},
                                        View(), lease_router_.get(), admission_.get());
  cluster_service_ = std::make_unique<ClusterService>(View(), member_changer_.get());
  member_service_ = std::make_unique<MemberService>(View(), member_changer_.get());
  maintenance_service_ = std::make_unique<MaintenanceService>(
      View(), admission_.get(),
      MaintenanceService::Options{
          .on_fatal = on_fatal_, .quota_bytes = std::max<int64_t>(config_.quota_backend_bytes, 0)});
  space_guard_ =
      std::make_unique<SpaceGuard>(View(), admission_.get(), config_.data_dir,
                                   SpaceLimits{.quota_bytes = config_.quota_backend_bytes,
                                               .reserve_bytes = config_.disk_reserve_bytes});
  compactor_ = std::make_unique<Compactor>(View(), config_.compaction);
  session_service_ =
      std::make_unique<SessionService>(View(), SessionService::Options{.ttl = config_.session_ttl});
  session_clock_ = std::make_unique<SessionClock>(
      View(), SessionClock::Options{.election_timeout = config_.election_timeout});
  watch_hub_->Start(View());
  watch_service_ = WatchService::Create(watch_hub_.get(), admission_.get());
  mirror_service_ =
      MirrorService::Create({.limits = {.snapshots = static_cast<int>(config_.mirror_loads),
                                        .bytes_per_second = config_.mirror_rate_bytes},
                             .seed = base::RandomSeed(),
                             .on_fatal = on_fatal_},
                            View(), admission_.get());
  waiting_calls_ = std::make_shared<WaitingCalls>();
  election_service_ = std::make_unique<ElectionService>(waiting_calls_);
  lock_service_ = std::make_unique<LockService>(waiting_calls_);
  RegisterMetrics();
  absl::StatusOr<std::unique_ptr<ClientPort>> clients = ClientPort::Open(
      {.flag = kClientFlag,
       .urls = config_.listen_client_urls,
       .metrics_flag = kMetricsFlag,
       .metrics_urls = config_.listen_metrics_urls,
       .services = {kv_service_->service(), exchange_service_->service(), watch_service_->service(),
                    lease_service_->service(), cluster_service_.get(), member_service_.get(),
                    maintenance_service_.get(), election_service_.get(), lock_service_.get(),
                    mirror_service_->service(), session_service_.get()},
       .max_request_bytes = config_.max_request_bytes,
       .health = HealthOf(),
       .rpc_metrics = &rpc_metrics_,
       .metrics = &metrics_});
  if (!clients.ok()) return clients.status();
  client_port_ = *std::move(clients);
  // They are clients of this very server.
  grpc::ChannelArguments inner;
  inner.SetMaxReceiveMessageSize(-1);
  waiting_calls_->client().SetChannel(client_port_->server()->InProcessChannel(inner));
  LOG_INFO("enabled capabilities for version {}", kEtcdClusterVersion);
  // With or without a leader: reads of local data are answered from here on, the rest waits for
  // one.
  LOG_INFO("ready to serve client requests on {}",
           fmt::join(ToStrings(client_port_->bound()), " "));
  if (!client_port_->metrics_bound().empty()) {
    LOG_INFO("serving metrics on {}", fmt::join(ToStrings(client_port_->metrics_bound()), " "));
  }
  return absl::OkStatus();
}

void ServerImpl::Publish() {
  std::vector<Url> advertised = config_.advertise_client_urls;
  for (Url& url : advertised) {
    if (url.port != 0) continue;
    // The system chose: tell the port of the listener that left it the choice.
    for (size_t i = 0; i < client_port_->bound().size(); ++i) {
      if (config_.listen_client_urls[i].port == 0) url.port = client_port_->bound()[i].port;
    }
  }
  publisher_ = std::make_unique<Publisher>(View(),
                                           MemberAttributes{.name = config_.name,
                                                            .client_urls = ToStrings(advertised),
                                                            .disk_id = data_dir_->disk_id()},
                                           RandomNonZero());
}

// Calls under way get kStopGrace to finish; then the pipeline answers those that wait for a leader
// or a quorum, so that the server has none left.
void ServerImpl::CloseClientPort() {
  // While the other services still answer: what waits tidies up by calling them.
  if (waiting_calls_ != nullptr) {
    waiting_calls_->StopAll();
    waiting_calls_->Drain(kStopGrace);
  }
  if (exchange_service_ != nullptr) exchange_service_->Stop();
  if (kv_service_ != nullptr) kv_service_->Stop();
  if (lease_service_ != nullptr) lease_service_->Stop();
  if (lessor_ != nullptr) lessor_->Stop();
  if (lease_router_ != nullptr) lease_router_->Stop();
  if (member_changer_ != nullptr) member_changer_->Stop();
  if (maintenance_service_ != nullptr) maintenance_service_->Stop();
  if (mirror_service_ != nullptr) mirror_service_->Stop();
  if (watch_service_ != nullptr) watch_service_->Stop();
  if (watch_hub_ != nullptr) watch_hub_->Stop();
  if (client_port_ == nullptr) {
    if (pipeline_ != nullptr) pipeline_->Stop();
    return;
  }
  std::mutex mutex;
  std::condition_variable changed;
  bool closed = false;
  std::thread closer([&] {
    // gRPC's own deadline, at which it cuts connections, comes well after ours.
    client_port_->Shutdown(std::chrono::system_clock::now() +
                           absl::ToChronoMilliseconds(2 * kStopGrace));
    std::lock_guard lock(mutex);
    closed = true;
    changed.notify_one();
  });
  {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, absl::ToChronoMilliseconds(kStopGrace), [&] { return closed; });
  }
  pipeline_->Stop();
  closer.join();
  waiting_calls_->Drain(kStopGrace);
}

// So that a planned stop costs the cluster no election. Clients are served meanwhile: what they ask
// for waits for the successor, and goes on to it.
void ServerImpl::HandOver() {
  if (node_ == nullptr) return;
  const raft::NodeStatus status = node_->status();
  if (status.role != raft::Role::kLeader || status.membership->voters.size() < 2) return;
  struct Wait {
    absl::Notification done;
    absl::Status result;
  };
  auto wait = std::make_shared<Wait>();
  node_->TransferLeadership(NodeId(), kHandOverMax, [wait](absl::Status result) {
    wait->result = std::move(result);
    wait->done.Notify();
  });
  // The node keeps the time; this is for a node that does not.
  if (!wait->done.WaitForNotificationWithTimeout(2 * kHandOverMax)) return;
  if (wait->result.ok()) {
    LOG_INFO("handed leadership over to member {:x}", node_->status().leader.value);
  } else {
    LOG_WARN("stopping without a successor: {}", base::Message(wait->result));
  }
}

void ServerImpl::Stop() {
  std::call_once(stop_once_, [this] {
    HandOver();
    if (thread_policy_ != nullptr) thread_policy_->Stop();
    if (publisher_ != nullptr) publisher_->Stop();
    if (space_guard_ != nullptr) space_guard_->Stop();
    if (compactor_ != nullptr) compactor_->Stop();
    if (session_clock_ != nullptr) session_clock_->Stop();
    if (divergence_checker_ != nullptr) divergence_checker_->Stop();
    CloseClientPort();
    // The node must outlive the transport's Stop, which ends the peers' streams; without those the
    // peer port closes at once.
    if (transport_ != nullptr) transport_->Stop();
    if (peers_.server != nullptr) peers_.server->Shutdown(std::chrono::system_clock::now());
    if (node_ != nullptr) node_->Stop();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Config& config,
                                                      std::function<void()> on_removed) {
  absl::StatusOr<std::optional<RestorePlan>> restore = ReadRestorePlan(config.data_dir);
  if (!restore.ok()) return restore.status();
  absl::StatusOr<Config> effective =
      restore->has_value() ? ConfigFor(**restore, config) : absl::StatusOr<Config>(config);
  if (!effective.ok()) return effective.status();
  auto server =
      std::make_unique<ServerImpl>(*effective, *std::move(restore), std::move(on_removed));
  if (absl::Status status = server->StartAll(); !status.ok()) return status;
  return server;
}

}  // namespace holdfast::server
