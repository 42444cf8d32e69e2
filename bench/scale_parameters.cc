#include "bench/scale_parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/strings.h"

namespace holdfast::bench {
namespace {

// Turns of the leader's raft thread for one group of the log: its proposals, its own log's report,
// the followers' (which mostly come together).
constexpr double kTurnsAGroup = 3;
// At fewer clients the bench's own wake-ups are most of its cost.
constexpr uint32_t kClientsForClientCost = 50;

enum class Who { kLeader, kFollowers };

double StageCpu(const MemberUse& member, std::string_view stage) {
  const auto it = member.stages.find(std::string(stage));
  return it == member.stages.end() ? 0 : it->second.cpu_us;
}

// The mean of the followers, or the leader.
double Mean(const StagePoint& point, Who who, const std::function<double(const MemberUse&)>& of) {
  double sum = 0;
  double count = 0;
  for (const MemberUse& member : point.members) {
    if (member.leader != (who == Who::kLeader)) continue;
    sum += of(member);
    ++count;
  }
  return count > 0 ? sum / count : 0;
}

class Fitter {
 public:
  Fitter(const std::vector<StagePoint>& points, const std::string& workload,
         const std::string& transport) {
    for (const StagePoint& point : points) {
      if (point.workload == "idle") {
        idle_ = &point;
      } else if (point.workload == workload && point.transport == transport) {
        all_.push_back(&point);
        base_bytes_ = std::min(base_bytes_, point.value_bytes);
      }
    }
    reads_ = workload == "get";
  }
  bool empty() const { return all_.empty(); }

  PathCosts Costs() const {
    const Who leader = Who::kLeader, followers = Who::kFollowers;
    PathCosts costs;
    costs.receive = Fit(followers, {"grpc", "answer"});
    costs.follower_raft = Fit(followers, {"raft"});
    costs.raft = Fit(leader, {"raft"});
    costs.raft.batch_us /= kTurnsAGroup;
    if (!reads_) {
      costs.log = Fit(leader, {"log"});
      costs.apply = Fit(leader, {"apply"});
      costs.store = Fit(followers, {"store", "watch", "upkeep", "other"});
      costs.store = {.batch_us = 0, .op_us = costs.store.op_us, .byte_us = costs.store.byte_us};
    }
    // The leader's gRPC threads serve clients and followers; a message costs both its ends alike.
    StageCost doors = Fit(leader, {"grpc", "answer"});
    costs.send = costs.receive;
    const double sides = 2;  // followers of the three members that are measured
    doors.op_us = std::max(0.0, doors.op_us - sides * costs.send.op_us);
    doors.byte_us = std::max(0.0, doors.byte_us - sides * costs.send.byte_us);
    // What the leader spends for a batch, beyond the followers' messages, comes with batches of
    // clients where there are such.
    const double rest = std::max(0.0, doors.batch_us - sides * costs.send.batch_us);
    const StageCost half = {.batch_us = batched() ? rest / 2 : 0,
                            .op_us = doors.op_us / 2,
                            .byte_us = doors.byte_us / 2};
    if (!batched()) costs.send.batch_us += rest / sides;
    costs.door = costs.answer = half;
    costs.client.op_us = ClientCost();
    return costs;
  }

 private:
  bool batched() const { return all_.front()->transport == "native"; }

  double Cost(const StagePoint& point, Who who, const std::vector<std::string_view>& stages) const {
    const auto sum = [&](const MemberUse& member) {
      double cpu = 0;
      for (const std::string_view stage : stages) cpu += StageCpu(member, stage);
      return cpu;
    };
    const double idle = idle_ == nullptr ? 0 : Mean(*idle_, who, sum) / point.rate;
    return std::max(0.0, Mean(point, who, sum) - idle);
  }

