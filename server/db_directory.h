// Which database directory is the state machine's, kept right across a crash at any point.
//
// Below `dir`: `db-N` directories, and the file `current`, which names the one in use and, if that
// came as a checkpoint, says which: `db-N` or `db-N INDEX TERM MEMBERSHIP` (membership in hex). So
// the mark of an install takes effect with it, in one rename. A new state is installed by renaming
// its directory to a new db-N and then replacing `current` (write a temporary file, fsync, rename,
// fsync the directory). `current` is written before the very first database is created, so that a
// directory without it is never taken for a new one.
//
//   current   | db-* found           | what Open does
//   ----------+----------------------+------------------------------------------------------------
//   missing   | none                 | first start: names db-1, which the store then creates
//   missing   | any                  | refuses: DataLoss
//   db-N      | db-N                 | uses it
//   db-N      | db-N and others      | uses it; removes the others: an install that did not finish,
//             |                      | or one that did not get to removing the old one
//   db-1      | none                 | first start, cut short: as a first start
//   db-N      | not db-N, otherwise  | refuses: DataLoss
//   otherwise | any                  | refuses: DataLoss
// A refusal carries a storage::Damage.
// Leftover `ckpt-*` and `current.tmp` are removed whenever Open succeeds.
//
// Threads: one (the apply thread, after Open).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/log_store.h"

namespace holdfast::server {

class DbDirectory {
 public:
  // Creates `dir` if it is missing. Errors: see the table; Unavailable if the file system fails.
  static absl::StatusOr<DbDirectory> Open(const std::string& dir);

  // The database in use.
  std::string current() const { return PathOf(current_); }

  // Renames `from` (same file system) to a new database directory, durably, without using it yet.
  absl::StatusOr<std::string> Adopt(const std::string& from);
  // From here on `path` is the database in use, also after a crash, and installed() is `mark`.
  // After an error either of the two databases may be the named one. REQUIRES: Adopt returned it.
  absl::Status Use(const std::string& path, const storage::LogMark& mark);
  // As of the database in use; nullopt: it grew here from nothing.
  const std::optional<storage::LogMark>& installed() const { return installed_; }

  // A path for a new checkpoint. Any thread may use the result; the call itself is not guarded.
  std::string CheckpointPath(uint64_t number) const;

 private:
  DbDirectory(std::string dir, uint64_t current, std::optional<storage::LogMark> installed)
      : dir_(std::move(dir)), current_(current), installed_(std::move(installed)) {}
  std::string PathOf(uint64_t number) const;
  absl::Status WriteCurrent(std::string_view text) const;
  absl::Status RemoveLeftovers() const;

  std::string dir_;
  uint64_t current_;
  std::optional<storage::LogMark> installed_;
  uint64_t adopted_ = 0;  // the newest number given by Adopt
};

}  // namespace holdfast::server
