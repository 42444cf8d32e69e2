#include "client/mirror_set.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "absl/synchronization/notification.h"
#include "base/strings.h"
#include "client/claim.h"
#include "client/termination.h"
#include "holdfast/types.h"

namespace holdfast::internal {
namespace {

using etcdserverpb::WatchRequest;
using etcdserverpb::WatchResponse;

constexpr int kBackoffDoublingsMax = 20;
constexpr absl::Duration kReportSoon = absl::Seconds(1);
// What was just loaded has no age before the first bookmark, some milliseconds later. (An etcd
// never sends one.)
constexpr absl::Duration kFirstBookmarkWait = absl::Milliseconds(500);
// A set that is larger than its policy allows is not fetched again at once.
constexpr absl::Duration kTooLargeRetry = absl::Seconds(60);

int RankOf(const std::string& klass) { return klass == "auth" ? 0 : klass == "config" ? 1 : 2; }

}  // namespace

MirrorSet::MirrorSet(Options options, std::shared_ptr<Scheduler> scheduler,
                     std::shared_ptr<UplinkFactory> uplinks)
    : options_(std::move(options)),
      scheduler_(std::move(scheduler)),
      uplinks_(std::move(uplinks)),
      client_id_(fmt::format("{:016x}", base::RandomSeed())),
      rng_(options_.seed) {
  std::vector<PrefixOptions> prefixes = options_.prefixes;
  std::stable_sort(prefixes.begin(), prefixes.end(),
                   [](const PrefixOptions& a, const PrefixOptions& b) {
                     return RankOf(a.policy.class_name()) < RankOf(b.policy.class_name());
                   });
  for (const PrefixOptions& one : prefixes) {
    MirrorImpl* mirror = nullptr;
    if (one.policy.rule() != Policy::Rule::kNeverStale) {
      feeds_.push_back({});
      feeds_.back().mirror = std::make_shared<MirrorImpl>(
          MirrorImpl::Options{.prefix = one.prefix,
                              .policy = one.policy,
                              .clock = options_.clock,
                              .max_clock_slow = options_.max_clock_slow,
                              .observer = options_.observer,
                              .scheduler = scheduler_});
      mirror = feeds_.back().mirror.get();
    }
    by_prefix_.emplace_back(one.prefix, mirror);
  }
  std::sort(by_prefix_.begin(), by_prefix_.end());
}

MirrorSet::~MirrorSet() = default;

absl::Status MirrorSet::Open() {
  disk_ = std::make_unique<DiskKeeper>(scheduler_);
  bool any_disk = false;
  for (Feed& feed : feeds_) {
    const Policy& policy = feed.mirror->policy();
    const std::string dir = policy.disk_dir().value_or(options_.disk_dir);
    if (policy.memory_only() || dir.empty()) continue;
    absl::Status status;
    auto files = LastGood::Open({.dir = dir,
                                 .prefix = feed.mirror->prefix(),
                                 .keep_generations = policy.keep_generations(),
                                 .max_clock_slow = options_.max_clock_slow,
                                 .surroundings = options_.surroundings});
    if (files.ok()) {
      status = feed.mirror->LoadFromDisk(*std::move(files));
      if (auto first = feed.mirror->files()->PollOverride(); first.ok()) {
        feed.first_override = *std::move(first);
      } else if (status.ok()) {
        status = first.status();
      }
      feed.mirror->AttachDisk(disk_.get(),
                              disk_->Add(feed.mirror->files(), feed.mirror->DiskEvents()));
      any_disk = true;
    } else {
      status = files.status();
    }
    // Whatever is wrong with the disk: the store may be there, and the service goes on.
    if (!status.ok() && options_.observer != nullptr) {
      options_.observer->OnDiskProblem(feed.mirror->prefix(), status);
    }
  }
  if (any_disk) disk_->Start();
  if (any_disk && options_.handle_termination) HandleTermination();
  scheduler_->Post([self = shared_from_this()] {
    for (Feed& feed : self->feeds_) {
      feed.mirror->Begin(std::exchange(feed.first_override, std::nullopt));
    }
    self->free_attempts_ = static_cast<int>(self->options_.endpoints.size());
    self->next_report_ = self->scheduler_->Now() + self->Jittered(absl::Seconds(5));
    self->leave_wait_ = self->options_.timing.leave_first;
    self->Attempt();
    self->ScheduleTick();
  });
  const absl::Duration begun = scheduler_->Now();
  for (Feed& feed : feeds_) {
    const absl::Duration left = feed.mirror->policy().startup_wait() - (scheduler_->Now() - begun);
    if (feed.mirror->WaitServing(std::max(left, absl::ZeroDuration()))) {
      feed.mirror->WaitProven(std::clamp(left, absl::ZeroDuration(), kFirstBookmarkWait));
      continue;
    }
    if (feed.mirror->has_data()) continue;  // if too old for its policy, as reads will say
    absl::Status why;
    {
      std::lock_guard lock(told_mutex_);
      why = told_why_;
    }
    const MirrorStatus status = feed.mirror->status();
    return absl::DataLossError(base::ToAbsl(fmt::format(
        "\"{}\": nothing to serve: {}; there is no usable copy on disk ({}), and the policy names "
        "no defaults",
        base::Printable(feed.mirror->prefix()),
        status.refused_revision != 0
            ? fmt::format("revision {} was refused: {}", status.refused_revision,
                          base::Message(status.refused_why))
            : fmt::format("the store did not answer within {}: {}",
                          absl::FormatDuration(feed.mirror->policy().startup_wait()),
                          why.ok() ? "no error" : std::string(base::Message(why))),
        feed.mirror->files() == nullptr ? "none is kept" : "none was found")));
  }
  scheduler_->Post([self = shared_from_this()] {
    for (Feed& feed : self->feeds_) feed.mirror->Opened();
  });
  return absl::OkStatus();
}

void MirrorSet::Close() {
  const auto done = std::make_shared<absl::Notification>();
  scheduler_->Post([self = shared_from_this(), done] {
    if (self->uplink_ != nullptr) {
      v1::ReportRequest leaving;
      leaving.set_client_id(self->client_id_);
      leaving.set_leaving(true);
      self->uplink_->Report(leaving);
    }
    self->closed_ = true;
    self->uplink_.reset();
    for (Feed& feed : self->feeds_) feed.mirror->Close();
    done->Notify();
  });
  done->WaitForNotification();
  disk_.reset();
  // The orderly end of what is on disk, even if somebody keeps a Live value too long.
  const auto released = std::make_shared<absl::Notification>();
  scheduler_->Post([self = shared_from_this(), released] {
    for (Feed& feed : self->feeds_) feed.mirror->ReleaseDisk();
    released->Notify();
  });
  released->WaitForNotification();
}

MirrorImpl* MirrorSet::Find(std::string_view key_or_prefix) const {
  for (const auto& [prefix, mirror] : by_prefix_) {
    if (key_or_prefix.starts_with(prefix)) return mirror;
  }
  return nullptr;
}

bool MirrorSet::NeverStaleIn(std::string_view key, std::string_view range_end) const {
  const std::string_view no_end("\0", 1);
  for (const PrefixOptions& one : options_.prefixes) {
    if (one.policy.rule() != Policy::Rule::kNeverStale) continue;
    if (range_end.empty()) {
      if (key.starts_with(one.prefix)) return true;
      continue;
    }
    const std::string end = PrefixEnd(one.prefix);
    const bool begins_before = end == no_end || key < end;
    const bool ends_behind = range_end == no_end || range_end > one.prefix;
    if (begins_before && ends_behind) return true;
  }
  return false;
}

// --- the connection ---

void MirrorSet::Attempt() {
  if (closed_ || uplink_ != nullptr || feeds_.empty()) return;
  ++connection_;
  ++attempts_;
  const Endpoint& endpoint = options_.endpoints[endpoint_];
  {
    std::lock_guard lock(told_mutex_);
    told_endpoint_ = endpoint.name;
  }
  connected_at_ = scheduler_->Now();
  silent_since_ = connected_at_;
  etcd_ = false;
  uplink_ = uplinks_->Connect(endpoint, connection_, weak_from_this());
  for (Feed& feed : feeds_) feed.heard = connected_at_;
  LoadNext();
}

void MirrorSet::Break(const absl::Status& why) {
  if (uplink_ == nullptr) return;
  const absl::Duration now = scheduler_->Now();
  uplink_.reset();
  ++breaks_;
  why_broken_ = why;
  {
    std::lock_guard lock(told_mutex_);
    told_why_ = why;
  }
  bool was_live = false;
  for (Feed& feed : feeds_) {
    was_live = was_live || feed.live;
    feed.phase = Feed::Phase::kIdle;
    feed.parts.clear();
    feed.head.reset();
    feed.last = false;
    feed.bytes = 0;
    feed.marks.clear();
    feed.unproven.clear();
    feed.unproven_bytes = 0;
    feed.live = false;
    feed.old_since.reset();
  }
  if (was_live && now - connected_at_ >= options_.timing.healthy_after) {
    failures_ = 0;
    free_attempts_ = static_cast<int>(options_.endpoints.size()) - 1;
  }
  endpoint_ = (endpoint_ + 1) % options_.endpoints.size();
  UpdateLinks(now, why);
  ScheduleAttempt();
}

void MirrorSet::ScheduleAttempt() {
  const MirrorTiming& timing = options_.timing;
  absl::Duration wait;
  if (free_attempts_ > 0) {
    // The others first, at once: one dead member must not cost its clients their freshness.
    --free_attempts_;
    wait = Jittered(timing.retry_first);
  } else {
    const int doublings = std::min(failures_++, kBackoffDoublingsMax);
    wait = Jittered(std::min(timing.retry_first * (int64_t{1} << doublings), timing.retry_max));
  }
  scheduler_->After(wait, [weak = weak_from_this(), connection = connection_] {
    const auto self = weak.lock();
    if (self != nullptr && self->connection_ == connection) self->Attempt();
  });
}

// --- loading ---

void MirrorSet::LoadNext() {
  if (uplink_ == nullptr) return;
  const absl::Duration now = scheduler_->Now();
  int loading = 0;
  for (const Feed& feed : feeds_) loading += feed.phase == Feed::Phase::kLoading ? 1 : 0;
  // feeds_ is in the order of classes: who decides over logins comes first.
  for (Feed& feed : feeds_) {
    if (loading >= kLoadsAtOnce) return;
    if (feed.phase != Feed::Phase::kIdle || now < feed.load_after) continue;
    const MirrorImpl::Position position = feed.mirror->position();
    v1::LoadRequest request;
    request.set_prefix(feed.mirror->prefix());
    request.set_revision(position.revision);
    request.set_incarnation(position.incarnation);
    request.set_digest(position.digest);
    feed.phase = Feed::Phase::kLoading;
    feed.head.reset();
    feed.last = false;
    feed.parts.clear();
    feed.bytes = 0;
    uplink_->Load(IndexOf(feed), request, feed.mirror->policy().class_name());
    ++loading;
  }
}

void MirrorSet::OnLoadPart(uint64_t connection, size_t index, v1::LoadResponse part) {
  if (!current(connection)) return;
  Feed& feed = feeds_[index];
  if (feed.phase != Feed::Phase::kLoading) return;
  silent_since_ = scheduler_->Now();
  if (part.has_head()) {
    feed.head = part.head();
    etcd_ = etcd_ || part.head().incarnation() == 0;
  }
  if (!feed.head.has_value()) return Break(absl::InternalError("a load began without its head"));
  feed.last = part.last();
  for (const mvccpb::KeyValue& kv : part.records())
    feed.bytes += kv.key().size() + kv.value().size();
  if (feed.bytes > feed.mirror->policy().max_bytes()) {
    // Kept to itself: the rest of the connection is well.
    feed.parts.clear();
    return;
  }
  feed.parts.push_back(std::move(part));
}

void MirrorSet::OnLoadEnd(uint64_t connection, size_t index, const absl::Status& status,
                          std::optional<absl::Duration> retry_after) {
  if (!current(connection)) return;
  Feed& feed = feeds_[index];
  if (feed.phase != Feed::Phase::kLoading) return;
  const absl::Duration now = scheduler_->Now();
  if (status.ok()) {
    FinishLoad(feed);
    return LoadNext();
  }
  feed.phase = Feed::Phase::kIdle;
  const bool others_live =
      std::any_of(feeds_.begin(), feeds_.end(), [](const Feed& other) { return other.live; });
  // Not now (the server says when); compacted away while it was read; or silent for long, while the
  // connection is well. Others that hang on it need not suffer.
  const bool own_trouble = absl::IsResourceExhausted(status) || absl::IsAborted(status) ||
                           (absl::IsCancelled(status) && others_live);
  if (!own_trouble) return Break(status);
  const int doublings = std::min(feed.load_failures++, kBackoffDoublingsMax);
  const absl::Duration wait = std::min(options_.timing.load_retry_first * (int64_t{1} << doublings),
                                       options_.timing.load_retry_max);
  feed.load_after = now + retry_after.value_or(absl::ZeroDuration()) + Jittered(wait);
  {
    std::lock_guard lock(told_mutex_);
    told_why_ = status;
  }
  LoadNext();
}

void MirrorSet::FinishLoad(Feed& feed) {
  if (!feed.head.has_value() || !std::exchange(feed.last, false)) {
    return Break(absl::InternalError("a load ended before its last part"));
  }
  const v1::LoadHead head = *std::exchange(feed.head, std::nullopt);
  std::vector<v1::LoadResponse> parts = std::exchange(feed.parts, {});
  const MirrorImpl::Position position = feed.mirror->position();
  switch (head.kind()) {
    case v1::LoadHead::RESUME:
      feed.mirror->NoteResumed();
      break;
    case v1::LoadHead::UNCHANGED:
      feed.mirror->TakeUnchanged(head);
      break;
    default: {
      if (feed.bytes > feed.mirror->policy().max_bytes()) {
        feed.phase = Feed::Phase::kIdle;
        feed.load_after = scheduler_->Now() + kTooLargeRetry;
        feed.mirror->TakeTooLarge(head.revision(), feed.bytes);
        return;
      }
      const bool same =
          head.incarnation() == position.incarnation && head.cluster_id() == position.cluster_id;
      if (same && head.revision() < position.revision) {
        return Break(absl::FailedPreconditionError(
            base::ToAbsl(fmt::format("the member is at revision {}, behind this copy's {}",
                                     head.revision(), position.revision))));
      }
      feed.mirror->TakeSnapshot(head, std::move(parts));
    }
  }
  StartWatch(feed);
}

// --- watching ---

void MirrorSet::StartWatch(Feed& feed) {
  feed.load_failures = 0;
  feed.phase = Feed::Phase::kWatching;
  feed.live = false;
  feed.heard = scheduler_->Now();
  WatchRequest request;
  etcdserverpb::WatchCreateRequest* create = request.mutable_create_request();
  create->set_key(feed.mirror->prefix());
  create->set_range_end(PrefixEnd(feed.mirror->prefix()));
  create->set_start_revision(static_cast<int64_t>(feed.mirror->position().revision) + 1);
  create->set_watch_id(static_cast<int64_t>(IndexOf(feed)) + 1);
  uplink_->Watch(request);
  SendMark(feed);
}

void MirrorSet::SendMark(Feed& feed) {
  if (feed.marks.size() >= kMarksMax) return;
  WatchRequest request;
  if (etcd_) {
    // etcd tells no age; but that it answers shows that the connection lives.
    request.mutable_progress_request();
    return uplink_->Watch(request);
  }
  const uint64_t nonce = rng_.Next();
  request.mutable_holdfast_mark()->set_watch_id(static_cast<int64_t>(IndexOf(feed)) + 1);
  request.mutable_holdfast_mark()->set_nonce(nonce);
  feed.marks[nonce] = options_.clock->Sample();  // Freshness 5: before it is sent
  uplink_->Watch(request);
}

void MirrorSet::OnWatch(uint64_t connection, WatchResponse response) {
  if (!current(connection)) return;
  silent_since_ = scheduler_->Now();
  const int64_t id = response.watch_id();
  if (id < 1 || id > static_cast<int64_t>(feeds_.size())) {
    // etcd's progress has id -1; so has a watch that was refused.
    if (response.canceled()) {
      Break(absl::UnavailableError(base::ToAbsl(fmt::format(
          "the member refused a watch: {}", base::Printable(response.cancel_reason())))));
    }
    return;
  }
  Feed& feed = feeds_[static_cast<size_t>(id) - 1];
  if (feed.phase != Feed::Phase::kWatching) return;
  if (response.canceled()) {
    if (response.compact_revision() == 0) {
      return Break(absl::UnavailableError(base::ToAbsl(fmt::format(
          "the member ended the watch: {}", base::Printable(response.cancel_reason())))));
    }
    // The history was compacted under a mirror that fell behind: load again.
    feed.phase = Feed::Phase::kIdle;
    feed.live = false;
    feed.unproven.clear();
    feed.unproven_bytes = 0;
    feed.marks.clear();
    return LoadNext();
  }
  if (response.events_size() > 0 && !feed.live && !etcd_) {
    feed.unproven_bytes += response.ByteSizeLong();
    if (feed.unproven_bytes > kUnprovenBytesMax) {
      return Break(absl::UnavailableError("the member sends events and no bookmark"));
    }
    feed.unproven.push_back(std::move(response));
    return;
  }
  if (response.events_size() > 0) {
    feed.mirror->Apply(response);
    feed.flush = true;
    FlushSoon();
  }
  if (response.has_holdfast_bookmark()) OnBookmark(feed, response.holdfast_bookmark());
}

void MirrorSet::ApplyUnproven(Feed& feed) {
  for (const WatchResponse& response : feed.unproven) feed.mirror->Apply(response);
  feed.unproven.clear();
  feed.unproven_bytes = 0;
}

// All that has arrived becomes one version: the more comes at once, the less each event costs.
void MirrorSet::FlushSoon() {
  if (std::exchange(flush_posted_, true)) return;
  scheduler_->Post([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->flush_posted_ = false;
    for (Feed& feed : self->feeds_) {
      if (std::exchange(feed.flush, false)) feed.mirror->Flush();
    }
  });
}

void MirrorSet::OnBookmark(Feed& feed, const etcdserverpb::WatchBookmark& bookmark) {
  const auto mark = feed.marks.find(bookmark.nonce());
  if (mark == feed.marks.end()) return;
  const base::ClockSample sent = mark->second;
  feed.marks.erase(mark);
  const MirrorImpl::Position position = feed.mirror->position();
  if (bookmark.incarnation() != 0 && bookmark.incarnation() != position.incarnation) {
    return Break(absl::FailedPreconditionError(
        "the member has another incarnation of the store than the one that was loaded"));
  }
  ApplyUnproven(feed);
  const absl::Duration now = scheduler_->Now();
  feed.flush = false;
  Claim claim;
  claim.at = sent;
  if (bookmark.has_age_us()) {
    claim.extra = absl::Microseconds(static_cast<int64_t>(bookmark.age_us()));
    claim.proof = Proof::kProven;
  }
  claim.source = Source::kMirror;
  feed.mirror->TakeClaim(static_cast<uint64_t>(std::max<int64_t>(bookmark.delivered_revision(), 0)),
                         claim);
  feed.heard = now;
  feed.live = true;
  if (now - connected_at_ >= options_.timing.healthy_after) failures_ = 0;
  UpdateLinks(now, absl::OkStatus());
  const absl::Duration age =
      claim.extra + base::Elapsed(sent, options_.clock->Sample(), options_.max_clock_slow);
  ConsiderLeaving(feed, now, age > options_.timing.leave_when_older);
}

// A member that was cut off from its leader goes on answering, ever older. Another one may be
// better off; if none is (no quorum anywhere), going around ever more slowly costs little.
void MirrorSet::ConsiderLeaving(Feed& feed, absl::Duration now, bool old) {
  if (!old) {
    feed.old_since.reset();
    if (now - connected_at_ >= options_.timing.healthy_after) {
      leave_wait_ = options_.timing.leave_first;
    }
    return;
  }
  if (!feed.old_since.has_value()) feed.old_since = now;
  if (options_.endpoints.size() < 2 || now < next_leave_) return;
  if (now - *feed.old_since < options_.timing.jeopardy_after) return;
  next_leave_ = now + leave_wait_ / 2 + Jittered(leave_wait_ / 2);
  leave_wait_ = std::min(2 * leave_wait_, options_.timing.leave_max);
  ++moves_;
  free_attempts_ = std::max(free_attempts_, 1);
  Break(absl::UnavailableError(
      "the member's data grows older: it may be cut off, and another one may not be"));
}

void MirrorSet::OnWatchEnd(uint64_t connection, const absl::Status& status) {
  if (!current(connection)) return;
  Break(status.ok() ? absl::UnavailableError("the member ended the watch stream") : status);
}

// --- time ---

void MirrorSet::ScheduleTick() {
  scheduler_->After(options_.timing.tick, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self != nullptr && !self->closed_) self->Tick();
  });
}

