// Random histories on a disk that crashes and fails, against the model.
//
// HOLDFAST_LOG_SEED=n replays one seed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "storage/segmented_log.h"
#include "tests/storage_log/fault_file_system.h"
#include "tests/storage_log/log_model.h"

namespace holdfast::storage {
namespace {

constexpr uint64_t kSeeds = 4000;
constexpr int kLives = 5;

// That the faults really happen: a test that never tears a write proves nothing.
struct Coverage {
  uint64_t lives = 0;
  uint64_t power_cuts = 0;
  uint64_t io_errors = 0;
  uint64_t failed_opens = 0;
  uint64_t unacknowledged_kept = 0;
  uint64_t unacknowledged_gone = 0;
  uint64_t torn = 0;
};

// One member's life after life on one disk.
class CrashRun {
 public:
  CrashRun(uint64_t seed, Coverage& coverage) : rng_(seed), fs_(seed), coverage_(coverage) {
    options_ = {.dir = "log",
                .segment_bytes = 1024 + 512 * rng_.Below(6),
                .fs = &fs_,
                .new_log_id = rng_.Next()};
  }

  void Run() {
    for (int life = 0; life < kLives; ++life) {
      ++coverage_.lives;
      if (rng_.OneIn(2)) ArmFault(1 + rng_.Below(40));
      std::unique_ptr<LogStore> log = Open();
      if (testing::Test::HasFatalFailure()) return;
      if (log != nullptr) {
        Live(*log);
        if (testing::Test::HasFatalFailure()) return;
      }
      End(std::move(log));
    }
    std::unique_ptr<LogStore> log = Open();
    ASSERT_NE(log, nullptr) << open_error_;
  }

 private:
  void ArmFault(uint64_t within) {
    const uint64_t kind = rng_.Below(6);
    fs_.FailAt(within, kind == 0   ? FaultFileSystem::Fault::kIoError
                       : kind == 1 ? FaultFileSystem::Fault::kDiskFull
                                   : FaultFileSystem::Fault::kPowerCut);
  }

  // Null if a fault hit while opening.
  std::unique_ptr<LogStore> Open() {
    absl::StatusOr<std::unique_ptr<LogStore>> log = SegmentedLog::Open(options_);
    if (!log.ok()) {
      open_error_ = log.status().ToString();
      ++coverage_.failed_opens;
      [&] { ASSERT_TRUE(fs_.fault_hit()) << open_error_; }();
      return nullptr;
    }
    Check(**log);
    return *std::move(log);
  }

  // Everything acknowledged is there; the call that was in flight is there whole or not at all.
  void Check(const LogStore& log) {
    if (log.recovered().torn_bytes > 0) ++coverage_.torn;
    const std::string without = Difference(model_, log);
    if (!without.empty()) {
      ASSERT_TRUE(in_flight_.has_value()) << without;
      const std::string with = Difference(*in_flight_, log);
      ASSERT_EQ(with, "") << "and without the call in flight: " << without;
      model_ = *in_flight_;
      ++coverage_.unacknowledged_kept;
    } else if (in_flight_.has_value()) {
      ++coverage_.unacknowledged_gone;
    }
    in_flight_.reset();
    model_.hard_state = log.recovered().hard_state;
    model_.commit_durable = model_.hard_state.commit;
  }

  void Live(LogStore& log) {
    for (uint64_t steps = rng_.Below(50); steps > 0; --steps) {
      LogModel next = model_;
      absl::Status status;
      if (rng_.OneIn(6)) {
        const LogMark mark = RandomMark(rng_, model_);
        next.Compact(mark);
        status = log.Compact(mark);
      } else {
        std::vector<LogBatch> batches;
        for (uint64_t n = 1 + rng_.Below(3); n > 0; --n) {
          batches.push_back(RandomBatch(rng_, next, rng_.OneIn(20) ? 3000 : 200));
          next.Append({batches.back()});
        }
        status = log.Append(batches);
      }
      if (!status.ok()) {
        in_flight_ = std::move(next);
        ASSERT_TRUE(fs_.fault_hit()) << status;
        ASSERT_TRUE(absl::IsDataLoss(log.Append({LogBatch()}))) << "not poisoned";
        ASSERT_TRUE(absl::IsDataLoss(log.Compact(model_.mark))) << "not poisoned";
        return;
      }
      model_ = std::move(next);
    }
  }

  void End(std::unique_ptr<LogStore> log) {
    if (fs_.fault_hit() && !fs_.stopped()) ++coverage_.io_errors;
    if (rng_.OneIn(4)) log.reset();  // a clean stop, unless it meets the fault
    const bool power = fs_.stopped() || rng_.OneIn(2);
    fs_.Stop();
    log.reset();
    if (power) {
      ++coverage_.power_cuts;
      fs_.PowerCut();
    } else {
      fs_.KillProcess();
    }
  }

  base::Rng rng_;
  FaultFileSystem fs_;
  Coverage& coverage_;
  SegmentedLog::Options options_;
  LogModel model_;
  std::optional<LogModel> in_flight_;
  std::string open_error_;
};

TEST(LogCrash, EverythingAcknowledgedSurvivesAndNothingIsInvented) {
  Coverage coverage;
  if (const char* one = std::getenv("HOLDFAST_LOG_SEED")) {
    CrashRun(std::strtoull(one, nullptr, 10), coverage).Run();
    return;
  }
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE("HOLDFAST_LOG_SEED=" + std::to_string(seed));
    CrashRun(seed, coverage).Run();
    ASSERT_FALSE(HasFatalFailure());
  }
  RecordProperty("lives", static_cast<int>(coverage.lives));
  EXPECT_GT(coverage.power_cuts, kSeeds);
  EXPECT_GT(coverage.io_errors, kSeeds / 20);
  EXPECT_GT(coverage.failed_opens, kSeeds / 20);
  EXPECT_GT(coverage.unacknowledged_kept, kSeeds / 20);
  EXPECT_GT(coverage.unacknowledged_gone, kSeeds / 20);
  EXPECT_GT(coverage.torn, kSeeds / 100);
}

}  // namespace
}  // namespace holdfast::storage
