#include "holdfast/client.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "base/rng.h"
#include "base/strings.h"
#include "client/claim.h"
#include "client/dispatcher.h"
#include "client/machine_clock.h"
#include "client/mirror_set.h"
#include "client/process.h"
#include "client/session.h"
#include "client/wire.h"
#include "etcd/rpc.pb.h"

namespace holdfast {
namespace {

using internal::AnswerHeader;
using internal::CallAnswer;
using internal::CallName;
using internal::CallSpec;
using internal::Method;
using internal::RpcReply;

// A scan's first page; the next ones are sized by what a key of it took.
constexpr int64_t kFirstPage = 100;
constexpr int64_t kPageBytesAimed = 1 << 20;
constexpr int64_t kPageMax = 10'000;

Token TokenOf(const CallAnswer& answer) {
  return {answer.revision, answer.cluster_id, answer.incarnation};
}

// `verb`: of static storage.
CallName What(std::string_view verb, std::string_view key) {
  return {.verb = verb, .key = std::string(key)};
}

// The answer in a reply of the stream; null: it is of another kind.
etcdserverpb::RangeResponse* AnswerIn(v1::ExchangeReply& reply, etcdserverpb::RangeResponse*) {
  return reply.has_range() ? reply.mutable_range() : nullptr;
}
etcdserverpb::PutResponse* AnswerIn(v1::ExchangeReply& reply, etcdserverpb::PutResponse*) {
  return reply.has_put() ? reply.mutable_put() : nullptr;
}
etcdserverpb::DeleteRangeResponse* AnswerIn(v1::ExchangeReply& reply,
                                            etcdserverpb::DeleteRangeResponse*) {
  return reply.has_delete_range() ? reply.mutable_delete_range() : nullptr;
}
etcdserverpb::TxnResponse* AnswerIn(v1::ExchangeReply& reply, etcdserverpb::TxnResponse*) {
  return reply.has_txn() ? reply.mutable_txn() : nullptr;
}

// Hands the answer to `keep`, which may take its bytes out.
template <class Response, class Keep>
bool DecodeReply(RpcReply& reply, AnswerHeader* header, Keep keep) {
  if (reply.exchange != nullptr) {
    Response* const response = AnswerIn(*reply.exchange, static_cast<Response*>(nullptr));
    if (response == nullptr) return false;
    *header = {reply.header->cluster_id(), response->header().revision()};
    keep(*response);
    return true;
  }
  Response response;
  if (!grpc::SerializationTraits<Response>::Deserialize(&reply.body, &response).ok()) return false;
  *header = {response.header().cluster_id(), response.header().revision()};
  keep(response);
  return true;
}

// What the answer to a call comes to, without the answer's own message.
struct Ignore {
  void operator()(const google::protobuf::MessageLite&) const {}
};

// Of whatever write the answer is: its header, and how many keys went.
auto DecodeWrite(std::shared_ptr<int64_t> deleted) {
  return [deleted](Method method, RpcReply& reply, AnswerHeader* header) {
    if (method == Method::kPut) {
      return DecodeReply<etcdserverpb::PutResponse>(reply, header, Ignore());
    }
    if (method == Method::kTxn) {
      return DecodeReply<etcdserverpb::TxnResponse>(reply, header, Ignore());
    }
    return DecodeReply<etcdserverpb::DeleteRangeResponse>(
        reply, header, [&](const auto& response) { *deleted = response.deleted(); });
  };
}

// Blocks the caller until `start`'s callback has run.
template <class T, class StartFunction>
absl::StatusOr<T> WaitFor(const internal::EventLoop& loop, StartFunction start) {
  if (loop.OnLoopThread()) {
    return absl::FailedPreconditionError(
        "a synchronous holdfast::Client method was called on the client's own thread, from a "
        "callback, and would wait for itself; use the form with a callback");
  }
  absl::Notification done;
  absl::StatusOr<T> result = absl::UnknownError("never delivered");
  start([&](absl::StatusOr<T> r) {
    result = std::move(r);
    done.Notify();
  });
  done.WaitForNotification();
  return result;
}

}  // namespace

class Client::Impl {
 public:
  explicit Impl(const ClientOptions& options)
      : dispatcher_(options), sessions_(&dispatcher_, options.exactly_once) {}

