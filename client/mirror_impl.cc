#include "client/mirror_impl.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "base/strings.h"
#include "client/claim.h"
#include "client/guards.h"

namespace holdfast::internal {
namespace {

constexpr int kOpenLiveTries = 20;
// A copy that so many processes died of is served only if there is nothing else at all.
constexpr int kCrashesMax = 2;

EntryView ToView(const mvccpb::KeyValue& kv) {
  return {kv.key(),
          kv.value(),
          static_cast<uint64_t>(kv.create_revision()),
          static_cast<uint64_t>(kv.mod_revision()),
          static_cast<uint64_t>(kv.version()),
          kv.lease()};
}

EntryView ToView(const Entry& entry) {
  return {entry.key,          entry.value,   entry.create_revision,
          entry.mod_revision, entry.version, entry.lease};
}

base::RecordDigest ContentOf(const MirrorSnapshot& version, std::string_view key) {
  const std::optional<EntryView> entry = version.Find(key);
  return entry.has_value() ? base::DigestOfContent(entry->key, entry->value) : base::RecordDigest();
}

}  // namespace

struct MirrorImpl::LiveSlot {
  LiveSlot(std::string_view k, ParseAny p, AnyValue first, base::RecordDigest c)
      : key(k), parse(std::move(p)), content(c), value(std::move(first)) {}
  const std::string key;
  const ParseAny parse;
  base::RecordDigest content;  // of what is parsed; the engine's
  Published value;
  AnyValue default_value;                                   // of FailOpenAfter; may be null
  std::vector<absl::AnyInvocable<void(AnyValue)>> changed;  // the engine's
};

class MirrorImpl::LiveImpl : public LiveCore {
 public:
  LiveImpl(std::shared_ptr<MirrorImpl> mirror, std::shared_ptr<LiveSlot> slot)
      : mirror_(std::move(mirror)), slot_(std::move(slot)) {}

  Any Current() const override { return slot_->value.Load(); }
  absl::StatusOr<Any> Get() const override {
    // The record first: the value is then at least as new.
    bool there = false;
    const absl::StatusOr<Freshness> read =
        mirror_->Visit(slot_->key, [&there](const EntryView* entry) { there = entry != nullptr; });
    if (!read.ok()) return read.status();
    if (!there) {
      return absl::NotFoundError(
          base::ToAbsl(fmt::format("\"{}\" does not exist any more", base::Printable(slot_->key))));
    }
    if (read->source() != Source::kDefault) return slot_->value.Load();
    if (slot_->default_value != nullptr) return slot_->default_value;
    return absl::FailedPreconditionError(base::ToAbsl(
        fmt::format("\"{}\": the policy's default cannot be parsed", base::Printable(slot_->key))));
  }
  Freshness fresh() const override { return mirror_->fresh(); }
  void OnChange(absl::AnyInvocable<void(Any)> changed) override {
    mirror_->options_.scheduler->Post([slot = slot_, changed = std::move(changed)]() mutable {
      slot->changed.push_back(std::move(changed));
    });
  }

