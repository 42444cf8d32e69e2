#include "server/peer_snapshot_receiver.h"

#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <utility>

#include "base/log.h"
#include "base/strings.h"
#include "server/peer_channel.h"
#include "server/peer_snapshot_assembler.h"

namespace holdfast::server {
namespace {

using raft::v1::SnapshotAnswer;
using raft::v1::SnapshotChunk;
using raft::v1::SnapshotMeta;

// How often a handler that waits for the node looks whether its sender has given up: a synchronous
// gRPC call is not told.
constexpr std::chrono::milliseconds kCancelPoll(50);
constexpr double kMebibyte = 1 << 20;

absl::Status Gone() { return absl::CancelledError("the sender gave up, or was replaced"); }

}  // namespace

// Shared with the node's callback, which may come after the handler has given up.
struct SnapshotReceiver::Installation {
  uint64_t from = 0;
  uint64_t snapshot_id = 0;
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<absl::Status> result;  // guarded by mutex
};

grpc::Status SnapshotReceiver::Receive(grpc::ServerContext* context, Stream* stream) {
  absl::Status status;
  if (Enter(context, &status)) {
    status = ReceiveAll(context, stream);
    Leave(context);
  }
  if (!status.ok()) {
    LOG_WARN("snapshot from {} not installed: {}", context->peer(), base::Message(status));
  }
  return ToGrpc(status);
}

bool SnapshotReceiver::Enter(grpc::ServerContext* context, absl::Status* refused) {
  std::lock_guard lock(mutex_);
  if (stopping_ || node_.load() == nullptr) {
    *refused = absl::UnavailableError(stopping_ ? "this member is stopping"
                                                : "this member is starting: try again");
    return false;
  }
  if (active_.size() >= kMaxIncomingSnapshots) {
    *refused = absl::ResourceExhaustedError(base::ToAbsl(
        fmt::format("{} snapshots are being received already", kMaxIncomingSnapshots)));
    return false;
  }
  active_.insert(context);
  return true;
}

void SnapshotReceiver::Leave(grpc::ServerContext* context) {
  std::lock_guard lock(mutex_);
  active_.erase(context);
  std::erase_if(by_sender_, [context](const auto& item) { return item.second == context; });
  left_.notify_all();
}

bool SnapshotReceiver::Replace(NodeId from, grpc::ServerContext* context) {
  std::unique_lock lock(mutex_);
  // The older one leaves what it received, for this one to go on with.
  while (by_sender_.contains(from)) {
    if (context->IsCancelled()) return false;
    by_sender_[from]->TryCancel();
    left_.wait_for(lock, kCancelPoll);
  }
  by_sender_[from] = context;
  return !stopping_;
}

void SnapshotReceiver::Stop() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  for (grpc::ServerContext* context : active_) context->TryCancel();
  left_.wait(lock, [this] { return active_.empty(); });
}

absl::Status SnapshotReceiver::CheckSender(const SnapshotMeta& meta) const {
  if (meta.cluster_id() != options_.cluster_id) {
    return absl::FailedPreconditionError(base::ToAbsl(
        fmt::format("member {} belongs to cluster {:x}, member {} to cluster {:x}: "
                    "check the peer URLs and the initial cluster of both",
                    meta.from(), meta.cluster_id(), options_.self.value, options_.cluster_id)));
  }
  if (meta.to() != options_.self.value || meta.from() == 0 || meta.from() == options_.self.value) {
    return absl::FailedPreconditionError(
        base::ToAbsl(fmt::format("a snapshot from member {} for member {} came to member {}",
                                 meta.from(), meta.to(), options_.self.value)));
  }
  return absl::OkStatus();
}

absl::Status SnapshotReceiver::ReceiveAll(grpc::ServerContext* context, Stream* stream) {
  SnapshotChunk chunk;
  if (!stream->Read(&chunk) || !chunk.has_meta()) {
    return absl::InvalidArgumentError("a snapshot must start with its meta data");
  }
  const SnapshotMeta meta = std::move(*chunk.mutable_meta());
  if (absl::Status status = CheckSender(meta); !status.ok()) return status;
  if (absl::Status status = CheckSnapshotMeta(meta); !status.ok()) return status;
  if (!Replace(NodeId(meta.from()), context)) return Gone();

  SnapshotAnswer answer;
  std::shared_ptr<Installation> installation = Find(meta);
  if (installation != nullptr) {
    answer.set_have_bytes(SnapshotBytes(meta));
    if (!stream->Write(answer) || stream->Read(&chunk)) return Gone();
  } else {
    absl::StatusOr<std::string> dir = ReceiveFiles(context, stream, meta);
    if (!dir.ok()) return dir.status();
    installation = Install(meta, *std::move(dir));
  }
  if (absl::Status status = Await(context, installation.get()); !status.ok()) return status;
  answer.set_have_bytes(SnapshotBytes(meta));
  answer.set_installed_index(meta.index());
  return stream->Write(answer) ? absl::OkStatus() : Gone();
}

