// One thread that waits on sockets (epoll), and on what other threads hand it.
//
// For connections that mostly wait: none costs a thread, and none that is slow holds up another.
// Threads: Post and Stop from any thread; everything else, and every callback, on the loop's own.
// Callbacks must be quick and never block: all connections of the loop wait meanwhile.
// Why its queue can not grow: posts come from calls under way, and whoever starts those (a
// connection, a request) is bounded by its owner.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/functional/any_invocable.h"

namespace holdfast::server {

class EventLoop {
 public:
  using Task = absl::AnyInvocable<void() &&>;
  using Clock = std::chrono::steady_clock;
  // How often `sweep` is called while something is watched: deadlines are this coarse.
  static constexpr std::chrono::milliseconds kSweepInterval{100};

  // `name`: of the thread, at most 15 characters. `sweep` (may be null) looks at deadlines.
  // Null: the system has no descriptors left.
  static std::shared_ptr<EventLoop> Start(const char* name, std::function<void()> sweep);
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // False, and the task is dropped: the loop was stopped.
  bool Post(Task task);
  // Runs what was posted before, then ends the thread. Idempotent. Not from the loop.
  void Stop();

  // `events` are epoll's. The descriptor stays its owner's. One that is forgotten gets no further
  // event, not even one that was already fetched.
  using Handler = std::function<void(uint32_t events)>;
  bool Watch(int fd, uint32_t events, Handler handler);
  void Change(int fd, uint32_t events);
  void Forget(int fd);

  // As of the begin of the present round.
  Clock::time_point now() const { return now_; }
  bool OnLoopThread() const { return std::this_thread::get_id() == thread_.get_id(); }

 private:
  EventLoop(int epoll_fd, int wake_fd, std::function<void()> sweep);
  void Run();
  void RunPosted();

  const int epoll_fd_;
  const int wake_fd_;
  const std::function<void()> sweep_;

  // Loop thread.
  struct Watched {
    uint64_t ticket = 0;  // tells a descriptor's number from its next use
    std::shared_ptr<Handler> handler;
  };
  std::unordered_map<int, Watched> watched_;
  uint64_t next_ticket_ = 1;
  Clock::time_point now_ = Clock::now();
  Clock::time_point last_sweep_ = now_;

  std::mutex mutex_;
  std::vector<Task> posted_;
  bool stopping_ = false;

  std::mutex join_mutex_;
  std::thread thread_;
};

}  // namespace holdfast::server
