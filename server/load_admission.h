// Which loads of clients' copies (Mirror.Load) a member takes on now, and when the others are to
// come again.
//
// After an outage everybody comes back at once. What keeps that from becoming the next outage:
//   - what costs little goes first: going on behind a revision (RESUME) is nearly always admitted;
//     an answer "unchanged" costs one scan for all who ask for the same prefix; only whole copies
//     are rationed, by number and by bytes a second.
//   - auth before config before bulk: some places are for auth alone, auth's bytes do not wait
//     behind anybody else's, and while auth waits hardly any of the others are let in.
//   - it opens step by step: whole copies for others than auth begin with a quarter of the places
//     and of the rate, all of it after `opening`.
//   - who is refused is told when its turn may come: a virtual queue, in which each refusal takes
//     the room that its copy would cost, spreads a herd over as long as the herd needs. It is
//     memory of a few numbers, not of callers; a caller that goes elsewhere costs nothing more, for
//     the queue empties with time.
//
// A pure core: time comes in as monotonic time since any fixed instant; randomness by the seed.
// Threads: one at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/time/time.h"
#include "base/rng.h"

namespace holdfast::server {

enum class LoadClass { kAuth = 0, kConfig = 1, kBulk = 2 };
inline constexpr size_t kLoadClasses = 3;

// Metadata `holdfast-class`; unknown or none: kConfig.
LoadClass ParseLoadClass(std::string_view text);
std::string_view LoadClassName(LoadClass load_class);

struct LoadLimits {
  // Whole copies under way at once. A quarter of them, rounded up, is for auth alone, and bulk has
  // at most half of the rest.
  int snapshots = 32;
  // Of whole copies, all together; 0: no limit.
  uint64_t bytes_per_second = uint64_t{128} << 20;
  // Calls that wait for a scan. A quarter is for auth alone.
  int waiting = 4096;
  // Calls that go on where they were; beyond it they are refused too.
  double resumes_per_second = 20'000;
  // What a whole copy counts for at least in the virtual queue: a call is not free.
  uint64_t cost_min = uint64_t{64} << 10;
  // Refused callers are sent away for at least and at most so long, before jitter.
  absl::Duration retry_min = absl::Milliseconds(500);
  absl::Duration retry_max = absl::Seconds(60);
  // A rush begins when a whole copy is asked for and none was for `quiet`; the places and the rate
  // for others than auth then rise from a quarter to all within `opening`.
  absl::Duration quiet = absl::Seconds(30);
  absl::Duration opening = absl::Seconds(10);
};

class LoadAdmission {
 public:
  LoadAdmission(const LoadLimits& limits, uint64_t seed);

  // Each: nullopt: admitted; else how long the caller is to stay away.
  std::optional<absl::Duration> AdmitResume(absl::Duration now);
  // To wait for a scan; LeaveWaiting afterwards.
  std::optional<absl::Duration> AdmitWaiting(LoadClass load_class, absl::Duration now);
  void LeaveWaiting(LoadClass load_class);
  // A whole copy of so many bytes; LeaveSnapshot afterwards.
  std::optional<absl::Duration> AdmitSnapshot(LoadClass load_class, uint64_t bytes,
                                              absl::Duration now);
  void LeaveSnapshot(LoadClass load_class);

  // Reserves the sending of so many bytes of an admitted copy; how long to wait before it.
  absl::Duration Send(LoadClass load_class, uint64_t bytes, absl::Duration now);

  int snapshots(LoadClass load_class) const { return snapshots_[Index(load_class)]; }
  int waiting() const { return waiting_[0] + waiting_[1] + waiting_[2]; }
  // How long it would take to send what refused callers of this class and of better ones were told
  // to come back for.
  absl::Duration backlog(LoadClass load_class, absl::Duration now);

 private:
  static size_t Index(LoadClass load_class) { return static_cast<size_t>(load_class); }
  int PlacesFor(LoadClass load_class, absl::Duration now) const;
  bool HasPlace(LoadClass load_class, absl::Duration now);
  double Openness(absl::Duration now) const;
  double Rate() const;
  void Drain(absl::Duration now);
  absl::Duration Refuse(LoadClass load_class, uint64_t cost, absl::Duration now);
  absl::Duration Jittered(absl::Duration wait);

  const LoadLimits limits_;
  base::Rng rng_;
  std::array<int, kLoadClasses> snapshots_{};
  std::array<int, kLoadClasses> waiting_{};
  // The virtual queue: bytes by class, as of drained_at_.
  std::array<double, kLoadClasses> queued_{};
  absl::Duration drained_at_ = absl::ZeroDuration();
  // Whole copies: the last one asked for, and when the rush began.
  std::optional<absl::Duration> last_asked_;
  absl::Duration rush_began_ = absl::ZeroDuration();
  // When all that was reserved is sent: of auth, and of everybody.
  absl::Duration auth_sent_at_ = absl::ZeroDuration();
  absl::Duration sent_at_ = absl::ZeroDuration();
  // Resumes: a bucket of one second's worth.
  double resumes_left_ = 0;
  std::optional<absl::Duration> resumes_at_;
};

}  // namespace holdfast::server
