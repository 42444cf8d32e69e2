// Random histories, watched by random watches over consumers of random speed; everything in an
// order drawn from a seed. Each watch must be given exactly the events of the model: in order,
// once, no revision torn, and no bookmark or progress before what it speaks for.
//
// HOLDFAST_SEED=N replays one run; HOLDFAST_SEEDS=N runs so many.
#include <cstdlib>
#include <set>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "watch_test_world.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using etcdserverpb::WatchCreateRequest;
using etcdserverpb::WatchRequest;
using etcdserverpb::WatchResponse;
using testing::WatchWorld;

constexpr size_t kMaxRequestBytes = 300;

// Small enough that everything overflows all the time.
WatchLimits TightLimits(base::Rng& rng) {
  WatchLimits limits;
  limits.stream_bytes = 1000 + rng.Below(2000);
  limits.total_bytes = 4000 + rng.Below(4000);
  limits.response_bytes = 200 + rng.Below(400);
  limits.pending_bytes = 2000 + rng.Below(8000);
  limits.recent_bytes = rng.OneIn(4) ? 1 : 1000 + rng.Below(8000);
  limits.chunk_events = 1 + rng.Below(8);
  limits.chunk_deliveries = 1 + rng.Below(16);
  limits.pass_events = 1 + rng.Below(12);
  limits.pass_bytes = 200 + rng.Below(1000);
  limits.pass_near_revisions = static_cast<int64_t>(rng.Below(30));
  limits.pass_watches = 1 + rng.Below(8);
  return limits;
}

std::string SomeKey(base::Rng& rng) {
  return std::string(1, static_cast<char>('a' + rng.Below(6))) +
         (rng.OneIn(3) ? std::string(1, static_cast<char>('a' + rng.Below(3))) : "");
}

std::string SomeEnd(base::Rng& rng) {
  switch (rng.Below(4)) {
    case 0:
      return std::string(1, '\0');
    case 1:
      return SomeKey(rng);
    default:
      return "";
  }
}

void FillPut(base::Rng& rng, etcdserverpb::PutRequest* put) {
  put->set_key(SomeKey(rng));
  put->set_value(std::string(rng.OneIn(5) ? rng.Below(400) : rng.Below(20), 'v'));
}

Command SomeCommand(base::Rng& rng, int64_t revision, int64_t* compacted) {
  Command command;
  switch (rng.Below(16)) {
    case 0: {
      if (!rng.OneIn(4)) break;
      const int64_t to = revision - static_cast<int64_t>(rng.Below(20));
      if (to <= *compacted) break;
      command.mutable_compaction()->set_revision(to);
      *compacted = to;
      return command;
    }
    case 1:
    case 2:
      command.mutable_delete_range()->set_key(SomeKey(rng));
      command.mutable_delete_range()->set_range_end(SomeEnd(rng));
      return command;
    case 3:
    case 4: {
      // Deletions and puts of one revision, the same key in both.
      auto* txn = command.mutable_txn();
      txn->add_success()->mutable_request_delete_range()->set_key(SomeKey(rng));
      std::set<std::string> keys;
      for (uint64_t i = rng.Below(6); i > 0; --i) {
        etcdserverpb::PutRequest put;
        FillPut(rng, &put);
        if (keys.insert(put.key()).second) *txn->add_success()->mutable_request_put() = put;
      }
      return command;
    }
    default:
      break;
  }
  FillPut(rng, command.mutable_put());
  return command;
}

// What one watch was asked for, and has been given.
struct Watched {
  WatchCreateRequest request;
  int64_t start = 0;
  int64_t id = -1;
  std::vector<mvccpb::Event> got;
  bool in_fragment = false;
  bool gone = false;           // canceled, by whomever
  int64_t compacted = 0;       // if that was why
  int64_t told = 0;            // the largest revision that a bookmark or a progress vouched for
  std::deque<uint64_t> marks;  // nonces not answered
};

class Client {
 public:
  Client(WatchWorld* world, base::Rng* rng)
      : world_(*world), rng_(*rng), stream_(world->Open()), speed_(1 + rng->Below(4)) {}

  void Act() {
    // The rule of every reader of requests.
    if (!stream_->may_read()) return;
    switch (rng_.Below(8)) {
      case 0:
      case 1:
        return Create();
      case 2:
        if (rng_.OneIn(3)) Cancel();
        return;
      case 3:
        progress_asked_ = true;
        return stream_->Send("progress_request {}");
      default:
        return Mark();
    }
  }

  // A slow one takes little.
  void Consume() {
    for (uint64_t i = rng_.Below(speed_) + (rng_.OneIn(20) ? 30 : 0); i > 0; --i) {
      const auto response = stream_->Take();
      if (!response.has_value()) return;
      Check(*response);
      if (::testing::Test::HasFailure()) return;
    }
  }

