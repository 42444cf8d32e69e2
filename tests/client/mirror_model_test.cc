// The mirror's protocol against a randomized store, in virtual time: members that lag, are cut off,
// answer late, break, compact, become another incarnation; sets that are refused. At every instant
// the oracle of client.md section 5 looks at what a reader would see:
//   - the records are exactly those of fresh.revision() of their incarnation, or of none;
//   - no write that was acknowledged before (now - age) is missing, whenever the age is proven;
//   - within one incarnation the revision never goes back;
//   - a refused record is never served.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>

#include "base/rng.h"
#include "client/mirror_set.h"
#include "tests/client/mirror_world.h"

namespace holdfast::test {
namespace {

using etcdserverpb::WatchRequest;
using etcdserverpb::WatchResponse;

constexpr int kKeys = 8;
constexpr char kPoison[] = "poison";

struct Write {
  uint64_t revision = 0;
  std::string key = {};
  std::optional<std::string> value = {};  // nullopt: deleted
  absl::Duration acked = {};              // on the scheduler's clock
};

// One history of revisions; another incarnation begins with a copy of a part of the one before.
struct Incarnation {
  uint64_t id = 0;
  std::vector<Write> writes = {};  // by revision, 2 and up
  uint64_t compacted = 0;

  uint64_t revision() const { return writes.empty() ? 1 : writes.back().revision; }
  std::map<std::string, std::string> At(uint64_t revision) const {
    std::map<std::string, std::string> records;
    for (const Write& write : writes) {
      if (write.revision > revision) break;
      if (write.value.has_value()) {
        records[write.key] = *write.value;
      } else {
        records.erase(write.key);
      }
    }
    return records;
  }
};

// What a member has: a prefix of the history, and since when it knows that this is all.
struct Member {
  size_t incarnation = 0;  // index
  uint64_t applied = 1;
  absl::Duration claim_at = {};  // everything acknowledged before is in `applied`
  bool cut_off = false;
};

class World {
 public:
  explicit World(uint64_t seed)
      : rng_(seed),
        clock_(std::make_shared<base::FakeClock>()),
        scheduler_(std::make_shared<VirtualScheduler>(clock_.get())),
        uplinks_(std::make_shared<ScriptedUplinks>(scheduler_.get())) {
    history_.push_back({.id = 100});
    members_.resize(3);
    for (Member& member : members_) member.claim_at = scheduler_->Now();
    uplinks_->on_load = [this](Line& line, const Line::Load& load) {
      Later([this, line = Find(line), load] { AnswerLoad(*line, load); });
    };
    uplinks_->on_request = [this](Line& line, const WatchRequest& request) {
      OnRequest(Find(line), request);
    };
    internal::MirrorSet::Options options;
    for (int i = 0; i < 3; ++i) options.endpoints.push_back({std::to_string(i), ""});
    Policy policy = Policy::FailStatic();
    policy.MemoryOnly().StartupWait(absl::ZeroDuration()).HoldIfDeletes(1).HoldIfGrows(1e9);
    policy.Defaults({{.key = "/k/default", .value = "d"}}).MaxBytes(2000);
    options.prefixes = {{"/k/", policy}};
    options.clock = clock_;
    options.seed = seed;
    set_ = std::make_shared<internal::MirrorSet>(std::move(options), scheduler_, uplinks_);
    RunBeside([this] { ASSERT_TRUE(set_->Open().ok()); });
  }
  ~World() {
    RunBeside([this] { set_->Close(); });
  }

  void Run(int steps) {
    for (int i = 0; i < steps && !::testing::Test::HasFailure(); ++i) {
      Step();
      scheduler_->Advance(absl::Milliseconds(1 + rng_.Below(400)));
      Check();
    }
    // Left alone, everything heals.
    for (Member& member : members_) member.cut_off = false;
    quiet_ = true;
    Mutate("/k/0", "end");
    for (int i = 0; i < 240; ++i) {
      CatchUp();
      Deliver();
      scheduler_->Advance(absl::Milliseconds(500));
      Check();
    }
    const internal::MirrorImpl& mirror = *set_->Find("/k/");
    if (Poisoned(history_.back().At(history_.back().revision()))) return;
    EXPECT_EQ(mirror.fresh().revision(), history_.back().revision()) << mirror.Dump();
    EXPECT_FALSE(mirror.fresh().superseded());
    EXPECT_LT(mirror.fresh().MaxAge(), absl::Seconds(10)) << mirror.Dump();
  }
  int checks() const { return checks_; }
  int proven() const { return proven_; }

