// /health, /livez, /readyz and /version, with etcd's words (etcd 3.5.12 and later).
//
//   /health[?serializable=true][&exclude=NOSPACE]   {"health":"true","reason":""}, or 503
//   /livez, /readyz [?verbose][&exclude=CHECK]      "ok", or 503 with the checks that failed
//   /livez/CHECK, /readyz/CHECK                     one of them
// Threads: Handle on the HTTP loop; nothing blocks, the answer comes when the last check has.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/alarm_set.h"
#include "server/http_server.h"
#include "server/metrics.h"

namespace holdfast::server {

// What the checks ask of the member. All may be called from any thread and do not block.
struct HealthSources {
  std::function<AlarmSet()> alarms;
  std::function<bool()> has_leader;
  std::function<bool()> is_learner;
  // A read of the store: linearizable, or of what this member has. Calls back exactly once, within
  // the request timeout.
  using ReadDone = absl::AnyInvocable<void(absl::Status) &&>;
  std::function<void(bool serializable, ReadDone done)> read;
};

class Health {
 public:
  explicit Health(HealthSources sources);
  ~Health();

  static bool Serves(std::string_view path);
  void Handle(const HttpRequest& request, std::shared_ptr<HttpExchange> exchange);
  // etcd_server_health_*, etcd_server_healthcheck*. Outlives the registry's last scrape.
  void Register(MetricsRegistry* registry);

 private:
  struct Checks;
  void HandleHealth(const HttpRequest& request, std::shared_ptr<HttpExchange> exchange);
  void HandleChecks(const HttpRequest& request, std::shared_ptr<HttpExchange> exchange);

  const HealthSources sources_;
  // Shared with the reads that are under way.
  const std::shared_ptr<Checks> checks_;
};

}  // namespace holdfast::server
