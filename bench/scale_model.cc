#include "bench/scale_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace holdfast::bench {
namespace {

constexpr double kMega = 1e6;
constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr int kIterations = 300;
constexpr double kDamping = 0.3;
constexpr double kFullest = 0.995;  // of a host's cores, for which a wait is told at all
constexpr double kCallersShare = 0.7;

// The cores of one host: what their load makes a burst wait.
struct Cores {
  double count = 1;
  double demand_us = 0;  // of one operation
  double squares = 0;    // sum of rate times size squared, of one operation
  double wait_us = 0;

  void Clear() { demand_us = squares = 0; }
  // `per_op` bursts of so many us for each operation.
  void Add(double per_op, double burst_us) {
    demand_us += per_op * burst_us;
    squares += per_op * burst_us * burst_us * (1 + kBurstSpread * kBurstSpread);
  }
  // M/G/c: Sakasegawa's wait of M/M/c, with the second moment of the bursts.
  void Settle(double rate) {
    const double use = std::min(kFullest, rate * demand_us / (count * kMega));
    if (use <= 0) {
      wait_us = 0;
      return;
    }
    const double mean_burst = squares / (2 * demand_us);
    wait_us = mean_burst * std::pow(use, std::sqrt(2 * (count + 1)) - 1) / (count * (1 - use));
  }
};

// A thread that takes all that waits. `cycle_us` is one round of it.
struct Thread {
  double cycle_us = 0;
  double batch = 1;
  double stay_us = 0;  // of one operation: the rest of the round under way, and its own

  // `rate` of arrivals a second, at least `least` at once and at most `most`.
  template <class Cycle>
  void Settle(double rate, double least, double most, const Cycle& cycle) {
    cycle_us = cycle(batch);
    const double wanted = std::clamp(rate * cycle_us / kMega, std::min(least, most), most);
    batch += kDamping * (wanted - batch);
    const double busy = std::min(1.0, rate * cycle_us / kMega / std::max(batch, least));
    stay_us = cycle_us * (1 + busy / 2);
  }
};

class Solver {
 public:
  Solver(const PathCosts& costs, const ClusterModel& cluster, const LoadModel& load)
      : costs_(costs),
        cluster_(cluster),
        load_(load),
        members_(cluster.members.size()),
        quorum_(members_ / 2 + 1),
        entry_bytes_(load.bytes() + kEntryOverheadBytes) {
    for (const double cores : cluster.host_cores) hosts_.push_back({.count = cores});
  }

  // Mean time of one operation at that rate.
  double TimeAt(double rate) {
    log_.assign(members_, {});
    raft_ = client_ = door_ = apply_ = answer_ = {};
    follower_raft_.assign(members_, {});
    turns_per_op_ = 1;
    for (int i = 0; i < kIterations; ++i) Iterate(rate);
    return total_us_;
  }

  Prediction Solve() {
    const std::vector<Resource> ceilings = Ceilings();
    // The rate times its time is what is in flight: find the rate at which that is `callers`.
    double low = 0;
    double high = ceilings.front().ceiling;
    for (int i = 0; i < 60; ++i) {
      const double rate = (low + high) / 2;
      (rate * TimeAt(rate) / kMega < load_.callers ? low : high) = rate;
    }
    Prediction result;
    result.rate = low;
    TimeAt(low);
    // By Little's law, which the bisection satisfies unless a ceiling came first.
    result.mean_us = load_.callers / low * kMega;
    result.log_batch = load_.read ? 0 : log_[0].batch;
    for (const double demand : member_demand_) result.cpu_us += demand;
    result.resources = ceilings;
    for (Resource& resource : result.resources) resource.use = low / resource.ceiling;
    result.limit =
        result.resources.front().use < kCallersShare ? "callers" : result.resources.front().name;
    return result;
  }

 private:
  double Most() const { return load_.callers; }
  double Bytes() const { return load_.bytes(); }
  Cores& HostOf(size_t member) { return hosts_[cluster_.members[member].host]; }

  double DiskTime(size_t member, double ops) const {
    return cluster_.members[member].fsync_us +
           ops * entry_bytes_ / cluster_.members[member].disk_mb_s;
  }

  void Iterate(double rate) {
    AddDemand();
    // Who comes finds what the others do, not what it does itself.
    const double others = (load_.callers - 1.0) / load_.callers;
    for (Cores& host : hosts_) host.Settle(rate * others);
    const double wait = HostOf(0).wait_us;
    SettleDoors(rate, wait);
    // The leader's raft thread also turns for what its log and its followers report.
    const double notices = NoticesPerOp();
    const double events = rate * (1 + notices);
    raft_.Settle(events, 1, Most() * (1 + notices), [&](double batch) {
      return wait + costs_.raft.Batch(batch / (1 + notices), Bytes());
    });
    turns_per_op_ = (1 + notices) / std::max(1.0, raft_.batch);
    proposals_a_turn_ = std::max(1.0, raft_.batch / (1 + notices));
    const double commit = CommitTime(rate);
    total_us_ = before_us_ + raft_.stay_us + commit + raft_.stay_us;
    if (!load_.read) {
      apply_.Settle(rate, log_[0].batch, Most(),
                    [&](double batch) { return wait + costs_.apply.Batch(batch, Bytes()); });
      total_us_ += apply_.stay_us;
    }
    total_us_ += after_us_ + cluster_.client_rtt_us;
  }