  void Drain() {
    for (bool more = true; more && !::testing::Test::HasFailure();) {
      world_.Settle();
      more = false;
      while (const auto response = stream_->Take()) {
        more = true;
        Check(*response);
      }
    }
  }

  // Everything was drained: nothing may be missing.
  void CheckComplete() {
    EXPECT_TRUE(creating_.empty());
    EXPECT_FALSE(progress_asked_);
    for (const auto& [id, watched] : watches_) {
      const auto expected = world_.Expected(watched.request, watched.start);
      if (watched.compacted == 0) {
        EXPECT_EQ(watched.got.size(), expected.size()) << "watch " << id << " lost events";
      }
      EXPECT_TRUE(watched.marks.empty()) << "watch " << id << " has marks without an answer";
    }
  }

  uint64_t events() const { return events_; }
  uint64_t compacted() const { return compacted_; }
  uint64_t bookmarks() const { return bookmarks_; }
  uint64_t fragments() const { return fragments_; }
  uint64_t progress() const { return progress_; }

 private:
  void Create() {
    WatchRequest request;
    WatchCreateRequest* create = request.mutable_create_request();
    create->set_key(SomeKey(rng_));
    create->set_range_end(SomeEnd(rng_));
    if (rng_.OneIn(2)) {
      create->set_start_revision(
          std::max<int64_t>(1, world_.revision() + 4 - static_cast<int64_t>(rng_.Below(60))));
    }
    create->set_prev_kv(rng_.OneIn(2));
    create->set_fragment(rng_.OneIn(2));
    create->set_progress_notify(rng_.OneIn(3));
    if (rng_.OneIn(4)) create->add_filters(WatchCreateRequest::NOPUT);
    if (rng_.OneIn(4)) create->add_filters(WatchCreateRequest::NODELETE);
    creating_.push_back({*create, world_.revision()});
    stream_->Send(request);
  }

  void Cancel() {
    for (auto& [id, watched] : watches_) {
      if (watched.gone || !rng_.OneIn(3)) continue;
      return stream_->Send(fmt::format("cancel_request {{ watch_id: {} }}", id));
    }
  }

  void Mark() {
    for (auto& [id, watched] : watches_) {
      if (watched.gone || !rng_.OneIn(3)) continue;
      watched.marks.push_back(++nonce_);
      return stream_->Send(fmt::format("holdfast_mark {{ watch_id: {} nonce: {} }}", id, nonce_));
    }
  }

  void Check(const WatchResponse& response) {
    SCOPED_TRACE(testing::Text(response));
    ASSERT_EQ(response.header().cluster_id(), WatchWorld::kCluster);
    ASSERT_EQ(response.header().member_id(), WatchWorld::kMember);
    if (response.created()) return CheckCreated(response);
    if (response.watch_id() == -1) {
      ++progress_;
      progress_asked_ = false;
      for (auto& [id, watched] : watches_) CheckVouched(watched, response.header().revision());
      return;
    }
    ASSERT_TRUE(watches_.contains(response.watch_id()));
    Watched& watched = watches_[response.watch_id()];
    if (response.canceled()) {
      watched.gone = true;
      watched.marks.clear();
      watched.compacted = response.compact_revision();
      if (watched.compacted == 0) {
        canceled_.push_back(std::move(watched));
        watches_.erase(response.watch_id());
        return;
      }
      ++compacted_;
      return CheckCompacted(watched);
    }
    ASSERT_FALSE(watched.gone) << "something came behind the end of the watch";
    if (response.has_holdfast_bookmark()) return CheckBookmark(watched, response);
    if (response.events().empty()) {
      ++progress_;
      ASSERT_TRUE(watched.request.progress_notify());
      return CheckVouched(watched, response.header().revision());
    }
    CheckEvents(watched, response);
  }

  void CheckCreated(const WatchResponse& response) {
    ASSERT_FALSE(creating_.empty());
    Watched watched;
    watched.request = creating_.front().request;
    const int64_t asked_at = creating_.front().revision;
    creating_.pop_front();
    const bool empty = !watched.request.range_end().empty() &&
                       watched.request.range_end()[0] != '\0' &&
                       watched.request.key() >= watched.request.range_end();
    ASSERT_EQ(response.canceled(), empty);
    if (empty) {
      ASSERT_EQ(response.watch_id(), -1);
      ASSERT_EQ(response.cancel_reason(), "mvcc: watcher range is empty");
      return;
    }
    watched.id = response.watch_id();
    ASSERT_FALSE(watches_.contains(watched.id));
    // Nothing that was there when the request was sent comes as new.
    ASSERT_GE(response.header().revision(), asked_at);
    watched.start = watched.request.start_revision();
    if (watched.start == 0) watched.start = response.header().revision() + 1;
    watches_[watched.id] = std::move(watched);
  }

