#include "bench/native_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "bench/monotonic.h"
#include "holdfast/client.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kSettlePoll = absl::Microseconds(50);

int CodeOf(const absl::Status& status) { return int(status.code()); }

class NativeTransport : public Transport {
 public:
  NativeTransport(Client& client, const DataShape& shape, const NativeTransportOptions& options)
      : client_(client), shape_(shape), options_(options), slots_(options.slots) {
    CHECK(options.read != ReadLevel::kMirror);
    get_.Deadline(options.timeout);
    switch (options.read) {
      case ReadLevel::kSerializable:
        read_ = ReadOptions::Bounded(absl::InfiniteDuration());
        break;
      case ReadLevel::kBounded:
        read_ = ReadOptions::Bounded(kBoundedAge);
        break;
      default:
        break;
    }
    // A hedged read is two for the servers: nothing that a comparison should hide.
    read_.Deadline(options.timeout).NoHedge();
    write_.deadline = options.timeout;
  }
  ~NativeTransport() override { CHECK(in_flight_ == 0); }

  bool Deliver(std::function<void(const Completion&)> sink) override {
    sink_ = std::move(sink);
    return true;
  }

  void Settle() override {
    while (in_flight_.load(std::memory_order_acquire) > 0) {
      SleepUntilNs(MonotonicNs() + absl::ToInt64Nanoseconds(kSettlePoll));
    }
  }

  void Start(uint32_t index, const Operation& operation) override {
    Slot& slot = slots_[index];
    slot.operation = operation;
    slot.retries = 0;
    in_flight_.fetch_add(1, std::memory_order_relaxed);
    shape_.WriteKey(operation.first_key, &slot.key);
    switch (operation.kind) {
      case OpKind::kPut:
        return Put(index);
      case OpKind::kGet:
        return client_.Get(slot.key, read_, [this, index](auto read) {
          Outcome outcome = OutcomeOf(read.status());
          if (read.ok()) {
            outcome.found = read->value.has_value();
            outcome.bytes = outcome.found ? PairBytes() : shape_.key_size();
          }
          End(index, std::move(outcome));
        });
      case OpKind::kScan:
        return Scan(index);
      case OpKind::kModify:
        slot.retries = -1;
        return Modify(index);
      case OpKind::kLoad:
      case OpKind::kTxn:
        return Transact(index);
    }
  }

  std::optional<Completion> Next(int64_t) override { CHECK_MSG(false, "this transport delivers"); }
  void CancelOverdue(int64_t) override {}  // the library keeps the deadline
  void CancelAll() override {}

 private:
  struct Slot {
    Operation operation;
    int64_t retries = 0;
    std::string key;
  };

  uint64_t PairBytes() const { return shape_.key_size() + shape_.value_size(); }

  static Outcome OutcomeOf(const absl::Status& status) {
    Outcome outcome;
    outcome.code = CodeOf(status);
    if (!status.ok()) outcome.message = std::string(base::Message(status));
    return outcome;
  }

  // The sink may use the slot again; the count keeps Settle() waiting until it has returned.
  void End(uint32_t index, Outcome outcome) {
    const Slot& slot = slots_[index];
    outcome.retries += uint64_t(std::max<int64_t>(slot.retries, 0));
    sink_({.slot = index,
           .kind = slot.operation.kind,
           .first_key = slot.operation.first_key,
           .outcome = std::move(outcome)});
    in_flight_.fetch_sub(1, std::memory_order_release);
  }

  void Put(uint32_t index) {
    const Slot& slot = slots_[index];
    std::string_view value = shape_.Value(slot.operation.first_key, slot.operation.salt);
    std::string stamped;
    if (slot.operation.stamp.has_value()) {
      stamped = value;
      WriteStamp(*slot.operation.stamp, &stamped);
      value = stamped;
    }
    client_.Put(slot.key, value, write_, [this, index](absl::StatusOr<WriteResult> result) {
      Outcome outcome = OutcomeOf(result.status());
      outcome.bytes = PairBytes();
      if (result.ok()) outcome.retries = uint64_t(result->attempts - 1);
      End(index, std::move(outcome));
    });
  }

  void Scan(uint32_t index) {
    const Slot& slot = slots_[index];
    const RangeQuery query = {
        .key = slot.key, .range_end = shape_.PrefixEnd(), .limit = int64_t(slot.operation.keys)};
    client_.Range(query, read_, [this, index](absl::StatusOr<Read<RangeResult>> read) {
      Outcome outcome = OutcomeOf(read.status());
      if (read.ok()) {
        outcome.found = !read->value.entries.empty();
        outcome.bytes = read->value.entries.size() * PairBytes();
      }
      End(index, std::move(outcome));
    });
  }

  void Modify(uint32_t index) {
    Slot& slot = slots_[index];
    ++slot.retries;
    client_.Get(slot.key, get_, [this, index](absl::StatusOr<Read<std::optional<Entry>>> read) {
      if (!read.ok()) return End(index, OutcomeOf(read.status()));
      const int64_t revision = read->value ? int64_t(read->value->mod_revision) : 0;
      Swap(index, revision);
    });
  }

