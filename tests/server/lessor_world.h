// A cluster of lessors in virtual time: three members with clocks of their own that stall, lose
// their leadership without noticing, and are elected; a log in which entries are late, lost, or
// brought in by a later leader; clients that renew and then stop.
//
// What is true is known here and to nobody inside: the world checks every lease's end against it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "server/lessor_core.h"

namespace holdfast::server::testing {

class LessorWorld {
 public:
  static constexpr absl::Duration kElectionTimeout = absl::Seconds(1);
  struct Options {
    uint64_t seed = 1;
    int leases = 30;
    absl::Duration life = absl::Minutes(3);  // with faults and renewals
    bool long_ttls = false;                  // so long that checkpoints matter
    double faults = 1.0;                     // how often, relatively
  };
  explicit LessorWorld(const Options& options);

  // Faults and clients, then neither until every lease is gone. The violations found.
  std::vector<std::string> Run();

  // What happened, so that a test can see that it tested something.
  struct Counts {
    int elections = 0, stalls = 0, renewals = 0, refused = 0, ended = 0, void_entries = 0,
        checkpoints = 0, resets = 0, reused = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Entry {
    Term term;           // of the entry
    Term proposed_term;  // in the command
    Index as_of;
    enum class Kind { kGrant, kRevoke, kExpiry, kCheckpoint } kind = Kind::kGrant;
    int64_t id = 0, ttl_s = 0;
    std::vector<int64_t> ids;
    std::vector<LessorCore::Proposals::Remaining> remaining;
    std::function<void(bool)> done;
  };
  struct Record {
    LeaseRecord record;
    int64_t safe_until_us = 0;  // true time: granted or renewed, plus the TTL
  };
  struct Member {
    std::unique_ptr<LessorCore> core = std::make_unique<LessorCore>(kElectionTimeout);
    double rate = 1;  // of its clock
    Term believes;    // leads in this term, as it thinks; 0: does not
    bool loading = false;
    int64_t stalled_until_us = 0;
    std::optional<base::ClockSample> claim;
    std::map<uint64_t, std::pair<int64_t, int64_t>> asked;  // tag -> id, when (true time)
    std::vector<LeaseChange> inbox;
  };

  void At(int64_t at_us, std::function<void()> what) { events_.emplace(at_us, std::move(what)); }
  void After(int64_t us, std::function<void()> what) { At(now_us_ + us, std::move(what)); }
  // On the member's thread: when it does not stall.
  void On(int member, int64_t after_us, std::function<void()> what);
  int64_t Below(int64_t us) { return static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(us))); }
  // Mostly short, now and then far longer than an election timeout.
  int64_t SomeDelay() { return rng_.OneIn(12) ? Below(4'000'000) : Below(30'000); }
  base::ClockSample ClockOf(int member) const;

  void Elect(int member);
  void Tick(int member);
  void Step(int member);
  void Beat(int member);
  void Round(int member, uint64_t round);
  void Propose(Entry entry);
  void Commit(Entry entry);
  void Apply(const Entry& entry);
  void End(int64_t id, bool expired);
  void Client(int64_t id);
  void Answered(int member, const LessorCore::Answer& answer);
  void Fault();
  void Violation(std::string what);

  const Options options_;
  base::Rng rng_;
  int64_t now_us_ = 0;
  bool faults_ = true;
  std::multimap<int64_t, std::function<void()>> events_;
  std::vector<Member> members_{3};
  int leader_ = 0;
  Term term_;
  uint64_t elections_ = 0;
  Index last_;
  std::map<int64_t, Record> leases_;
  std::map<int64_t, int64_t> gone_at_us_;  // the last end of each id
  uint64_t tag_ = 0;
  std::vector<std::string> violations_;
  Counts counts_;
};

}  // namespace holdfast::server::testing
