#include "client/exchange_link.h"

#include <algorithm>

#include <fmt/format.h>
#include <google/protobuf/arena.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include "base/check.h"
#include "client/exchange_wire.h"

namespace holdfast::internal {
namespace {

constexpr char kPath[] = "/holdfast.v1.Exchange/Stream";
// Where a server does not say.
constexpr size_t kBatchBytesDefault = size_t{1} << 20;

template <class Message>
bool Parse(const grpc::ByteBuffer& bytes, Message* message) {
  grpc::ByteBuffer copy = bytes;  // shares the bytes
  return grpc::SerializationTraits<Message>::Deserialize(&copy, message).ok();
}

// The server has said no, where a lost connection says nothing.
bool IsRefusal(grpc::StatusCode code) {
  return code != grpc::StatusCode::UNAVAILABLE && code != grpc::StatusCode::CANCELLED &&
         code != grpc::StatusCode::DEADLINE_EXCEEDED;
}

}  // namespace

// One stream. Keeps itself until gRPC has given back every tag.
class ExchangeLink::Stream {
 public:
  Stream(ExchangeLink* link, const std::shared_ptr<grpc::Channel>& channel)
      : link_(link), stub_(channel) {}

  void Start(std::shared_ptr<Stream> self) {
    self_ = std::move(self);
    call_ = stub_.PrepareCall(&context_, kPath, link_->loop_.queue());
    call_->StartCall(started_.tag());
  }
  // One at a time, after the server's first message. REQUIRES: HoldForWrite() before, under the
  // link's lock, while this is its stream.
  void Write(std::string message) {
    auto* owned = new std::string(std::move(message));
    const grpc::Slice slice(
        owned->data(), owned->size(), [](void* text) { delete static_cast<std::string*>(text); },
        owned);
    call_->Write(grpc::ByteBuffer(&slice, 1), written_.tag());
  }
  void HoldForWrite() { write_pending_ = true; }
  // A connection has taken the stream. On the loop's thread.
  bool connected() const { return connected_; }
  void Cancel() { context_.TryCancel(); }

 private:
  class Step : public Event {
   public:
    using Handler = void (Stream::*)(bool ok);
    Step(Stream* stream, Handler handler) : stream_(stream), handler_(handler) {}
    void Run(bool ok) override { (stream_->*handler_)(ok); }
    void* tag() { return static_cast<Event*>(this); }

   private:
    Stream* const stream_;
    const Handler handler_;
  };

  void OnStarted(bool ok) {
    connected_ = ok;
    if (!ok) return Finish();
    call_->Read(&bytes_, read_.tag());
  }
  void OnRead(bool ok) {
    if (!ok) return Finish();
    grpc::ByteBuffer bytes;
    bytes.Swap(&bytes_);
    // The next one may come while this one is looked at.
    call_->Read(&bytes_, read_.tag());
    link_->OnMessage(this, bytes);
  }
  void OnWritten(bool ok) {
    {
      absl::MutexLock lock(&link_->mutex_);
      write_pending_ = false;
    }
    // One that failed is told by the read.
    if (ok) link_->OnWritten(this);
    GoneIfOver();
  }
  void Finish() { call_->Finish(&status_, finished_.tag()); }
  void OnFinished(bool) {
    link_->OnEnd(this, status_);
    finished_already_ = true;
    GoneIfOver();
  }
  void GoneIfOver() {
    if (!finished_already_) return;
    {
      absl::MutexLock lock(&link_->mutex_);
      if (write_pending_) return;
    }
    const std::shared_ptr<Stream> self = std::move(self_);
    if (self != nullptr) link_->OnGone(this);
  }

