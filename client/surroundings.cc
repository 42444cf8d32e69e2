// What this machine says of its clocks and of itself.
#include <fcntl.h>
#include <sys/timex.h>
#include <unistd.h>

#include <string>

#include "absl/time/clock.h"
#include "client/claim.h"
#include "client/disk_file.h"
#include "client/last_good.h"

namespace holdfast::internal {
namespace {

std::string ReadProc(const char* path) {
  const auto fd = OpenFile(path, O_RDONLY);
  if (!fd.ok()) return "";
  auto text = ReadFd(fd->get(), path, 4096);
  if (!text.ok()) return "";
  while (!text->empty() && (text->back() == '\n' || text->back() == ' ')) text->pop_back();
  return *std::move(text);
}

// BOOTTIME and MONOTONIC have an offset of their own in each time namespace. The link names the
// namespace, but names are given out again, so the offsets are part of ours.
std::string TimeNamespace() {
  char link[64];
  const ssize_t n = readlink("/proc/self/ns/time", link, sizeof(link));
  if (n <= 0) return "";
  std::string name(link, static_cast<size_t>(n));
  for (const char c : ReadProc("/proc/self/timens_offsets")) {
    if (c == '\n') {
      name += ';';
    } else if (c != ' ' || name.back() != ' ') {
      name += c;
    }
  }
  return name;
}

WallReading ReadWall() {
  WallReading reading;
  reading.now = absl::Now();
  timex state = {};
  const int clock = adjtimex(&state);
  if (clock < 0) return reading;
  reading.synchronized = clock != TIME_ERROR && (state.status & STA_UNSYNC) == 0;
  reading.error = absl::Microseconds(state.maxerror);
  return reading;
}

}  // namespace

Surroundings Surroundings::OfThisMachine() {
  return {.clock = RealClockPtr(),
          .wall = ReadWall,
          .boot_id = ReadProc("/proc/sys/kernel/random/boot_id"),
          .time_namespace = TimeNamespace()};
}

}  // namespace holdfast::internal
