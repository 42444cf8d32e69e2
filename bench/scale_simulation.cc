#include "bench/scale_simulation.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <memory>
#include <queue>
#include <utility>

#include "base/check.h"
#include "base/rng.h"

namespace holdfast::bench {
namespace {

using Then = std::function<void()>;

constexpr double kQuantumUs = 1000;    // about what Linux gives
constexpr double kStartsApartUs = 10;  // so that the callers do not begin as one lump

class VirtualTime {
 public:
  explicit VirtualTime(uint64_t seed) : rng_(seed) {}
  double now() const { return now_; }
  void After(double us, Then then) { events_.push({now_ + us, next_++, std::move(then)}); }
  bool Step() {
    if (events_.empty()) return false;
    // The heap gives out const references only; what is moved from goes at once.
    Event event = std::move(const_cast<Event&>(events_.top()));
    events_.pop();
    now_ = event.at;
    event.then();
    return true;
  }
  // Mean 1, standard deviation `spread`, never below 1 - spread.
  double Around(double spread) {
    const double uniform = (double(rng_.Next() >> 11) + 0.5) / double(uint64_t{1} << 53);
    return 1 - spread - spread * std::log(uniform);
  }

 private:
  struct Event {
    double at;
    uint64_t number;  // of two at one moment the one that was made first
    Then then;
    bool operator<(const Event& other) const {
      return at != other.at ? at > other.at : number > other.number;
    }
  };
  std::priority_queue<Event> events_;
  base::Rng rng_;
  uint64_t next_ = 0;
  double now_ = 0;
};

// The cores of one host, shared evenly: who has run for a quantum goes behind the others.
class Host {
 public:
  // Part of a core makes all of them slower.
  Host(VirtualTime* time, double cores)
      : time_(time), free_(int(std::ceil(cores))), speed_(cores / free_) {}

  void Run(double us, bool of_member, Then then) {
    us *= time_->Around(kBurstSpread);
    if (of_member) busy_us_ += us;
    us /= speed_;
    waiting_.push_back({us, std::move(then)});
    Start();
  }
  double busy_us() const { return busy_us_; }

 private:
  struct Burst {
    double us;
    Then then;
  };
  void Start() {
    if (free_ == 0 || waiting_.empty()) return;
    --free_;
    Burst burst = std::move(waiting_.front());
    waiting_.pop_front();
    // Undisturbed, a burst is one event.
    const double slice = waiting_.empty() && free_ > 0 ? burst.us : std::min(burst.us, kQuantumUs);
    burst.us -= slice;
    time_->After(slice, [this, burst = std::move(burst)]() mutable {
      ++free_;
      Then then = burst.us > 0 ? nullptr : std::move(burst.then);
      if (burst.us > 0) waiting_.push_back(std::move(burst));
      Start();
      if (then) then();
    });
  }

  VirtualTime* const time_;
  int free_;
  const double speed_;
  std::deque<Burst> waiting_;
  double busy_us_ = 0;
};

// A thread that takes everything up to `queued` at once. What passes through is numbered, and
// goes in order, so a number says it all.
struct Thread {
  uint64_t queued = 0;
  uint64_t done = 0;
  uint64_t rounds = 0;
  bool busy = false;
};

class Pipeline {
 public:
  Pipeline(const PathCosts& costs, const ClusterModel& cluster, const LoadModel& load,
           uint64_t operations, uint64_t seed)
      : costs_(costs),
        cluster_(cluster),
        load_(load),
        operations_(operations),
        warmup_(operations / 5),
        time_(seed),
        members_(cluster.members.size()),
        entry_bytes_(load.bytes() + kEntryOverheadBytes) {
    for (const double cores : cluster.host_cores) {
      hosts_.push_back(std::make_unique<Host>(&time_, cores));
    }
    log_.resize(members_);
    apply_.resize(members_);
    follower_raft_.resize(members_);
    durable_.assign(members_, 0);
    streams_.resize(size_t(load.streams));
    began_.resize(size_t(load.callers));
  }

  SimulationResult Run() {
    for (uint32_t caller = 0; caller < uint32_t(load_.callers); ++caller) {
      time_.After(caller * kStartsApartUs, [this, caller] { Call(caller); });
    }
    while (time_.Step()) {
    }
    SimulationResult result;
    result.arrivals = arrivals_;
    result.completions = completions_;
    const double us = measured_to_ - measured_from_;
    const double count = double(latencies_.size());
    if (latencies_.empty() || us <= 0) return result;
    result.rate = count / us * 1e6;
    std::ranges::sort(latencies_);
    for (const double latency : latencies_) result.mean_us += latency / count;
    const auto at = [&](double q) { return latencies_[size_t(q * (count - 1))]; };
    result.p50_us = at(0.5);
    result.p99_us = at(0.99);
    result.p999_us = at(0.999);
    if (log_[0].rounds > 0) result.log_batch = double(log_[0].done) / double(log_[0].rounds);
    for (const auto& host : hosts_) result.cpu_us += host->busy_us() / double(completions_);
    return result;
  }

