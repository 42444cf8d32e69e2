#include "sim_machine.h"

#include <fmt/format.h>

#include <cstring>

#include "base/check.h"
#include "base/strings.h"
#include "witness.h"

namespace holdfast::sim {
namespace {

constexpr size_t kEncodedBytes = 4 + 4 + 8 + 8;  // op, kind with key, value, expected revision

uint64_t Mix(uint64_t h, uint64_t v) {
  h = (h ^ v) * 0x9E3779B97F4A7C15u;
  h = (h ^ (h >> 29)) * 0xBF58476D1CE4E5B9u;
  return h ^ (h >> 32);
}

uint64_t MixBytes(uint64_t h, std::string_view bytes) {
  h = Mix(h, bytes.size());
  while (!bytes.empty()) {
    uint64_t word = 0;
    const size_t n = std::min(sizeof(word), bytes.size());
    std::memcpy(&word, bytes.data(), n);
    h = Mix(h, word);
    bytes.remove_prefix(n);
  }
  return h;
}

}  // namespace

std::string Command::Encode(size_t padding) const {
  std::string out;
  out.reserve(kEncodedBytes + padding);
  base::AppendBigEndian32(out, op);
  base::AppendBigEndian32(out, static_cast<uint32_t>(kind) << 16 | key);
  base::AppendBigEndian64(out, value);
  base::AppendBigEndian64(out, expected_rev);
  out.append(padding, 'x');
  return out;
}

Command Command::Decode(std::string_view payload) {
  CHECK(payload.size() >= kEncodedBytes);
  Command c;
  c.op = base::ReadBigEndian32(payload);
  const uint32_t kind_and_key = base::ReadBigEndian32(payload.substr(4));
  c.kind = static_cast<OpKind>(kind_and_key >> 16);
  c.key = static_cast<uint16_t>(kind_and_key & 0xffff);
  c.value = base::ReadBigEndian64(payload.substr(8));
  c.expected_rev = base::ReadBigEndian64(payload.substr(16));
  return c;
}

OpResult MachineState::Execute(const Command& command) {
  if (command.key >= cells.size()) cells.resize(command.key + size_t{1});
  Cell& cell = cells[command.key];
  OpResult result;
  switch (command.kind) {
    case OpKind::kCompareAndSet:
      result.succeeded = cell.mod_revision == command.expected_rev;
      if (!result.succeeded) break;
      [[fallthrough]];
    case OpKind::kPut:
      cell = {command.value, ++revision};
      result.changed = true;
      break;
    case OpKind::kDelete:
      if (cell.mod_revision == 0) break;
      ++revision;
      cell = {};
      result.changed = true;
      break;
    default:
      CHECK_MSG(false, "a read in the log");
  }
  result.revision = revision;
  result.cell = cell;
  return result;
}

uint64_t MachineState::Digest() const {
  uint64_t h = Mix(history, revision);
  for (const Cell& cell : cells) h = Mix(Mix(h, cell.value), cell.mod_revision);
  return h;
}

std::string Checkpoints::Add(const MachineState& state) {
  std::string dir = fmt::format("/nonexistent/holdfast-sim/{}", next_++);
  dirs_.emplace(dir, state);
  return dir;
}

const MachineState& Checkpoints::Get(const std::string& dir) const {
  const auto it = dirs_.find(dir);
  CHECK(it != dirs_.end());
  return it->second;
}

SimMachine::SimMachine(NodeId member, Checkpoints* checkpoints, Witness* witness, Done done)
    : member_(member), checkpoints_(checkpoints), witness_(witness), done_(std::move(done)) {}

absl::Status SimMachine::Apply(absl::Span<const storage::EntryRef> entries) {
  if (broken_) witness_->Fail(fmt::format("member {} applies after a failure", member_.value));
  if (apply_fails_) {
    broken_ = true;
    return absl::DataLossError("simulated: apply failed");
  }
  for (const storage::EntryRef& entry : entries) {
    ++applied_entries_;
    if (entry->index != state_.applied + 1) {
      witness_->Fail(fmt::format("member {}: entry {} was applied after {}", member_.value,
                                 entry->index.value, state_.applied.value));
    }
    witness_->SawApplied(member_, *entry);
    state_.applied = entry->index;
    state_.term = entry->term;
    state_.history = MixBytes(Mix(state_.history, entry->term.value), entry->payload);
    Command command;
    OpResult result;
    const bool write = entry->type == storage::EntryType::kNormal;
    if (write) {
      command = Command::Decode(entry->payload);
      result = state_.Execute(command);
      state_.history = Mix(state_.history, result.revision * 2 + (result.changed ? 1 : 0));
    }
    witness_->SawState(member_, state_.applied, state_.history);
    if (!witness_->ok()) return absl::DataLossError("a rule was broken");
    if (write) done_(command, result);
  }
  return absl::OkStatus();
}

absl::StatusOr<Index> SimMachine::Flush() {
  if (flush_fails_) {
    broken_ = true;
    return absl::DataLossError("simulated: flush failed");
  }
  ++flushes_;
  if (flushed_.applied < flushing_.applied) flushed_ = flushing_;
  return flushed_.applied;
}

absl::StatusOr<raft::StateMachine::Checkpoint> SimMachine::TakeCheckpoint() {
  if (std::exchange(checkpoint_fails_, false)) {
    return absl::ResourceExhaustedError("simulated: no space for a checkpoint");
  }
  return Checkpoint{checkpoints_->Add(state_), state_.applied, state_.term};
}

absl::Status SimMachine::InstallCheckpoint(const std::string& dir, const storage::LogMark& mark) {
  const MachineState& state = checkpoints_->Get(dir);
  if (state.applied != mark.index || state.term != mark.term) {
    witness_->Fail(fmt::format("member {}: a checkpoint of {} is installed as one of {}",
                               member_.value, state.applied.value, mark.index.value));
  }
  if (mark.index <= state_.applied) {
    witness_->Fail(fmt::format("member {} at {} installs an older snapshot, of {}", member_.value,
                               state_.applied.value, mark.index.value));
  }
  ++installs_;
  state_ = flushing_ = flushed_ = state;
  installed_ = mark;
  witness_->SawMark(member_, mark);
  witness_->SawInstall(member_, state_);
  return absl::OkStatus();
}

}  // namespace holdfast::sim
