#include "replication/freshness_record.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include <fmt/format.h>

#include "base/crc32c.h"

namespace holdfast::raft {
namespace {

constexpr std::string_view kFormat = "holdfast-freshness-1";

// The running kernel's boot, and the namespace its boot clock is read in. Empty if it cannot be
// told: then no record is worth anything.
std::string BootIdentity() {
  std::string boot_id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot_id;
  if (boot_id.empty()) return "";
  char link[64] = {};
  const ssize_t n = readlink("/proc/self/ns/time", link, sizeof(link) - 1);
  return boot_id + "/" + std::string(link, n > 0 ? static_cast<size_t>(n) : 0);
}

}  // namespace

absl::Status WriteFreshnessRecord(const std::string& path, const Claim& claim) {
  const std::string boot = BootIdentity();
  if (boot.empty()) return absl::UnavailableError("the kernel's boot id cannot be read");
  const std::string body =
      fmt::format("{} {} {} {} {} {} {}", kFormat, boot, claim.at.boot_ns, claim.at.mono_ns,
                  claim.at.raw_ns, absl::ToInt64Nanoseconds(claim.extra), claim.index.value);
  const std::string temporary = path + ".tmp";
  {
    std::ofstream out(temporary, std::ios::trunc);
    out << body << ' ' << base::Crc32c(body) << '\n';
    out.flush();
    if (!out) return absl::UnavailableError("cannot write " + temporary);
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::UnavailableError("cannot replace " + path);
  }
  return absl::OkStatus();
}

std::optional<Claim> ReadFreshnessRecord(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  if (!std::getline(in, line)) return std::nullopt;
  const size_t body_end = line.rfind(' ');
  if (body_end == std::string::npos) return std::nullopt;
  const std::string body = line.substr(0, body_end);
  std::istringstream crc_text(line.substr(body_end + 1));
  uint32_t crc = 0;
  if (!(crc_text >> crc) || crc != base::Crc32c(body)) return std::nullopt;

  std::istringstream fields(body);
  std::string format, boot;
  Claim claim;
  int64_t extra_ns = 0;
  fields >> format >> boot >> claim.at.boot_ns >> claim.at.mono_ns >> claim.at.raw_ns >> extra_ns >>
      claim.index.value;
  if (!fields || format != kFormat || boot.empty() || boot != BootIdentity()) return std::nullopt;
  // A sample from the future is of another boot, whatever the record says.
  if (claim.at.boot_ns > base::RealClock::Get()->Sample().boot_ns) return std::nullopt;
  claim.extra = absl::Nanoseconds(extra_ns);
  return claim;
}

}  // namespace holdfast::raft
