#include "server/snapshot_stream.h"

#include <openssl/evp.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "server/etcd_errors.h"
#include "server/grpc_status.h"
#include "storage/damage.h"

namespace holdfast::server {
namespace {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    CHECK(context_ != nullptr);
    CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }
  void Add(const std::string& bytes) {
    CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
  }
  std::string Finish() {
    unsigned char out[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    CHECK(EVP_DigestFinal_ex(context_.get(), out, &length) == 1);
    return {reinterpret_cast<const char*>(out), length};
  }

 private:
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

class Refused : public SnapshotStreams::Reactor {
 public:
  explicit Refused(const absl::Status& status) { Finish(ToGrpc(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

// Kept alive by its thread and by gRPC: the reactor until OnDone, the rest until both have let go.
class SnapshotStreams::Stream : public Reactor {
 public:
  Stream(grpc::CallbackServerContext* context, std::unique_ptr<SnapshotExport> source,
         const Options& options)
      : context_(context), source_(std::move(source)), options_(options) {}

  void HoldUntilDone(std::shared_ptr<Stream> self) { self_ = std::move(self); }

  // On the stream's thread. What Finish is to be called with.
  absl::Status Run() {
    Sha256 sha;
    while (!source_->done()) {
      absl::StatusOr<std::string> piece = source_->Next(kPieceBytes);
      if (!piece.ok()) {
        if (options_.on_damage && storage::DamageOf(piece.status())) {
          options_.on_damage(piece.status());
        }
        return piece.status();
      }
      if (piece->empty()) break;
      sha.Add(*piece);
      const uint64_t left = source_->done() ? 0 : source_->remaining_bytes_estimate();
      if (absl::Status sent = Send(*std::move(piece), left); !sent.ok()) return sent;
    }
    // Nobody reads the store any more: what it held back may go.
    source_.reset();
    return Send(sha.Finish(), 0);
  }

  void Stop() {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    broken_ = broken_ || !ok;
    changed_.notify_all();
  }
  void OnCancel() override {
    std::lock_guard lock(mutex_);
    broken_ = true;
    changed_.notify_all();
  }
  void OnDone() override { const std::shared_ptr<Stream> last = std::move(self_); }

 private:
  absl::Status Send(std::string blob, uint64_t remaining) {
    message_.Clear();
    message_.set_blob(std::move(blob));
    message_.set_remaining_bytes(remaining);
    message_.set_version(options_.version);
    std::unique_lock lock(mutex_);
    if (stopping_) return ErrStopped();
    if (broken_) return absl::CancelledError("the caller has gone");
    writing_ = true;
    lock.unlock();
    StartWrite(&message_);
    lock.lock();
    const bool in_time = changed_.wait_for(lock, absl::ToChronoMilliseconds(options_.stall_max),
                                           [this] { return !writing_ || stopping_ || broken_; });
    if (!writing_ && !broken_) return absl::OkStatus();
    // What is being written must be given back first, and a stuck write is only by this.
    if (writing_) {
      lock.unlock();
      context_->TryCancel();
      lock.lock();
      changed_.wait(lock, [this] { return !writing_; });
    }
    if (stopping_) return ErrStopped();
    if (!in_time) return absl::DeadlineExceededError("holdfast: the caller takes no more bytes");
    return absl::CancelledError("the caller has gone");
  }

  grpc::CallbackServerContext* const context_;
  std::unique_ptr<SnapshotExport> source_;  // the stream's thread
  const Options options_;
  etcdserverpb::SnapshotResponse message_;  // the stream's thread, or gRPC while writing_
  std::mutex mutex_;
  std::condition_variable changed_;
  bool writing_ = false;
  bool broken_ = false;
  bool stopping_ = false;
  std::shared_ptr<Stream> self_;
};

SnapshotStreams::Reactor* SnapshotStreams::Refuse(const absl::Status& status) {
  return new Refused(status);
}

SnapshotStreams::Reactor* SnapshotStreams::Start(
    grpc::CallbackServerContext* context,
    const std::function<std::unique_ptr<SnapshotExport>()>& make) {
  std::lock_guard lock(mutex_);
  if (stopping_) return Refuse(ErrStopped());
  const auto slot =
      std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) { return !s.busy; });
  if (slot == slots_.end()) return Refuse(ErrTooManyRequests());
  // Its stream has cleared `busy`, so it is at its end.
  if (slot->thread.joinable()) slot->thread.join();
  auto stream = std::make_shared<Stream>(context, make(), options_);
  stream->HoldUntilDone(stream);
  slot->stream = stream;
  slot->busy = true;
  slot->thread = std::thread([this, slot, stream] {
    const absl::Status status = stream->Run();
    {
      std::lock_guard done(mutex_);
      slot->stream.reset();
      slot->busy = false;
    }
    stream->Finish(ToGrpc(status));
  });
  return stream.get();
}

void SnapshotStreams::Stop() {
  std::array<std::thread, kStreamsMax> threads;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].stream != nullptr) slots_[i].stream->Stop();
      threads[i] = std::move(slots_[i].thread);
    }
  }
  for (std::thread& thread : threads) {
    if (thread.joinable()) thread.join();
  }
}

}  // namespace holdfast::server
