#include "server/divergence_checker.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "absl/synchronization/notification.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/peer_channel.h"
#include "server/ticker.h"
#include "storage/damage.h"

namespace holdfast::server {

void CheckLog::OnApplied(const storage::AppliedState& /*state*/, const ApplyEffects& effects,
                         bool /*events*/) {
  if (effects.checks.empty()) return;
  absl::MutexLock lock(&mutex_);
  for (const CheckResult& result : effects.checks) {
    kept_.push_back({result.index, DigestOf(result)});
    if (kept_.size() > kKept) kept_.pop_front();
  }
  newest_ = effects.checks.back();
}

std::optional<CheckDigest> CheckLog::Find(Index index) const {
  absl::MutexLock lock(&mutex_);
  const auto it = std::ranges::lower_bound(kept_, index, {}, &Kept::index);
  if (it == kept_.end() || it->index != index) return std::nullopt;
  return it->digest;
}

std::optional<CheckResult> CheckLog::Newest() const {
  absl::MutexLock lock(&mutex_);
  return newest_;
}

class DivergenceChecker::Impl {
 public:
  Impl(const MemberView& member, const CheckLog* checks, Admission* admission,
       const Options& options)
      : member_(member),
        checks_(checks),
        admission_(admission),
        options_(options),
        ticker_(kTick, [this] { Tick(); }) {}

  ~Impl() { Stop(); }

