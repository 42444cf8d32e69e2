// Drill 1: the leader is killed, several times, under load.
#include <fmt/format.h>

#include "bench/drills/all.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {
namespace {

constexpr int kRounds = 3;
constexpr absl::Duration kCalm = absl::Seconds(3);
constexpr absl::Duration kAfter = absl::Seconds(6);
constexpr double kPauseGoal_s = 3;

// The longest that passed between two linearizable reads that were served.
double LongestPause(const std::vector<Caller::Made>& calls) {
  int64_t longest_ns = 0, last_ns = 0;
  for (const Caller::Made& call : calls) {
    if (call.outcome != CallOutcome::kServed) continue;
    const int64_t ended_ns = call.at_ns + call.took_ns;
    if (last_ns != 0) longest_ns = std::max(longest_ns, ended_ns - last_ns);
    last_ns = ended_ns;
  }
  return double(longest_ns) * 1e-9;
}

}  // namespace

absl::Status LeaderKilled(DrillRun& run) {
  auto store = DrillStore::Start(run, {});
  if (!store.ok()) return store.status();
  if (absl::Status status = (*store)->Fill(); !status.ok()) return status;
  auto load = StandardLoad::Start(run, **store, {.calls = 50});
  if (!load.ok()) return load.status();
  Timeline& timeline = run.timeline();
  timeline.Begin("all well");
  const int64_t begin_ns = Timeline::Now();
  if (absl::Status status = run.Sleep(kCalm); !status.ok()) return status;
  for (int round = 0; round < kRounds; ++round) {
    const auto leader = (*store)->cluster().Leader();
    if (!leader.ok()) return leader.status();
    timeline.Begin("leader killed", true);
    if (absl::Status status = (*store)->cluster().Kill(*leader); !status.ok()) return status;
    if (absl::Status status = run.Sleep(kAfter); !status.ok()) return status;
    timeline.Begin("back");
    if (absl::Status status = (*store)->BringBack(); !status.ok()) return status;
    if (absl::Status status = run.Sleep(kCalm); !status.ok()) return status;
  }
  const int64_t end_ns = Timeline::Now();
  timeline.End();
  (*load)->Stop();

  (*load)->WantServed("config read from the mirror", *(*load)->config_track, begin_ns, end_ns);
  (*load)->WantServed("auth read from the mirror", *(*load)->auth_track, begin_ns, end_ns);
  const double pause_s = LongestPause((*load)->linearizable()->Between(begin_ns, end_ns));
  run.AddGoal("longest pause of linearizable reads", pause_s < kPauseGoal_s, SecondsText(pause_s),
              fmt::format("< {} s", kPauseGoal_s));
  // Each put raised the key's version by one. Those with an unknown outcome may or may not have.
  Writer& writer = *(*load)->service_writer();
  const auto written = (*store)->admin().Get("/service/written");
  if (!written.ok()) return written.status();
  const uint64_t version = written->value.has_value() ? written->value->version : 0;
  const uint64_t left_open = (*load)->write_track->All().failed;
  run.AddGoal(
      "writes that took effect twice, or were lost after an ack",
      version >= writer.acked() && version <= writer.acked() + left_open,
      fmt::format("version {} after {} acks, {} left unknown", version, writer.acked(), left_open),
      "version = acks, but for unknown ones");
  run.AddGoal("writes whose outcome had to be asked for, and was learned", left_open == 0,
              fmt::format("{} asked for, {} not learned", writer.unknown(), left_open),
              "none not learned");
  run.Judge();
  run.SetPlot((*load)->PlotOf("Drill 1: the leader is killed under load",
                              "three times; mirrors go on from memory, linearizable reads and "
                              "writes wait out the election"));
  return absl::OkStatus();
}

}  // namespace holdfast::bench
