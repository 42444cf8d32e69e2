#include "server/exchange_stream.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/strings.h"
#include "server/etcd_errors.h"
#include "server/exchange_request.h"
#include "server/grpc_status.h"
#include "server/kv_service.h"
#include "server/kv_validate.h"
#include "server/read_terms.h"
#include "server/session_stamp.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using google::protobuf::Arena;
using v1::ExchangeReply;
using v1::ExchangeRequest;

// What a request costs beside its bytes.
constexpr size_t kRequestOverhead = 64;
// A batch may hold one request of the largest size, and the envelope. Below what the gRPC server
// takes, so that a larger one gets our own text.
constexpr size_t kBatchOverhead = size_t{64} << 10;
// Gets that are looked up together. More would be sorted again and again where values are large,
// and a round ends after kMessageBytes of them.
constexpr size_t kGetsOfRound = 512;
// Small replies of one message.
constexpr size_t kMessageBytes = size_t{256} << 10;

grpc::Slice ToSlice(std::string bytes) {
  auto* owned = new std::string(std::move(bytes));
  return grpc::Slice(
      owned->data(), owned->size(), [](void* string) { delete static_cast<std::string*>(string); },
      owned);
}

void AddFreshness(const ReplyFreshness& fresh, ExchangeReply* reply) {
  if (fresh.age_ms.has_value()) reply->set_age_ms(*fresh.age_ms);
  reply->set_source(fresh.source);
}

}  // namespace

// ---------------------------------------------------------------- life

ExchangeStream* ExchangeStream::Start(ExchangeHost* host, grpc::CallbackServerContext*) {
  auto* stream = new ExchangeStream(host);
  stream->self_.reset(stream);
  const bool added = host->Add(stream);
  absl::MutexLock lock(&stream->mutex_);
  if (!added) stream->End(ErrStopped());
  stream->Flush();
  return stream;
}

void ExchangeStream::OnDone() {
  host_->Remove(this);
  // The last request under way, or this, destroys the stream.
  const std::shared_ptr<ExchangeStream> self = std::move(self_);
}

void ExchangeStream::OnCancel() {
  absl::MutexLock lock(&mutex_);
  End(absl::CancelledError("the client has gone"));
  Flush();
}

void ExchangeStream::StopReading() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
  Flush();
}

void ExchangeStream::OnReadDone(bool ok) {
  grpc::ByteBuffer bytes;
  {
    absl::MutexLock lock(&mutex_);
    if (!ok) {
      reading_ = false;
      read_to_end_ = true;
      return Flush();
    }
    if (end_.has_value() || stopping_) {
      reading_ = false;
      return Flush();
    }
    bytes.Swap(&incoming_);
  }
  OnBatch(std::move(bytes));
  absl::MutexLock lock(&mutex_);
  Flush();
}

void ExchangeStream::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    unread_bytes_ -= std::exchange(writing_bytes_, 0);
    outgoing_.Clear();
    if (!ok) End(absl::CancelledError("the client has gone"));
    Flush();
    if (parked_.empty() || !HasRoom()) return;
  }
  Unpark();
}

void ExchangeStream::End(const absl::Status& status) {
  if (end_.has_value()) return;
  end_ = status;
  // Nobody reads it any more.
  out_.clear();
  large_.clear();
  parked_.clear();
  timed_.clear();
}

void ExchangeStream::Flush() {
  if (finished_) return;
  if (!end_.has_value() && !writing_) SendNext();
  const bool idle = under_way_ == 0 && !writing_ && out_.empty() && large_.empty();
  if (!end_.has_value() && idle && (read_to_end_ || stopping_)) {
    // The caller has said all, and got its answers; or we have given all we shall.
    end_ = read_to_end_ ? absl::OkStatus() : ErrStopped();
  }
  if (end_.has_value()) {
    if (writing_) return;
    finished_ = true;
    return Finish(ToGrpc(*end_));
  }
  if (!reading_ && !read_to_end_ && !stopping_ &&
      bytes_under_way_ < host_->options.max_bytes_under_way && HasRoom()) {
    reading_ = true;
    StartRead(&incoming_);
  }
}

