#include "server/load_stream.h"

#include <fmt/format.h>
#include <grpc/support/time.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "server/etcd_errors.h"
#include "server/kv_codec.h"
#include "server/read_terms.h"
#include "storage/damage.h"

namespace holdfast::server {
namespace {

constexpr size_t kDigestBytes = 16;
// Jobs: callers that wait are limited by admission, these by it too (prefixes, parts).
constexpr size_t kMaxWaitingScans = 8192;
// An end of the call or of the service is noticed within this while a part waits for its turn.
constexpr absl::Duration kPaceStep = absl::Milliseconds(100);
const char kAllKeys[] = {'\0'};

// etcd's range_end of a prefix.
std::string EndOfPrefix(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && end.back() == '\xff') end.pop_back();
  if (end.empty()) return std::string(1, '\0');
  end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

}  // namespace

LoadHost::LoadHost(const MirrorService::Options& opts, const MemberView& view,
                   const Admission* admit)
    : options(opts),
      member(view),
      admission(admit),
      summaries(view.machine, {.keep = opts.keep_summaries,
                               .fence = [admit] { return admit->CheckTrust(); },
                               .on_damage =
                                   [on_fatal = opts.on_fatal](const absl::Status& status) {
                                     if (on_fatal && storage::DamageOf(status)) on_fatal(status);
                                   }}),
      load_admission_(opts.limits, opts.seed),
      auth_scans_(1, kMaxWaitingScans),
      scans_(opts.scan_threads, kMaxWaitingScans) {}

absl::Duration LoadHost::Now() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

void LoadHost::Add(LoadStream* stream) {
  std::lock_guard lock(mutex_);
  streams_.insert(stream);
}

void LoadHost::Remove(LoadStream* stream) {
  std::lock_guard lock(mutex_);
  streams_.erase(stream);
}

void LoadHost::CutStalled(absl::Duration now) {
  std::lock_guard lock(mutex_);
  for (LoadStream* stream : streams_) stream->CutIfStalled(now);
}

void LoadHost::Stop() {
  stopping_.store(true, std::memory_order_release);
  auth_scans_.Stop();
  scans_.Stop();
}

LoadStream::LoadStream(grpc::CallbackServerContext* context, const v1::LoadRequest* request,
                       LoadHost* host)
    : context_(context), request_(request), host_(host) {
  Begin();
}

void LoadStream::Begin() {
  if (absl::Status status = Check(); !status.ok()) return Fail(status);
  const auto& metadata = context_->client_metadata();
  if (const auto found = metadata.find(kLoadClassKey); found != metadata.end()) {
    class_ = ParseLoadClass({found->second.data(), found->second.size()});
  }
  if (AnswerAtOnce()) return;
  const bool same = request_->incarnation() == host_->member.machine->incarnation();
  AskForSummary(same ? static_cast<int64_t>(request_->revision()) : 0);
}

absl::Status LoadStream::Check() const {
  if (absl::Status status = host_->admission->Admit(*context_, Admission::Call::kRead);
      !status.ok()) {
    return status;
  }
  if (host_->stopping()) return ErrStopped();
  if (request_->prefix().size() > MirrorService::kPrefixBytesMax) {
    return absl::InvalidArgumentError(fmt::format("holdfast: a prefix of {} bytes: {} at most",
                                                  request_->prefix().size(),
                                                  MirrorService::kPrefixBytesMax));
  }
  if (!request_->digest().empty() && request_->digest().size() != kDigestBytes) {
    return absl::InvalidArgumentError(fmt::format("holdfast: a digest of {} bytes: {}, or none",
                                                  request_->digest().size(), kDigestBytes));
  }
  // Its data is nobody's yet: a copy of it would look like a store that was emptied.
  if (host_->member.machine->incarnation() == 0) {
    return absl::UnavailableError(
        "holdfast: this member has no data of the cluster yet: ask another member");
  }
  return absl::OkStatus();
}

bool LoadStream::AnswerAtOnce() {
  const uint64_t incarnation = host_->member.machine->incarnation();
  if (request_->revision() == 0 || request_->incarnation() != incarnation) return false;
  const storage::AppliedState state = host_->member.machine->applied_state();
  if (request_->revision() > static_cast<uint64_t>(state.revision)) {
    Fail(absl::FailedPreconditionError(
        fmt::format("holdfast: this member is at revision {}, below the {} of the caller's copy: "
                    "ask another member",
                    state.revision, request_->revision())));
    return true;
  }
  const auto revision = static_cast<int64_t>(request_->revision());
  // What a watch from the next revision on needs (server/watch_hub.h).
  if (revision + 1 < state.compact_revision) return false;
  const std::optional<absl::Duration> refused = host_->WithAdmission(
      [](LoadAdmission& admission) { return admission.AdmitResume(LoadHost::Now()); });
  if (refused.has_value()) {
    Refuse(*refused, "too many copies are resumed at once");
    return true;
  }
  host_->counters.resumed.Add();
  FillHead(v1::LoadHead::RESUME, revision, incarnation);
  AnswerHead();
  return true;
}

void LoadStream::AskForSummary(int64_t min_revision) {
  const std::optional<absl::Duration> refused = host_->WithAdmission(
      [this](LoadAdmission& admission) { return admission.AdmitWaiting(class_, LoadHost::Now()); });
  if (refused.has_value()) return Refuse(*refused, "too many wait for their copies already");
  host_->summaries.Get(request_->prefix(), min_revision, host_->pool(class_),
                       [this](const absl::StatusOr<PrefixSummary>& summary) {
                         host_->WithAdmission([this](LoadAdmission& admission) {
                           admission.LeaveWaiting(class_);
                           return 0;
                         });
                         OnSummary(summary);
                       });
}

void LoadStream::OnSummary(const absl::StatusOr<PrefixSummary>& summary) {
  if (context_->IsCancelled()) return Finish(grpc::Status::CANCELLED);
  if (!summary.ok()) return Fail(summary.status());
  if (absl::Status trust = host_->admission->CheckTrust(); !trust.ok()) return Fail(trust);
  summary_ = *summary;
  if (!request_->digest().empty() && request_->digest() == summary_.digest.ToBytes()) {
    host_->counters.unchanged.Add();
    FillHead(v1::LoadHead::UNCHANGED, summary_.revision, summary_.incarnation);
    return AnswerHead();
  }
  BeginSnapshot();
}

void LoadStream::BeginSnapshot() {
  const std::optional<absl::Duration> refused =
      host_->WithAdmission([this](LoadAdmission& admission) {
        return admission.AdmitSnapshot(class_, summary_.bytes, LoadHost::Now());
      });
  if (refused.has_value()) return Refuse(*refused, "too many whole copies are on their way");
  host_->counters.snapshots.Add();
  sends_records_ = true;
  host_->Add(this);
  FillHead(v1::LoadHead::SNAPSHOT, summary_.revision, summary_.incarnation);
  response_.mutable_head()->set_records(summary_.records);
  response_.mutable_head()->set_bytes(summary_.bytes);
  if (summary_.records == 0) return AnswerHead();
  next_key_ = request_->prefix().empty() ? std::string(kAllKeys, 1) : request_->prefix();
  Write();
}

void LoadStream::PostPart() {
  if (absl::Status posted = host_->pool(class_)->Post([this] { ReadPart(); }); !posted.ok()) {
    Fail(posted);
  }
}

void LoadStream::ReadPart() {
  if (context_->IsCancelled()) return Finish(grpc::Status::CANCELLED);
  response_.Clear();
  if (absl::Status status = FillPart(); !status.ok()) {
    if (host_->options.on_fatal && storage::DamageOf(status)) host_->options.on_fatal(status);
    return Fail(status);
  }
  Pace(host_->WithAdmission([this](LoadAdmission& admission) {
    return admission.Send(class_, part_bytes_, LoadHost::Now());
  }));
}

absl::Status LoadStream::FillPart() {
  if (absl::Status status = host_->admission->CheckTrust(); !status.ok()) return status;
  const std::shared_ptr<storage::MvccStore> store = host_->member.machine->store();
  const std::unique_ptr<storage::MvccStore::View> view = store->NewView();
  const absl::StatusOr<uint64_t> incarnation = IncarnationOf(*view);
  if (!incarnation.ok()) return incarnation.status();
  storage::RangeOptions range;
  range.key = next_key_;
  range.range_end = EndOfPrefix(request_->prefix());
  range.revision = summary_.revision;
  range.page_bytes = host_->options.part_bytes;
  storage::RangeResult part;
  const absl::Status read = view->Range(range, &part);
  if (*incarnation != summary_.incarnation || absl::IsOutOfRange(read)) {
    return absl::AbortedError(
        fmt::format("holdfast: revision {} can not be read any more, and this copy was of it: load "
                    "again",
                    summary_.revision));
  }
  if (!read.ok()) return read;
  last_ = !part.more;
  part_bytes_ = 0;
  if (part.more) next_key_ = part.kvs.back().key + '\0';
  sent_records_ += part.kvs.size();
  for (storage::KeyValue& kv : part.kvs) {
    part_bytes_ += kv.key.size() + kv.value.size();
    FillKeyValue(std::move(kv), response_.add_records());
  }
  if (last_ && sent_records_ != summary_.records) {
    return absl::InternalError(
        fmt::format("holdfast: {} records at revision {} where there were {}: load again, and "
                    "report this",
                    sent_records_, summary_.revision, summary_.records));
  }
  response_.set_last(last_);
  return absl::OkStatus();
}

void LoadStream::Pace(absl::Duration wait) {
  if (context_->IsCancelled()) return Finish(grpc::Status::CANCELLED);
  if (host_->stopping()) return Fail(ErrStopped());
  if (wait <= absl::ZeroDuration()) return Write();
  const absl::Duration step = std::min(wait, kPaceStep);
  alarm_ = std::make_unique<grpc::Alarm>();
  alarm_->Set(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                           gpr_time_from_micros(absl::ToInt64Microseconds(step) + 1, GPR_TIMESPAN)),
              [this, left = wait - step](bool) { Pace(left); });
}