  // As Client::Open says.
  absl::Status OpenMirrors(const ClientOptions& options) {
    if (options.prefixes.empty()) return absl::OkStatus();
    scheduler_ = std::make_shared<internal::ThreadScheduler>();
    mirrors_ = std::make_shared<internal::MirrorSet>(
        internal::MirrorSet::Options{
            .endpoints = dispatcher_.endpoints(),
            .prefixes = options.prefixes,
            .disk_dir = options.disk_dir.empty() ? internal::DefaultCacheDir() : options.disk_dir,
            .handle_termination = options.handle_termination,
            .name = options.name.empty() ? internal::ProgramName() : options.name,
            .observer = options.observer,
            .clock = dispatcher_.clock(),
            .max_clock_slow = options.max_clock_slow,
            .seed = options.seed.value_or(base::RandomSeed()),
            .surroundings = internal::SurroundingsOf(dispatcher_.clock())},
        scheduler_, internal::MakeGrpcUplinks(scheduler_));
    return mirrors_->Open();
  }

  internal::MirrorImpl* FindMirror(std::string_view key) const {
    return mirrors_ == nullptr ? nullptr : mirrors_->Find(key);
  }
  const internal::MirrorSet* mirrors() const { return mirrors_.get(); }

  // The answer that this process's own copy gives at once to a read with these options; nullopt:
  // the store is asked. `read(mirror)` reads it.
  template <class T, class ReadMirror>
  std::optional<Result<T>> Local(std::string_view key, std::string_view range_end,
                                 const ReadOptions& options, ReadMirror read) const {
    using Level = ReadOptions::Level;
    internal::MirrorImpl* mirror = FindMirror(key);
    if (options.level() != Level::kLinearizable && NeverStaleIn(key, range_end)) {
      return absl::FailedPreconditionError(
          base::ToAbsl(fmt::format("\"{}\" is, or has a part, of a prefix that is never served "
                                   "stale (Policy::NeverStale): read it with "
                                   "ReadOptions::Linearizable()",
                                   base::Printable(key))));
    }
    if (options.level() == Level::kLocal) {
      if (mirror != nullptr) return read(*mirror);
      return absl::FailedPreconditionError(base::ToAbsl(fmt::format(
          "\"{}\" is of no mirrored prefix: name one in ClientOptions::prefixes, or read with "
          "another level than ReadOptions::Local()",
          base::Printable(key))));
    }
    if (mirror == nullptr) return std::nullopt;
    if (options.level() == Level::kBounded) {
      Result<T> answer = read(*mirror);
      // Not the defaults, before the store was asked.
      if (answer.ok() && answer->fresh.Within(options.max_age()) &&
          answer->fresh.source() != Source::kDefault) {
        return answer;
      }
    }
    if (options.level() == Level::kAtLeast &&
        mirror->WaitFor(options.token(), absl::ZeroDuration()).ok()) {
      Result<T> answer = read(*mirror);
      const Token& token = options.token();
      // The mirror may have gone on to another incarnation since.
      const bool of_it = answer.ok() && (token.incarnation == 0 || answer->incarnation == 0 ||
                                         token.incarnation == answer->incarnation);
      if (of_it && answer->fresh.source() != Source::kDefault &&
          answer->fresh.revision() >= token.revision) {
        return answer;
      }
    }
    return std::nullopt;
  }

