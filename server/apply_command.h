// Executes one committed command on the store, deterministically.
//
// The rule that everything here serves: two members that apply the same entries reach the same
// state, whatever their settings, and whether or not somebody waits for the answer. So a command
// fails either on every member (a refusal: nothing of it is applied, it uses no revision) or on
// none; only a failed disk is a member's own affair, and stops it.
//
// Transactions, as etcd executes them: which branch every transaction takes, the nested ones too,
// is decided on the state before the command; then everything that may fail on the chosen path is
// checked, before the first write, because a Writer can not take a write back; then the operations
// run in order, ranges see the writes before them, and all writes share one revision.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/ids.h"
#include "etcd/rpc.pb.h"
#include "holdfast/command.pb.h"
#include "server/alarm_set.h"
#include "server/apply_listener.h"
#include "server/request_pipeline.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

// Limits of one transaction. Part of the state machine: all members must have the same, so they are
// constants and no settings.
//   Records in a transaction's answer, all ranges and prev_kvs together. A single-key operation is
//   not counted: the request limit bounds what it can bring.
inline constexpr size_t kMaxTxnAnswerBytes = size_t{64} << 20;
//   Records that one compare over a range of keys may look at.
inline constexpr size_t kMaxCompareBytes = size_t{64} << 20;
//   What one command may delete by ranges: its keys and values, and kDeleteOverheadBytes a key. All
//   of it stands in one batch in memory until it is committed.
inline constexpr size_t kMaxDeleteBytes = size_t{512} << 20;
inline constexpr size_t kDeleteOverheadBytes = 256;

// What a member keeps in the store's meta records, beside the data: it travels with checkpoints.
inline constexpr char kMetaClusterId[] = "cluster_id";     // 8 bytes, big endian
inline constexpr char kMetaIncarnation[] = "incarnation";  // 8 bytes, big endian
inline constexpr char kMetaMemberPrefix[] = "member/";     // + id, 8 bytes: MemberAttributes
inline constexpr char kMetaDowngrade[] = "downgrade";      // command.v1.Downgrade
// Leases: server/lease_record.h. Alarms: server/alarm_set.h. Sessions: server/session_table.h.
std::string MemberMetaKey(uint64_t id);

// Where an entry stands in the log, the alarms in force, and what it changes beside the data.
struct ApplyContext {
  Index index = {};
  Term term = {};
  AlarmSet* alarms = nullptr;       // of the writer's state; commands change it
  ApplyEffects* effects = nullptr;  // added to
};

// Not OK: the disk failed, or the command is none that this program knows (written by a newer one);
// the caller stops the node. OK: what the caller of the command is told; header.revision is filled.
// `want_answer` false: nobody waits here, and the response may be left out.
// REQUIRES: no revision is open in `writer`.
absl::StatusOr<ApplyResult> ApplyCommand(const command::v1::Command& command, bool want_answer,
                                         const ApplyContext& context,
                                         storage::MvccStore::Writer& writer);

// Evaluates a transaction that only reads, on one view. `max_bytes`: of all ranges together;
// `take`: see RangeOptions. REQUIRES: IsReadOnly(request) (kv_validate.h).
absl::Status EvaluateReadOnly(const etcdserverpb::TxnRequest& request,
                              const storage::MvccStore::View& view, size_t max_bytes,
                              const std::function<bool(size_t)>& take,
                              etcdserverpb::TxnResponse* response);

}  // namespace holdfast::server
