#include "bench/drill_load.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/time/clock.h"
#include "base/check.h"
#include "base/rng.h"
#include "base/strings.h"
#include "bench/monotonic.h"

namespace holdfast::bench {
namespace {

// After a whole round over the endpoints without an answer; an endpoint that refuses at once would
// otherwise be asked as fast as the machine can.
constexpr absl::Duration kRoundPause = absl::Milliseconds(2);
constexpr int kReconnectMs = 20;  // soon, so that the client's backoff does not count as an outage
constexpr int kReconnectMaxMs = 100;

std::shared_ptr<grpc::Channel> OpenChannel(const std::string& endpoint) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMs);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMaxMs);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kReconnectMs);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args);
}

void SetDeadline(absl::Duration timeout, grpc::ClientContext* context) {
  context->set_deadline(
      gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                   gpr_time_from_micros(absl::ToInt64Microseconds(timeout), GPR_TIMESPAN)));
}

}  // namespace

std::unique_ptr<DrillLoad> DrillLoad::Start(const DrillLoadOptions& options) {
  std::unique_ptr<DrillLoad> load(new DrillLoad(options));
  for (uint32_t i = 0; i < options.writers; ++i) {
    load->threads_.emplace_back([raw = load.get(), i] { raw->Run(Kind::kWrite, i); });
  }
  for (uint32_t i = 0; i < options.readers; ++i) {
    load->threads_.emplace_back([raw = load.get(), i] { raw->Run(Kind::kRead, i); });
  }
  return load;
}

DrillLoad::DrillLoad(const DrillLoadOptions& options)
    : options_(options),
      shape_(options.key_prefix, options.key_size, options.value_size, options.seed) {
  SetEndpoints(options.endpoints);
}

DrillLoad::~DrillLoad() {
  stop_ = true;
  for (std::thread& thread : threads_) thread.join();
}

void DrillLoad::SetEndpoints(const std::vector<std::string>& endpoints) {
  CHECK(!endpoints.empty());
  auto stubs = std::make_shared<Stubs>();
  for (const std::string& endpoint : endpoints) {
    stubs->push_back(etcdserverpb::KV::NewStub(OpenChannel(endpoint)));
  }
  std::lock_guard lock(stubs_mutex_);
  stubs_ = std::move(stubs);
}

std::shared_ptr<const DrillLoad::Stubs> DrillLoad::stubs() const {
  std::lock_guard lock(stubs_mutex_);
  return stubs_;
}

bool DrillLoad::Try(Kind kind, etcdserverpb::KV::Stub* stub, uint64_t number,
                    absl::Duration timeout, int* code) const {
  grpc::ClientContext context;
  SetDeadline(timeout, &context);
  std::string key;
  shape_.WriteKey(number, &key);
  grpc::Status status;
  if (kind == Kind::kWrite) {
    etcdserverpb::PutRequest request;
    etcdserverpb::PutResponse response;
    request.set_key(std::move(key));
    request.set_value(std::string(shape_.Value(number, options_.seed)));
    status = stub->Put(&context, request, &response);
  } else {
    etcdserverpb::RangeRequest request;
    etcdserverpb::RangeResponse response;
    request.set_key(std::move(key));
    status = stub->Range(&context, request, &response);
  }
  *code = status.error_code();
  return status.ok();
}