  // The last rung of OrStale(): `answer`, or the copy's if it is an error and the copy is young
  // enough. What the request itself got wrong stays an error.
  template <class T, class ReadMirror>
  Result<T> OrLocal(std::string_view key, const ReadOptions& options, Result<T> answer,
                    ReadMirror read) const {
    if (answer.ok() || !options.or_stale().has_value()) return answer;
    const absl::Status& status = answer.status();
    if (absl::IsInvalidArgument(status) || absl::IsCancelled(status) ||
        absl::IsOutOfRange(status)) {
      return answer;
    }
    internal::MirrorImpl* mirror = FindMirror(key);
    if (mirror == nullptr) return answer;
    Result<T> local = read(*mirror);
    return local.ok() && local->fresh.Within(*options.or_stale()) ? local : answer;
  }

  // Without the rungs that a never-stale prefix does not have.
  bool NeverStaleIn(std::string_view key, std::string_view range_end) const {
    return mirrors_ != nullptr && mirrors_->NeverStaleIn(key, range_end);
  }
  ReadOptions Allowed(std::string_view key, std::string_view range_end,
                      const ReadOptions& options) const {
    if (!NeverStaleIn(key, range_end)) return options;
    ReadOptions allowed = ReadOptions::Linearizable();
    allowed.Deadline(options.deadline()).MaxEntries(options.max_entries());
    return allowed;
  }

  // Hands over an answer that is there already, on the loop's thread, as any other.
  template <class T>
  void Deliver(absl::StatusOr<T> answer, Done<T> done) {
    CallSpec spec;
    spec.what = {.verb = "local read"};
    spec.rungs = {{}};
    spec.deadline = kDefaultDeadline;
    spec.invalid = absl::CancelledError("answered already");
    dispatcher_.Start(std::move(spec), [answer = std::move(answer), done = std::move(done)](
                                           absl::StatusOr<CallAnswer>) mutable {
      std::move(done)(std::move(answer));
    });
  }

  const internal::EventLoop& loop() { return dispatcher_.loop(); }
  bool InOwnProcess() const { return dispatcher_.InOwnProcess(); }
  internal::Dispatcher& dispatcher() { return dispatcher_; }
  void Close() {
    sessions_.Close();
    if (mirrors_ != nullptr) mirrors_->Close();
    if (scheduler_ != nullptr) scheduler_->Stop();
    dispatcher_.Close();
  }

  void Range(CallName what, const RangeQuery& query, const ReadOptions& options,
             Done<Read<RangeResult>> done) {
    StartRange(SpecOf(std::move(what), query, options),
               internal::ToRequest(query).SerializeAsString(),
               std::make_shared<RangeAnswer>(std::move(done)));
  }

  void Get(std::string_view key, const ReadOptions& options,
           Done<Read<std::optional<Entry>>> done) {
    const RangeQuery query = RangeQuery::Key(key);
    StartRange(SpecOf(What("Get", key), query, Allowed(key, "", options)), internal::EncodeGet(key),
               std::make_shared<GetAnswer>(this, key, options, std::move(done)));
  }

  // Of a scan, after the first: the revision pins the answer, so any member's is right, of the same
  // incarnation.
  void NextPage(CallName what, const RangeQuery& query, uint64_t incarnation,
                absl::Duration deadline, Done<Read<RangeResult>> done) {
    CallSpec spec;
    spec.incarnation = incarnation;
    spec.what = std::move(what);
    spec.rungs = {{.linearizable = false}};
    spec.past_revision = query.revision;
    spec.deadline = deadline;
    StartRange(std::move(spec), internal::ToRequest(query).SerializeAsString(),
               std::make_shared<RangeAnswer>(std::move(done)));
  }

  void DeleteRange(CallName what, const RangeQuery& query, const WriteOptions& options,
                   Done<WriteResult> done) {
    CallSpec spec;
    spec.what = std::move(what);
    spec.write = true;
    spec.invalid = internal::CheckKey(query.key);
    etcdserverpb::DeleteRangeRequest request;
    request.set_key(query.key);
    request.set_range_end(query.range_end);
    Write<etcdserverpb::DeleteRangeResponse>(std::move(spec), Method::kDeleteRange,
                                             request.SerializeAsString(), options,
                                             std::make_shared<DeleteAnswer>(std::move(done)));
  }

