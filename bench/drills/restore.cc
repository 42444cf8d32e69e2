// Drill 13: the store is restored from a backup, so that its revisions go back.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "absl/time/clock.h"
#include "bench/drills/all.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kInBackup = 200;
constexpr int kAfterBackup = 40;
constexpr absl::Duration kCalm = absl::Seconds(3);
constexpr absl::Duration kNewData = absl::Seconds(45);
constexpr absl::Duration kPause = absl::Milliseconds(1);

// Runs a program to its end, its output dropped.
absl::Status Run(const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(quiet, STDOUT_FILENO);
    dup2(quiet, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(quiet);
  int status = 0;
  if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
    return absl::UnavailableError(
        fmt::format("{} {}: it ended with {}", words[0], words[1], status));
  }
  return absl::OkStatus();
}

// Reads the whole set all the time, and looks for what must never be seen.
class Watcher {
 public:
  Watcher(Mirror* mirror, Track* track)
      : mirror_(mirror), track_(track), thread_([this] { Loop(); }) {}
  ~Watcher() { Stop(); }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }

  std::atomic<uint64_t> mixed{0};      // neither the one set nor the other
  std::atomic<uint64_t> backwards{0};  // an earlier revision within one incarnation
  std::atomic<uint64_t> incarnations{0};
  std::atomic<uint64_t> revision{0};
  std::atomic<size_t> records{0};

 private:
  void Loop() {
    uint64_t incarnation = 0, newest = 0;
    while (!stop_) {
      const auto read = mirror_->Snapshot();
      const int64_t now_ns = BootNs();
      track_->Add(now_ns, OutcomeOf(read.status()));
      if (read.ok()) {
        track_->AddAge(now_ns, read->fresh.MaxAge());
        if (read->incarnation != incarnation) {
          ++incarnations;
          incarnation = read->incarnation;
          newest = 0;
        }
        if (read->fresh.revision() < newest) ++backwards;
        newest = std::max(newest, read->fresh.revision());
        revision = read->fresh.revision();
        records = read->value.size();
        if (records != kInBackup && records != kInBackup + kAfterBackup) ++mixed;
      }
      absl::SleepFor(kPause);
    }
  }

  Mirror* const mirror_;
  Track* const track_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

absl::Status RestoreMembers(DrillStore& store, const std::string& ctl, const std::string& backup) {
  LocalCluster& cluster = store.cluster();
  std::string initial;
  for (int i = 0; i < cluster.size(); ++i) {
    initial += fmt::format("{}m{}={}", i == 0 ? "" : ",", i, cluster.peer_url(i));
  }
  for (int i = 0; i < cluster.size(); ++i) {
    std::error_code ignored;
    fs::remove_all(cluster.data_dir(i), ignored);
    const absl::Status restored =
        Run({ctl, "snapshot", "restore", backup, "--data-dir", cluster.data_dir(i), "--name",
             fmt::format("m{}", i), "--initial-cluster", initial, "--initial-cluster-token",
             "after-the-fire", "--initial-advertise-peer-urls", cluster.peer_url(i),
             // The worst case: the default would leap far ahead of all that was.
             "--bump-revision", "0"});
    if (!restored.ok()) return restored;
  }
  return store.BringBack();
}

// Records that are all there at one revision, so that a half of them can be told.
absl::Status PutAtOnce(Client& client, const std::string& what, int records) {
  std::vector<Op> puts;
  for (int i = 0; i < records; ++i) {
    puts.push_back(Op::Put(fmt::format("{}{}-{:04}", kConfigPrefix, what, i), what));
  }
  return client.Commit(Txn().Then(std::move(puts))).status();
}

}  // namespace