void ExchangeStream::SendNext() {
  if (greeted_ && out_.empty() && large_.empty()) return;
  std::vector<grpc::Slice> slices;
  v1::ExchangeReplies envelope;
  if (!std::exchange(greeted_, true)) {
    v1::ExchangeLimits* limits = envelope.mutable_limits();
    limits->set_max_request_bytes(host_->options.max_request_bytes);
    limits->set_max_batch_bytes(host_->options.max_request_bytes + kBatchOverhead);
    limits->set_max_bytes_under_way(host_->options.max_bytes_under_way);
    limits->set_max_bytes_unread(host_->options.max_bytes_unread);
  }
  host_->reads->FillHeader(envelope.mutable_header());
  writing_bytes_ = 0;
  if (!out_.empty()) {
    envelope.set_incarnation(out_.front().incarnation);
    writing_bytes_ += out_.front().bytes.size();
    slices.push_back(ToSlice(std::move(out_.front().bytes)));
    out_.pop_front();
  } else if (!large_.empty()) {
    envelope.set_incarnation(large_.front().incarnation);
  } else {
    envelope.set_incarnation(host_->machine->incarnation());
  }
  // One part a message, each large reply in its turn: none holds up the others, or the small ones.
  if (!large_.empty() && large_.front().incarnation == envelope.incarnation()) {
    Large large = std::move(large_.front());
    large_.pop_front();
    const std::string_view rest = std::string_view(large.bytes).substr(large.sent);
    const std::string_view part = rest.substr(0, host_->options.part_bytes);
    const bool last = part.size() == rest.size();
    std::string encoded;
    AppendPart(large.id, part, last, &encoded);
    slices.push_back(ToSlice(std::move(encoded)));
    writing_bytes_ += last ? large.bytes.size() : 0;
    large.sent += part.size();
    if (last) {
      host_->counters.replies.Add();
    } else {
      large_.push_back(std::move(large));
    }
  }
  slices.push_back(ToSlice(envelope.SerializeAsString()));
  outgoing_ = grpc::ByteBuffer(slices.data(), slices.size());
  writing_ = true;
  host_->counters.messages.Add();
  StartWrite(&outgoing_);
}

// ---------------------------------------------------------------- requests

absl::Duration ExchangeStream::Batch::TimeoutOf(size_t slot) const {
  const uint64_t ms = request(slot).timeout_ms();
  return ms == 0 ? absl::InfiniteDuration() : absl::Milliseconds(std::min<uint64_t>(ms, INT32_MAX));
}

bool ExchangeStream::Batch::Over(size_t slot, const base::ClockSample& now) const {
  return base::Elapsed(arrival, now) >= TimeoutOf(slot);
}

void ExchangeStream::OnBatch(grpc::ByteBuffer bytes) {
  const auto batch = std::make_shared<Batch>();
  batch->arrival = host_->options.clock->Sample();
  const size_t size = bytes.Length();
  const size_t most = host_->options.max_request_bytes + kBatchOverhead;
  absl::Status bad;
  if (size > most) {
    bad = absl::ResourceExhaustedError(fmt::format(
        "holdfast: a message of {} bytes is more than max_batch_bytes, {}: send smaller batches",
        size, most));
  } else if (batch->requests = ParseExchangeRequests(&bytes, &batch->arena);
             batch->requests == nullptr) {
    bad = absl::InvalidArgumentError("holdfast: a message is no holdfast.v1.ExchangeRequests");
  } else {
    for (const ExchangeRequest& request : batch->requests->requests()) {
      if (request.id() != 0) continue;
      bad = absl::InvalidArgumentError("holdfast: a request has id 0: number them from 1 on");
    }
  }
  {
    absl::MutexLock lock(&mutex_);
    // Not before what was read is counted: the end of all requests may come with the next read.
    reading_ = false;
    if (end_.has_value()) return;
    if (!bad.ok()) return End(bad);
    for (const uint64_t id : batch->requests->cancel()) {
      const auto of_it = [id](const Large& large) { return large.id == id && large.sent == 0; };
      for (auto it = large_.begin(); it != large_.end();) {
        if (!of_it(*it)) {
          ++it;
          continue;
        }
        unread_bytes_ -= it->bytes.size();
        it = large_.erase(it);
      }
      if (scans_.contains(id)) cancelled_.insert(id);
    }
    const auto count = static_cast<size_t>(batch->requests->requests_size());
    if (count == 0) return;
    batch->bytes = size + count * kRequestOverhead;
    batch->claimed.resize(count);
    batch->unanswered = count;
    under_way_ += count;
    bytes_under_way_ += batch->bytes;
    host_->counters.requests.Add(count);
    host_->counters.batches.Add();
  }
  Begin(batch);
}