void DrillLoad::Run(Kind kind, uint32_t client) {
  Log& log = this->log(kind);
  base::Rng rng(options_.seed + client);
  const int64_t half_us = absl::ToInt64Microseconds(options_.try_timeout) / 2;
  size_t at = client;
  while (!stop_) {
    const uint64_t next = kind == Kind::kWrite ? next_key_.fetch_add(1) : next_key_.load();
    const uint64_t number = next % options_.key_space;
    for (size_t failed = 1; !stop_; ++failed) {
      const std::shared_ptr<const Stubs> stubs = this->stubs();
      const absl::Duration timeout =
          absl::Microseconds(half_us + int64_t(rng.Below(uint64_t(half_us) + 1)));
      int code = 0;
      if (Try(kind, (*stubs)[at % stubs->size()].get(), number, timeout, &code)) break;
      ++at;
      {
        std::lock_guard lock(log.mutex);
        ++log.counts.failed_tries;
        ++log.counts.codes[code];
      }
      if (failed % stubs->size() == 0) absl::SleepFor(kRoundPause);
    }
    if (stop_) return;
    std::lock_guard lock(log.mutex);
    log.answers.push_back({MonotonicNs(), client});
    if (log.answers.size() > kMaxDrillMoments) log.answers.pop_front();
    ++log.counts.answered;
    if (kind == Kind::kWrite) log.counts.bytes += options_.key_size + options_.value_size;
  }
}

DrillLoad::Counts DrillLoad::counts(Kind kind) const {
  std::lock_guard lock(log(kind).mutex);
  return log(kind).counts;
}

std::deque<DrillLoad::Answer>::const_iterator DrillLoad::FirstFrom(const Log& log,
                                                                   int64_t from_ns) {
  return std::lower_bound(
      log.answers.begin(), log.answers.end(), from_ns,
      [](const Answer& answer, int64_t moment_ns) { return answer.at_ns < moment_ns; });
}

int64_t DrillLoad::LongestGapNs(Kind kind, int64_t from_ns, int64_t to_ns) const {
  std::lock_guard lock(log(kind).mutex);
  int64_t longest = 0;
  int64_t last = from_ns;
  for (auto it = FirstFrom(log(kind), from_ns); it != log(kind).answers.end(); ++it) {
    if (it->at_ns > to_ns) break;
    longest = std::max(longest, it->at_ns - last);
    last = it->at_ns;
  }
  return std::max(longest, to_ns - last);
}

int64_t DrillLoad::SlowestClientNs(Kind kind, int64_t from_ns, int64_t to_ns) const {
  std::lock_guard lock(log(kind).mutex);
  std::vector<int64_t> last(kind == Kind::kWrite ? options_.writers : options_.readers, from_ns);
  int64_t longest = 0;
  for (auto it = FirstFrom(log(kind), from_ns); it != log(kind).answers.end(); ++it) {
    if (it->at_ns > to_ns) break;
    longest = std::max(longest, it->at_ns - last[it->client]);
    last[it->client] = it->at_ns;
  }
  for (const int64_t at_ns : last) longest = std::max(longest, to_ns - at_ns);
  return longest;
}

int64_t DrillLoad::LastAnswerNs(Kind kind) const {
  std::lock_guard lock(log(kind).mutex);
  return log(kind).answers.empty() ? 0 : log(kind).answers.back().at_ns;
}

DrillLoadOptions LoadOptionsOf(const Options& options, const std::vector<std::string>& endpoints) {
  DrillLoadOptions load;
  load.endpoints = endpoints;
  load.writers = options.clients;
  load.key_size = options.key_size;
  load.value_size = options.value_size;
  load.key_prefix = options.key_prefix;
  load.key_space = options.key_space;
  load.try_timeout = options.try_timeout;
  load.seed = options.seed;
  return load;
}

absl::StatusOr<etcdserverpb::StatusResponse> AskStatus(const std::string& endpoint,
                                                       absl::Duration timeout) {
  auto stub = etcdserverpb::Maintenance::NewStub(OpenChannel(endpoint));
  grpc::ClientContext context;
  SetDeadline(timeout, &context);
  etcdserverpb::StatusResponse response;
  const grpc::Status status = stub->Status(&context, etcdserverpb::StatusRequest(), &response);
  if (!status.ok()) {
    return absl::UnavailableError(
        base::ToAbsl("no server answers at " + endpoint + ": " + status.error_message()));
  }
  return response;
}

double Percentile(std::vector<double> values, double q) {
  CHECK(!values.empty());
  CHECK(q > 0 && q <= 1);
  std::sort(values.begin(), values.end());
  return values[size_t(std::ceil(q * double(values.size()))) - 1];
}

}  // namespace holdfast::bench
