#include "server/last_resort.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/strings.h"
#include "holdfast/command.pb.h"
#include "replication/recovery.h"
#include "server/data_dir.h"
#include "server/join.h"

namespace holdfast::server {
namespace {

constexpr std::string_view kDoneFile = "forced-new-cluster";
constexpr absl::Duration kAskTimeout = absl::Seconds(2);
constexpr size_t kReadBytes = size_t{4} << 20;  // of the log at a time

std::string DonePath(const std::string& data_dir) {
  return fmt::format("{}/{}", data_dir, kDoneFile);
}

absl::Status NoteDone(const std::string& data_dir) {
  return DataDir::WriteFile(
      data_dir, kDoneFile,
      absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone()) + "\n");
}

absl::Status CheckNobodyAnswers(const raft::Membership& membership, const Identity& self) {
  for (const auto& [id, urls] : membership.peer_urls) {
    if (id == self.self) continue;
    for (const std::string& url : urls) {
      const absl::StatusOr<ClusterView> view = AskPeer(url, NodeId(), kAskTimeout);
      if (!view.ok() || view->cluster_id != self.cluster_id) continue;
      return absl::FailedPreconditionError(base::ToAbsl(fmt::format(
          "--force-new-cluster is for the case that a majority is lost for good, and member {:x} "
          "answers at {}: nothing was changed. If there are enough members for a quorum, start "
          "them and this one without the flag. If not, stop the others, choose the one member "
          "that goes on (`endpoint status` shows whose raft index is highest), and give the flag "
          "to that one alone",
          view->teller.value, url)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<uint64_t> IncarnationAtEnd(const storage::LogStore& log,
                                          const KvStateMachine& machine) {
  uint64_t incarnation = machine.incarnation();
  const Index last = log.recovered().last;
  for (Index next = machine.applied() + 1; next <= last;) {
    const auto entries = log.Read(next, last, kReadBytes);
    if (!entries.ok()) return entries.status();
    for (const storage::EntryRef& entry : *entries) {
      next = entry->index + 1;
      command::v1::Command command;
      if (entry->type != storage::EntryType::kNormal || !command.ParseFromString(entry->payload) ||
          !command.has_cluster_birth()) {
        continue;
      }
      // As it will be applied (apply_command.cc).
      const command::v1::ClusterBirth& birth = command.cluster_birth();
      if (birth.replaces() == incarnation) incarnation = birth.incarnation();
    }
  }
  return incarnation;
}

absl::StatusOr<bool> ForceNewCluster(const Config& config, const Identity& self,
                                     storage::LogStore* log, const KvStateMachine& machine) {
  if (std::error_code ignored; std::filesystem::exists(DonePath(config.data_dir), ignored)) {
    LOG_WARN(
        "--force-new-cluster was carried out at an earlier start and is left out: remove the flag");
    return false;
  }
  const absl::StatusOr<uint64_t> old_incarnation = IncarnationAtEnd(*log, machine);
  if (!old_incarnation.ok()) return old_incarnation.status();
  const auto recovered = raft::Recover(self.bootstrap, log, machine);
  if (!recovered.ok()) return recovered.status();
  const absl::StatusOr<raft::Membership> now = raft::MembershipAtEnd(*recovered);
  if (!now.ok()) return now.status();
  if (now->All() == std::vector<NodeId>{self.self} && now->voters.contains(self.self)) {
    LOG_WARN("--force-new-cluster: this member is alone in its cluster already: remove the flag");
    if (absl::Status status = NoteDone(config.data_dir); !status.ok()) return status;
    return true;  // Recover may have appended
  }
  if (absl::Status status = CheckNobodyAnswers(*now, self); !status.ok()) return status;

  uint64_t incarnation = 0;
  while (incarnation == 0 || incarnation == *old_incarnation) incarnation = base::RandomSeed();
  command::v1::Command birth;
  birth.mutable_cluster_birth()->set_incarnation(incarnation);
  birth.mutable_cluster_birth()->set_replaces(*old_incarnation);
  std::vector<std::string> urls = ToStrings(config.initial_advertise_peer_urls);
  std::ranges::sort(urls);
  auto batch = raft::GoOnAlone(*recovered, self.self, urls, birth.SerializeAsString());
  if (!batch.ok()) return batch.status();
  std::vector<std::string> gone;
  for (const NodeId id : now->All()) {
    if (id != self.self) gone.push_back(fmt::format("{:x}", id.value));
  }
  LOG_WARN(
      "--force-new-cluster: going on alone as incarnation {:x} (before: {:x}) with everything in "
      "the log up to index {}, term {}. The members {} are removed for good: they must not be "
      "started again with their data. What clients were told may be missing, if this member did "
      "not have it",
      incarnation, *old_incarnation, recovered->last.value, batch->hard_state->term.value,
      fmt::join(gone, ", "));
  if (absl::Status status = log->Append({*std::move(batch)}); !status.ok()) return status;
  if (absl::Status status = NoteDone(config.data_dir); !status.ok()) return status;
  return true;
}

void ForgetForcedNewCluster(const std::string& data_dir) {
  std::error_code error;
  std::filesystem::remove(DonePath(data_dir), error);
  if (error) LOG_WARN("cannot remove {}: {}", DonePath(data_dir), error.message());
}

}  // namespace holdfast::server