 private:
  template <class F>
  void RunBeside(F f) {
    std::atomic<bool> done = false;
    std::thread thread([&] {
      f();
      done = true;
    });
    while (!done) scheduler_->Drain();
    thread.join();
    scheduler_->Drain();
  }

  std::shared_ptr<Line> Find(const Line& line) const {
    for (const auto& one : uplinks_->lines) {
      if (one.get() == &line) return one;
    }
    return nullptr;
  }
  Member& MemberOf(const Line& line) {
    return members_[static_cast<size_t>(std::stoi(line.endpoint))];
  }

  // Answers take a while, sometimes long.
  template <class F>
  void Later(F f) {
    const uint64_t ms = quiet_ ? 5 : rng_.Below(20) == 0 ? rng_.Below(4000) : rng_.Below(30);
    scheduler_->After(absl::Milliseconds(ms), std::move(f));
  }

  // On the stream's way to the client: in order, and sometimes long. Also after the client has
  // given the connection up.
  void Send(const std::shared_ptr<Line>& line, WatchResponse response) {
    const uint64_t ms = quiet_ ? 2 : rng_.Below(10) == 0 ? rng_.Below(2500) : rng_.Below(20);
    absl::Duration& last = last_sent_[line->number];
    last = std::max(last, scheduler_->Now() + absl::Milliseconds(ms));
    scheduler_->At(last, [line, response = std::move(response)] {
      if (const auto sink = line->sink.lock()) sink->OnWatch(line->number, response);
    });
  }

  // A set beyond the mirror's MaxBytes is refused: that is this world's poison.
  static bool Poisoned(const std::map<std::string, std::string>& records) {
    return std::any_of(records.begin(), records.end(),
                       [](const auto& record) { return record.second.starts_with(kPoison); });
  }

  void Mutate(const std::string& key, std::optional<std::string> value) {
    Incarnation& now = history_.back();
    now.writes.push_back({now.revision() + 1, key, std::move(value), scheduler_->Now()});
  }

  void Step() {
    switch (rng_.Below(quiet_ ? 1 : 14)) {
      case 0:
        break;
      case 1:
      case 2:
      case 3: {
        const std::string key = "/k/" + std::to_string(rng_.Below(kKeys));
        if (rng_.Below(4) == 0) {
          Mutate(key, std::nullopt);
        } else if (rng_.Below(12) == 0) {
          Mutate(key, kPoison + std::string(3000, 'x'));
        } else {
          Mutate(key, std::to_string(rng_.Next()));
        }
        break;
      }
      case 4:
      case 5:
      case 6:
        CatchUp();
        break;
      case 7:
      case 8:
        Deliver();
        break;
      case 9:
        members_[rng_.Below(3)].cut_off ^= true;
        break;
      case 10:
        if (!uplinks_->lines.empty() && uplinks_->lines.back()->open && rng_.Below(3) == 0) {
          Line& line = *uplinks_->lines.back();
          line.sink.lock()->OnWatchEnd(line.number, absl::UnavailableError("broken"));
        }
        break;
      case 11: {
        Incarnation& now = history_.back();
        if (rng_.Below(4) == 0) now.compacted = now.revision();
        break;
      }
      case 12:
        if (rng_.Below(40) == 0) Restore();
        break;
      default:
        scheduler_->Advance(absl::Milliseconds(rng_.Below(8000)));
    }
  }

  // A backup is restored: revisions are used a second time, all members start over from it.
  void Restore() {
    Incarnation next;
    next.id = history_.back().id + 1;
    const uint64_t keep = 1 + rng_.Below(history_.back().revision());
    for (const Write& write : history_.back().writes) {
      if (write.revision <= keep) next.writes.push_back(write);
    }
    history_.push_back(std::move(next));
    for (Member& member : members_) {
      member = {.incarnation = history_.size() - 1,
                .applied = history_.back().revision(),
                .claim_at = scheduler_->Now()};
    }
    // A server that was restarted has lost its streams. A connection that has none yet dials again
    // by itself: what was loaded before and what is watched after are then of two incarnations.
    for (const auto& line : uplinks_->lines) {
      const bool watched = std::any_of(streams_.begin(), streams_.end(),
                                       [&](const Stream& stream) { return stream.line == line; });
      if (!line->open || !watched) continue;
      line->sink.lock()->OnWatchEnd(line->number, absl::UnavailableError("restarted"));
    }
  }

