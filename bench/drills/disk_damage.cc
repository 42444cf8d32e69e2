// Drill 14: the copy on disk is damaged in every way, and the writer is killed a thousand times.
#include <fmt/format.h>
#include <sys/mount.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/time/clock.h"
#include "base/rng.h"
#include "bench/drills/all.h"
#include "bench/drills/generations.h"
#include "bench/drills/service.h"
#include "bench/drills/standard.h"
#include "client/last_good.h"

namespace holdfast::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kFlips = 60;
constexpr int kCuts = 30;
constexpr int kKills = 1000;
constexpr absl::Duration kKillsLimit = absl::Minutes(5);
constexpr absl::Duration kSoon = absl::Seconds(20);
constexpr uint64_t kKeptBefore = 6;  // generations written before anything is damaged

std::string Contents(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void Overwrite(const std::string& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
}

// The files of whole generations, newest first.
std::vector<std::string> GenerationFiles(const std::string& dir) {
  std::vector<std::string> files;
  const auto listing = internal::ListGenerations(dir, internal::Surroundings::OfThisMachine());
  if (!listing.ok()) return files;
  for (const internal::GenerationListing& one : *listing) files.push_back(one.file);
  return files;
}

// A small disk of its own, that can be filled and made read-only.
class SmallDisk {
 public:
  explicit SmallDisk(std::string path) : path_(std::move(path)) {
    fs::create_directories(path_);
    mounted_ = mount("drill", path_.c_str(), "tmpfs", 0, "size=64k,mode=0700") == 0;
  }
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  bool mounted() const { return mounted_; }
  const std::string& path() const { return path_; }
  bool MakeReadOnly() const {
    return mount("drill", path_.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, "size=64k") == 0;
  }

 private:
  const std::string path_;
  bool mounted_ = false;
};

class DiskTrouble : public Observer {
 public:
  void OnDiskProblem(std::string_view, const absl::Status& status) override {
    std::lock_guard lock(mutex_);
    ++count_;
    last_ = status.ToString();
  }
  int count() const {
    std::lock_guard lock(mutex_);
    return count_;
  }
  std::string last() const {
    std::lock_guard lock(mutex_);
    return last_;
  }

 private:
  mutable std::mutex mutex_;
  int count_ = 0;
  std::string last_;
};

class Run {
 public:
  explicit Run(DrillRun& run) : run_(run), rng_(run.options().seed) {}

  absl::Status Play() {
    for (const auto step : {&Run::Prepare, &Run::Damage, &Run::BadDisks, &Run::KillWriters}) {
      if (absl::Status status = (this->*step)(); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  struct Start {
    uint64_t generation = 0;  // 0: the defaults
    bool torn = false;
    absl::Status failed;
  };

  absl::Status Prepare() {
    auto store = DrillStore::Start(run_, {.members = 1});
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    run_.timeline().Begin("damaged files", true);
    if (absl::Status status = StartWriter("sound"); !status.ok()) return status;
    const absl::Status written = run_.Await("some generations are on disk", kSoon, [&] {
      return writer_->report().written >= kKeptBefore;
    });
    if (!written.ok()) return written;
    writer_->Kill();
    const auto newest = NewestGeneration(store_->Directory("sound"));
    if (!newest.ok()) return newest.status();
    newest_ = *newest;
    return absl::OkStatus();
  }

  absl::Status StartWriter(const std::string& dir) {
    ServiceTerms terms;
    terms.role = ServiceRole::kDisk;
    terms.endpoints = {"127.0.0.1:1"};
    terms.disk_dir = store_->Directory(dir);
    terms.prefix = kGenerationPrefix;
    terms.key = kGenerationPrefix;
    if (writer_ == nullptr) writer_ = std::make_unique<Service>(terms, nullptr, nullptr);
    writer_->terms() = terms;
    return writer_->Start();
  }

  // A service starts with this directory and without a store.
  Start StartFrom(const std::string& dir) {
    Start start;
    ClientOptions options;
    options.endpoints = {"127.0.0.1:1"};
    options.prefixes = {{kGenerationPrefix, Policy::FailStatic()
                                                .Disk(dir)
                                                .StartupWait(absl::ZeroDuration())
                                                .Defaults({{.key = "/disk/default"}})}};
    auto client = Client::Open(std::move(options));
    if (!client.ok()) {
      start.failed = client.status();
      return start;
    }
    const auto set = (*client)->mirror(kGenerationPrefix)->Snapshot();
    if (!set.ok()) {
      start.failed = set.status();
      return start;
    }
    if (set->fresh.source() == Source::kDefault) return start;
    const auto which = WhichGeneration(set->value.Entries());
    start.torn = !which.ok();
    if (which.ok()) start.generation = *which;
    return start;
  }

  // `damage` gets the newest generation's file of a fresh copy of the directory.
  void Try(const std::string& name, int times,
           const std::function<void(const std::string& dir, const std::string& newest)>& damage) {
    int newest = 0, older = 0, defaults = 0, torn = 0;
    std::string failed;
    for (int i = 0; i < times && !run_.cancelled(); ++i) {
      const std::string dir = store_->Directory("damaged");
      fs::remove_all(dir);
      fs::copy(store_->Directory("sound"), dir, fs::copy_options::recursive);
      const std::vector<std::string> files = GenerationFiles(dir);
      if (files.empty()) return;
      damage(dir, files[0]);
      const Start start = StartFrom(dir);
      if (!start.failed.ok()) failed = start.failed.ToString();
      torn += start.torn ? 1 : 0;
      newest += start.generation == newest_ ? 1 : 0;
      older += start.generation > 0 && start.generation < newest_ ? 1 : 0;
      defaults += start.generation == 0 && start.failed.ok() && !start.torn ? 1 : 0;
    }
    run_.AddGoal(fmt::format("{}, {} times", name, times),
                 torn == 0 && failed.empty() && newest + older + defaults == times,
                 failed.empty() ? fmt::format("{} newest, {} older, {} defaults, {} torn", newest,
                                              older, defaults, torn)
                                : failed,
                 "a whole generation or the defaults");
  }

  absl::Status Damage() {
    Try("a bit flipped in the newest generation", kFlips, [&](const auto&, const auto& file) {
      std::string bytes = Contents(file);
      bytes[rng_.Below(bytes.size())] ^= char(1 << rng_.Below(8));
      Overwrite(file, bytes);
    });
    Try("the newest generation cut short", kCuts, [&](const auto&, const auto& file) {
      fs::resize_file(file, rng_.Below(fs::file_size(file)));
    });
    Try("the newest generation of another format", 1, [&](const auto&, const auto& file) {
      Overwrite(file, "holdfast-generation-of-1999\n" + Contents(file).substr(28));
    });
    Try("the newest generation removed", 1,
        [&](const auto&, const auto& file) { fs::remove(file); });
    Try("every file of the directory cut in half", 1, [&](const std::string& dir, const auto&) {
      for (const auto& entry : fs::recursive_directory_iterator(dir)) {
        if (entry.is_regular_file()) fs::resize_file(entry.path(), entry.file_size() / 2);
      }
    });
    Try("noise in every file but the generations", 10, [&](const std::string& dir, const auto&) {
      const std::vector<std::string> keep = GenerationFiles(dir);
      for (const auto& entry : fs::recursive_directory_iterator(dir)) {
        if (!entry.is_regular_file() || std::ranges::count(keep, entry.path().string()) > 0)
          continue;
        std::string noise(rng_.Below(300), '\0');
        for (char& c : noise) c = char(rng_.Below(256));
        Overwrite(entry.path().string(), noise);
      }
    });
    Try("a file where the directory was", 1, [&](const std::string& dir, const auto&) {
      fs::remove_all(dir);
      Overwrite(dir, "not a directory");
    });
    return run_.cancelled() ? absl::CancelledError("interrupted") : absl::OkStatus();
  }

  // A service whose disk is full, or read-only, lives on and says so.
  absl::Status BadDisks() {
    run_.timeline().Begin("full and read-only disks", true);
    if (absl::Status status = store_->Fill(); !status.ok()) return status;
    for (const bool read_only : {false, true}) {
      const std::string name = read_only ? "a read-only disk" : "a full disk";
      SmallDisk disk(store_->Directory(read_only ? "read-only" : "full"));
      if (!disk.mounted() || (read_only && !disk.MakeReadOnly())) {
        run_.Note(name + " was not tried: this process may not mount");
        continue;
      }
      auto trouble = std::make_shared<DiskTrouble>();
      ClientOptions options = store_->ServiceOptions(
          "small", {{kConfigPrefix, Policy::FailStatic().Disk(disk.path())}});
      options.observer = trouble;
      auto client = Client::Open(std::move(options));
      bool served = false;
      if (client.ok()) {
        const absl::Status told =
            run_.Await("trouble is told", kSoon, [&] { return trouble->count() > 0; });
        if (absl::IsCancelled(told)) return told;
        served = (*client)->mirror(kConfigPrefix)->Get(kConfigKey).ok();
      }
      run_.AddGoal(name + ": the service lives on, and says so",
                   client.ok() && served && trouble->count() > 0,
                   client.ok() ? (trouble->count() > 0 ? trouble->last().substr(0, 90) : "not told")
                               : client.status().ToString(),
                   "served, and OnDiskProblem");
    }
    return absl::OkStatus();
  }

  absl::Status KillWriters() {
    run_.timeline().Begin("kill -9 while writing", true);
    const absl::Duration asked = run_.options().drill.length;
    const int64_t give_up_ns =
        Timeline::Now() +
        absl::ToInt64Nanoseconds(asked > absl::ZeroDuration() ? asked : kKillsLimit);
    int kills = 0, torn = 0, lost = 0;
    std::string what;
    uint64_t before = 0;
    while (kills < kKills && Timeline::Now() < give_up_ns) {
      if (run_.cancelled()) return absl::CancelledError("interrupted");
      if (absl::Status status = StartWriter("killed"); !status.ok()) return status;
      const absl::Status writes = run_.Await("the writer writes", kSoon,
                                             [&] { return writer_->report().written > before; });
      if (!writes.ok()) return writes;
      absl::SleepFor(absl::Microseconds(int64_t(rng_.Below(6'000))));
      writer_->Kill();
      ++kills;
      const uint64_t told = writer_->report().written;
      const auto newest = NewestGeneration(store_->Directory("killed"));
      if (!newest.ok()) {
        ++torn;
        what = newest.status().ToString();
        continue;
      }
      if (*newest < told) ++lost;
      before = *newest;
    }
    run_.timeline().End();
    run_.AddGoal("kill -9 of a writer: copies that were torn or gone", torn == 0,
                 fmt::format("{} of {} kills{}{}", torn, kills, what.empty() ? "" : ": ", what),
                 "0");
    run_.AddGoal("kill -9 of a writer: generations lost that were said to be on disk", lost == 0,
                 fmt::format("{}", lost), "0");
    run_.AddGoal("kills", kills == kKills || asked > absl::ZeroDuration(), fmt::format("{}", kills),
                 fmt::format("{}", kKills));
    return absl::OkStatus();
  }

  DrillRun& run_;
  base::Rng rng_;
  std::unique_ptr<DrillStore> store_;
  std::unique_ptr<Service> writer_;
  uint64_t newest_ = 0;
};

}  // namespace

absl::Status DiskDamage(DrillRun& run) {
  run.Note("without a figure: there is no outage here to be shown over time");
  return Run(run).Play();
}

}  // namespace holdfast::bench