  // Bursts on each host, for one operation, as the batches of the last iteration have it.
  void AddDemand() {
    for (Cores& host : hosts_) host.Clear();
    member_demand_.assign(hosts_.size(), 0);
    const auto add = [&](size_t host, double per_op, double burst) {
      hosts_[host].Add(per_op, burst);
      member_demand_[host] += per_op * burst;
    };
    const size_t leader = cluster_.members[0].host;
    const double followers = double(members_ - 1);
    const double messages = 1 / std::max(1.0, proposals_a_turn_);
    const double call = load_.batched ? 1 / std::max(1.0, door_.batch) : 1;
    add(leader, call, costs_.door.Batch(1 / call, Bytes()));
    const double reply = load_.batched ? 1 / std::max(1.0, answer_.batch) : 1;
    add(leader, reply, costs_.answer.Batch(1 / reply, Bytes()));
    add(leader, turns_per_op_, costs_.raft.Batch(1 / turns_per_op_, Bytes()));
    const double carried = load_.read ? 0 : 1 / messages;
    add(leader, messages * (followers + double(cluster_.learners)),
        costs_.send.Batch(carried, Bytes()));
    for (size_t i = 0; i < members_; ++i) {
      const size_t host = cluster_.members[i].host;
      if (i > 0) {
        const double turns = 1 / std::max(1.0, follower_raft_[i].batch);
        add(host, messages, costs_.receive.Batch(carried, Bytes()));
        add(host, turns, costs_.follower_raft.Batch(load_.read ? 0 : 1 / turns, Bytes()));
      }
      if (load_.read) continue;
      add(host, 1 / std::max(1.0, log_[i].batch), costs_.log.Batch(log_[i].batch, Bytes()));
      const double applied = std::max(1.0, apply_.batch);
      add(host, 1 / applied, costs_.apply.Batch(applied, Bytes()));
      add(host, 1 / applied, costs_.store.Batch(applied, Bytes()));
    }
    if (cluster_.client_host < 0) return;
    const double sent = load_.batched ? 1 / std::max(1.0, client_.batch) : 1;
    hosts_[size_t(cluster_.client_host)].Add(sent, costs_.client.Batch(1 / sent, Bytes()));
  }

  // Notices to the leader's raft thread for one operation.
  double NoticesPerOp() const {
    if (load_.read) return double(members_ - 1) / std::max(1.0, proposals_a_turn_);
    double notices = 0;
    for (const Thread& log : log_) notices += 1 / std::max(1.0, log.batch);
    return notices;
  }

  void SettleDoors(double rate, double wait) {
    const double client_wait =
        cluster_.client_host < 0 ? 0 : hosts_[size_t(cluster_.client_host)].wait_us;
    if (!load_.batched) {
      before_us_ =
          client_wait + costs_.client.Batch(1, Bytes()) + wait + costs_.door.Batch(1, Bytes());
      after_us_ = wait + costs_.answer.Batch(1, Bytes());
      return;
    }
    const double each = rate / load_.streams;
    const double most = std::max(1.0, Most() / load_.streams);
    client_.Settle(each, 1, most,
                   [&](double n) { return client_wait + costs_.client.Batch(n, Bytes()); });
    door_.Settle(each, client_.batch, most,
                 [&](double n) { return wait + costs_.door.Batch(n, Bytes()); });
    answer_.Settle(each, 1, most, [&](double n) { return wait + costs_.answer.Batch(n, Bytes()); });
    before_us_ = client_.stay_us + door_.stay_us;
    after_us_ = answer_.stay_us;
  }

  // From the leader's turn until it knows of a majority: the quorum's slowest.
  double CommitTime(double rate) {
    std::vector<double> durable;
    for (size_t i = 0; i < members_; ++i) {
      const double wait = HostOf(i).wait_us;
      double path = 0;
      double arriving = proposals_a_turn_;
      if (i > 0) {
        const double carried = load_.read ? 0 : proposals_a_turn_;
        path = HostOf(0).wait_us + costs_.send.Batch(carried, Bytes()) + cluster_.rtt_us[0][i] +
               wait + costs_.receive.Batch(carried, Bytes());
        follower_raft_[i].Settle(rate, proposals_a_turn_, Most(), [&](double n) {
          return wait + costs_.follower_raft.Batch(load_.read ? 0 : n, Bytes());
        });
        path += follower_raft_[i].stay_us;
        arriving = follower_raft_[i].batch;
      }
      if (!load_.read) {
        log_[i].Settle(rate, arriving, Most(), [&](double n) {
          return wait + costs_.log.Batch(n, Bytes()) + DiskTime(i, n);
        });
        path += log_[i].stay_us;
      }
      durable.push_back(path);
    }
    std::ranges::sort(durable);
    return durable[quorum_ - 1];
  }