  // How many batches one operation is: of a put those of the log, of a get the rounds, which the
  // followers' raft threads sleep between.
  double BatchesPerOp(const StagePoint& point) const {
    if (!reads_) {
      const double batch =
          Mean(point, Who::kLeader, [](const auto& m) { return m.entries_per_fsync; });
      return batch > 0 ? 1 / batch : 1;
    }
    const auto sleeps = [](const MemberUse& member) {
      const auto it = member.stages.find("raft");
      return it == member.stages.end() ? 1.0 : it->second.waits;
    };
    return std::min(1.0, Mean(point, Who::kFollowers, sleeps));
  }

  StageCost Fit(Who who, const std::vector<std::string_view>& stages) const {
    std::vector<LinePoint> line;
    double slope = 0;
    double pairs = 0;
    for (const StagePoint* point : all_) {
      const double cost = Cost(*point, who, stages);
      if (point->value_bytes == base_bytes_) {
        line.push_back({BatchesPerOp(*point), cost});
        continue;
      }
      for (const StagePoint* base : all_) {
        if (base->value_bytes != base_bytes_ || base->clients != point->clients) continue;
        slope += (cost - Cost(*base, who, stages)) / (point->value_bytes - base_bytes_);
        ++pairs;
      }
    }
    const Line fitted = FitLine(line);
    StageCost cost = {.batch_us = fitted.batch, .op_us = fitted.op, .byte_us = 0};
    if (pairs > 0) cost.byte_us = std::max(0.0, slope / pairs);
    cost.byte_us = std::min(cost.byte_us, cost.op_us / (base_bytes_ + LoadModel().key_bytes));
    cost.op_us -= cost.byte_us * (base_bytes_ + LoadModel().key_bytes);
    return cost;
  }

  double ClientCost() const {
    double sum = 0;
    double count = 0;
    for (const StagePoint* point : all_) {
      if (point->clients < kClientsForClientCost && all_.size() > 1) continue;
      sum += point->bench_cpu_us;
      ++count;
    }
    return count > 0 ? sum / count : all_.front()->bench_cpu_us;
  }

  std::vector<const StagePoint*> all_;
  const StagePoint* idle_ = nullptr;
  double base_bytes_ = 1e12;
  bool reads_ = false;
};

}  // namespace

Line FitLine(const std::vector<LinePoint>& points) {
  // Weighted by 1 / cost^2, so that the cheap, large batches count as much as the dear small ones.
  double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0;
  for (const LinePoint& point : points) {
    const double weight = 1 / std::max(1e-6, point.cost * point.cost);
    w += weight;
    wx += weight * point.batches_per_op;
    wy += weight * point.cost;
    wxx += weight * point.batches_per_op * point.batches_per_op;
    wxy += weight * point.batches_per_op * point.cost;
  }
  if (w == 0) return {};
  const double spread = w * wxx - wx * wx;
  if (points.size() < 2 || spread < 1e-12 * w * w) return {.op = wy / w, .batch = 0};
  Line line;
  line.batch = (w * wxy - wx * wy) / spread;
  line.op = (wy - line.batch * wx) / w;
  if (line.batch < 0) return {.op = wy / w, .batch = 0};
  if (line.op < 0) return {.op = 0, .batch = wxy / wxx};
  return line;
}

absl::StatusOr<ScaleParameters> FitParameters(const std::vector<StagePoint>& points) {
  ScaleParameters parameters;
  parameters.source = "measured";
  const Fitter put(points, "put", "unary"), get(points, "get", "unary");
  if (put.empty() || get.empty()) {
    return absl::InvalidArgumentError(
        "the model needs unary puts and gets: run holdfast-bench stages with --workloads put,get");
  }
  parameters.unary_put = put.Costs();
  parameters.unary_get = get.Costs();
  if (const Fitter native(points, "put", "native"); !native.empty()) {
    parameters.native_put = native.Costs();
  }
  if (const Fitter native(points, "get", "native"); !native.empty()) {
    parameters.native_get = native.Costs();
  }
  // With others on the cores an fsync also waits for them: the quickest is nearest to the disk.
  double quickest = 1e12;
  for (const StagePoint& point : points) {
    for (const MemberUse& member : point.members) {
      if (member.fsyncs <= 0) continue;
      const double cpu = StageCpu(member, "log") / member.fsyncs;
      quickest = std::min(quickest, std::max(0.0, member.fsync_us - cpu));
    }
  }
  parameters.fsync_us = quickest < 1e12 ? quickest : 0;
  return parameters;
}

absl::StatusOr<std::vector<StagePoint>> ReadStages(const std::vector<std::string>& files) {
  std::vector<StagePoint> points;
  for (const std::string& file : files) {
    std::ifstream in(file);
    if (!in) return absl::NotFoundError(base::ToAbsl(fmt::format("{} cannot be read", file)));
    const auto json = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("points")) {
      return absl::InvalidArgumentError(
          base::ToAbsl(fmt::format("{} is not what holdfast-bench stages -w json prints", file)));
    }
    for (const nlohmann::json& one : json["points"]) {
      auto point = PointOf(one);
      if (!point.ok()) return point.status();
      points.push_back(*std::move(point));
    }
  }
  return points;
}

