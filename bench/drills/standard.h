// The services that most drills have: one process with copies of configuration and of auth data,
// read all the time; the same service's own calls to the store; and the drill's writers, who go on
// wherever the store does.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/drills/load.h"
#include "bench/drills/store.h"
#include "holdfast/observer.h"

namespace holdfast::bench {

// Notes the states that a client goes through. Threads: all.
class LinkLog : public Observer {
 public:
  explicit LinkLog(const Timeline* timeline) : timeline_(timeline) {}
  void OnState(const StateChange& change) override;
  void OnRejected(const Rejection& rejection) override;
  void OnLastGoodWritten(std::string_view prefix, uint64_t revision) override;

  // The first time from `from_ns` on at which the prefix became `to`; -1: never.
  int64_t FirstNs(const std::string& prefix, Link to, int64_t from_ns) const;
  uint64_t rejections() const;
  // The newest revision of the prefix that is on disk; 0: none.
  uint64_t WrittenRevision(const std::string& prefix) const;

 private:
  struct Change {
    int64_t at_ns;
    StateChange change;
  };
  const Timeline* const timeline_;
  mutable std::mutex mutex_;
  std::vector<Change> changes_;
  std::map<std::string, uint64_t> written_;
  uint64_t rejections_ = 0;
};

// Threads: one.
class StandardLoad {
 public:
  struct Terms {
    absl::Duration auth_bound = absl::Seconds(10);
    absl::Duration reduced_after = absl::ZeroDuration();  // 0: not at all
    double mirror_reads = 2000;                           // a second, of each prefix
    double calls = 20;     // a second, of each kind that goes to the store
    double writes = 20;    // a second, of each oracle's key
    bool bounded = false;  // a caller with Bounded(bounded_by)
    absl::Duration bounded_by = absl::Seconds(5);
    bool service_calls = true;  // linearizable reads and writes by the service itself
    // Called with the service's options before they are used; may be null.
    std::function<void(ClientOptions&)> change = nullptr;
  };
  // `store` must live longer.
  static absl::StatusOr<std::unique_ptr<StandardLoad>> Start(DrillRun& run, DrillStore& store,
                                                             const Terms& terms);
  ~StandardLoad() { Stop(); }
  // Ends all threads; clients stay.
  void Stop();

  Client& client() { return *client_; }
  const std::shared_ptr<LinkLog>& links() const { return links_; }
  const MirrorReader& config() const { return *config_reader_; }
  const MirrorReader& auth() const { return *auth_reader_; }
  // Null if the terms left them out.
  const Caller* linearizable() const { return linearizable_.get(); }
  const Caller* bounded() const { return bounded_.get(); }
  const Caller* service_writes() const {
    return service_writer_ == nullptr ? nullptr : &service_writer_->caller();
  }
  const DrillOracle::History* config_history() const { return config_history_; }
  Writer& writer() { return *config_writer_; }
  Writer* service_writer() { return service_writer_.get(); }

  Track* config_track = nullptr;
  Track* auth_track = nullptr;
  Track* linearizable_track = nullptr;
  Track* bounded_track = nullptr;
  Track* write_track = nullptr;  // of the service

  // All that was read from mirrors within a phase was served.
  void WantServed(const std::string& what, const Track& track, int64_t from_ns, int64_t to_ns);
  // The usual figure: shares served, ages, refusals.
  Plot PlotOf(const std::string& title, const std::string& subtitle) const;

 private:
  explicit StandardLoad(DrillRun& run) : run_(run) {}

  DrillRun& run_;
  Terms terms_;
  DrillOracle::History* config_history_ = nullptr;
  std::shared_ptr<LinkLog> links_;
  std::unique_ptr<Client> writers_client_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<MirrorReader> config_reader_;
  std::unique_ptr<MirrorReader> auth_reader_;
  std::unique_ptr<Caller> linearizable_;
  std::unique_ptr<Caller> bounded_;
  std::unique_ptr<Writer> config_writer_;
  std::unique_ptr<Writer> auth_writer_;
  std::unique_ptr<Writer> service_writer_;
};

// "99.98 % of 12,345".
std::string ShareText(double percent, uint64_t of);
std::string SecondsText(double seconds);

}  // namespace holdfast::bench