absl::StatusOr<std::string> SnapshotReceiver::ReceiveFiles(grpc::ServerContext* context,
                                                           Stream* stream,
                                                           const SnapshotMeta& meta) {
  auto assembler = partials_.Claim(meta);
  if (!assembler.ok()) return assembler.status();
  const SteadyTime start = SteadyNow();
  const uint64_t had = (*assembler)->have_bytes();
  LOG_INFO("receiving a snapshot at index {} from member {}: {} files, {:.1f} MiB, {:.1f} here",
           meta.index(), meta.from(), meta.files_size(), double(SnapshotBytes(meta)) / kMebibyte,
           double(had) / kMebibyte);
  SnapshotAnswer answer;
  answer.set_have_bytes(had);
  absl::Status taken = stream->Write(answer) ? absl::OkStatus() : Gone();
  SnapshotChunk chunk;
  while (taken.ok() && stream->Read(&chunk)) {
    taken = chunk.has_meta() ? absl::InvalidArgumentError("a second snapshot on one call")
                             : (*assembler)->Take(chunk);
  }
  const bool incomplete = (*assembler)->have_bytes() < SnapshotBytes(meta);
  if (taken.ok() && context->IsCancelled()) taken = Gone();
  if (taken.ok() && incomplete) taken = (*assembler)->Finish().status();  // says what is missing
  if (!taken.ok()) {
    // What came before a break or a damaged chunk is good. After anything else nothing is: the
    // sender or our disk is not what it should be, and a full disk wants its room back.
    if (absl::IsCancelled(taken) || absl::IsAborted(taken) || absl::IsDataLoss(taken)) {
      partials_.Park(*std::move(assembler), SteadyNow());
    }
    return taken;
  }
  absl::StatusOr<std::string> dir = (*assembler)->Finish();
  if (dir.ok()) {
    const std::chrono::duration<double> took = SteadyNow() - start;
    const uint64_t bytes = (*assembler)->have_bytes() - had;
    LOG_INFO("snapshot at index {} received: {} bytes in {:.3f} s, {} were here", meta.index(),
             bytes, took.count(), had);
  }
  return dir;
}

std::shared_ptr<SnapshotReceiver::Installation> SnapshotReceiver::Find(const SnapshotMeta& meta) {
  std::lock_guard lock(mutex_);
  if (installation_ == nullptr || installation_->from != meta.from() ||
      installation_->snapshot_id != meta.snapshot_id()) {
    return nullptr;
  }
  std::lock_guard result_lock(installation_->mutex);
  const bool failed = installation_->result && !installation_->result->ok();
  return failed ? nullptr : installation_;
}

std::shared_ptr<SnapshotReceiver::Installation> SnapshotReceiver::Install(const SnapshotMeta& meta,
                                                                          std::string dir) {
  auto installation = std::make_shared<Installation>();
  installation->from = meta.from();
  installation->snapshot_id = meta.snapshot_id();
  {
    std::lock_guard lock(mutex_);
    installation_ = installation;
  }
  const storage::LogMark mark{Index(meta.index()), Term(meta.index_term()), meta.membership()};
  node_.load()->OnSnapshotReceived(NodeId(meta.from()), Term(meta.term()), mark, std::move(dir),
                                   [installation](absl::Status status) {
                                     std::lock_guard lock(installation->mutex);
                                     installation->result = std::move(status);
                                     installation->changed.notify_all();
                                   });
  return installation;
}

absl::Status SnapshotReceiver::Await(grpc::ServerContext* context,
                                     Installation* installation) const {
  std::unique_lock lock(installation->mutex);
  while (!installation->result) {
    // Stop and Replace cancel the call, so this sees them too.
    if (context->IsCancelled()) {
      return absl::CancelledError("nobody waits for the installation any more");
    }
    installation->changed.wait_for(lock, kCancelPoll);
  }
  return *installation->result;
}

}  // namespace holdfast::server
