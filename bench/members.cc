#include "bench/members.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/time/clock.h"
#include "base/strings.h"
#include "bench/drill_load.h"
#include "bench/local_cluster.h"
#include "bench/monotonic.h"
#include "bench/report.h"
#include "bench/session.h"

namespace holdfast::bench {
namespace {

constexpr int kAdded = 2;
constexpr absl::Duration kQuiet = absl::Seconds(3);   // the first row: nothing changes
constexpr absl::Duration kSettle = absl::Seconds(1);  // counts to the step before
constexpr absl::Duration kPoll = absl::Milliseconds(20);
constexpr absl::Duration kCallTimeout = absl::Seconds(5);
constexpr absl::Duration kStepTimeout = absl::Minutes(5);

std::unique_ptr<etcdserverpb::Cluster::Stub> ClusterStub(const std::string& endpoint) {
  return etcdserverpb::Cluster::NewStub(
      grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()));
}

void SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(kCallTimeout));
}

class Drill {
 public:
  Drill(const Options& options, LocalCluster& cluster, const std::atomic<bool>& cancelled)
      : options_(options), cluster_(cluster), cancelled_(cancelled) {
    DrillLoadOptions load = LoadOptionsOf(options, cluster.Endpoints());
    load.readers = options.clients;
    load_ = DrillLoad::Start(load);
  }

  absl::StatusOr<std::vector<MembersStep>> Run() {
    absl::Status status = Step("nothing changes", [this] { return Sleep(kQuiet); });
    for (int i = 0; status.ok() && i < kAdded; ++i) {
      const int voters = Voters();
      status = Step(fmt::format("add, {} to {}", voters, voters + 1), [this] { return Add(); });
    }
    for (int i = 0; status.ok() && i < kAdded; ++i) {
      const int voters = Voters();
      const bool leader = i + 1 == kAdded;
      status = Step(fmt::format("remove {}, {} to {}", leader ? "the leader" : "a follower", voters,
                                voters - 1),
                    [this, leader] { return Remove(leader); });
    }
    if (!status.ok()) return status;
    return steps_;
  }

 private:
  absl::Status Sleep(absl::Duration duration) const {
    const int64_t until_ns = MonotonicNs() + absl::ToInt64Nanoseconds(duration);
    while (MonotonicNs() < until_ns) {
      if (cancelled_) return absl::CancelledError("interrupted");
      absl::SleepFor(kPoll);
    }
    return absl::OkStatus();
  }

  int Voters() const {
    int voters = 0;
    for (int i = 0; i < cluster_.size(); ++i) voters += cluster_.retired(i) ? 0 : 1;
    return voters;
  }

  MembersStep::Kind Since(DrillLoad::Kind kind, const DrillLoad::Counts& begin, int64_t begin_ns,
                          int64_t end_ns) const {
    const DrillLoad::Counts end = load_->counts(kind);
    return {.answered = end.answered - begin.answered,
            .failed_tries = end.failed_tries - begin.failed_tries,
            .gap_ms = double(load_->LongestGapNs(kind, begin_ns, end_ns)) * 1e-6,
            .client_ms = double(load_->SlowestClientNs(kind, begin_ns, end_ns)) * 1e-6};
  }

  absl::Status Step(const std::string& name, const std::function<absl::Status()>& action) {
    if (absl::Status status = Sleep(kSettle); !status.ok()) return status;
    const DrillLoad::Counts writes = load_->counts(DrillLoad::Kind::kWrite);
    const DrillLoad::Counts reads = load_->counts(DrillLoad::Kind::kRead);
    const int64_t begin_ns = MonotonicNs();
    if (absl::Status status = action(); !status.ok()) {
      return absl::Status(status.code(),
                          base::ToAbsl(fmt::format("{}: {}", name, base::Message(status))));
    }
    const int64_t done_ns = MonotonicNs();
    if (absl::Status status = Sleep(kSettle); !status.ok()) return status;
    const int64_t end_ns = MonotonicNs();
    MembersStep step;
    step.name = name;
    step.seconds = double(done_ns - begin_ns) * 1e-9;
    step.writes = Since(DrillLoad::Kind::kWrite, writes, begin_ns, end_ns);
    step.reads = Since(DrillLoad::Kind::kRead, reads, begin_ns, end_ns);
    if (options_.verbose) fmt::print(stderr, "{}: {:.2f} s\n", name, step.seconds);
    steps_.push_back(std::move(step));
    return absl::OkStatus();
  }

  absl::Status Add() {
    const absl::StatusOr<int> added = cluster_.AddMember();
    if (!added.ok()) return added.status();
    const int64_t give_up_ns = MonotonicNs() + absl::ToInt64Nanoseconds(kStepTimeout);
    while (MonotonicNs() < give_up_ns) {
      if (!cluster_.Running(*added)) {
        return absl::UnavailableError("the new member has ended; its log ends:\n" +
                                      cluster_.LogTail(*added));
      }
      const auto status = AskStatus(cluster_.endpoint(*added), kCallTimeout);
      if (status.ok() && status->leader() != 0 && IsVoter(status->header().member_id())) {
        load_->SetEndpoints(cluster_.Endpoints());
        return absl::OkStatus();
      }
      if (absl::Status sleep = Sleep(kPoll); !sleep.ok()) return sleep;
    }
    return absl::DeadlineExceededError("the new member got no vote; its log ends:\n" +
                                       cluster_.LogTail(*added));
  }

