#include "server/state_machine.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/apply_command.h"
#include "server/command_keys.h"
#include "server/db_directory.h"
#include "storage/damage.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using storage::AppliedState;
using storage::MvccStore;

// An open store and its directory, which goes with the last reader once it was replaced.
struct OpenStore {
  std::unique_ptr<MvccStore> store;
  std::string dir;
  std::atomic<bool> replaced = false;

  ~OpenStore() {
    store.reset();
    if (!replaced.load()) return;
    std::error_code error;
    std::filesystem::remove_all(dir, error);
    // Not lost: the next start removes what `current` does not name.
    if (error) LOG_WARN("cannot remove the replaced database {}: {}", dir, error.message());
  }
};

// What the store's meta records say of the cluster, in memory.
struct ClusterRecords {
  std::optional<uint64_t> cluster_id;
  uint64_t incarnation = 0;
  std::map<uint64_t, MemberAttributes> members;
  AlarmSet alarms;
};

MemberAttributes FromProto(const command::v1::MemberAttributes& proto) {
  return {proto.name(), {proto.client_urls().begin(), proto.client_urls().end()}, proto.disk_id()};
}

absl::Status BadRecord(std::string_view key) {
  return storage::DamageError(
      {.part = storage::Damage::Part::kData,
       .what = fmt::format("the meta record '{}' is not in a form this program ever wrote",
                           base::Printable(key))});
}

absl::StatusOr<std::optional<uint64_t>> ReadNumber(const MvccStore::View& view, const char* key) {
  const auto bytes = view.GetMeta(key);
  if (!bytes.ok()) return bytes.status();
  if (!bytes->has_value()) return std::optional<uint64_t>();
  if ((*bytes)->size() != sizeof(uint64_t)) return BadRecord(key);
  return std::optional<uint64_t>(base::ReadBigEndian64(**bytes));
}

absl::StatusOr<ClusterRecords> ReadRecords(const MvccStore& store) {
  const auto view = store.NewView();
  ClusterRecords records;
  const auto cluster_id = ReadNumber(*view, kMetaClusterId);
  if (!cluster_id.ok()) return cluster_id.status();
  records.cluster_id = *cluster_id;
  const auto incarnation = ReadNumber(*view, kMetaIncarnation);
  if (!incarnation.ok()) return incarnation.status();
  records.incarnation = incarnation->value_or(0);
  absl::Status bad;
  const absl::Status scanned =
      view->ScanMeta(kMetaMemberPrefix, [&](std::string_view key, std::string_view value) {
        command::v1::MemberAttributes proto;
        if (!proto.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
          bad = BadRecord(key);
          return false;
        }
        records.members[proto.id()] = FromProto(proto);
        return true;
      });
  if (!scanned.ok()) return scanned;
  const absl::Status alarms =
      view->ScanMeta(kMetaAlarmPrefix, [&](std::string_view key, std::string_view /*value*/) {
        AlarmSet::Alarm alarm;
        if (!ParseAlarmMetaKey(key, &alarm)) {
          bad = BadRecord(key);
          return false;
        }
        records.alarms.Raise(alarm);
        return true;
      });
  if (!alarms.ok()) return alarms;
  if (!bad.ok()) return bad;
  return records;
}

absl::Status CheckCluster(const std::string& dir, std::optional<uint64_t> found, uint64_t ours) {
  if (found == ours) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format(
      "{} holds {}, and this member belongs to cluster {:x}: use the data directory of this "
      "cluster, or an empty one",
      dir, found.has_value() ? fmt::format("data of cluster {:x}", *found) : "data of no cluster",
      ours));
}

class KvStateMachineImpl : public KvStateMachine {
 public:
  KvStateMachineImpl(const Options& options, DbDirectory directory,
                     std::shared_ptr<OpenStore> store, ClusterRecords records)
      : options_(options),
        directory_(std::move(directory)),
        applied_(store->store->applied().index.value),
        alarms_(records.alarms),
        store_(std::move(store)),
        records_(std::move(records)),
        installed_(directory_.installed()) {
    NewWriter(*store_->store);
  }

  ~KvStateMachineImpl() override { writer_.reset(); }

  absl::Status Apply(absl::Span<const raft::EntryRef> entries) override;

  Index applied() const override { return Index(applied_.load(std::memory_order_acquire)); }

  absl::StatusOr<Index> Flush() override { return store()->Flush(); }

  absl::StatusOr<Checkpoint> TakeCheckpoint() override {
    // directory_ changes only which database is current; the checkpoints' paths do not depend on
    // that, so this may run beside an install.
    const std::string dir = directory_.CheckpointPath(++checkpoints_);
    const auto copied = store()->Checkpoint(dir);
    if (!copied.ok()) return copied.status();
    return Checkpoint{dir, copied->index, copied->term};
  }

  absl::Status InstallCheckpoint(const std::string& dir, const storage::LogMark& mark) override;

