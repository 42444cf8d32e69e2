#include "server/space_guard.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "base/strings.h"
#include "server/peer_channel.h"
#include "server/ticker.h"

namespace holdfast::server {
namespace {

double Mib(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

std::optional<DiskSpace> ReadDiskSpace(const std::string& dir) {
  struct statvfs found = {};
  if (statvfs(dir.c_str(), &found) != 0) return std::nullopt;
  return DiskSpace{.free_bytes = uint64_t{found.f_bavail} * found.f_frsize,
                   .total_bytes = uint64_t{found.f_blocks} * found.f_frsize};
}

uint64_t ReserveOf(const SpaceLimits& limits, uint64_t total_bytes) {
  if (limits.reserve_bytes.has_value()) {
    return static_cast<uint64_t>(std::max<int64_t>(*limits.reserve_bytes, 0));
  }
  return std::min<uint64_t>(SpaceLimits::kDefaultReserveBytes,
                            total_bytes / SpaceLimits::kDefaultReservePart);
}

std::optional<std::string> Shortage(const SpaceLimits& limits, const std::optional<DiskSpace>& disk,
                                    uint64_t store_bytes) {
  if (limits.quota_bytes > 0 && store_bytes >= static_cast<uint64_t>(limits.quota_bytes)) {
    return fmt::format("the store takes {:.1f} MiB and may take {:.1f} (--quota-backend-bytes)",
                       Mib(store_bytes), Mib(static_cast<uint64_t>(limits.quota_bytes)));
  }
  if (!disk.has_value()) return std::nullopt;
  const uint64_t reserve = ReserveOf(limits, disk->total_bytes);
  if (disk->free_bytes < reserve) {
    return fmt::format(
        "{:.1f} MiB are free on the disk of the data directory and {:.1f} must stay so "
        "(--disk-reserve-bytes)",
        Mib(disk->free_bytes), Mib(reserve));
  }
  return std::nullopt;
}

class SpaceGuard::Impl {
 public:
  Impl(const MemberView& member, Admission* admission, std::string data_dir,
       const SpaceLimits& limits)
      : member_(member),
        admission_(admission),
        data_dir_(std::move(data_dir)),
        limits_(limits),
        ticker_(kInterval, [this] { Tick(); }) {}

  void Stop() { ticker_.Stop(); }

 private:
  // Shared with the pipeline's callback, which may come after Stop.
  struct Proposal {
    std::atomic<bool> under_way = false;
    std::atomic<bool> failed = false;
  };

  void Tick() {
    const std::optional<DiskSpace> disk = ReadDiskSpace(data_dir_);
    if (!disk.has_value() && !std::exchange(blind_, true)) {
      LOG_WARN("the free space of {} cannot be read: no alarm is raised when it runs out",
               data_dir_);
    }
    const std::optional<std::string> shortage =
        Shortage(limits_, disk, member_.machine->store()->disk_bytes());
    admission_->SetShortOfSpace(shortage.has_value());
    if (shortage.has_value() != short_) {
      short_ = shortage.has_value();
      if (short_) {
        LOG_ERROR(
            "short of space: {}. Nothing that makes the data larger is taken any more (alarm "
            "NOSPACE). What to do: delete keys, compact and defragment, or give the disk more "
            "room; then clear the alarm (etcdctl alarm disarm). docs/maintenance.md",
            *shortage);
      } else {
        LOG_INFO("there is enough space again; the alarm NOSPACE stays until it is cleared");
      }
    }
    if (short_) Raise();
  }

  void Raise() {
    const AlarmSet::Alarm alarm = {member_.self.value, AlarmType::kNoSpace};
    if (member_.machine->alarms().alarms().contains(alarm)) return;
    if (proposal_->under_way.load()) return;
    if (proposal_->failed.exchange(false)) retry_at_ = SteadyNow() + ToSteady(kRetry);
    // Without a leader nothing can be raised, and nothing is written either.
    if (SteadyNow() < retry_at_ || !member_.node->status().leader) return;
    command::v1::Command command;
    command.mutable_alarm()->set_action(command::v1::Alarm::ACTIVATE);
    command.mutable_alarm()->set_member_id(alarm.first);
    command.mutable_alarm()->set_type(static_cast<uint32_t>(alarm.second));
    proposal_->under_way.store(true);
    member_.pipeline->Propose(std::move(command), [proposal = proposal_](ApplyResult result) {
      proposal->failed.store(!result.status.ok());
      proposal->under_way.store(false);
    });
  }

  const MemberView member_;
  Admission* const admission_;
  const std::string data_dir_;
  const SpaceLimits limits_;
  const std::shared_ptr<Proposal> proposal_ = std::make_shared<Proposal>();
  // The ticker's thread.
  bool blind_ = false;
  bool short_ = false;
  SteadyTime retry_at_ = {};
  Ticker ticker_;  // last: it uses everything above
};

SpaceGuard::SpaceGuard(const MemberView& member, Admission* admission, std::string data_dir,
                       const SpaceLimits& limits)
    : impl_(std::make_unique<Impl>(member, admission, std::move(data_dir), limits)) {}
SpaceGuard::~SpaceGuard() = default;
void SpaceGuard::Stop() { impl_->Stop(); }

}  // namespace holdfast::server