  void CheckEvents(Watched& watched, const WatchResponse& response) {
    const auto expected = world_.Expected(watched.request, watched.start);
    for (const mvccpb::Event& event : response.events()) {
      const size_t at = watched.got.size();
      ASSERT_LT(at, expected.size()) << "more events than there are";
      mvccpb::Event wanted = expected[at];
      // As in etcd, what was before may be of a revision that can not be read any more.
      const int64_t compacted = world_.machine().applied_state().compact_revision;
      if (!event.has_prev_kv() && event.kv().mod_revision() <= compacted) wanted.clear_prev_kv();
      ASSERT_EQ(testing::Text(event), testing::Text(wanted)) << "event " << at;
      ASSERT_GT(event.kv().mod_revision(), watched.told) << "behind what vouched for it";
      watched.got.push_back(event);
      ++events_;
    }
    const int64_t last = watched.got.back().kv().mod_revision();
    ASSERT_GE(response.header().revision(), last);
    const size_t done = watched.got.size();
    const bool torn = done < expected.size() && expected[done].kv().mod_revision() == last;
    if (response.fragment()) {
      ++fragments_;
      ASSERT_TRUE(watched.request.fragment());
      watched.in_fragment = true;
      return;
    }
    watched.in_fragment = false;
    ASSERT_FALSE(torn) << "a revision is torn";
    CheckVouched(watched, response.header().revision());
    if (watched.request.fragment() && response.events_size() > 1) {
      ASSERT_LT(response.ByteSizeLong(), kMaxRequestBytes + 100);
    }
  }

  // Everything up to `revision` has been given.
  void CheckVouched(Watched& watched, int64_t revision) {
    if (watched.gone) return;
    ASSERT_FALSE(watched.in_fragment);
    size_t due = 0;
    for (const mvccpb::Event& event : world_.Expected(watched.request, watched.start)) {
      if (event.kv().mod_revision() <= revision) ++due;
    }
    ASSERT_LE(due, watched.got.size())
        << "watch " << watched.id << ": revision " << revision << " overtook an event";
    watched.told = std::max(watched.told, revision);
  }

  void CheckBookmark(Watched& watched, const WatchResponse& response) {
    ++bookmarks_;
    const auto& bookmark = response.holdfast_bookmark();
    ASSERT_FALSE(watched.marks.empty());
    ASSERT_EQ(bookmark.nonce(), watched.marks.front());
    watched.marks.pop_front();
    CheckVouched(watched, bookmark.delivered_revision());
    if (!bookmark.has_age_us()) return;
    // ClaimingNode: the age tells the index; Elapsed adds one millisecond.
    const uint64_t index = bookmark.age_us() - 1000;
    const auto& revision_at = world_.recorder().revision_at;
    if (const auto it = revision_at.find(index); it != revision_at.end()) {
      ASSERT_LE(it->second, bookmark.delivered_revision())
          << "the age is one of an index that is not delivered";
    }
  }

  // etcd's rule: only what needs compacted revisions is canceled for it.
  void CheckCompacted(const Watched& watched) {
    int64_t needed = watched.start;
    if (!watched.got.empty()) {
      needed = std::max(needed, watched.got.back().kv().mod_revision() + 1);
    }
    ASSERT_LT(needed, watched.compacted);
    ASSERT_LT(watched.told + 1, watched.compacted);
  }

  struct Creating {
    WatchCreateRequest request;
    int64_t revision;
  };
  WatchWorld& world_;
  base::Rng& rng_;
  std::unique_ptr<testing::TestStream> stream_;
  const uint64_t speed_;
  std::deque<Creating> creating_;
  std::map<int64_t, Watched> watches_;
  std::vector<Watched> canceled_;
  bool progress_asked_ = false;
  uint64_t nonce_ = 0;
  uint64_t events_ = 0, compacted_ = 0, bookmarks_ = 0, fragments_ = 0, progress_ = 0;
};

struct Figures {
  uint64_t events = 0, compacted = 0, bookmarks = 0, fragments = 0, progress = 0;
  uint64_t passes = 0, gaps = 0, snapshots = 0;
};

class History {
 public:
  explicit History(uint64_t seed)
      : rng_(seed),
        limits_(TightLimits(rng_)),
        world_({.limits = limits_,
                .max_request_bytes = kMaxRequestBytes,
                .progress_interval = absl::Milliseconds(200),
                .seed = seed}) {}

