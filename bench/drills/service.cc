// The child: `holdfast-bench drill-service`.
#include "bench/drills/service.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/strings.h"
#include "bench/drills/etcd_reader.h"
#include "bench/drills/features.h"
#include "bench/drills/generations.h"
#include "bench/drills/load.h"
#include "bench/monotonic.h"
#include "bench/proc_stats.h"
#include "holdfast/client.h"

namespace holdfast::bench {
namespace {

constexpr int64_t kTellNs = 100'000'000;
constexpr absl::Duration kPlainPoll = absl::Milliseconds(100);
constexpr int kGaveUp = 3;  // exit code: Client::Open did not succeed

// Lines to the bench. What it does not take goes nowhere: the service must not wait for it.
void Tell(const std::string& line) {
  const std::string whole = line + "\n";
  (void)!write(STDOUT_FILENO, whole.data(), whole.size());
}

std::string OneLine(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  return text;
}

std::string FirstWord(std::string_view text) {
  const std::string_view word = text.substr(0, text.find_first_of(" \n"));
  return word.empty() ? "-" : std::string(word);
}

PrefixOptions PrefixOf(const ServiceTerms& terms) {
  PrefixOptions prefix;
  prefix.prefix = terms.prefix;
  prefix.policy = terms.bound == absl::InfiniteDuration() ? Policy::FailStatic()
                                                          : Policy::FailClosedAfter(terms.bound);
  prefix.policy.Probation(terms.probation);
  if (terms.role == ServiceRole::kFeatures) prefix.policy.Validate(CheckFeatures);
  return prefix;
}

// What has happened since the last sample.
struct Tally {
  uint64_t served = 0, reduced = 0, refused = 0, failed = 0, poisoned = 0;
};

class ReaderService {
 public:
  ReaderService(const ServiceTerms& terms, int64_t started_ns)
      : terms_(terms), started_ns_(started_ns), reader_(oracle_.AddReader(nullptr, "")) {}

  int Run() {
    ClientOptions options;
    options.endpoints = terms_.endpoints;
    options.name = terms_.name;
    options.disk_dir = terms_.disk_dir;
    options.prefixes = {PrefixOf(terms_)};
    const int64_t begin_ns = BootNs();
    auto client = Client::Open(std::move(options));
    const int64_t open_us = (BootNs() - begin_ns) / 1000;
    if (!client.ok()) {
      Tell(fmt::format("X {}", OneLine(client.status().ToString())));
      return kGaveUp;
    }
    Tell(fmt::format("O {}", open_us));
    client_ = *std::move(client);
    mirror_ = client_->mirror(terms_.prefix);
    Loop();
  }

 private:
  [[noreturn]] void Loop() {
    const int64_t period_ns = int64_t(1e9 / terms_.reads_per_second);
    int64_t due_ns = MonotonicNs();
    int64_t tell_ns = due_ns;
    while (true) {
      Read();
      const int64_t now_ns = MonotonicNs();
      if (now_ns >= tell_ns) {
        TellSample();
        tell_ns = now_ns + kTellNs;
      }
      due_ns = std::max(due_ns + period_ns, now_ns);
      SleepUntilNs(due_ns);
    }
  }

  void Read() {
    uint64_t shown = 0;
    const absl::StatusOr<Freshness> fresh = mirror_->Visit(terms_.key, [&](const EntryView* entry) {
      shown = entry == nullptr ? 0 : entry->mod_revision;
      file_.assign(entry == nullptr ? std::string_view() : entry->value);
    });
    if (!fresh.ok()) {
      (OutcomeOf(fresh.status()) == CallOutcome::kRefused ? tally_.refused : tally_.failed) += 1;
      error_ = fresh.status();
      return;
    }
    const int64_t at_ns = BootNs();
    const absl::Duration age = fresh->MaxAge();
    ++tally_.served;
    if (fresh->grade() == Grade::kReduced) ++tally_.reduced;
    reader_->Read(shown, at_ns, age, fresh->proof());
    fresh_ = *fresh;
    revision_ = shown;
    if (!first_told_) {
      first_told_ = true;
      Tell(fmt::format("F {}", (at_ns - started_ns_) / 1000));
    }
    if (terms_.role == ServiceRole::kFeatures) Obey();
  }

  // What the service has the file for: it is parsed when it changes, and used for each request.
  void Obey() {
    if (file_ != obeyed_) {
      obeyed_ = file_;
      if (IsPoisoned(file_)) {
        ++tally_.poisoned;
        TellSample();  // it may be the last
      }
      auto features = ParseFeatures(file_);
      if (!features.ok()) {
        std::fprintf(stderr, "%s\n", features.status().ToString().c_str());
        std::abort();
      }
      features_ = *std::move(features);
    }
    (void)features_.Score(1000);
  }

  void TellSample() {
    for (const ClaimGroup& group : reader_->Take()) {
      Tell(fmt::format("G {} {} {} {}", group.revision, group.claimed_ns, group.claimed_half_ns,
                       group.reads));
    }
    const MirrorStatus status = mirror_->status();
    const absl::Duration age = fresh_.MaxAge();
    Tell(fmt::format("S {} {} {} {} {} {} {} {} {} {} {} {} {} {} {:.3f} {}", BootNs(),
                     tally_.served, tally_.reduced, tally_.refused, tally_.failed, tally_.poisoned,
                     age == absl::InfiniteDuration() ? -1 : absl::ToInt64Microseconds(age),
                     reader_->unproven(), std::string(ToString(fresh_.proof())),
                     std::string(ToString(fresh_.source())), std::string(ToString(status.link)),
                     revision_, status.rejections, fresh_.superseded() ? 1 : 0,
                     ReadOwnUsage().cpu_seconds, FirstWord(file_)));
    tally_ = {};
    if (!error_.ok()) Tell(fmt::format("E {}", OneLine(error_.ToString())));
    error_ = absl::OkStatus();
  }

