// The clients' history, in the words of the checker.
#include <fmt/format.h>

#include <string>
#include <vector>

#include "clients.h"
#include "tests/history/history.h"
#include "world.h"

namespace holdfast::sim {
namespace {

constexpr int64_t kInitialRevision = 1;

std::string ValueText(uint64_t value) { return fmt::format("v{}", value); }

history::Kind KindOf(OpKind kind) {
  switch (kind) {
    case OpKind::kPut:
      return history::Kind::kPut;
    case OpKind::kDelete:
      return history::Kind::kDelete;
    case OpKind::kCompareAndSet:
      return history::Kind::kCas;
    default:
      return history::Kind::kGet;
  }
}

history::Op Translate(const ClientOp& op) {
  history::Op out;
  out.client = op.client;
  out.kind = KindOf(op.kind);
  out.key = fmt::format("k{}", op.key);
  const bool carries_value = op.kind == OpKind::kPut || op.kind == OpKind::kCompareAndSet;
  if (carries_value) out.value = ValueText(op.value);
  out.expected_mod = static_cast<int64_t>(op.expected_rev);
  out.start_ns = op.start_ns;
  out.end_ns = op.end_ns;
  switch (op.outcome) {
    case Outcome::kOk:
      out.outcome = history::Outcome::kOk;
      break;
    case Outcome::kRefused:
      out.outcome = history::Outcome::kRefused;
      return out;
    default:
      out.outcome = history::Outcome::kUnknown;
      return out;
  }
  out.revision = static_cast<int64_t>(op.result.revision);
  out.effective = op.result.changed;
  out.stale = op.kind == OpKind::kSerializableRead || op.kind == OpKind::kFreshRead;
  const bool reads = out.kind == history::Kind::kGet;
  out.looked = reads || (out.kind == history::Kind::kCas && !op.result.succeeded);
  if (out.looked) {
    out.found = op.result.cell.mod_revision != 0;
    if (out.found) out.found_value = ValueText(op.result.cell.value);
    out.found_mod = static_cast<int64_t>(op.result.cell.mod_revision);
  }
  return out;
}

}  // namespace

void Clients::CheckHistory() {
  std::vector<history::Op> ops;
  ops.reserve(ops_.size());
  for (const ClientOp& op : ops_) {
    const bool open_read = op.outcome == Outcome::kOpen && KindOf(op.kind) == history::Kind::kGet;
    if (open_read) continue;
    ops.push_back(Translate(op));
    if (op.outcome == Outcome::kOpen) ops.back().end_ns = world_.now_ns;
  }
  const history::HistoryVerdict verdict = history::CheckHistory(ops, kInitialRevision);
  ++world_.figures.histories;
  world_.figures.histories_undecided += verdict.undecided ? 1 : 0;
  world_.figures.unknown_seen += static_cast<uint64_t>(verdict.unknown_seen);
  if (!verdict.error.empty()) world_.witness.Fail("linearizability: " + verdict.error);
}

}  // namespace holdfast::sim