  std::optional<storage::LogMark> installed_mark() const override {
    absl::MutexLock lock(&mutex_);
    return installed_;
  }

  std::shared_ptr<MvccStore> store() const override {
    absl::MutexLock lock(&mutex_);
    return {store_, store_->store.get()};
  }

  AppliedState applied_state() const override { return store()->applied(); }

  std::optional<MemberAttributes> member(uint64_t id) const override {
    absl::MutexLock lock(&mutex_);
    const auto it = records_.members.find(id);
    if (it == records_.members.end()) return std::nullopt;
    return it->second;
  }

  uint64_t incarnation() const override {
    absl::MutexLock lock(&mutex_);
    return records_.incarnation;
  }

  AlarmSet alarms() const override {
    absl::MutexLock lock(&mutex_);
    return records_.alarms;
  }

  void AddListener(ApplyListener* listener) override { listeners_.push_back(listener); }

 private:
  // Adds the result to `completions` if the command is this process's own.
  absl::Status ApplyEntry(const storage::Entry& entry,
                          std::vector<RequestPipeline::Completion>* completions,
                          ApplyEffects* effects);
  void NewWriter(MvccStore& store);
  // True: somebody listens to the events of the batch that begins.
  bool ChooseEventListeners();
  // Looks up at once what the commands will look up one by one.
  void Prefetch(absl::Span<const raft::EntryRef> entries);
  absl::Status ReloadRecords();

  const Options options_;
  DbDirectory directory_;  // apply thread, but for CheckpointPath
  std::atomic<uint64_t> checkpoints_ = 0;
  std::atomic<uint64_t> applied_;
  // Apply thread. Of store_: goes before it.
  std::unique_ptr<MvccStore::Writer> writer_;
  Command command_;                     // apply thread; kept for its memory
  std::vector<std::string_view> keys_;  // apply thread; scratch of Prefetch
  AlarmSet alarms_;                     // apply thread; as the writer's state has them
  std::vector<ApplyListener*> listeners_;
  // Apply thread: who gets the events of the batch under way, in the order of listeners_.
  std::vector<ApplyListener*> event_listeners_;

  mutable absl::Mutex mutex_;
  std::shared_ptr<OpenStore> store_ ABSL_GUARDED_BY(mutex_);
  ClusterRecords records_ ABSL_GUARDED_BY(mutex_);
  std::optional<storage::LogMark> installed_ ABSL_GUARDED_BY(mutex_);
};

