#include "server/flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include "base/strings.h"
#include "server/config_file.h"
#include "server/version.h"

namespace holdfast::server {
namespace {

constexpr std::string_view kEnvironmentPrefix = "HOLDFAST_";
constexpr std::string_view kConfigFileFlag = "config-file";
constexpr int64_t kMilliMax = int64_t{1} << 31;

absl::Status SetText(std::string_view text, std::string* out) {
  *out = text;
  return absl::OkStatus();
}

absl::Status SetNumber(std::string_view text, uint64_t* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  if (error == std::errc() && end == text.data() + text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("'{}' is not a whole number", base::Printable(text)));
}

// Below zero, etcd turns a limit off.
absl::Status SetSigned(std::string_view text, int64_t* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  if (error == std::errc() && end == text.data() + text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("'{}' is not a whole number", base::Printable(text)));
}

absl::Status SetMilliseconds(std::string_view text, absl::Duration* out) {
  uint64_t ms = 0;
  if (absl::Status status = SetNumber(text, &ms); !status.ok()) {
    return absl::InvalidArgumentError(
        fmt::format("{} (of milliseconds, without a unit)", base::Message(status)));
  }
  *out = absl::Milliseconds(static_cast<int64_t>(std::min<uint64_t>(ms, kMilliMax)));
  return absl::OkStatus();
}

// As etcd's flags have them: "10m", "1h30m", "100ms".
absl::Status SetDuration(std::string_view text, absl::Duration* out) {
  if (absl::ParseDuration(base::ToAbsl(text), out)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("'{}' is not a duration: write 10m, 30s or 100ms", base::Printable(text)));
}

absl::Status SetUrls(std::string_view text, std::vector<Url>* out) {
  absl::StatusOr<std::vector<Url>> urls = ParseUrlList(text);
  if (urls.ok()) *out = *std::move(urls);
  return urls.status();
}

absl::Status SetCluster(std::string_view text, std::vector<ClusterMember>* out) {
  absl::StatusOr<std::vector<ClusterMember>> members = ParseInitialCluster(text);
  if (members.ok()) *out = *std::move(members);
  return members.status();
}

absl::Status SetClusterState(std::string_view text, ClusterState* out) {
  if (text != "new" && text != "existing") {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is unknown: write new or existing", base::Printable(text)));
  }
  *out = text == "new" ? ClusterState::kNew : ClusterState::kExisting;
  return absl::OkStatus();
}

absl::Status SetRepair(std::string_view text, RepairMode* out) {
  if (text != "auto" && text != "manual") {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is unknown: write auto or manual", base::Printable(text)));
  }
  *out = text == "auto" ? RepairMode::kAuto : RepairMode::kManual;
  return absl::OkStatus();
}

absl::Status SetScheduling(std::string_view text, bool* batch) {
  if (text != "auto" && text != "normal") {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is unknown: write auto or normal", base::Printable(text)));
  }
  *batch = text == "auto";
  return absl::OkStatus();
}

// Histograms of gRPC's latency, which extensive adds in etcd, are not kept.
absl::Status CheckMetrics(std::string_view text) {
  if (text == "basic" || text == "extensive") return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("'{}' is unknown: write basic or extensive", base::Printable(text)));
}

absl::Status SetBool(std::string_view text, bool* out) {
  if (text != "true" && text != "false") {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is unknown: write true or false", base::Printable(text)));
  }
  *out = text == "true";
  return absl::OkStatus();
}

constexpr std::string_view kYesOrNo = "BOOL";

struct Flag {
  std::string_view name;
  std::string_view value;  // what --help shows in its place; kYesOrNo: may be left out
  std::string_view help;
  absl::Status (*set)(std::string_view text, Config* config);
};

constexpr Flag kFlags[] = {
    {"name", "NAME", "This member's name, as in --initial-cluster (default: default)",
     [](std::string_view v, Config* c) { return SetText(v, &c->name); }},
    {"data-dir", "DIR", "Where everything durable lives (default: NAME.holdfast)",
     [](std::string_view v, Config* c) { return SetText(v, &c->data_dir); }},
    {"listen-client-urls", "URLS",
     "Where to listen for clients, comma-separated (default: http://localhost:2379)",
     [](std::string_view v, Config* c) { return SetUrls(v, &c->listen_client_urls); }},
    {"advertise-client-urls", "URLS", "What clients are told (default: --listen-client-urls)",
     [](std::string_view v, Config* c) { return SetUrls(v, &c->advertise_client_urls); }},
    {"listen-metrics-urls", "URLS",
     "Where else to serve /metrics, /health, /livez, /readyz and /version, and nothing besides "
     "(default: none; the client port serves them in any case)",
     [](std::string_view v, Config* c) { return SetUrls(v, &c->listen_metrics_urls); }},
    {"metrics", "LEVEL",
     "basic or extensive, as etcd's; both are the same page here (default: basic)",
     [](std::string_view v, Config*) { return CheckMetrics(v); }},
    {"listen-peer-urls", "URLS",
     "Where to listen for the other members (default: http://localhost:2380)",
     [](std::string_view v, Config* c) { return SetUrls(v, &c->listen_peer_urls); }},
    {"initial-advertise-peer-urls", "URLS",
     "This member's peer URLs as the others know them (default: as in --initial-cluster, else "
     "--listen-peer-urls)",
     [](std::string_view v, Config* c) { return SetUrls(v, &c->initial_advertise_peer_urls); }},
    {"initial-cluster", "LIST",
     "All members as NAME=URL, comma-separated, the same on each "
     "(default: this member alone)",
     [](std::string_view v, Config* c) { return SetCluster(v, &c->initial_cluster); }},
    {"initial-cluster-state", "STATE", "new or existing (default: new)",
     [](std::string_view v, Config* c) { return SetClusterState(v, &c->initial_cluster_state); }},
    {"initial-cluster-token", "TEXT",
     "Tells clusters with equal URLs apart, the same on each member (default: etcd-cluster)",
     [](std::string_view v, Config* c) { return SetText(v, &c->initial_cluster_token); }},
    {"heartbeat-interval", "MS", "Milliseconds between a leader's heartbeats (default: 100)",
     [](std::string_view v, Config* c) { return SetMilliseconds(v, &c->heartbeat_interval); }},
    {"election-timeout", "MS",
     "Milliseconds without a leader before an election, at least 5 heartbeats (default: 1000)",
     [](std::string_view v, Config* c) { return SetMilliseconds(v, &c->election_timeout); }},
    {"snapshot-count", "N", "Applied log entries before the log is cut (default: 100000)",
     [](std::string_view v, Config* c) { return SetNumber(v, &c->snapshot_count); }},
    {"log-bytes", "BYTES", "Applied log bytes before the log is cut (default: 268435456)",
     [](std::string_view v, Config* c) { return SetNumber(v, &c->log_bytes); }},
    {"cache-bytes", "BYTES", "Memory for the store's block cache (default: 67108864)",
     [](std::string_view v, Config* c) { return SetNumber(v, &c->cache_bytes); }},
    {"snapshot-rate-bytes", "BYTES",
     "Bytes a second at which snapshots leave this member, 0 for no limit (default: 67108864)",
     [](std::string_view v, Config* c) { return SetNumber(v, &c->snapshot_rate_bytes); }},
    {"mirror-rate-bytes", "BYTES",
     "Bytes a second at which whole copies of prefixes leave this member for clients' mirrors, 0 "
     "for no limit (default: 134217728)",
     [](std::string_view v, Config* c) { return SetNumber(v, &c->mirror_rate_bytes); }},
    {"mirror-loads", "N",
     "Whole copies of prefixes on their way to clients' mirrors at once (default: 32)",
     [](std::string_view v, Config* c) { return SetNumber(v, &c->mirror_loads); }},
    {"max-request-bytes", "BYTES", "Largest request accepted (default: 1572864)",
     [](std::string_view v, Config* c) { return SetNumber(v, &c->max_request_bytes); }},
    {"max-txn-ops", "N", "Most operations in one transaction (default: 128)",
     [](std::string_view v, Config* c) { return SetNumber(v, &c->max_txn_ops); }},
    {"quota-backend-bytes", "BYTES",
     "What the store's files may take before writes are refused (alarm NOSPACE); 0 or less: no "
     "quota (default: 0)",
     [](std::string_view v, Config* c) { return SetSigned(v, &c->quota_backend_bytes); }},
    {"disk-reserve-bytes", "BYTES",
     "What must stay free on the disk of the data directory, else writes are refused (alarm "
     "NOSPACE); 0 or less: nothing (default: 536870912, at most a twentieth of the disk)",
     [](std::string_view v, Config* c) { return SetSigned(v, &c->disk_reserve_bytes.emplace()); }},
    {"auto-compaction-mode", "MODE",
     "What --auto-compaction-retention counts: periodic or revision (default: periodic)",
     [](std::string_view v, Config* c) { return SetText(v, &c->auto_compaction_mode); }},
    {"auto-compaction-retention", "N",
     "History to keep: hours, a time such as 10m, or a number of revisions; 0: all of it (default: "
     "15 minutes and 100000 revisions, whichever is more)",
     [](std::string_view v, Config* c) { return SetText(v, &c->auto_compaction_retention); }},
    {"watch-progress-notify-interval", "DURATION",
     "How often watches that ask for it are told of progress, at least 100ms (default: 10m)",
     [](std::string_view v, Config* c) { return SetDuration(v, &c->watch_progress_interval); }},
    {"experimental-watch-progress-notify-interval", "DURATION",
     "The name that etcd 3.4 and 3.5 have for --watch-progress-notify-interval",
     [](std::string_view v, Config* c) { return SetDuration(v, &c->watch_progress_interval); }},
    {"session-ttl", "DURATION",
     "How long a client may be idle before its exactly-once session is forgotten, of the time in "
     "which there is a leader; 1m to 720h (default: 1h)",
     [](std::string_view v, Config* c) { return SetDuration(v, &c->session_ttl); }},
    {"log-level", "LEVEL", "debug, info, warn or error (default: info)",
     [](std::string_view v, Config* c) { return SetText(v, &c->log_level); }},
    {"repair", "MODE",
     "A member with damaged data: auto has itself replaced and copies the others' data, manual "
     "says what to do and stops (default: auto)",
     [](std::string_view v, Config* c) { return SetRepair(v, &c->repair); }},
    {"cpu-scheduling", "MODE",
     "auto asks the system not to let threads interrupt each other while many writes are under "
     "way (SCHED_BATCH), normal never does (default: auto)",
     [](std::string_view v, Config* c) { return SetScheduling(v, &c->batch_scheduling); }},
    {"force-new-cluster", kYesOrNo,
     "Last resort when a majority is lost for good: go on from this member's data alone, as a new "
     "incarnation of the cluster (default: false)",
     [](std::string_view v, Config* c) { return SetBool(v, &c->force_new_cluster); }},
};

// etcd's flags that may be left out without harm: what they ask for is either always so here, or
// not there yet. A name that ends in '-' stands for all that begin with it.
constexpr std::string_view kEtcdOnly[] = {
    "wal-dir",
    "auth-token",
    "auth-token-ttl",
    "bcrypt-cost",
    "strict-reconfig-check",
    "pre-vote",
    "grpc-keepalive-",
    "max-concurrent-streams",
    "cert-file",
    "key-file",
    "trusted-ca-file",
    "client-cert-auth",
    "auto-tls",
    "peer-cert-file",
    "peer-key-file",
    "peer-trusted-ca-file",
    "peer-client-cert-auth",
    "peer-auto-tls",
    "cipher-suites",
    "logger",
    "log-outputs",
    "enable-v2",
    "experimental-",
    "max-snapshots",
    "max-wals",
    "enable-pprof",
    "cors",
    "host-whitelist",
    "backend-batch-limit",
    "backend-batch-interval",
    "socket-",
    "initial-election-tick-advance",
    "discovery",
    "discovery-",
    "max-learners",
    "log-rotation-",
    "enable-log-rotation",
    "enable-grpc-gateway",
    "v2-deprecation",
    "snapshot-catchup-entries",
    "warning-",
    "compact-hash-check-",
    "compaction-batch-limit",
    "compaction-sleep-interval",
    "corrupt-check-time",
    "feature-gates",
    "memory-mlock",
    "log-format",
    "unsafe-no-fsync",
};

// Variables with our prefix that others set: the build script, and a container orchestrator for a
// service that is called holdfast.
constexpr std::string_view kForeignVariables[] = {
    "HOLDFAST_BUILD_DIR",    "HOLDFAST_CMAKE_ARGS",   "HOLDFAST_ENDPOINTS",
    "HOLDFAST_KILLS",        "HOLDFAST_SEEDS",        "HOLDFAST_SEED",
    "HOLDFAST_SERVICE_HOST", "HOLDFAST_SERVICE_PORT", "HOLDFAST_SERVICE_PORT_",
    "HOLDFAST_PORT",         "HOLDFAST_PORT_",
};

template <class List>
bool Listed(std::string_view name, const List& list) {
  return std::ranges::any_of(list, [name](std::string_view item) {
    const bool prefix = item.ends_with('-') || item.ends_with('_');
    return prefix ? name.starts_with(item) : name == item;
  });
}

const Flag* FindFlag(std::string_view name) {
  const Flag* flag = std::ranges::find(kFlags, name, &Flag::name);
  return flag == std::end(kFlags) ? nullptr : flag;
}

bool HasValue(std::string_view name) {
  return name == kConfigFileFlag || FindFlag(name) != nullptr;
}

// Some of `experimental-` mean something here.
bool HasNoEffect(std::string_view name) { return !HasValue(name) && Listed(name, kEtcdOnly); }

std::string VariableOf(std::string_view flag) {
  std::string variable(kEnvironmentPrefix);
  for (const char c : flag) {
    variable += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return variable;
}

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, substituted}));
    }
  }
  return row.back();
}

