#include "client/ctl/remote.h"

#include <algorithm>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "absl/time/clock.h"
#include "base/strings.h"
#include "client/endpoint.h"
#include "client/grpc_time.h"
#include "client/rpc.h"

namespace holdfast::ctl {
namespace {

constexpr char kIncarnationKey[] = "holdfast-incarnation";
constexpr absl::Duration kReconnect = absl::Milliseconds(200);
// Leases of one keep-alive stream that are sent before their answers are read.
constexpr size_t kKeepAliveBurst = 256;

uint64_t IncarnationOf(const grpc::ClientContext& context) {
  const auto& trailing = context.GetServerTrailingMetadata();
  const auto it = trailing.find(kIncarnationKey);
  if (it == trailing.end()) return 0;
  return internal::ParseIncarnation(std::string_view(it->second.data(), it->second.size()));
}

}  // namespace

std::string AllKeys() { return std::string(kFirstKey, 1); }

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      base::ToAbsl(base::Printable(status.error_message(), 400)));
}

absl::StatusOr<std::unique_ptr<Remote>> Remote::Open(const std::vector<std::string>& endpoints,
                                                     absl::Duration timeout) {
  std::unique_ptr<Remote> remote(new Remote);
  remote->timeout_ = timeout;
  for (const std::string& text : endpoints) {
    const auto endpoint = internal::ParseEndpoint(text);
    if (!endpoint.ok()) return endpoint.status();
    remote->channels_.push_back(internal::MakeChannel(*endpoint));
    remote->names_.push_back(endpoint->name);
  }
  if (remote->channels_.empty()) return absl::InvalidArgumentError("no endpoint is given");
  return remote;
}

std::vector<std::shared_ptr<grpc::Channel>> Remote::channels() const {
  std::vector<std::shared_ptr<grpc::Channel>> all;
  const size_t first = preferred_.load();
  for (size_t i = 0; i < channels_.size(); ++i) {
    all.push_back(channels_[(first + i) % channels_.size()]);
  }
  return all;
}

absl::Status Remote::Try(const std::function<grpc::Status(const std::shared_ptr<grpc::Channel>&,
                                                          grpc::ClientContext*)>& call) {
  std::string said;
  const size_t first = preferred_.load();
  for (size_t i = 0; i < channels_.size(); ++i) {
    const size_t at = (first + i) % channels_.size();
    grpc::ClientContext context;
    context.set_deadline(
        internal::ToGrpcTimespan(timeout_ / static_cast<int64_t>(channels_.size())));
    const grpc::Status status = call(channels_[at], &context);
    const bool answered = status.error_code() != grpc::StatusCode::UNAVAILABLE &&
                          status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED;
    if (answered) {
      preferred_.store(at);
      return FromGrpc(status);
    }
    said += fmt::format("{}{}: {}", said.empty() ? "" : "; ", names_[at],
                        base::Printable(status.error_message(), 200));
  }
  return absl::UnavailableError(base::ToAbsl(said));
}

absl::Status Remote::Range(const etcdserverpb::RangeRequest& request,
                           etcdserverpb::RangeResponse* response, StoreState* state) {
  return Try([&](const auto& channel, grpc::ClientContext* context) {
    const grpc::Status status =
        etcdserverpb::KV::NewStub(channel)->Range(context, request, response);
    if (status.ok() && state != nullptr) {
      state->cluster_id = response->header().cluster_id();
      state->revision = response->header().revision();
      state->incarnation = IncarnationOf(*context);
    }
    return status;
  });
}

absl::StatusOr<StoreState> Remote::State() {
  etcdserverpb::RangeRequest request;
  request.set_key("holdfastctl/state");  // it need not exist
  etcdserverpb::RangeResponse response;
  StoreState state;
  if (absl::Status status = Range(request, &response, &state); !status.ok()) return status;
  return state;
}

absl::StatusOr<std::vector<int64_t>> Remote::Leases() {
  etcdserverpb::LeaseLeasesResponse response;
  const absl::Status status = Try([&](const auto& channel, grpc::ClientContext* context) {
    return etcdserverpb::Lease::NewStub(channel)->LeaseLeases(context, {}, &response);
  });
  if (!status.ok()) return status;
  std::vector<int64_t> ids;
  for (const etcdserverpb::LeaseStatus& lease : response.leases()) ids.push_back(lease.id());
  return ids;
}

absl::StatusOr<etcdserverpb::LeaseTimeToLiveResponse> Remote::TimeToLive(int64_t lease, bool keys) {
  etcdserverpb::LeaseTimeToLiveRequest request;
  request.set_id(lease);
  request.set_keys(keys);
  etcdserverpb::LeaseTimeToLiveResponse response;
  const absl::Status status = Try([&](const auto& channel, grpc::ClientContext* context) {
    return etcdserverpb::Lease::NewStub(channel)->LeaseTimeToLive(context, request, &response);
  });
  if (!status.ok()) {
    // Holdfast and etcd answer -1; some proxies the error.
    if (!absl::IsNotFound(status)) return status;
    response.set_ttl(-1);
  }
  return response;
}