  ExchangeLink* const link_;
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::ByteBuffer bytes_;
  grpc::Status status_;
  std::shared_ptr<Stream> self_;
  bool connected_ = false;  // this and the next: the loop's thread
  bool finished_already_ = false;
  bool write_pending_ = false;  // under the link's lock
  Step started_{this, &Stream::OnStarted};
  Step read_{this, &Stream::OnRead};
  Step written_{this, &Stream::OnWritten};
  Step finished_{this, &Stream::OnFinished};
};

void TryHandle::Cancel() const {
  if (rpc_ != nullptr) rpc_->Cancel();
  if (link_ != nullptr) link_->Cancel(id_);
}

ExchangeLink::ExchangeLink(EventLoop* loop) : loop_(*loop), queue_(kBatchBytesDefault) {}

ExchangeLink::~ExchangeLink() {
  absl::MutexLock lock(&mutex_);
  CHECK(closed_ && streams_alive_ == 0);
}

// ---------------------------------------------------------------- a try begins

TryHandle ExchangeLink::Start(const std::shared_ptr<grpc::Channel>& channel, RpcRequest request,
                              std::shared_ptr<TryOwner> owner, bool hedge) {
  std::string message;
  std::shared_ptr<Stream> stream;
  uint64_t id = 0;
  bool unary = false;
  {
    absl::MutexLock lock(&mutex_);
    const Steady::time_point now = Steady::now();
    if (state_ == State::kNone && unary_until_.has_value()) {
      const bool same = channel == channel_ && channel->GetState(false) == GRPC_CHANNEL_READY;
      if (same && now < *unary_until_) {
        unary = true;
      } else {
        unary_until_.reset();  // whoever is there now is asked
      }
    }
    if (!unary) {
      const size_t waiting = queue_.bytes() + held_bytes_;
      TryTable::Entry entry{.owner = owner,
                            .hedge = hedge,
                            .deadline = now + absl::ToChronoNanoseconds(request.timeout)};
      if (waiting + request.body.size() <= kQueueBytesMax) id = tries_.Add(std::move(entry));
      if (id == 0) {
        refused_.push_back({std::move(owner), hedge, false, nullptr});
        if (!std::exchange(telling_, true)) {
          loop_.After(absl::ZeroDuration(), [this] { OnCancelled(); });
        }
        return TryHandle();
      }
      ArmTimer(now);
      if (state_ == State::kOpen && !Fits(request, id)) {
        tries_.Find(id)->where = Where::kUnary;
        tries_.Forget(id);
        unary = true;
      } else if (state_ == State::kOpen) {
        Enqueue(id, request);
        if (!writing_ && !deferred_) {
          if (loop_.OnLoopThread()) {
            deferred_ = true;
            loop_.Defer(this);
          } else if (TakeMessage(&message)) {
            stream = stream_;
          }
        }
      } else {
        const size_t bytes = request.body.size();
        tries_.Find(id)->bytes = bytes;
        held_bytes_ += bytes;
        held_.push_back({id, std::move(request)});
        if (state_ == State::kNone || channel != channel_) OpenStream(channel);
      }
    }
  }
  if (stream != nullptr) stream->Write(std::move(message));
  if (unary && id != 0) {
    StartUnary(id, std::move(request));
  } else if (unary) {
    return TryHandle(Rpc::Start(
        &loop_, channel, std::move(request),
        [owner = std::move(owner), hedge](RpcReply reply) { owner->OnTryDone(hedge, reply); }));
  }
  return TryHandle(this, id);
}

void ExchangeLink::OpenStream(const std::shared_ptr<grpc::Channel>& channel) {
  // One that was replaced has got nothing: its tries wait for this one.
  if (stream_ != nullptr) stream_->Cancel();
  channel_ = channel;
  state_ = State::kOpening;
  stream_ = std::make_shared<Stream>(this, channel);
  ++streams_alive_;
  ++counts_.streams;
  stream_->Start(stream_);
}

bool ExchangeLink::Fits(const RpcRequest& request, uint64_t id) const {
  const size_t size = RequestItem(id, request).size();
  // What the server would refuse is refused by its other door, in its own words.
  return size <= queue_.max_batch_bytes() &&
         (max_request_bytes_ == 0 || request.body.size() <= max_request_bytes_);
}

void ExchangeLink::Enqueue(uint64_t id, const RpcRequest& request) {
  const RequestItem item(id, request);
  item.AppendTo(queue_.Add(id, item.size()));
  tries_.Find(id)->bytes = item.size();
  ++counts_.tries;
}

// Beside the stream. The slot stays, so that Cancel() finds it.
void ExchangeLink::StartUnary(uint64_t id, RpcRequest request) {
  std::shared_ptr<grpc::Channel> channel;
  {
    absl::MutexLock lock(&mutex_);
    TryTable::Entry* const entry = tries_.Find(id);
    if (entry == nullptr) return;  // cancelled meanwhile
    request.timeout = absl::FromChrono(entry->deadline - Steady::now());
    channel = channel_;
    // Under the lock, which the reply's handler takes: the handle is there before it is erased.
    unary_[id] = Rpc::Start(&loop_, channel, std::move(request),
                            [this, id](RpcReply reply) { OnUnary(id, std::move(reply)); });
  }
}

void ExchangeLink::OnUnary(uint64_t id, RpcReply reply) {
  Ended ended;
  {
    absl::MutexLock lock(&mutex_);
    unary_.erase(id);
    CHECK(tries_.Find(id) != nullptr);
    ended = TakeEnded(id);
  }
  ended.owner->OnTryDone(ended.hedge, reply);
}

// ---------------------------------------------------------------- messages out

bool ExchangeLink::Alive(uint64_t id) { return tries_.Find(id) != nullptr; }

bool ExchangeLink::TakeMessage(std::string* message) {
  if (state_ != State::kOpen || writing_) return false;
  *message = queue_.Take([this](uint64_t id) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    TryTable::Entry* const entry = tries_.Find(id);
    if (entry == nullptr) return false;
    entry->where = Where::kUnderWay;
    entry->bytes = 0;
    return true;
  });
  AppendCancels(cancels_, message);
  cancels_.clear();
  if (message->empty()) return false;
  ++counts_.messages;
  writing_ = true;
  stream_->HoldForWrite();
  return true;
}