// "did you mean --X?", or where to look. `dashes` as in the place where it was written.
std::string Hint(std::string_view unknown, std::string_view dashes) {
  std::string_view nearest;
  size_t distance = std::max<size_t>(2, unknown.size() / 3) + 1;
  for (const std::string_view name : FlagNames()) {
    if (const size_t d = EditDistance(unknown, name); d < distance) {
      nearest = name;
      distance = d;
    }
  }
  return nearest.empty() ? "holdfastd --help lists them all"
                         : fmt::format("did you mean {}{}?", dashes, nearest);
}

struct Setting {
  std::string value;
  std::string origin;  // "--name=x", "HOLDFAST_NAME=x", "x.toml line 3: name = x"
};
// By flag. Later layers replace earlier ones.
using Settings = std::map<std::string, Setting, std::less<>>;

// A token of the command line as a flag: without its one or two dashes and its "=value".
std::optional<std::string_view> FlagNameOf(std::string_view arg) {
  if (!arg.starts_with('-') || arg.size() < 3) return std::nullopt;
  arg.remove_prefix(arg.starts_with("--") ? 2 : 1);
  return arg.substr(0, arg.find('='));
}

// What CLI11 gets to see: etcd-only flags are gone (with a warning), -name has become --name as Go
// programs allow, and "--name value" is one token, so that any value is taken as it is.
absl::StatusOr<std::vector<std::string>> Normalize(const std::vector<std::string>& args,
                                                   std::vector<std::string>* warnings) {
  std::vector<std::string> normal;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::optional<std::string_view> name = FlagNameOf(args[i]);
    const bool joined = args[i].find('=') != std::string::npos;
    if (name.has_value() && HasNoEffect(*name)) {
      warnings->push_back(fmt::format("--{} is a flag of etcd that has no effect here", *name));
      if (!joined && i + 1 < args.size() && !args[i + 1].starts_with('-')) ++i;
    } else if (name.has_value() && HasValue(*name)) {
      if (args[i].ends_with('=')) {
        return absl::InvalidArgumentError(fmt::format("--{}=: the value is empty", *name));
      }
      const bool yes_or_no = FindFlag(*name) != nullptr && FindFlag(*name)->value == kYesOrNo;
      if (!joined && yes_or_no) {
        normal.push_back("--" + std::string(*name) + "=true");
        continue;
      }
      if (!joined && (i + 1 == args.size() || FlagNameOf(args[i + 1]).has_value())) {
        return absl::InvalidArgumentError(
            fmt::format("--{0} needs a value: --{0}={1}", *name,
                        FindFlag(*name) ? FindFlag(*name)->value : "FILE"));
      }
      normal.push_back("--" + std::string(*name) + "=" +
                       (joined ? args[i].substr(args[i].find('=') + 1) : args[i + 1]));
      if (!joined) ++i;
    } else {
      normal.push_back(args[i]);
    }
  }
  return normal;
}