void MirrorSet::Tick() {
  ScheduleTick();
  const absl::Duration now = scheduler_->Now();
  const MirrorTiming& timing = options_.timing;
  for (Feed& feed : feeds_) feed.mirror->Tick();
  if (uplink_ != nullptr) {
    bool watching = false;
    absl::Duration heard = now;
    for (const Feed& feed : feeds_) {
      if (feed.phase != Feed::Phase::kWatching) continue;
      watching = true;
      heard = std::min(heard, etcd_ ? silent_since_ : feed.heard);
    }
    if (watching && now - heard >= timing.lost_after) {
      Break(absl::UnavailableError(
          base::ToAbsl(fmt::format("no bookmark came for {}: the connection is taken for lost",
                                   absl::FormatDuration(timing.lost_after)))));
    } else {
      if (now >= next_mark_) {
        next_mark_ = now + timing.mark_every;
        for (Feed& feed : feeds_) {
          if (feed.phase == Feed::Phase::kWatching) SendMark(feed);
        }
      }
      LoadNext();
    }
  }
  UpdateLinks(now, why_broken_);
  bool refusals = false;
  for (const Feed& feed : feeds_) {
    refusals = refusals || feed.refusals_reported != feed.mirror->refusals_seen();
  }
  if (refusals) next_report_ = std::min(next_report_, now + kReportSoon);
  if (uplink_ != nullptr && now >= next_report_) Report();
}

