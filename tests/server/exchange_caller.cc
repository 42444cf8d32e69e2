#include "exchange_caller.h"

#include <chrono>
#include <utility>

#include "absl/time/clock.h"
#include "base/check.h"

namespace holdfast::server::testing {

using v1::ExchangeLimits;
using v1::ExchangePart;
using v1::ExchangeReplies;
using v1::ExchangeReply;
using v1::ExchangeRequest;
using v1::ExchangeRequests;

ExchangeCaller::ExchangeCaller(const std::shared_ptr<grpc::Channel>& channel)
    : stub_(v1::Exchange::NewStub(channel)),
      stream_(stub_->Stream(&context_)),
      reader_([this] { ReadLoop(); }) {}

ExchangeCaller::~ExchangeCaller() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  context_.TryCancel();
  reader_.join();
}

bool ExchangeCaller::Send(const ExchangeRequests& batch) { return stream_->Write(batch); }

bool ExchangeCaller::Send(ExchangeRequest request) {
  ExchangeRequests batch;
  *batch.add_requests() = std::move(request);
  return Send(batch);
}

void ExchangeCaller::CloseWrites() { stream_->WritesDone(); }
void ExchangeCaller::Cancel() { context_.TryCancel(); }

void ExchangeCaller::PauseReading() {
  absl::MutexLock lock(&mutex_);
  paused_ = true;
}

void ExchangeCaller::GoOnReading() {
  absl::MutexLock lock(&mutex_);
  paused_ = false;
}

void ExchangeCaller::DropValues() {
  absl::MutexLock lock(&mutex_);
  drop_values_ = true;
}

std::optional<DoorAnswer> ExchangeCaller::Await(uint64_t id) {
  absl::MutexLock lock(&mutex_);
  const auto there = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return end_.has_value() || answers_.contains(id);
  };
  mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience);
  const auto it = answers_.find(id);
  return it == answers_.end() ? std::nullopt : std::optional(it->second);
}

std::optional<DoorAnswer> ExchangeCaller::Find(uint64_t id) const {
  absl::MutexLock lock(&mutex_);
  const auto it = answers_.find(id);
  return it == answers_.end() ? std::nullopt : std::optional(it->second);
}

bool ExchangeCaller::AwaitAnswers(size_t count) {
  absl::MutexLock lock(&mutex_);
  const auto there = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return end_.has_value() || answers_.size() >= count;
  };
  mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience);
  return answers_.size() >= count;
}

size_t ExchangeCaller::answers() const {
  absl::MutexLock lock(&mutex_);
  return answers_.size();
}

std::vector<uint64_t> ExchangeCaller::order() const {
  absl::MutexLock lock(&mutex_);
  return order_;
}

ExchangeCaller::Pieces ExchangeCaller::pieces(uint64_t id) const {
  absl::MutexLock lock(&mutex_);
  const auto it = pieces_.find(id);
  return it == pieces_.end() ? Pieces{} : it->second;
}

int ExchangeCaller::message_of(uint64_t id) const {
  absl::MutexLock lock(&mutex_);
  const auto it = message_of_.find(id);
  return it == message_of_.end() ? -1 : it->second;
}

std::optional<ExchangeLimits> ExchangeCaller::AwaitLimits() {
  absl::MutexLock lock(&mutex_);
  const auto there = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return end_.has_value() || messages_ > 0;
  };
  mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience);
  return limits_;
}

int ExchangeCaller::stray_limits() const {
  absl::MutexLock lock(&mutex_);
  return stray_limits_;
}

std::optional<grpc::Status> ExchangeCaller::AwaitEnd(absl::Duration patience) {
  absl::MutexLock lock(&mutex_);
  const auto there = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return end_.has_value(); };
  mutex_.AwaitWithTimeout(absl::Condition(&there), patience);
  return end_;
}

bool ExchangeCaller::ended() const {
  absl::MutexLock lock(&mutex_);
  return end_.has_value();
}

