#include "bench/fan_out_model.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <queue>
#include <utility>

#include "base/check.h"
#include "base/rng.h"

namespace holdfast::bench {
namespace {

constexpr double kMega = 1e6;
constexpr uint64_t kPartBytes = uint64_t{1} << 20;  // of a copy, as the server sends it
constexpr double kSecond = 1;

double Uniform(base::Rng& rng) {
  return (double(rng.Next() >> 11) + 0.5) / double(uint64_t{1} << 53);
}

StormResult::Times TimesOf(std::vector<double>& seconds) {
  if (seconds.empty()) return {};
  std::ranges::sort(seconds);
  const auto at = [&](double q) { return seconds[size_t(q * double(seconds.size() - 1))]; };
  return {.half = at(0.5), .most = at(0.95), .all = seconds.back()};
}

class StormRun {
 public:
  StormRun(const CrowdCosts& costs, const StormModel& storm, uint64_t seed)
      : costs_(costs), storm_(storm), rng_(seed) {
    for (uint32_t i = 0; i < storm.members; ++i) {
      members_.push_back(std::make_unique<Member>(storm.limits, seed + i + 1));
      members_.back()->cores.assign(size_t(storm.cores), 0);
    }
    live_at_.resize(server::kLoadClasses);
  }

  StormResult Run() {
    for (uint32_t i = 0; i < storm_.clients; ++i) {
      // At some moment of a wait that is drawn evenly from the longest back-off: short ones are
      // rarer to be met.
      const double longest = absl::ToDoubleSeconds(storm_.longest_back_off);
      const double wait = longest * (1 - std::sqrt(Uniform(rng_)));
      const size_t load_class = ClassOf(i);
      Member& member = *members_[i % storm_.members];
      At(wait, [this, &member, load_class] {
        Work(member, costs_.connect_us, [this, &member, load_class] { Ask(member, load_class); });
      });
    }
    while (!events_.empty()) {
      Event event = std::move(const_cast<Event&>(events_.top()));
      events_.pop();
      now_ = event.at;
      event.then();
    }
    return Result();
  }

 private:
  struct Member {
    Member(const server::LoadLimits& limits, uint64_t seed) : admission(limits, seed) {}
    server::LoadAdmission admission;
    std::vector<double> cores;  // free from
    double link_free = 0;
  };
  struct Event {
    double at;
    uint64_t number;
    std::function<void()> then;
    bool operator<(const Event& other) const {
      return at != other.at ? at > other.at : number > other.number;
    }
  };

  void At(double second, std::function<void()> then) {
    events_.push({std::max(second, now_), next_++, std::move(then)});
  }

  // Classes are spread evenly among the clients.
  size_t ClassOf(uint32_t client) const {
    const double where = (client + 0.5) / storm_.clients;
    double sum = 0;
    for (size_t i = 0; i + 1 < server::kLoadClasses; ++i) {
      sum += storm_.classes[i].share;
      if (where < sum) return i;
    }
    return server::kLoadClasses - 1;
  }

  void Work(Member& member, double us, std::function<void()> then) {
    double& core = *std::ranges::min_element(member.cores);
    core = std::max(core, now_) + us / kMega;
    At(core, std::move(then));
  }

  absl::Duration Now() const { return absl::Seconds(now_); }

  void Ask(Member& member, size_t load_class) {
    ++asked_;
    const size_t second = size_t(now_);
    if (asked_in_.size() <= second) asked_in_.resize(second + 1);
    ++asked_in_[second];
    Work(member, costs_.request_us, [this, &member, load_class] { Admit(member, load_class); });
  }

  void Admit(Member& member, size_t load_class) {
    const auto bytes = uint64_t(storm_.classes[load_class].copy_bytes);
    const auto kind = server::LoadClass(load_class);
    const auto refused = bytes == 0 ? member.admission.AdmitResume(Now())
                                    : member.admission.AdmitSnapshot(kind, bytes, Now());
    if (refused.has_value()) {
      At(now_ + absl::ToDoubleSeconds(*refused),
         [this, &member, load_class] { Ask(member, load_class); });
    } else if (bytes == 0) {
      live_at_[load_class].push_back(now_);
    } else {
      SendPart(member, load_class, bytes);
    }
  }

  void SendPart(Member& member, size_t load_class, uint64_t left) {
    if (left == 0) {
      member.admission.LeaveSnapshot(server::LoadClass(load_class));
      live_at_[load_class].push_back(now_);
      return;
    }
    const uint64_t part = std::min(left, kPartBytes);
    const absl::Duration wait = member.admission.Send(server::LoadClass(load_class), part, Now());
    At(now_ + absl::ToDoubleSeconds(wait), [this, &member, load_class, left, part] {
      Work(member, costs_.copy_byte_us * double(part), [this, &member, load_class, left, part] {
        member.link_free =
            std::max(member.link_free, now_) + double(part) / (storm_.link_mb_s * kMega);
        At(member.link_free,
           [this, &member, load_class, left, part] { SendPart(member, load_class, left - part); });
      });
    });
  }

  StormResult Result() {
    StormResult result;
    result.asked = asked_;
    for (const uint64_t asked : asked_in_) {
      result.peak_a_second = std::max(result.peak_a_second, double(asked) / kSecond);
    }
    std::vector<double> all;
    for (size_t i = 0; i < server::kLoadClasses; ++i) {
      all.insert(all.end(), live_at_[i].begin(), live_at_[i].end());
      result.of_class[i] = TimesOf(live_at_[i]);
    }
    result.live = all.size();
    result.together = TimesOf(all);
    size_t live = 0;
    for (double second = 0; live < all.size(); ++second) {
      while (live < all.size() && all[live] <= second) ++live;
      result.live_at.push_back(double(live));
    }
    return result;
  }

  const CrowdCosts& costs_;
  const StormModel& storm_;
  base::Rng rng_;
  std::vector<std::unique_ptr<Member>> members_;
  std::priority_queue<Event> events_;
  uint64_t next_ = 0;
  double now_ = 0;  // seconds since the members are back
  uint64_t asked_ = 0;
  std::vector<uint64_t> asked_in_;            // by second
  std::vector<std::vector<double>> live_at_;  // by class: the moments
};

}  // namespace

FanOut FanOutOf(const CrowdCosts& costs, const CrowdModel& crowd, const ReplicaModel& replica) {
  const double marks = crowd.prefixes * crowd.marks_a_second;
  const double client_us = crowd.changes_a_second * costs.event_us + marks * costs.mark_us;
  const double client_bytes =
      crowd.changes_a_second * (crowd.change_bytes + costs.event_overhead_bytes) +
      marks * costs.mark_bytes;
  FanOut result;
  result.by_cpu = replica.cores * replica.busy * kMega / client_us;
  result.by_network = replica.link_mb_s * replica.busy * kMega / client_bytes;
  result.by_memory = replica.memory_bytes / costs.client_bytes;
  result.a_member = std::min({result.by_cpu, result.by_network, result.by_memory});
  result.limit = result.a_member == result.by_cpu       ? "cores"
                 : result.a_member == result.by_network ? "network"
                                                        : "memory";
  result.members = std::ceil(crowd.clients / result.a_member);
  const double each = crowd.clients / result.members;
  result.cores_used = each * client_us / kMega;
  result.mb_s = each * client_bytes / kMega;
  result.memory_mb = each * costs.client_bytes / kMega;
  return result;
}

StormResult Storm(const CrowdCosts& costs, const StormModel& storm, uint64_t seed) {
  CHECK(storm.clients > 0 && storm.members > 0);
  return StormRun(costs, storm, seed).Run();
}

}  // namespace holdfast::bench