  void Stop() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      if (calling_ != nullptr) calling_->TryCancel();
    }
    ticker_.Stop();
  }

  void FenceSelf(Index index, const std::string& why) {
    admission_->Fence();
    std::lock_guard lock(mutex_);
    if (!ordered_.has_value()) ordered_ = {member_.self, index, why};
  }

 private:
  using Peers = raft::v1::PeerChecks;

  // Shared with the pipeline's callback, which may come after Stop.
  struct Proposal {
    std::atomic<bool> answered = false;
    std::atomic<bool> ok = false;
  };

  static absl::Duration Now() { return absl::FromChrono(SteadyNow().time_since_epoch()); }

  void Tick() {
    std::optional<Divergence::Fence> ordered;
    {
      std::lock_guard lock(mutex_);
      ordered = ordered_;
    }
    if (ordered.has_value()) return EndSelf(*ordered);
    TakeCheck();
    const Divergence::Actions actions = divergence_.Tick(Now(), LookAtCluster());
    for (const std::string& warning : actions.warnings) LOG_ERROR("{}", warning);
    if (actions.self.has_value()) return EndSelf(*actions.self);
    if (actions.check.has_value()) Propose(*actions.check);
    for (const Divergence::Fence& fence : actions.fences) TellToFence(fence);
    for (const Divergence::AlarmChange& change : actions.alarms) Propose(change);
    for (const Divergence::Question& question : actions.questions) Ask(question);
    Forget();
  }

  Divergence::Cluster LookAtCluster() {
    status_ = member_.node->status();
    Divergence::Cluster cluster;
    cluster.self = member_.self;
    cluster.leading = status_.role == raft::Role::kLeader;
    cluster.term = status_.term;
    cluster.settled = status_.membership_settled;
    cluster.voters = status_.membership->voters;
    cluster.learners = status_.membership->learners;
    cluster.revision = member_.machine->applied_state().revision;
    cluster.alarms = member_.machine->alarms();
    return cluster;
  }

  void Propose(const Divergence::NextCheck& next) {
    command::v1::Command command;
    command::v1::Check* check = command.mutable_check();
    check->set_part(next.part);
    check->set_from(next.from);
    check->set_max_records(Divergence::kMaxRecords);
    check->set_max_bytes(Divergence::kMaxBytes);
    const std::optional<CheckResult> newest = checks_->Newest();
    before_ = newest.has_value() ? newest->index : Index();
    check_ = std::make_shared<Proposal>();
    member_.pipeline->Propose(std::move(command), [proposal = check_](ApplyResult result) {
      proposal->ok.store(result.status.ok());
      proposal->answered.store(true);
    });
  }

  // What became of the check that was proposed.
  void TakeCheck() {
    if (check_ == nullptr || !check_->answered.load()) return;
    const std::optional<CheckResult> newest = checks_->Newest();
    if (check_->ok.load() && newest.has_value() && newest->index > before_) {
      divergence_.OnChecked(Now(), *newest);
    } else {
      divergence_.OnCheckFailed(Now());
    }
    check_ = nullptr;
  }

  std::shared_ptr<Proposal> Propose(const Divergence::AlarmChange& change) {
    LOG_WARN("{} the alarm CORRUPT of member {:x}", change.raise ? "raising" : "clearing",
             change.alarm.first);
    command::v1::Command command;
    command::v1::Alarm* alarm = command.mutable_alarm();
    alarm->set_action(change.raise ? command::v1::Alarm::ACTIVATE : command::v1::Alarm::DEACTIVATE);
    alarm->set_member_id(change.alarm.first);
    alarm->set_type(static_cast<uint32_t>(change.alarm.second));
    auto proposal = std::make_shared<Proposal>();
    // Whether it was done shows in the alarms; if not, it comes again.
    member_.pipeline->Propose(std::move(command), [proposal](ApplyResult result) {
      proposal->ok.store(result.status.ok());
      proposal->answered.store(true);
    });
    return proposal;
  }

  void TellToFence(const Divergence::Fence& fence) {
    raft::v1::FenceRequest request;
    request.set_cluster_id(member_.cluster_id);
    request.set_to(fence.member.value);
    request.set_term(status_.term.value);
    request.set_index(fence.index.value);
    request.set_why(fence.why);
    raft::v1::FenceReply reply;
    Call(fence.member, [&](Peers::Stub* stub, grpc::ClientContext* context) {
      return stub->Fence(context, request, &reply);
    });
  }

  void Ask(const Divergence::Question& question) {
    raft::v1::DigestsRequest request;
    request.set_cluster_id(member_.cluster_id);
    request.set_to(question.to.value);
    for (const Index index : question.indexes) request.add_indexes(index.value);
    raft::v1::DigestsReply reply;
    const bool answered = Call(question.to, [&](Peers::Stub* stub, grpc::ClientContext* context) {
      return stub->Digests(context, request, &reply);
    });
    if (!answered) return;
    for (const raft::v1::DigestsReply::Digest& digest : reply.digests()) {
      if (!digest.known()) continue;
      divergence_.OnDigest(question.to, Index(digest.index()),
                           {digest.low(), digest.high(), digest.records()});
    }
  }

  // True: `call` succeeded at one of the member's URLs.
  template <class Body>
  bool Call(NodeId member, Body call) {
    const auto urls = status_.membership->peer_urls.find(member);
    if (urls == status_.membership->peer_urls.end()) return false;
    for (const std::string& url : urls->second) {
      std::shared_ptr<grpc::Channel>& channel = channels_[{member, url}];
      if (channel == nullptr) {
        auto created = CreatePeerChannel(PeerTransport::Options(), url);
        if (!created.ok()) continue;
        channel = *std::move(created);
      }
      grpc::ClientContext context;
      context.set_deadline(GrpcDeadline(kCallMax));
      {
        std::lock_guard lock(mutex_);
        if (stopping_) return false;
        calling_ = &context;
      }
      const grpc::Status status = call(Peers::NewStub(channel).get(), &context);
      {
        std::lock_guard lock(mutex_);
        calling_ = nullptr;
      }
      if (status.ok()) return true;
    }
    return false;
  }

  // Channels to members that have left.
  void Forget() {
    std::erase_if(channels_, [this](const auto& entry) {
      const auto urls = status_.membership->peer_urls.find(entry.first.first);
      return urls == status_.membership->peer_urls.end() ||
             std::ranges::find(urls->second, entry.first.second) == urls->second.end();
    });
  }

  bool SleepUntil(const std::function<bool()>& condition, absl::Duration at_most) {
    const SteadyTime deadline = SteadyNow() + ToSteady(at_most);
    while (!condition() && SteadyNow() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return condition();
  }

  // Never comes back to business as usual.
  void EndSelf(const Divergence::Fence& fence) {
    if (std::exchange(ended_, true)) return;
    admission_->Fence();
    LOG_ERROR("this member's data differs from the majority's ({}): no client is answered any more",
              fence.why);
    if (member_.node->status().role == raft::Role::kLeader) LeaveLeadership();
    SleepUntil([this] { return Stopping(); }, kFenceGrace);
    options_.on_fatal(storage::DamageError(
        {.part = storage::Damage::Part::kData,
         .file = options_.data_dir,
         .what = fmt::format("it differs from the data of the majority ({})", fence.why)}));
  }

  void LeaveLeadership() {
    const auto alarm =
        Propose(Divergence::AlarmChange{{member_.self.value, AlarmType::kCorrupt}, /*raise=*/true});
    SleepUntil([&] { return alarm->answered.load() || Stopping(); }, kLeaveMax);
    struct Wait {
      absl::Notification done;
    };
    const auto wait = std::make_shared<Wait>();
    member_.node->TransferLeadership(NodeId(), kLeaveMax,
                                     [wait](const absl::Status&) { wait->done.Notify(); });
    SleepUntil([&] { return wait->done.HasBeenNotified() || Stopping(); }, 2 * kLeaveMax);
  }

  bool Stopping() {
    std::lock_guard lock(mutex_);
    return stopping_;
  }

  const MemberView member_;
  const CheckLog* const checks_;
  Admission* const admission_;
  const Options options_;

  std::mutex mutex_;
  bool stopping_ = false;                     // under mutex_
  grpc::ClientContext* calling_ = nullptr;    // under mutex_
  std::optional<Divergence::Fence> ordered_;  // under mutex_

  // The ticker's thread.
  Divergence divergence_;
  raft::NodeStatus status_;
  std::shared_ptr<Proposal> check_;
  Index before_;
  bool ended_ = false;
  std::map<std::pair<NodeId, std::string>, std::shared_ptr<grpc::Channel>> channels_;
  Ticker ticker_;  // last: it uses everything above
};

