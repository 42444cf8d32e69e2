#include "server/rpc_metrics.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>

#include <utility>

#include "base/strings.h"

namespace holdfast::server {
namespace {

using google::protobuf::MethodDescriptor;
using grpc::experimental::InterceptionHookPoints;

constexpr std::array<const char*, RpcMetrics::kCodes> kCodeNames = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};

// As go-grpc-prometheus names them.
const char* TypeOf(const MethodDescriptor& method) {
  if (method.client_streaming()) {
    return method.server_streaming() ? "bidi_stream" : "client_stream";
  }
  return method.server_streaming() ? "server_stream" : "unary";
}

class CountingInterceptor : public grpc::experimental::Interceptor {
 public:
  explicit CountingInterceptor(RpcMetrics::Method* method) : method_(method) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    // A read that met the end of the stream comes here too, without a message.
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_MESSAGE) &&
        batch->GetRecvMessage() != nullptr) {
      method_->received.Add();
    }
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_MESSAGE)) {
      method_->sent.Add();
    }
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const int code = static_cast<int>(batch->GetSendStatus().error_code());
      const int known = code >= 0 && code < RpcMetrics::kCodes
                            ? code
                            : static_cast<int>(grpc::StatusCode::UNKNOWN);
      method_->handled[static_cast<size_t>(known)].Add();
    }
    batch->Proceed();
  }

 private:
  RpcMetrics::Method* const method_;
};

class Factory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit Factory(const RpcMetrics* metrics) : metrics_(metrics) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    RpcMetrics::Method* method = metrics_->Find(info->method());
    if (method == nullptr) return nullptr;
    method->started.Add();
    return new CountingInterceptor(method);
  }

 private:
  const RpcMetrics* const metrics_;
};

MetricLabels LabelsOf(const RpcMetrics::Method& method) {
  return {
      {"grpc_method", method.method}, {"grpc_service", method.service}, {"grpc_type", method.type}};
}

}  // namespace

RpcMetrics::RpcMetrics(const std::vector<std::string>& services) {
  for (const std::string& name : services) {
    const google::protobuf::ServiceDescriptor* service =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
    for (int i = 0; service != nullptr && i < service->method_count(); ++i) {
      const MethodDescriptor& descriptor = *service->method(i);
      auto method = std::make_unique<Method>();
      method->service = name;
      method->method = descriptor.name();
      method->type = TypeOf(descriptor);
      by_path_[fmt::format("/{}/{}", name, descriptor.name())] = method.get();
      methods_.push_back(std::move(method));
    }
  }
}

RpcMetrics::~RpcMetrics() = default;

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
RpcMetrics::NewInterceptorFactory() {
  return std::make_unique<Factory>(this);
}

RpcMetrics::Method* RpcMetrics::Find(std::string_view path) const {
  const auto it = by_path_.find(base::ToAbsl(path));
  return it == by_path_.end() ? nullptr : it->second;
}

uint64_t RpcMetrics::Succeeded(std::string_view path) const {
  const Method* method = Find(path);
  return method == nullptr ? 0 : method->handled[0].value();
}

void RpcMetrics::Register(MetricsRegistry* registry) const {
  const auto each = [this](Counter Method::*counter) {
    return [this, counter] {
      std::vector<MetricSample> samples;
      for (const auto& method : methods_) {
        samples.push_back({LabelsOf(*method), static_cast<double>(((*method).*counter).value())});
      }
      return samples;
    };
  };
  registry->AddSamples("grpc_server_started_total", "Total number of RPCs started on the server.",
                       MetricKind::kCounter, each(&Method::started));
  registry->AddSamples("grpc_server_msg_received_total",
                       "Total number of RPC stream messages received on the server.",
                       MetricKind::kCounter, each(&Method::received));
  registry->AddSamples("grpc_server_msg_sent_total",
                       "Total number of gRPC stream messages sent by the server.",
                       MetricKind::kCounter, each(&Method::sent));
  registry->AddSamples(
      "grpc_server_handled_total",
      "Total number of RPCs completed on the server, regardless of success or failure.",
      MetricKind::kCounter, [this] {
        std::vector<MetricSample> samples;
        for (const auto& method : methods_) {
          for (size_t code = 0; code < kCodeNames.size(); ++code) {
            const uint64_t count = method->handled[code].value();
            // Seventeen times all methods would be a long page of zeros; the one that rates are
            // made of is always there.
            if (count == 0 && code != 0) continue;
            MetricLabels labels = LabelsOf(*method);
            labels.insert(labels.begin(), {"grpc_code", kCodeNames[code]});
            samples.push_back({std::move(labels), static_cast<double>(count)});
          }
        }
        return samples;
      });
}

}  // namespace holdfast::server
