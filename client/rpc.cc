#include "client/rpc.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "client/grpc_time.h"

namespace holdfast::internal {
namespace {

constexpr char kAgeKey[] = "holdfast-age-ms";
constexpr char kProofKey[] = "holdfast-proof";
constexpr char kSourceKey[] = "holdfast-source";
constexpr char kIncarnationKey[] = "holdfast-incarnation";
constexpr char kDeduplicatedKey[] = "holdfast-deduplicated";
constexpr char kRetryAfterKey[] = "holdfast-retry-after-ms";
constexpr char kRequireLeaderKey[] = "hasleader";
constexpr char kSessionKey[] = "holdfast-session";
constexpr char kMaxAgeKey[] = "holdfast-max-age-ms";

// TCP and HTTP/2 settings together: a host that is silent, or a process that is stopped, is given
// up after this and the call moves on.
constexpr int kConnectTimeoutMs = 1000;
constexpr int kReconnectFirstMs = 50;
constexpr int kReconnectMaxMs = 3000;
// gRPC connects by itself for ever once a call has asked for it, whether or not anybody calls any
// more. Who keeps a connection through long outages wants it rarer, and dials himself when there
// are calls (connections.h).
constexpr int kReconnectSeldomMs = 120'000;
// etcd's servers take offence at pings more often than every 5 s.
constexpr int kKeepaliveTimeMs = 10'000;
constexpr int kKeepaliveTimeoutMs = 3000;
constexpr int kResolveAgainMs = 1000;

std::optional<std::string_view> Find(
    const std::multimap<grpc::string_ref, grpc::string_ref>& metadata, const char* key) {
  const auto it = metadata.find(key);
  if (it == metadata.end()) return std::nullopt;
  return std::string_view(it->second.data(), it->second.size());
}

}  // namespace

const char* PathOf(Method method) {
  switch (method) {
    case Method::kRange:
      return "/etcdserverpb.KV/Range";
    case Method::kPut:
      return "/etcdserverpb.KV/Put";
    case Method::kDeleteRange:
      return "/etcdserverpb.KV/DeleteRange";
    case Method::kTxn:
      return "/etcdserverpb.KV/Txn";
    case Method::kSessionOpen:
      return "/holdfast.v1.Sessions/Open";
    case Method::kSessionClose:
      return "/holdfast.v1.Sessions/Close";
  }
  return "";
}

std::string Stamp::ToText() const {
  return fmt::format("{:x}-{}-{}-{:x}", session, sequence, lowest_unacknowledged, digest);
}

std::shared_ptr<grpc::Channel> MakeChannel(const Endpoint& endpoint, Dialing dialing) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // No detour through a proxy from the environment, and no connection shared with another client of
  // this process, whose back-off would be ours.
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // gRPC uses the "min reconnect backoff" as its connect timeout.
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS,
              dialing == Dialing::kOnce ? kReconnectSeldomMs : kReconnectFirstMs);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS,
              dialing == Dialing::kByItself ? kReconnectMaxMs : kReconnectSeldomMs);
  args.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, kResolveAgainMs);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  // Pages bound an answer; a limit here would turn a large one into an error after the fact.
  args.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(endpoint.target, grpc::InsecureChannelCredentials(), args);
}

AgeReport ParseAgeReport(std::optional<std::string_view> age_ms,
                         std::optional<std::string_view> proof,
                         std::optional<std::string_view> source) {
  AgeReport report;
  if (source == "leader") report.source = Source::kLeader;
  if (source == "follower") report.source = Source::kFollower;
  if (!age_ms.has_value() || proof != "proven") return report;
  int64_t ms = 0;
  const char* end = age_ms->data() + age_ms->size();
  const auto [stop, error] = std::from_chars(age_ms->data(), end, ms);
  if (error != std::errc() || stop != end || ms < 0 || ms > kAgeMsMax) return report;
  report.age = absl::Milliseconds(ms);
  return report;
}

std::optional<absl::Duration> ParseRetryAfter(std::optional<std::string_view> ms) {
  if (!ms.has_value()) return std::nullopt;
  int64_t number = 0;
  const char* end = ms->data() + ms->size();
  const auto [stop, error] = std::from_chars(ms->data(), end, number);
  if (error != std::errc() || stop != end || number < 0) return std::nullopt;
  return std::min(absl::Milliseconds(number), kRetryAfterMax);
}