  // Each resource alone, with batches so large that only operations count.
  std::vector<Resource> Ceilings() const {
    std::vector<Resource> all;
    const auto add = [&all](const std::string& name, double us_per_op) {
      if (us_per_op > 0) all.push_back({.name = name, .ceiling = kMega / us_per_op, .use = 0});
    };
    add("raft thread of the leader", costs_.raft.Op(Bytes()));
    if (!load_.read) {
      add("apply thread", costs_.apply.Op(Bytes()));
      double slowest = 0;
      double written = 0;
      for (const PlaceModel& place : cluster_.members) {
        slowest = std::max(slowest, costs_.log.Op(Bytes()) + entry_bytes_ / place.disk_mb_s);
        written = std::max(written, load_.bytes() * kDiskAmplification / place.disk_mb_s);
      }
      add("log thread", slowest);
      add("disk bandwidth", written);
      add("network out of the leader",
          double(members_ - 1 + cluster_.learners) * entry_bytes_ / cluster_.link_mb_s);
      AddWindows(&all);
    }
    if (load_.batched) {
      add("client processes", costs_.client.Op(Bytes()) / load_.streams);
      add("streams' door",
          std::max(costs_.door.Op(Bytes()), costs_.answer.Op(Bytes())) / load_.streams);
    }
    for (size_t h = 0; h < hosts_.size(); ++h) add(HostName(h), LeastDemand(h) / hosts_[h].count);
    std::ranges::stable_sort(all, {}, &Resource::ceiling);
    return all;
  }

  // What may be under way, over the time that it is.
  void AddWindows(std::vector<Resource>* all) const {
    std::vector<double> ways;
    for (size_t i = 1; i < members_; ++i) {
      ways.push_back(cluster_.rtt_us[0][i] + cluster_.members[i].fsync_us);
    }
    if (ways.empty()) return;
    std::ranges::sort(ways);
    // The followers that the quorum needs; those beyond may fall behind and catch up.
    const double way = std::max(1.0, ways[quorum_ - 2]);
    all->push_back({.name = "bytes under way to a follower",
                    .ceiling = kWindowBytes / entry_bytes_ / way * kMega,
                    .use = 0});
    all->push_back({.name = "bytes not yet committed",
                    .ceiling = kUncommittedBytes / entry_bytes_ / way * kMega,
                    .use = 0});
  }

  std::string HostName(size_t host) const {
    const bool leads = cluster_.members[0].host == host;
    const size_t here = size_t(std::ranges::count(cluster_.members, host, &PlaceModel::host));
    if (here > 1) return "cores of the machine";
    if (here == 0) return "cores of the clients";
    return leads ? "cores of the leader" : fmt::format("cores of follower {}", host);
  }

  double LeastDemand(size_t host) const {
    double us = 0;
    for (size_t i = 0; i < members_; ++i) {
      if (cluster_.members[i].host != host) continue;
      const double written =
          load_.read ? 0
                     : costs_.log.Op(Bytes()) + costs_.apply.Op(Bytes()) + costs_.store.Op(Bytes());
      us += written;
      if (i > 0) {
        us += load_.read ? 0 : costs_.receive.Op(Bytes()) + costs_.follower_raft.Op(Bytes());
        continue;
      }
      us += Calls(costs_.door) + Calls(costs_.answer) + costs_.raft.Op(Bytes());
      if (!load_.read) us += double(members_ - 1 + cluster_.learners) * costs_.send.Op(Bytes());
    }
    if (cluster_.client_host == int(host)) us += Calls(costs_.client);
    return us;
  }
  double Calls(const StageCost& cost) const {
    return load_.batched ? cost.Op(Bytes()) : cost.Batch(1, Bytes());
  }

  const PathCosts& costs_;
  const ClusterModel& cluster_;
  const LoadModel& load_;
  const size_t members_;
  const size_t quorum_;
  const double entry_bytes_;
  std::vector<Cores> hosts_;
  std::vector<double> member_demand_;  // by host, the clients' part left out
  std::vector<Thread> log_, follower_raft_;
  Thread raft_, client_, door_, apply_, answer_;
  double turns_per_op_ = 1;
  double proposals_a_turn_ = 1;
  double before_us_ = 0, after_us_ = 0, total_us_ = 0;
};

}  // namespace

Prediction Predict(const PathCosts& costs, const ClusterModel& cluster, const LoadModel& load) {
  CHECK(!cluster.members.empty() && load.callers >= 1 && load.streams >= 1);
  return Solver(costs, cluster, load).Solve();
}

ClusterModel EvenCluster(size_t members, double cores, double fsync_us, double rtt_us) {
  ClusterModel cluster;
  for (size_t i = 0; i < members; ++i) {
    cluster.host_cores.push_back(cores);
    cluster.members.push_back({.host = i, .fsync_us = fsync_us, .disk_mb_s = 1000});
    cluster.rtt_us.emplace_back(members, rtt_us);
    cluster.rtt_us.back()[i] = 0;
  }
  cluster.client_rtt_us = rtt_us;
  return cluster;
}

}  // namespace holdfast::bench