absl::Status UnknownArgument(const std::string& arg) {
  const std::optional<std::string_view> name = FlagNameOf(arg);
  if (!name.has_value()) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is not a flag: every setting is --flag=value", base::Printable(arg)));
  }
  return absl::InvalidArgumentError(
      fmt::format("--{} is an unknown flag: {}", base::Printable(*name), Hint(*name, "--")));
}

struct FromFlags {
  Settings settings;
  std::string config_file;
  std::string print;
};

absl::StatusOr<FromFlags> ReadFlags(const std::vector<std::string>& args,
                                    std::vector<std::string>* warnings) {
  absl::StatusOr<std::vector<std::string>> normal = Normalize(args, warnings);
  if (!normal.ok()) return normal.status();

  CLI::App app(
      "One member of a Holdfast cluster: a replicated key-value store that speaks the "
      "etcd v3 API.\nEvery flag can also stand in the environment (--data-dir as "
      "HOLDFAST_DATA_DIR) or in a TOML file (data-dir = \"...\").\nA flag wins over the "
      "environment, which wins over the file.");
  app.name("holdfastd");
  app.allow_extras();
  bool version = false;
  FromFlags result;
  std::map<std::string_view, std::string> values;
  for (const Flag& flag : kFlags) {
    app.add_option("--" + std::string(flag.name), values[flag.name], std::string(flag.help))
        ->type_name(std::string(flag.value))
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  app.add_option("--" + std::string(kConfigFileFlag), result.config_file, "A TOML file of these")
      ->type_name("FILE")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_flag("--version", version, "Print the version and the etcd API level");
  try {
    std::ranges::reverse(*normal);  // CLI11 takes them from the back
    app.parse(*normal);
  } catch (const CLI::CallForHelp&) {
    result.print = app.help();
    return result;
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  if (const std::vector<std::string> unknown = app.remaining(); !unknown.empty()) {
    return UnknownArgument(unknown.front());
  }
  if (version) {
    result.print = fmt::format("holdfastd {}\netcd Version: {}\n", kVersion, kEtcdApiVersion);
  }
  for (auto& [name, value] : values) {
    if (app.count("--" + std::string(name)) == 0) continue;
    result.settings[std::string(name)] = {value, fmt::format("--{}={}", name, value)};
  }
  return result;
}

// An empty variable counts as not set: that is how scripts unset one for a child.
absl::StatusOr<Settings> ReadEnvironment(const std::vector<std::string>& environment,
                                         std::vector<std::string>* warnings) {
  std::map<std::string, std::string_view> flag_of;
  for (const Flag& flag : kFlags) flag_of.emplace(VariableOf(flag.name), flag.name);
  flag_of.emplace(VariableOf(kConfigFileFlag), kConfigFileFlag);
  Settings settings;
  for (const std::string& entry : environment) {
    if (!entry.starts_with(kEnvironmentPrefix)) continue;
    const size_t equals = entry.find('=');
    if (equals == std::string::npos || equals + 1 == entry.size()) continue;
    const std::string variable = entry.substr(0, equals);
    if (const auto known = flag_of.find(variable); known != flag_of.end()) {
      settings[std::string(known->second)] = {entry.substr(equals + 1), entry};
      continue;
    }
    std::string as_flag = variable.substr(kEnvironmentPrefix.size());
    for (char& c : as_flag) {
      c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    if (HasNoEffect(as_flag)) {
      warnings->push_back(
          fmt::format("{}: --{} is a flag of etcd that has no effect here", variable, as_flag));
    } else if (!Listed(variable, kForeignVariables)) {
      return absl::InvalidArgumentError(
          fmt::format("the environment variable {} is unknown (it would be the flag --{}): {}",
                      base::Printable(variable), base::Printable(as_flag), Hint(as_flag, "--")));
    }
  }
  return settings;
}

absl::StatusOr<Settings> ReadFile(const std::string& path, std::vector<std::string>* warnings) {
  absl::StatusOr<std::vector<FileSetting>> file = ReadConfigFile(path);
  if (!file.ok()) return file.status();
  Settings settings;
  for (FileSetting& setting : *file) {
    if (HasNoEffect(setting.key)) {
      warnings->push_back(fmt::format("{} line {}: {} is a flag of etcd that has no effect here",
                                      path, setting.line, setting.key));
      continue;
    }
    if (FindFlag(setting.key) == nullptr) {
      return absl::InvalidArgumentError(fmt::format("{} line {}: the key '{}' is unknown: {}", path,
                                                    setting.line, base::Printable(setting.key),
                                                    Hint(setting.key, "")));
    }
    std::string origin =
        fmt::format("{} line {}: {} = {}", path, setting.line, setting.key, setting.value);
    settings[setting.key] = {std::move(setting.value), std::move(origin)};
  }
  return settings;
}

absl::Status Assign(const Settings& settings, Config* config) {
  for (const Flag& flag : kFlags) {
    const auto it = settings.find(flag.name);
    if (it == settings.end()) continue;
    const Setting& setting = it->second;
    absl::Status status = setting.value.empty() ? absl::InvalidArgumentError("the value is empty")
                                                : flag.set(setting.value, config);
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("{}: {}", setting.origin, base::Message(status)));
    }
  }
  if (absl::Status status = config->Complete(); !status.ok()) return status;
  return config->Validate();
}

void WarnOfEvenCluster(const Config& config, std::vector<std::string>* warnings) {
  const size_t members = config.initial_cluster.size();
  // Of a cluster that is there, some may be learners: nobody knows yet.
  if (members % 2 != 0 || config.initial_cluster_state == ClusterState::kExisting) return;
  warnings->push_back(
      fmt::format("a cluster of {} members survives the loss of no more members than one of {}",
                  members, members - 1));
}

}  // namespace

