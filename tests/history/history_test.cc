// The checker against a search over all orders (tiny histories), and against large histories that
// are legal, or broken in one place.
#include "tests/history/history.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>

#include "base/rng.h"

namespace holdfast::history {
namespace {

using base::Rng;
using testing::AllOf;
using testing::HasSubstr;

// --- The store, and the search over all orders -------------------------------------------------

struct Cell {
  std::string value;
  int64_t mod = 0;
};

struct Store {
  int64_t revision = 1;
  std::map<std::string, Cell> cells;

  bool Absent(const std::string& key) const { return !cells.contains(key); }
  int64_t Mod(const std::string& key) const { return Absent(key) ? 0 : cells.at(key).mod; }

  // Runs the request of `op` and fills in its answer. False: no effect on the store.
  bool Run(Op& op) {
    op.effective = op.kind == Kind::kPut || (op.kind == Kind::kDelete && !Absent(op.key)) ||
                   (op.kind == Kind::kCas && Mod(op.key) == op.expected_mod);
    if (op.effective) {
      ++revision;
      if (op.kind == Kind::kDelete) {
        cells.erase(op.key);
      } else {
        cells[op.key] = {op.value, revision};
      }
    }
    op.revision = revision;
    op.looked = op.kind == Kind::kGet || (op.kind == Kind::kCas && !op.effective);
    op.found = op.looked && !Absent(op.key);
    op.found_value = op.found ? cells[op.key].value : "";
    op.found_mod = op.found ? cells[op.key].mod : 0;
    return op.effective;
  }
};

bool SameAnswer(const Op& a, const Op& b) {
  if (a.revision != b.revision) return false;
  if (a.kind != Kind::kPut && a.kind != Kind::kGet && a.effective != b.effective) return false;
  const bool looked = a.kind == Kind::kGet || (a.kind == Kind::kCas && !a.effective && a.looked);
  return !looked || (a.found == b.found &&
                     (!a.found || (a.found_value == b.found_value && a.found_mod == b.found_mod)));
}

bool AnyOrderFits(const std::vector<Op>& ops, unsigned done, const Store& store) {
  const auto ended_ns = [&](size_t i) {
    return ops[i].outcome == Outcome::kOk && (done >> i & 1) == 0
               ? ops[i].end_ns
               : std::numeric_limits<int64_t>::max();
  };
  bool all_done = true;
  int64_t first_end = std::numeric_limits<int64_t>::max();
  for (size_t i = 0; i < ops.size(); ++i) {
    first_end = std::min(first_end, ended_ns(i));
    all_done = all_done && ended_ns(i) == std::numeric_limits<int64_t>::max();
  }
  if (all_done) return true;
  for (size_t i = 0; i < ops.size(); ++i) {
    if ((done >> i & 1) != 0 || ops[i].outcome == Outcome::kRefused) continue;
    if (!ops[i].stale && first_end < ops[i].start_ns) continue;
    Store next = store;
    Op answer = ops[i];
    const bool effect = next.Run(answer);
    if (ops[i].outcome == Outcome::kUnknown ? !effect : !SameAnswer(ops[i], answer)) continue;
    if (AnyOrderFits(ops, done | 1u << i, next)) return true;
  }
  return false;
}

// --- Random histories --------------------------------------------------------------------------

struct Shape {
  int ops = 7;
  int clients = 3;
  int keys = 2;
  int64_t pause_ns = 5;  // between two operations of a client, at most
  int64_t duration_ns = 10;
  int unknown_percent = 25;
  int refused_percent = 5;
  int stale_percent = 10;
};

Op RandomRequest(const Shape& shape, int n, Rng& rng) {
  Op op;
  op.kind = static_cast<Kind>(rng.Below(4));
  op.key = fmt::format("k{}", rng.Below(uint64_t(shape.keys)));
  if (op.kind == Kind::kPut || op.kind == Kind::kCas) op.value = fmt::format("v{}", n);
  return op;
}

// A legal history: every operation ran at one instant between its start and its end.
std::vector<Op> RandomHistory(const Shape& shape, Rng& rng) {
  struct Planned {
    Op op;
    int64_t at_ns;
    uint64_t tie;
    bool runs;
  };
  std::vector<Planned> planned;
  std::vector<int64_t> clock(size_t(shape.clients), 0);
  for (int n = 0; n < shape.ops; ++n) {
    const size_t client = rng.Below(uint64_t(shape.clients));
    Op op = RandomRequest(shape, n, rng);
    op.client = int(client);
    op.start_ns = clock[client] + int64_t(rng.Below(uint64_t(shape.pause_ns)));
    const int64_t duration_ns = int64_t(rng.Below(uint64_t(shape.duration_ns)));
    op.end_ns = clock[client] = op.start_ns + duration_ns;
    int64_t at_ns =
        op.start_ns + (duration_ns == 0 ? 0 : int64_t(rng.Below(uint64_t(duration_ns))));
    bool runs = true;
    const int fate = int(rng.Below(100));
    if (fate < shape.unknown_percent) {
      op.outcome = Outcome::kUnknown;
      at_ns = op.start_ns + int64_t(rng.Below(uint64_t(4 * shape.duration_ns)));
      runs = !rng.OneIn(3);
    } else if (fate < shape.unknown_percent + shape.refused_percent) {
      op.outcome = Outcome::kRefused;
      runs = false;
    } else if (op.kind == Kind::kGet && int(rng.Below(100)) < shape.stale_percent) {
      op.stale = true;
      at_ns -= int64_t(rng.Below(uint64_t(4 * shape.duration_ns)));
    }
    planned.push_back({std::move(op), at_ns, rng.Next(), runs});
  }
  std::vector<size_t> order(planned.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(planned[a].at_ns, planned[a].tie) <
           std::pair(planned[b].at_ns, planned[b].tie);
  });
  Store store;
  for (const size_t i : order) {
    Op& op = planned[i].op;
    if (op.kind == Kind::kCas) {
      op.expected_mod = rng.OneIn(3) ? int64_t(rng.Below(4)) : store.Mod(op.key);
    }
    if (!planned[i].runs) continue;
    store.Run(op);
    if (op.kind == Kind::kCas && rng.OneIn(3)) op.looked = false;
  }
  std::vector<Op> ops;
  for (Planned& p : planned) ops.push_back(std::move(p.op));
  return ops;
}

// Something that a wrong store or a wrong recorder could do; may leave the history legal.
void Mutate(std::vector<Op>& ops, Rng& rng) {
  Op& op = ops[rng.Below(ops.size())];
  const Op& other = ops[rng.Below(ops.size())];
  switch (rng.Below(9)) {
    case 0:
      op.revision += int64_t(rng.Below(5)) - 2;
      break;
    case 1:
      std::swap(op.revision, ops[rng.Below(ops.size())].revision);
      break;
    case 2:
      op.found = !op.found;
      break;
    case 3:
      op.found_value = other.value;
      op.found_mod = other.revision;
      break;
    case 4:
      op.effective = !op.effective;
      break;
    case 5:
      op.outcome = static_cast<Outcome>(rng.Below(3));
      break;
    case 6: {
      const int64_t by_ns = int64_t(rng.Below(20)) - 10;
      op.start_ns += by_ns;
      op.end_ns += by_ns;
      break;
    }
    case 7:
      op.stale = !op.stale && op.kind == Kind::kGet;
      break;
    default:
      op.expected_mod = other.revision;
  }
}

std::string ToText(const std::vector<Op>& ops) {
  std::string text;
  for (const Op& op : ops) text += history::ToText(op) + "\n";
  return text;
}

uint64_t Seed() {
  const char* text = std::getenv("HOLDFAST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : base::RandomSeed();
}

uint64_t Times(uint64_t otherwise) {
  const char* text = std::getenv("HOLDFAST_SEEDS");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

TEST(History, AgreesWithTheSearchOverAllOrders) {
  const uint64_t first_seed = Seed();
  const uint64_t count = Times(30'000);
  uint64_t legal = 0, illegal = 0, placed = 0;
  for (uint64_t n = 0; n < count; ++n) {
    const uint64_t seed = first_seed + n;
    Rng rng(seed);
    Shape shape;
    shape.ops = 3 + int(rng.Below(6));
    shape.keys = 1 + int(rng.Below(2));
    shape.unknown_percent = int(rng.Below(3)) * 30;
    std::vector<Op> ops = RandomHistory(shape, rng);
    ASSERT_EQ(CheckLinearizable(ops), "") << "seed " << seed << "\n" << ToText(ops);
    for (uint64_t mutations = rng.Below(3); mutations > 0; --mutations) Mutate(ops, rng);
    const HistoryVerdict verdict = CheckHistory(ops);
    const bool expected = AnyOrderFits(ops, 0, Store());
    ASSERT_FALSE(verdict.undecided);
    ASSERT_EQ(verdict.error.empty(), expected) << "seed " << seed << ": " << verdict.error << "\n"
                                               << ToText(ops);
    ++(expected ? legal : illegal);
    placed += uint64_t(verdict.unknown_placed);
  }
  fmt::print("{} legal, {} illegal; {} writes placed by the search; seeds from {}\n", legal,
             illegal, placed, first_seed);
  EXPECT_GT(legal, count / 10);
  EXPECT_GT(illegal, count / 10);
  EXPECT_GT(placed, count / 100);
}

// --- Large ones --------------------------------------------------------------------------------

Shape Large() {
  return {.ops = 100'000,
          .clients = 16,
          .keys = 40,
          .pause_ns = 1000,
          .duration_ns = 100'000,
          .unknown_percent = 0,
          .refused_percent = 1,
          .stale_percent = 5};
}

double Seconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

TEST(History, AHundredThousandOperationsTakeLessThanASecond) {
  for (const int unknown_percent : {0, 1}) {
    const uint64_t seed = Seed();
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Rng rng(seed);
    Shape shape = Large();
    shape.unknown_percent = unknown_percent;
    const std::vector<Op> ops = RandomHistory(shape, rng);
    const auto begin = std::chrono::steady_clock::now();
    const HistoryVerdict verdict = CheckHistory(ops);
    const double seconds = Seconds(begin);
    EXPECT_EQ(verdict.error, "");
    EXPECT_FALSE(verdict.undecided);
    fmt::print("{} operations, {} of unknown outcome seen and {} placed: {:.2f} s\n", ops.size(),
               verdict.unknown_seen, verdict.unknown_placed, seconds);
    // Measured 0.1 s; a check of all pairs would take minutes.
    EXPECT_LT(seconds, 5.0);
  }
}

class BrokenHistory : public testing::Test {
 protected:
  void SetUp() override {
    SCOPED_TRACE(fmt::format("seed {}", seed_));
    Shape shape = Large();
    shape.ops = 5000;
    shape.stale_percent = 0;
    ops_ = RandomHistory(shape, rng_);
    ASSERT_EQ(CheckLinearizable(ops_), "");
  }
  // Any operation that is so.
  template <class Condition>
  Op& Any(Condition condition) {
    const size_t begin = rng_.Below(ops_.size());
    for (size_t i = 0; i < ops_.size(); ++i) {
      Op& op = ops_[(begin + i) % ops_.size()];
      if (op.outcome == Outcome::kOk && condition(op)) return op;
    }
    ADD_FAILURE() << "no such operation; seed " << seed_;
    return ops_[0];
  }
  const uint64_t seed_ = Seed();
  Rng rng_{seed_};
  std::vector<Op> ops_;
};

TEST_F(BrokenHistory, AReadOfTheVersionBefore) {
  Op& read =
      Any([](const Op& op) { return op.kind == Kind::kGet && op.found && op.revision > 2000; });
  const Op* before = nullptr;
  for (const Op& op : ops_) {
    if (op.outcome == Outcome::kOk && op.key == read.key && op.kind == Kind::kPut &&
        op.revision < read.found_mod && (before == nullptr || op.revision > before->revision)) {
      before = &op;
    }
  }
  ASSERT_NE(before, nullptr);
  read.found_value = before->value;
  read.found_mod = before->revision;
  EXPECT_THAT(CheckLinearizable(ops_), AllOf(HasSubstr("contradicts"), HasSubstr(before->value)));
}

TEST_F(BrokenHistory, AReadThatMissedAnAcknowledgedWrite) {
  const Op put = Any([](const Op& op) { return op.kind == Kind::kPut; });
  Op late{.client = 99, .kind = Kind::kGet, .key = "untouched"};
  late.start_ns = late.end_ns = put.end_ns + 1;
  late.revision = put.revision - 1;
  ops_.push_back(late);
  EXPECT_THAT(CheckLinearizable(ops_), HasSubstr("real time"));
  ops_.back().stale = true;
  EXPECT_EQ(CheckLinearizable(ops_), "");
}

TEST_F(BrokenHistory, ReadsThatGoBack) {
  const Op first = Any([](const Op& op) { return op.kind == Kind::kGet && op.revision > 100; });
  Op late{.client = 99, .kind = Kind::kGet, .key = "untouched"};
  late.start_ns = late.end_ns = first.end_ns + 1;
  late.revision = first.revision - 1;
  ops_.push_back(late);
  EXPECT_THAT(CheckLinearizable(ops_), HasSubstr("real time"));
}

TEST_F(BrokenHistory, AReadOfARevisionThatDidNotExistYet) {
  const Op put = Any([](const Op& op) { return op.kind == Kind::kPut && op.revision > 100; });
  Op early{.client = 99, .kind = Kind::kGet, .key = "untouched"};
  early.start_ns = early.end_ns = put.start_ns - 1;
  early.revision = put.revision;
  early.stale = true;
  ops_.push_back(early);
  EXPECT_THAT(CheckLinearizable(ops_), HasSubstr("real time"));
}

TEST_F(BrokenHistory, ALostWriteLeavesARevisionWithoutAWrite) {
  Op& put = Any([this](const Op& op) {
    return op.kind == Kind::kPut && std::none_of(ops_.begin(), ops_.end(), [&](const Op& o) {
             return o.found && o.found_value == op.value;
           });
  });
  std::swap(put, ops_.back());
  ops_.pop_back();
  EXPECT_THAT(CheckLinearizable(ops_), HasSubstr("nobody's write"));
}

TEST_F(BrokenHistory, ARefusedWriteThatWasSeen) {
  const std::string seen =
      Any([](const Op& op) { return op.kind == Kind::kGet && op.found; }).found_value;
  for (Op& op : ops_) {
    if (op.value == seen) op.outcome = Outcome::kRefused;
  }
  EXPECT_THAT(CheckLinearizable(ops_), HasSubstr("without effect was seen"));
}

TEST_F(BrokenHistory, TwoWritesThatSwappedTheirRevisions) {
  Op& a = Any([](const Op& op) { return op.kind == Kind::kPut; });
  Op& b = Any([&](const Op& op) { return op.kind == Kind::kPut && op.start_ns > a.end_ns; });
  std::swap(a.revision, b.revision);
  EXPECT_NE(CheckLinearizable(ops_), "");
}

TEST_F(BrokenHistory, ACompareThatHeldTwice) {
  const Op& won = Any(
      [](const Op& op) { return op.kind == Kind::kCas && op.effective && op.expected_mod != 0; });
  Op again = won;
  again.client = 99;
  again.value = "again";
  again.end_ns = again.start_ns = 1LL << 60;
  // Whatever comes next in the order, the compare cannot hold any more.
  int64_t last = 0;
  for (const Op& op : ops_) last = std::max(last, op.revision);
  again.revision = last + 1;
  ops_.push_back(again);
  EXPECT_THAT(CheckLinearizable(ops_), AllOf(HasSubstr("contradicts"), HasSubstr("again")));
}

// --- Writes of unknown outcome, by hand --------------------------------------------------------

Op Put(std::string key, std::string value, int64_t start_ns, int64_t end_ns, int64_t revision) {
  return {.kind = Kind::kPut,
          .key = std::move(key),
          .value = std::move(value),
          .start_ns = start_ns,
          .end_ns = end_ns,
          .revision = revision};
}
Op Unknown(Op op) {
  op.outcome = Outcome::kUnknown;
  return op;
}
Op Get(std::string key, int64_t start_ns, int64_t end_ns, int64_t revision, std::string value = "",
       int64_t mod = 0) {
  return {.kind = Kind::kGet,
          .key = std::move(key),
          .start_ns = start_ns,
          .end_ns = end_ns,
          .revision = revision,
          .found = mod != 0,
          .found_value = std::move(value),
          .found_mod = mod};
}

TEST(HistoryUnknown, MayAppearAnyTimeAfterItsStartOrNever) {
  const Op unknown = Unknown(Put("a", "1", 10, 20, 0));
  EXPECT_EQ(CheckLinearizable({unknown, Get("a", 30, 40, 1)}), "");
  EXPECT_EQ(CheckLinearizable({unknown, Get("a", 30, 40, 1), Get("a", 900, 901, 2, "1", 2)}), "");
  EXPECT_NE(CheckLinearizable({unknown, Get("a", 1, 5, 2, "1", 2)}), "");
  // Once seen it stays.
  EXPECT_NE(CheckLinearizable({unknown, Get("a", 30, 40, 2, "1", 2), Get("a", 50, 60, 1)}), "");
  EXPECT_NE(CheckLinearizable({unknown, Get("a", 30, 40, 2, "1", 2), Get("a", 50, 60, 2)}), "");
}

TEST(HistoryUnknown, TakesEffectOnce) {
  const Op unknown = Unknown(Put("a", "1", 10, 20, 0));
  EXPECT_THAT(CheckLinearizable({unknown, Get("a", 30, 40, 2, "1", 2), Put("a", "2", 50, 60, 3),
                                 Get("a", 70, 80, 4, "1", 4)}),
              HasSubstr("one write at two revisions"));
}

TEST(HistoryUnknown, ExplainsARevisionOnlyWhereItFits) {
  // Revision 2 is nobody's; the unknown write of "a" can be there unless "a" was seen without it.
  const Op unknown = Unknown(Put("a", "1", 10, 20, 0));
  EXPECT_EQ(CheckLinearizable({unknown, Put("b", "2", 30, 40, 3)}), "");
  EXPECT_NE(CheckLinearizable({unknown, Put("b", "2", 30, 40, 3), Get("a", 50, 60, 3)}), "");
  EXPECT_NE(CheckLinearizable({unknown, Put("b", "2", 30, 40, 4)}), "");
  EXPECT_NE(CheckLinearizable({unknown, Put("b", "2", 1, 5, 3)}), "") << "it began later";
}

TEST(HistoryUnknown, ADeleteIsKnownByWhatIsMissing) {
  Op gone{.kind = Kind::kDelete, .key = "a", .start_ns = 30, .end_ns = 31};
  gone.outcome = Outcome::kUnknown;
  const Op put = Put("a", "1", 10, 20, 2);
  EXPECT_EQ(CheckLinearizable({put, gone, Get("a", 40, 50, 3)}), "");
  EXPECT_NE(CheckLinearizable({put, Get("a", 40, 50, 3)}), "");
  EXPECT_NE(CheckLinearizable({put, gone, Get("a", 40, 50, 2)}), "") << "no revision for it";
  EXPECT_NE(CheckLinearizable({put, gone, Get("a", 40, 50, 3), Get("a", 60, 70, 3, "1", 2)}), "");
}

}  // namespace
}  // namespace holdfast::history
