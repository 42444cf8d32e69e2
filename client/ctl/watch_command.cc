#include "client/ctl/watch_command.h"

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/strings.h"
#include "client/endpoint.h"
#include "client/rpc.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast::ctl {
namespace {

using etcdserverpb::WatchRequest;
using etcdserverpb::WatchResponse;
using Stream = grpc::ClientReaderWriter<WatchRequest, WatchResponse>;

constexpr absl::Duration kMarkEvery = absl::Seconds(1);
constexpr std::chrono::milliseconds kReconnect(200);
// Unanswered marks that are remembered; by then the stream has long counted as lost.
constexpr size_t kMarksMax = 64;

// Sends a mark each second, until it goes, and gives the connection up when they stay unanswered.
class Marks {
 public:
  Marks(Stream* stream, grpc::ClientContext* context, int64_t watch_id)
      : stream_(stream), context_(context), watch_id_(watch_id), thread_([this] { Loop(); }) {}
  ~Marks() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      wake_.notify_one();
    }
    thread_.join();
  }

  // W2: counted from before the mark was sent. nullopt: not a mark of ours.
  std::optional<absl::Duration> SinceMark(uint64_t nonce) {
    std::lock_guard lock(mutex_);
    const auto it = sent_.find(nonce);
    if (it == sent_.end()) return std::nullopt;
    const absl::Duration since = base::Elapsed(it->second, clock_->Sample());
    sent_.erase(it);
    answered_ = clock_->Sample();
    return since;
  }

 private:
  void Loop() {
    base::Rng rng(base::RandomSeed());
    std::unique_lock lock(mutex_);
    while (!stop_) {
      // An etcd never answers: only who has answered before can fall silent.
      if (answered_ && base::Elapsed(*answered_, clock_->Sample()) > kLostAfter) {
        context_->TryCancel();
        return;
      }
      WatchRequest request;
      request.mutable_holdfast_mark()->set_watch_id(watch_id_);
      request.mutable_holdfast_mark()->set_nonce(rng.Next());
      if (sent_.size() < kMarksMax) {
        sent_[request.holdfast_mark().nonce()] = clock_->Sample();
        lock.unlock();
        const bool written = stream_->Write(request);
        lock.lock();
        if (!written) return;
      }
      wake_.wait_for(lock, absl::ToChronoMilliseconds(kMarkEvery), [this] { return stop_; });
    }
  }

  Stream* const stream_;
  grpc::ClientContext* const context_;
  const int64_t watch_id_;
  base::Clock* const clock_ = base::RealClock::Get();
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::map<uint64_t, base::ClockSample> sent_;
  std::optional<base::ClockSample> answered_;
  std::thread thread_;  // last: it uses everything above
};

std::string PrefixEnd(std::string key) {
  while (!key.empty() && key.back() == '\xff') key.pop_back();
  if (key.empty()) return std::string(1, '\0');
  key.back() = static_cast<char>(key.back() + 1);
  return key;
}

class Watcher {
 public:
  Watcher(const WatchArgs& args, bool json, Io io)
      : args_(args), json_(json), io_(io), next_(args.revision) {}

  enum class End { kBroken, kFailed };
  End RunOnce(const std::shared_ptr<grpc::Channel>& channel);
  // Since the last stream that was answered.
  absl::Duration silence() const { return base::Elapsed(heard_, clock_->Sample()); }
  const absl::Status& status() const { return status_; }

 private:
  WatchRequest Create() const;
  // False: the watch is over.
  bool OnResponse(const WatchResponse& response, Marks* marks);
  void Print(const WatchResponse& response);

  const WatchArgs& args_;
  const bool json_;
  const Io io_;
  base::Clock* const clock_ = base::RealClock::Get();
  int64_t next_;  // what the next stream begins with
  base::ClockSample heard_ = clock_->Sample();
  absl::Status status_;
  bool failed_ = false;
};

WatchRequest Watcher::Create() const {
  WatchRequest request;
  etcdserverpb::WatchCreateRequest* create = request.mutable_create_request();
  create->set_key(args_.key);
  create->set_range_end(args_.range_end);
  if (args_.prefix) {
    create->set_range_end(PrefixEnd(args_.key));
    if (args_.key.empty()) create->set_key(std::string(1, '\0'));
  }
  create->set_start_revision(next_);
  create->set_prev_kv(args_.prev_kv);
  return request;
}

