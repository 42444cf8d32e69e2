// A directory of backups: generations of one full backup and the increments that continue it.
//
//   DIR/g00001-full-000000004711.hfb
//   DIR/g00001-inc-000000004711-000000005000.hfb    events with 4711 < revision <= 5000
//   DIR/g00002-full-000000006100.hfb                the next generation
//   DIR/LOCK                                        held by the one process that adds to it
//
// There is no manifest: a file has its name only once it is whole and synced (DurableFile), and its
// header says what it continues. So nothing can disagree with the files, and they may be copied
// one by one, in any order, by whatever tool. Generations are counted, because revisions alone do
// not tell which came later: they may go back with a new incarnation.
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/ctl/commands.h"

namespace holdfast::ctl {

struct BackupFile {
  std::string path;
  int generation = 0;
  int64_t after = 0;  // 0: full
  int64_t revision = 0;
};

struct Generation {
  int number = 0;
  std::vector<BackupFile> files;  // a full one, then increments without a gap
};

// By the names alone, the oldest first. Files of other names are passed over, and so are increments
// that nothing leads to. NotFound: there is no such directory.
absl::StatusOr<std::vector<Generation>> ListBackups(const std::string& dir);
std::string BackupName(int generation, int64_t after, int64_t revision);

// The files that lead to `revision` (0: the newest), of the newest generation that holds it.
absl::StatusOr<std::vector<std::string>> ChainTo(const std::string& dir, int64_t revision);

struct BackupArgs {
  std::string dir;
  bool full = false;
  absl::Duration every = absl::ZeroDuration();  // 0: once
  int keep = 0;                                 // generations; 0: all
  // Then a new generation begins, so that a restore need not replay for ever.
  int increments_max = 100;
};

// Once, or until a signal ends the process.
ExitCode Backup(const Common& common, const BackupArgs& args, Io io);
ExitCode BackupVerify(const Common& common, const std::string& dir, Io io);
ExitCode BackupList(const Common& common, const std::string& dir, Io io);

}  // namespace holdfast::ctl
