// Committed commands become data: raft::StateMachine over storage::MvccStore.
//
// Purpose: executes each Command at apply, deterministically (apply_command.h), all of a batch in
// one WriteBatch, and hands the results of this process's own commands to the pipeline after the
// batch is committed.
// On disk below `dir`: `current` names the database directory in use (db-N); a snapshot is
// installed by renaming it to a new db-N and then replacing `current` (rename + fsync): recovery
// finishes or forgets either half, and removes what `current` does not name (db_directory.h).
// Cluster id, incarnation, member attributes, leases and alarms lie in the store's meta records and
// travel with checkpoints; this member's own id does not.
// Threads: Apply and InstallCheckpoint on the apply thread; everything else from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "etcd/rpc.pb.h"
#include "replication/raft_node.h"
#include "server/alarm_set.h"
#include "server/apply_listener.h"
#include "server/request_pipeline.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

// A member's name and client addresses as published by itself.
struct MemberAttributes {
  std::string name;
  std::vector<std::string> client_urls;
  uint64_t disk_id = 0;  // of its data directory; 0: published by a release that had none
};

class KvStateMachine : public raft::StateMachine {
 public:
  struct Options {
    std::string dir;
    uint64_t cluster_id = 0;  // refuses a directory of another cluster (FailedPrecondition)
    uint64_t member_id = 0;
    storage::MvccStore::Options store;  // dir is set by us
    // Where own commands' results go; may be null in tests. Completions carry our origin only.
    RequestPipeline* pipeline = nullptr;
  };
  // DataLoss: the directory is not as this class leaves one. Otherwise the store's errors.
  static absl::StatusOr<std::unique_ptr<KvStateMachine>> Open(const Options& options);

  // Keeps the store open while a read uses it, also across an InstallCheckpoint. Views must be gone
  // before the pointer is.
  virtual std::shared_ptr<storage::MvccStore> store() const = 0;
  // Of the newest entry applied: {index, term, revision, compact revision}.
  virtual storage::AppliedState applied_state() const = 0;
  virtual std::optional<MemberAttributes> member(uint64_t id) const = 0;
  // 0 until the first leader gave the cluster one.
  virtual uint64_t incarnation() const = 0;
  // In force, as of the last Apply.
  virtual AlarmSet alarms() const = 0;

  // Before the first Apply; the listener must outlive the state machine. Called in the order of
  // their adding.
  virtual void AddListener(ApplyListener* listener) = 0;
};

}  // namespace holdfast::server
