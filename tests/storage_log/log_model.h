// What a LogStore must hold, the dumb way, and how to compare.
#pragma once

#include <string>
#include <vector>

#include "base/rng.h"
#include "storage/log_store.h"

namespace holdfast::storage {

EntryRef MakeEntry(uint64_t index, uint64_t term, std::string payload,
                   EntryType type = EntryType::kNormal);

struct LogModel {
  HardState hard_state;
  Index commit_durable;  // the hint that must survive; hard_state.commit may be newer
  LogMark mark;
  std::vector<EntryRef> entries;  // behind the mark, contiguous

  Index last() const { return mark.index + entries.size(); }
  void Append(const std::vector<LogBatch>& batches);
  void Compact(const LogMark& to);
  Term TermAt(Index index) const;  // REQUIRES: mark.index <= index <= last()
};

// Empty if `log` recovered and reads back exactly the model; otherwise the first difference.
std::string Difference(const LogModel& model, const LogStore& log);

// Random valid input for a log in the state of the model.
LogBatch RandomBatch(base::Rng& rng, const LogModel& model, size_t payload_bytes_max);
LogMark RandomMark(base::Rng& rng, const LogModel& model);

}  // namespace holdfast::storage
