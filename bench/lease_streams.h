// The stream clients of the lease bench: keep-alives, and a watch for keys that vanish.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/histogram.h"
#include "bench/keys.h"
#include "bench/raw_calls.h"

namespace holdfast::bench {

struct KeepAlivePlan {
  std::vector<int64_t> leases;
  size_t streams = 1;
  size_t threads = 1;
  uint32_t in_flight = 1;  // of each stream; its answers come in the order of its requests
};

// Renews leases in turn, as fast as the answers come. Threads: one, StreamReader's aside.
class KeepAlives : public StreamReader {
 public:
  // Returns with them running. `channels` must live longer. REQUIRES: leases for every stream.
  static std::unique_ptr<KeepAlives> Start(const RawChannels& channels, KeepAlivePlan plan);
  ~KeepAlives() override;

  // Answers up to now.
  uint64_t answers() const { return answers_; }
  struct Result {
    LatencyHistogram latency;
    uint64_t lost = 0;  // answered with TTL 0: the server does not know the lease
    std::vector<std::string> errors;
  };
  Result Stop();

 private:
  struct StreamState;
  explicit KeepAlives(KeepAlivePlan plan);
  void Renew(StreamState& stream, size_t index);
  void OnMessage(size_t index, std::string_view message, int64_t now_ns) override;
  void OnEnd(size_t index, const grpc::Status& status) override;

  const KeepAlivePlan plan_;
  std::atomic<uint64_t> answers_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  // Guarded by mutex_.
  std::vector<std::string> errors_;
  std::vector<std::unique_ptr<StreamState>> states_;
  std::unique_ptr<RawStreams> streams_;
};

// Notes when each of the keys [first, first + count) is deleted. Threads: one, StreamReader's
// aside.
class VanishWatch : public StreamReader {
 public:
  // Returns when the watch is confirmed. `shape` and `channels` must live longer.
  static absl::StatusOr<std::unique_ptr<VanishWatch>> Open(const RawChannels& channels,
                                                           const DataShape& shape, uint64_t first,
                                                           uint64_t count);
  uint64_t vanished() const { return vanished_; }
  // By number from `first`; 0: it is still there. Ends the watch.
  std::vector<int64_t> Close();
  // "" while the watch is well.
  std::string Error() const;

 private:
  VanishWatch(uint64_t first, uint64_t count) : first_(first), at_ns_(count) {}
  void OnMessage(size_t index, std::string_view message, int64_t now_ns) override;
  void OnEnd(size_t index, const grpc::Status& status) override;
  void SetError(const std::string& text);

  const uint64_t first_;
  std::vector<int64_t> at_ns_;  // of the stream's thread until Close()
  std::atomic<uint64_t> vanished_{0};
  std::atomic<bool> created_{false};
  mutable std::mutex mutex_;
  std::string error_;  // guarded by mutex_
  std::unique_ptr<RawStreams> streams_;
};

// The decimal number at the end of a key of DataShape; nothing if there is none.
std::optional<uint64_t> NumberOfKey(std::string_view key);

}  // namespace holdfast::bench