void ExchangeStream::Begin(const BatchPtr& batch) {
  Slots writes, linearizable, serializable;
  int64_t first_timeout_ns = INT64_MAX;
  for (uint32_t slot = 0; slot < batch->claimed.size(); ++slot) {
    const ExchangeRequest& request = batch->request(slot);
    if (absl::Status status = Check(request); !status.ok()) {
      AnswerError(batch, slot, status);
      continue;
    }
    if (const absl::Duration timeout = batch->TimeoutOf(slot);
        timeout != absl::InfiniteDuration()) {
      first_timeout_ns =
          std::min(first_timeout_ns, batch->arrival.boot_ns + absl::ToInt64Nanoseconds(timeout));
    }
    if (IsWrite(request)) {
      writes.push_back(slot);
    } else if (WantsSerializable(request)) {
      serializable.push_back(slot);
    } else {
      linearizable.push_back(slot);
    }
  }
  if (first_timeout_ns != INT64_MAX) {
    batch->first_timeout_ns = first_timeout_ns;
    {
      absl::MutexLock lock(&mutex_);
      timed_.push_back(batch);
    }
    host_->WakeSweeper();
  }
  {
    absl::MutexLock lock(&mutex_);
    for (const Slots* reads : {&linearizable, &serializable}) {
      for (const uint32_t slot : *reads) {
        if (Scans(batch->request(slot))) scans_.insert(batch->request(slot).id());
      }
    }
  }
  if (!writes.empty()) Propose(batch, writes);
  if (!linearizable.empty()) ReadLinearizable(batch, std::move(linearizable));
  if (!serializable.empty()) ReadSerializable(batch, serializable, /*may_refresh=*/true);
}

absl::Status ExchangeStream::Check(const ExchangeRequest& request) const {
  absl::Status status;
  bool puts = false;
  switch (request.request_case()) {
    case ExchangeRequest::kRange:
      status = CheckRange(request.range());
      break;
    case ExchangeRequest::kPut:
      status = CheckPut(request.put());
      puts = true;
      break;
    case ExchangeRequest::kDeleteRange:
      status = CheckDeleteRange(request.delete_range());
      break;
    case ExchangeRequest::kTxn:
      status = CheckTxn(request.txn(), {.max_ops = host_->options.max_txn_ops});
      break;
    case ExchangeRequest::REQUEST_NOT_SET:
      return absl::UnimplementedError(
          "holdfast: a request of a kind that this server does not know in a batch: use the unary "
          "call");
  }
  const bool write = status.ok() && IsWrite(request);
  if (status.ok() && SizeOf(request) > host_->options.max_request_bytes) {
    status = ErrRequestTooLarge();
  }
  if (status.ok() && write && (puts || (request.has_txn() && Puts(request.txn())))) {
    status = host_->admission->CheckSpace();
  }
  if (status.ok()) {
    status = host_->admission->Admit(request.require_leader(),
                                     write ? Admission::Call::kWrite : Admission::Call::kRead);
  }
  if (!status.ok()) return status;
  if (write && request.has_session()) return CheckSessionStamp(request.session());
  return write ? absl::OkStatus() : CheckTerms(request);
}

