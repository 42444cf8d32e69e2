// etcd's KV service: decodes, validates, asks the pipeline or the store, answers.
//
// Reads. A linearizable Range waits for its index (RequestPipeline::LinearizableRead) and reads the
// store on the responder thread; a serializable one reads on the gRPC thread, with or without a
// leader. A transaction that only reads is not proposed. Whatever may look at more than a few
// records runs on threads of its own (ScanPool), and the memory of all such answers together is
// bounded (AnswerBudget).
//
// Freshness (docs/freshness.md, section 5): every answer of Range and of a read-only Txn, and the
// refusals that concern age, carry trailing metadata:
//   holdfast-age-ms   no write acknowledged longer ago than this is missing in the answer; rounded
//                     up; absent if unknown
//   holdfast-proof    proven | unknown
//   holdfast-source   leader | follower
// every answer, of writes too,
//   holdfast-incarnation   hex; another one than before: the store was started anew from one
//                          member's data or a backup, and its revisions are others
// and obey request metadata:
//   holdfast-max-age-ms    serializable reads: not older than this, or FAILED_PRECONDITION at once
//                          (after one attempt, kFreshClaimWait at most, to get a younger claim)
//   holdfast-min-revision  all reads: not below this revision, or FAILED_PRECONDITION at once
//   hasleader: true        all calls: "etcdserver: no leader" if this member knows none (etcd's)
//
// Sessions (docs/sessions.md): Put, DeleteRange and a Txn that writes obey request metadata
//   holdfast-session       the write's stamp: it takes effect once, however often it is sent
// and their answers, refusals too, then carry trailing metadata
//   holdfast-deduplicated  0 | 1: this is what the stamp is answered for good; 1: it was answered
//                          before, and the write was not executed now. Absent: nothing is settled
//
// Threads: gRPC's, the pipeline's responders, the ScanPool's, and one of its own for physical
// compactions, whose flush takes long.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include <grpcpp/impl/codegen/service_type.h>

#include "absl/time/time.h"
#include "base/clock.h"
#include "replication/raft_node.h"
#include "server/admission.h"
#include "server/kv_reads.h"
#include "server/request_pipeline.h"
#include "server/state_machine.h"

namespace holdfast::server {

inline constexpr char kAgeKey[] = "holdfast-age-ms";
inline constexpr char kProofKey[] = "holdfast-proof";
inline constexpr char kSourceKey[] = "holdfast-source";
inline constexpr char kIncarnationKey[] = "holdfast-incarnation";
inline constexpr char kMaxAgeKey[] = "holdfast-max-age-ms";
inline constexpr char kMinRevisionKey[] = "holdfast-min-revision";
inline constexpr char kHasLeaderKey[] = "hasleader";
inline constexpr char kSessionKey[] = "holdfast-session";
inline constexpr char kDeduplicatedKey[] = "holdfast-deduplicated";

class KvService {
 public:
  struct Options {
    uint64_t cluster_id = 0;
    uint64_t member_id = 0;
    size_t max_txn_ops = 128;
    size_t max_request_bytes = 1536 * 1024;
    // Keys and values of one Range, or of one read-only Txn. Beyond it ResourceExhausted: memory is
    // limited, and a gRPC message is by 2 GiB.
    size_t max_answer_bytes = size_t{512} << 20;
    // Of all long reads under way together. They wait for nothing: beyond it ResourceExhausted.
    size_t max_answers_bytes = size_t{768} << 20;
    // About what one part of a RangeStream holds.
    size_t stream_part_bytes = size_t{1} << 20;
    int scan_threads = 2;
    size_t max_waiting_scans = 4096;
    // The store could not be flushed, or a read met rot: the process must stop. Null (tests only):
    // the error is the answer, and the store refuses the next commit.
    std::function<void(const absl::Status&)> on_fatal = nullptr;
    base::Clock* clock = base::RealClock::Get();
  };
  // How long a bounded read waits at most for a younger claim (its own deadline may be earlier).
  static constexpr absl::Duration kFreshClaimWait = absl::Milliseconds(500);

  // All four must outlive the service.
  static std::unique_ptr<KvService> Create(const Options& options, raft::RaftNode* node,
                                           RequestPipeline* pipeline, KvStateMachine* machine,
                                           const Admission* admission);
  virtual ~KvService() = default;

  // To be registered with the server that listens on the client address. Set the server's receive
  // limit above max_request_bytes, as etcd does by 512 KiB, so that a request a little too large
  // gets etcd's own refusal.
  virtual grpc::Service* service() = 0;
  // For other doors: they share its threads and limits. As long-lived as the service.
  virtual KvReads* reads() = 0;

  // Answers what waits for a flush, and ends the thread. Before the gRPC server is shut down, or it
  // would wait for those calls; after it no call is left waiting here. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace holdfast::server
