#include "server/gateway_stream.h"

#include <grpcpp/generic/generic_stub.h>

#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "server/gateway_codec.h"
#include "server/grpc_status.h"

namespace holdfast::server {
namespace {

// gRPC's reactions come one after the other for reads and for writes each, the client's on the
// loop: the lock orders them. The hold keeps the call's end away while somebody may still start an
// operation from outside a reaction.
class Stream : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
               public std::enable_shared_from_this<Stream> {
 public:
  Stream(const GatewayStreamOptions& options, std::shared_ptr<HttpExchange> exchange)
      : options_(options), splitter_(options.max_request_bytes), exchange_(std::move(exchange)) {}

  void Start(const std::shared_ptr<grpc::Channel>& channel, const HttpRequest& request) {
    self_ = shared_from_this();
    SetMetadata(request, &context_);
    const std::weak_ptr<Stream> weak = self_;
    exchange_->callbacks.on_closed = [weak] {
      if (const auto stream = weak.lock()) stream->Cancel();
    };
    exchange_->callbacks.on_drained = [weak] {
      if (const auto stream = weak.lock()) stream->OnDrained();
    };
    exchange_->callbacks.on_body = [weak](std::string_view piece, bool last) {
      const auto stream = weak.lock();
      return stream != nullptr && stream->OnBody(piece, last);
    };
    grpc::GenericStub(channel).PrepareBidiStreamingCall(&context_, options_.rpc, {}, this);
    AddHold();
    StartRead(&message_);
    StartCall();
    // A call that streams only its answer has its one request already.
    if (!options_.method->client_streaming()) TakeWhole(request.body);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      Release();
      return;
    }
    absl::StatusOr<std::string> json = GrpcToJson(options_.method->output_type(), message_);
    message_.Clear();
    if (!json.ok()) {
      Fail(json.status());
      Release();
      return;
    }
    std::lock_guard lock(mutex_);
    BeginAnswer();
    // The lock also makes the order sure: "full" is noted before on_drained can ask.
    if (exchange_->Write("{\"result\":" + *json + "}\n")) {
      StartRead(&message_);
    } else {
      paused_ = true;
    }
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) return;
    WriteNext();
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<Stream> self = std::move(self_);
    std::lock_guard lock(mutex_);
    const grpc::Status end = failed_.ok() ? status : ToGrpc(failed_);
    if (!end.ok()) {
      if (!began_) {
        HttpResponse response = ErrorResponse(end);
        // A request that cannot be read is told as in a call without a stream; grpc-gateway too
        // tells the two apart.
        if (failed_.ok()) response.body = StreamErrorLine(end);
        exchange_->Send(std::move(response));
        return;
      }
      exchange_->Write(StreamErrorLine(end));
    } else {
      BeginAnswer();
    }
    exchange_->End();
  }

 private:
  void OnDrained() {
    std::lock_guard lock(mutex_);
    if (!std::exchange(paused_, false) || released_) return;
    StartRead(&message_);
  }

  // On the loop. The same cut as of a whole body, as it comes.
  bool OnBody(std::string_view piece, bool last) {
    std::vector<std::string> objects;
    absl::Status status = splitter_.Add(piece, &objects);
    if (status.ok() && last) status = splitter_.End();
    for (size_t i = 0; status.ok() && i < objects.size(); ++i) status = Take(objects[i]);
    if (!status.ok()) {
      Fail(status);
      return false;
    }
    std::lock_guard lock(mutex_);
    if (last) body_ended_ = true;
    WriteNext();
    return true;
  }

  void TakeWhole(std::string_view body) {
    absl::Status status = Take(body);
    if (!status.ok()) return Fail(status);
    std::lock_guard lock(mutex_);
    body_ended_ = true;
    WriteNext();
  }

  absl::Status Take(std::string_view json) {
    absl::StatusOr<grpc::ByteBuffer> message = JsonToGrpc(options_.method->input_type(), json);
    if (!message.ok()) return message.status();
    std::lock_guard lock(mutex_);
    waiting_bytes_ += message->Length() + sizeof(grpc::ByteBuffer);
    if (waiting_bytes_ > options_.max_request_bytes) {
      return absl::ResourceExhaustedError("the request comes faster than it is handled");
    }
    waiting_.push_back(*std::move(message));
    return absl::OkStatus();
  }

  // REQUIRES: mutex_. In the order in which they came; then, where it matters, their end.
  void WriteNext() {
    if (writing_ || released_) return;
    if (!waiting_.empty()) {
      present_ = std::move(waiting_.front());
      waiting_.pop_front();
      waiting_bytes_ -= present_.Length() + sizeof(grpc::ByteBuffer);
      writing_ = true;
      StartWrite(&present_);
      return;
    }
    if (body_ended_ && !options_.outlives_body && !std::exchange(writes_done_, true)) {
      StartWritesDone();
    }
  }

  void BeginAnswer() {
    if (std::exchange(began_, true)) return;
    exchange_->Begin({.content_type = "application/json", .body = {}});
  }

  void Fail(const absl::Status& status) {
    {
      std::lock_guard lock(mutex_);
      if (failed_.ok()) failed_ = status;
    }
    Cancel();
  }

  void Cancel() {
    context_.TryCancel();
    // The end shows as a read that fails: one must be under way.
    OnDrained();
  }

  void Release() {
    {
      std::lock_guard lock(mutex_);
      released_ = true;
    }
    RemoveHold();
  }

  const GatewayStreamOptions options_;
  grpc::ClientContext context_;
  JsonSplitter splitter_;  // loop
  const std::shared_ptr<HttpExchange> exchange_;
  std::shared_ptr<Stream> self_;  // until OnDone
  grpc::ByteBuffer message_;      // being read
  grpc::ByteBuffer present_;      // being written

  std::mutex mutex_;
  std::deque<grpc::ByteBuffer> waiting_;
  size_t waiting_bytes_ = 0;
  bool body_ended_ = false;
  bool writing_ = false;
  bool writes_done_ = false;
  bool paused_ = false;  // the client has enough to read for now
  bool began_ = false;   // the answer's head is sent
  bool released_ = false;
  absl::Status failed_;
};

}  // namespace

void StartGatewayStream(const GatewayStreamOptions& options,
                        const std::shared_ptr<grpc::Channel>& channel, HttpRequest request,
                        std::shared_ptr<HttpExchange> exchange) {
  std::make_shared<Stream>(options, std::move(exchange))->Start(channel, request);
}

}  // namespace holdfast::server