absl::Status Restore(DrillRun& run) {
  const std::string ctl = BinaryBesideOwn("holdfastctl");
  auto started = DrillStore::Start(run, {});
  if (!started.ok()) return started.status();
  DrillStore& store = **started;
  for (const char* const half : {"a", "b"}) {
    if (absl::Status status = PutAtOnce(store.admin(), half, kInBackup / 2); !status.ok()) {
      return status;
    }
  }
  const std::string backup = store.Directory("backup.hfb");
  if (absl::Status status =
          Run({ctl, "--endpoints", store.direct()[0], "snapshot", "save", backup});
      !status.ok()) {
    return status;
  }
  if (absl::Status status = PutAtOnce(store.admin(), "later", kAfterBackup); !status.ok()) {
    return status;
  }
  auto client =
      Client::Open(store.ServiceOptions("service", {{kConfigPrefix, Policy::FailStatic()}}));
  if (!client.ok()) return client.status();
  Track* const track = run.timeline().AddTrack("config");
  Timeline& timeline = run.timeline();
  Watcher watcher((*client)->mirror(kConfigPrefix), track);
  const absl::Status loaded = run.Await(
      "the copy is there", kNewData, [&] { return watcher.records == kInBackup + kAfterBackup; });
  if (!loaded.ok()) return loaded;
  timeline.Begin("all well");
  const int64_t begin_ns = Timeline::Now();
  if (absl::Status status = run.Sleep(kCalm); !status.ok()) return status;
  const uint64_t revision_before = watcher.revision;

  timeline.Begin("every server gone", true);
  store.KillAll();
  if (absl::Status status = run.Sleep(kCalm); !status.ok()) return status;
  timeline.Begin("restored from the backup", true);
  const int64_t back_ns = Timeline::Now();
  if (absl::Status status = RestoreMembers(store, ctl, backup); !status.ok()) return status;
  const absl::Status taken = run.Await("the restored set is served", kNewData,
                                       [&] { return watcher.records == kInBackup; });
  if (absl::IsCancelled(taken)) return taken;
  const double taken_s = double(Timeline::Now() - back_ns) * 1e-9;
  const uint64_t revision_after = watcher.revision;
  timeline.Begin("served from the new store");
  // It is a store like any other: what is written now arrives.
  const absl::Status written = PutAtOnce(store.admin(), "later", kAfterBackup);
  const absl::Status arrived = run.Await(
      "a new write arrives", kNewData, [&] { return watcher.records == kInBackup + kAfterBackup; });
  if (absl::IsCancelled(arrived)) return arrived;
  if (absl::Status status = run.Sleep(kCalm); !status.ok()) return status;
  timeline.End();
  watcher.Stop();

  const Track::Totals totals = track->Between(begin_ns, Timeline::Now());
  run.AddGoal("reads of the whole set served",
              totals.offered() > 0 && totals.served == totals.offered(),
              ShareText(totals.ServedPercent(), totals.offered()), "100 %");
  run.AddGoal("sets seen that were neither the old nor the new one", watcher.mixed == 0,
              fmt::format("{}", watcher.mixed.load()), "0");
  run.AddGoal("the restored set is served", taken.ok(),
              fmt::format("{} after the restore began; revision {} after {}", SecondsText(taken_s),
                          revision_after, revision_before),
              "yes, at the lower revision");
  run.AddGoal("incarnations seen", watcher.incarnations == 2,
              fmt::format("{}", watcher.incarnations.load()), "2");
  run.AddGoal("revisions that went back inside of one", watcher.backwards == 0,
              fmt::format("{}", watcher.backwards.load()), "0");
  run.AddGoal("a write after the restore arrives", written.ok() && arrived.ok(),
              written.ok() && arrived.ok() ? "yes" : "no", "yes");
  Plot plot =
      timeline.NewPlot("Drill 13: restored from a backup",
                       "revisions go back; the old set is served until the new one is whole");
  PlotPanel reads;
  reads.title = "Reads served";
  reads.y_label = "per second";
  reads.lines.push_back({.name = "whole set",
                         .color = PlotColor::kBlue,
                         .points = track->PerSecond(CallOutcome::kServed, timeline.end_ns())});
  PlotPanel age;
  age.title = "Age of what was read";
  age.y_label = "seconds";
  age.lines.push_back(
      {.name = "largest", .color = PlotColor::kBlue, .points = track->AgeMax(timeline.end_ns())});
  plot.panels = {std::move(reads), std::move(age)};
  run.SetPlot(std::move(plot));
  return absl::OkStatus();
}

}  // namespace holdfast::bench