Watcher::End Watcher::RunOnce(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  const auto stub = etcdserverpb::Watch::NewStub(channel);
  const auto stream = stub->Watch(&context);
  stream->Write(Create());
  std::unique_ptr<Marks> marks;
  WatchResponse response;
  while (stream->Read(&response)) {
    heard_ = clock_->Sample();
    if (response.created() && !response.canceled()) {
      // What comes after this revision is shown: a broken stream goes on there.
      if (next_ == 0) next_ = response.header().revision() + 1;
      if (args_.age) marks = std::make_unique<Marks>(stream.get(), &context, response.watch_id());
    }
    if (!OnResponse(response, marks.get())) break;
  }
  context.TryCancel();
  marks.reset();
  const grpc::Status finished = stream->Finish();
  if (failed_) return End::kFailed;
  status_ = absl::Status(static_cast<absl::StatusCode>(finished.error_code()),
                         base::ToAbsl(base::Printable(finished.error_message(), 400)));
  if (status_.ok()) status_ = absl::UnavailableError("the server ended the watch");
  return absl::IsUnimplemented(status_) || absl::IsPermissionDenied(status_) ? End::kFailed
                                                                             : End::kBroken;
}

bool Watcher::OnResponse(const WatchResponse& response, Marks* marks) {
  if (response.canceled()) {
    failed_ = true;
    status_ = response.compact_revision() > 0
                  ? absl::OutOfRangeError(fmt::format(
                        "revision {} was compacted away: history begins behind {}; read the keys, "
                        "and watch from the revision of that answer",
                        next_, response.compact_revision()))
                  : absl::FailedPreconditionError(response.cancel_reason());
    return false;
  }
  if (response.events_size() > 0) {
    Print(response);
    next_ = response.events(response.events_size() - 1).kv().mod_revision() + 1;
  }
  if (response.has_holdfast_bookmark() && marks != nullptr) {
    const etcdserverpb::WatchBookmark& bookmark = response.holdfast_bookmark();
    const std::optional<absl::Duration> since = marks->SinceMark(bookmark.nonce());
    if (since.has_value() && bookmark.has_age_us()) {
      const absl::Duration age =
          *since + absl::Microseconds(static_cast<int64_t>(bookmark.age_us()));
      io_.err << fmt::format("rev={} age={:.3f}s\n", bookmark.delivered_revision(),
                             absl::ToDoubleSeconds(age));
    } else if (since.has_value()) {
      io_.err << fmt::format("rev={} age=unknown\n", bookmark.delivered_revision());
    }
    next_ = std::max(next_, bookmark.delivered_revision() + 1);
  }
  return true;
}

void Watcher::Print(const WatchResponse& response) {
  if (json_) {
    google::protobuf::util::JsonPrintOptions options;
    options.preserve_proto_field_names = true;
    std::string text;
    CHECK(google::protobuf::util::MessageToJsonString(response, &text, options).ok());
    io_.out << text << std::endl;
    return;
  }
  for (const mvccpb::Event& event : response.events()) {
    io_.out << (event.type() == mvccpb::Event::DELETE ? "DELETE" : "PUT") << "\n";
    if (args_.prev_kv && event.has_prev_kv()) {
      io_.out << event.prev_kv().key() << "\n" << event.prev_kv().value() << "\n";
    }
    io_.out << event.kv().key() << "\n" << event.kv().value() << "\n";
  }
  io_.out.flush();
}

}  // namespace

ExitCode Watch(const Common& common, const WatchArgs& args, Io io) {
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (const std::string& text : common.endpoints) {
    const auto endpoint = internal::ParseEndpoint(text);
    if (!endpoint.ok()) {
      io.err << "holdfastctl: " << base::Message(endpoint.status()) << "\n";
      return kUsage;
    }
    channels.push_back(internal::MakeChannel(*endpoint));
  }
  Watcher watcher(args, common.json, io);
  for (;;) {
    for (const auto& channel : channels) {
      if (watcher.RunOnce(channel) == Watcher::End::kFailed) {
        io.err << "holdfastctl: " << base::Message(watcher.status()) << "\n";
        return ExitCodeOf(watcher.status());
      }
    }
    if (watcher.silence() > common.timeout) {
      io.err << "holdfastctl: no endpoint serves the watch: " << base::Message(watcher.status())
             << "\n";
      return kUnavailable;
    }
    std::this_thread::sleep_for(kReconnect);
  }
}

}  // namespace holdfast::ctl