  void Put(std::string_view key, std::string_view value, const WriteOptions& options,
           Done<WriteResult> done) {
    CallSpec spec;
    spec.what = What("Put", key);
    spec.write = true;
    spec.invalid = internal::CheckKey(key);
    Write<etcdserverpb::PutResponse>(std::move(spec), Method::kPut, internal::EncodePut(key, value),
                                     options, std::make_shared<PutAnswer>(std::move(done)));
  }

  void Commit(const Txn& txn, const WriteOptions& options, Done<TxnResult> done) {
    CallSpec spec;
    spec.what = {.verb = "Txn"};
    spec.write = txn.writes();
    spec.invalid = internal::Check(txn);
    Write<etcdserverpb::TxnResponse>(std::move(spec), Method::kTxn,
                                     internal::ToRequest(txn).SerializeAsString(), options,
                                     std::make_shared<TxnAnswer>(std::move(done)));
  }

  void Resolve(const absl::Status& maybe_committed, const WriteOptions& options,
               Done<WriteResult> done) {
    if (!InOwnProcess()) return std::move(done)(internal::Dispatcher::AfterFork());
    const auto deleted = std::make_shared<int64_t>(0);
    internal::Call::Done then =
        [deleted, done = std::move(done)](absl::StatusOr<CallAnswer> answer) mutable {
          if (!answer.ok()) return std::move(done)(answer.status());
          std::move(done)(
              WriteResult{TokenOf(*answer), *deleted, answer->attempts, answer->deduplicated});
        };
    const uint64_t ticket = internal::WriteTicket(maybe_committed);
    if (ticket != 0 && sessions_.Resolve(ticket, options.deadline, DecodeWrite(deleted), then)) {
      return;
    }
    CallSpec spec;
    spec.rungs = {{}};
    spec.invalid = absl::FailedPreconditionError(
        "Resolve: the status is of no write of this client that can still be asked for: it has an "
        "answer already, too many came after it, or it was sent without a session. Read the key "
        "back, or write with a compare (Txn)");
    dispatcher_.Start(std::move(spec), std::move(then));
  }

 private:
  static CallSpec SpecOf(CallName what, const RangeQuery& query, const ReadOptions& options) {
    CallSpec spec;
    spec.what = std::move(what);
    spec.invalid = internal::Check(query, options);
    spec.rungs = internal::RungsOf(options);
    spec.past_revision = query.revision;
    spec.hedge = options.hedge();
    spec.deadline = options.deadline();
    if (options.level() == ReadOptions::Level::kAtLeast) {
      spec.cluster_id = options.token().cluster_id;
      spec.incarnation = options.token().incarnation;
    }
    return spec;
  }

  // What a call has been answered, until it is handed over: `Keep` takes it out of the store's
  // message, of the last one that came; `Tell` hands it to the caller.
  class RangeAnswer {
   public:
    explicit RangeAnswer(Done<Read<RangeResult>> done) : done_(std::move(done)) {}
    void Keep(etcdserverpb::RangeResponse& response) { result_ = internal::FromResponse(response); }
    void Tell(const absl::StatusOr<CallAnswer>& answer) {
      if (!answer.ok()) return std::move(done_)(answer.status());
      std::move(done_)(Read<RangeResult>{std::move(result_), answer->fresh, answer->incarnation});
    }

