#include <cstdlib>
#include <string_view>

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include "base/check.h"
#include "door.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast::server::testing {
namespace {

using v1::ExchangeReply;
using v1::ExchangeRequest;

std::optional<std::string> Trailer(const grpc::ClientContext& context, const char* key) {
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto it = trailers.find(key);
  if (it == trailers.end()) return std::nullopt;
  return std::string(it->second.data(), it->second.size());
}

void SetTerms(const ExchangeRequest& request, grpc::ClientContext* context) {
  const auto add = [context](const char* key, const std::string& value) {
    context->AddMetadata(key, value);
  };
  if (request.timeout_ms() != 0) {
    context->set_deadline(std::chrono::system_clock::now() +
                          std::chrono::milliseconds(request.timeout_ms()));
  }
  if (request.has_max_age_ms()) add("holdfast-max-age-ms", std::to_string(request.max_age_ms()));
  if (request.min_revision() != 0) {
    add("holdfast-min-revision", std::to_string(request.min_revision()));
  }
  if (request.require_leader()) add("hasleader", "true");
  if (request.has_session()) {
    const auto& stamp = request.session();
    add("holdfast-session", fmt::format("{:x}-{}-{}-{:x}", stamp.session(), stamp.sequence(),
                                        stamp.lowest_unacknowledged(), stamp.digest()));
  }
}

void TakeTrailers(const grpc::ClientContext& context, DoorAnswer* answer) {
  const auto number = [&](const char* key, int base) -> std::optional<uint64_t> {
    const auto text = Trailer(context, key);
    if (!text.has_value()) return std::nullopt;
    return std::strtoull(text->c_str(), nullptr, base);
  };
  ExchangeReply& reply = answer->reply;
  if (const auto age = number("holdfast-age-ms", 10)) {
    // The batch door has no word for the proof: an age is there if it is proven.
    CHECK(Trailer(context, "holdfast-proof") == "proven");
    reply.set_age_ms(*age);
  } else {
    CHECK(Trailer(context, "holdfast-proof") != "proven");
  }
  if (const auto source = Trailer(context, "holdfast-source")) {
    CHECK(source == "leader" || source == "follower");
    reply.set_source(source == "leader" ? ExchangeReply::LEADER : ExchangeReply::FOLLOWER);
  }
  if (const auto repeated = number("holdfast-deduplicated", 10)) {
    reply.set_deduplicated(*repeated == 1);
  }
  reply.set_retry_after_ms(number("holdfast-retry-after-ms", 10).value_or(0));
  if (reply.code() == 0) answer->incarnation = number("holdfast-incarnation", 16).value_or(0);
}

class UnaryDoor : public Door {
 public:
  explicit UnaryDoor(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(etcdserverpb::KV::NewStub(channel)) {}

  DoorAnswer Call(const ExchangeRequest& request) override {
    grpc::ClientContext context;
    SetTerms(request, &context);
    DoorAnswer answer;
    ExchangeReply& reply = answer.reply;
    const grpc::Status status = Send(request, &context, &reply);
    if (!status.ok()) reply.clear_response();
    reply.set_code(static_cast<uint32_t>(status.error_code()));
    reply.set_message(status.error_message());
    TakeTrailers(context, &answer);
    answer.times = 1;
    return answer;
  }

  std::vector<DoorAnswer> CallAll(const std::vector<ExchangeRequest>& requests) override {
    std::vector<DoorAnswer> answers;
    for (const ExchangeRequest& request : requests) answers.push_back(Call(request));
    return answers;
  }

 private:
  grpc::Status Send(const ExchangeRequest& request, grpc::ClientContext* context,
                    ExchangeReply* reply) {
    switch (request.request_case()) {
      case ExchangeRequest::kRange:
        return stub_->Range(context, request.range(), reply->mutable_range());
      case ExchangeRequest::kPut:
        return stub_->Put(context, request.put(), reply->mutable_put());
      case ExchangeRequest::kDeleteRange:
        return stub_->DeleteRange(context, request.delete_range(), reply->mutable_delete_range());
      case ExchangeRequest::kTxn:
        return stub_->Txn(context, request.txn(), reply->mutable_txn());
      case ExchangeRequest::REQUEST_NOT_SET:
        break;
    }
    CHECK_MSG(false, "unary calls always have a request");
    return grpc::Status::OK;
  }

  const std::unique_ptr<etcdserverpb::KV::Stub> stub_;
};

}  // namespace

std::unique_ptr<Door> OpenUnaryDoor(const std::shared_ptr<grpc::Channel>& channel) {
  return std::make_unique<UnaryDoor>(channel);
}

etcdserverpb::ResponseHeader* HeaderOf(ExchangeReply* reply) {
  switch (reply->response_case()) {
    case ExchangeReply::kRange:
      return reply->mutable_range()->mutable_header();
    case ExchangeReply::kPut:
      return reply->mutable_put()->mutable_header();
    case ExchangeReply::kDeleteRange:
      return reply->mutable_delete_range()->mutable_header();
    case ExchangeReply::kTxn:
      return reply->mutable_txn()->mutable_header();
    case ExchangeReply::RESPONSE_NOT_SET:
      break;
  }
  return nullptr;
}

}  // namespace holdfast::server::testing