void MirrorSet::UpdateLinks(absl::Duration now, const absl::Status& why) {
  const MirrorTiming& timing = options_.timing;
  for (Feed& feed : feeds_) {
    const bool watching = uplink_ != nullptr && feed.phase == Feed::Phase::kWatching;
    const bool has_data = feed.mirror->position().revision > 0;
    Link link = has_data ? Link::kStale : Link::kConnecting;
    absl::Duration silence = now - (etcd_ ? silent_since_ : feed.heard);
    if (watching && (feed.live || etcd_)) {
      link = silence >= timing.lost_after       ? Link::kStale
             : silence >= timing.jeopardy_after ? Link::kJeopardy
                                                : Link::kLive;
    } else if (watching && silence < timing.jeopardy_after) {
      link = has_data ? Link::kRecovering : Link::kConnecting;
    }
    feed.mirror->SetLink(link, link == Link::kLive ? absl::OkStatus() : why);
  }
}

void MirrorSet::Report() {
  next_report_ =
      scheduler_->Now() + options_.timing.report_every / 2 + Jittered(options_.timing.report_every);
  if (etcd_) return;
  v1::ReportRequest report;
  report.set_client_id(client_id_);
  report.set_name(options_.name);
  report.set_version(HOLDFAST_VERSION);
  for (Feed& feed : feeds_) {
    feed.mirror->FillReport(report.add_prefixes());
    feed.refusals_reported = feed.mirror->refusals_seen();
  }
  uplink_->Report(report);
}

