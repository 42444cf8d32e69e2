// Reads of the KV service on this member's own state: what every door (server/kv_service.h,
// server/exchange_service.h) asks once a read may be answered. Whether it may, and how old the
// answer is, is the door's business.
//
// Whatever may look at more than a few records (IsScan) belongs on scans(), and takes the memory of
// its answer from answers(): both are shared by all doors.
// Threads: all methods from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "etcd/rpc.pb.h"
#include "replication/raft_node.h"
#include "server/admission.h"
#include "server/answer_budget.h"
#include "server/scan_pool.h"
#include "server/state_machine.h"

namespace holdfast::server {

bool IsScan(const etcdserverpb::RangeRequest& request);
bool IsScan(const etcdserverpb::TxnRequest& request);
// One key, the newest value, nothing special: the read that GetMany answers.
bool IsPlainGet(const etcdserverpb::RangeRequest& request);

class KvReads {
 public:
  struct Options {
    uint64_t cluster_id = 0;
    uint64_t member_id = 0;
    size_t max_answer_bytes = size_t{512} << 20;
    size_t max_answers_bytes = size_t{768} << 20;
    int scan_threads = 2;
    size_t max_waiting_scans = 4096;
    // A read met rot. Null: nobody is told.
    std::function<void(const absl::Status&)> on_fatal = nullptr;
  };
  // All three must outlive this.
  KvReads(const Options& options, const raft::RaftNode* node, const KvStateMachine* machine,
          const Admission* admission);

  // Reads the newest state into `response`, header included. FailedPrecondition: it is below
  // `min_revision`. `reservation`: of a scan, else null.
  absl::Status Evaluate(const etcdserverpb::RangeRequest& request, int64_t min_revision,
                        AnswerBudget::Reservation* reservation,
                        etcdserverpb::RangeResponse* response);
  absl::Status Evaluate(const etcdserverpb::TxnRequest& request, int64_t min_revision,
                        AnswerBudget::Reservation* reservation,
                        etcdserverpb::TxnResponse* response);

  // Many plain gets of one state, each with a min_revision of its own. `answer` is called once for
  // each, until it returns false: OK with the record (null: no such key) and the state's revision,
  // or its refusal.
  struct Get {
    std::string_view key;
    int64_t min_revision = 0;
  };
  using Answer = absl::FunctionRef<bool(size_t index, const absl::Status& status,
                                        const storage::KeyValueView* kv, int64_t revision)>;
  void GetMany(absl::Span<const Get> gets, Answer answer);

  // Everything but the revision.
  void FillHeader(etcdserverpb::ResponseHeader* header) const;

  ScanPool& scans() { return scans_; }
  AnswerBudget& answers() { return answers_; }
  // A read that meets rot: what else has rotted is not known, so this member must not go on.
  void StopIfDamaged(const absl::Status& status) const;

 private:
  template <class Request, class Response>
  absl::Status EvaluateOne(const Request& request, int64_t min_revision,
                           AnswerBudget::Reservation* reservation, Response* response);
  absl::Status ReadOn(const storage::MvccStore::View& view,
                      const etcdserverpb::RangeRequest& request,
                      const std::function<bool(size_t)>& take,
                      etcdserverpb::RangeResponse* response) const;
  absl::Status ReadOn(const storage::MvccStore::View& view, const etcdserverpb::TxnRequest& request,
                      const std::function<bool(size_t)>& take,
                      etcdserverpb::TxnResponse* response) const;

  const Options options_;
  const raft::RaftNode* const node_;
  const KvStateMachine* const machine_;
  const Admission* const admission_;
  AnswerBudget answers_;
  ScanPool scans_;
};

}  // namespace holdfast::server
