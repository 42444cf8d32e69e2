// KV, Mirror and Sessions of one member of a FakeStore.
#include <algorithm>
#include <charconv>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <grpcpp/support/server_callback.h>

#include "base/record_digest.h"
#include "client/testing/fake_watch.h"
#include "client/testing/fake_world.h"
#include "client/testing/gated_call.h"
#include "etcd/rpc.grpc.pb.h"
#include "holdfast/client.grpc.pb.h"

namespace holdfast::testing::internal {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;
using holdfast::v1::LoadHead;
using holdfast::v1::LoadRequest;
using holdfast::v1::LoadResponse;

// Small, so that a test of a few hundred records crosses message borders.
constexpr size_t kRecordsPerMessage = 100;
constexpr uint64_t kSessionTtlMs = 3'600'000;
constexpr uint32_t kSessionWindow = 1024;

grpc::Status NoLeader() { return {grpc::StatusCode::UNAVAILABLE, "etcdserver: no leader"}; }
grpc::Status LostAnswer() { return {grpc::StatusCode::UNAVAILABLE, "Socket closed"}; }

std::optional<std::string_view> Find(const CallbackServerContext& context, const char* key) {
  const auto it = context.client_metadata().find(key);
  if (it == context.client_metadata().end()) return std::nullopt;
  return std::string_view(it->second.data(), it->second.size());
}

bool ParseNumber(std::string_view text, int base, uint64_t* number) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *number, base);
  return error == std::errc() && stop == end;
}

// --- calls with one answer ---

// Deletes itself.
class UnaryCall : public ServerUnaryReactor, public GatedCall {
 public:
  // `apply` fills the answer and its trailing metadata; under the world's mutex.
  UnaryCall(Member* member, const char* method, CallbackServerContext* context,
            std::function<grpc::Status(Trailing*)> apply)
      : GatedCall(member, method, context), apply_(std::move(apply)) {
    Enter();
  }
  void OnCancel() override { OnCancelled(); }
  void OnDone() override { delete this; }

 private:
  void Run() override {
    grpc::Status status;
    Trailing trailing;
    {
      std::lock_guard lock(world().mutex);
      status = apply_(&trailing);
      world().Happened();
    }
    if (lose_answer_) return Finish(LostAnswer());
    for (const auto& [key, value] : trailing) context_->AddTrailingMetadata(key, value);
    Finish(status);
  }
  void Refuse(const grpc::Status& status) override { Finish(status); }

  const std::function<grpc::Status(Trailing*)> apply_;
};

// --- sessions ---

// docs/sessions.md: session-sequence-lowest-digest, the outer two in hex.
struct Stamp {
  uint64_t session = 0;
  uint64_t sequence = 0;
  uint64_t lowest_unacknowledged = 0;
  uint64_t digest = 0;
};

grpc::Status ParseStamp(const CallbackServerContext& context, std::optional<Stamp>* stamp) {
  std::optional<std::string_view> text = Find(context, "holdfast-session");
  if (!text.has_value()) return grpc::Status::OK;
  std::vector<std::string_view> parts;
  for (size_t at = 0; at != std::string_view::npos;) {
    const size_t dash = text->find('-', at);
    parts.push_back(text->substr(at, dash == text->npos ? dash : dash - at));
    at = dash == text->npos ? dash : dash + 1;
  }
  Stamp parsed;
  if (parts.size() != 4 || !ParseNumber(parts[0], 16, &parsed.session) ||
      !ParseNumber(parts[1], 10, &parsed.sequence) ||
      !ParseNumber(parts[2], 10, &parsed.lowest_unacknowledged) ||
      !ParseNumber(parts[3], 16, &parsed.digest) || parsed.session == 0 ||
      parsed.lowest_unacknowledged == 0 || parsed.lowest_unacknowledged > parsed.sequence) {
    return {
        grpc::StatusCode::INVALID_ARGUMENT,
        fmt::format("holdfast: metadata holdfast-session is '{}': not a session's stamp", *text)};
  }
  *stamp = parsed;
  return grpc::Status::OK;
}

