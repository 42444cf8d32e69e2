// The order and the counts that make a sequence of frames a backup (api/holdfast/backup.proto).
//
// One copy for everybody who reads one: holdfastctl, which verifies, and holdfastd, which imports.
// They cannot share a reader, because base/ knows no messages, api/ holds no code, and client/ and
// server/ do not know each other; so each turns its frames into these calls, and the rules stay
// here. What is written is checked by the same rules.
//
//   header · records (full) or revisions (increment), leases, in any order · end · padding
//
// Threads: one at a time. Errors: DataLoss, with what rule was broken; then the object is of no
// use.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace holdfast::base {

// Of api/holdfast/backup.proto's Header.
inline constexpr uint32_t kBackupFormat = 1;
// Behind the padding: etcdctl takes size % 512 == 32 for "there is a SHA-256 at the end".
inline constexpr uint64_t kBackupAlignment = 512;
inline constexpr uint64_t kBackupHashBytes = 32;
// How many bytes of padding the last frame must hold, so that it and the `bytes` before it are a
// multiple of the alignment; kNoPadding: they are one without it.
inline constexpr uint64_t kNoPadding = UINT64_MAX;
uint64_t BackupPadding(uint64_t bytes);

class BackupRules {
 public:
  struct Header {
    uint32_t format = 0;
    int64_t revision = 0;
    int64_t after_revision = 0;  // 0: a full backup
  };
  struct Record {
    std::string_view key;
    int64_t create_revision = 0;
    int64_t mod_revision = 0;
    int64_t version = 0;
    int64_t lease = 0;
  };
  struct Counts {
    uint64_t records = 0;
    uint64_t leases = 0;
    uint64_t events = 0;
    friend bool operator==(const Counts&, const Counts&) = default;
  };

  absl::Status OnHeader(const Header& header);
  // A live record; keys ascend.
  absl::Status OnRecord(const Record& record);
  absl::Status OnLease(int64_t id, int64_t granted_ttl_s);
  // Begins the events of `revision`; revisions ascend, each has at least one event.
  absl::Status OnRevision(int64_t revision, int events);
  // Of the revision begun last. A deletion has key and mod revision only.
  absl::Status OnEvent(const Record& record, bool deletion);
  absl::Status OnEnd(const Counts& told);
  absl::Status OnPadding();
  // The sequence ended between two frames. Not OK: before the end of the backup.
  absl::Status OnFinish() const;

  bool complete() const { return state_ == State::kEnded; }
  const Counts& counts() const { return counts_; }

 private:
  enum class State { kEmpty, kOpen, kEnded };
  absl::Status CheckOpen(std::string_view what) const;

  State state_ = State::kEmpty;
  Header header_;
  Counts counts_;
  bool any_key_ = false;
  std::string last_key_;
  int64_t last_revision_ = 0;
};

}  // namespace holdfast::base