void LoadStream::Write() {
  writing_since_ns_.store(absl::ToInt64Nanoseconds(LoadHost::Now()), std::memory_order_release);
  StartWrite(&response_);
}

void LoadStream::OnWriteDone(bool ok) {
  writing_since_ns_.store(0, std::memory_order_release);
  if (!ok) return Finish(grpc::Status::CANCELLED);
  host_->counters.bytes.Add(part_bytes_);
  part_bytes_ = 0;
  if (last_) return Finish(grpc::Status::OK);
  PostPart();
}

void LoadStream::CutIfStalled(absl::Duration now) {
  const int64_t since = writing_since_ns_.load(std::memory_order_acquire);
  if (since == 0 || now - absl::Nanoseconds(since) <= host_->options.stall_max) return;
  context_->TryCancel();
}

void LoadStream::OnDone() {
  if (sends_records_) {
    host_->Remove(this);
    host_->WithAdmission([this](LoadAdmission& admission) {
      admission.LeaveSnapshot(class_);
      return 0;
    });
  }
  delete this;
}

void LoadStream::FillHead(v1::LoadHead::Kind kind, int64_t revision, uint64_t incarnation) {
  v1::LoadHead* head = response_.mutable_head();
  head->set_kind(kind);
  head->set_revision(static_cast<uint64_t>(revision));
  head->set_incarnation(incarnation);
  head->set_cluster_id(host_->member.cluster_id);
}

void LoadStream::AnswerHead() {
  response_.set_last(true);
  StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
}

void LoadStream::Fail(const absl::Status& status) {
  AddIncarnation(context_, host_->member.machine->incarnation());
  Finish(ToGrpc(status));
}

void LoadStream::Refuse(absl::Duration retry_after, const char* why) {
  host_->counters.refused[static_cast<size_t>(class_)].Add();
  const int64_t ms = absl::ToInt64Milliseconds(retry_after);
  context_->AddTrailingMetadata(kRetryAfterKey, fmt::format("{}", ms));
  Fail(absl::ResourceExhaustedError(
      fmt::format("holdfast: {}: try again in {} ms, or ask another member", why, ms)));
}

}  // namespace holdfast::server
