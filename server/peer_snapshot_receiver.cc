#include "server/peer_snapshot_receiver.h"

#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <utility>

#include "base/log.h"
#include "base/strings.h"
#include "server/peer_channel.h"
#include "server/peer_snapshot_assembler.h"
#include "storage/file.h"

namespace holdfast::server {
namespace {

using raft::v1::SnapshotChunk;
using raft::v1::SnapshotMeta;

// How often a handler that waits for the node looks whether its sender has given up: a synchronous
// gRPC call is not told.
constexpr std::chrono::milliseconds kCancelPoll(50);

// Shared with the node's callback, which may come after the handler has given up.
struct Installation {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<absl::Status> result;  // guarded by mutex
};

}  // namespace

grpc::Status SnapshotReceiver::Receive(grpc::ServerContext* context,
                                       grpc::ServerReader<SnapshotChunk>* reader,
                                       raft::v1::SnapshotReceipt* receipt) {
  absl::Status status;
  if (Enter(context, &status)) {
    status = ReceiveAll(context, reader, receipt);
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

void SnapshotReceiver::Replace(NodeId from, grpc::ServerContext* context) {
  std::lock_guard lock(mutex_);
  grpc::ServerContext*& current = by_sender_[from];
  if (current != nullptr) current->TryCancel();
  current = context;
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

absl::Status SnapshotReceiver::ReceiveAll(grpc::ServerContext* context,
                                          grpc::ServerReader<SnapshotChunk>* reader,
                                          raft::v1::SnapshotReceipt* receipt) {
  SnapshotChunk chunk;
  if (!reader->Read(&chunk) || !chunk.has_meta()) {
    return absl::InvalidArgumentError("a snapshot must start with its meta data");
  }
  const SnapshotMeta meta = std::move(*chunk.mutable_meta());
  if (absl::Status status = CheckSender(meta); !status.ok()) return status;
  Replace(NodeId(meta.from()), context);

  // Numbered: the node may still hold an earlier one of the same sender and index.
  const std::string name =
      fmt::format("recv-{}-{}-{}", meta.from(), meta.index(), next_dir_.fetch_add(1));
  auto assembler =
      SnapshotAssembler::Create(storage::PosixFileSystem(), meta, options_.snapshot_dir, name);
  if (!assembler.ok()) return assembler.status();
  LOG_INFO("receiving a snapshot at index {} from member {}: {} files", meta.index(), meta.from(),
           meta.files_size());
  while (reader->Read(&chunk)) {
    if (chunk.has_meta()) return absl::InvalidArgumentError("a second snapshot on one call");
    if (absl::Status status = (*assembler)->Take(chunk); !status.ok()) return status;
  }
  if (context->IsCancelled()) return absl::CancelledError("the sender gave up, or was replaced");
  absl::StatusOr<std::string> dir = (*assembler)->Finish();
  if (!dir.ok()) return dir.status();
  if (absl::Status status = Install(context, meta, *std::move(dir)); !status.ok()) return status;
  receipt->set_index(meta.index());
  return absl::OkStatus();
}

absl::Status SnapshotReceiver::Install(grpc::ServerContext* context, const SnapshotMeta& meta,
                                       std::string dir) {
  auto installation = std::make_shared<Installation>();
  const storage::LogMark mark{Index(meta.index()), Term(meta.index_term()), meta.membership()};
  node_.load()->OnSnapshotReceived(NodeId(meta.from()), Term(meta.term()), mark, std::move(dir),
                                   [installation](absl::Status status) {
                                     std::lock_guard lock(installation->mutex);
                                     installation->result = std::move(status);
                                     installation->changed.notify_all();
                                   });
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
