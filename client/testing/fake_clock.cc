#include "holdfast/testing/fake_clock.h"

#include <fmt/format.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "client/machine_clock.h"

namespace holdfast::testing {
namespace {

// A machine has been up for a while before a service starts.
constexpr int64_t kUptimeAtFirstNs = 1'000'000'000;
constexpr absl::Duration kWallError = absl::Milliseconds(1);

absl::Time FirstWall() { return absl::FromUnixSeconds(1'767'225'600); }  // 2026-01-01T00:00:00Z

}  // namespace

class FakeClock::Impl : public internal::MachineClock {
 public:
  base::ClockSample Sample() const override {
    absl::MutexLock lock(&mutex_);
    return now_;
  }
  internal::WallReading Wall() const override {
    absl::MutexLock lock(&mutex_);
    return {wall_, synchronized_, synchronized_ ? kWallError : absl::InfiniteDuration()};
  }
  std::string BootId() const override {
    absl::MutexLock lock(&mutex_);
    return fmt::format("00000000-0000-4000-8000-{:012x}", boot_);
  }

  void Move(absl::Duration duration, bool suspended) {
    CHECK(duration >= absl::ZeroDuration());
    const int64_t ns = absl::ToInt64Nanoseconds(duration);
    absl::MutexLock lock(&mutex_);
    now_.boot_ns += ns;
    if (!suspended) {
      now_.mono_ns += ns;
      now_.raw_ns += ns;
    }
    wall_ += duration;
  }
  void SetWall(absl::Time now) {
    absl::MutexLock lock(&mutex_);
    wall_ = now;
  }
  void SetWallSynchronized(bool synchronized) {
    absl::MutexLock lock(&mutex_);
    synchronized_ = synchronized;
  }
  void Reboot(absl::Duration downtime) {
    CHECK(downtime >= absl::ZeroDuration());
    absl::MutexLock lock(&mutex_);
    ++boot_;
    now_ = kBegin;
    wall_ += downtime;
  }

 private:
  static constexpr base::ClockSample kBegin = {kUptimeAtFirstNs, kUptimeAtFirstNs,
                                               kUptimeAtFirstNs};

  mutable absl::Mutex mutex_;
  base::ClockSample now_ ABSL_GUARDED_BY(mutex_) = kBegin;
  absl::Time wall_ ABSL_GUARDED_BY(mutex_) = FirstWall();
  bool synchronized_ ABSL_GUARDED_BY(mutex_) = true;
  uint64_t boot_ ABSL_GUARDED_BY(mutex_) = 1;
};

FakeClock::FakeClock() : impl_(std::make_shared<Impl>()) {}
FakeClock::~FakeClock() = default;

std::shared_ptr<const base::Clock> FakeClock::clock() const { return impl_; }
void FakeClock::Advance(absl::Duration duration) { impl_->Move(duration, /*suspended=*/false); }
void FakeClock::Suspend(absl::Duration duration) { impl_->Move(duration, /*suspended=*/true); }
void FakeClock::SetWall(absl::Time now) { impl_->SetWall(now); }
void FakeClock::SetWallSynchronized(bool synchronized) { impl_->SetWallSynchronized(synchronized); }
absl::Time FakeClock::wall() const { return impl_->Wall().now; }
void FakeClock::Reboot(absl::Duration downtime) { impl_->Reboot(downtime); }
std::string FakeClock::boot_id() const { return impl_->BootId(); }

}  // namespace holdfast::testing
