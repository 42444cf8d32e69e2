// Who leads an election, now and after every change: what Observe streams.
//
//   look at the oldest key -> tell it -> watch it: tell every new value; deleted -> look again
//   no key                 -> watch the prefix for the first put -> tell it, watch it
//
// A watch that breaks is resumed where it was; one that was compacted away leads to a new look, so
// values in between may be missed, the newest leader never. What is told is asked for one by one: a
// slow taker holds up the inner watch, whose backlog is the Watch service's.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "etcd/election.pb.h"
#include "server/caller_terms.h"
#include "server/inner_watch.h"
#include "server/retry_pause.h"
#include "server/waiting_calls.h"

namespace holdfast::server {

class Observation : public WaitingCall {
 public:
  // One at a time, each valid until it is reported by Told().
  using OnLeader = std::function<void(const v3electionpb::LeaderResponse*)>;
  // Exactly once, last, and never between an OnLeader and its Told().
  using OnEnd = std::function<void(const absl::Status&)>;

  // Stop() is how the caller cancels.
  static std::shared_ptr<Observation> Start(const std::shared_ptr<WaitingCalls>& calls,
                                            CallerTerms terms, const std::string& name,
                                            OnLeader on_leader, OnEnd on_end);
  // The leader told last has been taken, or (false) nobody takes any more. Any thread.
  void Told(bool ok);

  // For make_shared.
  Observation(std::shared_ptr<WaitingCalls> calls, CallerTerms terms, const std::string& name,
              OnLeader on_leader, OnEnd on_end);

 private:
  // What the strand does when all is told.
  enum class Then { kLook, kWatch, kReadOn };

  void OnStop(const absl::Status& why) override;
  void Look();
  void OnLook(const absl::Status& status, const etcdserverpb::RangeResponse& answer);
  void Watch();
  void OnWatch(const etcdserverpb::WatchResponse& response);
  void TakeEvents(const etcdserverpb::WatchResponse& response);
  void CloseWatch();
  void Add(const etcdserverpb::ResponseHeader& header, const mvccpb::KeyValue& kv);
  void Proceed();
  void Retry(const absl::Status& status);
  void End(const absl::Status& status);

  const CallerTerms terms_;
  const std::string prefix_;
  OnLeader on_leader_;
  OnEnd on_end_;

  std::string leader_key_;  // empty: nobody leads
  int64_t from_ = 0;        // the watch goes on here
  std::string told_key_;    // the last leader in to_tell_, or told
  int64_t told_mod_revision_ = 0;
  Then then_ = Then::kLook;
  // The leaders of one look or of one watch response.
  std::deque<v3electionpb::LeaderResponse> to_tell_;
  bool telling_ = false;
  bool pausing_ = false;  // before another try
  bool ended_ = false;
  std::optional<absl::Status> end_;  // waits for Told()

  InnerClient::Call look_;
  std::shared_ptr<InnerWatch> watch_;
  uint64_t watch_number_ = 0;  // callbacks of earlier ones are ignored
  RetryPause::Clock::time_point watching_since_;
  RetryPause pause_;
  Timer retry_;
};

}  // namespace holdfast::server