  // Empty if member `i` does not answer.
  etcdserverpb::MemberListResponse List(int i) const {
    grpc::ClientContext context;
    SetDeadline(&context);
    etcdserverpb::MemberListRequest request;
    request.set_linearizable(true);
    etcdserverpb::MemberListResponse response;
    const grpc::Status status =
        ClusterStub(cluster_.endpoint(i))->MemberList(&context, request, &response);
    return status.ok() ? response : etcdserverpb::MemberListResponse();
  }

  bool IsVoter(uint64_t id) const {
    const etcdserverpb::MemberListResponse list = List(0);
    for (const etcdserverpb::Member& member : list.members()) {
      if (member.id() == id) return !member.islearner();
    }
    return false;
  }

  bool Lists(int i, uint64_t id) const {
    const etcdserverpb::MemberListResponse list = List(i);
    for (const etcdserverpb::Member& member : list.members()) {
      if (member.id() == id) return true;
    }
    return list.members_size() == 0;  // it cannot be told
  }

  absl::Status Remove(bool the_leader) {
    if (absl::Status status = cluster_.WaitForLeader(kCallTimeout); !status.ok()) return status;
    const absl::StatusOr<int> leader = cluster_.Leader();
    if (!leader.ok()) return leader.status();
    const int victim = the_leader ? *leader : Another(*leader);
    const auto victim_status = AskStatus(cluster_.endpoint(victim), kCallTimeout);
    if (!victim_status.ok()) return victim_status.status();
    grpc::ClientContext context;
    SetDeadline(&context);
    etcdserverpb::MemberRemoveRequest request;
    request.set_id(victim_status->header().member_id());
    etcdserverpb::MemberRemoveResponse response;
    const grpc::Status status =
        ClusterStub(cluster_.endpoint(Another(victim)))->MemberRemove(&context, request, &response);
    if (!status.ok() && Lists(Another(victim), request.id())) {
      return absl::UnavailableError(fmt::format("MemberRemove: {}", status.error_message()));
    }
    // The answer of a leader that removes itself may get lost with it.
    if (!status.ok()) fmt::print(stderr, "done, but answered: {}\n", status.error_message());
    cluster_.Retire(victim);
    load_->SetEndpoints(cluster_.Endpoints());
    return cluster_.WaitForLeader(kStepTimeout);
  }

  int Another(int than) const {
    for (int i = 0; i < cluster_.size(); ++i) {
      if (i != than && !cluster_.retired(i)) return i;
    }
    return than;
  }

  const Options& options_;
  LocalCluster& cluster_;
  const std::atomic<bool>& cancelled_;
  std::unique_ptr<DrillLoad> load_;
  std::vector<MembersStep> steps_;
};

nlohmann::json KindJson(const MembersStep::Kind& kind) {
  return {{"answered", kind.answered},
          {"failed_tries", kind.failed_tries},
          {"gap_ms", kind.gap_ms},
          {"client_ms", kind.client_ms}};
}

}  // namespace

std::string MembersText(const Options& options, const std::vector<MembersStep>& steps) {
  std::string text = fmt::format(
      "load      {} writers and {} linearizable readers, a try is given up after {}\n\n"
      "  {:<26}{:>8}  {:>40}  {:>40}\n  {:<26}{:>8}  {:>10}{:>8}{:>10}{:>12}  "
      "{:>10}{:>8}{:>10}{:>12}\n",
      options.clients, options.clients, absl::FormatDuration(options.try_timeout), "", "",
      "writes: done, failed tries, gaps (ms)", "reads: done, failed tries, gaps (ms)", "step", "s",
      "done", "failed", "anybody", "one client", "done", "failed", "anybody", "one client");
  for (const MembersStep& step : steps) {
    text += fmt::format("  {:<26}{:>8.2f}", step.name, step.seconds);
    for (const MembersStep::Kind& kind : {step.writes, step.reads}) {
      text += fmt::format("  {:>10}{:>8}{:>10}{:>12}", kind.answered, kind.failed_tries,
                          ShortNumber(kind.gap_ms), ShortNumber(kind.client_ms));
    }
    text += "\n";
  }
  return text;
}

nlohmann::json MembersJson(const Options& options, const std::vector<MembersStep>& steps) {
  nlohmann::json json = {{"clients", options.clients},
                         {"try_timeout_ms", absl::ToDoubleMilliseconds(options.try_timeout)}};
  for (const MembersStep& step : steps) {
    json["steps"].push_back({{"name", step.name},
                             {"seconds", step.seconds},
                             {"writes", KindJson(step.writes)},
                             {"reads", KindJson(step.reads)}});
  }
  return json;
}

absl::StatusOr<std::string> Members(const Options& options, const std::atomic<bool>& cancelled) {
  const Hardware hardware = ReadHardware();
  auto cluster = StartLocal(options, /*etcd=*/false, cancelled);
  if (!cluster.ok()) return cluster.status();
  Drill drill(options, **cluster, cancelled);
  const absl::StatusOr<std::vector<MembersStep>> steps = drill.Run();
  if (!steps.ok()) return steps.status();
  if (!options.json) return HeaderText(options, hardware) + MembersText(options, *steps);
  nlohmann::json json = HeaderJson(options, hardware);
  json["members"] = MembersJson(options, *steps);
  return json.dump(2) + "\n";
}

}  // namespace holdfast::bench