// --- for people ---

std::string MirrorSet::Dump() const {
  std::string text;
  {
    std::lock_guard lock(told_mutex_);
    text =
        fmt::format("mirrors of client {} ({}): last endpoint {}, {} connects, {} breaks{}\n",
                    client_id_, options_.name, told_endpoint_, attempts_.load(), breaks_.load(),
                    told_why_.ok() ? std::string()
                                   : fmt::format("; last trouble: {}", base::Message(told_why_)));
  }
  for (const auto& [prefix, mirror] : by_prefix_) {
    text += mirror != nullptr
                ? mirror->Dump()
                : fmt::format("prefix {}: never stale, no copy is kept\n", base::Printable(prefix));
  }
  return text;
}

std::string MirrorSet::Metrics() const {
  std::string text;
  const auto metric = [&](const char* name, const char* type, const char* help, auto value) {
    text += fmt::format("# HELP holdfast_client_{} {}\n# TYPE holdfast_client_{} {}\n", name, help,
                        name, type);
    for (const auto& [prefix, mirror] : by_prefix_) {
      if (mirror == nullptr) continue;
      text += fmt::format("holdfast_client_{}{{prefix=\"{}\"}} {}\n", name, base::Printable(prefix),
                          value(*mirror));
    }
  };
  metric("mirror_age_seconds", "gauge", "Upper bound on the age of the data; -1: unknown.",
         [](const MirrorImpl& m) {
           const absl::Duration age = m.fresh().MaxAge();
           return age == absl::InfiniteDuration() ? -1.0 : absl::ToDoubleSeconds(age);
         });
  metric("mirror_revision", "gauge", "Revision that is served.",
         [](const MirrorImpl& m) { return m.fresh().revision(); });
  metric("mirror_link", "gauge",
         "0 connecting, 1 live, 2 jeopardy, 3 stale, 4 expired, 5 recovering.",
         [](const MirrorImpl& m) { return static_cast<int>(m.link()); });
  metric("mirror_records", "gauge", "Records in memory.",
         [](const MirrorImpl& m) { return m.status().records; });
  metric("mirror_bytes", "gauge", "Bytes of keys and values in memory.",
         [](const MirrorImpl& m) { return m.status().bytes; });
  metric("mirror_superseded", "gauge", "1 if a newer revision was refused or is held back.",
         [](const MirrorImpl& m) { return m.fresh().superseded() ? 1 : 0; });
  metric("mirror_updates_total", "counter", "Sets taken.",
         [](const MirrorImpl& m) { return m.status().updates; });
  metric("mirror_refusals_total", "counter", "Sets refused.",
         [](const MirrorImpl& m) { return m.status().rejections; });
  metric("mirror_loads_total", "counter", "Whole copies fetched.",
         [](const MirrorImpl& m) { return m.status().loads; });
  metric("mirror_resumes_total", "counter", "Reconnects that went on where they were.",
         [](const MirrorImpl& m) { return m.status().resumes; });
  text += fmt::format(
      "# HELP holdfast_client_mirror_connects_total Connections begun.\n"
      "# TYPE holdfast_client_mirror_connects_total counter\n"
      "holdfast_client_mirror_connects_total {}\n",
      attempts_.load());
  return text;
}

}  // namespace holdfast::internal
