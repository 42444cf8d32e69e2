#include "replication/proposal_queue.h"

#include <iterator>
#include <utility>

namespace holdfast::raft {

void ProposalQueue::Add(Proposal proposal, int64_t now_ns) {
  proposal.since_ns = now_ns;
  Hold(std::move(proposal), waiting_);
}

void ProposalQueue::Hold(Proposal proposal, std::vector<Proposal>& where) {
  if (waiting_bytes_ > kMaxWaitingBytes) {
    std::move(proposal.refused)(absl::ResourceExhaustedError("too many requests are queued"));
    return;
  }
  waiting_bytes_ += proposal.payload.size();
  where.push_back(std::move(proposal));
}

void ProposalQueue::OfferTo(RaftCore& core, int64_t now_ns) {
  std::vector<Proposal> all;
  for (Proposal& proposal : std::exchange(waiting_, {})) {
    waiting_bytes_ -= proposal.payload.size();
    if (now_ns - proposal.since_ns > max_wait_ns_) {
      std::move(proposal.refused)(absl::UnavailableError("no leader took the proposal"));
    } else {
      all.push_back(std::move(proposal));
    }
  }
  const bool forwards = core.role() != Role::kLeader;
  for (size_t begin = 0; begin < all.size();) {
    std::vector<std::string> payloads;
    size_t bytes = 0, end = begin;
    for (; end < all.size() && (payloads.empty() || bytes < kMaxBatchBytes); ++end) {
      bytes += all[end].payload.size();
      // A forwarded batch may be refused and offered again, so its payloads are copied.
      payloads.push_back(forwards ? all[end].payload : std::move(all[end].payload));
    }
    const auto first = std::make_move_iterator(all.begin() + static_cast<ptrdiff_t>(begin));
    const auto last = std::make_move_iterator(all.begin() + static_cast<ptrdiff_t>(end));
    begin = end;
    const uint64_t id = next_id_++;
    switch (core.Propose(id, std::move(payloads))) {
      case ProposeOutcome::kAppended:
        break;
      case ProposeOutcome::kForwarded:
        forwarded_bytes_ += bytes;
        forwarded_.emplace(id, Forwarded{now_ns, bytes, std::vector<Proposal>(first, last)});
        break;
      case ProposeOutcome::kNoLeader:
      case ProposeOutcome::kFull:
        for (auto it = first; it != last; ++it) {
          Proposal refused = *it;
          std::move(refused.refused)(
              absl::ResourceExhaustedError("too much is waiting to be committed"));
        }
        break;
    }
  }
}

void ProposalQueue::RefuseWaiting(const absl::Status& why) {
  ReleaseRefused();
  waiting_bytes_ = 0;
  for (Proposal& proposal : std::exchange(waiting_, {})) std::move(proposal.refused)(why);
}

void ProposalQueue::Refused(uint64_t propose_id) {
  auto node = forwarded_.extract(propose_id);
  if (node.empty()) return;
  forwarded_bytes_ -= node.mapped().bytes;
  for (Proposal& proposal : node.mapped().proposals) Hold(std::move(proposal), refused_);
}

void ProposalQueue::ReleaseRefused() {
  std::move(refused_.begin(), refused_.end(), std::back_inserter(waiting_));
  refused_.clear();
}

void ProposalQueue::ForgetForwarded(int64_t now_ns) {
  while (!forwarded_.empty() && (now_ns - forwarded_.begin()->second.at_ns > max_wait_ns_ ||
                                 forwarded_bytes_ > kMaxForwardedBytes)) {
    forwarded_bytes_ -= forwarded_.begin()->second.bytes;
    forwarded_.erase(forwarded_.begin());
  }
}

}  // namespace holdfast::raft