absl::Status ExchangeStream::CheckTerms(const ExchangeRequest& request) const {
  const auto check = [](const char* key, uint64_t number) {
    if (number <= static_cast<uint64_t>(INT64_MAX)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        fmt::format("holdfast: {} is {}: use a number below 2^63", key, number));
  };
  if (absl::Status status = check(kMaxAgeKey, request.max_age_ms()); !status.ok()) return status;
  return check(kMinRevisionKey, request.min_revision());
}

// ---------------------------------------------------------------- writes

void ExchangeStream::Propose(const BatchPtr& batch, const Slots& slots) {
  std::vector<Command*> commands;
  commands.reserve(slots.size());
  for (const uint32_t slot : slots) {
    commands.push_back(ToCommand(batch->mutable_request(slot), &batch->arena));
  }
  host_->pipeline->ProposeBatch(commands, [self = shared_from_this(), batch,
                                           slots](absl::Span<RequestPipeline::SlotResult> results) {
    self->OnResults(batch, slots, results);
  });
}

void ExchangeStream::OnResults(const BatchPtr& batch, const Slots& slots,
                               absl::Span<RequestPipeline::SlotResult> results) {
  const uint64_t incarnation = host_->machine->incarnation();
  absl::MutexLock lock(&mutex_);
  size_t settled = 0;
  for (RequestPipeline::SlotResult& one : results) {
    const size_t slot = slots[one.slot];
    if (!Claim(*batch, slot)) continue;
    ++settled;
    if (end_.has_value()) continue;
    ApplyResult& result = one.result;
    const uint64_t id = batch->request(slot).id();
    std::optional<bool> deduplicated;
    if (result.stamp != ApplyResult::Stamp::kNone) {
      deduplicated = result.stamp == ApplyResult::Stamp::kRepeated;
    }
    const auto* put = dynamic_cast<etcdserverpb::PutResponse*>(result.response.get());
    if (result.status.ok() && put != nullptr && !put->has_prev_kv()) {
      std::string* out = Tail(incarnation);
      const size_t before = out->size();
      AppendPutReply(id, put->header().revision(), deduplicated, out);
      NoteQueued(out->size() - before, 1);
      continue;
    }
    ExchangeReply reply;
    if (result.status.ok()) {
      reply.set_id(id);
      FillResponse(std::move(result.response), &reply);
    } else {
      reply = ErrorReply(id, result.status);
    }
    if (deduplicated.has_value()) reply.set_deduplicated(*deduplicated);
    Queue(reply, incarnation, nullptr);
  }
  Settle(*batch, settled);
  Flush();
}

// ---------------------------------------------------------------- reads

void ExchangeStream::ReadLinearizable(const BatchPtr& batch, Slots slots) {
  host_->pipeline->LinearizableRead(
      [self = shared_from_this(), batch, slots = std::move(slots)](absl::Status status) {
        if (!status.ok()) {
          for (const uint32_t slot : slots) self->AnswerError(batch, slot, status);
        } else {
          // Freshness 5: the index was asked for after the arrival, so every write acknowledged
          // before the arrival is in the answer.
          self->ReadNow(batch, slots, self->AgeSinceArrival(batch), /*refuse=*/true);
        }
        absl::MutexLock lock(&self->mutex_);
        self->Flush();
      });
}

void ExchangeStream::ReadSerializable(const BatchPtr& batch, const Slots& slots, bool may_refresh) {
  // The claim first, the state after it (RaftNode::claim); the age as of the answer.
  const std::optional<raft::Claim> claim = host_->node->claim();
  const Slots too_old = ReadNow(
      batch, slots,
      [clock = host_->options.clock, claim] {
        return claim.has_value() ? std::optional(claim->AgeAt(clock->Sample())) : std::nullopt;
      },
      /*refuse=*/!may_refresh);
  if (!too_old.empty()) Refresh(batch, too_old);
}

