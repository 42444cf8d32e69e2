// One mirrored prefix: its data, what may be served of it, and how new data becomes what is served.
//
//   feed (snapshot, events) ──► head ──guards, Judge──► accepted ──trial noted──► published ──►
//   reads
//                                 └─ refused: the accepted set stays, its claim stops (Freshness
//                                 W4)
//
// A refused set is not dropped: events go on to change the head, and each new head is judged whole
// against what is served. So the change that mends a bad set brings everything behind it along.
//
// Threads: "reader" methods from any thread; "engine" methods on the scheduler's thread only; Start
// methods before the engine knows of the mirror.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "client/disk_keeper.h"
#include "client/judge.h"
#include "client/last_good.h"
#include "client/published.h"
#include "client/scheduler.h"
#include "client/version_store.h"
#include "etcd/rpc.pb.h"
#include "holdfast/client.pb.h"
#include "holdfast/live.h"
#include "holdfast/mirror.h"
#include "holdfast/observer.h"
#include "holdfast/policy.h"

namespace holdfast::internal {

// How long what crashed a process is held back from its successors, if nobody looks at it.
inline constexpr absl::Duration kSuspectsHeldFor = absl::Hours(1);
// A mirror that begins with its copy on disk takes nothing new for so long after Client::Open: the
// parsers of live values come then, and must have their say before what they would refuse is
// served.
inline constexpr absl::Duration kLiveGrace = absl::Seconds(1);
// What was refused because its judgement took too long is judged again, first after so long.
inline constexpr absl::Duration kAskAgainFirst = absl::Seconds(1);
inline constexpr absl::Duration kAskAgainMax = absl::Seconds(60);
// While a set is refused, old versions stay in memory with the one that is served. Beyond this, and
// the size of the set, both are built anew without them.
inline constexpr size_t kRetiredBytesMax = size_t{64} << 20;
// More changed keys than this are remembered as one set.
inline constexpr size_t kSuspectKeysMax = 64;

// Keys and values alone: under whatever revisions.
inline bool SameContent(const MirrorSnapshot& a, const MirrorSnapshot& b) {
  return a.size() == b.size() && VersionStore::ContentDigest(a) == VersionStore::ContentDigest(b);
}

class MirrorImpl : public std::enable_shared_from_this<MirrorImpl> {
 public:
  struct Options {
    std::string prefix;
    Policy policy = Policy::FailStatic();
    std::shared_ptr<const base::Clock> clock;  // of ages
    double max_clock_slow = base::kDefaultMaxClockSlow;
    std::shared_ptr<Observer> observer;  // may be null
    std::shared_ptr<Scheduler> scheduler;
  };

  explicit MirrorImpl(Options options);
  ~MirrorImpl();

  // --- start ---
  // Reads the copy on disk and serves it. OK too if there is none; not OK: what is wrong with what
  // is there, for people.
  absl::Status LoadFromDisk(std::unique_ptr<LastGood> files);
  LastGood* files() const { return files_.get(); }
  DiskKeeper::Events DiskEvents();
  void AttachDisk(DiskKeeper* keeper, size_t slot);

  // --- readers ---
  absl::StatusOr<Freshness> Visit(std::string_view key,
                                  absl::FunctionRef<void(const EntryView*)> visit) const;
  Result<std::optional<Entry>> Get(std::string_view key) const;
  Result<MirrorSnapshot> Snapshot() const;
  Result<std::vector<Entry>> Scan(std::string_view prefix) const;
  absl::Status WaitFresh(absl::Duration max_age, absl::Duration timeout) const;
  absl::Status WaitFor(const Token& token, absl::Duration timeout) const;
  // Waits until data may be served under the policy, its age included; false: not within `timeout`.
  bool WaitServing(absl::Duration timeout) const;
  // Waits until what came from the store in this run has an age; nothing to wait for otherwise.
  void WaitProven(absl::Duration timeout) const;
  bool has_data() const;  // of whatever age, or defaults
  MirrorStatus status() const;
  Freshness fresh() const;
  absl::StatusOr<std::shared_ptr<LiveCore>> OpenLive(std::string_view key, ParseAny parse);
  void OnChange(Mirror::Changed changed);
  void MarkGood(uint64_t revision);
  void MarkAccepted(uint64_t revision);
  const std::string& prefix() const { return options_.prefix; }
  const Policy& policy() const { return options_.policy; }
  Mirror* handle() { return &handle_; }
  std::string Dump() const;

