// The driver's helpers beside the raft thread: the log thread, the apply thread, and a plain task
// thread. Each owns a queue that it drains whole (natural batching), and a thread from Start() on.
// Without Start() there is no thread, and whoever holds the worker calls RunOnce()
// (stepped_node.h).
//
// Why their queues cannot grow: the core hands out appends only for what it holds (bounded by
// max_uncommitted_bytes and the peers' windows) and applies up to max_apply_bytes.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "base/bounded_queue.h"
#include "replication/raft_core.h"

namespace holdfast::raft {

class StateMachine;

// One write and one fdatasync for everything queued; then tells `durable` (log thread).
class LogWorker {
 public:
  using Durable = std::function<void(uint64_t seq, std::vector<Message> after_durable)>;
  using Fatal = std::function<void(const absl::Status&)>;
  LogWorker(storage::LogStore* log, Durable durable, Fatal fatal);
  ~LogWorker();

  void Append(AppendBatch batch);
  void Compact(storage::LogMark mark);
  void Start();
  // Carries out everything queued; false if there was nothing.
  bool RunOnce();
  bool has_work() const { return !queue_.empty(); }
  // Finishes what is queued, then ends the thread. Idempotent.
  void Stop();

 private:
  using Item = std::variant<AppendBatch, storage::LogMark>;
  void Run();
  void CarryOut(std::vector<Item> items);
  void WriteAll(std::vector<AppendBatch> group);

  bool failed_ = false;  // after a failed write nothing is acknowledged, whatever fatal_ does
  storage::LogStore* const log_;
  const Durable durable_;
  const Fatal fatal_;
  base::BoundedQueue<Item> queue_{SIZE_MAX};
  std::thread thread_;
};

// One StateMachine::Apply for everything queued; then tells `applied` (apply thread).
class ApplyWorker {
 public:
  using Applied = std::function<void(Index)>;
  using Fatal = std::function<void(const absl::Status&)>;
  ApplyWorker(StateMachine* machine, Applied applied, Fatal fatal);
  ~ApplyWorker();

  void Apply(std::vector<EntryRef> entries);
  // Waits until everything queued before is applied and the snapshot is installed (without a
  // thread: does it). The raft thread stands still meanwhile, which is the point: nothing may
  // overtake this step (contract C7).
  absl::Status InstallAndWait(const std::string& dir, const storage::LogMark& mark);
  void Start();
  bool RunOnce();
  bool has_work() const { return !queue_.empty(); }
  void Stop();

 private:
  using Task = absl::AnyInvocable<void()>;
  using Item = std::variant<std::vector<EntryRef>, Task>;
  void Run();
  void CarryOut(std::vector<Item> items);
  void ApplyAll(std::vector<EntryRef> entries);

  bool failed_ = false;  // after a failed apply nothing is applied any more, whatever fatal_ does
  StateMachine* const machine_;
  const Applied applied_;
  const Fatal fatal_;
  base::BoundedQueue<Item> queue_{SIZE_MAX};
  std::thread thread_;
};

// Runs tasks one after another: disk reads for slow members, flushes, checkpoints.
class TaskWorker {
 public:
  using Task = absl::AnyInvocable<void()>;
  explicit TaskWorker(size_t max_tasks);
  ~TaskWorker();
  // False if it is full or stopped.
  [[nodiscard]] bool Run(Task task);
  void Start();
  bool RunOnce();
  bool has_work() const { return !queue_.empty(); }
  // Ends after the task that runs now; the rest is dropped.
  void Stop();

 private:
  void Loop();
  base::BoundedQueue<Task> queue_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace holdfast::raft