void ExchangeStream::Refresh(const BatchPtr& batch, const Slots& slots) {
  // Who can wait for less must not wait for who asks for more.
  std::map<std::pair<uint64_t, absl::Duration>, Slots> by_bound;
  const absl::Duration spent = base::Elapsed(batch->arrival, host_->options.clock->Sample());
  for (const uint32_t slot : slots) {
    const absl::Duration wait =
        std::min(batch->TimeoutOf(slot) - spent, KvService::kFreshClaimWait);
    by_bound[{batch->request(slot).max_age_ms(), std::max(wait, absl::ZeroDuration())}].push_back(
        slot);
  }
  for (const auto& [bound, bounded] : by_bound) {
    const auto& [max_age_ms, wait] = bound;
    if (wait <= absl::ZeroDuration()) {
      ReadSerializable(batch, bounded, /*may_refresh=*/false);
      continue;
    }
    host_->pipeline->FreshClaim(absl::Milliseconds(static_cast<int64_t>(max_age_ms)), wait,
                                [self = shared_from_this(), batch, bounded = bounded] {
                                  self->ReadSerializable(batch, bounded, /*may_refresh=*/false);
                                  absl::MutexLock lock(&self->mutex_);
                                  self->Flush();
                                });
  }
}

ExchangeStream::Slots ExchangeStream::ReadNow(const BatchPtr& batch, const Slots& slots,
                                              const AgeFn& age, bool refuse) {
  Slots gets, too_old;
  for (const uint32_t slot : slots) {
    const ExchangeRequest& request = batch->request(slot);
    if (Scans(request)) {
      // A scan waits for its thread: how young it will be is not known now.
      ReadScan(batch, slot, age, refuse);
    } else if (request.has_range() && IsPlainGet(request.range())) {
      gets.push_back(slot);
    } else if (!ReadOne(batch, slot, age, refuse, nullptr)) {
      too_old.push_back(slot);
    }
  }
  if (!gets.empty()) ReadGets(batch, std::move(gets), age, refuse, &too_old);
  return too_old;
}

bool ExchangeStream::TooOld(const ExchangeRequest& request, std::optional<absl::Duration> age) {
  if (!request.has_max_age_ms() || !WantsSerializable(request)) return false;
  return !(age.has_value() &&
           *age <= absl::Milliseconds(static_cast<int64_t>(request.max_age_ms())));
}

void ExchangeStream::RefuseTooOld(const BatchPtr& batch, const Slots& slots,
                                  std::optional<absl::Duration> age) {
  const ReplyFreshness fresh = FreshnessOf(age);
  for (const uint32_t slot : slots) {
    const ExchangeRequest& request = batch->request(slot);
    ExchangeReply reply =
        ErrorReply(request.id(),
                   TooStale(age, absl::Milliseconds(static_cast<int64_t>(request.max_age_ms()))));
    AddFreshness(fresh, &reply);
    Answer(batch, slot, reply, nullptr);
  }
}

void ExchangeStream::ReadGets(const BatchPtr& batch, Slots slots, const AgeFn& age, bool refuse,
                              Slots* too_old) {
  // As the unary door: what is too old already is not read.
  const std::optional<absl::Duration> now = age();
  const auto old = std::stable_partition(slots.begin(), slots.end(), [&](uint32_t slot) {
    return !TooOld(batch->request(slot), now);
  });
  const Slots already(old, slots.end());
  slots.erase(old, slots.end());
  if (refuse) {
    RefuseTooOld(batch, already, now);
  } else {
    too_old->insert(too_old->end(), already.begin(), already.end());
  }
  while (!slots.empty()) {
    {
      absl::MutexLock lock(&mutex_);
      if (end_.has_value()) break;
      if (!HasRoom()) {
        const bool serializable = WantsSerializable(batch->request(slots.front()));
        parked_.push_back({batch, std::move(slots), serializable, !refuse});
        return;
      }
    }
    ReadSomeGets(batch, &slots, age, refuse, too_old);
  }
  // Nobody is there any more: they are answered for the count's sake.
  for (const uint32_t slot : slots) {
    AnswerError(batch, slot, absl::CancelledError("the caller has gone"));
  }
}

