#include "server/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/strings.h"

namespace holdfast::server {
namespace {

constexpr std::string_view kDefaultHost = "localhost";
constexpr uint16_t kDefaultClientPort = 2379;
constexpr uint16_t kDefaultPeerPort = 2380;

template <class... Args>
absl::Status Bad(fmt::format_string<Args...> format, Args&&... args) {
  return absl::InvalidArgumentError(fmt::format(format, std::forward<Args>(args)...));
}

std::string Joined(const std::vector<Url>& urls) {
  return fmt::format("{}", fmt::join(ToStrings(urls), ","));
}

std::string Joined(const std::vector<ClusterMember>& members) {
  std::vector<std::string> names;
  for (const ClusterMember& member : members) names.push_back(member.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

bool HasWildcard(const std::vector<Url>& urls) {
  return std::ranges::any_of(urls, [](const Url& url) { return url.IsWildcard(); });
}

const ClusterMember* Find(const std::vector<ClusterMember>& members, std::string_view name) {
  const auto it = std::ranges::find(members, name, &ClusterMember::name);
  return it == members.end() ? nullptr : &*it;
}

// What is listened on is what others are told, unless it is every address of the machine.
absl::Status AdvertiseWhatListens(std::string_view flag, std::string_view listen_flag,
                                  const std::vector<Url>& listen, std::vector<Url>* advertise) {
  if (!advertise->empty()) return absl::OkStatus();
  if (HasWildcard(listen)) {
    return Bad(
        "--{} is missing: --{}={} listens on every address of this machine; say which one "
        "others shall use, for example --{}=http://10.0.0.1:{}",
        flag, listen_flag, Joined(listen), flag, listen.front().port);
  }
  *advertise = listen;
  return absl::OkStatus();
}

absl::Status CheckAdvertised(std::string_view flag, const std::vector<Url>& urls) {
  for (const Url& url : urls) {
    if (url.IsWildcard()) {
      return Bad("--{}: others cannot reach this member at {}: write an address of this machine",
                 flag, url.ToString());
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRange(std::string_view flag, uint64_t value, uint64_t min, uint64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return Bad("--{}={} is out of range: write a number from {} to {}", flag, value, min, max);
}

absl::Status CheckName(std::string_view name) {
  if (name.empty() || name.size() > Config::kNameBytesMax) {
    return Bad("--name must have 1 to {} bytes; it has {}", Config::kNameBytesMax, name.size());
  }
  for (const char c : name) {
    if (c <= ' ' || c == '=' || c == ',' || c == '/' || c == '\x7f') {
      return Bad("--name={} holds '{}': use letters, digits, '-', '_' and '.'",
                 base::Printable(name), base::Printable({&c, 1}));
    }
  }
  return absl::OkStatus();
}

// No socket can be opened twice.
absl::Status CheckListen(const Config& config) {
  std::set<std::string> seen;
  for (const auto* urls : {&config.listen_client_urls, &config.listen_peer_urls}) {
    for (const Url& url : *urls) {
      if (url.port != 0 && !seen.insert(url.Address()).second) {
        return Bad(
            "{} stands in both --listen-client-urls and --listen-peer-urls: clients and "
            "peers need a port each",
            url.ToString());
      }
    }
  }
  for (const Url& url : config.listen_metrics_urls) {
    if (url.port != 0 && !seen.insert(url.Address()).second) {
      return Bad(
          "{} stands in --listen-metrics-urls and serves clients or peers already: the client "
          "port tells the metrics too; leave it out, or write a port of its own",
          url.ToString());
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTimes(const Config& config) {
  const int64_t heartbeat_ms = absl::ToInt64Milliseconds(config.heartbeat_interval);
  const int64_t election_ms = absl::ToInt64Milliseconds(config.election_timeout);
  if (config.heartbeat_interval < Config::kHeartbeatMin) {
    return Bad("--heartbeat-interval={} is too short: at least {} (milliseconds)", heartbeat_ms,
               absl::ToInt64Milliseconds(Config::kHeartbeatMin));
  }
  if (config.election_timeout > Config::kElectionMax) {
    return Bad("--election-timeout={} is too long: at most {} (milliseconds)", election_ms,
               absl::ToInt64Milliseconds(Config::kElectionMax));
  }
  if (config.election_timeout < Config::kElectionHeartbeatsMin * config.heartbeat_interval) {
    return Bad(
        "--election-timeout={} is too short for --heartbeat-interval={}: write at least {}, "
        "{} heartbeats (10 are better)",
        election_ms, heartbeat_ms, Config::kElectionHeartbeatsMin * heartbeat_ms,
        Config::kElectionHeartbeatsMin);
  }
  return absl::OkStatus();
}

absl::Status CheckWatch(const Config& config) {
  if (config.watch_progress_interval >= Config::kWatchProgressMin) return absl::OkStatus();
  return Bad("--watch-progress-notify-interval={} is too short: at least 100ms",
             absl::FormatDuration(config.watch_progress_interval));
}

absl::Status CheckSessions(const Config& config) {
  if (config.session_ttl >= Config::kSessionTtlMin &&
      config.session_ttl <= Config::kSessionTtlMax) {
    return absl::OkStatus();
  }
  return Bad("--session-ttl={} is out of range: write 1m to 720h",
             absl::FormatDuration(config.session_ttl));
}

absl::Status CheckNumbers(const Config& config) {
  for (const absl::Status& status :
       {CheckRange("snapshot-count", config.snapshot_count, 1, Config::kSnapshotCountMax),
        CheckRange("log-bytes", config.log_bytes, Config::kLogBytesMin, Config::kLogBytesMax),
        CheckRange("cache-bytes", config.cache_bytes, Config::kCacheBytesMin,
                   Config::kCacheBytesMax),
        config.snapshot_rate_bytes == 0
            ? absl::OkStatus()
            : CheckRange("snapshot-rate-bytes", config.snapshot_rate_bytes,
                         Config::kSnapshotRateMin, Config::kSnapshotRateMax),
        config.mirror_rate_bytes == 0 ? absl::OkStatus()
                                      : CheckRange("mirror-rate-bytes", config.mirror_rate_bytes,
                                                   Config::kMirrorRateMin, Config::kMirrorRateMax),
        CheckRange("mirror-loads", config.mirror_loads, Config::kMirrorLoadsMin,
                   Config::kMirrorLoadsMax),
        CheckRange("max-request-bytes", config.max_request_bytes, Config::kRequestBytesMin,
                   Config::kRequestBytesMax),
        CheckRange("max-txn-ops", config.max_txn_ops, 1, Config::kTxnOpsMax)}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckCluster(const Config& config) {
  // Of a cluster that is there, some may be learners.
  const size_t members_max =
      config.initial_cluster_state == ClusterState::kNew ? Config::kVotersMax : Config::kMembersMax;
  if (config.initial_cluster.size() > members_max) {
    return Bad("--initial-cluster names {} members: at most {} are allowed (3 or 5 are usual)",
               config.initial_cluster.size(), members_max);
  }
  const bool alone = config.initial_cluster.size() == 1;
  for (const ClusterMember& member : config.initial_cluster) {
    if (absl::Status status = CheckAdvertised("initial-cluster", member.peer_urls); !status.ok()) {
      return status;
    }
    for (const Url& url : member.peer_urls) {
      // Nobody dials the only member, so its port may be the system's choice.
      if (url.port == 0 && !alone) {
        return Bad("--initial-cluster: {}={} has port 0, which others cannot reach: write the port",
                   member.name, url.ToString());
      }
    }
  }
  const ClusterMember* self = Find(config.initial_cluster, config.name);
  if (self == nullptr) {
    return Bad(
        "--name={} is not in --initial-cluster (which has {}): use one of these names, or "
        "add {}={}",
        config.name, Joined(config.initial_cluster), config.name,
        Joined(config.initial_advertise_peer_urls));
  }
  std::vector<std::string> listed = ToStrings(self->peer_urls);
  std::vector<std::string> advertised = ToStrings(config.initial_advertise_peer_urls);
  std::ranges::sort(listed);
  std::ranges::sort(advertised);
  if (listed != advertised) {
    return Bad(
        "--initial-cluster says that {} is at {}, --initial-advertise-peer-urls says {}: "
        "make them equal",
        config.name, Joined(self->peer_urls), Joined(config.initial_advertise_peer_urls));
  }
  return absl::OkStatus();
}

absl::Status CheckToken(std::string_view token) {
  if (token.size() <= Config::kTokenBytesMax) return absl::OkStatus();
  return Bad("--initial-cluster-token has {} bytes: at most {} are allowed", token.size(),
             Config::kTokenBytesMax);
}

absl::Status CheckLogLevel(std::string_view level) {
  for (const std::string_view known : {"debug", "info", "warn", "error"}) {
    if (level == known) return absl::OkStatus();
  }
  return Bad("--log-level={} is unknown: write debug, info, warn or error", level);
}

absl::Status CheckAdvertisedClientPorts(const Config& config) {
  const bool any_chosen_by_system =
      std::ranges::any_of(config.listen_client_urls, [](const Url& url) { return url.port == 0; });
  for (const Url& url : config.advertise_client_urls) {
    if (url.port == 0 && !any_chosen_by_system) {
      return Bad(
          "--advertise-client-urls: {} has port 0, which clients cannot reach: write the "
          "port",
          url.ToString());
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<ClusterMember>> ParseInitialCluster(std::string_view text) {
  std::vector<ClusterMember> members;
  std::set<std::string> seen;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view item = text.substr(begin, end - begin);
    begin = end + 1;
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      return Bad(
          "'{}' is not NAME=URL: write for example "
          "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380",
          item);
    }
    const std::string_view name = item.substr(0, equals);
    absl::StatusOr<Url> url = ParseUrl(item.substr(equals + 1));
    if (!url.ok()) return url.status();
    if (!seen.insert(url->ToString()).second) {
      return Bad("{} stands twice: every member has peer URLs of its own", url->ToString());
    }
    auto member = std::ranges::find(members, name, &ClusterMember::name);
    if (member == members.end()) {
      member = members.insert(member, ClusterMember{.name = std::string(name), .peer_urls = {}});
    }
    member->peer_urls.push_back(*std::move(url));
  }
  return members;
}

absl::Status Config::Complete() {
  if (data_dir.empty()) data_dir = name + ".holdfast";
  if (listen_client_urls.empty()) {
    listen_client_urls = {{.host = std::string(kDefaultHost), .port = kDefaultClientPort}};
  }
  if (listen_peer_urls.empty()) {
    listen_peer_urls = {{.host = std::string(kDefaultHost), .port = kDefaultPeerPort}};
  }
  if (absl::Status status = AdvertiseWhatListens("advertise-client-urls", "listen-client-urls",
                                                 listen_client_urls, &advertise_client_urls);
      !status.ok()) {
    return status;
  }
  if (const ClusterMember* self = Find(initial_cluster, name);
      self != nullptr && initial_advertise_peer_urls.empty()) {
    initial_advertise_peer_urls = self->peer_urls;
  }
  if (absl::Status status = AdvertiseWhatListens("initial-advertise-peer-urls", "listen-peer-urls",
                                                 listen_peer_urls, &initial_advertise_peer_urls);
      !status.ok()) {
    return status;
  }
  if (initial_cluster.empty()) {
    initial_cluster = {{.name = name, .peer_urls = initial_advertise_peer_urls}};
  }
  absl::StatusOr<CompactionPolicy> policy =
      ParseCompactionPolicy(auto_compaction_mode, auto_compaction_retention);
  if (!policy.ok()) return policy.status();
  compaction = *std::move(policy);
  return absl::OkStatus();
}

absl::Status Config::Validate() const {
  for (const absl::Status& status :
       {CheckName(name), CheckAdvertised("advertise-client-urls", advertise_client_urls),
        CheckAdvertised("initial-advertise-peer-urls", initial_advertise_peer_urls),
        CheckAdvertisedClientPorts(*this), CheckListen(*this), CheckCluster(*this),
        CheckToken(initial_cluster_token), CheckTimes(*this), CheckNumbers(*this),
        CheckWatch(*this), CheckSessions(*this), CheckLogLevel(log_level)}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace holdfast::server
