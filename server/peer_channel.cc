#include "server/peer_channel.h"

#include <fmt/format.h>

#include "base/strings.h"

namespace holdfast::server {
namespace {

int Milliseconds(absl::Duration d) { return static_cast<int>(absl::ToInt64Milliseconds(d)); }

int MaxGrpcMessageBytes(const PeerTransport::Options& options) {
  return static_cast<int>(options.max_frame_bytes + kFrameSlackBytes);
}

}  // namespace

absl::StatusOr<std::string> PeerTarget(std::string_view url) {
  constexpr std::string_view kHttp = "http://";
  std::string_view address = url;
  if (address.starts_with(kHttp)) address.remove_prefix(kHttp.size());
  while (address.ends_with('/')) address.remove_suffix(1);
  const size_t colon = address.rfind(':');
  if (address.find('/') != std::string_view::npos || colon == std::string_view::npos ||
      colon == 0 || colon + 1 == address.size()) {
    return absl::InvalidArgumentError(base::ToAbsl(fmt::format(
        "peer URL '{}' is not of the form http://host:port", base::Printable(url, 256))));
  }
  return "dns:///" + std::string(address);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> CreatePeerChannel(
    const PeerTransport::Options& options, std::string_view url) {
  absl::StatusOr<std::string> target = PeerTarget(url);
  if (!target.ok()) return target.status();
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(MaxGrpcMessageBytes(options));
  args.SetMaxSendMessageSize(MaxGrpcMessageBytes(options));
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // members talk directly, whatever the environment
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, Milliseconds(options.reconnect_min));
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, Milliseconds(options.reconnect_max));
  // Not reconnect_min: in gRPC this is also how long a connection attempt may take.
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, Milliseconds(kConnectTimeout));
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive));
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive));
  args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return grpc::CreateCustomChannel(*target, grpc::InsecureChannelCredentials(), args);
}

void PeerTransport::ConfigureServer(const Options& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(MaxGrpcMessageBytes(options));
  builder->SetMaxSendMessageSize(MaxGrpcMessageBytes(options));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive));
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Two followers have little to say to each other; without this the pings of such a quiet stream
  // count as abuse and the connection is cut.
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              Milliseconds(options.keepalive / 4));
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
}

}  // namespace holdfast::server