void ExchangeStream::Unpark() {
  std::deque<Parked> parked;
  {
    absl::MutexLock lock(&mutex_);
    parked.swap(parked_);
  }
  for (Parked& one : parked) {
    if (one.serializable) {
      ReadSerializable(one.batch, one.slots, one.may_refresh);
    } else {
      // Their index is confirmed: whatever is read from now on is linearizable.
      ReadNow(one.batch, one.slots, AgeSinceArrival(one.batch), /*refuse=*/true);
    }
  }
  absl::MutexLock lock(&mutex_);
  Flush();
}

void ExchangeStream::ReadSomeGets(const BatchPtr& batch, Slots* slots, const AgeFn& age,
                                  bool refuse, Slots* too_old) {
  struct Piece {
    uint32_t slot = 0;
    size_t begin = 0;
    size_t end = 0;
  };
  const size_t window = std::min(slots->size(), kGetsOfRound);
  std::vector<KvReads::Get> gets;
  gets.reserve(window);
  for (size_t i = 0; i < window; ++i) {
    const ExchangeRequest& request = batch->request((*slots)[i]);
    gets.push_back({request.range().key(), static_cast<int64_t>(request.min_revision())});
  }
  std::string responses;
  std::vector<Piece> pieces;
  std::vector<bool> visited(slots->size());
  pieces.reserve(window);
  host_->reads->GetMany(gets, [&](size_t i, const absl::Status& status,
                                  const storage::KeyValueView* kv, int64_t revision) {
    visited[i] = true;
    const uint32_t slot = (*slots)[i];
    if (!status.ok()) {
      ExchangeReply reply = ErrorReply(batch->request(slot).id(), status);
      AddFreshness(FreshnessOf(age()), &reply);
      Answer(batch, slot, reply, nullptr);
      return true;
    }
    const size_t begin = responses.size();
    AppendGetResponse(kv, revision, &responses);
    pieces.push_back({slot, begin, responses.size()});
    return responses.size() < kMessageBytes;
  });
  Slots rest;
  for (size_t i = 0; i < slots->size(); ++i) {
    if (!visited[i]) rest.push_back((*slots)[i]);
  }
  *slots = std::move(rest);

  const std::optional<absl::Duration> now = age();
  const ReplyFreshness fresh = FreshnessOf(now);
  const uint64_t incarnation = host_->machine->incarnation();
  Slots refused;
  {
    absl::MutexLock lock(&mutex_);
    size_t settled = 0;
    for (const Piece& piece : pieces) {
      const ExchangeRequest& request = batch->request(piece.slot);
      if (TooOld(request, now)) {
        refused.push_back(piece.slot);
        continue;
      }
      if (!Claim(*batch, piece.slot)) continue;
      ++settled;
      if (end_.has_value()) continue;
      const std::string_view response =
          std::string_view(responses).substr(piece.begin, piece.end - piece.begin);
      if (response.size() > host_->options.part_bytes) {
        ExchangeReply reply;
        reply.set_id(request.id());
        CHECK(reply.mutable_range()->ParseFromArray(response.data(),
                                                    static_cast<int>(response.size())));
        AddFreshness(fresh, &reply);
        Queue(reply, incarnation, nullptr);
        continue;
      }
      std::string* out = Tail(incarnation);
      const size_t before = out->size();
      AppendRangeReply(request.id(), response, fresh, out);
      NoteQueued(out->size() - before, 1);
    }
    Settle(*batch, settled);
    Flush();
  }
  if (refuse) return RefuseTooOld(batch, refused, now);
  too_old->insert(too_old->end(), refused.begin(), refused.end());
}

