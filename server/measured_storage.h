// How long a member's disk takes: a log store and a state machine that are timed from outside, so
// that neither knows of metrics.
//
// Threads: as what they wrap, which must outlive them.
#pragma once

#include <memory>

#include "replication/raft_node.h"
#include "server/metrics.h"
#include "storage/log_store.h"

namespace holdfast::server {

struct StorageMetrics {
  DurationHistogram log_append;  // one write and one fdatasync
  DurationHistogram apply;       // one batch: executed, and committed to the store
  Counter flushes;
};

std::unique_ptr<storage::LogStore> MeasuredLog(storage::LogStore* log, StorageMetrics* metrics);
std::unique_ptr<raft::StateMachine> MeasuredMachine(raft::StateMachine* machine,
                                                    StorageMetrics* metrics);

}  // namespace holdfast::server