void ExchangeLink::Send() {
  std::string message;
  std::shared_ptr<Stream> stream;
  {
    absl::MutexLock lock(&mutex_);
    if (!TakeMessage(&message)) return;
    stream = stream_;
  }
  stream->Write(std::move(message));
}

void ExchangeLink::RunDeferred() {
  {
    absl::MutexLock lock(&mutex_);
    deferred_ = false;
  }
  Send();
}

void ExchangeLink::OnWritten(Stream* stream) {
  {
    absl::MutexLock lock(&mutex_);
    if (stream != stream_.get()) return;
    writing_ = false;
  }
  Send();
}

// ---------------------------------------------------------------- messages in

void ExchangeLink::OnMessage(Stream* stream, const grpc::ByteBuffer& bytes) {
  google::protobuf::Arena arena;
  auto* message = google::protobuf::Arena::CreateMessage<v1::ExchangeReplies>(&arena);
  const bool readable = Parse(bytes, message);
  std::vector<Held> unary;
  std::vector<Ended> ended;
  {
    absl::MutexLock lock(&mutex_);
    if (stream != stream_.get()) return;
    ++counts_.replies;
    // Nobody knows what it said: every try under way is answered by the stream's end.
    if (!readable) return stream->Cancel();
    if (state_ == State::kOpening) OnOpened(message->limits(), &unary);
    const auto take = [&](v1::ExchangeReply* reply) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      const TryTable::Entry* const entry = tries_.Find(reply->id());
      if (entry == nullptr || entry->where != Where::kUnderWay) return;
      ended.push_back(TakeEnded(reply->id()));
      ended.back().reply = reply;
    };
    ended.reserve(static_cast<size_t>(message->replies_size()));
    for (v1::ExchangeReply& reply : *message->mutable_replies()) take(&reply);
    for (const v1::ExchangePart& part : message->parts()) {
      v1::ExchangeReply* whole = nullptr;
      if (!AddPart(part, &whole, &arena)) return stream->Cancel();
      if (whole != nullptr) take(whole);
    }
  }
  for (Held& one : unary) StartUnary(one.id, std::move(one.request));
  Send();
  RpcReply reply;
  for (Ended& one : ended) {
    ToReply(*one.reply, *message, &reply);
    one.owner->OnTryDone(one.hedge, reply);
    one.owner.reset();
  }
}

