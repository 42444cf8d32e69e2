#include "replication/proposal_queue.h"

#include <iterator>
#include <utility>

#include "absl/types/span.h"
#include "base/check.h"

namespace holdfast::raft {
namespace {

size_t BytesOf(const std::string& payload) { return payload.size() + sizeof(std::string); }

absl::Status TooMuch() {
  return absl::ResourceExhaustedError("too much is waiting to be committed");
}

}  // namespace

ProposalBatch::ProposalBatch(std::vector<std::string> all, Refused on_refused)
    : payloads(std::move(all)), refused(std::make_shared<Refused>(std::move(on_refused))) {
  for (const std::string& payload : payloads) bytes += BytesOf(payload);
}

ProposalBatch::ProposalBatch(std::string payload,
                             absl::AnyInvocable<void(absl::Status) &&> on_refused)
    : bytes(BytesOf(payload)),
      refused(std::make_shared<Refused>(
          [on_refused = std::move(on_refused)](size_t, const absl::Status& why) mutable {
            std::move(on_refused)(why);
          })) {
  payloads.push_back(std::move(payload));
}

void ProposalBatch::RefuseAll(const absl::Status& why) const {
  for (size_t i = 0; i < payloads.size(); ++i) (*refused)(first_slot + i, why);
}

ProposalBatch ProposalBatch::TakeFront(size_t max_bytes) {
  if (bytes <= max_bytes) return std::exchange(*this, {});
  ProposalBatch front;
  size_t n = 0;
  for (; n < payloads.size(); ++n) {
    const size_t more = BytesOf(payloads[n]);
    if (n > 0 && front.bytes + more > max_bytes) break;
    front.bytes += more;
  }
  const auto end = payloads.begin() + static_cast<ptrdiff_t>(n);
  front.payloads.assign(std::make_move_iterator(payloads.begin()), std::make_move_iterator(end));
  front.first_slot = first_slot;
  front.since_ns = since_ns;
  front.refused = refused;
  payloads.erase(payloads.begin(), end);
  first_slot += n;
  bytes -= front.bytes;
  return front;
}

void ProposalQueue::Add(ProposalBatch batch, int64_t now_ns) {
  batch.since_ns = now_ns;
  Hold(std::move(batch), waiting_);
}

void ProposalQueue::Hold(ProposalBatch batch, std::vector<ProposalBatch>& where) {
  if (waiting_bytes_ > kMaxWaitingBytes) {
    return batch.RefuseAll(absl::ResourceExhaustedError("too many requests are queued"));
  }
  waiting_bytes_ += batch.bytes;
  where.push_back(std::move(batch));
}

void ProposalQueue::OfferTo(RaftCore& core, int64_t now_ns) {
  Forwarded forwarded;
  forwarded.at_ns = now_ns;
  for (ProposalBatch& batch : std::exchange(waiting_, {})) {
    waiting_bytes_ -= batch.bytes;
    if (now_ns - batch.since_ns > max_wait_ns_) {
      batch.RefuseAll(absl::UnavailableError("no leader took the proposal"));
      continue;
    }
    if (core.role() == Role::kLeader) {
      Append(core, std::move(batch));
      continue;
    }
    while (!batch.payloads.empty()) {
      if (forwarded.bytes >= kMaxBatchBytes) {
        Forward(core, std::exchange(forwarded, {.at_ns = now_ns, .bytes = 0, .batches = {}}));
      }
      forwarded.batches.push_back(batch.TakeFront(kMaxBatchBytes - forwarded.bytes));
      forwarded.bytes += forwarded.batches.back().bytes;
    }
  }
  if (!forwarded.batches.empty()) Forward(core, std::move(forwarded));
}

// In pieces, so that the core's limits are exceeded by one piece at most.
void ProposalQueue::Append(RaftCore& core, ProposalBatch batch) {
  while (!batch.payloads.empty()) {
    ProposalBatch piece = batch.TakeFront(kMaxBatchBytes);
    if (core.ProposeAsLeader(absl::MakeSpan(piece.payloads)) == ProposeOutcome::kAppended) continue;
    piece.RefuseAll(TooMuch());
    return batch.RefuseAll(TooMuch());
  }
}

void ProposalQueue::Forward(RaftCore& core, Forwarded forwarded) {
  // Copies: the batch may be refused, and is offered again then.
  std::vector<std::string> payloads;
  for (const ProposalBatch& batch : forwarded.batches) {
    payloads.insert(payloads.end(), batch.payloads.begin(), batch.payloads.end());
  }
  const uint64_t id = next_id_++;
  if (core.Propose(id, std::move(payloads)) != ProposeOutcome::kForwarded) {
    for (const ProposalBatch& batch : forwarded.batches) batch.RefuseAll(TooMuch());
    return;
  }
  forwarded_bytes_ += forwarded.bytes;
  forwarded_.emplace(id, std::move(forwarded));
}

void ProposalQueue::RefuseWaiting(const absl::Status& why) {
  ReleaseRefused();
  waiting_bytes_ = 0;
  for (const ProposalBatch& batch : std::exchange(waiting_, {})) batch.RefuseAll(why);
}

void ProposalQueue::Refused(uint64_t propose_id) {
  auto node = forwarded_.extract(propose_id);
  if (node.empty()) return;
  forwarded_bytes_ -= node.mapped().bytes;
  for (ProposalBatch& batch : node.mapped().batches) Hold(std::move(batch), refused_);
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