uint64_t ParseIncarnation(std::optional<std::string_view> hex) {
  if (!hex.has_value()) return 0;
  uint64_t incarnation = 0;
  const char* end = hex->data() + hex->size();
  const auto [stop, error] = std::from_chars(hex->data(), end, incarnation, 16);
  return error == std::errc() && stop == end ? incarnation : 0;
}

std::shared_ptr<Rpc> Rpc::Start(EventLoop* loop, const std::shared_ptr<grpc::Channel>& channel,
                                RpcRequest request, Done done) {
  // A READY connection takes the request in one batch. Otherwise the message waits until a
  // connection has taken the call, which makes "refused" a proof that nothing was sent.
  const bool connected = channel->GetState(/*try_to_connect=*/true) == GRPC_CHANNEL_READY;
  std::shared_ptr<Rpc> rpc(new Rpc(loop, channel, std::move(request), std::move(done)));
  rpc->self_ = rpc;
  if (connected) {
    rpc->StartOnConnection();
  } else {
    rpc->StartHeldBack();
  }
  return rpc;
}

Rpc::Rpc(EventLoop* loop, const std::shared_ptr<grpc::Channel>& channel, RpcRequest request,
         Done done)
    : loop_(loop), stub_(channel), request_(std::move(request)), done_(std::move(done)) {
  context_.set_deadline(ToGrpcTimespan(request_.timeout));
  if (request_.require_leader) context_.AddMetadata(kRequireLeaderKey, "true");
  if (request_.max_age.has_value()) {
    context_.AddMetadata(kMaxAgeKey, std::to_string(absl::ToInt64Milliseconds(*request_.max_age)));
  }
  if (request_.stamp.has_value()) context_.AddMetadata(kSessionKey, request_.stamp->ToText());
}

grpc::ByteBuffer Rpc::TakeBody() {
  const grpc::Slice slice(request_.body);
  request_.body.clear();
  return grpc::ByteBuffer(&slice, 1);
}

void Rpc::StartOnConnection() {
  unary_ = stub_.PrepareUnaryCall(&context_, PathOf(request_.method), TakeBody(), loop_->queue());
  unary_->StartCall();
  unary_->Finish(&reply_.body, &reply_.status, finished_.tag());
}

void Rpc::StartHeldBack() {
  reply_.sent = false;
  stream_ = stub_.PrepareCall(&context_, PathOf(request_.method), loop_->queue());
  stream_->StartCall(started_.tag());
}

void Rpc::OnStarted(bool ok) {
  if (!ok) {
    stream_->Finish(&reply_.status, finished_.tag());
    return;
  }
  reply_.sent = true;
  pending_ = 2;
  // Both before either completes: a server may end the call without reading.
  stream_->WriteLast(TakeBody(), grpc::WriteOptions(), written_.tag());
  stream_->Read(&reply_.body, read_.tag());
}

void Rpc::OnWritten(bool) {
  if (--pending_ == 0) stream_->Finish(&reply_.status, finished_.tag());
}

void Rpc::OnRead(bool ok) {
  if (!ok) reply_.body.Clear();
  if (--pending_ == 0) stream_->Finish(&reply_.status, finished_.tag());
}

void Rpc::OnFinished(bool) {
  const std::shared_ptr<Rpc> self = std::move(self_);
  const auto& trailing = context_.GetServerTrailingMetadata();
  reply_.age = ParseAgeReport(Find(trailing, kAgeKey), Find(trailing, kProofKey),
                              Find(trailing, kSourceKey));
  reply_.incarnation = ParseIncarnation(Find(trailing, kIncarnationKey));
  if (const auto told = Find(trailing, kDeduplicatedKey); told == "0" || told == "1") {
    reply_.deduplicated = told == "1";
  }
  reply_.retry_after = ParseRetryAfter(Find(trailing, kRetryAfterKey));
  std::move(done_)(std::move(reply_));
}

}  // namespace holdfast::internal
