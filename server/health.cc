#include "server/health.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "base/log.h"
#include "base/strings.h"

namespace holdfast::server {
namespace {

constexpr std::string_view kHealth = "/health";

struct Check {
  const char* type;  // the path it belongs to
  const char* name;
  enum class Kind { kSerializableRead, kLinearizableRead, kDataCorruption, kNonLearner } kind;
};
// In the order of the answer.
constexpr std::array<Check, 5> kChecks = {{
    {"livez", "serializable_read", Check::Kind::kSerializableRead},
    {"readyz", "data_corruption", Check::Kind::kDataCorruption},
    {"readyz", "serializable_read", Check::Kind::kSerializableRead},
    {"readyz", "linearizable_read", Check::Kind::kLinearizableRead},
    {"readyz", "non_learner", Check::Kind::kNonLearner},
}};

const char* NameOf(AlarmType type) {
  switch (type) {
    case AlarmType::kNoSpace:
      return "NOSPACE";
    case AlarmType::kCorrupt:
      return "CORRUPT";
    case AlarmType::kNone:
      break;
  }
  return "UNKNOWN";
}

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out;
}

std::string HealthJson(std::string_view reason) {
  return fmt::format(R"({{"health":"{}","reason":"{}"}})", reason.empty() ? "true" : "false",
                     Escaped(reason));
}

std::set<std::string> Excluded(const HttpRequest& request) {
  std::set<std::string> excluded;
  for (const auto& [name, value] : request.query) {
    if (name == "exclude" && !value.empty()) excluded.insert(value);
  }
  return excluded;
}

}  // namespace

struct Health::Checks {
  Counter healthy;
  Counter unhealthy;
  struct Outcome {
    Counter succeeded;
    Counter failed;
    std::atomic<int> last = -1;  // -1: not made yet
  };
  std::array<Outcome, kChecks.size()> outcomes;
};

namespace {

// The answer of one /livez or /readyz: made when the last of its checks is done.
class Round {
 public:
  Round(std::vector<size_t> checks, bool verbose, std::string path,
        std::shared_ptr<HttpExchange> exchange)
      : checks_(std::move(checks)),
        verbose_(verbose),
        path_(std::move(path)),
        exchange_(std::move(exchange)),
        results_(checks_.size()),
        // One more, so that it cannot end before all were begun.
        missing_(checks_.size() + 1) {}

  const std::vector<size_t>& checks() const { return checks_; }

  void Done(size_t position, absl::Status status) {
    {
      std::lock_guard lock(mutex_);
      results_[position] = std::move(status);
    }
    Arrive();
  }

  void Arrive() {
    {
      std::lock_guard lock(mutex_);
      if (--missing_ > 0) return;
    }
    std::string lines;
    bool failed = false;
    for (size_t i = 0; i < checks_.size(); ++i) {
      const absl::Status& result = results_[i];
      failed = failed || !result.ok();
      lines += result.ok() ? fmt::format("[+]{} ok\n", kChecks[checks_[i]].name)
                           : fmt::format("[-]{} failed: {}\n", kChecks[checks_[i]].name,
                                         base::Message(result));
    }
    if (failed) {
      LOG_WARN("{} is answered 503: {}", path_, lines);
      return exchange_->Send(PlainError(503, lines));
    }
    HttpResponse response = PlainError(200, "ok");
    if (verbose_) response.body = lines + response.body;
    exchange_->Send(std::move(response));
  }

 private:
  const std::vector<size_t> checks_;
  const bool verbose_;
  const std::string path_;
  const std::shared_ptr<HttpExchange> exchange_;
  std::mutex mutex_;
  std::vector<absl::Status> results_;
  size_t missing_;
};

}  // namespace

Health::Health(HealthSources sources)
    : sources_(std::move(sources)), checks_(std::make_shared<Checks>()) {}

Health::~Health() = default;

bool Health::Serves(std::string_view path) {
  if (path == kHealth || path == "/livez" || path == "/readyz") return true;
  return std::ranges::any_of(kChecks, [path](const Check& check) {
    return path == fmt::format("/{}/{}", check.type, check.name);
  });
}

void Health::Handle(const HttpRequest& request, std::shared_ptr<HttpExchange> exchange) {
  if (request.method != "GET") {
    HttpResponse response = PlainError(405, "Method Not Allowed");
    response.headers.emplace_back("Allow", "GET");
    return exchange->Send(std::move(response));
  }
  if (request.path == kHealth) return HandleHealth(request, std::move(exchange));
  HandleChecks(request, std::move(exchange));
}