 private:
  struct Stream {
    std::vector<uint32_t> to_send, at_door, to_answer;  // callers
    bool sending = false, reading = false, answering = false;
  };
  double Bytes() const { return load_.bytes(); }
  Host& HostOf(size_t member) { return *hosts_[cluster_.members[member].host]; }
  Stream& StreamOf(uint32_t caller) { return streams_[caller % streams_.size()]; }

  void Call(uint32_t caller) {
    if (arrivals_ == operations_) return;
    ++arrivals_;
    began_[caller] = time_.now();
    if (load_.batched) {
      Stream& stream = StreamOf(caller);
      stream.to_send.push_back(caller);
      return Send(stream);
    }
    OnClient(costs_.client.Batch(1, Bytes()), [this, caller] {
      time_.After(cluster_.client_rtt_us / 2, [this, caller] {
        HostOf(0).Run(costs_.door.Batch(1, Bytes()), true, [this, caller] { Propose({caller}); });
      });
    });
  }

  void OnClient(double us, Then then) {
    if (cluster_.client_host < 0) return time_.After(us, std::move(then));
    hosts_[size_t(cluster_.client_host)]->Run(us, false, std::move(then));
  }

  void Send(Stream& stream) {
    if (stream.sending || stream.to_send.empty()) return;
    stream.sending = true;
    auto batch = std::exchange(stream.to_send, {});
    const double us = costs_.client.Batch(double(batch.size()), Bytes());
    OnClient(us, [this, &stream, batch = std::move(batch)]() mutable {
      stream.sending = false;
      Send(stream);
      time_.After(cluster_.client_rtt_us / 2, [this, &stream, batch = std::move(batch)] {
        stream.at_door.insert(stream.at_door.end(), batch.begin(), batch.end());
        ReadDoor(stream);
      });
    });
  }

  void ReadDoor(Stream& stream) {
    if (stream.reading || stream.at_door.empty()) return;
    stream.reading = true;
    auto batch = std::exchange(stream.at_door, {});
    const double us = costs_.door.Batch(double(batch.size()), Bytes());
    HostOf(0).Run(us, true, [this, &stream, batch = std::move(batch)] {
      stream.reading = false;
      Propose(batch);
      ReadDoor(stream);
    });
  }

  void Propose(const std::vector<uint32_t>& callers) {
    order_.insert(order_.end(), callers.begin(), callers.end());
    Turn();
  }

  // The leader's raft thread: new operations, and what the logs and followers report.
  void Turn() {
    const bool news = notices_ > 0 || order_.size() > proposed_;
    if (raft_busy_ || !news) return;
    raft_busy_ = true;
    notices_ = 0;
    const uint64_t to = order_.size();
    const std::vector<uint64_t> seen = durable_;
    HostOf(0).Run(costs_.raft.Batch(double(to - proposed_), Bytes()), true, [this, to, seen] {
      const uint64_t fresh = to - proposed_;
      proposed_ = to;
      if (fresh > 0) {
        AppendTo(0, to);
        for (size_t i = 1; i < members_; ++i) SendTo(i, fresh, to);
        for (size_t i = 0; i < cluster_.learners; ++i) {
          HostOf(0).Run(costs_.send.Batch(double(fresh), Bytes()), true, [] {});
        }
      }
      Commit(seen);
      raft_busy_ = false;
      Turn();
    });
  }

  void SendTo(size_t i, uint64_t fresh, uint64_t to) {
    const double carried = load_.read ? 0 : double(fresh);
    HostOf(0).Run(costs_.send.Batch(carried, Bytes()), true, [this, i, carried, to] {
      time_.After(cluster_.rtt_us[0][i] / 2, [this, i, carried, to] {
        HostOf(i).Run(costs_.receive.Batch(carried, Bytes()), true, [this, i, to] {
          follower_raft_[i].queued = std::max(follower_raft_[i].queued, to);
          FollowerTurn(i);
        });
      });
    });
  }

  // Takes all of `thread`; `work` is how it spends its time, `then` gets up to where it came.
  template <class Work, class Out>
  void Round(Thread& thread, const Work& work, Out then) {
    if (thread.busy || thread.queued == thread.done) return;
    thread.busy = true;
    ++thread.rounds;
    const uint64_t to = thread.queued;
    work(double(to - thread.done), [this, &thread, work, then, to] {
      const uint64_t count = to - thread.done;
      thread.done = to;
      thread.busy = false;
      then(to, count);
      Round(thread, work, then);
    });
  }

  void FollowerTurn(size_t i) {
    Round(
        follower_raft_[i],
        [this, i](double n, Then then) {
          const double us = costs_.follower_raft.Batch(load_.read ? 0 : n, Bytes());
          HostOf(i).Run(us, true, std::move(then));
        },
        [this, i](uint64_t to, uint64_t) { AppendTo(i, to); });
  }