// Whether the write has taken effect already (then `response` is what it did), is the session's
// next, or is none of the session's. REQUIRES: the world's mutex.
grpc::Status FindOutcome(World& world, const Stamp& stamp, google::protobuf::MessageLite* response,
                         bool* found) {
  const auto it = world.sessions.find(stamp.session);
  if (it == world.sessions.end()) {
    return {grpc::StatusCode::ABORTED,
            fmt::format("holdfast: SESSION_EXPIRED: session {:x} is not known (any more), and the "
                        "write was not executed now: look, then write in a new session",
                        stamp.session)};
  }
  Session& session = it->second;
  const auto outcome = session.outcomes.find(stamp.sequence);
  if (outcome != session.outcomes.end() && outcome->second.digest != stamp.digest) {
    return {grpc::StatusCode::ABORTED,
            fmt::format("holdfast: SESSION_FORKED: sequence {} of session {:x} is another "
                        "write's; this one had no effect: give each process a client of its own",
                        stamp.sequence, stamp.session)};
  }
  *found = outcome != session.outcomes.end();
  if (!*found && stamp.sequence < session.lowest) {
    return {grpc::StatusCode::ABORTED,
            fmt::format("holdfast: SESSION_ACKNOWLEDGED: session sequence {} was acknowledged, so "
                        "its answer is forgotten; it was not executed now",
                        stamp.sequence)};
  }
  grpc::Status status;
  if (*found) {
    ++world.deduplicated;
    response->ParseFromString(outcome->second.response);
    status = outcome->second.status;
  }
  session.lowest = std::max(session.lowest, stamp.lowest_unacknowledged);
  session.outcomes.erase(session.outcomes.begin(), session.outcomes.lower_bound(session.lowest));
  return status;
}

// --- KV ---

class FakeKv : public etcdserverpb::KV::CallbackService {
 public:
  explicit FakeKv(Member* member) : member_(member) {}

  ServerUnaryReactor* Range(CallbackServerContext* context,
                            const etcdserverpb::RangeRequest* request,
                            etcdserverpb::RangeResponse* response) override {
    return new UnaryCall(member_, "Range", context, [=, this](Trailing* trailing) {
      return DoRange(*context, *request, response, trailing);
    });
  }
  ServerUnaryReactor* Put(CallbackServerContext* context, const etcdserverpb::PutRequest* request,
                          etcdserverpb::PutResponse* response) override {
    return Write("Put", context, request, response, &FakeData::Put);
  }
  ServerUnaryReactor* DeleteRange(CallbackServerContext* context,
                                  const etcdserverpb::DeleteRangeRequest* request,
                                  etcdserverpb::DeleteRangeResponse* response) override {
    return Write("DeleteRange", context, request, response, &FakeData::DeleteRange);
  }
  ServerUnaryReactor* Txn(CallbackServerContext* context, const etcdserverpb::TxnRequest* request,
                          etcdserverpb::TxnResponse* response) override {
    return Write("Txn", context, request, response, &FakeData::Txn);
  }
  ServerUnaryReactor* Compact(CallbackServerContext* context,
                              const etcdserverpb::CompactionRequest* request,
                              etcdserverpb::CompactionResponse* response) override {
    return new UnaryCall(member_, "Compact", context, [=, this](Trailing*) -> grpc::Status {
      if (member_->cut.has_value()) return NoLeader();
      grpc::Status status = world().data.Compact(request->revision());
      world().Fill(*member_, world().data.newest().revision, response->mutable_header());
      world().Feed();
      return status;
    });
  }

 private:
  World& world() const { return *member_->world; }

  grpc::Status DoRange(const CallbackServerContext& context,
                       const etcdserverpb::RangeRequest& request,
                       etcdserverpb::RangeResponse* response, Trailing* trailing) const {
    const FakeData::View view = world().ViewOf(*member_);
    if (!request.serializable() && member_->cut.has_value()) return NoLeader();
    world().AddAge(*member_, trailing);
    if (grpc::Status status = CheckTerms(context, request, view); !status.ok()) return status;
    world().Fill(*member_, view.revision, response->mutable_header());
    return world().data.Range(request, view, response);
  }

  grpc::Status CheckTerms(const CallbackServerContext& context,
                          const etcdserverpb::RangeRequest& request,
                          const FakeData::View& view) const {
    if (world().options.plain_etcd) return grpc::Status::OK;
    uint64_t number = 0;
    const auto min_revision = Find(context, "holdfast-min-revision");
    if (min_revision.has_value() && ParseNumber(*min_revision, 10, &number) &&
        static_cast<uint64_t>(view.revision) < number) {
      return {grpc::StatusCode::FAILED_PRECONDITION,
              fmt::format("holdfast: this member is at revision {}, below {}: ask another member",
                          view.revision, number)};
    }
    const auto max_age = Find(context, "holdfast-max-age-ms");
    if (!request.serializable() || !max_age.has_value() || !ParseNumber(*max_age, 10, &number)) {
      return grpc::Status::OK;
    }
    const std::optional<absl::Duration> age = world().AgeOf(*member_);
    if (age.has_value() && *age <= absl::Milliseconds(number)) return grpc::Status::OK;
    return {grpc::StatusCode::FAILED_PRECONDITION,
            fmt::format("holdfast: answer would be {} old, older than {} ms: ask another member, "
                        "or allow a larger age",
                        age.has_value() ? absl::FormatDuration(*age) : "an unknown time", number)};
  }

