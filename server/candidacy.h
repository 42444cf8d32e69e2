// One candidate for a name: what Campaign and Lock have in common.
//
//   lease 0: grant one -> put "<name>/<lease hex>" if it is not there -> oldest? won
//                                                                     -> else wait (QueueWait)
// The answer is success only if one atomic read saw the key, as it was created, as the oldest.
//
// Whoever is answered with an error must not stand in others' way: the lease that was granted here
// is revoked, the key below a lease of the caller's is deleted if it is still the one of this
// candidacy. Both are tried again for a while, without the caller. What cannot be tidied up (a put
// whose outcome is unknown, no leader for long) lasts as long as its lease.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "etcd/rpc.pb.h"
#include "server/caller_terms.h"
#include "server/queue_wait.h"
#include "server/retry_pause.h"
#include "server/waiting_calls.h"

namespace holdfast::server {

class Candidacy : public WaitingCall {
 public:
  // etcd's session: what a candidate without a lease gets.
  static constexpr int64_t kSessionTtlSeconds = 60;
  static constexpr std::chrono::milliseconds kKeepAliveEvery{20'000};
  static constexpr std::chrono::milliseconds kKeepAliveRetry{2'000};

  struct Options {
    CallerTerms terms;
    std::string name;
    int64_t lease = 0;  // 0: a session of its own, kept alive as long as the candidate waits
    std::string value;
    // The key may be there already, with another value: then put this one.
    bool announces = false;
    absl::Status expired;  // the answer if the key went while waiting
  };
  struct Won {
    std::string key;
    int64_t revision = 0;  // the key's create revision: grows from holder to holder
    int64_t lease = 0;
    etcdserverpb::ResponseHeader entered;  // of the transaction that put, or found, the key
    etcdserverpb::ResponseHeader header;   // of the read that saw it as the oldest
  };
  // Exactly once, on any thread, perhaps inside Start. Calls into gRPC are allowed.
  using OnEnd = std::function<void(const absl::Status&, const Won&)>;

  // Stop() is how the caller cancels: he is answered at once.
  static std::shared_ptr<Candidacy> Start(const std::shared_ptr<WaitingCalls>& calls,
                                          Options options, OnEnd on_end);
  // The answer of success did not reach the caller. Any thread.
  void Abandon();

  // For make_shared.
  Candidacy(std::shared_ptr<WaitingCalls> calls, Options options, OnEnd on_end);

 private:
  void OnStop(const absl::Status& why) override;
  void Grant();
  void KeepAliveAfter(std::chrono::milliseconds pause);
  void Enter();
  void OnEntered(const absl::Status& status, const etcdserverpb::TxnResponse& answer);
  void Announce();
  void OnAnnounced(const absl::Status& status, bool succeeded);
  void Wait();
  void Answer(const absl::Status& status);
  void TidyUp();
  void OnTidied(const absl::Status& status);
  template <class Response>
  InnerClient::Done<Response> OnStrand(
      std::function<void(const absl::Status&, const Response&)> step);

  const Options options_;
  const std::string prefix_;
  OnEnd on_end_;
  Won won_;
  bool own_lease_ = false;  // granted here
  bool created_ = false;    // the key, by this call
  bool waited_ = false;
  bool is_oldest_ = false;
  bool gone_ = false;
  bool calling_ = false;  // a call is under way whose end decides what there is to tidy up
  bool answered_ = false;
  bool stopped_ = false;  // tidy up once, without another try
  std::optional<QueueWait> wait_;
  Timer keep_alive_;
  RetryPause pause_;
  Timer retry_;
};

}  // namespace holdfast::server
