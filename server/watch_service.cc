// The rule of a stream's life: `writing_` is a token. Whoever holds it may start a write, without
// the lock; Finish is called by whoever gives it back, or finds it free, once the stream is ending.
// gRPC calls no reaction from inside StartRead, StartWrite or Finish, so those are safe under a
// lock; it calls OnDone after Finish and after every reaction has returned.
#include "server/watch_service.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/etcd_errors.h"
#include "server/read_terms.h"

namespace holdfast::server {
namespace {

using etcdserverpb::WatchRequest;
using grpc::ByteBuffer;

// Up to this one copy is cheaper than a list of references.
constexpr size_t kCopyBytesMax = 16 * 1024;
// After clients were cut off: gRPC's own threads are all that is left to wait for.
constexpr absl::Duration kCutOffMax = absl::Seconds(5);

absl::Status ErrWatchCanceled() { return absl::CancelledError("etcdserver: watch canceled"); }

grpc::Slice SliceOf(const SharedBytes& bytes) {
  auto* const reference = new SharedBytes(bytes);
  return grpc::Slice(
      const_cast<char*>(bytes->data()), bytes->size(),
      [](void* p) { delete static_cast<SharedBytes*>(p); }, reference);
}

ByteBuffer ToByteBuffer(const WatchMessage& message) {
  std::vector<grpc::Slice> slices;
  if (message.bytes() <= kCopyBytesMax) {
    std::string all;
    all.reserve(message.bytes());
    all.append(message.head);
    for (const SharedBytes& event : message.events) all.append(*event);
    slices.emplace_back(all);
  } else {
    slices.reserve(message.events.size() + 1);
    slices.emplace_back(message.head);
    for (const SharedBytes& event : message.events) slices.push_back(SliceOf(event));
  }
  return ByteBuffer(slices.data(), slices.size());
}

class Reactor;

// The streams that are open, so that Stop can end them.
class Open {
 public:
  // False: stopping.
  bool Add(const std::shared_ptr<Reactor>& reactor);
  void Remove(const std::shared_ptr<Reactor>& reactor);
  std::vector<std::shared_ptr<Reactor>> Stop();
  std::vector<std::shared_ptr<Reactor>> left();
  bool AwaitNone(absl::Duration at_most);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
  std::set<std::shared_ptr<Reactor>> reactors_;
};

class Reactor : public grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>,
                public WatchSink,
                public std::enable_shared_from_this<Reactor> {
 public:
  Reactor(grpc::CallbackServerContext* context, const Admission* admission, Open* open)
      : context_(context), admission_(admission), open_(open) {}

  // In the method's handler.
  void Begin(WatchHub* hub);
  // Cuts the client off.
  void Abort() {
    absl::MutexLock lock(&mutex_);
    if (!done_) context_->TryCancel();
  }

  // --- WatchSink ---
  void OnReady() override { Write(); }
  void OnEnd(const absl::Status& why) override { End(why); }

  // --- gRPC ---
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override { End(ErrWatchCanceled()); }
  void OnDone() override;

 private:
  void Take(const WatchRequest& request);
  void Write();
  void End(const absl::Status& why);
  void ReadOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::CallbackServerContext* const context_;  // lives until OnDone
  const Admission* const admission_;
  Open* const open_;
  std::shared_ptr<WatchStream> stream_;  // set in Begin, under mutex_; null: not begun
  std::shared_ptr<Reactor> self_;        // until OnDone
  ByteBuffer in_;                        // of the read in flight
  ByteBuffer out_;                       // belongs to who holds writing_

  absl::Mutex mutex_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;      // a read is in flight, or its request taken
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;  // the client sends no more
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status why_ ABSL_GUARDED_BY(mutex_);
};

void Reactor::Begin(WatchHub* hub) {
  self_ = shared_from_this();
  absl::Status status = admission_->Admit(*context_, Admission::Call::kRead);
  if (status.ok() && !open_->Add(self_)) status = ErrStopped();
  std::shared_ptr<WatchStream> stream;
  if (status.ok()) {
    absl::StatusOr<std::shared_ptr<WatchStream>> opened = hub->Open(self_, WantsLeader(*context_));
    status = opened.status();
    if (status.ok()) stream = *std::move(opened);
  }
  absl::MutexLock lock(&mutex_);
  stream_ = std::move(stream);
  if (!status.ok()) {
    // A cancel that came first has not finished a stream that was not begun.
    ending_ = true;
    why_ = status;
    return FinishIfIdle();
  }
  if (ending_) return FinishIfIdle();
  // Headers at once: clients take them as the sign that the stream is open.
  StartSendInitialMetadata();
  ReadOn();
}

void Reactor::ReadOn() {
  if (reading_ || half_closed_ || ending_ || !stream_->MayRead()) return;
  reading_ = true;
  StartRead(&in_);
}

void Reactor::OnReadDone(bool ok) {
  if (!ok) {
    absl::MutexLock lock(&mutex_);
    half_closed_ = true;
    return;
  }
  WatchRequest request;
  if (!grpc::SerializationTraits<WatchRequest>::Deserialize(&in_, &request).ok()) {
    return End(absl::InternalError("holdfast: not a WatchRequest"));
  }
  Take(request);
  absl::MutexLock lock(&mutex_);
  reading_ = false;
  ReadOn();
}

void Reactor::Take(const WatchRequest& request) {
  if (request.has_create_request()) {
    const absl::Status admitted = admission_->Admit(*context_, Admission::Call::kRead);
    // A leader lost a moment ago is the stream's matter: it has its own patience.
    if (!admitted.ok() && !absl::IsUnavailable(admitted)) return stream_->Refuse(admitted);
  }
  stream_->Handle(request);
}

void Reactor::Write() {
  {
    absl::MutexLock lock(&mutex_);
    if (writing_ || ending_ || stream_ == nullptr) return;
    WatchMessage message;
    if (!stream_->Next(&message)) return ReadOn();
    writing_ = true;
    out_ = ToByteBuffer(message);
    ReadOn();
  }
  StartWrite(&out_);
}

void Reactor::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (ending_) return FinishIfIdle();
  }
  if (!ok) return End(ErrWatchCanceled());
  Write();
}

