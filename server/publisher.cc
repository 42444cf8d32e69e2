#include "server/publisher.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"

namespace holdfast::server {

Publisher::Publisher(const MemberView& member, MemberAttributes attributes, uint64_t incarnation)
    : member_(member), attributes_(std::move(attributes)), incarnation_(incarnation) {
  CHECK(incarnation_ != 0);
  thread_ = std::thread([this] { Run(); });
}

void Publisher::Stop() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->changed.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool Publisher::Stopping() const {
  std::lock_guard lock(state_->mutex);
  return state_->stopping;
}

void Publisher::Sleep(absl::Duration duration) {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait_for(lock, absl::ToChronoMilliseconds(duration),
                           [this] { return state_->stopping; });
}

bool Publisher::IsPublished() const {
  const std::optional<MemberAttributes> known = member_.machine->member(member_.self.value);
  return known.has_value() && known->name == attributes_.name &&
         known->client_urls == attributes_.client_urls && known->disk_id == attributes_.disk_id;
}

bool Publisher::ProposeAndWait(command::v1::Command command) {
  {
    std::lock_guard lock(state_->mutex);
    state_->answered = false;
  }
  member_.pipeline->Propose(std::move(command), [state = state_](ApplyResult result) {
    std::lock_guard lock(state->mutex);
    state->answered = true;
    state->answer = std::move(result.status);
    state->changed.notify_all();
  });
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [this] { return state_->answered || state_->stopping; });
  if (!state_->answered) return false;
  if (!state_->answer.ok()) {
    LOG_DEBUG("this member's attributes are not yet published: {}", base::Message(state_->answer));
  }
  return state_->answer.ok();
}

void Publisher::Run() {
  absl::Duration backoff = kBackoffMin;
  bool announced = false;
  while (!Stopping()) {
    const raft::NodeStatus status = member_.node->status();
    const bool published = IsPublished();
    const bool born = member_.machine->incarnation() != 0;
    if (published && !std::exchange(announced, true)) {
      LOG_INFO("published {{Name:{} ClientURLs:[{}]}} to cluster {:x}", attributes_.name,
               fmt::join(attributes_.client_urls, " "), member_.cluster_id);
    }
    if (published && born) return;

    command::v1::Command command;
    if (!born && status.role == raft::Role::kLeader) {
      command.mutable_cluster_birth()->set_incarnation(incarnation_);
    } else if (!published && status.leader) {
      auto* attributes = command.mutable_member_attributes();
      attributes->set_id(member_.self.value);
      attributes->set_name(attributes_.name);
      attributes->mutable_client_urls()->Assign(attributes_.client_urls.begin(),
                                                attributes_.client_urls.end());
      attributes->set_disk_id(attributes_.disk_id);
    } else {
      Sleep(kPollInterval);  // for a leader, or for the leader's word
      continue;
    }
    if (ProposeAndWait(std::move(command))) {
      backoff = kBackoffMin;
    } else {
      Sleep(backoff);
      backoff = std::min(2 * backoff, kBackoffMax);
    }
  }
}

}  // namespace holdfast::server
