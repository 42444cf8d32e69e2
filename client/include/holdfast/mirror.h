// A copy of one prefix in this process, kept up to date while the store can be reached, and read
// alike whether it can or not.
//
// Reads are wait-free: no lock, no system call but the clock's where a policy needs the age, and
// nothing that waits for the network. They are answered from memory only, from whatever was last
// accepted; a copy from an earlier run on disk, or the policy's defaults, stand in until then.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "holdfast/freshness.h"
#include "holdfast/observer.h"
#include "holdfast/options.h"
#include "holdfast/snapshot.h"
#include "holdfast/types.h"

namespace holdfast {

namespace internal {
class MirrorImpl;
}  // namespace internal

struct MirrorStatus {
  Link link = Link::kConnecting;
  Freshness fresh;
  size_t records = 0;
  size_t bytes = 0;
  // The newest revision that was seen and refused; 0: none is held back.
  uint64_t refused_revision = 0;
  absl::Status refused_why;
  uint64_t updates = 0;     // sets taken, ever
  uint64_t rejections = 0;  // sets refused, ever
  uint64_t loads = 0;       // whole copies fetched, ever
  uint64_t resumes = 0;     // reconnects that went on where they were, ever
  bool overridden = false;  // an operator's file is in force
};

// Threads: all methods from any thread. Owned by the Client.
class Mirror {
 public:
  // Every read applies the policy to the age that the data has now. Errors:
  //   FAILED_PRECONDITION  older than the policy allows; BestAvailable() tells what there is
  //   DATA_LOSS            nothing to serve: no copy in memory or on disk, no defaults
  Result<std::optional<Entry>> Get(std::string_view key) const;
  // The same without a copy: `visit` is given the record, or null if there is none, for the time of
  // the call. It must be short, and must not block or call this library.
  absl::StatusOr<Freshness> Visit(std::string_view key,
                                  absl::FunctionRef<void(const EntryView*)> visit) const;
  // All records at one revision; for several reads that must fit together. Keys with a lease are in
  // it whatever the age: look at EntryView::lease, where leases matter.
  Result<MirrorSnapshot> Snapshot() const;
  Result<std::vector<Entry>> Scan(std::string_view prefix) const;

  // Waits until the data is proven to be at most so old. DEADLINE_EXCEEDED after `timeout`.
  absl::Status WaitFresh(absl::Duration max_age, absl::Duration timeout) const;
  // Waits until the data shows the write that the token is of. FAILED_PRECONDITION at once if the
  // token is of another cluster or incarnation than the data.
  absl::Status WaitFor(const Token& token, absl::Duration timeout) const;

  // `changed` runs after each set that was taken, on the thread that feeds the mirrors, and must
  // not block or wait for the mirror. The first call comes soon after this one, with `before`
  // empty.
  using Changed =
      absl::AnyInvocable<void(const MirrorSnapshot& before, const MirrorSnapshot& after)>;
  void OnChange(Changed changed);

  // The data at `revision` (or newer, served now) is good: probation is over.
  void MarkGood(uint64_t revision);
  // A person or program has looked: a set refused at this revision or before by a guard (mass
  // deletion, growth) is to be served. What a validator refuses stays refused.
  void MarkAccepted(uint64_t revision);

  const std::string& prefix() const;
  MirrorStatus status() const;

 private:
  friend class internal::MirrorImpl;
  explicit Mirror(internal::MirrorImpl* impl) : impl_(impl) {}
  internal::MirrorImpl* const impl_;
};

}  // namespace holdfast
