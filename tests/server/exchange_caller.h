// One Exchange stream as a test drives it: sends what it is told to, valid or not, and keeps
// everything that came back. It shares no code with libholdfast's.
//
// Threads: Send, CloseWrites and Cancel from one thread at a time, the rest from any. A reader of
// its own takes messages as long as it may (PauseReading). CHECKs that each id's pieces make a
// whole reply; whether an id is answered twice is for the test to see (Answer::times).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "door.h"
#include "holdfast/exchange.grpc.pb.h"

namespace holdfast::server::testing {

class ExchangeCaller {
 public:
  // How long a test waits for what must come.
  static constexpr absl::Duration kPatience = absl::Seconds(30);

  explicit ExchangeCaller(const std::shared_ptr<grpc::Channel>& channel);
  // Cancels, unless it has ended.
  ~ExchangeCaller();

  // False: the stream has ended. Blocks while the server holds the caller back.
  bool Send(const v1::ExchangeRequests& batch);
  bool Send(v1::ExchangeRequest request);  // alone in its batch
  void CloseWrites();
  void Cancel();

  void PauseReading();
  void GoOnReading();
  // From now on, values of ranges are not kept: an answer says of each record only that it is
  // there.
  void DropValues();

  // The answer of this id, once it is there; nullopt: the stream ended without, or patience did.
  std::optional<DoorAnswer> Await(uint64_t id);
  std::optional<DoorAnswer> Find(uint64_t id) const;
  // False: not so many ids answered in time.
  bool AwaitAnswers(size_t count);
  size_t answers() const;
  // By when they became whole.
  std::vector<uint64_t> order() const;
  // How many pieces of this id came, and how many messages were of others between its first and its
  // last piece.
  struct Pieces {
    int count = 0;
    int first_message = -1;
    int last_message = -1;
  };
  Pieces pieces(uint64_t id) const;
  // In which message the answer was whole.
  int message_of(uint64_t id) const;

  // Of the first message; nullopt: it did not come in time.
  std::optional<v1::ExchangeLimits> AwaitLimits();
  // Limits that were told where they must not be.
  int stray_limits() const;
  // The status of the stream, once it has ended; nullopt: it goes on.
  std::optional<grpc::Status> AwaitEnd(absl::Duration patience = kPatience);
  bool ended() const;

 private:
  void ReadLoop();
  void Take(v1::ExchangeReplies message);
  void TakeReply(const v1::ExchangeReplies& message, v1::ExchangeReply reply)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayRead() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !paused_ || stopping_; }

  grpc::ClientContext context_;
  const std::unique_ptr<v1::Exchange::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ExchangeRequests, v1::ExchangeReplies>> stream_;
  mutable absl::Mutex mutex_;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool drop_values_ ABSL_GUARDED_BY(mutex_) = false;
  int messages_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, DoorAnswer> answers_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, int> message_of_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::string> partial_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, Pieces> pieces_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> order_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::ExchangeLimits> limits_ ABSL_GUARDED_BY(mutex_);
  int stray_limits_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);
  std::thread reader_;  // last: it uses everything above
};

}  // namespace holdfast::server::testing
