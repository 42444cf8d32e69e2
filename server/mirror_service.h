// holdfast.v1.Mirror (api/holdfast/client.proto, docs/mirror-service.md): how a client's copy of a
// prefix is brought up to date, and what clients tell of themselves.
//
// Load. A caller whose copy is of this incarnation, and all of whose missing events a watch can
// still be given, goes on from where it is (RESUME): one look at two numbers. Else the prefix is
// summed up (prefix_summaries.h), and its digest compared with the caller's (UNCHANGED), or its
// records are sent (SNAPSHOT), at one revision, part by part; a part is read when the one before is
// on its way, on a view of its own. So a stream holds one part, and pins nothing while its client
// is slow; a client that takes nothing for `stall_max` is cut off. Any member answers from its own
// data, with or without a leader; one that is behind the caller says so.
// Admission by class: load_admission.h.
//
// Errors of Load, beside those that every read has:
//   FAILED_PRECONDITION  this member is behind the caller's copy: ask another member
//   UNAVAILABLE          this member has no data of the cluster yet: ask another member
//   RESOURCE_EXHAUSTED   not now; trailing metadata holdfast-retry-after-ms says when
//   ABORTED              what was being sent is gone (compacted, replaced): load again
//   INVALID_ARGUMENT     a prefix or digest of a wrong size
// Threads: gRPC's, and scan pools of its own: one thread for auth, `scan_threads` for the others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include <grpcpp/impl/codegen/service_type.h>

#include "absl/time/time.h"
#include "server/admission.h"
#include "server/client_table.h"
#include "server/load_admission.h"
#include "server/member_view.h"
#include "server/metrics.h"
#include "server/prefix_summaries.h"

namespace holdfast::server {

// Request metadata of Load.
inline constexpr char kLoadClassKey[] = "holdfast-class";
// Trailing metadata of a refusal: whole milliseconds.
inline constexpr char kRetryAfterKey[] = "holdfast-retry-after-ms";

class MirrorService {
 public:
  struct Options {
    LoadLimits limits = {};
    size_t part_bytes = size_t{1} << 20;
    absl::Duration stall_max = absl::Seconds(30);
    int scan_threads = 2;
    ClientTable::Options clients = {};
    absl::Duration keep_summaries = absl::Seconds(2);
    uint64_t seed = 0;
    // A read met rot: the process must stop. Null (tests only): the error is the answer.
    std::function<void(const absl::Status&)> on_fatal = nullptr;
  };
  static constexpr size_t kPrefixBytesMax = size_t{8} << 10;

  struct Counters {
    Counter resumed;
    Counter unchanged;
    Counter snapshots;  // begun
    std::array<Counter, kLoadClasses> refused;
    Counter bytes;  // of records sent: keys and values
  };

  // `admission`, and what `member` points at, outlive the service and its gRPC server.
  static std::unique_ptr<MirrorService> Create(Options options, const MemberView& member,
                                               const Admission* admission);
  virtual ~MirrorService() = default;

  // To be registered with the server that listens on the client address.
  virtual grpc::Service* service() = 0;
  virtual const Counters& counters() const = 0;
  virtual uint64_t scans() const = 0;  // of prefixes, begun
  virtual int snapshots_under_way() const = 0;
  // The service outlives the registry's last scrape.
  virtual void RegisterMetrics(MetricsRegistry* registry) = 0;

  // Ends what is under way with ErrStopped. Before the gRPC server is shut down. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace holdfast::server