  template <class Request, class Response>
  ServerUnaryReactor* Write(const char* method, CallbackServerContext* context,
                            const Request* request, Response* response,
                            grpc::Status (FakeData::*apply)(const Request&, Response*)) {
    return new UnaryCall(member_, method, context, [=, this](Trailing* trailing) -> grpc::Status {
      if (member_->cut.has_value()) return NoLeader();
      std::optional<Stamp> stamp;
      if (grpc::Status status = ParseStamp(*context, &stamp); !status.ok()) return status;
      world().AddAge(*member_, trailing);
      bool found = false;
      if (stamp.has_value()) {
        grpc::Status status = FindOutcome(world(), *stamp, response, &found);
        // As the server: 0 and 1 are answers for good, nothing is none.
        if (status.ok() || found) {
          trailing->emplace_back("holdfast-deduplicated", found ? "1" : "0");
        }
        if (!status.ok() || found) return status;
      }
      grpc::Status status = (world().data.*apply)(*request, response);
      world().Fill(*member_, world().data.newest().revision, response->mutable_header());
      if (stamp.has_value()) {
        world().sessions[stamp->session].outcomes[stamp->sequence] = {
            stamp->digest, status, response->SerializeAsString()};
      }
      world().Feed();
      return status;
    });
  }

  Member* const member_;
};

class FakeWatchService : public etcdserverpb::Watch::CallbackService {
 public:
  explicit FakeWatchService(Member* member) : member_(member) {}
  grpc::ServerBidiReactor<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse>* Watch(
      CallbackServerContext* context) override {
    auto* const call = new WatchCall(member_, context);
    call->Enter();
    return call;
  }

 private:
  Member* const member_;
};

// --- Mirror ---

std::string DigestOf(const std::vector<mvccpb::KeyValue>& records) {
  base::RecordDigest digest;
  for (const mvccpb::KeyValue& kv : records) {
    digest.Add(base::DigestOfRecord(
        base::DigestOfContent(kv.key(), kv.value()), static_cast<uint64_t>(kv.create_revision()),
        static_cast<uint64_t>(kv.mod_revision()), static_cast<uint64_t>(kv.version()), kv.lease()));
  }
  return digest.ToBytes();
}

// Deletes itself.
class LoadCall : public grpc::ServerWriteReactor<LoadResponse>, public GatedCall {
 public:
  LoadCall(Member* member, CallbackServerContext* context, const LoadRequest* request)
      : GatedCall(member, "Load", context), request_(*request) {
    Enter();
  }
  void OnCancel() override { OnCancelled(); }
  void OnDone() override { delete this; }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    Next();
  }

 private:
  void Refuse(const grpc::Status& status) override { Finish(status); }
  void Run() override {
    grpc::Status status;
    {
      std::lock_guard lock(world().mutex);
      status = Answer();
      world().Happened();
    }
    if (lose_answer_) status = LostAnswer();
    if (!status.ok()) return Finish(status);
    Next();
  }

  // One write at a time: no two threads are ever here.
  void Next() {
    if (next_ == responses_.size()) return Finish(grpc::Status::OK);
    StartWrite(&responses_[next_++]);
  }

  grpc::Status Answer() {
    const FakeData::View view = world().ViewOf(*member_);
    const uint64_t incarnation = world().IncarnationOf(*member_);
    const bool same = request_.revision() > 0 && request_.incarnation() == incarnation;
    if (same && static_cast<int64_t>(request_.revision()) > view.revision) {
      return {grpc::StatusCode::FAILED_PRECONDITION,
              fmt::format("holdfast: this member is at revision {}, below the {} of the caller's "
                          "copy: ask another member",
                          view.revision, request_.revision())};
    }
    LoadHead head;
    head.set_incarnation(incarnation);
    head.set_cluster_id(world().options.cluster_id);
    head.set_revision(static_cast<uint64_t>(view.revision));
    const std::vector<mvccpb::KeyValue> records =
        world().data.Records(request_.prefix(), view.revision);
    // What a watch needs that begins behind the caller's revision is there.
    if (same && static_cast<int64_t>(request_.revision()) + 1 >= view.compacted) {
      head.set_kind(LoadHead::RESUME);
      head.set_revision(request_.revision());
    } else if (!request_.digest().empty() && request_.digest() == DigestOf(records)) {
      head.set_kind(LoadHead::UNCHANGED);
    } else {
      head.set_kind(LoadHead::SNAPSHOT);
      head.set_records(records.size());
      uint64_t bytes = 0;
      for (const auto& kv : records) bytes += kv.key().size() + kv.value().size();
      head.set_bytes(bytes);
    }
    ++world().loads[head.kind()];
    *responses_.emplace_back().mutable_head() = head;
    if (head.kind() == LoadHead::SNAPSHOT) {
      for (size_t i = 0; i < records.size(); ++i) {
        if (i % kRecordsPerMessage == 0) responses_.emplace_back();
        *responses_.back().add_records() = records[i];
      }
    }
    responses_.back().set_last(true);
    return grpc::Status::OK;
  }

  const LoadRequest request_;
  std::vector<LoadResponse> responses_;
  size_t next_ = 0;
};