absl::Status KvStateMachineImpl::Apply(absl::Span<const raft::EntryRef> entries) {
  if (entries.empty()) return absl::OkStatus();
  std::vector<RequestPipeline::Completion> completions;
  ApplyEffects effects;
  const bool events = ChooseEventListeners();
  Prefetch(entries);
  Index last = applied();
  for (const raft::EntryRef& entry : entries) {
    // Nothing is applied twice, and nothing is left out.
    CHECK(entry->index == last + 1);
    last = entry->index;
    if (entry->type != storage::EntryType::kNormal) continue;
    if (absl::Status status = ApplyEntry(*entry, &completions, &effects); !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = writer_->Commit(last, entries.back()->term); !status.ok()) {
    return status;
  }
  if (effects.members_changed || effects.alarms_changed) {
    if (absl::Status status = ReloadRecords(); !status.ok()) return status;
  }
  if (!listeners_.empty()) {
    const AppliedState state = store()->applied();
    for (ApplyListener* listener : listeners_) {
      const bool listened = events && std::find(event_listeners_.begin(), event_listeners_.end(),
                                                listener) != event_listeners_.end();
      listener->OnApplied(state, effects, listened);
    }
  }
  applied_.store(last.value, std::memory_order_release);
  if (!completions.empty()) options_.pipeline->Complete(std::move(completions));
  return absl::OkStatus();
}

absl::Status KvStateMachineImpl::ApplyEntry(const storage::Entry& entry,
                                            std::vector<RequestPipeline::Completion>* completions,
                                            ApplyEffects* effects) {
  // Committed bytes that do not parse: corruption, or a newer version. To go on without them would
  // be to differ from the members that can read them.
  if (!command_.ParseFromString(entry.payload)) {
    return absl::DataLossError(fmt::format(
        "entry {} of the log is no command that this version can read", entry.index.value));
  }
  const bool own = options_.pipeline != nullptr && command_.origin() == options_.pipeline->origin();
  const ApplyContext context = {
      .index = entry.index, .term = entry.term, .alarms = &alarms_, .effects = effects};
  absl::StatusOr<ApplyResult> result = ApplyCommand(command_, own, context, *writer_);
  if (!result.ok()) {
    return storage::Annotate(result.status(),
                             fmt::format("cannot apply entry {}", entry.index.value));
  }
  if (own) completions->push_back({command_.sequence(), *std::move(result)});
  return absl::OkStatus();
}

void KvStateMachineImpl::NewWriter(MvccStore& store) {
  writer_ = store.NewWriter();
  event_listeners_.clear();
}

bool KvStateMachineImpl::ChooseEventListeners() {
  std::vector<ApplyListener*> wanting;
  for (ApplyListener* listener : listeners_) {
    if (listener->WantsEvents()) wanting.push_back(listener);
  }
  if (wanting != event_listeners_) {
    event_listeners_ = wanting;
    if (event_listeners_.empty()) {
      writer_->SetEventSink(nullptr);
    } else {
      writer_->SetEventSink([this](const storage::EventView& event) {
        for (ApplyListener* listener : event_listeners_) listener->OnEvent(event);
      });
    }
  }
  return !event_listeners_.empty();
}

void KvStateMachineImpl::Prefetch(absl::Span<const raft::EntryRef> entries) {
  if (entries.size() < 2) return;
  keys_.clear();
  for (const raft::EntryRef& entry : entries) {
    if (entry->type == storage::EntryType::kNormal) AppendCommandKeys(entry->payload, &keys_);
  }
  writer_->Prefetch(keys_);
}

absl::Status KvStateMachineImpl::ReloadRecords() {
  auto records = ReadRecords(*store());
  if (!records.ok()) return records.status();
  absl::MutexLock lock(&mutex_);
  records_ = *std::move(records);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<OpenStore>> OpenAt(const KvStateMachine::Options& options,
                                                  const std::string& dir) {
  MvccStore::Options store_options = options.store;
  store_options.dir = dir;
  auto store = MvccStore::Open(store_options);
  if (!store.ok()) return store.status();
  auto open = std::make_shared<OpenStore>();
  open->store = *std::move(store);
  open->dir = dir;
  return open;
}

absl::Status KvStateMachineImpl::InstallCheckpoint(const std::string& dir,
                                                   const storage::LogMark& mark) {
  const auto path = directory_.Adopt(dir);
  if (!path.ok()) return path.status();
  auto opened = OpenAt(options_, *path);
  if (!opened.ok()) return opened.status();
  // Until `current` names it, the new directory goes with `opened`.
  (*opened)->replaced = true;
  auto records = ReadRecords(*(*opened)->store);
  if (!records.ok()) return records.status();
  if (absl::Status status = CheckCluster(dir, records->cluster_id, options_.cluster_id);
      !status.ok()) {
    return status;
  }
  const AppliedState state = (*opened)->store->applied();
  if (state.index != mark.index || state.term != mark.term) {
    return absl::DataLossError(fmt::format(
        "the checkpoint in {} is of index {} term {}, and not of index {} term {} as announced",
        dir, state.index.value, state.term.value, mark.index.value, mark.term.value));
  }
  // Should the next step fail, either of the two may be the named one: both stay.
  (*opened)->replaced = false;
  if (absl::Status status = directory_.Use(*path, mark); !status.ok()) return status;

  NewWriter(*(*opened)->store);
  alarms_ = records->alarms;
  std::shared_ptr<OpenStore> other = *std::move(opened);
  {
    absl::MutexLock lock(&mutex_);
    store_.swap(other);
    records_ = *std::move(records);
    installed_ = mark;
  }
  other->replaced = true;
  for (ApplyListener* listener : listeners_) listener->OnReplaced(state);
  applied_.store(state.index.value, std::memory_order_release);
  return absl::OkStatus();
}

// Gives a new store its cluster, durably, before it holds anything.
absl::Status StampCluster(MvccStore& store, uint64_t cluster_id) {
  const AppliedState state = store.applied();
  CHECK(state.index.value == 0);
  const auto writer = store.NewWriter();
  std::string bytes;
  base::AppendBigEndian64(bytes, cluster_id);
  writer->PutMeta(kMetaClusterId, bytes);
  if (absl::Status status = writer->Commit(state.index, state.term); !status.ok()) return status;
  return store.Flush().status();
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvStateMachine>> KvStateMachine::Open(const Options& options) {
  auto directory = DbDirectory::Open(options.dir);
  if (!directory.ok()) return directory.status();
  auto store = OpenAt(options, directory->current());
  if (!store.ok()) return store.status();
  auto records = ReadRecords(*(*store)->store);
  if (!records.ok()) return records.status();
  if (!records->cluster_id.has_value() && (*store)->store->applied().index.value == 0) {
    if (absl::Status status = StampCluster(*(*store)->store, options.cluster_id); !status.ok()) {
      return status;
    }
    records->cluster_id = options.cluster_id;
  }
  if (absl::Status status =
          CheckCluster(directory->current(), records->cluster_id, options.cluster_id);
      !status.ok()) {
    return status;
  }
  return std::make_unique<KvStateMachineImpl>(options, *std::move(directory), *std::move(store),
                                              *std::move(records));
}

}  // namespace holdfast::server