  // --- engine ---
  struct Position {
    uint64_t revision = 0;  // 0: nothing yet
    uint64_t incarnation = 0;
    uint64_t cluster_id = 0;
    std::string digest;  // empty: no statement
  };
  Position position();
  // The engine begins with this mirror: what the operator's file said when it was loaded.
  void Begin(std::optional<LastGood::Override> first);
  // Client::Open returns now.
  void Opened() {
    if (take_from_ == absl::InfiniteDuration()) take_from_ = options_.scheduler->Now() + kLiveGrace;
  }
  // A whole copy of the prefix at head.revision.
  void TakeSnapshot(const v1::LoadHead& head, std::vector<v1::LoadResponse> parts);
  // The data is unchanged up to this revision.
  void TakeUnchanged(const v1::LoadHead& head);
  void TakeTooLarge(uint64_t revision, size_t bytes);
  void NoteResumed() { ++resumes_; }
  // Events of whole revisions; Flush makes a head of all that came since the last one.
  void Apply(const etcdserverpb::WatchResponse& response);
  void Flush();
  // Freshness W2: everything up to `revision` has been applied; `claim` is of that.
  void TakeClaim(uint64_t revision, Claim claim);
  void SetLink(Link link, const absl::Status& why);
  Link link() const { return link_.load(std::memory_order_relaxed); }
  void Tick();
  // What cannot wait for the disk's next turn; then no more is written. ReleaseDisk when it is
  // done.
  void Close();
  void ReleaseDisk() { files_.reset(); }
  void FillReport(v1::PrefixReport* report) const;
  // Changes with every refusal and its end: a reason to report soon.
  uint64_t refusals_seen() const { return refusals_seen_; }
  std::optional<absl::Status> expired() const;  // why reads are refused now

 private:
  struct LiveSlot;
  class LiveImpl;
  // What a version of the records shows.
  struct Head {
    uint64_t revision = 0;  // 0: nothing of the store
    uint64_t incarnation = 0;
    uint64_t cluster_id = 0;
    bool from_disk = false;  // nothing of this run is in it
  };
  struct Checkpoint {
    MirrorSnapshot version;
    uint64_t revision = 0;
    absl::Duration at;
  };

  // Readers' side.
  VersionInfo Info() const;
  absl::Duration AgeOf(const Claim& claim) const;
  // Than the one that is served: better proven, or of a smaller age.
  bool Better(const Claim& claim) const;
  // OK: the data may be served; nullopt in place of it: the defaults are.
  absl::StatusOr<Freshness> VisitWith(std::string_view key, uint64_t* incarnation,
                                      absl::FunctionRef<void(const EntryView*)> visit) const;
  absl::StatusOr<bool> MayServe(const VersionInfo& info) const;
  absl::Status CheckLeased(const EntryView& entry, const VersionInfo& info) const;
  Freshness FreshnessOf(const VersionInfo& info, bool overridden_entry = false) const;
  Freshness DefaultFreshness() const;
  absl::Status CheckMayWait(absl::Duration timeout) const;
  template <class Ready>
  absl::Status WaitUntil(Ready ready, absl::Duration timeout, const char* what) const;