  void CatchUp() {
    for (Member& member : members_) {
      if (member.cut_off) continue;
      const Incarnation& now = history_[member.incarnation];
      const uint64_t behind = now.revision() - member.applied;
      if (behind == 0 || quiet_ || rng_.Below(2) == 0) {
        member.applied = now.revision();
        member.claim_at = scheduler_->Now();
      } else {
        // Some of it; its claim is of what it had when it last had everything.
        member.applied += rng_.Below(behind + 1);
      }
    }
  }

  struct Stream {
    std::shared_ptr<Line> line;
    int64_t watch = 0;
    uint64_t next = 0;  // revision to deliver next
  };

  void OnRequest(const std::shared_ptr<Line>& line, const WatchRequest& request) {
    if (request.has_create_request()) {
      Member& member = MemberOf(*line);
      const uint64_t from = static_cast<uint64_t>(request.create_request().start_revision());
      streams_.push_back({line, request.create_request().watch_id(), from});
      if (from <= history_[member.incarnation].compacted) {
        WatchResponse gone;
        gone.set_watch_id(request.create_request().watch_id());
        gone.set_canceled(true);
        gone.set_compact_revision(static_cast<int64_t>(history_[member.incarnation].compacted) + 1);
        streams_.pop_back();
        Send(line, gone);
      }
    } else if (request.has_holdfast_mark()) {
      Later([this, line, request] { AnswerMark(line, request); });
    }
  }

  // What the member has for its streams goes out, whole revisions, one after the other.
  void Deliver() {
    for (Stream& stream : streams_) {
      if (!stream.line->open) continue;
      DeliverTo(stream, MemberOf(*stream.line).applied);
    }
    std::erase_if(streams_, [](const Stream& stream) { return !stream.line->open; });
  }
  void DeliverTo(Stream& stream, uint64_t up_to) {
    Member& member = MemberOf(*stream.line);
    WatchResponse response;
    response.set_watch_id(stream.watch);
    for (const Write& write : history_[member.incarnation].writes) {
      if (write.revision < stream.next || write.revision > up_to) continue;
      mvccpb::Event* event = response.add_events();
      event->mutable_kv()->set_key(write.key);
      event->mutable_kv()->set_mod_revision(static_cast<int64_t>(write.revision));
      if (write.value.has_value()) {
        event->mutable_kv()->set_value(*write.value);
        event->mutable_kv()->set_version(1);
      } else {
        event->set_type(mvccpb::Event::DELETE);
      }
    }
    stream.next = std::max(stream.next, up_to + 1);
    if (response.events_size() > 0) Send(stream.line, std::move(response));
  }

  // W1: behind every event up to its revision, with an age that is of that revision.
  void AnswerMark(const std::shared_ptr<Line>& line, const WatchRequest& request) {
    if (!line->open) return;
    Member& member = MemberOf(*line);
    for (Stream& stream : streams_) {
      if (stream.line != line || stream.watch != request.holdfast_mark().watch_id()) continue;
      DeliverTo(stream, member.applied);
      WatchResponse response;
      response.set_watch_id(stream.watch);
      auto* bookmark = response.mutable_holdfast_bookmark();
      bookmark->set_nonce(request.holdfast_mark().nonce());
      bookmark->set_delivered_revision(static_cast<int64_t>(member.applied));
      bookmark->set_incarnation(history_[member.incarnation].id);
      bookmark->set_age_us(
          static_cast<uint64_t>(absl::ToInt64Microseconds(scheduler_->Now() - member.claim_at)));
      Send(line, std::move(response));
      return;
    }
  }

