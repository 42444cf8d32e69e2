#include "bench/demo/demo.h"

#include <algorithm>

#include <fmt/format.h>

#include "absl/synchronization/mutex.h"

namespace holdfast::bench {
namespace {

constexpr int kPutsInFlight = 128;
constexpr absl::Duration kWatchFor = absl::Seconds(4);  // how long each outage is looked at
constexpr absl::Duration kStaleReadGoal = absl::Milliseconds(50);
constexpr absl::Duration kRestartGoal = absl::Seconds(2);
constexpr absl::Duration kFailFastGoal = absl::Seconds(5);
constexpr const char* kWatchedKey = "/config/tzdata.zi/000001";
constexpr const char* kDrillPrefix = "/drill/";

double Seconds(absl::Duration d) { return absl::ToDoubleSeconds(d); }
double Millis(absl::Duration d) { return absl::ToDoubleMilliseconds(d); }

}  // namespace

bool Demo::ok() const {
  return std::all_of(rows_.begin(), rows_.end(), [](const DemoRow& row) { return row.ok; });
}

void Demo::Row(std::string step, std::string measured, bool ok) {
  fmt::print("  {} {:<44} {}\n", ok ? "ok  " : "FAIL", step, measured);
  std::fflush(stdout);
  rows_.push_back({std::move(step), std::move(measured), ok});
}

std::unique_ptr<Client> Demo::OpenClient(const std::vector<std::string>& endpoints) {
  auto client = Client::Open({.endpoints = endpoints});
  if (!client.ok()) return nullptr;
  return *std::move(client);
}

absl::Status Demo::Start() {
  auto corpus = LoadCorpus();
  if (!corpus.ok()) return corpus.status();
  corpus_ = *std::move(corpus);
  const absl::Time start = absl::Now();
  LocalClusterOptions local;
  local.binary = options_.holdfastd;
  local.root = options_.root;
  auto cluster = LocalCluster::Start(local);
  if (!cluster.ok()) return cluster.status();
  cluster_ = *std::move(cluster);
  client_ = OpenClient(cluster_->Endpoints());
  Row("start three members", fmt::format("leader after {:.2f} s", Seconds(absl::Now() - start)),
      true);
  return absl::OkStatus();
}

absl::Status Demo::Load() {
  absl::Mutex mutex;
  int in_flight = 0;
  absl::Status first_error;
  const absl::Time start = absl::Now();
  for (const auto& [key, value] : corpus_.entries) {
    {
      absl::MutexLock lock(&mutex);
      const auto room = [&] { return in_flight < kPutsInFlight; };
      mutex.Await(absl::Condition(&room));
      ++in_flight;
    }
    client_->Put(key, value, {.deadline = absl::Seconds(30)}, [&](absl::StatusOr<WriteResult> put) {
      absl::MutexLock lock(&mutex);
      --in_flight;
      if (!put.ok() && first_error.ok()) first_error = put.status();
    });
  }
  absl::MutexLock lock(&mutex);
  const auto idle = [&] { return in_flight == 0; };
  mutex.Await(absl::Condition(&idle));
  if (!first_error.ok()) return first_error;
  const double seconds = Seconds(absl::Now() - start);
  std::string sources;
  for (const auto& [name, keys] : corpus_.sources) sources += fmt::format(" {} {}", keys, name);
  Row("load real configuration",
      fmt::format("{} keys, {:.1f} MB in {:.1f} s, {:.0f} puts/s ({} )", corpus_.entries.size(),
                  double(corpus_.bytes) / 1e6, seconds, double(corpus_.entries.size()) / seconds,
                  sources),
      true);
  return absl::OkStatus();
}

absl::StatusOr<int> Demo::Differences(int member, const ReadOptions& how) {
  auto client = OpenClient({cluster_->endpoint(member)});
  ReadOptions options = how;
  auto scan =
      client->Scan(kCorpusPrefix, options.Deadline(absl::Seconds(60)).MaxEntries(1'000'000));
  if (!scan.ok()) return scan.status();
  int differences = 0;
  size_t seen = 0;
  for (const Entry& entry : scan->value) {
    const auto it = corpus_.entries.find(entry.key);
    if (it == corpus_.entries.end() || it->second != entry.value) ++differences;
    ++seen;
  }
  return differences + int(corpus_.entries.size() - std::min(seen, corpus_.entries.size()));
}

absl::Status Demo::Compare() {
  const absl::Time start = absl::Now();
  int differences = 0;
  for (int i = 0; i < cluster_->size(); ++i) {
    const auto found = Differences(i, ReadOptions::Linearizable());
    if (!found.ok()) return found.status();
    differences += *found;
  }
  Row("read back from every member, compare bytes",
      fmt::format("{} differences in 3 x {} keys, {:.1f} s", differences, corpus_.entries.size(),
                  Seconds(absl::Now() - start)),
      differences == 0);
  return StartService();
}

absl::Status Demo::StartService() {
  std::string endpoints;
  for (const std::string& e : cluster_->Endpoints())
    endpoints += (endpoints.empty() ? "" : ",") + e;
  auto service = ServiceWatch::Start(options_.service, {endpoints, "50ms", kWatchedKey});
  if (!service.ok()) return service.status();
  service_ = *std::move(service);
  absl::SleepFor(absl::Seconds(1));
  ServiceRow("example service, all members up", false);
  return absl::OkStatus();
}

void Demo::ServiceRow(std::string step, bool must_be_stale) {
  const ServiceReport r = service_->Take();
  std::string ages = r.age_last_s < 0 ? "age unknown"
                                      : fmt::format("age {:.3f} -> {:.3f} s, {} proven",
                                                    r.age_first_s, r.age_last_s, r.proven);
  const bool grew = !must_be_stale || (r.age_last_s > r.age_first_s && r.age_last_s > 1);
  Row(std::move(step),
      fmt::format("{} reads, {} errors, {}{}, longest silence {:.0f} ms", r.reads, r.errors, ages,
                  r.unknown > 0 ? fmt::format(", {} of unknown age", r.unknown) : "",
                  Millis(r.longest_silence)),
      r.reads > 0 && r.errors == 0 && grew);
  if (r.errors > 0) fmt::print("       last error: {}\n", r.last_error);
}

absl::StatusOr<absl::Duration> Demo::TimeToWrite(absl::Duration give_up) {
  const absl::Time start = absl::Now();
  absl::Status last;
  while (absl::Now() - start < give_up) {
    const std::string key = fmt::format("{}{:06}", kDrillPrefix, writes_++);
    auto put = client_->Put(key, "written during the drill", {.deadline = absl::Seconds(2)});
    if (put.ok()) {
      acked_.push_back(key);
      return absl::Now() - start;
    }
    last = put.status();
    absl::SleepFor(absl::Milliseconds(5));
  }
  return last;
}

absl::Status Demo::KillLeader() {
  const auto leader = cluster_->Leader();
  if (!leader.ok()) return leader.status();
  service_->Take();
  absl::Status killed = cluster_->Kill(*leader);
  if (!killed.ok()) return killed;
  const auto gap = TimeToWrite(absl::Seconds(20));
  if (!gap.ok()) return gap.status();
  // Reads and writes go on.
  int more = 0;
  for (const absl::Time until = absl::Now() + absl::Seconds(2); absl::Now() < until; ++more) {
    const auto next = TimeToWrite(absl::Seconds(10));
    if (!next.ok()) return next.status();
  }
  Row("kill -9 the leader: writes",
      fmt::format("acknowledged again after {:.0f} ms, then {} more in 2 s", Millis(*gap), more),
      *gap < absl::Seconds(3));
  ServiceRow("kill -9 the leader: example service", false);
  survivor_ = -1;
  return absl::OkStatus();
}

absl::Status Demo::KillSecond() {
  const auto leader = cluster_->Leader();
  if (!leader.ok()) return leader.status();
  absl::Status killed = cluster_->Kill(*leader);
  if (!killed.ok()) return killed;
  for (int i = 0; i < cluster_->size(); ++i) {
    if (cluster_->Running(i)) survivor_ = i;
  }
  service_->Take();
  absl::Status refused;
  absl::Duration slowest;
  // Until it is typed and certain: what was under way when the quorum went may be unknown.
  for (int i = 0; i < 5; ++i) {
    const absl::Time before = absl::Now();
    const auto put = client_->Put("/drill/refused", "x", {.deadline = absl::Seconds(10)});
    slowest = std::max(slowest, absl::Now() - before);
    refused = put.status();
    if (put.ok()) return absl::InternalError("a write succeeded without a quorum");
  }
  Row("kill -9 a second member: writes",
      fmt::format("5 of 5 refused, slowest {:.0f} ms, as {}", Millis(slowest),
                  absl::StatusCodeToString(refused.code())),
      slowest < kFailFastGoal && absl::IsUnavailable(refused));

  auto lone = OpenClient({cluster_->endpoint(survivor_)});
  absl::Duration worst;
  int stale = 0;
  std::vector<double> ages;
  for (const absl::Time start = absl::Now(); ages.empty() || absl::Now() - start < kWatchFor;) {
    const absl::Time before = absl::Now();
    const auto read = lone->Get(kWatchedKey, ReadOptions::Bounded(absl::InfiniteDuration()));
    worst = std::max(worst, absl::Now() - before);
    if (!read.ok()) return read.status();
    ages.push_back(Seconds(read->fresh.MaxAge()));
    ++stale;
    absl::SleepFor(absl::Milliseconds(20));
  }
  Row("one of three left: serializable reads",
      fmt::format("{} reads, slowest {:.1f} ms, age {:.2f} -> {:.2f} s", stale, Millis(worst),
                  ages.front(), ages.back()),
      worst < kStaleReadGoal && ages.back() > ages.front());
  ServiceRow("one of three left: example service", true);
  return absl::OkStatus();
}

absl::Status Demo::RestartSurvivor() {
  absl::Status killed = cluster_->Kill(survivor_);
  if (!killed.ok()) return killed;
  auto lone = OpenClient({cluster_->endpoint(survivor_)});
  service_->Take();
  const absl::Time start = absl::Now();
  absl::Status started = cluster_->Restart(survivor_);
  if (!started.ok()) return started;
  absl::Status last;
  while (absl::Now() - start < absl::Seconds(20)) {
    const auto read =
        lone->Get(kWatchedKey,
                  ReadOptions::Bounded(absl::InfiniteDuration()).Deadline(absl::Milliseconds(200)));
    last = read.status();
    if (!read.ok()) {
      absl::SleepFor(absl::Milliseconds(2));
      continue;
    }
    const absl::Duration took = absl::Now() - start;
    const absl::Duration age = read->fresh.MaxAge();
    const auto differences = Differences(survivor_, ReadOptions::Bounded(absl::InfiniteDuration()));
    if (!differences.ok()) return differences.status();
    Row("kill -9 and restart the lone survivor",
        fmt::format(
            "answers {:.0f} ms after its start, age {}, {} differences", Millis(took),
            age == absl::InfiniteDuration() ? "unknown" : fmt::format("{:.2f} s", Seconds(age)),
            *differences),
        took < kRestartGoal && *differences == 0);
    absl::SleepFor(absl::Seconds(2));
    const ServiceReport r = service_->Take();
    Row("restarted alone: example service",
        fmt::format("{} reads, last: {}", r.reads,
                    r.last_line.substr(0, r.last_line.find(" value="))),
        r.reads > 0);
    return absl::OkStatus();
  }
  return last;
}

absl::Status Demo::BringAllBack() {
  const absl::Time start = absl::Now();
  for (int i = 0; i < cluster_->size(); ++i) {
    if (cluster_->Running(i)) continue;
    const absl::Status started = cluster_->Restart(i);
    if (!started.ok()) return started;
  }
  const auto wrote = TimeToWrite(absl::Seconds(30));
  if (!wrote.ok()) return wrote.status();
  Row("bring all back: writes",
      fmt::format("acknowledged {:.0f} ms after the restart", Millis(absl::Now() - start)), true);
  int differences = 0, missing = 0;
  for (int i = 0; i < cluster_->size(); ++i) {
    const auto found = Differences(i, ReadOptions::Linearizable());
    if (!found.ok()) return found.status();
    differences += *found;
    auto client = OpenClient({cluster_->endpoint(i)});
    for (const std::string& key : acked_) {
      const auto read = client->Get(key);
      if (!read.ok()) return read.status();
      if (!read->value) ++missing;
    }
  }
  Row("every byte again, on every member",
      fmt::format("{} differences, {} of {} acknowledged drill writes missing", differences,
                  missing, acked_.size()),
      differences == 0 && missing == 0);
  absl::SleepFor(absl::Seconds(2));
  service_->Take();
  absl::SleepFor(absl::Seconds(1));
  ServiceRow("all back: example service", false);
  return absl::OkStatus();
}

}  // namespace holdfast::bench
