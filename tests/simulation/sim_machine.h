// The state machine of a simulated member: a few keys with etcd's revisions, in memory.
//
// A crash leaves what was flushed, with the applied index that belongs to it; checkpoints are
// copies in a table of "directories".
// Threads: one.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/rng.h"
#include "history_types.h"
#include "replication/raft_node.h"

namespace holdfast::sim {

class Witness;

// A write on its way through the log. `op` names the operation of the client that waits for it.
struct Command {
  uint32_t op = 0;
  OpKind kind = OpKind::kPut;
  uint16_t key = 0;
  uint64_t value = 0;
  uint64_t expected_rev = 0;

  // `padding` more bytes make it as large as a real one.
  std::string Encode(size_t padding) const;
  static Command Decode(std::string_view payload);
};

// The replicated data. Equal `applied` must mean equal everything.
struct MachineState {
  Index applied;
  Term term;              // of the entry at `applied`
  uint64_t revision = 1;  // etcd's: an empty store is at 1
  uint64_t history = 0;   // a chain of hashes of every entry applied, and of what it did
  std::vector<Cell> cells;

  OpResult Execute(const Command& command);
  Cell Get(uint16_t key) const { return key < cells.size() ? cells[key] : Cell(); }
  uint64_t Digest() const;
};

// Checkpoints, by directory name. No such directory exists on any real disk.
class Checkpoints {
 public:
  std::string Add(const MachineState& state);
  std::string Copy(const std::string& dir) { return Add(Get(dir)); }
  const MachineState& Get(const std::string& dir) const;

 private:
  uint64_t next_ = 1;
  std::map<std::string, MachineState> dirs_;
};

class SimMachine final : public raft::StateMachine {
 public:
  // `done`: called for each write as it is applied here.
  using Done = std::function<void(const Command&, const OpResult&)>;
  SimMachine(NodeId member, Checkpoints* checkpoints, Witness* witness, Done done);

  absl::Status Apply(absl::Span<const storage::EntryRef> entries) override;
  Index applied() const override { return state_.applied; }
  absl::StatusOr<Index> Flush() override;
  absl::StatusOr<Checkpoint> TakeCheckpoint() override;
  absl::Status InstallCheckpoint(const std::string& dir, const storage::LogMark& mark) override;
  std::optional<storage::LogMark> installed_mark() const override { return installed_; }

  // A flush may begin now, and end when Flush() is called: what is applied between is not in it.
  void BeginFlush() { flushing_ = state_; }
  Index durable() const { return flushed_.applied; }
  void Crash() { state_ = flushing_ = flushed_; }
  void FailNextApply() { apply_fails_ = true; }
  void FailNextFlush() { flush_fails_ = true; }
  void FailNextCheckpoint() { checkpoint_fails_ = true; }
  // The process started anew.
  void Restart() { apply_fails_ = flush_fails_ = checkpoint_fails_ = broken_ = false; }

  const MachineState& state() const { return state_; }
  uint64_t installs() const { return installs_; }
  uint64_t flushes() const { return flushes_; }
  uint64_t applied_entries() const { return applied_entries_; }

 private:
  const NodeId member_;
  Checkpoints* const checkpoints_;
  Witness* const witness_;
  const Done done_;
  MachineState state_;
  MachineState flushing_;
  MachineState flushed_;  // what a crash leaves
  std::optional<storage::LogMark> installed_;
  bool apply_fails_ = false, flush_fails_ = false, checkpoint_fails_ = false, broken_ = false;
  uint64_t installs_ = 0, flushes_ = 0, applied_entries_ = 0;
};

}  // namespace holdfast::sim
