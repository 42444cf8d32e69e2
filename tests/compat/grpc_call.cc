#include "grpc_call.h"

#include <fmt/format.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <chrono>

#include "absl/strings/str_split.h"
#include "etcd/election.pb.h"
#include "etcd/health.pb.h"
#include "etcd/lock.pb.h"
#include "etcd/rpc.pb.h"

namespace holdfast::compat {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::Message;
using google::protobuf::MessageFactory;

constexpr int kTagStart = 1;
constexpr int kTagWrite = 2;
constexpr int kTagHalfClose = 3;
constexpr int kTagRead = 4;
constexpr int kTagFinish = 5;
constexpr absl::Duration kWriteTimeout = absl::Seconds(20);

void* Tag(int tag) { return reinterpret_cast<void*>(intptr_t{tag}); }

// A static library's messages are registered only if something of theirs is linked.
void LinkMessages() {
  static const void* const used[] = {
      etcdserverpb::RangeRequest::descriptor(), v3electionpb::CampaignRequest::descriptor(),
      v3lockpb::LockRequest::descriptor(), grpc::health::v1::HealthCheckRequest::descriptor()};
  (void)used;
}

const google::protobuf::MethodDescriptor* FindMethod(const std::string& name) {
  LinkMessages();
  for (const char* const package : {"etcdserverpb", "v3electionpb", "v3lockpb", "grpc.health.v1"}) {
    const auto* method =
        DescriptorPool::generated_pool()->FindMethodByName(fmt::format("{}.{}", package, name));
    if (method != nullptr) return method;
  }
  return nullptr;
}

std::unique_ptr<Message> NewMessage(const google::protobuf::Descriptor* type) {
  return std::unique_ptr<Message>(MessageFactory::generated_factory()->GetPrototype(type)->New());
}

class NoErrors : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, google::protobuf::io::ColumnNumber column,
                const std::string& message) override {}
};

std::string Bytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

}  // namespace

std::string CodeName(grpc::StatusCode code) {
  static constexpr const char* kCodes[] = {
      "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
      "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
      "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
      "DataLoss", "Unauthenticated"};
  return code >= 0 && size_t(code) < std::size(kCodes) ? kCodes[code]
                                                       : fmt::format("{}", int(code));
}

absl::StatusOr<std::unique_ptr<GrpcCall>> GrpcCall::Start(std::shared_ptr<grpc::Channel> channel,
                                                          const std::string& method,
                                                          const Metadata& metadata,
                                                          absl::Duration deadline) {
  const auto* const found = FindMethod(method);
  if (found == nullptr) return absl::InvalidArgumentError("no such method: " + method);
  std::unique_ptr<GrpcCall> call(new GrpcCall);
  call->channel_ = std::move(channel);
  call->method_ = found;
  call->stub_ = std::make_unique<grpc::GenericStub>(call->channel_);
  for (const auto& [key, value] : metadata) call->context_.AddMetadata(key, value);
  call->context_.set_deadline(std::chrono::system_clock::now() +
                              absl::ToChronoNanoseconds(deadline));
  call->stream_ = call->stub_->PrepareCall(
      &call->context_, fmt::format("/{}/{}", found->service()->full_name(), found->name()),
      &call->queue_);
  call->stream_->StartCall(Tag(kTagStart));
  bool ok = false;
  call->Wait(kTagStart, deadline, &ok);
  return call;
}

GrpcCall::~GrpcCall() {
  context_.TryCancel();
  if (!ended_) {
    stream_->Finish(&status_, Tag(kTagFinish));
    bool ok = false;
    Wait(kTagFinish, absl::InfiniteDuration(), &ok);  // comes at once, the call is cancelled
  }
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

bool GrpcCall::Wait(int tag, absl::Duration timeout, bool* ok) {
  const auto deadline = timeout == absl::InfiniteDuration()
                            ? std::chrono::system_clock::time_point::max()
                            : std::chrono::system_clock::now() +
                                  std::chrono::nanoseconds(ToInt64Nanoseconds(timeout));
  while (true) {
    if (const auto done = done_.find(tag); done != done_.end()) {
      *ok = done->second;
      done_.erase(done);
      return true;
    }
    void* came = nullptr;
    bool came_ok = false;
    if (queue_.AsyncNext(&came, &came_ok, deadline) != grpc::CompletionQueue::GOT_EVENT) {
      return false;
    }
    done_[int(reinterpret_cast<intptr_t>(came))] = came_ok;
  }
}

bool GrpcCall::Send(const std::string& text) {
  const std::unique_ptr<Message> request = NewMessage(method_->input_type());
  google::protobuf::TextFormat::Parser parser;
  NoErrors errors;  // the caller's text says enough
  parser.RecordErrorsTo(&errors);
  if (!parser.ParseFromString(text, request.get())) return false;
  if (ended_) return true;
  grpc::Slice slice(request->SerializeAsString());
  bool ok = false;
  stream_->Write(grpc::ByteBuffer(&slice, 1), Tag(kTagWrite));
  Wait(kTagWrite, kWriteTimeout, &ok);
  return true;
}

void GrpcCall::HalfClose() {
  if (ended_) return;
  stream_->WritesDone(Tag(kTagHalfClose));
  bool ok = false;
  Wait(kTagHalfClose, kWriteTimeout, &ok);
}

GrpcCall::Answer GrpcCall::Read(absl::Duration timeout) {
  Answer answer;
  if (!ended_) {
    if (!reading_) stream_->Read(&incoming_, Tag(kTagRead));
    reading_ = true;
    bool ok = false;
    if (!Wait(kTagRead, timeout, &ok)) return answer;
    reading_ = false;
    if (ok) {
      answer.kind = Answer::Kind::kMessage;
      answer.message = NewMessage(method_->output_type());
      answer.message->ParseFromString(Bytes(incoming_));
      return answer;
    }
    stream_->Finish(&status_, Tag(kTagFinish));
    Wait(kTagFinish, absl::InfiniteDuration(), &ok);  // nothing can be outstanding any more
    ended_ = true;
    for (const auto& [key, value] : context_.GetServerTrailingMetadata()) {
      trailers_.emplace(std::string(key.data(), key.size()),
                        std::string(value.data(), value.size()));
    }
  }
  answer.kind = Answer::Kind::kEnd;
  answer.status = status_;
  return answer;
}

}  // namespace holdfast::compat
