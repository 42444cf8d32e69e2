// The readers' side of MirrorImpl: what may be served of the published data, and how old it is.
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "base/strings.h"
#include "client/claim.h"
#include "client/mirror_impl.h"

namespace holdfast::internal {
namespace {

std::string AgeText(absl::Duration age) {
  return age == absl::InfiniteDuration()
             ? "of unknown age"
             : fmt::format("up to {} old",
                           absl::FormatDuration(absl::Trunc(age, absl::Milliseconds(1))));
}

// An operator's entry stands in no revision of the store.
bool ByOperator(const EntryView* entry, const VersionInfo& info) {
  return info.overridden && entry != nullptr && entry->mod_revision == 0;
}

}  // namespace

VersionInfo MirrorImpl::Info() const {
  VersionInfo now;
  store_.Visit("", [&now](const EntryView*, const VersionInfo& info) { now = info; });
  return now;
}

absl::Duration MirrorImpl::AgeOf(const Claim& claim) const {
  if (claim.extra == absl::InfiniteDuration()) return claim.extra;
  return claim.extra + base::Elapsed(claim.at, options_.clock->Sample(), options_.max_clock_slow);
}

absl::StatusOr<bool> MirrorImpl::MayServe(const VersionInfo& info) const {
  const Policy& policy = options_.policy;
  if (!info.usable) {
    if (defaults_store_ != nullptr) return false;
    return absl::DataLossError(base::ToAbsl(fmt::format(
        "\"{}\": nothing to serve: the store was not reached yet, and there is neither a usable "
        "copy on disk nor a default (see Client::Dump)",
        base::Printable(options_.prefix))));
  }
  if (policy.rule() != Policy::Rule::kFailClosed && policy.rule() != Policy::Rule::kFailOpen) {
    return true;
  }
  const absl::Duration age = AgeOf(info.claim);
  if (info.claim.proof <= policy.at_least() && age <= policy.max_age()) return true;
  if (policy.rule() == Policy::Rule::kFailOpen) return false;
  absl::Status status = absl::FailedPreconditionError(base::ToAbsl(fmt::format(
      "\"{}\": the data is {} ({}), and the policy serves it only up to {} ({}): the store must be "
      "reached first",
      base::Printable(options_.prefix), AgeText(age), ToString(info.claim.proof),
      absl::FormatDuration(policy.max_age()), ToString(policy.at_least()))));
  SetBestAvailable(status, FreshnessOf(info));
  return status;
}

// Freshness W5. An expiry is a write: while the link lives, the deletion comes like any other. But
// it needs a quorum, so that in an outage a copy, and the store itself, would show the dead for
// ever.
absl::Status MirrorImpl::CheckLeased(const EntryView& entry, const VersionInfo& info) const {
  if (info.claim.proof == Proof::kProven && AgeOf(info.claim) <= kFreshWithin) {
    return absl::OkStatus();
  }
  absl::Status status = absl::FailedPreconditionError(base::ToAbsl(
      fmt::format("\"{}\" has a lease, which may have ended: such a key is served only from data "
                  "that is proven to be at most {} old",
                  base::Printable(entry.key), absl::FormatDuration(kFreshWithin))));
  SetBestAvailable(status, FreshnessOf(info));
  return status;
}

Freshness MirrorImpl::FreshnessOf(const VersionInfo& info, bool overridden_entry) const {
  Claim claim = info.claim;
  claim.revision = info.revision;
  claim.superseded = info.superseded;
  claim.reduced_after = options_.policy.reduced_after().value_or(absl::InfiniteDuration());
  if (overridden_entry) claim.source = Source::kOverride;
  return FreshnessAccess::Make(claim, options_.clock, options_.max_clock_slow);
}

Freshness MirrorImpl::DefaultFreshness() const {
  Claim claim;
  claim.source = Source::kDefault;
  claim.reduced_after = options_.policy.reduced_after().value_or(absl::InfiniteDuration());
  return FreshnessAccess::Make(claim, options_.clock, options_.max_clock_slow);
}

absl::StatusOr<Freshness> MirrorImpl::Visit(std::string_view key,
                                            absl::FunctionRef<void(const EntryView*)> visit) const {
  return VisitWith(key, nullptr, visit);
}

absl::StatusOr<Freshness> MirrorImpl::VisitWith(
    std::string_view key, uint64_t* incarnation,
    absl::FunctionRef<void(const EntryView*)> visit) const {
  if (!key.starts_with(options_.prefix)) {
    return absl::InvalidArgumentError(
        base::ToAbsl(fmt::format("\"{}\" does not lie in the mirrored prefix \"{}\"",
                                 base::Printable(key), base::Printable(options_.prefix))));
  }
  absl::Status status;
  Freshness fresh;
  bool defaults = false;
  store_.Visit(key, [&](const EntryView* entry, const VersionInfo& info) {
    const bool by_operator = ByOperator(entry, info);
    if (!by_operator) {
      const absl::StatusOr<bool> may = MayServe(info);
      if (!may.ok()) {
        status = may.status();
      } else if (!*may) {
        defaults = true;
      } else if (entry != nullptr && entry->lease != 0) {
        status = CheckLeased(*entry, info);
      }
      if (defaults || !status.ok()) return;
    }
    fresh = FreshnessOf(info, by_operator);
    if (incarnation != nullptr) *incarnation = info.incarnation;
    visit(entry);
  });
  if (!status.ok()) return status;
  if (defaults) {
    const std::optional<EntryView> entry = defaults_.Find(key);
    visit(entry.has_value() ? &*entry : nullptr);
    return DefaultFreshness();
  }
  return fresh;
}

Result<std::optional<Entry>> MirrorImpl::Get(std::string_view key) const {
  Read<std::optional<Entry>> read;
  absl::StatusOr<Freshness> fresh =
      VisitWith(key, &read.incarnation, [&read](const EntryView* entry) {
        if (entry != nullptr) read.value = entry->ToEntry();
      });
  if (!fresh.ok()) return fresh.status();
  read.fresh = *std::move(fresh);
  return read;
}

Result<MirrorSnapshot> MirrorImpl::Snapshot() const {
  VersionInfo info;
  MirrorSnapshot snapshot = store_.Current(&info);
  const absl::StatusOr<bool> may = MayServe(info);
  if (!may.ok()) return may.status();
  if (!*may) return Read<MirrorSnapshot>{defaults_, DefaultFreshness()};
  return Read<MirrorSnapshot>{std::move(snapshot), FreshnessOf(info), info.incarnation};
}

Result<std::vector<Entry>> MirrorImpl::Scan(std::string_view prefix) const {
  if (!prefix.starts_with(options_.prefix)) {
    return absl::InvalidArgumentError(
        base::ToAbsl(fmt::format("\"{}\" does not lie in the mirrored prefix \"{}\"",
                                 base::Printable(prefix), base::Printable(options_.prefix))));
  }
  VersionInfo info;
  MirrorSnapshot snapshot = store_.Current(&info);
  const absl::StatusOr<bool> may = MayServe(info);
  if (!may.ok()) return may.status();
  if (!*may) return Read<std::vector<Entry>>{defaults_.Entries(prefix), DefaultFreshness()};
  Read<std::vector<Entry>> read{{}, FreshnessOf(info), info.incarnation};
  absl::Status status;
  snapshot.Scan(prefix, [&](const EntryView& entry) {
    if (entry.lease != 0) status = CheckLeased(entry, info);
    if (status.ok()) read.value.push_back(entry.ToEntry());
    return status.ok();
  });
  if (!status.ok()) return status;
  return read;
}

absl::Status MirrorImpl::CheckMayWait(absl::Duration timeout) const {
  if (timeout <= absl::ZeroDuration() || !options_.scheduler->OnThread()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "a callback of a mirror would wait for the very thread that it runs on");
}

template <class Ready>
absl::Status MirrorImpl::WaitUntil(Ready ready, absl::Duration timeout, const char* what) const {
  const auto deadline = std::chrono::steady_clock::now() +
                        absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24 * 365)));
  std::unique_lock lock(wait_mutex_);
  ++waiters_;
  std::optional<absl::Status> result;
  for (;;) {
    result = ready();
    if (result.has_value()) break;
    if (wait_changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
      result = ready();
      break;
    }
  }
  --waiters_;
  if (result.has_value()) return *result;
  return absl::DeadlineExceededError(base::ToAbsl(fmt::format(
      "\"{}\": {} did not come within {}; the link is {}", base::Printable(options_.prefix), what,
      absl::FormatDuration(timeout), ToString(link_.load()))));
}

