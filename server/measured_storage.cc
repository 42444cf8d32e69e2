#include "server/measured_storage.h"

#include <chrono>
#include <utility>

#include "absl/time/time.h"

namespace holdfast::server {
namespace {

class Timer {
 public:
  explicit Timer(DurationHistogram* histogram) : histogram_(histogram) {}
  ~Timer() { histogram_->Observe(absl::FromChrono(std::chrono::steady_clock::now() - begin_)); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  DurationHistogram* const histogram_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

class Log : public storage::LogStore {
 public:
  Log(storage::LogStore* log, StorageMetrics* metrics) : log_(log), metrics_(metrics) {}

  const storage::RecoveredLog& recovered() const override { return log_->recovered(); }
  absl::Status Append(absl::Span<const storage::LogBatch> batches) override {
    for (const storage::LogBatch& batch : batches) {
      if (!batch.must_sync) continue;
      const Timer timer(&metrics_->log_append);
      return log_->Append(batches);
    }
    return log_->Append(batches);
  }
  absl::Status Compact(const storage::LogMark& mark) override { return log_->Compact(mark); }
  absl::StatusOr<std::vector<storage::EntryRef>> Read(Index first, Index last,
                                                      size_t max_bytes) const override {
    return log_->Read(first, last, max_bytes);
  }
  uint64_t disk_bytes() const override { return log_->disk_bytes(); }

 private:
  storage::LogStore* const log_;
  StorageMetrics* const metrics_;
};

class Machine : public raft::StateMachine {
 public:
  Machine(raft::StateMachine* machine, StorageMetrics* metrics)
      : machine_(machine), metrics_(metrics) {}

  absl::Status Apply(absl::Span<const raft::EntryRef> entries) override {
    const Timer timer(&metrics_->apply);
    return machine_->Apply(entries);
  }
  Index applied() const override { return machine_->applied(); }
  absl::StatusOr<Index> Flush() override {
    metrics_->flushes.Add();
    return machine_->Flush();
  }
  absl::StatusOr<Checkpoint> TakeCheckpoint() override { return machine_->TakeCheckpoint(); }
  absl::Status InstallCheckpoint(const std::string& dir, const storage::LogMark& mark) override {
    return machine_->InstallCheckpoint(dir, mark);
  }
  std::optional<storage::LogMark> installed_mark() const override {
    return machine_->installed_mark();
  }

 private:
  raft::StateMachine* const machine_;
  StorageMetrics* const metrics_;
};

}  // namespace

std::unique_ptr<storage::LogStore> MeasuredLog(storage::LogStore* log, StorageMetrics* metrics) {
  return std::make_unique<Log>(log, metrics);
}

std::unique_ptr<raft::StateMachine> MeasuredMachine(raft::StateMachine* machine,
                                                    StorageMetrics* metrics) {
  return std::make_unique<Machine>(machine, metrics);
}

}  // namespace holdfast::server
