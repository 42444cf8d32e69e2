#include "tests/storage_log/log_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace holdfast::storage {

EntryRef MakeEntry(uint64_t index, uint64_t term, std::string payload, EntryType type) {
  Entry entry;
  entry.index = Index(index);
  entry.term = Term(term);
  entry.type = type;
  entry.payload = std::move(payload);
  return std::make_shared<const Entry>(std::move(entry));
}

void LogModel::Append(const std::vector<LogBatch>& batches) {
  bool written = false;
  for (const LogBatch& batch : batches) {
    if (batch.reset.has_value()) {
      mark = *batch.reset;
      entries.clear();
    }
    for (const EntryRef& entry : batch.entries) {
      entries.resize(entry->index.value - mark.index.value - 1);
      entries.push_back(entry);
    }
    if (batch.hard_state.has_value()) hard_state = *batch.hard_state;
    written |= batch.must_sync;
  }
  if (written) commit_durable = hard_state.commit;
}

void LogModel::Compact(const LogMark& to) {
  if (to.index == mark.index) return;
  entries.erase(entries.begin(),
                entries.begin() + static_cast<ptrdiff_t>(to.index.value - mark.index.value));
  mark = to;
  commit_durable = hard_state.commit;
}

Term LogModel::TermAt(Index index) const {
  if (index == mark.index) return mark.term;
  return entries.at(index.value - mark.index.value - 1)->term;
}

namespace {

bool Same(const Entry& a, const Entry& b) {
  return a.term == b.term && a.index == b.index && a.type == b.type && a.payload == b.payload;
}

std::string EntriesDifference(const LogModel& model, const LogStore& log) {
  Index next = model.mark.index + 1;
  size_t at = 0;
  while (at < model.entries.size()) {
    // A small max_bytes makes Read page.
    const auto read = log.Read(next, model.last(), 300);
    if (!read.ok()) return fmt::format("read {}: {}", next.value, base::Message(read.status()));
    for (const EntryRef& entry : *read) {
      if (at == model.entries.size()) return "read more than asked for";
      if (!Same(*entry, *model.entries[at])) return fmt::format("entry {} differs", next.value);
      ++at;
      ++next;
    }
  }
  const auto beyond = log.Read(next, next, 1);
  if (!absl::IsOutOfRange(beyond.status())) return "there is an entry behind the last one";
  return "";
}

}  // namespace

std::string Difference(const LogModel& model, const LogStore& log) {
  const RecoveredLog& got = log.recovered();
  if (got.hard_state.term != model.hard_state.term) return "term";
  if (got.hard_state.vote != model.hard_state.vote) return "vote";
  if (got.hard_state.commit < model.commit_durable ||
      got.hard_state.commit > model.hard_state.commit) {
    return fmt::format("commit {} not in [{}, {}]", got.hard_state.commit.value,
                       model.commit_durable.value, model.hard_state.commit.value);
  }
  if (got.mark.index != model.mark.index || got.mark.term != model.mark.term ||
      got.mark.membership != model.mark.membership) {
    return fmt::format("mark {}, expected {}", got.mark.index.value, model.mark.index.value);
  }
  if (got.last != model.last()) {
    return fmt::format("last {}, expected {}", got.last.value, model.last().value);
  }
  std::vector<TermRun> runs;
  std::vector<EntryRef> configs;
  for (const EntryRef& entry : model.entries) {
    if (runs.empty() || runs.back().term != entry->term)
      runs.push_back({entry->index, entry->term});
    if (entry->type == EntryType::kConfig) configs.push_back(entry);
  }
  const auto same_run = [](const TermRun& a, const TermRun& b) {
    return a.first == b.first && a.term == b.term;
  };
  if (!std::ranges::equal(runs, got.term_runs, same_run)) return "term runs";
  const auto same_entry = [](const EntryRef& a, const EntryRef& b) { return Same(*a, *b); };
  if (!std::ranges::equal(configs, got.config_entries, same_entry)) return "config entries";
  return EntriesDifference(model, log);
}

LogBatch RandomBatch(base::Rng& rng, const LogModel& model, size_t payload_bytes_max) {
  LogBatch batch;
  HardState state = model.hard_state;
  if (rng.OneIn(8)) {  // nothing but a hint
    state.commit = state.commit + rng.Below(3);
    batch.hard_state = state;
    batch.must_sync = false;
    return batch;
  }
  LogModel at = model;
  if (rng.OneIn(25)) {
    const Index index = model.mark.index + 1 + rng.Below(model.entries.size() + 10);
    batch.reset = LogMark{.index = index,
                          .term = Term(model.hard_state.term.value + 1),
                          .membership = std::string(rng.Below(60), 'r')};
    state.term = batch.reset->term;
    at.Append({batch});
  }
  if (rng.OneIn(5)) state.term = state.term + 1;
  if (rng.OneIn(5)) state.vote = NodeId(1 + rng.Below(3));
  const uint64_t replaced = rng.OneIn(4) ? rng.Below(at.entries.size() + 1) : 0;
  Index next = at.last() + 1 - replaced;
  state.term = std::max(state.term, at.TermAt(next - 1));
  for (uint64_t n = rng.Below(5); n > 0; --n, ++next) {
    const EntryType type = rng.OneIn(10) ? EntryType::kConfig : EntryType::kNormal;
    std::string payload(rng.Below(payload_bytes_max + 1), static_cast<char>('a' + rng.Below(26)));
    batch.entries.push_back(MakeEntry(next.value, state.term.value, std::move(payload), type));
  }
  batch.hard_state = state;
  return batch;
}

LogMark RandomMark(base::Rng& rng, const LogModel& model) {
  const Index index = model.mark.index + rng.Below(model.entries.size() + 1);
  return {.index = index,
          .term = model.TermAt(index),
          .membership =
              index == model.mark.index ? model.mark.membership : std::string(rng.Below(60), 'm')};
}

}  // namespace holdfast::storage
