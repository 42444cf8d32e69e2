// One caller's stream of the batch door (exchange_service.h).
//
// Life of a request: read (OnReadDone) -> refused on its face, or handed on with its batch -> told
// its result (responder, scan or gRPC thread) -> claimed, so that it is answered once, whoever
// comes first: its result, its timeout, the end of the stream -> encoded into the message that is
// sent next.
//
// Threads: all methods from any thread. Lifetime: gRPC holds the stream until OnDone, and every
// request under way holds it too; so results that come after the end find it closed, not gone.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "google/protobuf/arena.h"
#include "holdfast/exchange.pb.h"
#include "server/exchange_codec.h"
#include "server/exchange_service.h"

namespace holdfast::server {

class ExchangeStream;

// The streams there are, and what they share.
class ExchangeHost {
 public:
  ExchangeService::Options options;
  raft::RaftNode* node = nullptr;
  RequestPipeline* pipeline = nullptr;
  KvStateMachine* machine = nullptr;
  const Admission* admission = nullptr;
  KvReads* reads = nullptr;

  struct Counters {
    Counter requests;
    Counter batches;
    Counter replies;
    Counter messages;
    Counter timeouts;
  } counters = {};

  virtual ~ExchangeHost() = default;
  // False: no stream is begun any more.
  virtual bool Add(ExchangeStream* stream) = 0;
  virtual void Remove(ExchangeStream* stream) = 0;
  // There is a request with a timeout now.
  virtual void WakeSweeper() = 0;
};

class ExchangeStream : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                       public std::enable_shared_from_this<ExchangeStream> {
 public:
  // To be returned to gRPC.
  static ExchangeStream* Start(ExchangeHost* host, grpc::CallbackServerContext* context);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // Reads nothing any more; ends with ErrStopped when all that was read is answered.
  void StopReading();
  // Answers what is past its timeout. True: something with a timeout still waits.
  bool SweepTimeouts(const base::ClockSample& now);

 private:
  // A message of the caller's, until its last request is answered.
  struct Batch {
    google::protobuf::Arena arena;
    v1::ExchangeRequests* requests = nullptr;
    base::ClockSample arrival = {};
    size_t bytes = 0;
    int64_t first_timeout_ns = INT64_MAX;  // boot time
    // Under the stream's mutex.
    std::vector<bool> claimed = {};  // by request
    size_t unanswered = 0;

    const v1::ExchangeRequest& request(size_t slot) const {
      return requests->requests(static_cast<int>(slot));
    }
    v1::ExchangeRequest* mutable_request(size_t slot) {
      return requests->mutable_requests(static_cast<int>(slot));
    }
    absl::Duration TimeoutOf(size_t slot) const;
    bool Over(size_t slot, const base::ClockSample& now) const;
  };
  using BatchPtr = std::shared_ptr<Batch>;
  using Slots = std::vector<uint32_t>;
  // A reply that is sent in parts, with the memory it was promised.
  struct Large {
    uint64_t id = 0;
    std::string bytes = {};
    uint64_t incarnation = 0;
    size_t sent = 0;
    std::shared_ptr<AnswerBudget::Reservation> reservation = nullptr;
  };
  // How old an answer is that was read just now; nullopt: unknown.
  using AgeFn = std::function<std::optional<absl::Duration>()>;
  // Gets for whose answers there was no room: at most what was read before the answers were.
  struct Parked {
    BatchPtr batch = nullptr;
    Slots slots = {};
    bool serializable = false;
    bool may_refresh = false;
  };
  // Small replies of one message, and whose they are: header and incarnation stand once for all.
  struct Message {
    std::string bytes = {};
    uint64_t incarnation = 0;
  };

  explicit ExchangeStream(ExchangeHost* host) : host_(host) {}

