#include "replication/workers.h"

#include <sys/prctl.h>

#include <utility>

#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "replication/raft_node.h"

namespace holdfast::raft {
namespace {

void NameThread(const char* name) { prctl(PR_SET_NAME, name); }

}  // namespace

// ---------------------------------------------------------------- log

LogWorker::LogWorker(storage::LogStore* log, Durable durable, Fatal fatal)
    : log_(log), durable_(std::move(durable)), fatal_(std::move(fatal)) {}

LogWorker::~LogWorker() { Stop(); }

void LogWorker::Append(AppendBatch batch) { queue_.Push(std::move(batch)); }
void LogWorker::Compact(storage::LogMark mark) { queue_.Push(std::move(mark)); }

void LogWorker::Stop() {
  queue_.Close();
  if (thread_.joinable()) thread_.join();
}

void LogWorker::Start() {
  thread_ = std::thread([this] { Run(); });
}

void LogWorker::Run() {
  NameThread("hf-log");
  for (auto items = queue_.DrainAll(); !items.empty(); items = queue_.DrainAll()) {
    CarryOut(std::move(items));
  }
}

bool LogWorker::RunOnce() {
  auto items = queue_.TakeNow();
  if (items.empty()) return false;
  CarryOut(std::move(items));
  return true;
}

void LogWorker::CarryOut(std::vector<Item> items) {
  std::vector<AppendBatch> group;
  for (Item& item : items) {
    if (auto* batch = std::get_if<AppendBatch>(&item)) {
      group.push_back(std::move(*batch));
      continue;
    }
    WriteAll(std::exchange(group, {}));
    if (failed_) return;
    const absl::Status compacted = log_->Compact(std::get<storage::LogMark>(item));
    if (!compacted.ok()) {
      failed_ = true;
      fatal_(compacted);
    }
  }
  WriteAll(std::move(group));
}

void LogWorker::WriteAll(std::vector<AppendBatch> group) {
  if (group.empty() || failed_) return;
  std::vector<storage::LogBatch> batches;
  std::vector<Message> after_durable;
  for (AppendBatch& batch : group) {
    if (batch.log.reset || batch.log.hard_state || !batch.log.entries.empty()) {
      batches.push_back(std::move(batch.log));
    }
    std::move(batch.after_durable.begin(), batch.after_durable.end(),
              std::back_inserter(after_durable));
  }
  if (!batches.empty()) {
    const absl::Status written = log_->Append(batches);
    // Nothing is acknowledged after a failed write or fsync, now or ever.
    if (!written.ok()) {
      failed_ = true;
      return fatal_(written);
    }
  }
  durable_(group.back().seq, std::move(after_durable));
}

// ---------------------------------------------------------------- apply

ApplyWorker::ApplyWorker(StateMachine* machine, Applied applied, Fatal fatal)
    : machine_(machine), applied_(std::move(applied)), fatal_(std::move(fatal)) {}

ApplyWorker::~ApplyWorker() { Stop(); }

void ApplyWorker::Apply(std::vector<EntryRef> entries) { queue_.Push(std::move(entries)); }

absl::Status ApplyWorker::InstallAndWait(const std::string& dir, const storage::LogMark& mark) {
  absl::Status result;
  absl::Notification done;
  queue_.Push(Task([&] {
    result = machine_->InstallCheckpoint(dir, mark);
    done.Notify();
  }));
  if (!thread_.joinable()) RunOnce();
  done.WaitForNotification();
  return result;
}

void ApplyWorker::Stop() {
  queue_.Close();
  if (thread_.joinable()) thread_.join();
}

void ApplyWorker::Start() {
  thread_ = std::thread([this] { Run(); });
}

void ApplyWorker::Run() {
  NameThread("hf-apply");
  for (auto items = queue_.DrainAll(); !items.empty(); items = queue_.DrainAll()) {
    CarryOut(std::move(items));
  }
}

bool ApplyWorker::RunOnce() {
  auto items = queue_.TakeNow();
  if (items.empty()) return false;
  CarryOut(std::move(items));
  return true;
}

void ApplyWorker::CarryOut(std::vector<Item> items) {
  std::vector<EntryRef> entries;
  for (Item& item : items) {
    if (auto* more = std::get_if<std::vector<EntryRef>>(&item)) {
      std::move(more->begin(), more->end(), std::back_inserter(entries));
      continue;
    }
    ApplyAll(std::exchange(entries, {}));
    std::get<Task>(item)();
  }
  ApplyAll(std::move(entries));
}

void ApplyWorker::ApplyAll(std::vector<EntryRef> entries) {
  if (entries.empty() || failed_) return;
  const absl::Status applied = machine_->Apply(entries);
  if (applied.ok()) return applied_(entries.back()->index);
  failed_ = true;
  fatal_(applied);
}

// ---------------------------------------------------------------- tasks

TaskWorker::TaskWorker(size_t max_tasks) : queue_(max_tasks) {}

void TaskWorker::Start() {
  thread_ = std::thread([this] { Loop(); });
}

TaskWorker::~TaskWorker() { Stop(); }

bool TaskWorker::Run(Task task) { return queue_.TryPush(std::move(task), 1); }

bool TaskWorker::RunOnce() {
  auto tasks = queue_.TakeNow();
  for (Task& task : tasks) task();
  return !tasks.empty();
}

void TaskWorker::Stop() {
  stopping_ = true;
  queue_.Close();
  if (thread_.joinable()) thread_.join();
}

void TaskWorker::Loop() {
  NameThread("hf-task");
  for (auto tasks = queue_.DrainAll(); !tasks.empty(); tasks = queue_.DrainAll()) {
    for (Task& task : tasks) {
      if (stopping_) return;
      task();
    }
  }
}

}  // namespace holdfast::raft
