#include "client/ctl/ordered_writer.h"

#include <thread>
#include <utility>

#include <fmt/format.h>

#include "absl/time/clock.h"
#include "base/strings.h"
#include "client/grpc_time.h"

namespace holdfast::ctl {
namespace {

constexpr absl::Duration kGiveUp = absl::Seconds(60);
constexpr absl::Duration kPause = absl::Milliseconds(100);

// Errors that may be gone at the next try. A NOSPACE alarm is not one of them.
bool MayPass(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kAborted:
      return true;
    default:
      return false;
  }
}

}  // namespace

OrderedWriter::OrderedWriter(Remote* target, std::string marker_key, std::string marker)
    : target_(*target),
      marker_key_(std::move(marker_key)),
      acknowledged_(std::move(marker)),
      last_(acknowledged_),
      stub_(etcdserverpb::KV::NewStub(target->channels().front())),
      last_progress_(absl::Now()) {}

OrderedWriter::~OrderedWriter() {
  for (const auto& flight : flights_) flight->context.TryCancel();
  std::unique_lock lock(mutex_);
  for (const auto& flight : flights_) {
    changed_.wait(lock, [&flight] { return flight->done; });
  }
}

absl::Status OrderedWriter::Push(Step step) {
  while (flights_.size() >= kWindowSteps || (bytes_ > 0 && bytes_ + step.bytes > kWindowBytes)) {
    if (absl::Status status = Settle(); !status.ok()) return status;
  }
  if (flights_.empty()) last_progress_ = absl::Now();
  const std::string before = last_;
  Send(std::move(step), before);
  return absl::OkStatus();
}

absl::Status OrderedWriter::Drain() {
  while (!flights_.empty()) {
    if (absl::Status status = Settle(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void OrderedWriter::Send(Step step, const std::string& before) {
  auto flight = std::make_unique<Flight>();
  etcdserverpb::Compare& compare = *flight->request.add_compare();
  compare.set_result(etcdserverpb::Compare::EQUAL);
  compare.set_target(etcdserverpb::Compare::VALUE);
  compare.set_key(marker_key_);
  compare.set_value(before);
  for (const etcdserverpb::RequestOp& op : step.ops) *flight->request.add_success() = op;
  auto& put = *flight->request.add_success()->mutable_request_put();
  put.set_key(marker_key_);
  put.set_value(step.marker);
  last_ = step.marker;
  bytes_ += step.bytes;
  flight->step = std::move(step);
  flight->context.set_deadline(internal::ToGrpcTimespan(target_.timeout()));
  Flight* const raw = flight.get();
  flights_.push_back(std::move(flight));
  stub_->async()->Txn(&raw->context, &raw->request, &raw->response,
                      [this, raw](grpc::Status status) {
                        std::lock_guard lock(mutex_);
                        raw->status = std::move(status);
                        raw->done = true;
                        changed_.notify_all();
                      });
}

absl::Status OrderedWriter::Settle() {
  Flight& oldest = *flights_.front();
  {
    std::unique_lock lock(mutex_);
    // Ends by the call's deadline.
    changed_.wait(lock, [&oldest] { return oldest.done; });
  }
  const absl::Status status = FromGrpc(oldest.status);
  if (status.ok() && oldest.response.succeeded()) {
    acknowledged_ = oldest.step.marker;
    bytes_ -= oldest.step.bytes;
    flights_.pop_front();
    last_progress_ = absl::Now();
    return absl::OkStatus();
  }
  if (!status.ok() && !MayPass(status)) return status;
  return Recover(status.ok() ? absl::AbortedError("a step was overtaken") : status);
}

absl::StatusOr<std::string> OrderedWriter::ReadMarker() {
  etcdserverpb::RangeRequest request;
  request.set_key(marker_key_);
  etcdserverpb::RangeResponse response;
  if (absl::Status status = target_.Range(request, &response); !status.ok()) return status;
  if (response.kvs().empty()) {
    return absl::FailedPreconditionError("the marker is gone from the target");
  }
  return response.kvs(0).value();
}

absl::Status OrderedWriter::Recover(const absl::Status& why) {
  std::deque<std::unique_ptr<Flight>> old;
  {
    std::unique_lock lock(mutex_);
    for (const auto& flight : flights_) {
      changed_.wait(lock, [&flight] { return flight->done; });
    }
    old.swap(flights_);
  }
  bytes_ = 0;
  absl::StatusOr<std::string> marker = ReadMarker();
  while (!marker.ok()) {
    if (!MayPass(marker.status())) return marker.status();
    if (absl::Now() - last_progress_ > kGiveUp) return why;
    std::this_thread::sleep_for(absl::ToChronoMilliseconds(kPause));
    marker = ReadMarker();
  }
  // The endpoint that answered just now.
  stub_ = etcdserverpb::KV::NewStub(target_.channels().front());
  size_t done = 0;
  if (*marker != acknowledged_) {
    while (done < old.size() && old[done]->step.marker != *marker) ++done;
    if (done == old.size()) {
      return absl::FailedPreconditionError(
          "the marker in the target is none of ours: does another migration run?");
    }
    ++done;
    acknowledged_ = *marker;
    last_progress_ = absl::Now();
  } else if (absl::Now() - last_progress_ > kGiveUp) {
    return why;
  }
  last_ = acknowledged_;
  for (size_t i = done; i < old.size(); ++i) {
    const std::string before = last_;
    Send(std::move(old[i]->step), before);
  }
  return absl::OkStatus();
}

}  // namespace holdfast::ctl