   private:
    Done<Read<RangeResult>> done_;
    RangeResult result_;
  };
  class GetAnswer {
   public:
    GetAnswer(const Impl* impl, std::string_view key, const ReadOptions& options,
              Done<Read<std::optional<Entry>>> done)
        : impl_(impl), key_(key), options_(options), done_(std::move(done)) {}
    void Keep(etcdserverpb::RangeResponse& response) {
      entry_.reset();
      if (response.kvs_size() > 0) entry_ = internal::ToEntry(*response.mutable_kvs(0));
    }
    void Tell(const absl::StatusOr<CallAnswer>& answer) {
      if (answer.ok()) {
        return std::move(done_)(
            Read<std::optional<Entry>>{std::move(entry_), answer->fresh, answer->incarnation});
      }
      std::move(done_)(impl_->OrLocal<std::optional<Entry>>(
          key_, options_, answer.status(),
          [this](const internal::MirrorImpl& mirror) { return mirror.Get(key_); }));
    }

   private:
    const Impl* const impl_;
    const std::string key_;
    const ReadOptions options_;
    Done<Read<std::optional<Entry>>> done_;
    std::optional<Entry> entry_;
  };

  class PutAnswer {
   public:
    explicit PutAnswer(Done<WriteResult> done) : done_(std::move(done)) {}
    void Keep(const etcdserverpb::PutResponse&) {}
    void Tell(const absl::StatusOr<CallAnswer>& answer) {
      if (!answer.ok()) return std::move(done_)(answer.status());
      std::move(done_)(WriteResult{TokenOf(*answer), 0, answer->attempts, answer->deduplicated});
    }

   private:
    Done<WriteResult> done_;
  };
  class DeleteAnswer {
   public:
    explicit DeleteAnswer(Done<WriteResult> done) : done_(std::move(done)) {}
    void Keep(const etcdserverpb::DeleteRangeResponse& response) { deleted_ = response.deleted(); }
    void Tell(const absl::StatusOr<CallAnswer>& answer) {
      if (!answer.ok()) return std::move(done_)(answer.status());
      std::move(done_)(
          WriteResult{TokenOf(*answer), deleted_, answer->attempts, answer->deduplicated});
    }

   private:
    Done<WriteResult> done_;
    int64_t deleted_ = 0;
  };
  class TxnAnswer {
   public:
    explicit TxnAnswer(Done<TxnResult> done) : done_(std::move(done)) {}
    void Keep(etcdserverpb::TxnResponse& response) {
      succeeded_ = response.succeeded();
      results_ = internal::FromResponse(response);
    }
    void Tell(const absl::StatusOr<CallAnswer>& answer) {
      if (!answer.ok()) return std::move(done_)(answer.status());
      std::move(done_)(TxnResult{succeeded_, std::move(results_), TokenOf(*answer), answer->fresh,
                                 answer->attempts, answer->deduplicated});
    }

   private:
    Done<TxnResult> done_;
    bool succeeded_ = false;
    std::vector<OpResult> results_;
  };

  template <class Answer>
  void StartRange(CallSpec&& spec, std::string body, std::shared_ptr<Answer> answer) {
    spec.method = Method::kRange;
    spec.encode = [body = std::move(body)](const internal::Rung& rung) {
      if (rung.linearizable) return body;
      // One message after another is one with the fields of both.
      etcdserverpb::RangeRequest serializable;
      serializable.set_serializable(true);
      return body + serializable.SerializeAsString();
    };
    spec.decode = [answer](RpcReply& reply, AnswerHeader* header) {
      return DecodeReply<etcdserverpb::RangeResponse>(
          reply, header, [&](auto& response) { answer->Keep(response); });
    };
    dispatcher_.Start(std::move(spec),
                      [answer = std::move(answer)](const absl::StatusOr<CallAnswer>& call) {
                        answer->Tell(call);
                      });
  }