void Health::HandleHealth(const HttpRequest& request, std::shared_ptr<HttpExchange> exchange) {
  const auto answer = [checks = checks_, exchange](std::string_view reason) {
    (reason.empty() ? checks->healthy : checks->unhealthy).Add();
    if (reason.empty()) {
      return exchange->Send({.content_type = "application/json", .body = HealthJson(reason)});
    }
    LOG_WARN("/health is answered 503: {}", reason);
    exchange->Send(PlainError(503, HealthJson(reason)));
  };
  const std::set<std::string> excluded = Excluded(request);
  const AlarmSet alarms = sources_.alarms();
  for (const AlarmSet::Alarm& alarm : alarms.alarms()) {
    const char* name = NameOf(alarm.second);
    if (!excluded.contains(name)) return answer(fmt::format("ALARM {}", name));
  }
  const bool serializable = request.Query("serializable") == "true";
  if (!serializable && !sources_.has_leader()) return answer("RAFT NO LEADER");
  sources_.read(serializable, [answer](absl::Status status) {
    answer(status.ok() ? "" : fmt::format("RANGE ERROR:{}", base::Message(status)));
  });
}

void Health::HandleChecks(const HttpRequest& request, std::shared_ptr<HttpExchange> exchange) {
  const std::set<std::string> excluded = Excluded(request);
  std::vector<size_t> chosen;
  for (size_t i = 0; i < kChecks.size(); ++i) {
    const std::string root = fmt::format("/{}", kChecks[i].type);
    const bool in_root = request.path == root && !excluded.contains(kChecks[i].name);
    if (in_root || request.path == fmt::format("{}/{}", root, kChecks[i].name)) {
      chosen.push_back(i);
    }
  }
  auto round = std::make_shared<Round>(std::move(chosen), request.HasQuery("verbose"), request.path,
                                       std::move(exchange));
  for (size_t i = 0; i < round->checks().size(); ++i) {
    const auto done = [round, i, all = checks_](absl::Status status) {
      Checks::Outcome& outcome = all->outcomes[round->checks()[i]];
      (status.ok() ? outcome.succeeded : outcome.failed).Add();
      outcome.last = status.ok() ? 1 : 0;
      round->Done(i, std::move(status));
    };
    switch (kChecks[round->checks()[i]].kind) {
      case Check::Kind::kSerializableRead:
        sources_.read(true, done);
        break;
      case Check::Kind::kLinearizableRead:
        sources_.read(false, done);
        break;
      case Check::Kind::kDataCorruption:
        done(sources_.alarms().Any(AlarmType::kCorrupt)
                 ? absl::FailedPreconditionError("alarm activated: CORRUPT")
                 : absl::OkStatus());
        break;
      case Check::Kind::kNonLearner:
        done(sources_.is_learner() ? absl::FailedPreconditionError("not supported for learner")
                                   : absl::OkStatus());
        break;
    }
  }
  round->Arrive();
}

void Health::Register(MetricsRegistry* registry) {
  registry->AddCounter("etcd_server_health_success", "The total number of successful health checks",
                       &checks_->healthy);
  registry->AddCounter("etcd_server_health_failures", "The total number of failed health checks",
                       &checks_->unhealthy);
  registry->AddSamples(
      "etcd_server_healthcheck", "The result of each kind of healthcheck.", MetricKind::kGauge,
      [checks = checks_] {
        std::vector<MetricSample> samples;
        for (size_t i = 0; i < kChecks.size(); ++i) {
          const int last = checks->outcomes[i].last;
          if (last < 0) continue;
          samples.push_back(
              {{{"name", kChecks[i].name}, {"type", kChecks[i].type}}, static_cast<double>(last)});
        }
        return samples;
      });
  registry->AddSamples(
      "etcd_server_healthchecks_total", "The total number of each kind of healthcheck.",
      MetricKind::kCounter, [checks = checks_] {
        std::vector<MetricSample> samples;
        for (size_t i = 0; i < kChecks.size(); ++i) {
          const auto add = [&samples, i](const char* status, const Counter& counter) {
            if (counter.value() == 0) return;
            samples.push_back(
                {{{"name", kChecks[i].name}, {"status", status}, {"type", kChecks[i].type}},
                 static_cast<double>(counter.value())});
          };
          add("success", checks->outcomes[i].succeeded);
          add("error", checks->outcomes[i].failed);
        }
        return samples;
      });
}

}  // namespace holdfast::server