absl::Status MirrorImpl::WaitFresh(absl::Duration max_age, absl::Duration timeout) const {
  if (absl::Status status = CheckMayWait(timeout); !status.ok()) return status;
  return WaitUntil(
      [&]() -> std::optional<absl::Status> {
        const VersionInfo info = Info();
        if (info.usable && FreshnessOf(info).Within(max_age)) return absl::OkStatus();
        return std::nullopt;
      },
      timeout, "fresh data");
}

absl::Status MirrorImpl::WaitFor(const Token& token, absl::Duration timeout) const {
  if (absl::Status status = CheckMayWait(timeout); !status.ok()) return status;
  const auto other = [](uint64_t a, uint64_t b) { return a != 0 && b != 0 && a != b; };
  return WaitUntil(
      [&]() -> std::optional<absl::Status> {
        const VersionInfo info = Info();
        if (!info.usable) return std::nullopt;
        if (other(token.cluster_id, info.cluster_id) ||
            other(token.incarnation, info.incarnation)) {
          return absl::FailedPreconditionError(
              "the token is of another cluster, or of another incarnation of it, than the data: "
              "its revision means nothing here");
        }
        if (info.revision >= token.revision) return absl::OkStatus();
        return std::nullopt;
      },
      timeout, "the token's revision");
}

