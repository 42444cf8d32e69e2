// What a member tells about itself on /metrics: etcd's names where dashboards and tools read them,
// ours beside them (docs/http.md has the table).
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>

#include "server/apply_listener.h"
#include "server/measured_storage.h"
#include "server/member_view.h"
#include "server/metrics.h"
#include "server/rpc_metrics.h"
#include "storage/log_store.h"

namespace holdfast::server {

// Gauges of parts that exist only in some builds of the server; null: left out of the page.
// Called when somebody scrapes, from the HTTP loop: they must not block.
struct MetricsProviders {
  std::function<uint64_t()> watchers;
  std::function<uint64_t()> slow_watchers;
  std::function<uint64_t()> watch_streams;
  std::function<uint64_t()> leases;
  std::function<uint64_t()> quota_bytes;
};

// What was applied here, whoever asked for it: as etcd's mvcc counters, which also count the
// operations of transactions. Added to the state machine before its first Apply.
class AppliedMetrics : public ApplyListener {
 public:
  bool WantsEvents() override { return true; }
  void OnEvent(const storage::EventView& event) override {
    (event.is_delete ? deletes : puts).Add();
  }

  Counter puts;
  Counter deletes;
};

class ServerMetrics {
 public:
  ServerMetrics(const MemberView& member, const storage::LogStore* log,
                const StorageMetrics* storage, const AppliedMetrics* applied,
                const RpcMetrics* rpcs, const MetricsProviders& providers);

  // Everything above outlives the registry's last scrape, and so does this.
  void Register(MetricsRegistry* registry);

 private:
  void RegisterRaft(MetricsRegistry* registry);
  void RegisterStore(MetricsRegistry* registry);
  void RegisterParts(MetricsRegistry* registry);
  void RegisterIdentity(MetricsRegistry* registry);
  void RegisterFreshness(MetricsRegistry* registry);
  double LeaderChanges();

  const MemberView member_;
  const storage::LogStore* const log_;
  const StorageMetrics* const storage_;
  const AppliedMetrics* const applied_;
  const RpcMetrics* const rpcs_;
  const MetricsProviders providers_;

  // A leader is of one term, so terms that had one are what is counted, as often as somebody
  // looks: a leader that came and went between two scrapes is missed.
  std::mutex mutex_;
  uint64_t led_term_ = 0;
  uint64_t leader_changes_ = 0;
};

}  // namespace holdfast::server
