#include "server/event_loop.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/check.h"

namespace holdfast::server {
namespace {

constexpr int kEventsPerRound = 128;
// The wake-up descriptor's ticket.
constexpr uint64_t kWakeTicket = 0;

// A ticket has 32 bits in the event beside the descriptor; it wraps after four billion
// connections, by when the old use of the number is long forgotten.
uint64_t Pack(int fd, uint64_t ticket) {
  return (ticket & 0xffffffff) << 32 | static_cast<uint32_t>(fd);
}

}  // namespace

std::shared_ptr<EventLoop> EventLoop::Start(const char* name, std::function<void()> sweep) {
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd < 0) return nullptr;
  const int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd < 0) {
    close(epoll_fd);
    return nullptr;
  }
  std::shared_ptr<EventLoop> loop(new EventLoop(epoll_fd, wake_fd, std::move(sweep)));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = Pack(wake_fd, kWakeTicket);
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, wake_fd, &event) != 0) return nullptr;
  {
    // So that OnLoopThread sees the thread from its first instant.
    std::lock_guard lock(loop->mutex_);
    loop->thread_ = std::thread([raw = loop.get()] {
      { std::lock_guard started(raw->mutex_); }
      raw->Run();
    });
  }
  pthread_setname_np(loop->thread_.native_handle(), name);
  return loop;
}

EventLoop::EventLoop(int epoll_fd, int wake_fd, std::function<void()> sweep)
    : epoll_fd_(epoll_fd), wake_fd_(wake_fd), sweep_(std::move(sweep)) {}

EventLoop::~EventLoop() {
  Stop();
  close(wake_fd_);
  close(epoll_fd_);
}

bool EventLoop::Post(Task task) {
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return false;
    wake = posted_.empty();
    posted_.push_back(std::move(task));
  }
  if (wake) {
    const uint64_t one = 1;
    CHECK(write(wake_fd_, &one, sizeof(one)) == sizeof(one));
  }
  return true;
}

void EventLoop::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  const uint64_t one = 1;
  CHECK(write(wake_fd_, &one, sizeof(one)) == sizeof(one));
  std::lock_guard lock(join_mutex_);
  if (!thread_.joinable()) return;
  CHECK(!OnLoopThread());
  thread_.join();
}

bool EventLoop::Watch(int fd, uint32_t events, Handler handler) {
  const uint64_t ticket = next_ticket_++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = Pack(fd, ticket);
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) return false;
  watched_[fd] = {ticket & 0xffffffff, std::make_shared<Handler>(std::move(handler))};
  return true;
}

void EventLoop::Change(int fd, uint32_t events) {
  const auto it = watched_.find(fd);
  CHECK(it != watched_.end());
  epoll_event event{};
  event.events = events;
  event.data.u64 = Pack(fd, it->second.ticket);
  CHECK(epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event) == 0);
}

void EventLoop::Forget(int fd) {
  if (watched_.erase(fd) == 0) return;
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
}

void EventLoop::RunPosted() {
  std::vector<Task> tasks;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(posted_);
  }
  for (Task& task : tasks) std::move(task)();
}

void EventLoop::Run() {
  std::array<epoll_event, kEventsPerRound> events;
  while (true) {
    const int timeout =
        watched_.empty() || sweep_ == nullptr ? -1 : static_cast<int>(kSweepInterval.count());
    const int count = epoll_wait(epoll_fd_, events.data(), kEventsPerRound, timeout);
    CHECK(count >= 0 || errno == EINTR);
    now_ = Clock::now();
    for (int i = 0; i < count; ++i) {
      const int fd = static_cast<int>(events[i].data.u64 & 0xffffffff);
      if (fd == wake_fd_) {
        uint64_t ignored = 0;
        [[maybe_unused]] const ssize_t n = read(wake_fd_, &ignored, sizeof(ignored));
        continue;
      }
      const auto it = watched_.find(fd);
      if (it == watched_.end() || it->second.ticket != events[i].data.u64 >> 32) continue;
      // A copy: the handler may forget its own descriptor.
      const std::shared_ptr<Handler> handler = it->second.handler;
      (*handler)(events[i].events);
    }
    RunPosted();
    if (sweep_ != nullptr && now_ - last_sweep_ >= kSweepInterval) {
      last_sweep_ = now_;
      sweep_();
    }
    std::lock_guard lock(mutex_);
    if (stopping_ && posted_.empty()) return;
  }
}

}  // namespace holdfast::server