bool MirrorImpl::WaitServing(absl::Duration timeout) const {
  return WaitUntil(
             [&]() -> std::optional<absl::Status> {
               const VersionInfo info = Info();
               if (const absl::StatusOr<bool> may = MayServe(info);
                   info.usable && may.ok() && *may) {
                 return absl::OkStatus();
               }
               return std::nullopt;
             },
             timeout, "any data")
      .ok();
}

void MirrorImpl::WaitProven(absl::Duration timeout) const {
  WaitUntil(
      [&]() -> std::optional<absl::Status> {
        const VersionInfo info = Info();
        const bool waits = info.usable && info.claim.source == Source::kMirror &&
                           info.claim.proof == Proof::kUnknown;
        return waits ? std::nullopt : std::optional(absl::OkStatus());
      },
      timeout, "an age")
      .IgnoreError();
}

bool MirrorImpl::has_data() const {
  const VersionInfo info = Info();
  return info.usable || info.overridden || defaults_store_ != nullptr;
}

Freshness MirrorImpl::fresh() const {
  const VersionInfo info = Info();
  const absl::StatusOr<bool> may = MayServe(info);
  return may.ok() && !*may ? DefaultFreshness() : FreshnessOf(info);
}

MirrorStatus MirrorImpl::status() const {
  VersionInfo info;
  const MirrorSnapshot snapshot = store_.Current(&info);
  MirrorStatus status;
  status.link = link_.load();
  status.fresh = fresh();
  status.records = snapshot.size();
  status.bytes = snapshot.bytes();
  {
    std::lock_guard lock(told_mutex_);
    status.refused_revision = told_refused_revision_;
    status.refused_why = told_refused_why_;
  }
  status.updates = updates_;
  status.rejections = rejections_;
  status.loads = loads_;
  status.resumes = resumes_;
  status.overridden = info.overridden;
  return status;
}

std::optional<absl::Status> MirrorImpl::expired() const {
  const absl::StatusOr<bool> may = MayServe(Info());
  if (may.ok() && *may) return std::nullopt;
  return may.ok() ? absl::FailedPreconditionError("the policy's defaults are served")
                  : may.status();
}

std::string MirrorImpl::Dump() const {
  const MirrorStatus now = status();
  std::string text = fmt::format(
      "prefix {}: {}, {} records, {} bytes, revision {}, {}, {}, source {}\n"
      "  updates {}, refusals {}, loads {}, resumes {}{}\n",
      base::Printable(options_.prefix), ToString(now.link), now.records, now.bytes,
      now.fresh.revision(), AgeText(now.fresh.MaxAge()), ToString(now.fresh.proof()),
      ToString(now.fresh.source()), now.updates, now.rejections, now.loads, now.resumes,
      now.overridden ? ", overridden by the operator's file" : "");
  if (now.refused_revision != 0) {
    text += fmt::format("  held back: revision {}: {}\n", now.refused_revision,
                        base::Message(now.refused_why));
  }
  text += fmt::format("  memory: {} bytes, {} of them for old versions\n", memory_total_.load(),
                      memory_retired_.load());
  return text;
}

}  // namespace holdfast::internal

namespace holdfast {

Result<std::optional<Entry>> Mirror::Get(std::string_view key) const { return impl_->Get(key); }
absl::StatusOr<Freshness> Mirror::Visit(std::string_view key,
                                        absl::FunctionRef<void(const EntryView*)> visit) const {
  return impl_->Visit(key, visit);
}
Result<MirrorSnapshot> Mirror::Snapshot() const { return impl_->Snapshot(); }
Result<std::vector<Entry>> Mirror::Scan(std::string_view prefix) const {
  return impl_->Scan(prefix);
}
absl::Status Mirror::WaitFresh(absl::Duration max_age, absl::Duration timeout) const {
  return impl_->WaitFresh(max_age, timeout);
}
absl::Status Mirror::WaitFor(const Token& token, absl::Duration timeout) const {
  return impl_->WaitFor(token, timeout);
}
void Mirror::OnChange(Changed changed) { impl_->OnChange(std::move(changed)); }
void Mirror::MarkGood(uint64_t revision) { impl_->MarkGood(revision); }
void Mirror::MarkAccepted(uint64_t revision) { impl_->MarkAccepted(revision); }
const std::string& Mirror::prefix() const { return impl_->prefix(); }
MirrorStatus Mirror::status() const { return impl_->status(); }

}  // namespace holdfast