// Of this release: two cores, three members, 256 B; docs/scaling.md tells how and when. The store's
// flushes and compactions are the mean of the points in which there were any.
ScaleParameters BuiltInParameters() {
  ScaleParameters p;
  p.source = "built in";
  p.fsync_us = 77;
  p.unary_put = {.client = {.batch_us = 0, .op_us = 19.78},
                 .door = {.batch_us = 0, .op_us = 9.565},
                 .raft = {.batch_us = 38.83, .op_us = 0.377},
                 .send = {.batch_us = 117.78, .op_us = 0.011},
                 .receive = {.batch_us = 98.61, .op_us = 0.011},
                 .follower_raft = {.batch_us = 39.79, .op_us = 0.06},
                 .log = {.batch_us = 64.83, .op_us = 0.659},
                 .apply = {.batch_us = 46.11, .op_us = 6.252},
                 .answer = {.batch_us = 0, .op_us = 9.565},
                 .store = {.batch_us = 0, .op_us = 2.5}};
  p.unary_get = {.client = {.batch_us = 0, .op_us = 19.915},
                 .door = {.batch_us = 0, .op_us = 13.777},
                 .raft = {.batch_us = 19.62, .op_us = 0.808},
                 .send = {.batch_us = 92.33, .op_us = 0},
                 .receive = {.batch_us = 68.42, .op_us = 0},
                 .follower_raft = {.batch_us = 26.42, .op_us = 0.036},
                 .answer = {.batch_us = 0, .op_us = 13.777}};
  p.native_put = PathCosts{.client = {.batch_us = 0, .op_us = 1.246},
                           .door = {.batch_us = 13.01, .op_us = 0.15},
                           .raft = {.batch_us = 43.65, .op_us = 0.363},
                           .send = {.batch_us = 126.27, .op_us = 0.213},
                           .receive = {.batch_us = 126.27, .op_us = 0.213},
                           .follower_raft = {.batch_us = 53.08, .op_us = 0.117},
                           .log = {.batch_us = 73.16, .op_us = 0.3},
                           .apply = {.batch_us = 48.79, .op_us = 4.992},
                           .answer = {.batch_us = 13.01, .op_us = 0.15},
                           .store = {.batch_us = 0, .op_us = 2.5}};
  p.native_get = PathCosts{.client = {.batch_us = 0, .op_us = 1.023},
                           .door = {.batch_us = 33.13, .op_us = 0.273},
                           .raft = {.batch_us = 18.4, .op_us = 0},
                           .send = {.batch_us = 64.84, .op_us = 0},
                           .receive = {.batch_us = 64.84, .op_us = 0},
                           .follower_raft = {.batch_us = 24.27, .op_us = 0},
                           .answer = {.batch_us = 33.13, .op_us = 0.273}};
  return p;
}

}  // namespace holdfast::bench