  void AnswerLoad(Line& line, const Line::Load& load) {
    if (!line.open) return;
    const auto sink = line.sink.lock();
    Member& member = MemberOf(line);
    const Incarnation& now = history_[member.incarnation];
    const bool same = load.request.incarnation() == now.id;
    if (rng_.Below(20) == 0 && !quiet_) {
      return sink->OnLoadEnd(line.number, load.feed, absl::ResourceExhaustedError("busy"),
                             absl::Milliseconds(300));
    }
    if (same && load.request.revision() > member.applied) {
      return sink->OnLoadEnd(line.number, load.feed, absl::FailedPreconditionError("behind"),
                             std::nullopt);
    }
    v1::LoadResponse head;
    head.mutable_head()->set_incarnation(now.id);
    head.mutable_head()->set_cluster_id(7);
    head.mutable_head()->set_revision(member.applied);
    const auto records = now.At(member.applied);
    if (same && load.request.revision() >= now.compacted && load.request.revision() > 0) {
      head.mutable_head()->set_kind(v1::LoadHead::RESUME);
      head.mutable_head()->set_revision(load.request.revision());
      head.set_last(true);
      sink->OnLoadPart(line.number, load.feed, head);
      return sink->OnLoadEnd(line.number, load.feed, absl::OkStatus(), std::nullopt);
    }
    head.set_last(records.empty());
    sink->OnLoadPart(line.number, load.feed, head);
    for (auto it = records.begin(); it != records.end(); ++it) {
      v1::LoadResponse part;
      mvccpb::KeyValue* kv = part.add_records();
      kv->set_key(it->first);
      kv->set_value(it->second);
      kv->set_version(1);
      kv->set_mod_revision(1);
      part.set_last(std::next(it) == records.end());
      sink->OnLoadPart(line.number, load.feed, part);
    }
    sink->OnLoadEnd(line.number, load.feed, absl::OkStatus(), std::nullopt);
  }

  void Check() {
    const internal::MirrorImpl& mirror = *set_->Find("/k/");
    const auto read = mirror.Snapshot();
    ASSERT_TRUE(read.ok()) << read.status();
    ++checks_;
    if (read->fresh.source() == Source::kDefault) return;
    const uint64_t revision = read->fresh.revision();
    const auto of = std::find_if(history_.begin(), history_.end(), [&](const Incarnation& one) {
      return one.id == read->incarnation;
    });
    ASSERT_NE(of, history_.end());
    std::map<std::string, std::string> served;
    read->value.Scan("", [&](const EntryView& entry) {
      served[std::string(entry.key)] = std::string(entry.value);
      return true;
    });
    ASSERT_EQ(served, of->At(revision)) << "revision " << revision << "\n" << mirror.Dump();
    ASSERT_FALSE(Poisoned(served));
    ASSERT_GE(std::pair(read->incarnation, revision), last_) << "it went back";
    last_ = {read->incarnation, revision};
    if (read->fresh.proof() != Proof::kProven) return;
    ++proven_;
    const absl::Duration since = scheduler_->Now() - read->fresh.MaxAge();
    for (const Write& write : history_.back().writes) {
      if (write.acked >= since) break;
      // A restored store has forgotten what came after the backup; what it kept must be there.
      if (of->id != history_.back().id) break;
      ASSERT_LE(write.revision, revision)
          << "acknowledged " << scheduler_->Now() - write.acked
          << " ago, and the age is said to be " << read->fresh.MaxAge() << "\n"
          << mirror.Dump();
    }
  }

  base::Rng rng_;
  std::shared_ptr<base::FakeClock> clock_;
  std::shared_ptr<VirtualScheduler> scheduler_;
  std::shared_ptr<ScriptedUplinks> uplinks_;
  std::shared_ptr<internal::MirrorSet> set_;
  std::vector<Incarnation> history_;
  std::vector<Member> members_;
  std::vector<Stream> streams_;
  std::map<uint64_t, absl::Duration> last_sent_;  // by connection
  bool quiet_ = false;
  int checks_ = 0, proven_ = 0;
  std::pair<uint64_t, uint64_t> last_;
};

TEST(MirrorModel, NeverLiesAboutTheAgeNorAboutTheData) {
  const char* text = std::getenv("HOLDFAST_SEEDS");
  const int seeds = text == nullptr ? 500 : std::max(500, std::atoi(text));
  int checks = 0, proven = 0;
  for (int seed = 1; seed <= seeds && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    World world(static_cast<uint64_t>(seed));
    world.Run(300);
    checks += world.checks();
    proven += world.proven();
  }
  // A model in which nothing is ever proven would prove nothing.
  EXPECT_GT(proven, checks / 2);
}

}  // namespace
}  // namespace holdfast::test