absl::Status Remote::Grant(int64_t lease, int64_t ttl_s) {
  etcdserverpb::LeaseGrantRequest request;
  request.set_id(lease);
  request.set_ttl(ttl_s);
  etcdserverpb::LeaseGrantResponse response;
  const absl::Status status = Try([&](const auto& channel, grpc::ClientContext* context) {
    return etcdserverpb::Lease::NewStub(channel)->LeaseGrant(context, request, &response);
  });
  const bool exists = absl::IsFailedPrecondition(status) &&
                      base::Message(status) == "etcdserver: lease already exists";
  return exists ? absl::OkStatus() : status;
}

absl::Status Remote::KeepAlive(const std::vector<int64_t>& leases) {
  if (leases.empty()) return absl::OkStatus();
  return Try([&](const auto& channel, grpc::ClientContext* context) {
    const auto stub = etcdserverpb::Lease::NewStub(channel);
    const auto stream = stub->LeaseKeepAlive(context);
    etcdserverpb::LeaseKeepAliveResponse response;
    for (size_t begin = 0; begin < leases.size(); begin += kKeepAliveBurst) {
      const size_t end = std::min(leases.size(), begin + kKeepAliveBurst);
      for (size_t i = begin; i < end; ++i) {
        etcdserverpb::LeaseKeepAliveRequest request;
        request.set_id(leases[i]);
        if (!stream->Write(request)) return stream->Finish();
      }
      for (size_t i = begin; i < end; ++i) {
        if (!stream->Read(&response)) return stream->Finish();
      }
    }
    stream->WritesDone();
    while (stream->Read(&response)) continue;
    return stream->Finish();
  });
}

void RevisionWatch::Stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  if (context_ != nullptr) context_->TryCancel();
}

absl::Status RevisionWatch::Run(int64_t from_revision, absl::Duration give_up, const Visit& visit) {
  next_ = from_revision;
  last_heard_ = absl::Now();
  absl::Status status;
  while (true) {
    for (const auto& channel : remote_.channels()) {
      {
        std::lock_guard lock(mutex_);
        if (stopped_) return absl::CancelledError("stopped");
      }
      const End end = RunOnce(channel, visit, &status);
      if (end == End::kEnough) return absl::OkStatus();
      if (end == End::kFailed) return status;
    }
    if (absl::Now() - last_heard_ > give_up) return status;
    std::this_thread::sleep_for(absl::ToChronoMilliseconds(kReconnect));
  }
}

RevisionWatch::End RevisionWatch::RunOnce(const std::shared_ptr<grpc::Channel>& channel,
                                          const Visit& visit, absl::Status* status) {
  grpc::ClientContext context;
  // A member that lost its quorum would hold us on old data without a word.
  context.AddMetadata("hasleader", "true");
  {
    std::lock_guard lock(mutex_);
    if (stopped_) {
      *status = absl::CancelledError("stopped");
      return End::kFailed;
    }
    context_ = &context;
  }
  const auto stub = etcdserverpb::Watch::NewStub(channel);
  const auto stream = stub->Watch(&context);
  etcdserverpb::WatchRequest request;
  request.mutable_create_request()->set_key(AllKeys());
  request.mutable_create_request()->set_range_end(AllKeys());
  request.mutable_create_request()->set_start_revision(next_);
  stream->Write(request);
  etcdserverpb::WatchResponse response;
  End end = End::kBroken;
  while (end == End::kBroken && stream->Read(&response)) {
    last_heard_ = absl::Now();
    if (response.compact_revision() > 0) {
      *status = absl::OutOfRangeError(
          base::ToAbsl(fmt::format("revision {} was compacted away: history begins behind {}",
                                   next_, response.compact_revision())));
      end = End::kFailed;
    } else if (response.canceled()) {
      *status = absl::FailedPreconditionError(response.cancel_reason());
      end = End::kFailed;
    }
    // Without fragments a response holds whole revisions.
    for (int i = 0; end == End::kBroken && i < response.events_size();) {
      WatchedRevision revision{.revision = response.events(i).kv().mod_revision(), .events = {}};
      for (; i < response.events_size() &&
             response.events(i).kv().mod_revision() == revision.revision;
           ++i) {
        revision.events.push_back(std::move(*response.mutable_events(i)));
      }
      if (revision.revision < next_) continue;
      next_ = revision.revision + 1;
      if (!visit(std::move(revision))) end = End::kEnough;
    }
  }
  if (end != End::kBroken) context.TryCancel();
  const grpc::Status finished = stream->Finish();
  {
    std::lock_guard lock(mutex_);
    context_ = nullptr;
    if (stopped_ && end == End::kBroken) {
      *status = absl::CancelledError("stopped");
      return End::kFailed;
    }
  }
  if (end == End::kBroken) {
    *status = FromGrpc(finished);
    if (status->ok()) *status = absl::UnavailableError("the watch ended");
    if (absl::IsUnimplemented(*status) || absl::IsPermissionDenied(*status) ||
        absl::IsUnauthenticated(*status)) {
      return End::kFailed;
    }
  }
  return end;
}

}  // namespace holdfast::ctl
