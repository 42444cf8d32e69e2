// MirrorImpl and the disk: probation, last-known-good copies, the operator's file.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "client/mirror_impl.h"

namespace holdfast::internal {
namespace {

// A probation during which much changes is watched at so many points.
constexpr int kCheckpoints = 10;
constexpr absl::Duration kDiskRetryEvery = absl::Seconds(30);

}  // namespace

// Before the data is served: whatever it does to this process, the next one knows what it was. With
// nothing good to go back to there is nothing to note: the next start could only refuse everything.
void MirrorImpl::NoteTrial() {
  if (files_ == nullptr || !good_.has_value()) return;
  const bool same = SameContent(*good_, accepted_);
  if (same && !trial_noted_) return;
  std::vector<Suspect> changes;
  std::optional<base::RecordDigest> set;
  if (!same) {
    const bool all = VersionStore::Diff(
        *good_, accepted_, kSuspectKeysMax,
        [&changes](std::string_view key, const EntryView*, const EntryView* after) {
          changes.push_back({std::string(key), after == nullptr
                                                   ? base::RecordDigest()
                                                   : base::DigestOfContent(key, after->value)});
        });
    if (!all) {
      changes.clear();
      set = VersionStore::ContentDigest(accepted_);
    }
  }
  trial_noted_ = !same;
  if (absl::Status status = files_->NoteTrial(changes, set); !status.ok()) TellDiskProblem(status);
}

void MirrorImpl::AdvanceProbation(absl::Duration now) {
  // An operator's values prove nothing about the store's.
  if (!usable_ || override_.present) return;
  const absl::Duration probation = options_.policy.probation();
  const bool due = on_trial_.empty() || now - on_trial_.back().at >= probation / kCheckpoints;
  if (checkpoint_build_ != accepted_build_ && due) {
    checkpoint_build_ = accepted_build_;
    on_trial_.push_back({accepted_, accepted_info_.revision, accepted_at_});
  }
  std::optional<Checkpoint> passed;
  while (!on_trial_.empty() && now - on_trial_.front().at >= probation) {
    passed = std::move(on_trial_.front());
    on_trial_.pop_front();
  }
  if (passed.has_value()) OnGood(passed->version, passed->revision);
}

void MirrorImpl::OnGood(const MirrorSnapshot& version, uint64_t revision) {
  good_ = version;
  NoteTrial();
  if (keeper_ == nullptr) return;
  keeper_->MarkGood(slot_, revision);
  if (refused_revision_ != 0 || (suspects_.empty() && !suspect_set_.has_value())) return;
  // What they were suspected of has been replaced, and what replaced it has proven good.
  suspects_.clear();
  suspect_set_.reset();
  keeper_->ForgetSuspects(slot_);
}

void MirrorImpl::MarkGood(uint64_t revision) {
  options_.scheduler->Post([self = shared_from_this(), revision] {
    if (!self->usable_ || self->accepted_info_.revision < revision) return;
    self->on_trial_.clear();
    self->checkpoint_build_ = self->accepted_build_;
    self->OnGood(self->accepted_, self->accepted_info_.revision);
  });
}

GenerationInfo MirrorImpl::Generation() const {
  return {.cluster_id = accepted_info_.cluster_id,
          .incarnation = accepted_info_.incarnation,
          .revision = accepted_info_.revision,
          .claim = claim_};
}

// An operator's values are nobody's last known good: while they are in force nothing is written.
void MirrorImpl::WriteSoon() {
  if (keeper_ == nullptr || override_.present || !usable_) return;
  if (accepted_build_ == written_build_) return;
  next_disk_try_ = options_.scheduler->Now() + kDiskRetryEvery;
  const bool on_trial = !good_.has_value() || !SameContent(*good_, accepted_);
  keeper_->Write(slot_, {accepted_build_, accepted_, Generation(), on_trial});
}

// The newest claim for what lies on disk, if it is what is served.
void MirrorImpl::NoteClaim() {
  if (keeper_ == nullptr || written_build_ != accepted_build_ || override_.present) return;
  GenerationInfo info = Generation();
  info.claim.revision = info.revision;
  info.revision = written_revision_;
  keeper_->NoteClaim(slot_, std::move(info));
}

void MirrorImpl::OnWritten(uint64_t build, uint64_t revision, const absl::Status& status) {
  if (absl::IsAlreadyExists(status)) return;  // another process writes; Tick tries again
  if (!status.ok()) return TellDiskProblem(status);
  written_build_ = std::max(written_build_, build);
  written_revision_ = revision;
  if (keeper_ != nullptr && written_build_ == accepted_build_) {
    NoteClaim();
    // Its content may have passed while it was being written.
    if (good_.has_value() && SameContent(*good_, accepted_)) keeper_->MarkGood(slot_, revision);
  }
  if (options_.observer != nullptr) options_.observer->OnLastGoodWritten(options_.prefix, revision);
}

void MirrorImpl::Close() {
  WriteSoon();
  keeper_ = nullptr;
}

void MirrorImpl::TellDiskProblem(const absl::Status& status) {
  if (options_.observer != nullptr) options_.observer->OnDiskProblem(options_.prefix, status);
}

// The head always holds the operator's values in the place of the store's own, which wait in
// shadow_ until the file goes.
void MirrorImpl::OnOverride(absl::StatusOr<LastGood::Override> changed) {
  if (!changed.ok()) return TellDiskProblem(changed.status());
  Build();
  const auto hidden = std::exchange(shadow_, {});
  for (const auto& [key, entry] : hidden) {
    if (entry.has_value()) {
      PutHead({entry->key, entry->value, entry->create_revision, entry->mod_revision,
               entry->version, entry->lease});
    } else {
      DeleteHead(key);
    }
  }
  Build();
  // The operator is the one who looks: the guards have nothing to add to his changes, validators
  // do.
  operators_keys_.clear();
  const auto note = [this](const LastGood::Override& file) {
    for (const Entry& entry : file.put) operators_keys_.insert(entry.key);
    operators_keys_.insert(file.deleted.begin(), file.deleted.end());
  };
  note(override_);
  override_ = *std::move(changed);
  note(override_);
  const auto hide = [this](const std::string& key) {
    const std::optional<EntryView> entry = head_.Find(key);
    shadow_[key] = entry.has_value() ? std::optional(entry->ToEntry()) : std::nullopt;
  };
  for (const Entry& entry : override_.put) hide(entry.key);
  for (const std::string& key : override_.deleted) hide(key);
  for (const Entry& entry : override_.put) {
    store_.Put({.key = entry.key, .value = entry.value});
    head_changed_ = true;
  }
  for (const std::string& key : override_.deleted) {
    store_.Delete(key);
    head_changed_ = true;
  }
  Build();
  if (head_build_ == judged_build_) {
    Publish();
  } else {
    Consider();
  }
  if (!override_.present) WriteSoon();
}

}  // namespace holdfast::internal