bool ExchangeStream::ReadOne(const BatchPtr& batch, uint32_t slot, const AgeFn& age, bool refuse,
                             std::shared_ptr<AnswerBudget::Reservation> reservation) {
  const ExchangeRequest& request = batch->request(slot);
  const auto min_revision = static_cast<int64_t>(request.min_revision());
  ExchangeReply reply;
  absl::Status status;
  std::optional<absl::Duration> now = age();
  // As the unary door: what is too old already is not read.
  if (!TooOld(request, now)) {
    if (request.has_range()) {
      status = host_->reads->Evaluate(request.range(), min_revision, reservation.get(),
                                      reply.mutable_range());
      ClearHeader(reply.mutable_range()->mutable_header());
    } else {
      status = host_->reads->Evaluate(request.txn(), min_revision, reservation.get(),
                                      reply.mutable_txn());
      ClearHeader(reply.mutable_txn()->mutable_header());
    }
    now = age();
  }
  if (status.ok() && TooOld(request, now)) {
    if (!refuse) return false;
    status = TooStale(now, absl::Milliseconds(static_cast<int64_t>(request.max_age_ms())));
  }
  if (!status.ok()) reply = ErrorReply(request.id(), status);
  reply.set_id(request.id());
  AddFreshness(FreshnessOf(now), &reply);
  Answer(batch, slot, reply, std::move(reservation));
  return true;
}

void ExchangeStream::ReadScan(const BatchPtr& batch, uint32_t slot, const AgeFn& age, bool refuse) {
  const uint64_t id = batch->request(slot).id();
  const bool serializable = WantsSerializable(batch->request(slot));
  absl::Status posted = host_->reads->scans().Post([self = shared_from_this(), batch, slot, age, id,
                                                    serializable, refuse]() {
    bool skip = false;
    {
      absl::MutexLock lock(&self->mutex_);
      // Nobody is there any more, or waits: spare the store a range that may be large.
      skip = self->cancelled_.contains(id) || self->end_.has_value() || batch->claimed[slot];
    }
    if (skip) {
      self->AnswerError(batch, slot, absl::CancelledError("the caller gave it up"));
      absl::MutexLock lock(&self->mutex_);
      self->Flush();
      return;
    }
    auto reservation = std::make_shared<AnswerBudget::Reservation>(&self->host_->reads->answers());
    if (!serializable) {
      self->ReadOne(batch, slot, age, /*refuse=*/true, std::move(reservation));
    } else {
      // The claim that the batch began with has aged in the queue.
      const std::optional<raft::Claim> claim = self->host_->node->claim();
      const AgeFn fresher = [clock = self->host_->options.clock, claim] {
        return claim.has_value() ? std::optional(claim->AgeAt(clock->Sample())) : std::nullopt;
      };
      if (!self->ReadOne(batch, slot, fresher, refuse, std::move(reservation))) {
        self->Refresh(batch, {slot});
      }
    }
    absl::MutexLock lock(&self->mutex_);
    self->Flush();
  });
  if (!posted.ok()) AnswerError(batch, slot, posted);
}

ExchangeStream::AgeFn ExchangeStream::AgeSinceArrival(const BatchPtr& batch) const {
  return [clock = host_->options.clock, batch]() -> std::optional<absl::Duration> {
    return base::Elapsed(batch->arrival, clock->Sample());
  };
}

ReplyFreshness ExchangeStream::FreshnessOf(std::optional<absl::Duration> age) const {
  ReplyFreshness fresh;
  if (age.has_value()) fresh.age_ms = static_cast<uint64_t>(RoundUpToMs(*age));
  fresh.source = host_->node->status().role == raft::Role::kLeader ? ExchangeReply::LEADER
                                                                   : ExchangeReply::FOLLOWER;
  return fresh;
}