void ExchangeCaller::ReadLoop() {
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &ExchangeCaller::MayRead));
    }
    ExchangeReplies message;
    if (!stream_->Read(&message)) break;
    Take(std::move(message));
  }
  grpc::Status status = stream_->Finish();
  absl::MutexLock lock(&mutex_);
  end_ = std::move(status);
}

void ExchangeCaller::Take(ExchangeReplies message) {
  absl::MutexLock lock(&mutex_);
  ++messages_;
  if (message.has_limits()) {
    if (messages_ == 1) limits_ = message.limits();
    if (messages_ != 1) ++stray_limits_;
  }
  for (ExchangeReply& reply : *message.mutable_replies()) {
    CHECK_MSG(!partial_.contains(reply.id()), "a reply amid the pieces of another to the same id");
    TakeReply(message, std::move(reply));
  }
  for (ExchangePart& part : *message.mutable_parts()) {
    Pieces& pieces = pieces_[part.id()];
    if (pieces.count++ == 0) pieces.first_message = messages_;
    pieces.last_message = messages_;
    std::string& bytes = partial_[part.id()];
    bytes += part.bytes();
    if (!part.last()) continue;
    ExchangeReply reply;
    CHECK_MSG(reply.ParseFromString(bytes), "the pieces make no reply");
    CHECK(reply.id() == part.id() || reply.id() == 0);
    reply.set_id(part.id());
    partial_.erase(part.id());
    TakeReply(message, std::move(reply));
  }
}

void ExchangeCaller::TakeReply(const ExchangeReplies& message, ExchangeReply reply) {
  const uint64_t id = reply.id();
  DoorAnswer& answer = answers_[id];
  ++answer.times;
  reply.clear_id();
  if (reply.code() == 0) {
    answer.incarnation = message.incarnation();
    if (auto* header = HeaderOf(&reply); header != nullptr) {
      CHECK(header->cluster_id() == 0 && header->member_id() == 0 && header->raft_term() == 0);
      const int64_t revision = header->revision();
      *header = message.header();
      header->set_revision(revision);
    }
  }
  if (drop_values_ && reply.has_range()) {
    for (mvccpb::KeyValue& kv : *reply.mutable_range()->mutable_kvs())
      std::string().swap(*kv.mutable_value());
  }
  answer.reply = std::move(reply);
  message_of_[id] = messages_;
  order_.push_back(id);
}

namespace {

class ExchangeDoor : public Door {
 public:
  explicit ExchangeDoor(const std::shared_ptr<grpc::Channel>& channel) : caller_(channel) {}

  DoorAnswer Call(const ExchangeRequest& request) override { return CallAll({request})[0]; }

  std::vector<DoorAnswer> CallAll(const std::vector<ExchangeRequest>& requests) override {
    ExchangeRequests batch;
    uint64_t first = 0;
    {
      absl::MutexLock lock(&mutex_);
      first = next_;
      for (const ExchangeRequest& request : requests) {
        ExchangeRequest* const sent = batch.add_requests();
        *sent = request;
        sent->set_id(next_++);
      }
      CHECK(caller_.Send(batch));
    }
    std::vector<DoorAnswer> answers;
    for (size_t i = 0; i < requests.size(); ++i) {
      const std::optional<DoorAnswer> answer = caller_.Await(first + i);
      CHECK_MSG(answer.has_value(), "no answer came");
      answers.push_back(*answer);
    }
    return answers;
  }

 private:
  absl::Mutex mutex_;  // one batch after the other
  uint64_t next_ ABSL_GUARDED_BY(mutex_) = 1;
  ExchangeCaller caller_;
};

}  // namespace

std::unique_ptr<Door> OpenExchangeDoor(const std::shared_ptr<grpc::Channel>& channel) {
  return std::make_unique<ExchangeDoor>(channel);
}

}  // namespace holdfast::server::testing