  void AppendTo(size_t i, uint64_t to) {
    if (load_.read) return Durable(i, to);
    log_[i].queued = std::max(log_[i].queued, to);
    Round(
        log_[i],
        [this, i](double n, Then then) {
          HostOf(i).Run(costs_.log.Batch(n, Bytes()), true, [this, i, n, then = std::move(then)] {
            const PlaceModel& place = cluster_.members[i];
            time_.After(
                place.fsync_us * time_.Around(kFsyncSpread) + n * entry_bytes_ / place.disk_mb_s,
                then);
          });
        },
        [this, i](uint64_t upto, uint64_t) { Durable(i, upto); });
  }

  void Durable(size_t i, uint64_t to) {
    if (i == 0 && load_.read) {
      durable_[0] = to;  // its own word, within the turn
      return;
    }
    const double way = i == 0 ? 0 : cluster_.rtt_us[0][i] / 2;
    time_.After(way, [this, i, to] {
      durable_[i] = std::max(durable_[i], to);
      ++notices_;
      Turn();
    });
  }

  void Commit(std::vector<uint64_t> durable) {
    if (load_.read) durable[0] = proposed_;
    std::ranges::sort(durable, std::greater<>());
    const uint64_t to = durable[members_ / 2];
    if (to <= committed_) return;
    committed_ = to;
    if (load_.read) return Answer(to);
    for (size_t i = 0; i < members_; ++i) {
      time_.After(i == 0 ? 0 : cluster_.rtt_us[0][i] / 2, [this, i, to] { ApplyOn(i, to); });
    }
  }

  void ApplyOn(size_t i, uint64_t to) {
    apply_[i].queued = std::max(apply_[i].queued, to);
    Round(
        apply_[i],
        [this, i](double n, Then then) {
          HostOf(i).Run(costs_.apply.Batch(n, Bytes()), true, std::move(then));
        },
        [this, i](uint64_t upto, uint64_t count) {
          HostOf(i).Run(costs_.store.Batch(double(count), Bytes()), true, [] {});
          if (i == 0) Answer(upto);
        });
  }

  void Answer(uint64_t to) {
    for (; answered_ < to; ++answered_) {
      const uint32_t caller = order_[answered_];
      if (load_.batched) {
        Stream& stream = StreamOf(caller);
        stream.to_answer.push_back(caller);
        continue;
      }
      HostOf(0).Run(costs_.answer.Batch(1, Bytes()), true, [this, caller] { Arrive({caller}); });
    }
    if (!load_.batched) return;
    for (Stream& stream : streams_) WriteAnswers(stream);
  }

  void WriteAnswers(Stream& stream) {
    if (stream.answering || stream.to_answer.empty()) return;
    stream.answering = true;
    auto batch = std::exchange(stream.to_answer, {});
    const double us = costs_.answer.Batch(double(batch.size()), Bytes());
    HostOf(0).Run(us, true, [this, &stream, batch = std::move(batch)]() mutable {
      stream.answering = false;
      Arrive(std::move(batch));
      WriteAnswers(stream);
    });
  }

  void Arrive(std::vector<uint32_t> callers) {
    time_.After(cluster_.client_rtt_us / 2, [this, callers = std::move(callers)] {
      for (const uint32_t caller : callers) Complete(caller);
    });
  }

  void Complete(uint32_t caller) {
    ++completions_;
    if (completions_ == warmup_) measured_from_ = time_.now();
    // The end drains, and is not like the rest.
    if (completions_ > warmup_ && arrivals_ < operations_) {
      latencies_.push_back(time_.now() - began_[caller]);
      measured_to_ = time_.now();
    }
    Call(caller);
  }

  const PathCosts& costs_;
  const ClusterModel& cluster_;
  const LoadModel& load_;
  const uint64_t operations_;
  const uint64_t warmup_;
  VirtualTime time_;
  const size_t members_;
  const double entry_bytes_;
  std::vector<std::unique_ptr<Host>> hosts_;
  std::vector<Stream> streams_;
  std::vector<uint32_t> order_;  // callers, in the order of the leader's log
  std::vector<Thread> log_, apply_, follower_raft_;
  std::vector<uint64_t> durable_;  // up to where each member has it, as the leader was told
  std::vector<double> began_;      // by caller
  bool raft_busy_ = false;
  uint64_t notices_ = 0;
  uint64_t proposed_ = 0, committed_ = 0, answered_ = 0;
  uint64_t arrivals_ = 0, completions_ = 0;
  double measured_from_ = 0, measured_to_ = 0;
  std::vector<double> latencies_;
};

}  // namespace

SimulationResult Simulate(const PathCosts& costs, const ClusterModel& cluster,
                          const LoadModel& load, uint64_t operations, uint64_t seed) {
  CHECK(!cluster.members.empty() && load.callers >= 1 && load.streams >= 1 && operations >= 100);
  return Pipeline(costs, cluster, load, operations, seed).Run();
}

}  // namespace holdfast::bench