  const ServiceTerms& terms_;
  const int64_t started_ns_;
  DrillOracle oracle_;  // groups the claims; the bench judges them
  DrillOracle::Reader* const reader_;
  std::unique_ptr<Client> client_;
  Mirror* mirror_ = nullptr;
  Freshness fresh_;
  Tally tally_;
  absl::Status error_;
  std::string file_;
  std::string obeyed_;
  Features features_;
  uint64_t revision_ = 0;
  bool first_told_ = false;
};

// As one writes it on an etcd client: ask, parse, use.
[[noreturn]] void RunPlain(const ServiceTerms& terms) {
  EtcdReader reader(terms.endpoints);
  std::string obeyed;
  Features features;
  Tell("O 0");
  while (true) {
    Tally tally;
    const auto answer = reader.Get(terms.key, false);
    (answer.ok() ? tally.served : tally.failed) += 1;
    if (answer.ok() && answer->value != obeyed) {
      obeyed = answer->value;
      if (IsPoisoned(obeyed) || obeyed.empty()) tally.poisoned = 1;
    }
    Tell(fmt::format("S {} {} 0 0 {} {} -1 0 unknown leader live {} 0 0 0 {}", BootNs(),
                     tally.served, tally.failed, tally.poisoned,
                     answer.ok() ? answer->mod_revision : 0, FirstWord(obeyed)));
    if (answer.ok()) {
      auto parsed = ParseFeatures(obeyed);
      if (!parsed.ok()) {
        std::fprintf(stderr, "%s\n", parsed.status().ToString().c_str());
        std::abort();
      }
      (void)parsed->Score(1000);
    }
    SleepUntilNs(MonotonicNs() + absl::ToInt64Nanoseconds(kPlainPoll));
  }
}

// A child of a process that has a client: what is said of a write in each.
int RunForks(const ServiceTerms& terms) {
  auto client = Client::Open({.endpoints = terms.endpoints, .name = terms.name});
  if (!client.ok()) return kGaveUp;
  const auto put = [&](const std::string& who) {
    const auto result = (*client)->Put(terms.key + "/" + who, who, {.deadline = absl::Seconds(3)});
    return fmt::format("{} {}", who, OneLine(result.status().ToString()));
  };
  (void)put("before");
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    Tell("X " + put("child"));
    _exit(0);
  }
  Tell("E " + put("parent"));
  int status = 0;
  waitpid(child, &status, 0);
  return 0;
}

struct RoleName {
  ServiceRole role;
  const char* name;
};
constexpr RoleName kRoles[] = {{ServiceRole::kReader, "reader"},
                               {ServiceRole::kFeatures, "features"},
                               {ServiceRole::kPlain, "plain"},
                               {ServiceRole::kForks, "forks"},
                               {ServiceRole::kDisk, "disk"}};

}  // namespace

std::vector<std::string> ServiceTerms::Args() const {
  const std::string role_name = std::ranges::find(kRoles, role, &RoleName::role)->name;
  std::vector<std::string> args = {"--role=" + role_name,
                                   "--endpoints=" + absl::StrJoin(endpoints, ","),
                                   "--prefix=" + prefix,
                                   "--key=" + key,
                                   "--bound=" + absl::FormatDuration(bound),
                                   "--probation=" + absl::FormatDuration(probation),
                                   fmt::format("--rate={}", reads_per_second)};
  if (!name.empty()) args.push_back("--name=" + name);
  if (!disk_dir.empty()) args.push_back("--disk-dir=" + disk_dir);
  return args;
}

absl::StatusOr<ServiceTerms> ServiceTerms::Parse(const std::vector<std::string>& args) {
  ServiceTerms terms;
  std::string role, endpoints, bound, probation;
  CLI::App app("a service of a drill", kServiceCommand);
  app.add_option("--role", role)->required();
  app.add_option("--endpoints", endpoints)->required();
  app.add_option("--name", terms.name);
  app.add_option("--disk-dir", terms.disk_dir);
  app.add_option("--prefix", terms.prefix)->required();
  app.add_option("--key", terms.key)->required();
  app.add_option("--bound", bound);
  app.add_option("--probation", probation);
  app.add_option("--rate", terms.reads_per_second);
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  const auto known =
      std::ranges::find_if(kRoles, [&](const auto& one) { return role == one.name; });
  if (known == std::end(kRoles)) return absl::InvalidArgumentError("there is no such --role");
  terms.role = known->role;
  terms.endpoints = absl::StrSplit(endpoints, ',');
  if ((!bound.empty() && !absl::ParseDuration(bound, &terms.bound)) ||
      (!probation.empty() && !absl::ParseDuration(probation, &terms.probation))) {
    return absl::InvalidArgumentError("--bound and --probation take durations");
  }
  return terms;
}

int RunService(const std::vector<std::string>& args) {
  const int64_t started_ns = BootNs();
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  signal(SIGPIPE, SIG_IGN);
  const auto terms = ServiceTerms::Parse(args);
  if (!terms.ok()) {
    std::fprintf(stderr, "%s\n", terms.status().ToString().c_str());
    return 2;
  }
  if (terms->role == ServiceRole::kPlain) RunPlain(*terms);
  if (terms->role == ServiceRole::kForks) return RunForks(*terms);
  if (terms->role == ServiceRole::kDisk) return WriteGenerations(terms->disk_dir, Tell);
  return ReaderService(*terms, started_ns).Run();
}

}  // namespace holdfast::bench
