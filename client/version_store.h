// The records of one mirror, as a chain of immutable versions: one writer builds the next one while
// any number of readers use older ones.
//
//   Put/Delete/Clear ──► the version under construction ──Build()──► head ──Publish()──► current
//
// Two pointers into the chain: `head` shows everything that the store has sent, `current` what was
// accepted and is served; they differ while a set is being judged, or has been refused. Versions
// share what did not change: a change of one key copies some hundred bytes to a few KiB, however
// many records there are.
//
// Readers are wait-free: pinning (client/pins.h) is a store to a slot of the thread's own and a
// load. What a version replaced is freed once no reader can see it: versions are given back in the
// order of the chain, so a snapshot that is kept long keeps everything that was replaced since. It
// is the writer that frees, in Build, Publish and memory(): letting go of a snapshot costs its
// reader one atomic decrement, whatever the version holds. Only what is left when the store ends is
// freed by whoever lets go last.
//
// Threads: Current() and Visit() from any thread, beside the writer; the static methods from any
// thread; all else from one thread at a time. Snapshots may outlive the store; REQUIRES: no call of
// Current() or Visit() is still running when it is destroyed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "base/record_digest.h"
#include "client/claim.h"
#include "holdfast/entry.h"
#include "holdfast/snapshot.h"

namespace holdfast::internal {

// What is published together with the records, and may change without them.
struct VersionInfo {
  uint64_t revision = 0;
  uint64_t incarnation = 0;
  uint64_t cluster_id = 0;
  Claim claim = {};  // of these records; its revision is `revision`
  bool superseded = false;
  bool overridden = false;  // an operator's file is part of it
  bool usable = false;      // false: nothing has been accepted yet
};

class VersionStore {
 public:
  VersionStore();
  ~VersionStore();
  VersionStore(const VersionStore&) = delete;
  VersionStore& operator=(const VersionStore&) = delete;

  // --- readers ---
  // What was published last. Wait-free.
  MirrorSnapshot Current(VersionInfo* info = nullptr) const;
  // Looks one key up in what was published last: `visit` is given the record (null: none) and the
  // info, for the time of the call. Wait-free, no reference counted.
  void Visit(std::string_view key,
             absl::FunctionRef<void(const EntryView*, const VersionInfo&)> visit) const;

  // --- the writer ---
  // Changes the version under construction, which begins as a copy of head.
  // Of a record that is there already, alike in every field: nothing. Its bytes may be those of any
  // version. At most 4 GiB for a key, and for a value.
  void Put(const EntryView& entry);
  void Delete(std::string_view key);  // of a key that is not there: nothing
  // Starts from nothing: O(what was put since the last Build), however many records there are.
  void Clear();
  // Ends it: it is now head, at this revision, and no longer changes.
  MirrorSnapshot Build(uint64_t revision);
  MirrorSnapshot head() const;
  // Serves `version` from now on, with `info`. REQUIRES: of this store, and not older than what is
  // published now: the same one, with other info, is fine.
  void Publish(const MirrorSnapshot& version, const VersionInfo& info);
  VersionInfo info() const;  // published last

  // Of one version's records (base/record_digest.h): kept up to date by every change.
  static base::RecordDigest ContentDigest(const MirrorSnapshot& version);
  static base::RecordDigest RecordsDigest(const MirrorSnapshot& version);
  // The keys that differ between two versions of this store's chain, `before` the older one, at
  // most `max`; `visit` gets the key and its record in each (null: not there). False: there are
  // more. Order: any. Cost: of what differs, not of what there is, where the versions are near each
  // other; of what there is, where a Clear() lies between them. A default-made snapshot is empty.
  static bool Diff(
      const MirrorSnapshot& before, const MirrorSnapshot& after, size_t max,
      absl::FunctionRef<void(std::string_view key, const EntryView* before, const EntryView* after)>
          visit);

  // Memory that all versions of the chain take, and how much of it only old versions need. In
  // bytes, with what the allocator adds.
  struct Memory {
    size_t total = 0;
    size_t retired = 0;
  };
  Memory memory() const;

 private:
  class Impl;
  static MirrorSnapshot Counted(VersionNode* node);
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::internal