  // What writes goes through a session, if it can be sent at all.
  template <class Response, class Answer>
  void Write(CallSpec&& spec, Method method, std::string body, const WriteOptions& options,
             std::shared_ptr<Answer> answer) {
    auto decode = [answer](RpcReply& reply, AnswerHeader* header) {
      return DecodeReply<Response>(reply, header, [&](auto& response) { answer->Keep(response); });
    };
    auto tell = [answer](const absl::StatusOr<CallAnswer>& call) { answer->Tell(call); };
    if (spec.write && spec.invalid.ok() && InOwnProcess()) {
      return sessions_.Start({.what = std::move(spec.what),
                              .method = method,
                              .body = std::move(body),
                              .deadline = options.deadline,
                              .decode = std::move(decode)},
                             std::move(tell));
    }
    spec.method = method;
    spec.deadline = options.deadline;
    spec.rungs = {{}};
    spec.encode = [body = std::move(body)](const internal::Rung&) { return body; };
    spec.decode = std::move(decode);
    dispatcher_.Start(std::move(spec), std::move(tell));
  }

  internal::Dispatcher dispatcher_;
  internal::WriteSessions sessions_;
  std::shared_ptr<internal::ThreadScheduler> scheduler_;  // null without mirrors
  std::shared_ptr<internal::MirrorSet> mirrors_;
};

absl::StatusOr<std::unique_ptr<Client>> Client::Open(Options options) {
  if (const absl::Status status = options.Validate(); !status.ok()) return status;
  std::unique_ptr<Client> client(new Client(std::make_unique<Impl>(options)));
  if (const absl::Status status = client->impl_->OpenMirrors(options); !status.ok()) return status;
  return client;
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
// Before any member goes: the callbacks that run now may still call this client.
Client::~Client() {
  if (impl_->InOwnProcess()) {
    impl_->Close();
  } else {
    // A child's copy: its threads are in the parent, and cannot be waited for.
    static_cast<void>(impl_.release());
  }
}

namespace {

auto ReadKey(std::string_view key) {
  return [key](const internal::MirrorImpl& mirror) { return mirror.Get(key); };
}

auto ReadPrefix(std::string_view prefix, const ReadOptions& options) {
  return [prefix, most = options.max_entries()](
             const internal::MirrorImpl& mirror) -> Result<std::vector<Entry>> {
    Result<std::vector<Entry>> read = mirror.Scan(prefix);
    if (!read.ok() || static_cast<int64_t>(read->value.size()) <= most) return read;
    return absl::ResourceExhaustedError(
        base::ToAbsl(fmt::format("Scan \"{}\": {} keys are more than MaxEntries({}); raise it",
                                 base::Printable(prefix), read->value.size(), most)));
  };
}

}  // namespace

void Client::Get(std::string_view key, const ReadOptions& options,
                 Done<Read<std::optional<Entry>>> done) {
  using Answer = std::optional<Entry>;
  if (auto local = impl_->Local<Answer>(key, "", options, ReadKey(key))) {
    return impl_->Deliver<Read<Answer>>(*std::move(local), std::move(done));
  }
  impl_->Get(key, options, std::move(done));
}

void Client::Range(const RangeQuery& query, const ReadOptions& options,
                   Done<Read<RangeResult>> done) {
  const bool never_stale = impl_->NeverStaleIn(query.key, query.range_end);
  if (never_stale && options.level() != ReadOptions::Level::kLinearizable) {
    return impl_->Deliver<Read<RangeResult>>(
        absl::FailedPreconditionError(base::ToAbsl(fmt::format(
            "Range \"{}\": a part of it is never served stale (Policy::NeverStale): read it with "
            "ReadOptions::Linearizable()",
            base::Printable(query.key)))),
        std::move(done));
  }
  impl_->Range(What("Range", query.key), query, impl_->Allowed(query.key, query.range_end, options),
               std::move(done));
}

namespace {

// The pages of one scan, one after the other. Owned by the callback that is under way.
template <class ImplType>
class ScanJob : public std::enable_shared_from_this<ScanJob<ImplType>> {
 public:
  ScanJob(ImplType* impl, std::string_view prefix, const ReadOptions& options,
          Done<Read<std::vector<Entry>>> done)
      : impl_(impl),
        what_(What("Scan", prefix)),
        options_(options),
        done_(std::move(done)),
        query_(RangeQuery::Prefix(prefix)) {}

  void Start() {
    query_.limit = kFirstPage;
    impl_->Range(what_, query_, options_, [self = this->shared_from_this()](auto page) {
      if (page.ok()) {
        self->fresh_ = page->fresh;
        self->incarnation_ = page->incarnation;
      }
      self->OnPage(std::move(page));
    });
  }

 private:
  void OnPage(Result<RangeResult> page) {
    if (!page.ok()) return std::move(done_)(page.status());
    // The count of the first page is of the whole range; later pages count from their own start.
    const int64_t all = static_cast<int64_t>(entries_.size()) + page->value.count;
    if (all > options_.max_entries()) {
      return std::move(done_)(absl::ResourceExhaustedError(
          base::ToAbsl(fmt::format("{}: the prefix has {} keys, more than MaxEntries({}); raise "
                                   "it, scan a longer prefix, or "
                                   "read page by page with Range()",
                                   what_.ToText(), all, options_.max_entries()))));
    }
    for (Entry& entry : page->value.entries) {
      bytes_ += static_cast<int64_t>(entry.key.size() + entry.value.size());
      entries_.push_back(std::move(entry));
    }
    if (!page->value.more || page->value.entries.empty()) {
      return std::move(done_)(Read<std::vector<Entry>>{std::move(entries_), fresh_, incarnation_});
    }
    Next();
  }

  void Next() {
    query_.key = entries_.back().key + '\0';
    query_.revision = fresh_.revision();
    const int64_t entry_bytes = bytes_ / static_cast<int64_t>(entries_.size()) + 1;
    query_.limit = std::clamp<int64_t>(kPageBytesAimed / entry_bytes, 1, kPageMax);
    const absl::Duration left =
        options_.deadline() - absl::FromChrono(std::chrono::steady_clock::now() - start_);
    impl_->NextPage(
        what_, query_, incarnation_, left,
        [self = this->shared_from_this()](auto page) { self->OnPage(std::move(page)); });
  }

  ImplType* const impl_;
  const CallName what_;
  const ReadOptions options_;
  Done<Read<std::vector<Entry>>> done_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  RangeQuery query_;
  Freshness fresh_;
  uint64_t incarnation_ = 0;
  std::vector<Entry> entries_;
  int64_t bytes_ = 0;
};

}  // namespace

void Client::Scan(std::string_view prefix, const ReadOptions& options,
                  Done<Read<std::vector<Entry>>> done) {
  using Answer = std::vector<Entry>;
  if (auto local =
          impl_->Local<Answer>(prefix, PrefixEnd(prefix), options, ReadPrefix(prefix, options))) {
    return impl_->Deliver<Read<Answer>>(*std::move(local), std::move(done));
  }
  auto then = [impl = impl_.get(), prefix = std::string(prefix), options,
               done = std::move(done)](Result<Answer> answer) mutable {
    std::move(done)(
        impl->OrLocal<Answer>(prefix, options, std::move(answer), ReadPrefix(prefix, options)));
  };
  std::make_shared<ScanJob<Impl>>(
      impl_.get(), prefix, impl_->Allowed(prefix, PrefixEnd(prefix), options), std::move(then))
      ->Start();
}

void Client::Put(std::string_view key, std::string_view value, const WriteOptions& options,
                 Done<WriteResult> done) {
  impl_->Put(key, value, options, std::move(done));
}

void Client::Delete(std::string_view key, const WriteOptions& options, Done<WriteResult> done) {
  impl_->DeleteRange(What("Delete", key), RangeQuery::Key(key), options, std::move(done));
}

void Client::DeletePrefix(std::string_view prefix, const WriteOptions& options,
                          Done<WriteResult> done) {
  impl_->DeleteRange(What("DeletePrefix", prefix), RangeQuery::Prefix(prefix), options,
                     std::move(done));
}

void Client::Commit(const Txn& txn, const WriteOptions& options, Done<TxnResult> done) {
  impl_->Commit(txn, options, std::move(done));
}

Mirror* Client::mirror(std::string_view key_or_prefix) const {
  internal::MirrorImpl* mirror = impl_->FindMirror(key_or_prefix);
  return mirror == nullptr ? nullptr : mirror->handle();
}

absl::StatusOr<std::shared_ptr<internal::LiveCore>> Client::OpenLive(std::string_view key,
                                                                     ParseAny parse) {
  if (!impl_->InOwnProcess()) return internal::Dispatcher::AfterFork();
  internal::MirrorImpl* mirror = impl_->FindMirror(key);
  if (mirror != nullptr) return mirror->OpenLive(key, std::move(parse));
  return absl::FailedPreconditionError(base::ToAbsl(
      fmt::format("\"{}\" is of no mirrored prefix: name one in ClientOptions::prefixes",
                  base::Printable(key))));
}

Link Client::state(std::string_view key_or_prefix) const {
  internal::MirrorImpl* mirror = impl_->FindMirror(key_or_prefix);
  return mirror == nullptr ? Link::kConnecting : mirror->link();
}

std::string Client::Dump() const {
  std::string out;
  impl_->dispatcher().DumpTo(&out);
  if (impl_->mirrors() != nullptr) out += impl_->mirrors()->Dump();
  return out;
}

std::string Client::Metrics() const {
  std::string out;
  impl_->dispatcher().MetricsTo(&out);
  if (impl_->mirrors() != nullptr) out += impl_->mirrors()->Metrics();
  return out;
}

absl::StatusOr<WriteResult> Client::Resolve(const absl::Status& maybe_committed,
                                            const WriteOptions& options) {
  return WaitFor<WriteResult>(impl_->loop(), [&](Done<WriteResult> done) {
    impl_->Resolve(maybe_committed, options, std::move(done));
  });
}

Result<std::optional<Entry>> Client::Get(std::string_view key, const ReadOptions& options) {
  if (auto local = impl_->Local<std::optional<Entry>>(key, "", options, ReadKey(key)))
    return *local;
  return WaitFor<Read<std::optional<Entry>>>(
      impl_->loop(), [&](auto done) { Get(key, options, std::move(done)); });
}

Result<std::vector<Entry>> Client::Scan(std::string_view prefix, const ReadOptions& options) {
  if (auto local = impl_->Local<std::vector<Entry>>(prefix, PrefixEnd(prefix), options,
                                                    ReadPrefix(prefix, options))) {
    return *std::move(local);
  }
  return WaitFor<Read<std::vector<Entry>>>(
      impl_->loop(), [&](auto done) { Scan(prefix, options, std::move(done)); });
}

Result<RangeResult> Client::Range(const RangeQuery& query, const ReadOptions& options) {
  return WaitFor<Read<RangeResult>>(impl_->loop(),
                                    [&](auto done) { Range(query, options, std::move(done)); });
}

absl::StatusOr<WriteResult> Client::Put(std::string_view key, std::string_view value,
                                        const WriteOptions& options) {
  return WaitFor<WriteResult>(impl_->loop(),
                              [&](auto done) { Put(key, value, options, std::move(done)); });
}

absl::StatusOr<WriteResult> Client::Delete(std::string_view key, const WriteOptions& options) {
  return WaitFor<WriteResult>(impl_->loop(),
                              [&](auto done) { Delete(key, options, std::move(done)); });
}

absl::StatusOr<WriteResult> Client::DeletePrefix(std::string_view prefix,
                                                 const WriteOptions& options) {
  return WaitFor<WriteResult>(impl_->loop(),
                              [&](auto done) { DeletePrefix(prefix, options, std::move(done)); });
}

absl::StatusOr<TxnResult> Client::Commit(const Txn& txn, const WriteOptions& options) {
  return WaitFor<TxnResult>(impl_->loop(),
                            [&](auto done) { Commit(txn, options, std::move(done)); });
}

}  // namespace holdfast