// ---------------------------------------------------------------- answers

bool ExchangeStream::Claim(Batch& batch, size_t slot) {
  if (batch.claimed[slot]) return false;
  batch.claimed[slot] = true;
  if (!scans_.empty()) {
    scans_.erase(batch.request(slot).id());
    cancelled_.erase(batch.request(slot).id());
  }
  return true;
}

void ExchangeStream::Settle(Batch& batch, size_t count) {
  under_way_ -= count;
  batch.unanswered -= count;
  if (count > 0 && batch.unanswered == 0) bytes_under_way_ -= batch.bytes;
}

void ExchangeStream::AnswerError(const BatchPtr& batch, size_t slot, const absl::Status& status) {
  Answer(batch, slot, ErrorReply(batch->request(slot).id(), status), nullptr);
}

void ExchangeStream::Answer(const BatchPtr& batch, size_t slot, const ExchangeReply& reply,
                            std::shared_ptr<AnswerBudget::Reservation> reservation) {
  const uint64_t incarnation = host_->machine->incarnation();
  absl::MutexLock lock(&mutex_);
  if (!Claim(*batch, slot)) return;
  if (!end_.has_value()) Queue(reply, incarnation, std::move(reservation));
  Settle(*batch, 1);
}

void ExchangeStream::Queue(const ExchangeReply& reply, uint64_t incarnation,
                           std::shared_ptr<AnswerBudget::Reservation> reservation) {
  const size_t size = reply.ByteSizeLong();
  if (size > host_->options.part_bytes) {
    Large large{
        .id = reply.id(), .incarnation = incarnation, .reservation = std::move(reservation)};
    CHECK(reply.AppendToString(&large.bytes));
    unread_bytes_ += large.bytes.size();
    large_.push_back(std::move(large));
    return;
  }
  std::string* out = Tail(incarnation);
  const size_t before = out->size();
  AppendReply(reply, out);
  NoteQueued(out->size() - before, 1);
}

std::string* ExchangeStream::Tail(uint64_t incarnation) {
  if (out_.empty() || out_.back().bytes.size() > kMessageBytes ||
      out_.back().incarnation != incarnation) {
    out_.push_back({.incarnation = incarnation});
  }
  return &out_.back().bytes;
}

void ExchangeStream::NoteQueued(size_t bytes, size_t replies) {
  unread_bytes_ += bytes;
  host_->counters.replies.Add(replies);
}

bool ExchangeStream::SweepTimeouts(const base::ClockSample& now) {
  absl::MutexLock lock(&mutex_);
  size_t kept = 0;
  for (BatchPtr& batch : timed_) {
    if (batch->unanswered == 0) continue;
    if (now.boot_ns >= batch->first_timeout_ns) {
      size_t settled = 0;
      int64_t next_ns = INT64_MAX;
      for (size_t slot = 0; slot < batch->claimed.size(); ++slot) {
        if (batch->claimed[slot]) continue;
        const absl::Duration timeout = batch->TimeoutOf(slot);
        if (timeout == absl::InfiniteDuration()) continue;
        if (!batch->Over(slot, now)) {
          next_ns = std::min(next_ns, batch->arrival.boot_ns + absl::ToInt64Nanoseconds(timeout));
          continue;
        }
        Claim(*batch, slot);
        ++settled;
        host_->counters.timeouts.Add();
        Queue(ErrorReply(batch->request(slot).id(),
                         absl::DeadlineExceededError(fmt::format(
                             "holdfast: no result within timeout_ms, {}: a write may still take "
                             "effect",
                             batch->request(slot).timeout_ms()))),
              /*incarnation=*/0, nullptr);
      }
      batch->first_timeout_ns = next_ns;
      Settle(*batch, settled);
    }
    if (batch->first_timeout_ns != INT64_MAX) timed_[kept++] = std::move(batch);
  }
  timed_.resize(kept);
  Flush();
  return kept > 0;
}

}  // namespace holdfast::server