void ExchangeLink::OnOpened(const v1::ExchangeLimits& limits, std::vector<Held>* unary) {
  state_ = State::kOpen;
  queue_.set_max_batch_bytes(limits.max_batch_bytes() == 0 ? kBatchBytesDefault
                                                           : limits.max_batch_bytes());
  max_request_bytes_ = limits.max_request_bytes();
  for (Held& one : held_) {
    TryTable::Entry* const entry = tries_.Find(one.id);
    if (entry == nullptr) continue;
    if (Fits(one.request, one.id)) {
      Enqueue(one.id, one.request);
      continue;
    }
    entry->where = Where::kUnary;
    entry->bytes = 0;
    tries_.Forget(one.id);
    unary->push_back(std::move(one));
  }
  held_.clear();
  held_bytes_ = held_dead_ = 0;
}

// False: the server does not keep to the limits.
bool ExchangeLink::AddPart(const v1::ExchangePart& part, v1::ExchangeReply** whole,
                           google::protobuf::Arena* arena) {
  if (tries_.Find(part.id()) == nullptr) return true;  // over; what came was dropped with it
  parts_bytes_ += part.bytes().size();
  if (parts_bytes_ > kPartsBytesMax) return false;
  std::string& bytes = parts_[part.id()];
  bytes += part.bytes();
  if (!part.last()) return true;
  *whole = google::protobuf::Arena::CreateMessage<v1::ExchangeReply>(arena);
  const bool readable = (*whole)->ParseFromString(bytes) && (*whole)->id() == part.id();
  parts_bytes_ -= bytes.size();
  parts_.erase(part.id());
  return readable;
}

// ---------------------------------------------------------------- the end of a stream

void ExchangeLink::OnEnd(Stream* stream, const grpc::Status& status) {
  std::vector<Ended> ended;
  std::vector<Held> unary;
  {
    absl::MutexLock lock(&mutex_);
    if (stream != stream_.get()) return;
    const bool was_open = state_ == State::kOpen;
    state_ = State::kNone;
    stream_ = nullptr;
    writing_ = false;
    cancels_.clear();
    parts_.clear();
    parts_bytes_ = 0;
    const auto alive = [this](uint64_t id) ABSL_NO_THREAD_SAFETY_ANALYSIS { return Alive(id); };
    queue_.TakeAll(alive);
    if (!was_open && IsRefusal(status.error_code())) {
      unary_until_ = Steady::now() + absl::ToChronoNanoseconds(
                                         status.error_code() == grpc::StatusCode::UNIMPLEMENTED
                                             ? kAskAgain
                                             : kAskAgainRefused);
      for (Held& one : held_) {
        TryTable::Entry* const entry = tries_.Find(one.id);
        if (entry == nullptr) continue;
        entry->where = Where::kUnary;
        entry->bytes = 0;
        tries_.Forget(one.id);
        unary.push_back(std::move(one));
      }
    }
    held_.clear();
    held_bytes_ = held_dead_ = 0;
    for (const Where where : {Where::kQueued, Where::kUnderWay}) {
      for (const uint64_t id : tries_.Ids(where)) ended.push_back(TakeEnded(id));
    }
  }
  for (Held& one : unary) StartUnary(one.id, std::move(one.request));
  Tell(&ended, /*refused=*/stream->connected(),
       {grpc::StatusCode::UNAVAILABLE,
        status.error_message().empty() ? "the stream of requests ended" : status.error_message()});
}

void ExchangeLink::OnGone(Stream*) {
  absl::MutexLock lock(&mutex_);
  if (--streams_alive_ == 0) gone_.SignalAll();
}

ExchangeLink::Ended ExchangeLink::TakeEnded(uint64_t id) {
  TryTable::Entry entry = tries_.Take(id);
  if (const auto part = parts_.find(id); part != parts_.end()) {
    parts_bytes_ -= part->second.size();
    parts_.erase(part);
  }
  if (entry.where == Where::kQueued && entry.bytes > 0) DropQueued(entry.bytes);
  return {std::move(entry.owner), entry.hedge, entry.where == Where::kUnderWay, nullptr};
}

