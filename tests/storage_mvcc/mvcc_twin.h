// A dumb twin of the MVCC store: every version of every key in a std::map, nothing ever dropped.
// Written from etcd's rules and not from the store's code, so that both are wrong only if both
// misread the rules.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/rng.h"
#include "storage/mvcc_store.h"

namespace holdfast::storage {

class MvccTwin {
 public:
  // As of which state a question is asked.
  struct Sight {
    int64_t newest = 1;  // events beyond it are not seen
    int64_t compact = 0;
  };

  Sight Now() const { return {revision_, compact_}; }
  Sight InOpenRevision() const { return {wrote_ ? revision_ + 1 : revision_, compact_}; }

  void Begin() {
    wrote_ = false;
    sub_ = 0;
  }
  bool End();
  std::optional<KeyValue> Put(const std::string& key, const std::string& value, int64_t lease);
  std::vector<KeyValue> Delete(const std::string& key, const std::string& range_end);
  absl::Status Compact(int64_t revision);
  void SetMeta(const std::string& key, std::optional<std::string> value);

  absl::Status Range(const Sight& sight, const RangeOptions& options, RangeResult* result) const;
  const std::map<std::string, std::string>& meta() const { return meta_; }

  // Live records that a view sees, by key.
  std::map<std::string, KeyValue> Records(const Sight& sight) const;
  // Every event there ever was, in order, as EventText writes it; with its revision.
  const std::vector<std::pair<int64_t, std::string>>& history() const { return history_; }

 private:
  void Record(const std::string& key, const std::optional<KeyValue>& kv,
              const std::optional<KeyValue>& previous);

  struct Event {
    int64_t revision = 0;
    std::optional<KeyValue> kv;  // nullopt: deleted
  };

  std::optional<KeyValue> At(const std::string& key, int64_t revision) const;

  std::map<std::string, std::vector<Event>> events_;
  std::map<std::string, std::string> meta_;
  std::vector<std::pair<int64_t, std::string>> history_;
  uint32_t sub_ = 0;
  int64_t revision_ = 1;
  int64_t compact_ = 0;
  bool wrote_ = false;
};

// Random log entries, the same for the same seed, applied to a twin and a store side by side.
class TwinWorkload {
 public:
  static constexpr int64_t kLeases = 2;  // keys are put with one of them, or none
  explicit TwinWorkload(uint64_t seed) : rng_(seed) {}

  // One log entry: a put, a delete, a transaction, a compaction or a record of the state machine.
  // `writer` may be null: then the twin alone takes the step. Every answer of the writer is
  // compared with the twin's (gtest expectations).
  void Step(MvccTwin& twin, MvccStore::Writer* writer);

  std::string RandomKey();
  RangeOptions RandomRange(int64_t newest);
  base::Rng& rng() { return rng_; }

 private:
  void Mutate(MvccTwin& twin, MvccStore::Writer* writer);
  // What changes nothing: keys that will be needed, perhaps, and a meta record read.
  void Hint(const MvccTwin& twin, MvccStore::Writer* writer);
  void CompareOpenRange(const MvccTwin& twin, MvccStore::Writer* writer);

  base::Rng rng_;
};

std::string EventText(const EventView& event);

void ExpectSameRange(const absl::Status& status, const RangeResult& result, const MvccTwin& twin,
                     const MvccTwin::Sight& sight, const RangeOptions& options);

}  // namespace holdfast::storage
