#include "server/peer_snapshot_partials.h"

#include <fmt/format.h>

#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "base/log.h"
#include "base/strings.h"

namespace holdfast::server {
namespace {

using raft::v1::SnapshotMeta;

// Nobody else's file: what the node owns already has no record and is removed at start, as it was
// not installed.
std::string NameOf(const SnapshotMeta& meta, uint64_t number) {
  return fmt::format("recv-{:x}-{}-{}", meta.from(), meta.index(), number);
}

// Of "recv-FROM-INDEX-N"; 0 for anything else.
uint64_t NumberOf(std::string_view name) {
  uint64_t number = 0;
  const size_t dash = name.rfind('-');
  if (dash == std::string_view::npos) return 0;
  return absl::SimpleAtoi(base::ToAbsl(name.substr(dash + 1)), &number) ? number : 0;
}

bool Same(const SnapshotMeta& a, const SnapshotMeta& b) {
  return a.SerializeAsString() == b.SerializeAsString();
}

bool Newer(const SnapshotMeta& a, const SnapshotMeta& b) {
  return std::pair(a.term(), a.index()) > std::pair(b.term(), b.index());
}

absl::Status DirectoryError(const std::string& dir, const std::error_code& error) {
  return absl::InternalError(base::ToAbsl(
      fmt::format("cannot create or empty the snapshot directory {}: {}", dir, error.message())));
}

}  // namespace

SnapshotPartials::~SnapshotPartials() {
  if (parked_.assembler != nullptr) parked_.assembler->LeaveOnDisk();
}

absl::Status SnapshotPartials::Open(SteadyTime now) {
  std::error_code error;
  std::filesystem::create_directories(dir_, error);
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator it(dir_, error), end; !error && it != end;
       it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) return DirectoryError(dir_, error);

  std::lock_guard lock(mutex_);
  for (const std::string& file : names) {
    if (!file.ends_with(kPartialSuffix)) continue;
    const std::string name = file.substr(0, file.size() - std::string_view(kPartialSuffix).size());
    absl::StatusOr<SnapshotMeta> meta = SnapshotAssembler::ReadRecord(fs_, dir_, name);
    if (!meta.ok() || (!parked_.name.empty() && !Newer(*meta, parked_.meta))) continue;
    next_ = NumberOf(name) + 1;
    newest_term_ = meta->term();
    parked_ = {name, *std::move(meta), nullptr, now};
  }
  for (const std::string& file : names) {
    if (!parked_.name.empty() && (file == parked_.name || file == parked_.name + kPartialSuffix)) {
      continue;
    }
    std::filesystem::remove_all(dir_ + "/" + file, error);
    if (error) return DirectoryError(dir_, error);
  }
  if (!parked_.name.empty()) {
    LOG_INFO("part of a snapshot at index {} of member {} is here, to go on with",
             parked_.meta.index(), parked_.meta.from());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<SnapshotAssembler>> SnapshotPartials::Claim(
    const SnapshotMeta& meta) {
  Parked parked;
  std::string name;
  {
    std::lock_guard lock(mutex_);
    newest_term_ = std::max(newest_term_, meta.term());
    std::swap(parked, parked_);
    name = NameOf(meta, next_++);
  }
  if (!parked.name.empty()) {
    if (Same(parked.meta, meta)) {
      auto found = GoOn(std::move(parked));
      if (found.ok()) return found;
    } else {
      Drop(std::move(parked), "another one begins");
    }
  }
  return SnapshotAssembler::Create(fs_, meta, dir_, name);
}

absl::StatusOr<std::unique_ptr<SnapshotAssembler>> SnapshotPartials::GoOn(Parked parked) const {
  if (parked.assembler != nullptr) return std::move(parked.assembler);
  auto assembler = SnapshotAssembler::Resume(fs_, dir_, parked.name);
  if (!assembler.ok()) {
    const std::string why(base::Message(assembler.status()));
    Drop(std::move(parked), why);
  }
  return assembler;
}

void SnapshotPartials::Park(std::unique_ptr<SnapshotAssembler> assembler, SteadyTime now) {
  // Nothing to gain from an empty one.
  if (assembler->have_bytes() == 0) return;
  if (absl::Status status = assembler->Pause(); !status.ok()) {
    LOG_WARN("the part of a snapshot that was received is dropped: {}", base::Message(status));
    return;
  }
  Parked older;
  std::lock_guard lock(mutex_);
  if (assembler->meta().term() < newest_term_) return;
  std::swap(older, parked_);
  if (!older.name.empty()) Drop(std::move(older), "a newer one takes its place");
  parked_.name = assembler->name();
  parked_.meta = assembler->meta();
  parked_.assembler = std::move(assembler);
  parked_.since = now;
}

void SnapshotPartials::Expire(SteadyTime now) {
  Parked expired;
  {
    std::lock_guard lock(mutex_);
    if (parked_.name.empty() || now - parked_.since <= ToSteady(keep_for_)) return;
    std::swap(expired, parked_);
  }
  Drop(std::move(expired), "nobody went on with it");
}

void SnapshotPartials::Drop(Parked parked, std::string_view why) const {
  LOG_INFO("the part of the snapshot at index {} of member {} that was received is removed: {}",
           parked.meta.index(), parked.meta.from(), why);
  parked.assembler.reset();
  SnapshotAssembler::RemovePartial(dir_, parked.name);
}

}  // namespace holdfast::server