// What is over takes no room for long, whether or not a message is ever sent.
void ExchangeLink::DropQueued(size_t bytes) {
  const auto alive = [this](uint64_t id) ABSL_NO_THREAD_SAFETY_ANALYSIS { return Alive(id); };
  if (state_ == State::kOpen) return queue_.OnDead(bytes, alive);
  if (held_.empty()) return;
  held_dead_ += bytes;
  if (held_dead_ < held_bytes_ / 2) return;
  std::erase_if(held_, [&](const Held& one) { return !alive(one.id); });
  held_bytes_ -= held_dead_;
  held_dead_ = 0;
}

void ExchangeLink::Tell(std::vector<Ended>* ended, bool refused, const grpc::Status& status) {
  for (Ended& one : *ended) {
    RpcReply reply;
    reply.status = status;
    reply.sent = one.sent;
    reply.refused_unsent = refused && !one.sent;
    one.owner->OnTryDone(one.hedge, reply);
  }
}

// ---------------------------------------------------------------- deadlines and cancels

void ExchangeLink::ArmTimer(Steady::time_point now) {
  const std::optional<Steady::time_point> next = tries_.NextDue();
  if (!next.has_value() || closed_) return;
  if (timer_ != nullptr) {
    // A timer that is cancelled runs soon, and is set anew.
    if (*next < timer_at_) {
      timer_at_ = *next;
      timer_->Cancel();
    }
    return;
  }
  timer_at_ = std::max(*next, now + TryTable::kGrain);
  timer_ = loop_.After(absl::FromChrono(timer_at_ - now), [this] { OnTimer(); });
}

void ExchangeLink::OnTimer() {
  std::vector<Ended> ended;
  {
    absl::MutexLock lock(&mutex_);
    timer_ = nullptr;
    const Steady::time_point now = Steady::now();
    std::vector<uint64_t> due;
    tries_.Due(now, &due);
    for (const uint64_t id : due) {
      ended.push_back(TakeEnded(id));
      if (ended.back().sent && cancels_.size() < kCancelsMax) cancels_.push_back(id);
    }
    ArmTimer(now);
    if (closed_) gone_.SignalAll();
  }
  Tell(&ended, /*refused=*/false, {grpc::StatusCode::DEADLINE_EXCEEDED, ""});
  Send();
}

void ExchangeLink::Cancel(uint64_t id) {
  absl::MutexLock lock(&mutex_);
  TryTable::Entry* const entry = tries_.Find(id);
  if (entry == nullptr) return;
  if (entry->where == Where::kUnary) {
    const auto it = unary_.find(id);
    if (it != unary_.end()) return it->second->Cancel();
  }
  cancelled_.push_back(TakeEnded(id));
  if (cancelled_.back().sent && cancels_.size() < kCancelsMax) cancels_.push_back(id);
  if (!std::exchange(telling_, true)) {
    loop_.After(absl::ZeroDuration(), [this] { OnCancelled(); });
  }
}

void ExchangeLink::OnCancelled() {
  std::vector<Ended> cancelled;
  std::vector<Ended> refused;
  {
    absl::MutexLock lock(&mutex_);
    telling_ = false;
    if (closed_) gone_.SignalAll();
    cancelled.swap(cancelled_);
    refused.swap(refused_);
  }
  Send();
  Tell(&cancelled, /*refused=*/false, {grpc::StatusCode::CANCELLED, "cancelled"});
  for (Ended& one : refused) {
    RpcReply reply;
    reply.status = {grpc::StatusCode::RESOURCE_EXHAUSTED,
                    "as much waits to be sent to it already as this client holds"};
    reply.sent = false;
    reply.retry_after = kRetryAfterFull;
    one.owner->OnTryDone(one.hedge, reply);
  }
}

void ExchangeLink::Close() {
  CHECK(!loop_.OnLoopThread());
  absl::MutexLock lock(&mutex_);
  CHECK(tries_.size() == 0);
  closed_ = true;
  if (stream_ != nullptr) stream_->Cancel();
  if (timer_ != nullptr) timer_->Cancel();
  while (streams_alive_ > 0 || timer_ != nullptr || telling_) gone_.Wait(&mutex_);
}

ExchangeLink::Counts ExchangeLink::counts() const {
  absl::MutexLock lock(&mutex_);
  return counts_;
}

}  // namespace holdfast::internal
