#include "runner.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "world.h"

namespace holdfast::sim {
namespace {

// Every so many seeds one runs twice, and must end the same.
constexpr uint64_t kTwiceOneIn = 20;
// A smaller batch may miss a rare kind of trouble by chance.
constexpr uint64_t kSeedsThatShowEverything = 200;
constexpr size_t kMaxReportBytes = 16 << 10;
constexpr size_t kMaxFailedTold = 64;

std::atomic<uint64_t> g_seed{0};

// Only async-signal-safe calls here.
extern "C" void NameSeed(int signal_number) {
  char text[96] = "\nthe run that died: build/bin/holdfast-sim --seed ";
  size_t length = std::strlen(text);
  char digits[24];
  size_t count = 0;
  uint64_t seed = g_seed.load();
  do {
    digits[count++] = static_cast<char>('0' + seed % 10);
    seed /= 10;
  } while (seed != 0);
  while (count > 0) text[length++] = digits[--count];
  text[length++] = '\n';
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, length);
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

// Of this process and of its children that ended.
double ProcessorSeconds() {
  double seconds = 0;
  for (const int whose : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage usage;
    CHECK(getrusage(whose, &usage) == 0);
    for (const timeval& t : {usage.ru_utime, usage.ru_stime}) {
      seconds += static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    }
  }
  return seconds;
}

double Now() {
  using std::chrono::duration;
  using std::chrono::steady_clock;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

struct SeedResult {
  std::string failure;
  uint64_t digest = 0;
  Figures figures;
};

SeedResult RunOnce(uint64_t seed, const Batch& batch) {
  World world(SimOptions::FromSeed(seed), batch.trace);
  SeedResult result;
  if (!world.Run()) result.failure = world.failure();
  result.digest = world.Digest();
  result.figures = world.figures;
  if (result.failure.empty() && result.figures.recovery_ms_max > batch.recovery_ms) {
    result.failure = fmt::format("it took {} ms to recover", result.figures.recovery_ms_max);
  }
  return result;
}

SeedResult RunSeed(uint64_t seed, const Batch& batch) {
  g_seed = seed;
  SeedResult result = RunOnce(seed, batch);
  if (result.failure.empty() && seed % kTwiceOneIn == 0) {
    const SeedResult again = RunOnce(seed, batch);
    if (again.digest != result.digest || !again.failure.empty()) {
      result.failure =
          "the same seed gave two different runs: something random is not drawn "
          "from it";
    }
    ++result.figures.replayed;
  }
  return result;
}

std::string Report(uint64_t seed, const std::string& failure) {
  return fmt::format("FAILED: {}\n{}\nsee it again: build/bin/holdfast-sim --seed {} --trace\n",
                     failure, SimOptions::FromSeed(seed).ToString(), seed);
}

// What a process tells its parent: this, then `report_bytes` of text.
struct Told {
  Figures figures;
  uint64_t seeds = 0;
  uint64_t failed_count = 0;
  uint64_t failed[kMaxFailedTold] = {};
  uint64_t report_bytes = 0;
};

bool WriteAll(int fd, const void* data, size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = write(fd, at, bytes);
    if (n <= 0) return false;
    at += n;
    bytes -= static_cast<size_t>(n);
  }
  return true;
}

bool ReadAll(int fd, void* data, size_t bytes) {
  char* at = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t n = read(fd, at, bytes);
    if (n <= 0) return false;
    at += n;
    bytes -= static_cast<size_t>(n);
  }
  return true;
}

void Tell(int fd, const BatchResult& result) {
  Told told;
  told.figures = result.figures;
  told.seeds = result.seeds;
  told.failed_count = std::min(result.failed.size(), kMaxFailedTold);
  std::copy_n(result.failed.begin(), told.failed_count, told.failed);
  told.report_bytes = std::min(result.report.size(), kMaxReportBytes);
  CHECK(WriteAll(fd, &told, sizeof(told)));
  CHECK(WriteAll(fd, result.report.data(), told.report_bytes));
}

void Hear(int fd, BatchResult& all) {
  auto told = std::make_unique<Told>();
  if (!ReadAll(fd, told.get(), sizeof(Told))) {
    all.failed.push_back(0);
    if (all.report.empty()) all.report = "FAILED: a process of the batch died; see above\n";
    return;
  }
  std::string report(told->report_bytes, 0);
  CHECK(ReadAll(fd, report.data(), report.size()));
  all.figures.Add(told->figures);
  all.seeds += told->seeds;
  all.failed.insert(all.failed.end(), told->failed, told->failed + told->failed_count);
  if (all.report.empty()) all.report = std::move(report);
}

}  // namespace

BatchResult RunBatch(const Batch& batch) {
  for (const int number : {SIGABRT, SIGSEGV, SIGFPE, SIGBUS}) signal(number, NameSeed);
  // One thread: the search for lock cycles, on in Debian's Abseil, would find none.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  constexpr double kProgressSeconds = 10;
  const double began = Now();
  const double worked = ProcessorSeconds();
  double next_progress = began + kProgressSeconds;
  BatchResult result;
  for (uint64_t i = 0; i < batch.count; ++i) {
    if (batch.seconds > 0 && Now() - began >= batch.seconds) break;
    const uint64_t seed = batch.first_seed + i * batch.stride;
    const SeedResult one = RunSeed(seed, batch);
    result.figures.Add(one.figures);
    ++result.seeds;
    if (!one.failure.empty()) {
      result.failed.push_back(seed);
      if (result.report.empty()) result.report = Report(seed, one.failure);
      if (batch.until_failure) break;
      fmt::print(stderr, "seed {}: {}\n", seed, one.failure);
    }
    if (!batch.quiet && Now() >= next_progress) {
      next_progress = Now() + kProgressSeconds;
      fmt::print(stderr, "{} seeds, {:.0f} s\n", result.seeds, Now() - began);
    }
  }
  result.seconds = Now() - began;
  result.processor_seconds = ProcessorSeconds() - worked;
  return result;
}

BatchResult RunBatches(const Batch& batch, unsigned jobs) {
  if (jobs <= 1) return RunBatch(batch);
  const double began = Now();
  const double worked = ProcessorSeconds();
  std::vector<std::pair<pid_t, int>> children;
  for (unsigned job = 0; job < jobs; ++job) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      close(ends[0]);
      Batch part = batch;
      part.first_seed = batch.first_seed + job * batch.stride;
      part.stride = batch.stride * jobs;
      part.count = batch.count / jobs + (job < batch.count % jobs ? 1 : 0);
      part.quiet = batch.quiet || job > 0;
      Tell(ends[1], RunBatch(part));
      _exit(0);
    }
    close(ends[1]);
    children.emplace_back(child, ends[0]);
  }
  BatchResult all;
  for (const auto& [child, fd] : children) {
    Hear(fd, all);
    close(fd);
    waitpid(child, nullptr, 0);
  }
  all.seconds = Now() - began;
  all.processor_seconds = ProcessorSeconds() - worked;
  return all;
}

std::vector<std::string> MissingFigures(const BatchResult& result) {
  if (result.seeds < kSeedsThatShowEverything) return {};
  return result.figures.Missing();
}

}  // namespace holdfast::sim
