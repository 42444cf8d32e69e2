// Many watchers on streams, and whether each got what it should: no event missing, doubled or out
// of order.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/histogram.h"
#include "bench/put_load.h"
#include "bench/raw_calls.h"

namespace holdfast::bench {

struct WatcherPlan {
  uint64_t watchers = 1;
  size_t streams = 1;
  size_t threads = 1;
  // The key and range end of watcher w. Watcher w is on stream w / (watchers / streams).
  std::function<std::pair<std::string, std::string>(uint64_t w)> range;
  // Whether put n's event is for watcher w.
  std::function<bool(uint64_t w, uint64_t n)> is_for;
  uint64_t puts_max = 0;  // stamps have lower sequences
};

// Threads: one, the functions of StreamReader aside.
class Watchers : public StreamReader {
 public:
  // Returns when the server has confirmed all of them. `channels` must live longer. Unavailable: a
  // stream ended or a watcher was refused; DeadlineExceeded: not all within a minute.
  static absl::StatusOr<std::unique_ptr<Watchers>> Open(const RawChannels& channels,
                                                        const WatcherPlan& plan,
                                                        const std::atomic<bool>& cancelled);
  ~Watchers() override;

  // Latencies are noted of the events whose put was due in [from, to).
  void SetWindow(int64_t from_ns, int64_t to_ns);
  // Of all watchers, up to now.
  uint64_t events() const;

  // Ends them. `puts` are those that were made meanwhile, each of which goes to `fan_out` watchers.
  struct Result {
    LatencyHistogram latency;  // from the moment at which the put was due
    uint64_t events = 0;       // deliveries
    uint64_t responses = 0;    // messages that held them
    uint64_t missed = 0;       // of puts that were answered
    uint64_t doubled = 0;
    uint64_t out_of_order = 0;        // a revision not above the one before, in one watcher
    uint64_t strangers = 0;           // of no put of this load, or not for this watcher
    std::vector<std::string> errors;  // cancelled watchers, ended streams
  };
  Result Close(const std::deque<PutLoad::Put>& puts, uint64_t fan_out);

 private:
  struct StreamState;
  struct ThreadState;
  explicit Watchers(const WatcherPlan& plan);
  void OnMessage(size_t stream, std::string_view message, int64_t now_ns) override;
  void OnEnd(size_t stream, const grpc::Status& status) override;
  void TakeEvents(StreamState& stream, uint64_t local, std::string_view events, int64_t now_ns);
  void AddError(const std::string& text);

  const WatcherPlan plan_;
  const uint64_t per_stream_;
  std::vector<std::unique_ptr<StreamState>> streams_by_index_;
  std::vector<std::unique_ptr<ThreadState>> threads_;
  std::atomic<uint64_t> created_{0};
  std::atomic<int64_t> from_ns_{0};
  std::atomic<int64_t> to_ns_{0};
  mutable std::mutex mutex_;
  std::vector<std::string> errors_;  // guarded by mutex_
  uint64_t errors_more_ = 0;         // guarded by mutex_
  std::unique_ptr<RawStreams> streams_;
};

}  // namespace holdfast::bench