std::vector<std::string_view> FlagNames() {
  std::vector<std::string_view> names;
  for (const Flag& flag : kFlags) names.push_back(flag.name);
  names.push_back(kConfigFileFlag);
  return names;
}

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& args,
                                             const std::vector<std::string>& environment) {
  CommandLine line;
  absl::StatusOr<FromFlags> flags = ReadFlags(args, &line.warnings);
  if (!flags.ok()) return flags.status();
  if (!flags->print.empty()) {
    line.print = std::move(flags->print);
    return line;
  }
  absl::StatusOr<Settings> variables = ReadEnvironment(environment, &line.warnings);
  if (!variables.ok()) return variables.status();
  std::string path = flags->config_file;
  if (const auto it = variables->find(kConfigFileFlag); path.empty() && it != variables->end()) {
    path = it->second.value;
  }
  // merge() keeps what is there: the strongest layer comes first.
  Settings settings = std::move(flags->settings);
  settings.merge(*variables);
  if (!path.empty()) {
    absl::StatusOr<Settings> file = ReadFile(path, &line.warnings);
    if (!file.ok()) return file.status();
    settings.merge(*file);
  }
  if (absl::Status status = Assign(settings, &line.config); !status.ok()) return status;
  WarnOfEvenCluster(line.config, &line.warnings);
  return line;
}

}  // namespace holdfast::server
