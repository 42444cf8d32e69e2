#include "server/load_admission.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace holdfast::server {
namespace {

// Where there is no limit, the virtual queue still needs a speed.
constexpr double kRateOfNoLimit = 1 << 30;
constexpr double kOpenAtFirst = 0.25;
// What may leave at once after a pause, in time at the full rate.
constexpr absl::Duration kBurst = absl::Milliseconds(100);

}  // namespace

LoadClass ParseLoadClass(std::string_view text) {
  if (text == "auth") return LoadClass::kAuth;
  if (text == "bulk") return LoadClass::kBulk;
  return LoadClass::kConfig;
}

std::string_view LoadClassName(LoadClass load_class) {
  switch (load_class) {
    case LoadClass::kAuth:
      return "auth";
    case LoadClass::kConfig:
      return "config";
    case LoadClass::kBulk:
      return "bulk";
  }
  return "config";
}

LoadAdmission::LoadAdmission(const LoadLimits& limits, uint64_t seed)
    : limits_(limits), rng_(seed), resumes_left_(limits.resumes_per_second) {
  CHECK(limits.snapshots > 0 && limits.waiting > 0 && limits.resumes_per_second > 0);
}

double LoadAdmission::Rate() const {
  return limits_.bytes_per_second == 0 ? kRateOfNoLimit
                                       : static_cast<double>(limits_.bytes_per_second);
}

double LoadAdmission::Openness(absl::Duration now) const {
  const double passed = absl::FDivDuration(now - rush_began_, limits_.opening);
  return std::clamp(kOpenAtFirst + (1 - kOpenAtFirst) * passed, kOpenAtFirst, 1.0);
}

std::optional<absl::Duration> LoadAdmission::AdmitResume(absl::Duration now) {
  const double rate = limits_.resumes_per_second;
  if (resumes_at_.has_value()) {
    resumes_left_ =
        std::min(rate, resumes_left_ + rate * absl::ToDoubleSeconds(now - *resumes_at_));
  }
  resumes_at_ = now;
  if (resumes_left_ >= 1) {
    resumes_left_ -= 1;
    return std::nullopt;
  }
  return Jittered(limits_.retry_min);
}

std::optional<absl::Duration> LoadAdmission::AdmitWaiting(LoadClass load_class,
                                                          absl::Duration now) {
  const int places =
      load_class == LoadClass::kAuth ? limits_.waiting : limits_.waiting - limits_.waiting / 4;
  if (waiting() >= places) return Refuse(load_class, limits_.cost_min, now);
  ++waiting_[Index(load_class)];
  return std::nullopt;
}

void LoadAdmission::LeaveWaiting(LoadClass load_class) { CHECK(waiting_[Index(load_class)]-- > 0); }

int LoadAdmission::PlacesFor(LoadClass load_class, absl::Duration now) const {
  if (load_class == LoadClass::kAuth) return limits_.snapshots;
  const int shared = limits_.snapshots - (limits_.snapshots + 3) / 4;
  const int of_class = load_class == LoadClass::kConfig ? shared : shared / 2;
  // One is left to everybody, or a class could starve.
  return std::max(1, static_cast<int>(std::floor(of_class * Openness(now))));
}

bool LoadAdmission::HasPlace(LoadClass load_class, absl::Duration now) {
  const int mine = snapshots_[Index(load_class)];
  if (load_class == LoadClass::kAuth) {
    return snapshots_[0] + snapshots_[1] + snapshots_[2] < limits_.snapshots;
  }
  int places = PlacesFor(load_class, now);
  const absl::Duration before = load_class == LoadClass::kConfig ? backlog(LoadClass::kAuth, now)
                                                                 : backlog(LoadClass::kConfig, now);
  // Better ones were sent away and come back: they find the places free.
  if (before > absl::ZeroDuration()) places = 1;
  if (mine >= places) return false;
  // The last place of a class is its own, so that the sum may be one above what is shared.
  if (mine == 0) return true;
  return snapshots_[1] + snapshots_[2] < PlacesFor(LoadClass::kConfig, now);
}

std::optional<absl::Duration> LoadAdmission::AdmitSnapshot(LoadClass load_class, uint64_t bytes,
                                                           absl::Duration now) {
  if (!last_asked_.has_value() || now - *last_asked_ > limits_.quiet) rush_began_ = now;
  last_asked_ = now;
  if (!HasPlace(load_class, now)) {
    return Refuse(load_class, std::max(bytes, limits_.cost_min), now);
  }
  ++snapshots_[Index(load_class)];
  return std::nullopt;
}

void LoadAdmission::LeaveSnapshot(LoadClass load_class) {
  CHECK(snapshots_[Index(load_class)]-- > 0);
}

absl::Duration LoadAdmission::Send(LoadClass load_class, uint64_t bytes, absl::Duration now) {
  if (limits_.bytes_per_second == 0) return absl::ZeroDuration();
  const absl::Duration takes = absl::Seconds(static_cast<double>(bytes) / Rate());
  const bool auth = load_class == LoadClass::kAuth;
  absl::Duration& mine = auth ? auth_sent_at_ : sent_at_;
  mine = std::max(mine, now - kBurst);
  const absl::Duration wait = std::max(mine - now, absl::ZeroDuration());
  mine += auth ? takes : takes / Openness(now);
  // Auth does not wait for the others, but they wait for it.
  if (auth) sent_at_ = std::max(sent_at_, now - kBurst) + takes;
  return wait;
}

void LoadAdmission::Drain(absl::Duration now) {
  double passed = Rate() * absl::ToDoubleSeconds(std::max(now - drained_at_, absl::ZeroDuration()));
  drained_at_ = std::max(drained_at_, now);
  for (double& queued : queued_) {
    const double gone = std::min(queued, passed);
    queued -= gone;
    passed -= gone;
  }
}

absl::Duration LoadAdmission::backlog(LoadClass load_class, absl::Duration now) {
  Drain(now);
  double bytes = 0;
  for (size_t i = 0; i <= Index(load_class); ++i) bytes += queued_[i];
  return absl::Seconds(bytes / Rate());
}

absl::Duration LoadAdmission::Refuse(LoadClass load_class, uint64_t cost, absl::Duration now) {
  const absl::Duration turn = backlog(load_class, now);
  if (turn < limits_.retry_max) queued_[Index(load_class)] += static_cast<double>(cost);
  return Jittered(std::clamp(turn, limits_.retry_min, limits_.retry_max));
}

// Whole milliseconds, so that the wire tells what was decided.
absl::Duration LoadAdmission::Jittered(absl::Duration wait) {
  const int64_t spread = std::max<int64_t>(1, absl::ToInt64Milliseconds(wait / 2));
  return absl::Milliseconds(absl::ToInt64Milliseconds(wait) +
                            static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(spread))));
}

}  // namespace holdfast::server