class FakeMirror : public holdfast::v1::Mirror::CallbackService {
 public:
  explicit FakeMirror(Member* member) : member_(member) {}

  grpc::ServerWriteReactor<LoadResponse>* Load(CallbackServerContext* context,
                                               const LoadRequest* request) override {
    return new LoadCall(member_, context, request);
  }

  ServerUnaryReactor* Report(CallbackServerContext* context,
                             const holdfast::v1::ReportRequest* request,
                             holdfast::v1::ReportResponse*) override {
    return new UnaryCall(member_, "Report", context, [=, this](Trailing*) {
      World& world = *member_->world;
      const auto it = std::find_if(
          world.reports.begin(), world.reports.end(),
          [request](const auto& report) { return report.client_id() == request->client_id(); });
      if (it == world.reports.end()) {
        world.reports.push_back(*request);
      } else {
        *it = *request;
      }
      std::erase(world.report_order, request->client_id());
      world.report_order.push_back(request->client_id());
      return grpc::Status::OK;
    });
  }

  ServerUnaryReactor* Clients(CallbackServerContext* context, const holdfast::v1::ClientsRequest*,
                              holdfast::v1::ClientsResponse* response) override {
    return new UnaryCall(member_, "Clients", context, [=, this](Trailing*) {
      World& world = *member_->world;
      world.Fill(*member_, world.ViewOf(*member_).revision, response->mutable_header());
      for (const auto& report : world.reports) {
        if (!report.leaving()) *response->add_clients()->mutable_report() = report;
      }
      return grpc::Status::OK;
    });
  }

 private:
  Member* const member_;
};

// --- Sessions ---

class FakeSessions : public holdfast::v1::Sessions::CallbackService {
 public:
  explicit FakeSessions(Member* member) : member_(member) {}

  ServerUnaryReactor* Open(CallbackServerContext* context, const holdfast::v1::SessionOpenRequest*,
                           holdfast::v1::SessionOpenResponse* response) override {
    return new UnaryCall(member_, "SessionOpen", context, [=, this](Trailing*) -> grpc::Status {
      World& world = *member_->world;
      if (member_->cut.has_value()) return NoLeader();
      world.Fill(*member_, world.data.newest().revision, response->mutable_header());
      response->set_session(world.next_session++);
      response->set_ttl_ms(kSessionTtlMs);
      response->set_window(kSessionWindow);
      world.sessions[response->session()];
      return grpc::Status::OK;
    });
  }

  ServerUnaryReactor* Close(CallbackServerContext* context,
                            const holdfast::v1::SessionCloseRequest* request,
                            holdfast::v1::SessionCloseResponse* response) override {
    return new UnaryCall(member_, "SessionClose", context, [=, this](Trailing*) -> grpc::Status {
      World& world = *member_->world;
      if (member_->cut.has_value()) return NoLeader();
      world.Fill(*member_, world.data.newest().revision, response->mutable_header());
      world.sessions.erase(request->session());
      return grpc::Status::OK;
    });
  }

 private:
  Member* const member_;
};

}  // namespace

std::vector<std::unique_ptr<grpc::Service>> MakeServices(Member* member, bool plain_etcd) {
  std::vector<std::unique_ptr<grpc::Service>> services;
  services.push_back(std::make_unique<FakeKv>(member));
  services.push_back(std::make_unique<FakeWatchService>(member));
  if (plain_etcd) return services;
  services.push_back(std::make_unique<FakeMirror>(member));
  services.push_back(std::make_unique<FakeSessions>(member));
  return services;
}

}  // namespace holdfast::testing::internal
