#include "server/gateway_codec.h"

#include <fmt/format.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <grpc/grpc.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/strings.h"

namespace holdfast::server {
namespace {

constexpr std::string_view kMetadataPrefix = "grpc-metadata-";
constexpr std::string_view kBearer = "Bearer ";
// Of one Grpc-Timeout: eight digits, as gRPC's own header.
constexpr size_t kTimeoutDigitsMax = 8;

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

grpc_slice Borrow(std::string_view text) {
  return grpc_slice_from_static_buffer(text.data(), text.size());
}

// gRPC's C++ layer aborts on metadata that its core refuses.
bool Legal(std::string_view key, std::string_view value) {
  return grpc_header_key_is_legal(Borrow(key)) != 0 &&
         grpc_header_nonbin_value_is_legal(Borrow(value)) != 0 &&
         grpc_is_binary_header(Borrow(key)) == 0;
}

void Add(grpc::ClientContext* context, const std::string& key, std::string_view value) {
  if (Legal(key, value)) context->AddMetadata(key, std::string(value));
}

// Digits and one of H M S m u n.
std::optional<std::chrono::nanoseconds> ParseTimeout(std::string_view text) {
  if (text.size() < 2 || text.size() > kTimeoutDigitsMax + 1) return std::nullopt;
  uint64_t count = 0;
  const char* const last = text.data() + text.size() - 1;
  const auto [end, error] = std::from_chars(text.data(), last, count);
  if (error != std::errc() || end != last) return std::nullopt;
  const auto n = static_cast<int64_t>(count);
  switch (text.back()) {
    case 'H':  // more than a hundred years do not fit
      return std::chrono::hours(std::min<int64_t>(n, 24 * 365 * 100));
    case 'M':
      return std::chrono::minutes(n);
    case 'S':
      return std::chrono::seconds(n);
    case 'm':
      return std::chrono::milliseconds(n);
    case 'u':
      return std::chrono::microseconds(n);
    case 'n':
      return std::chrono::nanoseconds(n);
    default:
      return std::nullopt;
  }
}

std::string Quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

int HttpStatusOf(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
      return 200;
    case grpc::StatusCode::CANCELLED:
      return 408;
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::OUT_OF_RANGE:
      return 400;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return 504;
    case grpc::StatusCode::NOT_FOUND:
      return 404;
    case grpc::StatusCode::ALREADY_EXISTS:
    case grpc::StatusCode::ABORTED:
      return 409;
    case grpc::StatusCode::PERMISSION_DENIED:
      return 403;
    case grpc::StatusCode::UNAUTHENTICATED:
      return 401;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return 429;
    case grpc::StatusCode::UNIMPLEMENTED:
      return 501;
    case grpc::StatusCode::UNAVAILABLE:
      return 503;
    default:
      return 500;
  }
}

absl::StatusOr<grpc::ByteBuffer> JsonToGrpc(const google::protobuf::Descriptor* type,
                                            std::string_view json) {
  const std::unique_ptr<google::protobuf::Message> message(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
  const bool blank =
      std::ranges::all_of(json, [](unsigned char c) { return std::isspace(c) != 0; });
  if (!blank) {
    google::protobuf::util::JsonParseOptions options;
    options.ignore_unknown_fields = true;
    const auto parsed = google::protobuf::util::JsonStringToMessage(
        google::protobuf::StringPiece(json.data(), json.size()), message.get(), options);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(
          absl::string_view(parsed.message().data(), parsed.message().size()));
    }
  }
  const grpc::Slice slice(message->SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

absl::StatusOr<std::string> GrpcToJson(const google::protobuf::Descriptor* type,
                                       const grpc::ByteBuffer& bytes) {
  grpc::Slice slice;
  if (!bytes.DumpToSingleSlice(&slice).ok()) return absl::InternalError("an answer without bytes");
  const std::unique_ptr<google::protobuf::Message> message(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
  if (!message->ParseFromArray(slice.begin(), static_cast<int>(slice.size()))) {
    return absl::InternalError("an answer that cannot be read");
  }
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto printed = google::protobuf::util::MessageToJsonString(*message, &json, options);
  if (!printed.ok()) {
    return absl::InternalError(
        absl::string_view(printed.message().data(), printed.message().size()));
  }
  return json;
}

HttpResponse ErrorResponse(const grpc::Status& status) {
  const std::string text = Quoted(status.error_message());
  return {.status = HttpStatusOf(status.error_code()),
          .content_type = "application/json",
          .body = fmt::format(R"({{"error":{},"code":{},"message":{}}})", text,
                              static_cast<int>(status.error_code()), text)};
}

std::string StreamErrorLine(const grpc::Status& status) {
  const int http = HttpStatusOf(status.error_code());
  return fmt::format(
      R"({{"error":{{"grpc_code":{},"http_code":{},"message":{},"http_status":"{}"}}}})"
      "\n",
      static_cast<int>(status.error_code()), http, Quoted(status.error_message()),
      ReasonPhrase(http));
}

void SetMetadata(const HttpRequest& request, grpc::ClientContext* context) {
  for (const auto& [name, value] : request.headers) {
    const std::string lower = Lower(name);
    if (lower == "authorization") {
      Add(context, "authorization", value);
      const std::string_view token = value;
      Add(context, "token", token.starts_with(kBearer) ? token.substr(kBearer.size()) : token);
    } else if (lower.starts_with(kMetadataPrefix)) {
      const std::string key = lower.substr(kMetadataPrefix.size());
      // What gRPC sets itself must not stand twice.
      const bool reserved = key.starts_with("grpc-") || key == "te" || key == "content-type" ||
                            key == "user-agent" || key == "host";
      if (!reserved) Add(context, key, value);
    } else if (lower == "accept") {
      Add(context, "grpcgateway-accept", value);
    } else if (lower == "grpc-timeout") {
      if (const auto timeout = ParseTimeout(value)) {
        context->set_deadline(std::chrono::system_clock::now() +
                              std::chrono::duration_cast<std::chrono::microseconds>(*timeout));
      }
    }
  }
}

void AddTrailers(const grpc::ClientContext& context, HttpResponse* response) {
  for (const auto& [key, value] : context.GetServerTrailingMetadata()) {
    const std::string_view name(key.data(), key.size());
    if (!name.starts_with("holdfast-")) continue;
    response->headers.emplace_back(fmt::format("Grpc-Metadata-{}", name),
                                   std::string(value.data(), value.size()));
  }
}

absl::Status JsonSplitter::Add(std::string_view piece, std::vector<std::string>* objects) {
  for (const char c : piece) {
    if (depth_ == 0) {
      if (std::isspace(static_cast<unsigned char>(c)) != 0) continue;
      if (c != '{') {
        return absl::InvalidArgumentError(
            fmt::format("invalid character '{}' looking for beginning of value",
                        base::Printable(std::string_view(&c, 1))));
      }
    }
    if (object_.size() == max_bytes_) {
      return absl::ResourceExhaustedError("a message of the request is too large");
    }
    object_ += c;
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if ((c == '}' || c == ']') && --depth_ == 0) {
      objects->push_back(std::exchange(object_, {}));
    }
  }
  return absl::OkStatus();
}

absl::Status JsonSplitter::End() const {
  return depth_ == 0 ? absl::OkStatus() : absl::InvalidArgumentError("unexpected EOF");
}

}  // namespace holdfast::server
