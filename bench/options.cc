#include "bench/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <optional>
#include <sstream>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/rng.h"
#include "base/strings.h"
#include "bench/endpoint.h"
#include "bench/local_cluster.h"
#include "bench/operation.h"

namespace holdfast::bench {
namespace {

constexpr int kUsageError = 2;
constexpr uint64_t kDefaultKeySpace = 100'000;
constexpr uint64_t kDefaultCompareKeys = 10'000;
constexpr uint32_t kDrillClients = 12;
// Large values, so that gigabytes do not take all day; few enough keys a second for small machines.
constexpr size_t kCatchupValueSize = 16 * 1024;
constexpr absl::Duration kCatchupDuration = absl::Seconds(10);
constexpr double kSuiteRate = 1000;             // puts a second, of watch, compaction and lease
constexpr uint64_t kSeedSpace = 1'000'000'000;  // short enough to be typed again

const char* const kAbout =
    "Measures throughput and latency of a Holdfast or etcd cluster over the etcd v3 gRPC API.\n"
    "\n"
    "  holdfast-bench put   --endpoints 127.0.0.1:2379 --clients 100 --duration 10s\n"
    "  holdfast-bench get   --endpoints a:2379,b:2379,c:2379 --load 100000 --keys zipf\n"
    "  holdfast-bench mixed --endpoints a:2379 --read-ratio 0.95 --rate 5000 --poisson\n"
    "  holdfast-bench put   --local 3\n"
    "  holdfast-bench run --workload ycsb-a,ycsb-d --api native --clients 1000 --local 3\n"
    "  holdfast-bench compare --local 3 --local-etcd 3 --html report.html\n"
    "  holdfast-bench compare --workloads ycsb-a,ycsb-f --runs 3\n"
    "  holdfast-bench failover --how kill --rounds 50 --local-etcd 3\n"
    "  holdfast-bench catchup --bytes 2G\n"
    "  holdfast-bench members\n"
    "  holdfast-bench watch --watchers 10000 --streams 100 --rate 1000 --local 3 --local-etcd 3\n"
    "  holdfast-bench scale --keys 100000,1000000 --local 3 --local-etcd 3\n"
    "  holdfast-bench compaction --revisions 1000000 --local 3 --local-etcd 3\n"
    "  holdfast-bench lease --leases 1000000 --local 3 --local-etcd 3\n"
    "  holdfast-bench mirror --mirrors 200 --large 1000000 --local 3\n"
    "  holdfast-bench drill june-12 --out figures\n"
    "  holdfast-bench stages --at 1,100,1000 -w json\n"
    "  holdfast-bench model --stages stages.json --out figures\n"
    "\n"
    "A run without --rate is a closed loop: every client sends its next request when the one\n"
    "before has been answered. With --rate it is an open loop, and latency counts from the moment\n"
    "at which a request SHOULD have been sent, so that a server that stalls cannot hide it.";

constexpr absl::Duration kCompareDuration = absl::Seconds(6);
constexpr uint32_t kCompareRuns = 3;

void AddDuration(CLI::App* app, const std::string& name, absl::Duration* out,
                 const std::string& help) {
  app->add_option_function<std::string>(
         name,
         [name, out](const std::string& text) {
           if (!absl::ParseDuration(text, out) || *out < absl::ZeroDuration()) {
             throw CLI::ValidationError(name, "'" + text + "' is no duration such as 10s or 1m30s");
           }
           if (*out == absl::ZeroDuration() && name != "--warmup") {
             throw CLI::ValidationError(name, "must be longer than 0s");
           }
         },
         help)
      ->type_name("DURATION");
}

template <class T>
void AddChoice(CLI::App* app, const std::string& name, T* out,
               const std::map<std::string, T>& choices, const std::string& help) {
  std::vector<std::string> names;
  for (const auto& [text, value] : choices) names.push_back(text);
  const std::string list = absl::StrJoin(names, "|");
  app->add_option_function<std::string>(
         name,
         [name, out, choices, list](const std::string& text) {
           const auto it = choices.find(text);
           if (it == choices.end()) {
             throw CLI::ValidationError(name, "'" + text + "' is none of " + list);
           }
           *out = it->second;
         },
         help)
      ->type_name(list);
}

// A list whose parts are checked one by one.
void AddPids(CLI::App* app, std::vector<pid_t>* pids) {
  app->add_option("--pids", *pids,
                  "server processes p1,p2,...: tell the memory and CPU that each used")
      ->delimiter(',')
      ->type_name("PID,...");
}

CLI::Option* AddWorkloads(CLI::App* app, const std::string& names, std::vector<Workload>* out,
                          const std::string& help) {
  return app
      ->add_option_function<std::string>(
          names,
          [names, out](const std::string& list) {
            auto found = FindWorkloads(list);
            if (!found.ok()) {
              throw CLI::ValidationError(names, std::string(base::Message(found.status())));
            }
            *out = *std::move(found);
          },
          help)
      ->type_name("LIST");
}

// Whose values are a list of numbers or names: "100,300".
template <class T>
void AddList(CLI::App* app, const std::string& name, std::vector<T>* out, const std::string& help) {
  app->add_option(name, *out, help)->delimiter(',')->type_name("N,...");
}

void AddApi(CLI::App* app, Options& o, bool choose) {
  if (choose) {
    AddChoice<Api>(app, "--api", &o.api, {{"unary", Api::kUnary}, {"native", Api::kNative}},
                   "etcd's unary API, or the client library (default unary)");
    app->add_flag("--exactly-once", o.exactly_once,
                  "native: writes carry their session's stamp, as is the library's default");
  }
  app->add_option("--native-clients", o.native_clients,
                  "native: clients (a thread and connections each) that carry all callers")
      ->capture_default_str();
  app->add_option("--html", o.html, "write a report with plots to this file too")
      ->type_name("FILE");
}

void AddLoadFlags(CLI::App* app, Options& o) {
  app->add_option("--connections", o.connections,
                  "TCP connections, spread over the endpoints (default: one for each)");
  app->add_option("--clients", o.clients, "requests in flight at most")->capture_default_str();
  app->add_option("--threads", o.threads, "threads that carry all clients")->capture_default_str();
  app->add_option("--total", o.total, "measured requests of a run, instead of --duration");
  AddDuration(app, "--duration", &o.duration, "measured time of a run (default 10s)");
  AddDuration(app, "--warmup", &o.warmup, "load before that, which is not measured (default 1s)");
  AddDuration(app, "--timeout", &o.timeout, "of one request (default 10s)");
  app->add_option("--rate", o.rate, "open loop: arrivals a second, whatever the servers do");
  app->add_flag("--poisson", o.poisson, "open loop: random gaps instead of even ones");
  app->add_option("--runs", o.runs, "repeat; prints the median and the spread")
      ->capture_default_str();
  app->add_option("--seed", o.seed, "of keys, values and gaps (default: drawn and printed)");
  AddChoice<bool>(app, "--targets", &o.leader_only, {{"all", false}, {"leader", true}},
                  "talk to all endpoints or to the leader alone (default all)");
  AddChoice<bool>(app, "-w,--write-out", &o.json, {{"text", false}, {"json", true}},
                  "form of the report (default text)");
}

void AddDataFlags(CLI::App* app, Options& o) {
  app->add_option("--key-size", o.key_size, "bytes")->capture_default_str();
  app->add_option("--value-size", o.value_size, "bytes, random ones")->capture_default_str();
  app->add_option("--key-prefix", o.key_prefix, "first bytes of every key")->capture_default_str();
  AddChoice<KeyOrder>(app, "--keys", &o.order,
                      {{"sequential", KeyOrder::kSequential},
                       {"random", KeyOrder::kRandom},
                       {"zipf", KeyOrder::kZipf}},
                      "which key is next (default random)");
  app->add_option("--txn-ops", o.txn_ops, "puts in one transaction while loading")
      ->capture_default_str();
}

void AddClusterFlags(CLI::App* app, Options& o) {
  app->add_option("--holdfastd", o.holdfastd,
                  "server binary of --local (default: beside holdfast-bench)");
  app->add_option("--etcd", o.etcd, "server binary of --local-etcd")->capture_default_str();
  app->add_option("--holdfastd-arg", o.holdfastd_args, "one more argument for every holdfastd")
      ->type_size(1)
      ->allow_extra_args(false);
  app->add_option("--etcd-arg", o.etcd_args, "one more argument for every etcd")
      ->type_size(1)
      ->allow_extra_args(false);
  app->add_option("--data-dir-root", o.data_dir_root,
                  "where started servers keep their data: chooses the disk (default: $TMPDIR)");
}

void AddConsistency(CLI::App* app, Options& o) {
  AddChoice<bool>(app, "--consistency", &o.serializable,
                  {{"linearizable", false}, {"serializable", true}},
                  "of gets (default linearizable)");
}

CLI::App* AddRunCommand(CLI::App& app, Options& o, const std::string& name,
                        const std::string& about) {
  CLI::App* command = app.add_subcommand(name, about);
  command->add_option("--endpoints", o.endpoints, "servers, host:port,...");
  command->add_option("--local", o.local, "start so many holdfastd on this machine instead");
  command->add_option("--local-etcd", o.local_etcd, "start so many etcd on this machine instead");
  AddLoadFlags(command, o);
  AddDataFlags(command, o);
  command->add_option("--key-space", o.key_space,
                      "number of different keys (default: --load, or 100000)");
  command->add_option("--load", o.load, "first write so many keys, then measure");
  AddPids(command, &o.pids);
  AddApi(command, o, /*choose=*/true);
  AddClusterFlags(command, o);
  return command;
}

void AddCompare(CLI::App& app, Options& o) {
  CLI::App* compare = app.add_subcommand(
      "compare", "Holdfast (native and unary) and etcd in turn; the table of goals, and ratios");
  compare->add_option("--local", o.local, "members of the Holdfast cluster (default 3)");
  compare->add_option("--local-etcd", o.local_etcd, "members of the etcd cluster (default 3)");
  compare->add_option("--load-keys", o.load,
                      "keys written before measuring; memory is told at that many (default 10000)");
  AddWorkloads(compare, "--workloads", &o.workloads,
               "these, instead of the table of goals; with --clients each");
  compare->add_flag("--goals", o.compare.goals, "the table of goals beside --workloads");
  compare
      ->add_option_function<std::vector<std::string>>(
          "--sides",
          [&o](const std::vector<std::string>& names) {
            o.compare.targets.clear();
            for (const std::string& name : names) {
              const auto target = name == "native"  ? std::optional(Target::kNative)
                                  : name == "unary" ? std::optional(Target::kUnary)
                                  : name == "etcd"  ? std::optional(Target::kEtcd)
                                                    : std::nullopt;
              if (!target) {
                throw CLI::ValidationError("--sides",
                                           "'" + name + "' is none of native, unary, etcd");
              }
              if (std::ranges::find(o.compare.targets, *target) == o.compare.targets.end()) {
                o.compare.targets.push_back(*target);
              }
            }
          },
          "whom to measure (default native,unary,etcd)")
      ->delimiter(',')
      ->type_name("LIST");
  compare
      ->add_option("--native-callers", o.compare.native_callers,
                   "calls in flight of the native client in the goals")
      ->capture_default_str();
  AddList(compare, "--etcd-clients", &o.compare.etcd_clients,
          "numbers of clients of which etcd's best is taken (default 100,300,1000)");
  compare
      ->add_option("--memory-keys", o.compare.memory_keys,
                   "keys at which memory is compared, in a turn of its own")
      ->capture_default_str();
  compare->add_flag_callback(
      "--no-memory", [&o] { o.compare.memory_keys = 0; }, "leave that turn out");
  AddApi(compare, o, /*choose=*/false);
  AddLoadFlags(compare, o);
  AddDataFlags(compare, o);
  AddClusterFlags(compare, o);
}

// "2G": a number and K, M, G or nothing, powers of 1024.
void AddBytes(CLI::App* app, const std::string& name, uint64_t* out, const std::string& help) {
  app->add_option(name, *out, help)->transform(CLI::AsSizeValue(false))->type_name("BYTES");
}

CLI::App* AddDrill(CLI::App& app, Options& o, const std::string& name, const std::string& about) {
  CLI::App* command = app.add_subcommand(name, about);
  command->add_option("--local", o.local, "members of the Holdfast cluster (default 3)");
  command->add_option("--clients", o.clients,
                      "writers, spread over all endpoints (default 12, catchup 16)");
  AddDuration(command, "--try-timeout", &o.try_timeout,
              "after which a client turns to the next endpoint (default 250ms)");
  command->add_option("--key-size", o.key_size, "bytes")->capture_default_str();
  command->add_option("--value-size", o.value_size, "bytes (default 256, catchup 16384)");
  command->add_option("--seed", o.seed, "of the values (default: drawn and printed)");
  AddChoice<bool>(command, "-w,--write-out", &o.json, {{"text", false}, {"json", true}},
                  "form of the report (default text)");
  command->add_flag("--verbose", o.verbose, "print every round or step as it ends");
  AddClusterFlags(command, o);
  return command;
}

void AddFailover(CLI::App& app, Options& o) {
  CLI::App* command = AddDrill(
      app, o, "failover", "How long no write is acknowledged when the leader goes, many times");
  command->add_option("--local-etcd", o.local_etcd, "then the same with so many etcd");
  command->add_option("--rounds", o.rounds, "of each cluster")->capture_default_str();
  AddChoice<FailoverHow>(command, "--how", &o.how,
                         {{"kill", FailoverHow::kKill},
                          {"pause", FailoverHow::kPause},
                          {"transfer", FailoverHow::kTransfer},
                          {"term", FailoverHow::kTerm}},
                         "what happens to the leader (default kill)");
}

void AddCatchup(CLI::App& app, Options& o) {
  CLI::App* command =
      AddDrill(app, o, "catchup", "A member that was away comes back while the writers go on");
  AddBytes(command, "--bytes", &o.bytes, "written while it is away (default 2G)");
  AddDuration(command, "--duration", &o.duration, "measured before and after (default 10s)");
}

// watch, scale, compaction, lease and mirror: one command line for both sides.
CLI::App* AddSuite(CLI::App& app, Options& o, const std::string& name, const std::string& about) {
  CLI::App* command = app.add_subcommand(name, about);
  if (name != "scale") {
    command->add_option("--endpoints", o.endpoints, "servers that run already, host:port,...");
    AddPids(command, &o.pids);
  }
  command->add_option("--local", o.local,
                      "start so many holdfastd (default 3, if nothing is given)");
  command->add_option("--local-etcd", o.local_etcd, "then the same with so many etcd");
  AddLoadFlags(command, o);
  command->add_option("--key-size", o.key_size, "bytes")->capture_default_str();
  command->add_option("--value-size", o.value_size, "bytes, random ones")->capture_default_str();
  command->add_option("--txn-ops", o.txn_ops, "puts in one transaction while loading")
      ->capture_default_str();
  AddClusterFlags(command, o);
  return command;
}

void AddWatch(CLI::App& app, Options& o) {
  CLI::App* command =
      AddSuite(app, o, "watch", "How soon many watchers hear of puts, and its cost");
  command->add_option("--watchers", o.watch.watchers, "each on a range of keys of its own")
      ->capture_default_str();
  command->add_option("--streams", o.watch.streams, "that carry them")->capture_default_str();
  command
      ->add_option("--fan-out", o.watch.fan_out, "watchers of one range: each put is for so many")
      ->capture_default_str();
  AddChoice<bool>(command, "--watch", &o.watch.whole_prefix, {{"ranges", false}, {"prefix", true}},
                  "ranges, or one watcher a stream on the whole prefix (default ranges)");
}

void AddScale(CLI::App& app, Options& o) {
  CLI::App* command =
      AddSuite(app, o, "scale", "Memory, speed, restarts and disk at growing numbers of keys");
  command->add_option("--keys", o.scale.keys, "sizes (default 100000,1000000,10000000)")
      ->delimiter(',')
      ->type_name("N,...");
  command->add_option("--etcd-max-keys", o.scale.etcd_max_keys, "greatest size for etcd")
      ->capture_default_str();
  command->add_option("--range-keys", o.scale.range_keys, "keys of the range that is read")
      ->capture_default_str();
  command->add_option("--page", o.scale.page, "keys of one of its pages")->capture_default_str();
  AddDuration(command, "--time-limit", &o.scale.time_limit, "of everything (default 2h)");
}

void AddClosed(CLI::App* app, Options& o) {
  app->add_flag("--closed", o.closed, "puts in a closed loop instead of --rate (default 1000)");
}

void AddCompaction(CLI::App& app, Options& o) {
  CLI::App* command =
      AddSuite(app, o, "compaction", "How puts fare while much history is compacted away");
  AddClosed(command, o);
  command->add_option("--revisions", o.compaction.revisions, "versions of keys to be dropped")
      ->capture_default_str();
  command->add_option("--key-space", o.key_space, "keys (default: a tenth of the revisions)");
}

void AddLease(CLI::App& app, Options& o) {
  CLI::App* command = AddSuite(app, o, "lease", "Grants, keep-alives, expiry and revocation");
  AddClosed(command, o);
  command->add_option("--leases", o.lease.leases, "granted")->capture_default_str();
  command->add_option("--etcd-leases", o.lease.etcd_leases, "at most, by etcd")
      ->capture_default_str();
  command->add_option("--attach", o.lease.attach, "share of them that get a key, 0 to 1")
      ->capture_default_str();
  command->add_option("--streams", o.lease.streams, "of keep-alives")->capture_default_str();
  command->add_option("--expire", o.lease.expire, "leases of a short TTL, let expire")
      ->capture_default_str();
  AddDuration(command, "--expire-ttl", &o.lease.expire_ttl, "that TTL (default 10s)");
  command->add_option("--revoke", o.lease.revoke, "leases that are revoked")->capture_default_str();
}

void AddMirror(CLI::App& app, Options& o) {
  CLI::App* command =
      AddSuite(app, o, "mirror", "How soon copies in client processes show puts, and their cost");
  command->add_option("--keys", o.mirror.keys, "of each mirror")->capture_default_str();
  command->add_option("--mirrors", o.mirror.mirrors, "at a time, each a client of its own")
      ->capture_default_str();
  command->add_option("--idle-rate", o.mirror.idle_rate, "puts a second while nothing else happens")
      ->capture_default_str();
  command->add_option("--many-rate", o.mirror.many_rate, "puts a second with all mirrors")
      ->capture_default_str();
  command->add_option("--large", o.mirror.large_keys, "keys of one large mirror; 0: none")
      ->capture_default_str();
  AddBytes(command, "--disk-bytes", &o.mirror.disk_bytes,
           "of a mirror that starts from disk, 0: none (default 10M)");
}

void AddDrills(CLI::App& app, Options& o) {
  CLI::App* command = app.add_subcommand(
      "drill", "What a service with the client library goes through when the store fails");
  command
      ->add_option("names", o.drill.names,
                   "names or numbers of drills, 'all', or 'list', which tells them")
      ->required()
      ->type_name("NAME...");
  command->add_option("--out", o.drill.out, "directory of the plots")->capture_default_str();
  AddDuration(command, "--duration", &o.drill.length,
              "of the outage as it is played (default: the drill's own)");
  command->add_option("--simulated-clients", o.drill.simulated_clients,
                      "of herd (default: its own number)");
  command->add_flag("!--without-etcd", o.drill.beside_etcd,
                    "june-12 and november-18: leave out the plain etcd client");
  command->add_option("--seed", o.seed, "of all that is drawn (default: drawn and printed)");
  AddChoice<bool>(command, "-w,--write-out", &o.json, {{"text", false}, {"json", true}},
                  "form of the report (default text)");
  command->add_flag("--verbose", o.verbose, "tell on stderr what happens");
  AddClusterFlags(command, o);
}

void AddStages(CLI::App& app, Options& o) {
  CLI::App* command =
      app.add_subcommand("stages", "What one operation costs each stage of each member");
  command->add_option("--local", o.local, "members (default 3)");
  command
      ->add_option("--at", o.stages.clients, "requests in flight, in turn (default 1,10,100,1000)")
      ->delimiter(',')
      ->type_name("N,...");
  command->add_option("--streams", o.stages.streams, "of the batch door (default 1)");
  command->add_option("--load-keys", o.load, "keys written before measuring (default 10000)");
  command->add_flag("--verbose", o.verbose, "tell on stderr what is done");
  AddWorkloads(command, "--workloads", &o.workloads, "names, see --help (default put,get)");
  AddLoadFlags(command, o);
  AddDataFlags(command, o);
  AddClusterFlags(command, o);
}

void AddModel(CLI::App& app, Options& o) {
  CLI::App* command = app.add_subcommand(
      "model", "What larger machines, disks, distances and crowds would give, computed");
  command
      ->add_option("--stages", o.model.stages,
                   "costs: files with what stages -w json printed (default: built in)")
      ->delimiter(',')
      ->type_name("FILE,...");
  command->add_option("--out", o.model.out, "directory of the plots (default: none are drawn)");
  command->add_flag("--check", o.model.check,
                    "only compare formulas, simulation and what --stages measured");
  command->add_option("--seed", o.seed, "of the simulations (default 1)");
}

void FillSuiteDefaults(Options& o) {
  if (o.endpoints.empty() && o.local == 0 && o.local_etcd == 0) o.local = 3;
  if (o.scale.keys.empty()) o.scale.keys = {100'000, 1'000'000, 10'000'000};
  if (o.command == Command::kScale) {
    o.key_space = *std::ranges::max_element(o.scale.keys);
  } else if (o.command == Command::kWatch && !o.watch.whole_prefix) {
    o.key_space = 20 * o.watch.watchers;  // at least what WatchLayout makes of it
  } else if (o.command == Command::kCompaction && o.key_space == 0) {
    o.key_space = std::max<uint64_t>(o.compaction.revisions / 10, o.txn_ops);
  } else if (o.command == Command::kLease) {
    o.key_space = o.lease.leases + o.lease.expire + kDefaultKeySpace;
  } else if (o.command == Command::kMirror) {
    o.key_space = o.mirror.keys;
  }
  const bool open_loop = o.command != Command::kScale;
  if (open_loop && !o.closed && o.rate == 0) o.rate = kSuiteRate;
}

void FillDrillDefaults(const std::string& command, Options& o) {
  if (command == "compare") o.runs = kCompareRuns;
  if (command != "failover" && command != "catchup" && command != "members") return;
  o.clients = command == "catchup" ? 16 : kDrillClients;
  o.key_prefix = "drill/";
  if (command == "catchup") o.value_size = kCatchupValueSize;
}

void FillDefaults(Options& o) {
  if (o.command == Command::kDrill) {
    o.local = 3;
    std::replace(o.drill.names.begin(), o.drill.names.end(), std::string("LIST"),
                 std::string("list"));
  }
  if (IsSuite(o.command)) FillSuiteDefaults(o);
  if (IsDrill(o.command)) {
    if (o.local == 0) o.local = 3;
    if (o.duration == absl::ZeroDuration()) o.duration = kCatchupDuration;
    // Every key once, so that what is written is what has to be sent.
    if (o.command == Command::kCatchup) o.key_space = kMaxKeySpace;
  }
  if (o.command == Command::kCompare && o.total == 0 && o.duration == absl::ZeroDuration()) {
    o.duration = kCompareDuration;
  }
  if (o.command == Command::kModel && o.seed == 0) o.seed = 1;
  if (o.seed == 0) o.seed = 1 + base::RandomSeed() % kSeedSpace;
  if (o.total == 0 && o.duration == absl::ZeroDuration()) o.duration = absl::Seconds(10);
  if (o.command == Command::kPut) o.workloads = {PutWorkload()};
  if (o.command == Command::kGet) o.workloads = {GetWorkload()};
  if (o.command == Command::kMixed) {
    o.workloads = {MixedWorkload(std::clamp(o.read_ratio, 0.0, 1.0))};
  }
  if ((o.command == Command::kGet || o.command == Command::kMixed) && o.serializable) {
    o.workloads[0].read = ReadLevel::kSerializable;
  }
  if (o.command == Command::kStages) {
    o.leader_only = true;  // what a follower passes on costs it as well, and is another figure
    if (o.local == 0) o.local = 3;
    if (o.load == 0) o.load = kDefaultCompareKeys;
    if (o.stages.clients.empty()) o.stages.clients = {1, 10, 100, 1000};
    if (o.workloads.empty()) o.workloads = {PutWorkload(), GetWorkload()};
  }
  if (o.command == Command::kCompare) {
    if (o.local == 0) o.local = 3;
    if (o.local_etcd == 0) o.local_etcd = 3;
    if (o.load == 0) o.load = kDefaultCompareKeys;
    if (o.workloads.empty()) o.compare.goals = true;
  }
  if (o.key_space == 0) o.key_space = o.load > 0 ? o.load : kDefaultKeySpace;
  if (o.holdfastd.empty()) o.holdfastd = BinaryBesideOwn("holdfastd");
}

ParseResult UsageError(std::string_view text) {
  return {.run = false,
          .exit_code = kUsageError,
          .text = fmt::format("holdfast-bench: {}\nRun with --help for more information.\n", text),
          .options = {}};
}

}  // namespace

ParseResult ParseCommandLine(const std::vector<std::string>& args) {
  ParseResult result;
  Options& o = result.options;
  CLI::App app(kAbout, "holdfast-bench");
  app.require_subcommand(1);
  AddRunCommand(app, o, "put", "Writes keys");
  CLI::App* get = AddRunCommand(app, o, "get", "Reads keys (write them first: --load)");
  AddConsistency(get, o);
  CLI::App* mixed = AddRunCommand(app, o, "mixed", "Reads and writes keys");
  mixed->add_option("--read-ratio", o.read_ratio, "share of gets, 0 to 1")->capture_default_str();
  AddConsistency(mixed, o);
  CLI::App* run = AddRunCommand(app, o, "run", "Any workload by its name, see below");
  AddWorkloads(run, "--workload,--workloads", &o.workloads, "names, see below")->required();
  AddCompare(app, o);
  app.footer(
      "Workloads of run and compare:\n" + WorkloadsHelp() +
      "Workloads that are commands of their own: watch (fan-out), lease, scale (growth of the "
      "key\nspace), compaction, mirror, failover, catchup, members.");
  run->footer("Workloads:\n" + WorkloadsHelp());
  if (!args.empty()) FillDrillDefaults(args[0], o);
  AddFailover(app, o);
  AddCatchup(app, o);
  AddDrill(app, o, "members", "The cluster grows by two voters and shrinks again, under load");
  AddWatch(app, o);
  AddScale(app, o);
  AddCompaction(app, o);
  AddLease(app, o);
  AddMirror(app, o);
  AddDrills(app, o);
  AddStages(app, o);
  AddModel(app, o);

  // CLI11 would only say that a subcommand is missing.
  const std::vector<CLI::App*> commands = app.get_subcommands([](CLI::App*) { return true; });
  if (!args.empty() && !args[0].starts_with('-') &&
      std::none_of(commands.begin(), commands.end(),
                   [&args](const CLI::App* command) { return command->get_name() == args[0]; })) {
    return UsageError(fmt::format("unknown command '{}'", args[0]));
  }
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));  // CLI11 takes them reversed
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return UsageError(error.what());
    std::ostringstream text;
    app.exit(error, text, text);
    result.text = text.str();
    return result;
  }
  static const auto& by_name =
      *new std::map<std::string, Command>{{"put", Command::kPut},
                                          {"get", Command::kGet},
                                          {"mixed", Command::kMixed},
                                          {"run", Command::kRun},
                                          {"compare", Command::kCompare},
                                          {"failover", Command::kFailover},
                                          {"catchup", Command::kCatchup},
                                          {"members", Command::kMembers},
                                          {"watch", Command::kWatch},
                                          {"scale", Command::kScale},
                                          {"compaction", Command::kCompaction},
                                          {"lease", Command::kLease},
                                          {"mirror", Command::kMirror},
                                          {"drill", Command::kDrill},
                                          {"stages", Command::kStages},
                                          {"model", Command::kModel}};
  o.command = by_name.at(app.get_subcommands()[0]->get_name());
  o.command_line = "holdfast-bench " + absl::StrJoin(args, " ");
  FillDefaults(o);
  const absl::Status status = o.Validate();
  if (!status.ok()) return UsageError(base::Message(status));
  result.run = true;
  return result;
}

}  // namespace holdfast::bench
