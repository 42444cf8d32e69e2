// Drill 5: the copy on disk is from before a reboot, and the wall clock is right, wrong, or not to
// be trusted.
#include <fmt/format.h>

#include "absl/time/clock.h"
#include "bench/drills/all.h"
#include "bench/drills/standard.h"
#include "client/machine_clock.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kBound = absl::Hours(1);
constexpr absl::Duration kDowntime = absl::Minutes(10);
constexpr absl::Duration kOnDisk = absl::Seconds(20);

// This machine's clocks, on a machine that has had other boots and another wall clock.
class Machine : public internal::MachineClock {
 public:
  Machine(std::string boot, absl::Duration wall_ahead, bool synchronized)
      : boot_(std::move(boot)), wall_ahead_(wall_ahead), synchronized_(synchronized) {}

  base::ClockSample Sample() const override { return base::RealClock::Get()->Sample(); }
  internal::WallReading Wall() const override {
    return {.now = absl::Now() + wall_ahead_,
            .synchronized = synchronized_,
            .error = absl::Milliseconds(5)};
  }
  std::string BootId() const override { return boot_; }

 private:
  const std::string boot_;
  const absl::Duration wall_ahead_;
  const bool synchronized_;
};

struct Case {
  const char* name;
  const char* boot;
  absl::Duration wall_ahead;  // of when the copy was written
  bool synchronized;
  Proof wanted;
};
const Case kCases[] = {
    {"same boot", "boot-1", absl::ZeroDuration(), true, Proof::kProven},
    {"rebooted, clock right, 10 min down", "boot-2", kDowntime, true, Proof::kEstimated},
    {"rebooted, clock an hour back", "boot-2", -absl::Hours(1), true, Proof::kUnknown},
    {"rebooted, clock not synchronized", "boot-2", kDowntime, false, Proof::kUnknown},
};

struct Seen {
  absl::Status config;  // OK, or why it was refused
  Freshness fresh;
  absl::Status proven_auth, estimated_auth;
};

absl::StatusOr<std::unique_ptr<Client>> Open(const DrillStore& store, const Case& one,
                                             Proof auth_needs, std::shared_ptr<Observer> observer) {
  ClientOptions options = store.ServiceOptions(
      "service", {{kConfigPrefix, Policy::FailStatic().Probation(absl::ZeroDuration())},
                  {kAuthPrefix, Policy::FailClosedAfter(kBound, auth_needs)
                                    .Probation(absl::ZeroDuration())
                                    .StartupWait(absl::Seconds(2))}});
  options.clock = std::make_shared<Machine>(one.boot, one.wall_ahead, one.synchronized);
  options.observer = std::move(observer);
  return Client::Open(std::move(options));
}

absl::StatusOr<Seen> Look(const DrillStore& store, const Case& one) {
  Seen seen;
  for (const Proof needs : {Proof::kProven, Proof::kEstimated}) {
    auto client = Open(store, one, needs, nullptr);
    if (!client.ok()) return client.status();
    const auto auth = (*client)->mirror(kAuthPrefix)->Get(kAuthKey);
    (needs == Proof::kProven ? seen.proven_auth : seen.estimated_auth) = auth.status();
    const auto config = (*client)->mirror(kConfigPrefix)->Get(kConfigKey);
    seen.config = config.status();
    if (config.ok()) seen.fresh = config->fresh;
  }
  return seen;
}

}  // namespace

absl::Status Reboot(DrillRun& run) {
  auto store = DrillStore::Start(run, {});
  if (!store.ok()) return store.status();
  if (absl::Status status = (*store)->Fill(); !status.ok()) return status;
  run.timeline().Begin("all well");
  {
    auto links = std::make_shared<LinkLog>(&run.timeline());
    auto client = Open(**store, kCases[0], Proof::kProven, links);
    if (!client.ok()) return client.status();
    const absl::Status written = run.Await("both copies are on disk", kOnDisk, [&] {
      return links->WrittenRevision(kConfigPrefix) > 0 && links->WrittenRevision(kAuthPrefix) > 0;
    });
    if (!written.ok()) return written;
    if (absl::Status status = run.Sleep(absl::Seconds(3)); !status.ok()) return status;
  }
  run.timeline().Begin("every server gone", true);
  (*store)->KillAll();

  DrillTable table;
  table.title = "a service that starts from the copy on disk";
  table.columns = {"machine", "config", "proof", "age", "auth, proven", "auth, estimated"};
  const auto word = [](const absl::Status& status) {
    return std::string(status.ok()                          ? "served"
                       : absl::IsFailedPrecondition(status) ? "refused"
                                                            : "?");
  };
  for (const Case& one : kCases) {
    const auto seen = Look(**store, one);
    if (!seen.ok()) return seen.status();
    const absl::Duration age = seen->fresh.MaxAge();
    run.AddGoal(fmt::format("{}: config is served, its age is", one.name),
                seen->config.ok() && seen->fresh.proof() == one.wanted,
                std::string(ToString(seen->fresh.proof())), std::string(ToString(one.wanted)));
    const bool estimated = one.wanted != Proof::kUnknown;
    run.AddGoal(fmt::format("{}: auth that needs a proof / an estimate", one.name),
                seen->proven_auth.ok() == (one.wanted == Proof::kProven) &&
                    seen->estimated_auth.ok() == estimated,
                word(seen->proven_auth) + " / " + word(seen->estimated_auth),
                fmt::format("{} / {}", one.wanted == Proof::kProven ? "served" : "refused",
                            estimated ? "served" : "refused"));
    if (one.wanted == Proof::kEstimated) {
      run.AddGoal(fmt::format("{}: the estimate counts the time it was off", one.name),
                  age >= kDowntime && age < kDowntime + absl::Minutes(1),
                  absl::FormatDuration(absl::Trunc(age, absl::Milliseconds(1))),
                  ">= 10 min, by less than 1 min");
    }
    table.rows.push_back({one.name, word(seen->config), std::string(ToString(seen->fresh.proof())),
                          age == absl::InfiniteDuration()
                              ? "unknown"
                              : absl::FormatDuration(absl::Trunc(age, absl::Milliseconds(1))),
                          word(seen->proven_auth), word(seen->estimated_auth)});
  }
  run.AddTable(std::move(table));
  run.Note(
      "the machine is this one, with another boot id and another wall clock given to the "
      "client; the files are real ones. Without a figure: nothing here takes time.");
  return absl::OkStatus();
}

}  // namespace holdfast::bench
