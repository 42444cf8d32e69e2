#include "server/lease_stream.h"

#include <deque>
#include <optional>
#include <utility>

#include "server/etcd_errors.h"
#include "server/lease_service.h"

namespace holdfast::server {

using etcdserverpb::LeaseKeepAliveRequest;
using etcdserverpb::LeaseKeepAliveResponse;
using Reactor = grpc::ServerBidiReactor<LeaseKeepAliveRequest, LeaseKeepAliveResponse>;

// Invariant of the gRPC side: at most one read and one write are out; Finish is called once, with
// no write out, and nothing is started after it.
class LeaseStream : public Reactor {
 public:
  LeaseStream(const MemberView& member, LeaseRouter* router, LeaseStreams* streams,
              bool wants_leader)
      : member_(member), router_(router), streams_(streams), wants_leader_(wants_leader) {
    handle_->stream = this;
    if (!streams_->Add(this)) {
      End(ErrStopped());
      return;
    }
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override { End(absl::CancelledError("the client has gone")); }
  void OnDone() override {
    streams_->Remove(this);
    {
      absl::MutexLock lock(&handle_->mutex);
      handle_->stream = nullptr;
    }
    delete this;
  }

  // Answers no more, and ends the stream as soon as gRPC permits.
  void End(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    if (!end_.has_value()) end_ = status;
    // What is not answered will not be: the end says so.
    waiting_.clear();
    Flush();
  }
  bool wants_leader() const { return wants_leader_; }

 private:
  // Through which the router finds the stream, as long as there is one.
  struct Handle {
    absl::Mutex mutex;
    LeaseStream* stream ABSL_GUARDED_BY(mutex) = nullptr;
  };
  struct Slot {
    uint64_t number = 0;
    std::optional<absl::StatusOr<LeaseTime>> result = std::nullopt;
    LeaseKeepAliveResponse response = {};
  };

  void OnRenewed(uint64_t number, absl::StatusOr<LeaseTime> result);
  // Writes what is next in order; reads on if there is room; finishes.
  void Flush() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Renew(int64_t id, uint64_t number);

  const MemberView member_;
  LeaseRouter* const router_;
  LeaseStreams* const streams_;
  const bool wants_leader_;
  const std::shared_ptr<Handle> handle_ = std::make_shared<Handle>();
  LeaseKeepAliveRequest request_;  // of the read that is out

  absl::Mutex mutex_ ABSL_ACQUIRED_AFTER(handle_->mutex);
  // Requests in their order: slot i has the number front().number + i.
  std::deque<Slot> waiting_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  LeaseKeepAliveResponse writing_ ABSL_GUARDED_BY(mutex_);
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool write_out_ ABSL_GUARDED_BY(mutex_) = false;
  bool read_to_end_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

void LeaseStream::OnReadDone(bool ok) {
  uint64_t number = 0;
  int64_t id = 0;
  {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
    if (!ok) {
      read_to_end_ = true;
      return Flush();
    }
    if (end_.has_value()) return;
    number = ++last_number_;
    id = request_.id();
    Slot slot{.number = number};
    // Of before the renewal, as etcd's.
    FillClusterHeader(member_, member_.node->status().term, slot.response.mutable_header());
    slot.response.mutable_header()->set_revision(member_.machine->applied_state().revision);
    slot.response.set_id(id);
    waiting_.push_back(std::move(slot));
  }
  Renew(id, number);
  absl::MutexLock lock(&mutex_);
  Flush();
}

void LeaseStream::Renew(int64_t id, uint64_t number) {
  router_->Renew(id, [handle = handle_, number](absl::StatusOr<LeaseTime> result) {
    absl::MutexLock lock(&handle->mutex);
    if (handle->stream != nullptr) handle->stream->OnRenewed(number, std::move(result));
  });
}

void LeaseStream::OnRenewed(uint64_t number, absl::StatusOr<LeaseTime> result) {
  absl::MutexLock lock(&mutex_);
  if (waiting_.empty() || number < waiting_.front().number) return;  // the stream ends
  waiting_[number - waiting_.front().number].result = std::move(result);
  Flush();
}

void LeaseStream::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  write_out_ = false;
  if (!ok && !end_.has_value()) end_ = absl::CancelledError("the client has gone");
  Flush();
}

void LeaseStream::Flush() {
  if (finished_ || write_out_) return;
  if (!end_.has_value() && !waiting_.empty() && waiting_.front().result.has_value()) {
    Slot slot = std::move(waiting_.front());
    waiting_.pop_front();
    if (slot.result->ok()) {
      slot.response.set_ttl((*slot.result)->found() ? (*slot.result)->granted_s : 0);
      writing_.Swap(&slot.response);
      write_out_ = true;
      StartWrite(&writing_);
    } else {
      end_ = slot.result->status();
      waiting_.clear();
    }
  }
  // The client has said all, and got its answers.
  if (!end_.has_value() && read_to_end_ && waiting_.empty() && !write_out_) end_ = absl::OkStatus();
  if (end_.has_value()) {
    if (write_out_) return;
    finished_ = true;
    return Finish(ToGrpc(*end_));
  }
  if (!reading_ && !read_to_end_ && waiting_.size() < LeaseService::kPipelinedMax) {
    reading_ = true;
    StartRead(&request_);
  }
}

bool LeaseStreams::Add(LeaseStream* stream) {
  absl::MutexLock lock(&mutex_);
  if (closed_) return false;
  streams_.insert(stream);
  return true;
}

void LeaseStreams::Remove(LeaseStream* stream) {
  absl::MutexLock lock(&mutex_);
  streams_.erase(stream);
}

void LeaseStreams::EndAll(const absl::Status& status, bool only_leader_wanting) {
  absl::MutexLock lock(&mutex_);
  for (LeaseStream* stream : streams_) {
    if (!only_leader_wanting || stream->wants_leader()) stream->End(status);
  }
}

void LeaseStreams::Close(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  for (LeaseStream* stream : streams_) stream->End(status);
}

namespace {

class RefusedStream : public Reactor {
 public:
  explicit RefusedStream(const absl::Status& status) { Finish(ToGrpc(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

Reactor* NewLeaseStream(const MemberView& member, LeaseRouter* router, LeaseStreams* streams,
                        bool wants_leader) {
  return new LeaseStream(member, router, streams, wants_leader);
}

Reactor* NewRefusedLeaseStream(const absl::Status& status) { return new RefusedStream(status); }

}  // namespace holdfast::server
