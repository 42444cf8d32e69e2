#include "storage/mvcc_range.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/strings.h"

namespace holdfast::storage::mvcc {
namespace {

constexpr size_t kTakeStepBytes = size_t{64} << 10;

bool Passes(const RangeOptions& options, const Record& record) {
  const auto within = [](int64_t revision, int64_t min, int64_t max) {
    return (min == 0 || revision >= min) && (max == 0 || revision <= max);
  };
  return within(record.mod.main, options.min_mod_revision, options.max_mod_revision) &&
         within(record.create_revision, options.min_create_revision, options.max_create_revision);
}

// What a record is sorted by: one of the two first, then the key.
struct SortKey {
  int64_t number = 0;
  std::string_view text;
  std::string_view key;
};

// Keeps the records that an answer needs, and no more: a sorted answer with a limit is a heap of
// the best so far, with the worst of them on top.
class Answer {
 public:
  Answer(const RangeOptions& options, RangeResult* result)
      : options_(options), result_(*result), target_(options.sort_target) {
    // etcd: a target other than the key means ascending if no order is given.
    descend_ = options.sort_order == SortOrder::kDescend;
    in_key_order_ = target_ == SortTarget::kKey && !descend_;
    heap_ = !in_key_order_ && options.limit > 0;
    keep_value_ = !options.keys_only || target_ == SortTarget::kValue;
  }

  // Nothing behind what was added is needed.
  bool done() const { return done_; }

  // In key order.
  absl::Status Add(std::string_view key, const Record& record) {
    ++result_.count;
    result_.bytes += static_cast<int64_t>(key.size() + record.value.size());
    if (options_.count_only || !Passes(options_, record)) return absl::OkStatus();
    ++matched_;
    if (options_.page_bytes > 0 &&
        (Full() || (bytes_ >= options_.page_bytes && !result_.kvs.empty()))) {
      result_.more = done_ = true;
      return absl::OkStatus();
    }
    if (Full()) {
      if (!heap_) return absl::OkStatus();
      const SortKey candidate =
          KeyOf(key, record.create_revision, record.mod.main, record.version, record.value);
      if (!Before(candidate, KeyOf(result_.kvs.front()))) return absl::OkStatus();
      DropWorst();
    }
    const size_t size = key.size() + (keep_value_ ? record.value.size() : 0);
    if (size > options_.max_bytes - bytes_) return TooLarge();
    bytes_ += size;
    if (bytes_ > taken_ && !Take()) return TooLarge();
    FillKeyValue(key, record, keep_value_, &result_.kvs.emplace_back());
    if (heap_) std::push_heap(result_.kvs.begin(), result_.kvs.end(), order_);
    return absl::OkStatus();
  }

  void Finish() {
    if (heap_) {
      std::sort_heap(result_.kvs.begin(), result_.kvs.end(), order_);
    } else if (!in_key_order_) {
      std::sort(result_.kvs.begin(), result_.kvs.end(), order_);
    }
    result_.more = done_ || (options_.limit > 0 && matched_ > options_.limit);
    if (options_.keys_only && keep_value_) {
      for (KeyValue& kv : result_.kvs) kv.value.clear();
    }
  }

 private:
  struct Order {
    const Answer* answer;
    bool operator()(const KeyValue& a, const KeyValue& b) const {
      return answer->Before(answer->KeyOf(a), answer->KeyOf(b));
    }
  };

  bool Full() const {
    return options_.limit > 0 && result_.kvs.size() >= static_cast<uint64_t>(options_.limit);
  }

  bool Take() {
    const size_t step = std::max(bytes_ - taken_, kTakeStepBytes);
    if (options_.take && !options_.take(step)) return false;
    taken_ += step;
    return true;
  }

  void DropWorst() {
    std::pop_heap(result_.kvs.begin(), result_.kvs.end(), order_);
    bytes_ -= result_.kvs.back().key.size() + result_.kvs.back().value.size();
    result_.kvs.pop_back();
  }

  SortKey KeyOf(std::string_view key, int64_t create, int64_t mod, int64_t version,
                std::string_view value) const {
    switch (target_) {
      case SortTarget::kKey:
        return {0, key, key};
      case SortTarget::kVersion:
        return {version, {}, key};
      case SortTarget::kCreate:
        return {create, {}, key};
      case SortTarget::kMod:
        return {mod, {}, key};
      case SortTarget::kValue:
        return {0, value, key};
    }
    return {0, key, key};
  }
  SortKey KeyOf(const KeyValue& kv) const {
    return KeyOf(kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value);
  }

  // Equal ones stay in key order in both directions, as in etcd's (stable, for short answers) sort.
  bool Before(const SortKey& a, const SortKey& b) const {
    if (a.number != b.number) return (a.number < b.number) != descend_;
    if (const int order = a.text.compare(b.text); order != 0) return (order < 0) != descend_;
    return a.key < b.key;
  }

  // Also if only what a sort must hold on its way is too large, and the answer would not be.
  absl::Status TooLarge() const {
    return absl::ResourceExhaustedError(
        fmt::format("the answer exceeds max_bytes = {}: ask for a smaller range, set a limit, or "
                    "use keys_only or count_only",
                    options_.max_bytes));
  }

  const RangeOptions& options_;
  RangeResult& result_;
  const SortTarget target_;
  bool descend_ = false;
  bool in_key_order_ = false;
  bool heap_ = false;
  bool keep_value_ = true;
  int64_t matched_ = 0;
  size_t bytes_ = 0;  // Invariant: <= options_.max_bytes.
  size_t taken_ = 0;  // Invariant: >= bytes_.
  bool done_ = false;
  const Order order_{this};
};

}  // namespace

absl::Status CompactedError() { return absl::OutOfRangeError(base::ToAbsl(kCompactedText)); }
absl::Status FutureRevisionError() {
  return absl::OutOfRangeError(base::ToAbsl(kFutureRevisionText));
}

absl::Status ReadRange(const RecordReader& reader, const RangeOptions& options,
                       const ReadableRevisions& readable, RangeResult* result) {
  *result = RangeResult{};
  int64_t at = kNewest;
  if (options.revision > 0) {
    if (options.revision > readable.newest) return FutureRevisionError();
    if (options.revision < readable.compact) return CompactedError();
    at = options.revision;
  }

  Answer answer(options, result);
  absl::Status status;
  const KeySpan span = KeySpan::Of(options.key, options.range_end);
  if (span.kind == KeySpan::Kind::kSingle) {
    FoundRecord found;
    const absl::StatusOr<bool> exists = reader.FindAt(options.key, at, &found);
    status = exists.status();
    if (exists.ok() && *exists) status = answer.Add(options.key, found.record);
  } else {
    RecordCursor cursor(reader, span, at);
    while (status.ok() && !answer.done() && cursor.Next())
      status = answer.Add(cursor.key(), cursor.record());
    status.Update(cursor.status());
  }
  if (!status.ok()) {
    *result = RangeResult{};  // half an answer must not look like one
    return status;
  }
  answer.Finish();
  return absl::OkStatus();
}

}  // namespace holdfast::storage::mvcc
