// One run of one drill: what it was given, and what it found.
#pragma once

#include <atomic>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/drill_oracle.h"
#include "bench/drills/timeline.h"
#include "bench/options.h"

namespace holdfast::bench {

// A row of a drill's result: what was promised, and what came.
struct Goal {
  std::string what = {};
  std::string measured = {};
  std::string wanted = {};
  bool met = false;
};

// A table beside the goals.
struct DrillTable {
  std::string title = {};
  std::vector<std::string> columns = {};
  std::vector<std::vector<std::string>> rows = {};
};

// Threads: one, but for timeline and oracle.
class DrillRun {
 public:
  DrillRun(const Options& options, const std::atomic<bool>& cancelled)
      : options_(options), cancelled_(cancelled) {}
  DrillRun(const DrillRun&) = delete;
  DrillRun& operator=(const DrillRun&) = delete;

  const Options& options() const { return options_; }
  const std::atomic<bool>& cancelled() const { return cancelled_; }
  Timeline& timeline() { return timeline_; }
  const Timeline& timeline() const { return timeline_; }
  DrillOracle& oracle() { return oracle_; }

  // How many times faster than life the drill is played; `how` says it in words. Once, at the
  // begin; 1 if never called.
  void SetFactor(double factor, std::string how);
  double factor() const { return factor_; }
  // A duration of life as it is played.
  absl::Duration Played(absl::Duration life) const { return life / factor_; }

  void AddGoal(std::string what, bool met, std::string measured, std::string wanted);
  void Note(std::string note) { notes_.push_back(std::move(note)); }
  void AddTable(DrillTable table) { tables_.push_back(std::move(table)); }
  // Adds the oracle's verdict as a goal. `must_bite`: the ages must have been put to the test, too;
  // for drills in which others write on while a reader grows old.
  // REQUIRES: readers and writers have ended.
  void Judge(bool must_bite = false);
  // The figure that shows the run, without phases: those are added. At most one.
  void SetPlot(Plot plot) { plot_ = std::move(plot); }

  // In short steps. Cancelled if the bench was interrupted.
  absl::Status Sleep(absl::Duration duration) const;
  // Until `done` says so, asked every 10 ms; DeadlineExceeded with `what` after `limit`.
  absl::Status Await(const std::string& what, absl::Duration limit,
                     const std::function<bool()>& done) const;
  // To stderr, with --verbose: "12.3 s  text".
  void Say(const std::string& text) const;

  const std::vector<Goal>& goals() const { return goals_; }
  const std::vector<DrillTable>& tables() const { return tables_; }
  const std::vector<std::string>& notes() const { return notes_; }
  const std::string& factor_text() const { return factor_text_; }
  const Plot& plot() const { return plot_; }
  bool passed() const;

 private:
  const Options& options_;
  const std::atomic<bool>& cancelled_;
  Timeline timeline_;
  DrillOracle oracle_;
  double factor_ = 1;
  std::string factor_text_ = "as in life";
  std::vector<Goal> goals_;
  std::vector<DrillTable> tables_;
  std::vector<std::string> notes_;
  Plot plot_;
};

// One entry of `holdfast-bench drill list`.
struct DrillEntry {
  int number;        // in the table of docs/drills.md; 0: a replay, known by its name alone
  const char* name;  // and the name of its plot's files
  const char* title;
  // Returns an error only if the drill could not be carried out.
  absl::Status (*run)(DrillRun& run);
};

// All drills, in the order of the table, replays last.
const std::vector<DrillEntry>& AllDrills();
// "all", names and numbers, in the order of the table, each once. InvalidArgument names what is
// none.
absl::StatusOr<std::vector<const DrillEntry*>> DrillsNamed(const std::vector<std::string>& names);

// Pure: the report of a run that took place.
std::string DrillText(const DrillEntry& entry, const DrillRun& run, const std::string& plot_files);
nlohmann::json DrillJson(const DrillEntry& entry, const DrillRun& run);

}  // namespace holdfast::bench