  void Swap(uint32_t index, int64_t revision) {
    const Slot& slot = slots_[index];
    const Txn txn =
        Txn()
            .If({Compare::ModRevision(slot.key).Equal(revision)})
            .Then({Op::Put(slot.key, shape_.Value(slot.operation.first_key, slot.operation.salt))});
    client_.Commit(txn, write_, [this, index](absl::StatusOr<TxnResult> result) {
      Outcome outcome = OutcomeOf(result.status());
      outcome.bytes = 2 * PairBytes();
      if (result.ok() && !result->succeeded) {
        if (uint64_t(slots_[index].retries) + 1 < kMaxModifyTries) return Modify(index);
        outcome.code = CodeOf(absl::AbortedError(""));
        outcome.message =
            fmt::format("the key changed {} times under a read-modify-write", kMaxModifyTries);
      }
      End(index, std::move(outcome));
    });
  }

  void Transact(uint32_t index) {
    const Slot& slot = slots_[index];
    Txn txn;
    if (slot.operation.kind == OpKind::kTxn) {
      txn.If({Compare::CreateRevision(slot.key).Greater(0)});
    }
    std::vector<Op> puts;
    std::string key;
    for (uint64_t i = 0; i < slot.operation.keys; ++i) {
      shape_.WriteKey(slot.operation.first_key + i, &key);
      puts.push_back(Op::Put(key, shape_.Value(slot.operation.first_key + i, slot.operation.salt)));
    }
    txn.Then(std::move(puts));
    client_.Commit(txn, write_, [this, index](absl::StatusOr<TxnResult> result) {
      Outcome outcome = OutcomeOf(result.status());
      outcome.bytes = slots_[index].operation.keys * PairBytes();
      if (result.ok()) {
        outcome.found = result->succeeded;
        outcome.retries = uint64_t(result->attempts - 1);
      }
      End(index, std::move(outcome));
    });
  }

  Client& client_;
  const DataShape& shape_;
  const NativeTransportOptions options_;
  ReadOptions get_;  // of read-modify-writes: linearizable
  ReadOptions read_;
  WriteOptions write_;
  std::vector<Slot> slots_;
  std::function<void(const Completion&)> sink_;
  std::atomic<uint64_t> in_flight_ = 0;
};

// Reads of the copy end inside Start(): what is measured is the copy and this bench's own loop.
class MirrorTransport : public Transport {
 public:
  MirrorTransport(Client& client, const DataShape& shape) : client_(client), shape_(shape) {}

  void Start(uint32_t index, const Operation& operation) override {
    Completion completion{
        .slot = index, .kind = operation.kind, .first_key = operation.first_key, .outcome = {}};
    shape_.WriteKey(operation.first_key, &key_);
    Mirror* mirror = operation.kind == OpKind::kGet ? client_.mirror(key_) : nullptr;
    bool found = false;
    const absl::Status status =
        mirror == nullptr
            ? absl::UnimplementedError("a mirror answers gets of its own prefix alone")
            : mirror->Visit(key_, [&found](const EntryView* entry) { found = entry != nullptr; })
                  .status();
    completion.outcome.code = CodeOf(status);
    if (!status.ok()) completion.outcome.message = std::string(base::Message(status));
    completion.outcome.found = found;
    completion.outcome.bytes = shape_.key_size() + (found ? shape_.value_size() : 0);
    ended_.push_back(std::move(completion));
  }

  std::optional<Completion> Next(int64_t deadline_ns) override {
    if (ended_.empty()) {
      SleepUntilNs(deadline_ns);
      return std::nullopt;
    }
    Completion completion = std::move(ended_.front());
    ended_.pop_front();
    return completion;
  }
  void CancelOverdue(int64_t) override {}
  void CancelAll() override {}

 private:
  Client& client_;
  const DataShape& shape_;
  std::string key_;
  std::deque<Completion> ended_;  // at most one for each slot
};

}  // namespace

NativeClients::NativeClients() = default;
NativeClients::~NativeClients() = default;

absl::StatusOr<std::unique_ptr<NativeClients>> NativeClients::Open(
    const NativeClientOptions& options, absl::Duration timeout) {
  CHECK(options.clients > 0);
  std::unique_ptr<NativeClients> opened(new NativeClients());
  for (uint32_t i = 0; i < options.clients; ++i) {
    ClientOptions client_options{.endpoints = options.endpoints};
    client_options.handle_termination = false;
    client_options.name = "holdfast-bench";
    client_options.exactly_once = options.exactly_once;
    client_options.seed = options.seed + i;
    if (!options.mirrored_prefix.empty()) {
      client_options.prefixes = {
          {.prefix = options.mirrored_prefix, .policy = Policy::FailStatic().MemoryOnly()}};
    }
    auto client = Client::Open(std::move(client_options));
    if (!client.ok()) return client.status();
    const auto answered =
        (*client)->Get("holdfast-bench", ReadOptions::Linearizable().Deadline(timeout));
    if (!answered.ok()) return answered.status();
    if (Mirror* mirror = (*client)->mirror(options.mirrored_prefix)) {
      const absl::Status fresh = mirror->WaitFresh(kBoundedAge, timeout);
      if (!fresh.ok()) return fresh;
    }
    opened->clients_.push_back(*std::move(client));
  }
  return opened;
}

std::unique_ptr<Transport> NewNativeTransport(Client& client, const DataShape& shape,
                                              const NativeTransportOptions& options) {
  if (options.read == ReadLevel::kMirror) return std::make_unique<MirrorTransport>(client, shape);
  return std::make_unique<NativeTransport>(client, shape, options);
}

}  // namespace holdfast::bench
