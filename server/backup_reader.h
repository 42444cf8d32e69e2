// Reads a backup stream frame by frame, as strictly as base/backup_rules.h says. holdfastctl has
// its own (client/ctl/backup_file.h) over the same rules: see there why.
//
// Threads: one at a time. Memory: one frame.
#pragma once

#include <utility>

#include "absl/status/statusor.h"
#include "base/backup_rules.h"
#include "base/frames.h"
#include "holdfast/backup.pb.h"

namespace holdfast::server {

class BackupReader {
 public:
  explicit BackupReader(base::FrameReader::Source source) : frames_(std::move(source)) {}

  // Every frame but the padding, checked. False: the backup is complete. DataLoss: it is not sound;
  // FailedPrecondition: of a newer format; or the source's error.
  absl::StatusOr<bool> Next(backup::v1::Frame* frame);

 private:
  absl::Status Check(const backup::v1::Frame& frame);

  base::FrameReader frames_;
  base::BackupRules rules_;
  std::string bytes_;
};

}  // namespace holdfast::server
