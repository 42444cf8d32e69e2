#include "client/judge.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "base/check.h"
#include "base/strings.h"

namespace holdfast::internal {
namespace {

struct Job {
  uint64_t build = 0;
  std::vector<Policy::ValidatorTerms> validators;
  std::vector<ParsedKey> parsed;
  MirrorSnapshot before;
  MirrorSnapshot after;
  // Whoever comes first tells: the verdict, or the clock. Both do so on the scheduler's thread.
  std::shared_ptr<Judge::Done> done;
  std::shared_ptr<bool> told = std::make_shared<bool>(false);
};

absl::Duration BudgetOf(const Job& job) {
  absl::Duration budget = job.parsed.empty() ? absl::ZeroDuration() : Judge::kParseBudget;
  for (const Policy::ValidatorTerms& one : job.validators) budget += one.budget;
  return budget;
}

}  // namespace

struct Judge::State {
  std::shared_ptr<Scheduler> scheduler;
  std::mutex mutex;
  std::condition_variable wake;
  std::optional<Job> job;
  bool busy = false;
  bool stop = false;
  std::thread thread;  // started with the first job
};

Judge::Judge(std::shared_ptr<Scheduler> scheduler) : state_(std::make_shared<State>()) {
  state_->scheduler = std::move(scheduler);
}

Judge::~Judge() {
  bool leave = false;
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
    leave = state_->busy;
    state_->wake.notify_one();
  }
  if (!state_->thread.joinable()) return;
  if (leave) {
    state_->thread.detach();
  } else {
    state_->thread.join();
  }
}

bool Judge::busy() const {
  std::lock_guard lock(state_->mutex);
  return state_->busy;
}

void Judge::Start(uint64_t build, const std::vector<Policy::ValidatorTerms>& validators,
                  std::vector<ParsedKey> parsed, MirrorSnapshot before, MirrorSnapshot after,
                  Done done) {
  Job job{build,
          validators,
          std::move(parsed),
          std::move(before),
          std::move(after),
          std::make_shared<Done>(std::move(done))};
  const absl::Duration budget = BudgetOf(job);
  state_->scheduler->After(budget, [told = job.told, done = job.done, build, budget] {
    if (std::exchange(*told, true)) return;
    std::move (*done)(
        {build,
         absl::DeadlineExceededError(base::ToAbsl(fmt::format(
             "the validators took longer than their {}: make them faster, or give them a larger "
             "budget in Policy::Validate",
             absl::FormatDuration(budget)))),
         {}});
  });
  std::lock_guard lock(state_->mutex);
  CHECK(!state_->busy);
  state_->busy = true;
  state_->job = std::move(job);
  state_->wake.notify_one();
  if (state_->thread.joinable()) return;
  state_->thread = std::thread([state = state_] {
    std::unique_lock lock(state->mutex);
    for (;;) {
      state->wake.wait(lock, [&] { return state->stop || state->job.has_value(); });
      if (state->stop) return;
      Job job = *std::move(state->job);
      state->job.reset();
      lock.unlock();
      Verdict verdict = Run(job.build, job.validators, job.parsed, job.before, job.after);
      lock.lock();
      state->busy = false;
      if (state->stop) return;
      state->scheduler->Post(
          [told = job.told, done = job.done, verdict = std::move(verdict)]() mutable {
            if (!std::exchange(*told, true)) std::move (*done)(std::move(verdict));
          });
    }
  });
}

Verdict Judge::Run(uint64_t build, const std::vector<Policy::ValidatorTerms>& validators,
                   const std::vector<ParsedKey>& parsed, const MirrorSnapshot& before,
                   const MirrorSnapshot& after) {
  Verdict verdict{build, absl::OkStatus(), {}};
  for (const Policy::ValidatorTerms& one : validators) {
    verdict.status = one.validator(before, after);
    if (!verdict.status.ok()) return verdict;
  }
  for (const ParsedKey& one : parsed) {
    const std::optional<EntryView> entry = after.Find(one.key);
    // A value that is needed always stays, whatever becomes of its key.
    if (!entry.has_value()) continue;
    const base::RecordDigest content = base::DigestOfContent(entry->key, entry->value);
    if (content == one.content) continue;
    absl::StatusOr<AnyValue> value = one.parse(entry->value);
    if (!value.ok()) {
      verdict.status = absl::Status(value.status().code(),
                                    base::ToAbsl(fmt::format("{}: {}", base::Printable(one.key),
                                                             base::Message(value.status()))));
      verdict.parsed.clear();
      return verdict;
    }
    verdict.parsed.push_back({one.id, content, *std::move(value)});
  }
  return verdict;
}

}  // namespace holdfast::internal