void Reactor::End(const absl::Status& why) {
  std::shared_ptr<WatchStream> stream;
  {
    absl::MutexLock lock(&mutex_);
    if (ending_) return;
    ending_ = true;
    why_ = why;
    stream = stream_;
    // Not yet begun: Begin finishes it.
    if (stream != nullptr) FinishIfIdle();
  }
  // What waits is of no use to anybody; gives its memory back now and not when the client reacts.
  if (stream != nullptr) stream->Close();
}

void Reactor::FinishIfIdle() {
  if (writing_ || finished_) return;
  finished_ = true;
  Finish(ToGrpc(why_));
}

void Reactor::OnDone() {
  std::shared_ptr<Reactor> self = std::move(self_);
  {
    absl::MutexLock lock(&mutex_);
    done_ = true;
    ending_ = true;
  }
  if (stream_ != nullptr) stream_->Close();
  open_->Remove(self);
}

bool Open::Add(const std::shared_ptr<Reactor>& reactor) {
  std::lock_guard lock(mutex_);
  if (stopped_) return false;
  reactors_.insert(reactor);
  return true;
}

void Open::Remove(const std::shared_ptr<Reactor>& reactor) {
  std::lock_guard lock(mutex_);
  reactors_.erase(reactor);
  changed_.notify_all();
}

std::vector<std::shared_ptr<Reactor>> Open::Stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  return {reactors_.begin(), reactors_.end()};
}

std::vector<std::shared_ptr<Reactor>> Open::left() {
  std::lock_guard lock(mutex_);
  return {reactors_.begin(), reactors_.end()};
}

bool Open::AwaitNone(absl::Duration at_most) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, absl::ToChronoMilliseconds(at_most),
                           [this] { return reactors_.empty(); });
}

class WatchServiceImpl
    : public WatchService,
      public etcdserverpb::Watch::WithRawCallbackMethod_Watch<etcdserverpb::Watch::Service> {
 public:
  WatchServiceImpl(WatchHub* hub, const Admission* admission) : hub_(hub), admission_(admission) {}
  ~WatchServiceImpl() override { Stop(); }

  grpc::Service* service() override { return this; }

  void Stop() override {
    for (const auto& reactor : open_.Stop()) reactor->OnEnd(ErrStopped());
    if (open_.AwaitNone(kStopGrace)) return;
    for (const auto& reactor : open_.left()) reactor->Abort();
    open_.AwaitNone(kCutOffMax);
  }

  grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* Watch(
      grpc::CallbackServerContext* context) override {
    auto reactor = std::make_shared<Reactor>(context, admission_, &open_);
    reactor->Begin(hub_);
    return reactor.get();
  }

 private:
  WatchHub* const hub_;
  const Admission* const admission_;
  Open open_;
};

}  // namespace

std::unique_ptr<WatchService> WatchService::Create(WatchHub* hub, const Admission* admission) {
  return std::make_unique<WatchServiceImpl>(hub, admission);
}

}  // namespace holdfast::server