 private:
  const std::shared_ptr<MirrorImpl> mirror_;
  const std::shared_ptr<LiveSlot> slot_;
};

MirrorImpl::MirrorImpl(Options options)
    : options_(std::move(options)),
      judge_(std::make_unique<Judge>(options_.scheduler)),
      started_at_(options_.scheduler->Now()) {
  if (!options_.policy.defaults().empty()) {
    defaults_store_ = std::make_unique<VersionStore>();
    for (const Entry& entry : options_.policy.defaults()) {
      defaults_store_->Put({.key = entry.key, .value = entry.value});
    }
    defaults_ = defaults_store_->Build(0);
  }
  head_ = store_.head();
  accepted_ = head_;
}

MirrorImpl::~MirrorImpl() = default;

// --- start ---

absl::Status MirrorImpl::LoadFromDisk(std::unique_ptr<LastGood> files) {
  files_ = std::move(files);
  const auto judge = [this](const Loaded& candidate) {
    store_.Clear();
    for (const Entry& entry : candidate.entries) store_.Put(ToView(entry));
    head_ = store_.Build(candidate.info.revision);
    ++head_build_;
    if (candidate.crashes >= kCrashesMax && !options_.policy.defaults().empty()) {
      return absl::FailedPreconditionError(fmt::format(
          "{} processes ended while it was on trial, and there are defaults", candidate.crashes));
    }
    if (absl::Status status = CheckSize(options_.policy, head_); !status.ok()) return status;
    return Judge::Run(0, options_.policy.validators(), {}, MirrorSnapshot(), head_).status;
  };
  const absl::StatusOr<Loaded> loaded = files_->Load(judge);
  if (!loaded.ok()) {
    store_.Clear();
    head_ = store_.Build(0);
    judged_build_ = ++head_build_;
    return absl::IsNotFound(loaded.status()) ? absl::OkStatus() : loaded.status();
  }
  // Up to the claim's revision nothing of the prefix has changed.
  head_info_ = {.revision = std::max(loaded->info.revision, loaded->info.claim.revision),
                .incarnation = loaded->info.incarnation,
                .cluster_id = loaded->info.cluster_id,
                .from_disk = true};
  accepted_info_ = head_info_;
  accepted_ = head_;
  accepted_build_ = judged_build_ = written_build_ = head_build_;
  claim_ = loaded->info.claim;
  written_revision_ = loaded->info.revision;
  usable_ = true;
  suspects_ = loaded->suspects;
  suspect_set_ = loaded->suspect_set;
  // An unproven copy is on trial by itself; what comes on top of it is another trial.
  good_ = accepted_;
  if (!loaded->good) {
    trial_noted_ = true;
    on_trial_.push_back({accepted_, accepted_info_.revision, started_at_});
  }
  checkpoint_build_ = accepted_build_;
  Publish();
  if (loaded->passed_over.empty()) return absl::OkStatus();
  return absl::DataLossError(base::ToAbsl(
      fmt::format("an older copy is served: {}", fmt::join(loaded->passed_over, "; "))));
}

DiskKeeper::Events MirrorImpl::DiskEvents() {
  return {
      .written =
          [weak = weak_from_this()](uint64_t build, uint64_t revision, const absl::Status& status) {
            if (const auto self = weak.lock()) self->OnWritten(build, revision, status);
          },
      .override_changed =
          [weak = weak_from_this()](absl::StatusOr<LastGood::Override> changed) {
            if (const auto self = weak.lock()) self->OnOverride(std::move(changed));
          }};
}

void MirrorImpl::AttachDisk(DiskKeeper* keeper, size_t slot) {
  keeper_ = keeper;
  slot_ = slot;
}

void MirrorImpl::Begin(std::optional<LastGood::Override> first) {
  // Before the grace: what an operator overrides may be what the service cannot live with.
  if (first.has_value()) OnOverride(*std::move(first));
  if (accepted_info_.from_disk) take_from_ = absl::InfiniteDuration();
}

// --- the feed ---

MirrorImpl::Position MirrorImpl::position() {
  Build();  // the digest is of all that was applied
  Position position{head_info_.revision, head_info_.incarnation, head_info_.cluster_id, ""};
  if (head_info_.revision > 0 && !override_.present) {
    position.digest = VersionStore::RecordsDigest(head_).ToBytes();
  }
  return position;
}

void MirrorImpl::PutHead(const EntryView& entry) {
  if (const auto it = shadow_.find(entry.key); it != shadow_.end()) {
    it->second = entry.ToEntry();
  } else {
    store_.Put(entry);
  }
  head_changed_ = true;
}

void MirrorImpl::DeleteHead(std::string_view key) {
  if (const auto it = shadow_.find(key); it != shadow_.end()) {
    it->second.reset();
  } else {
    store_.Delete(key);
  }
  head_changed_ = true;
}

void MirrorImpl::ClearHead() {
  store_.Clear();
  for (auto& [key, entry] : shadow_) entry.reset();
  for (const Entry& entry : override_.put) {
    store_.Put({.key = entry.key, .value = entry.value});
  }
  head_changed_ = true;
}

void MirrorImpl::TakeSnapshot(const v1::LoadHead& head, std::vector<v1::LoadResponse> parts) {
  Build();
  ClearHead();
  for (const v1::LoadResponse& part : parts) {
    for (const mvccpb::KeyValue& kv : part.records()) PutHead(ToView(kv));
  }
  parts.clear();
  const bool another =
      head.incarnation() != head_info_.incarnation || head.cluster_id() != head_info_.cluster_id;
  // A claim of another incarnation's data says nothing of this one's.
  if (another) {
    head_claim_.reset();
    guards_waived_to_ = 0;  // it was of other revisions
  }
  head_info_ = {.revision = head.revision(),
                .incarnation = head.incarnation(),
                .cluster_id = head.cluster_id()};
  ++loads_;
  Flush();
}

void MirrorImpl::TakeTooLarge(uint64_t revision, size_t bytes) {
  Refuse(revision, absl::ResourceExhaustedError(
                       fmt::format("more than {} bytes came, and Policy::MaxBytes allows {}", bytes,
                                   options_.policy.max_bytes())));
}

void MirrorImpl::TakeUnchanged(const v1::LoadHead& head) {
  const bool another = head.incarnation() != head_info_.incarnation;
  head_info_.revision = head.revision();
  head_info_.incarnation = head.incarnation();
  head_info_.cluster_id = head.cluster_id();
  ++resumes_;
  if (another) {
    head_claim_.reset();
    guards_waived_to_ = 0;
  }
  if (accepted_build_ != head_build_ || !usable_) return;
  if (another) claim_ = Claim();
  accepted_info_ = head_info_;
  Publish();
}

void MirrorImpl::Apply(const etcdserverpb::WatchResponse& response) {
  for (const mvccpb::Event& event : response.events()) {
    const uint64_t revision = static_cast<uint64_t>(event.kv().mod_revision());
    head_info_.revision = std::max(head_info_.revision, revision);
    if (event.type() == mvccpb::Event::DELETE) {
      DeleteHead(event.kv().key());
    } else {
      PutHead(ToView(event.kv()));
    }
  }
}

void MirrorImpl::Build() {
  if (!head_changed_) return;
  head_changed_ = false;
  head_ = store_.Build(head_info_.revision);
  ++head_build_;
}

void MirrorImpl::Flush() {
  Build();
  Consider();
}

void MirrorImpl::TakeClaim(uint64_t revision, Claim claim) {
  Flush();
  head_info_.revision = std::max(head_info_.revision, revision);
  claim.revision = revision;
  head_claim_ = claim;
  head_claim_build_ = head_build_;
  // W4: of what is refused or still being judged, nothing is claimed.
  if (accepted_build_ != head_build_ || !usable_) return;
  head_info_.from_disk = false;
  accepted_info_ = head_info_;
  // An older claim stays true while the data moves forward: the better of the two is kept.
  if (Better(claim)) claim_ = claim;
  Publish();
  NoteClaim();
}

bool MirrorImpl::Better(const Claim& claim) const {
  return claim.proof < claim_.proof ||
         (claim.proof == claim_.proof && AgeOf(claim) <= AgeOf(claim_));
}

// --- judging ---

absl::Status MirrorImpl::CheckSuspects() const {
  for (const Suspect& suspect : suspects_) {
    if (ContentOf(head_, suspect.key) != suspect.content) continue;
    // A deletion is no suspect while the data served does not have the key either.
    if (suspect.content == base::RecordDigest() && !accepted_.Find(suspect.key)) continue;
    return absl::FailedPreconditionError(base::ToAbsl(fmt::format(
        "\"{}\": a process ended while it had just begun to serve this value: it is held back "
        "until it changes, or Mirror::MarkAccepted lets it through",
        base::Printable(suspect.key))));
  }
  if (suspect_set_.has_value() && VersionStore::ContentDigest(head_) == *suspect_set_) {
    return absl::FailedPreconditionError(
        "a process ended while it had just begun to serve this set: it is held back until it "
        "changes, or Mirror::MarkAccepted lets it through");
  }
  return absl::OkStatus();
}

absl::Status MirrorImpl::CheckHead(bool same_content) const {
  if (absl::Status status = CheckSize(options_.policy, head_); !status.ok()) return status;
  if (same_content) return absl::OkStatus();
  // The revision at which the head was built, not what a bookmark has added since.
  if (head_.revision() != 0 && head_.revision() <= guards_waived_to_) return absl::OkStatus();
  if (absl::Status status = CheckSuspects(); !status.ok()) return status;
  return usable_ ? CheckChange(options_.policy, accepted_, head_, operators_keys_)
                 : absl::OkStatus();
}

bool MirrorImpl::LivesChanged(const MirrorSnapshot& version) const {
  return std::any_of(lives_.begin(), lives_.end(), [&version](const auto& live) {
    const base::RecordDigest content = ContentOf(version, live->key);
    return content != base::RecordDigest() && content != live->content;
  });
}

void MirrorImpl::Consider() {
  if (judging_) return;
  Build();  // head_info_ speaks of all that was applied
  if (head_build_ == judged_build_) return;
  if (judge_->busy()) return;  // the service's own code has overrun; Tick tries again
  // So does it here; nothing is gained by waiting if what there is may not be served.
  if (options_.scheduler->Now() < take_from_ && usable_ && !expired().has_value()) return;
  judged_build_ = head_build_;
  const bool same = usable_ && SameContent(head_, accepted_);
  if (absl::Status status = CheckHead(same); !status.ok()) {
    return Refuse(head_.revision(), status);
  }
  const bool validate = !same && !options_.policy.validators().empty();
  candidate_claim_ = head_claim_;
  if (!validate && !LivesChanged(head_)) return Accept(head_, head_build_, head_info_, {});
  judging_ = true;
  candidate_ = head_;
  candidate_info_ = head_info_;
  judged_lives_ = lives_.size();
  std::vector<ParsedKey> keys;
  for (size_t i = 0; i < lives_.size(); ++i) {
    keys.push_back({i, lives_[i]->key, lives_[i]->parse, lives_[i]->content});
  }
  judge_->Start(head_build_,
                validate ? options_.policy.validators() : std::vector<Policy::ValidatorTerms>(),
                std::move(keys), usable_ ? accepted_ : MirrorSnapshot(), candidate_,
                [weak = weak_from_this()](Verdict verdict) {
                  if (const auto self = weak.lock()) self->OnVerdict(std::move(verdict));
                });
}

void MirrorImpl::OnVerdict(Verdict verdict) {
  judging_ = false;
  if (judged_lives_ != lives_.size()) {
    judged_build_ = 0;  // a parser came meanwhile: it has a word too
  } else if (!verdict.status.ok()) {
    Refuse(candidate_.revision(), verdict.status);
    if (absl::IsDeadlineExceeded(verdict.status)) {
      ask_again_at_ = options_.scheduler->Now() + ask_again_wait_;
      ask_again_wait_ = std::min(2 * ask_again_wait_, kAskAgainMax);
    }
  } else {
    Accept(candidate_, verdict.build, candidate_info_, std::move(verdict.parsed));
  }
  candidate_ = MirrorSnapshot();
  Consider();
}

void MirrorImpl::Refuse(uint64_t revision, const absl::Status& why) {
  const bool again = refused_revision_ == revision;
  refused_revision_ = revision;
  ask_again_at_.reset();
  if (!again) {
    ++rejections_;
    ++refusals_seen_;
  }
  if (usable_) Publish();
  {
    // After the data says that it is superseded: who sees the one sees the other.
    std::lock_guard lock(told_mutex_);
    told_refused_revision_ = revision;
    told_refused_why_ = why;
  }
  if (!again && options_.observer != nullptr) {
    options_.observer->OnRejected({options_.prefix, revision, why});
  }
}

void MirrorImpl::Accept(const MirrorSnapshot& version, uint64_t build, const Head& info,
                        std::vector<Verdict::Parsed> parsed) {
  const MirrorSnapshot before = usable_ ? accepted_ : MirrorSnapshot();
  const bool changed = !usable_ || !SameContent(accepted_, version);
  const bool another = info.incarnation != accepted_info_.incarnation ||
                       info.cluster_id != accepted_info_.cluster_id;
  accepted_ = version;
  accepted_build_ = build;
  accepted_info_ = info;
  // Freshness 1: a claim stays true while the data moves forward, but not into another incarnation.
  if (another) {
    claim_ = Claim();
    on_trial_.clear();  // their revisions are of another history
  }
  // Of this set or an older one: while it was judged, bookmarks may have come for newer heads.
  const std::optional<Claim> claim =
      head_claim_.has_value() && head_claim_build_ <= build ? head_claim_ : candidate_claim_;
  if (claim.has_value() && !another) {
    // A member that was just started tells no age: what was known before stays the better claim.
    if (Better(*claim)) claim_ = *claim;
    accepted_info_.revision = std::max(accepted_info_.revision, claim->revision);
  }
  if (info.revision > 0) usable_ = true;
  ask_again_at_.reset();
  ask_again_wait_ = kAskAgainFirst;
  if (refused_revision_ != 0) {
    refused_revision_ = 0;
    ++refusals_seen_;
    std::lock_guard lock(told_mutex_);
    told_refused_revision_ = 0;
    told_refused_why_ = absl::OkStatus();
  }
  if (changed) {
    accepted_at_ = options_.scheduler->Now();
    ++updates_;
    NoteTrial();
  }
  for (Verdict::Parsed& one : parsed) {
    lives_[one.id]->content = one.content;
    lives_[one.id]->value.Store(one.value);
  }
  Publish();
  for (const Verdict::Parsed& one : parsed) {
    for (auto& tell : lives_[one.id]->changed) tell(one.value);
  }
  if (!changed) return;
  for (Mirror::Changed& tell : changed_) tell(before, accepted_);
  WriteSoon();
}

void MirrorImpl::Publish() {
  claim_.source = accepted_info_.from_disk ? Source::kDisk : Source::kMirror;
  store_.Publish(accepted_, {.revision = accepted_info_.revision,
                             .incarnation = accepted_info_.incarnation,
                             .cluster_id = accepted_info_.cluster_id,
                             .claim = claim_,
                             .superseded = refused_revision_ != 0,
                             .overridden = override_.present,
                             .usable = usable_});
  Notify();
}

// What is served holds every version behind it: those go in the order of the chain. Two copies, at
// the chain's end, let go of all of them.
void MirrorImpl::Reroot() {
  if (judging_ || !good_.has_value() || !SameContent(*good_, accepted_)) return;
  Build();
  const MirrorSnapshot head = head_;
  const MirrorSnapshot accepted = accepted_;
  const auto copy = [this](const MirrorSnapshot& from) {
    store_.Clear();
    from.Scan("", [this](const EntryView& entry) {
      store_.Put(entry);
      return true;
    });
    ++head_build_;
    return store_.Build(from.revision());
  };
  const bool claimed = head_claim_build_ == head_build_;
  const bool judged = judged_build_ == head_build_;
  const bool written = written_build_ == accepted_build_;
  const bool checked = checkpoint_build_ == accepted_build_;
  accepted_ = copy(accepted);
  accepted_build_ = head_build_;
  head_ = copy(head);
  if (claimed) head_claim_build_ = head_build_;
  if (judged) judged_build_ = head_build_;
  if (written) written_build_ = accepted_build_;
  if (checked) checkpoint_build_ = accepted_build_;
  good_ = accepted_;
  on_trial_.clear();
  Publish();
}

void MirrorImpl::Notify() const {
  if (waiters_ == 0) return;
  std::lock_guard lock(wait_mutex_);
  wait_changed_.notify_all();
}

// --- what the service asks for ---

absl::StatusOr<std::shared_ptr<LiveCore>> MirrorImpl::OpenLive(std::string_view key,
                                                               ParseAny parse) {
  for (int i = 0; i < kOpenLiveTries; ++i) {
    std::optional<Entry> entry;
    absl::StatusOr<Freshness> read = Visit(key, [&entry](const EntryView* found) {
      if (found != nullptr) entry = found->ToEntry();
    });
    if (!read.ok()) return read.status();
    if (!entry.has_value()) {
      return absl::NotFoundError(base::ToAbsl(fmt::format(
          "\"{}\" does not exist, as of revision {}", base::Printable(key), read->revision())));
    }
    // On the caller's thread: whatever it takes, the feed goes on.
    absl::StatusOr<AnyValue> value = parse(entry->value);
    if (!value.ok()) {
      return absl::Status(
          value.status().code(),
          base::ToAbsl(fmt::format("{}: {}", base::Printable(key), base::Message(value.status()))));
    }
    auto live = std::make_shared<LiveSlot>(key, parse, *std::move(value),
                                           base::DigestOfContent(entry->key, entry->value));
    if (const std::optional<EntryView> fallback = defaults_.Find(key)) {
      absl::StatusOr<AnyValue> parsed = parse(fallback->value);
      if (parsed.ok()) live->default_value = *std::move(parsed);
    }
    bool registered = false;
    if (options_.scheduler->OnThread()) {
      registered = Register(live);
    } else {
      const auto done = std::make_shared<absl::Notification>();
      if (!options_.scheduler->Post([self = shared_from_this(), live, &registered, done] {
            registered = self->Register(live);
            done->Notify();
          })) {
        return absl::CancelledError("the client is being destroyed");
      }
      done->WaitForNotification();
    }
    if (registered) return std::make_shared<LiveImpl>(shared_from_this(), std::move(live));
  }
  return absl::AbortedError(base::ToAbsl(
      fmt::format("\"{}\" changes faster than it can be parsed", base::Printable(key))));
}

bool MirrorImpl::Register(const std::shared_ptr<LiveSlot>& live) {
  // Those that nobody holds any more; a judgement under way knows the others by their place.
  if (!judging_) {
    std::erase_if(lives_, [](const auto& known) { return known.use_count() == 1; });
  }
  const base::RecordDigest served = ContentOf(accepted_, live->key);
  const bool default_served = served != live->content && live->default_value != nullptr;
  if (served != live->content && !default_served) return false;  // it changed meanwhile
  lives_.push_back(live);
  if (served != live->content && usable_) {
    // Its default was read because the data was too old; what there is must be parsed as well.
    if (!judging_) judged_build_ = 0;
    Consider();
  }
  return true;
}

void MirrorImpl::OnChange(Mirror::Changed changed) {
  options_.scheduler->Post([self = shared_from_this(), changed = std::move(changed)]() mutable {
    if (self->usable_) changed(MirrorSnapshot(), self->accepted_);
    self->changed_.push_back(std::move(changed));
  });
}

void MirrorImpl::MarkAccepted(uint64_t revision) {
  options_.scheduler->Post([self = shared_from_this(), revision] {
    self->guards_waived_to_ = std::max(self->guards_waived_to_, revision);
    if (self->refused_revision_ == 0 || self->refused_revision_ > revision) return;
    self->suspects_.clear();
    self->suspect_set_.reset();
    if (!self->judging_) self->judged_build_ = 0;
    self->Consider();
  });
}

void MirrorImpl::SetLink(Link link, const absl::Status& why) {
  // Whatever the connection does, reads may be over.
  if (usable_ && expired().has_value()) link = Link::kExpired;
  const Link before = link_.exchange(link);
  if (before == link || options_.observer == nullptr) return;
  const Freshness now = fresh();
  options_.observer->OnState({options_.prefix, before, link, now.MaxAge(), now.proof(), why});
}

void MirrorImpl::Tick() {
  const absl::Duration now = options_.scheduler->Now();
  if ((!suspects_.empty() || suspect_set_.has_value()) && now - started_at_ > kSuspectsHeldFor) {
    suspects_.clear();
    suspect_set_.reset();
    if (!judging_ && refused_revision_ != 0) judged_build_ = 0;
  }
  if (ask_again_at_.has_value() && now >= *ask_again_at_ && !judging_ && !judge_->busy()) {
    ask_again_at_.reset();
    judged_build_ = 0;
  }
  Consider();
  AdvanceProbation(now);
  const VersionStore::Memory memory = store_.memory();
  memory_total_ = memory.total;
  memory_retired_ = memory.retired;
  if (refused_revision_ != 0 && memory.retired > std::max(kRetiredBytesMax, accepted_.bytes())) {
    Reroot();
  }
  if (written_build_ != accepted_build_ && now >= next_disk_try_) WriteSoon();
}

void MirrorImpl::FillReport(v1::PrefixReport* report) const {
  const MirrorStatus now = status();
  report->set_prefix(options_.prefix);
  report->set_link(std::string(ToString(now.link)));
  report->set_revision(now.fresh.revision());
  report->set_refused_revision(now.refused_revision);
  if (now.refused_revision != 0)
    report->set_refused_why(std::string(base::Message(now.refused_why)));
  report->set_source(std::string(ToString(now.fresh.source())));
  report->set_records(now.records);
  report->set_bytes(now.bytes);
}

}  // namespace holdfast::internal
