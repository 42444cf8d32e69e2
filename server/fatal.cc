#include "server/fatal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/strings.h"
#include "server/repair.h"
#include "storage/damage.h"

namespace holdfast::server {
namespace {

bool Names(std::string_view text, int error) {
  return text.find(std::strerror(error)) != std::string_view::npos;
}

std::string_view WayOut(const absl::Status& error) {
  const std::string_view text = base::Message(error);
  if (error.code() == absl::StatusCode::kResourceExhausted || Names(text, ENOSPC) ||
      Names(text, EDQUOT)) {
    return "the disk of the data directory is full: free some space (nothing below the data "
           "directory may be deleted by hand), then start this member again; nothing that was "
           "acknowledged is lost";
  }
  if (Names(text, EROFS)) {
    return "the file system of the data directory has become read-only, which most often follows a "
           "disk error: look at the kernel's log, repair it, then start this member again";
  }
  if (storage::DamageOf(error).has_value()) {
    return "start this member again: it has itself replaced and copies the others' data "
           "(--repair=auto, the default; docs/recovery.md). Look at the kernel's log: if the disk "
           "fails, move the data directory to another one first";
  }
  if (error.code() == absl::StatusCode::kDataLoss || Names(text, EIO)) {
    return "the disk failed: look at the kernel's log; if the disk is sound, start this member "
           "again, else give it an empty data directory on another one (docs/operations.md, \"A "
           "member lost its disk\")";
  }
  return "start this member again; if it stops here again, keep its data directory and report this "
         "line";
}

}  // namespace

std::string FatalText(const absl::Status& error) {
  return fmt::format("stopping at once, so that nothing unsafe is acknowledged: {}. What to do: {}",
                     base::Message(error), WayOut(error));
}

void DieOf(const absl::Status& error) {
  LOG_ERROR("{}", FatalText(error));
  base::FlushLog();
  _exit(1);
}

std::function<void(const absl::Status&)> DieIn(std::string data_dir) {
  return [data_dir = std::move(data_dir)](const absl::Status& error) {
    if (const auto damage = storage::DamageOf(error)) {
      const absl::Status written = WriteDamageMarker(data_dir, *damage);
      if (!written.ok()) LOG_ERROR("cannot note the damage: {}", base::Message(written));
    }
    DieOf(error);
  };
}

}  // namespace holdfast::server