  // Engine's side.
  void PutHead(const EntryView& entry);
  void DeleteHead(std::string_view key);
  void ClearHead();
  void Build();
  void Consider();
  absl::Status CheckHead(bool same_content) const;
  absl::Status CheckSuspects() const;
  void OnVerdict(Verdict verdict);
  void Accept(const MirrorSnapshot& version, uint64_t build, const Head& info,
              std::vector<Verdict::Parsed> parsed);
  bool LivesChanged(const MirrorSnapshot& version) const;
  bool Register(const std::shared_ptr<LiveSlot>& live);
  void Refuse(uint64_t revision, const absl::Status& why);
  void Publish();
  void Notify() const;
  void Reroot();
  void NoteTrial();
  void AdvanceProbation(absl::Duration now);
  void OnGood(const MirrorSnapshot& version, uint64_t revision);
  void WriteSoon();
  GenerationInfo Generation() const;
  void NoteClaim();
  void OnWritten(uint64_t build, uint64_t revision, const absl::Status& status);
  void OnOverride(absl::StatusOr<LastGood::Override> changed);
  void TellDiskProblem(const absl::Status& status);

  const Options options_;
  Mirror handle_{this};
  VersionStore store_;
  std::unique_ptr<VersionStore> defaults_store_;  // null: the policy names none
  MirrorSnapshot defaults_;

  // --- what readers see beside the store ---
  std::atomic<Link> link_{Link::kConnecting};
  std::atomic<size_t> memory_total_{0}, memory_retired_{0};  // as of the last tick
  std::atomic<uint64_t> updates_{0}, rejections_{0}, loads_{0}, resumes_{0};
  mutable std::mutex told_mutex_;  // of the refusal, for status()
  uint64_t told_refused_revision_ = 0;
  absl::Status told_refused_why_;
  mutable std::mutex wait_mutex_;
  mutable std::condition_variable wait_changed_;
  mutable std::atomic<int> waiters_{0};

  // --- the engine's own ---
  Head head_info_;
  MirrorSnapshot head_;
  uint64_t head_build_ = 0;    // counts heads
  bool head_changed_ = false;  // since the last build
  uint64_t judged_build_ = 0;  // the last head that was judged, or is being judged
  bool judging_ = false;
  MirrorSnapshot candidate_;  // being judged
  Head candidate_info_;
  std::optional<Claim> head_claim_;  // newest, and the build that it is of
  uint64_t head_claim_build_ = 0;
  std::optional<Claim> candidate_claim_;  // newest that is of candidate_ or before

  MirrorSnapshot accepted_;
  Head accepted_info_;
  uint64_t accepted_build_ = 0;
  Claim claim_;  // of accepted_
  bool usable_ = false;
  uint64_t refused_revision_ = 0;
  // The last refusal was for time: asked again, ever more seldom.
  std::optional<absl::Duration> ask_again_at_;
  absl::Duration ask_again_wait_ = kAskAgainFirst;
  uint64_t refusals_seen_ = 0;
  uint64_t guards_waived_to_ = 0;  // a revision: somebody has looked
  // Keys of the operator's file, of now and of before: its changes are his own.
  std::set<std::string, std::less<>> operators_keys_;

  std::unique_ptr<Judge> judge_;
  std::vector<Mirror::Changed> changed_;
  std::vector<std::shared_ptr<LiveSlot>> lives_;
  size_t judged_lives_ = 0;  // that the judge knows of

  // Probation.
  std::optional<MirrorSnapshot> good_;  // the newest data that is past it
  std::deque<Checkpoint> on_trial_;     // oldest first; at most kCheckpoints
  uint64_t checkpoint_build_ = 0;
  absl::Duration accepted_at_;
  std::vector<Suspect> suspects_;  // of processes before this one
  std::optional<base::RecordDigest> suspect_set_;
  absl::Duration started_at_;
  absl::Duration take_from_ = -absl::InfiniteDuration();  // see kLiveGrace

  // The operator's file.
  LastGood::Override override_;
  std::map<std::string, std::optional<Entry>, std::less<>> shadow_;  // the store's own, behind it

  // Disk.
  std::unique_ptr<LastGood> files_;
  DiskKeeper* keeper_ = nullptr;
  size_t slot_ = 0;
  uint64_t written_build_ = 0;
  uint64_t written_revision_ = 0;
  absl::Duration next_disk_try_;
  bool trial_noted_ = false;
};

}  // namespace holdfast::internal