  void Go(Figures* figures) {
    for (int step = 0; step < 1500 && !::testing::Test::HasFailure(); ++step) Step(figures);
    for (const auto& client : clients_) {
      client->Drain();
      if (::testing::Test::HasFailure()) return;
    }
    // A watch of the future, and the progress that waits for it.
    std::vector<Command> puts(8, testing::PutCommand("zz", ""));
    world_.Apply(puts);
    for (const auto& client : clients_) {
      client->Drain();
      client->CheckComplete();
      Count(*client, figures);
    }
    figures->passes += world_.hub().stats().catch_up_passes;
    figures->gaps += world_.hub().stats().gaps;
    clients_.clear();
    world_.hub().CheckInvariants();
    EXPECT_EQ(world_.hub().stats().bytes_queued, 0u);
    EXPECT_EQ(world_.hub().stats().watches, 0u);
  }

 private:
  void Step(Figures* figures) {
    switch (rng_.Below(20)) {
      case 0:
        if (clients_.size() < 5) clients_.push_back(std::make_unique<Client>(&world_, &rng_));
        break;
      case 1:
        if (clients_.size() < 2 || !rng_.OneIn(10)) break;
        Count(*clients_.front(), figures);
        clients_.erase(clients_.begin());
        break;
      case 2:
      case 3:
      case 4:
      case 5:
        Apply();
        break;
      case 6:
      case 7:
      case 8:
        world_.hub().StepDispatch();
        break;
      case 9:
      case 10:
      case 11:
        world_.hub().StepCatchUp();
        break;
      case 12:
        world_.clock().Advance(absl::Milliseconds(static_cast<int64_t>(rng_.Below(100))));
        world_.hub().Tick();
        break;
      case 13:
        if (!rng_.OneIn(60)) break;
        world_.ApplyAtLeader(SomeBatch());
        world_.InstallSnapshot();
        ++figures->snapshots;
        break;
      case 14:
        world_.Settle();
        break;
      default:
        if (clients_.empty()) break;
        Client& client = *clients_[rng_.Below(clients_.size())];
        if (rng_.OneIn(2)) client.Act();
        client.Consume();
    }
    world_.hub().CheckInvariants();
    CheckMemory();
  }

  std::vector<Command> SomeBatch() {
    std::vector<Command> batch;
    for (uint64_t i = 1 + rng_.Below(4); i > 0; --i) {
      batch.push_back(SomeCommand(rng_, world_.revision(), &compacted_));
    }
    return batch;
  }
  void Apply() { world_.Apply(SomeBatch()); }

  // All queues together: their limit, and one response a stream; answers and overhead beside it.
  void CheckMemory() {
    constexpr size_t kLargestRevision = 8 * 450 * 2;
    constexpr size_t kAnswers = 40 * 200;
    EXPECT_LE(world_.hub().stats().bytes_queued,
              limits_.total_bytes + clients_.size() * (kLargestRevision + kAnswers));
  }

  static void Count(const Client& client, Figures* figures) {
    figures->events += client.events();
    figures->compacted += client.compacted();
    figures->bookmarks += client.bookmarks();
    figures->fragments += client.fragments();
    figures->progress += client.progress();
  }

  base::Rng rng_;
  const WatchLimits limits_;
  WatchWorld world_;
  int64_t compacted_ = 0;
  std::vector<std::unique_ptr<Client>> clients_;
};

TEST(WatchModel, EveryWatchIsGivenExactlyItsEvents) {
  const char* const one = std::getenv("HOLDFAST_SEED");
  const char* const many = std::getenv("HOLDFAST_SEEDS");
  const uint64_t first = one != nullptr ? std::strtoull(one, nullptr, 10) : 1;
  const uint64_t count = one != nullptr    ? 1
                         : many != nullptr ? std::strtoull(many, nullptr, 10)
                                           : 20;
  Figures figures;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE(fmt::format("HOLDFAST_SEED={}", seed));
    History(seed).Go(&figures);
    if (HasFailure()) return;
  }
  fmt::print(
      "{} runs: {} events, {} bookmarks, {} progress, {} fragments, {} watches compacted, {} "
      "passes through the history, {} gaps, {} snapshots\n",
      count, figures.events, figures.bookmarks, figures.progress, figures.fragments,
      figures.compacted, figures.passes, figures.gaps, figures.snapshots);
  if (one != nullptr) return;
  // The runs reach what they are for.
  EXPECT_GT(figures.events, 50 * count);
  EXPECT_GT(figures.bookmarks, 0u);
  EXPECT_GT(figures.progress, 0u);
  EXPECT_GT(figures.fragments, 0u);
  EXPECT_GT(figures.compacted, 0u);
  EXPECT_GT(figures.passes, 0u);
  EXPECT_GT(figures.snapshots, 0u);
}

}  // namespace
}  // namespace holdfast::server