DivergenceChecker::DivergenceChecker(const MemberView& member, const CheckLog* checks,
                                     Admission* admission, const Options& options)
    : impl_(std::make_unique<Impl>(member, checks, admission, options)) {}
DivergenceChecker::~DivergenceChecker() = default;
void DivergenceChecker::FenceSelf(Index index, const std::string& why) {
  impl_->FenceSelf(index, why);
}
void DivergenceChecker::Stop() { impl_->Stop(); }

grpc::Status PeerCheckService::CheckAddressee(uint64_t cluster_id, uint64_t to) const {
  if (cluster_id == member_.cluster_id && to == member_.self.value) return grpc::Status::OK;
  return {grpc::StatusCode::FAILED_PRECONDITION,
          fmt::format("a check for member {:x} of cluster {:x} came to member {:x} of cluster {:x}",
                      to, cluster_id, member_.self.value, member_.cluster_id)};
}

grpc::Status PeerCheckService::Digests(grpc::ServerContext*,
                                       const raft::v1::DigestsRequest* request,
                                       raft::v1::DigestsReply* reply) {
  if (grpc::Status status = CheckAddressee(request->cluster_id(), request->to()); !status.ok()) {
    return status;
  }
  if (request->indexes_size() > kIndexesMax) {
    return {grpc::StatusCode::INVALID_ARGUMENT,
            fmt::format("{} checks at a time; at most {}", request->indexes_size(), kIndexesMax)};
  }
  for (const uint64_t index : request->indexes()) {
    raft::v1::DigestsReply::Digest* digest = reply->add_digests();
    digest->set_index(index);
    const std::optional<CheckDigest> found = checks_->Find(Index(index));
    if (!found.has_value()) continue;
    digest->set_known(true);
    digest->set_low(found->low);
    digest->set_high(found->high);
    digest->set_records(found->records);
  }
  return grpc::Status::OK;
}

grpc::Status PeerCheckService::Fence(grpc::ServerContext*, const raft::v1::FenceRequest* request,
                                     raft::v1::FenceReply*) {
  if (grpc::Status status = CheckAddressee(request->cluster_id(), request->to()); !status.ok()) {
    return status;
  }
  LOG_ERROR("the leader of term {} fences this member: {}", request->term(),
            base::Printable(request->why(), 1000));
  checker_->FenceSelf(Index(request->index()), request->why());
  return grpc::Status::OK;
}

}  // namespace holdfast::server
