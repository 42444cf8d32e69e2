// Stops a member from filling its disk: before the last of it is gone, the alarm NOSPACE is raised,
// and the cluster takes nothing more that makes the data larger.
//
// Two limits, each for itself:
//   disk reserve  what must stay free on the file system of the data directory. Holdfast is a disk
//                 store; a disk that runs full stops the member (docs/recovery.md), and this comes
//                 before. On by default.
//   quota         etcd's: what the store's files may take. etcd needs one for its memory-mapped
//                 file; here there is none unless it is asked for.
// While a limit is passed, Admission::CheckSpace refuses at once, and the alarm is raised through
// the log, so that every member refuses. The alarm stays until an operator clears it, as in etcd;
// if space is still short then, it comes back.
//
// Threads: one of its own, until Stop.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "server/admission.h"
#include "server/member_view.h"

namespace holdfast::server {

struct SpaceLimits {
  static constexpr int64_t kDefaultReserveBytes = int64_t{512} << 20;
  // Of a small file system the default takes no more than this part (one in so many).
  static constexpr int64_t kDefaultReservePart = 20;

  int64_t quota_bytes = 0;                 // <= 0: none
  std::optional<int64_t> reserve_bytes{};  // nullopt: the default; <= 0: none
};

struct DiskSpace {
  uint64_t free_bytes = 0;  // for us; what is kept for root does not count
  uint64_t total_bytes = 0;
};

// Of the file system that holds `dir`. nullopt: it does not tell.
std::optional<DiskSpace> ReadDiskSpace(const std::string& dir);

// What must stay free.
uint64_t ReserveOf(const SpaceLimits& limits, uint64_t total_bytes);

// What is short, for people; nullopt: nothing. Pure.
std::optional<std::string> Shortage(const SpaceLimits& limits, const std::optional<DiskSpace>& disk,
                                    uint64_t store_bytes);

class SpaceGuard {
 public:
  // How often is looked. Within it the reserve must hold whatever is written.
  static constexpr absl::Duration kInterval = absl::Milliseconds(250);
  // An alarm that could not be raised is tried again after it.
  static constexpr absl::Duration kRetry = absl::Seconds(1);

  // `admission` outlives the guard.
  SpaceGuard(const MemberView& member, Admission* admission, std::string data_dir,
             const SpaceLimits& limits);
  ~SpaceGuard();
  void Stop();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::server