  void OnBatch(grpc::ByteBuffer bytes);
  void Begin(const BatchPtr& batch);
  // Refusals on a request's face; OK: hand it on.
  absl::Status Check(const v1::ExchangeRequest& request) const;
  absl::Status CheckTerms(const v1::ExchangeRequest& request) const;
  void Propose(const BatchPtr& batch, const Slots& slots);
  void OnResults(const BatchPtr& batch, const Slots& slots,
                 absl::Span<RequestPipeline::SlotResult> results);
  void ReadLinearizable(const BatchPtr& batch, Slots slots);
  void ReadSerializable(const BatchPtr& batch, const Slots& slots, bool may_refresh);
  void Refresh(const BatchPtr& batch, const Slots& slots);
  // Reads the state as it is now, and answers. What is older than its request permits is returned
  // instead of answered (never, if `refuse`: then it is refused); so is no scan, which answers
  // later.
  Slots ReadNow(const BatchPtr& batch, const Slots& slots, const AgeFn& age, bool refuse);
  // As far as there is room for their answers; the rest is parked.
  void ReadGets(const BatchPtr& batch, Slots slots, const AgeFn& age, bool refuse, Slots* too_old);
  // One round of it: takes the slots that it has answered out of `slots`.
  void ReadSomeGets(const BatchPtr& batch, Slots* slots, const AgeFn& age, bool refuse,
                    Slots* too_old);
  static bool TooOld(const v1::ExchangeRequest& request, std::optional<absl::Duration> age);
  void RefuseTooOld(const BatchPtr& batch, const Slots& slots, std::optional<absl::Duration> age);
  // One that is not a plain get. False: too old, and not answered.
  bool ReadOne(const BatchPtr& batch, uint32_t slot, const AgeFn& age, bool refuse,
               std::shared_ptr<AnswerBudget::Reservation> reservation);
  void ReadScan(const BatchPtr& batch, uint32_t slot, const AgeFn& age, bool refuse);
  // Goes on with gets that waited for room.
  void Unpark();
  // Of a linearizable read of the batch.
  AgeFn AgeSinceArrival(const BatchPtr& batch) const;
  ReplyFreshness FreshnessOf(std::optional<absl::Duration> age) const;

  // True: the caller of this answers the request.
  bool Claim(Batch& batch, size_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // After its answer: of `count` claimed requests.
  void Settle(Batch& batch, size_t count) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AnswerError(const BatchPtr& batch, size_t slot, const absl::Status& status);
  // Claims and answers, in parts if it is large.
  void Answer(const BatchPtr& batch, size_t slot, const v1::ExchangeReply& reply,
              std::shared_ptr<AnswerBudget::Reservation> reservation);
  void Queue(const v1::ExchangeReply& reply, uint64_t incarnation,
             std::shared_ptr<AnswerBudget::Reservation> reservation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Where small replies of this incarnation go.
  std::string* Tail(uint64_t incarnation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteQueued(size_t bytes, size_t replies) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Sends, reads and ends, as far as gRPC and the limits permit. After every change.
  void Flush() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return unread_bytes_ < host_->options.max_bytes_unread;
  }

  ExchangeHost* const host_;
  std::shared_ptr<ExchangeStream> self_;  // until OnDone
  grpc::ByteBuffer incoming_;             // of the read that is out

  absl::Mutex mutex_;
  std::vector<BatchPtr> timed_ ABSL_GUARDED_BY(mutex_);  // batches with a timeout in them
  // Scans that are not answered, and those among them that were cancelled.
  absl::flat_hash_set<uint64_t> scans_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<uint64_t> cancelled_ ABSL_GUARDED_BY(mutex_);
  size_t under_way_ ABSL_GUARDED_BY(mutex_) = 0;  // requests not answered
  size_t bytes_under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Message> out_ ABSL_GUARDED_BY(mutex_);  // small replies
  std::deque<Parked> parked_ ABSL_GUARDED_BY(mutex_);
  std::deque<Large> large_ ABSL_GUARDED_BY(mutex_);  // each in its turn
  size_t unread_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // in out_, large_ and the write that is out
  size_t writing_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  grpc::ByteBuffer outgoing_ ABSL_GUARDED_BY(mutex_);  // of the write that is out
  bool greeted_ ABSL_GUARDED_BY(mutex_) = false;       // the limits were told
  // A read is out, or what it brought is not counted yet.
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool read_to_end_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace holdfast::server
