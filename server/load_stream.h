// One call of Mirror.Load (mirror_service.h says what it does).
//
// A chain of steps, one at a time, each begun by the end of the one before: on a gRPC thread, on a
// scan pool, or by an alarm. Only Abandon comes from the side.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "holdfast/client.grpc.pb.h"
#include "server/load_admission.h"
#include "server/member_view.h"
#include "server/mirror_service.h"
#include "server/prefix_summaries.h"
#include "server/scan_pool.h"

namespace holdfast::server {

class LoadStream;

// What all loads of a member share. Threads: all.
class LoadHost {
 public:
  LoadHost(const MirrorService::Options& options, const MemberView& member,
           const Admission* admission);

  // Monotonic, since any instant.
  static absl::Duration Now();

  ScanPool* pool(LoadClass load_class) {
    return load_class == LoadClass::kAuth ? &auth_scans_ : &scans_;
  }
  template <class F>
  auto WithAdmission(F f) {
    std::lock_guard lock(mutex_);
    return f(load_admission_);
  }
  void Add(LoadStream* stream);
  void Remove(LoadStream* stream);
  // Cuts off those whose client takes nothing.
  void CutStalled(absl::Duration now);
  bool stopping() const { return stopping_.load(std::memory_order_acquire); }
  void Stop();

  const MirrorService::Options options;
  const MemberView member;
  const Admission* const admission;
  PrefixSummaries summaries;
  MirrorService::Counters counters;

 private:
  std::mutex mutex_;
  LoadAdmission load_admission_;   // under mutex_
  std::set<LoadStream*> streams_;  // under mutex_; those that send records
  std::atomic<bool> stopping_ = false;
  ScanPool auth_scans_;
  ScanPool scans_;  // last: jobs use everything above
};

class LoadStream : public grpc::ServerWriteReactor<v1::LoadResponse> {
 public:
  // `request` and `context` live until OnDone, as gRPC has it; `host` outlives the stream.
  LoadStream(grpc::CallbackServerContext* context, const v1::LoadRequest* request, LoadHost* host);

  void OnWriteDone(bool ok) override;
  void OnDone() override;

  // Of those that Add()ed themselves; under the host's lock.
  void CutIfStalled(absl::Duration now);

 private:
  void Begin();
  absl::Status Check() const;
  // True: the call has its answer.
  bool AnswerAtOnce();
  void AskForSummary(int64_t min_revision);
  void OnSummary(const absl::StatusOr<PrefixSummary>& summary);
  void BeginSnapshot();
  void PostPart();
  void ReadPart();
  absl::Status FillPart();
  void Pace(absl::Duration wait);
  void Write();
  void FillHead(v1::LoadHead::Kind kind, int64_t revision, uint64_t incarnation);
  void AnswerHead();
  void Fail(const absl::Status& status);
  void Refuse(absl::Duration retry_after, const char* why);

  grpc::CallbackServerContext* const context_;
  const v1::LoadRequest* const request_;
  LoadHost* const host_;
  LoadClass class_ = LoadClass::kConfig;
  PrefixSummary summary_;
  bool sends_records_ = false;  // holds a place
  bool last_ = false;           // what is being written ends the call
  std::string next_key_;        // where the next part begins
  uint64_t sent_records_ = 0;
  uint64_t part_bytes_ = 0;
  std::atomic<int64_t> writing_since_ns_ = 0;  // 0: no write is in flight
  std::unique_ptr<grpc::Alarm> alarm_;
  v1::LoadResponse response_;
};

}  // namespace holdfast::server
