#include "tests/history/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "base/check.h"

namespace holdfast::history {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr size_t kMaxShown = 60;                 // bytes of a key or value in a text
constexpr int64_t kMaxSearchSteps = 20'000'000;  // about half a second
// After so many dead ends a walk begins anew; each walk has twice as many as the one before it.
constexpr int64_t kDeadEndsOfFirstWalk = 64;

std::string Shown(const std::string& text) {
  return text.size() <= kMaxShown ? text : text.substr(0, kMaxShown) + "...";
}

bool TakesEffect(const Op& op) {
  return op.kind == Kind::kPut || (op.kind != Kind::kGet && op.effective);
}

bool Looked(const Op& op) {
  return op.kind == Kind::kGet || (op.kind == Kind::kCas && !op.effective && op.looked);
}

// What one key holds. Values need not be kept: each belongs to one revision.
struct KeyState {
  int64_t mod = 0;  // 0: absent
};

// A place in the order: a write, what was observed right behind a revision, or a revision that no
// known write explains.
struct Item {
  int64_t place = 0;  // 2 * revision for a write or a gap, 2 * revision + 1 for an observation
  int op = -1;        // -1: a gap
  int key = -1;
  int64_t revision() const { return place / 2; }
};

// Whether `op`, a known write or an observation, can find its key in this state.
bool Fits(const Op& op, KeyState state) {
  switch (op.kind) {
    case Kind::kPut:
      return true;
    case Kind::kDelete:
      return op.effective == (state.mod != 0);
    case Kind::kCas:
      if (TakesEffect(op) || op.outcome == Outcome::kUnknown) return state.mod == op.expected_mod;
      if (state.mod == op.expected_mod) return false;
      return !op.looked || state.mod == (op.found ? op.found_mod : 0);
    case Kind::kGet:
      return state.mod == (op.found ? op.found_mod : 0);
  }
  return false;
}

bool SaysLittle(const Op& op) {
  return op.kind == Kind::kCas && !TakesEffect(op) && !Looked(op) && op.outcome == Outcome::kOk;
}

KeyState After(const Op& write, int64_t revision) {
  return KeyState{write.kind == Kind::kDelete ? 0 : revision};
}

// The writes of unknown outcome on one key that no read showed, by what they ask for. Those of a
// class are alike: whoever may stand at a revision, by its start, may stand at every later one.
struct UnknownWrites {
  struct Class {
    std::vector<int> ops;  // by start
    size_t used = 0;
    // How often a dead end could have used one more of them, in earlier walks and in this one.
    int64_t scarce = 0;
    int64_t scarce_now = 0;
  };
  Class puts;
  Class deletes;
  std::map<int64_t, Class> cas;  // by expected_mod

  template <class F>
  void ForEach(F f) {
    f(puts);
    f(deletes);
    for (auto& [expected, its_class] : cas) f(its_class);
  }
};

class Checker {
 public:
  Checker(const std::vector<Op>& ops, int64_t initial_revision)
      : ops_(ops), initial_revision_(initial_revision) {}

  HistoryVerdict Run() {
    verdict_.error = Check();
    return verdict_;
  }

 private:
  std::string Check();
  std::string IndexWrites();
  std::string IdentifyBySight();
  std::string Identify(const Op& reader);
  std::string CheckRealTime() const;
  std::string BuildItems();
  std::string AddGaps(int64_t last_revision);
  void BuildUnknown();
  std::string CheckEachKey() const;
  bool CouldBeExplained(const Item& item, KeyState state, int64_t since) const;
  std::string Contradiction(const Item& item, KeyState state, int64_t since) const;
  std::string Search();

  struct Candidate {
    int key;
    UnknownWrites::Class* from;
    int rank;  // 0: the next fact needs it; 1: nothing minds; 2: needs another one behind
    // Within a rank: the earliest fact first, and what is scarce last.
    int64_t second;
    int64_t third;
    size_t order;
    auto Rank() const { return std::tuple(rank, second, third, order); }
  };
  struct Choice {
    size_t item;
    size_t next = 0;  // of its candidates, which are the same whenever they are computed again
    size_t undo = 0;  // length of undo_ before it
    UnknownWrites::Class* taken = nullptr;
  };
  std::vector<Candidate> CandidatesFor(size_t item);
  void Consider(size_t item, int key, UnknownWrites::Class& from, std::vector<Candidate>& out);
  bool TakeNext(Choice& choice);
  bool Backtrack(size_t& item);
  void BeginWalk();
  bool StepTo(size_t item);
  void SetState(int key, KeyState state);

  int KeyId(const std::string& key) const { return key_ids_.at(key); }
  const Op& OpAt(int i) const { return ops_[size_t(i)]; }

  const std::vector<Op>& ops_;
  const int64_t initial_revision_;
  HistoryVerdict verdict_;

  std::unordered_map<std::string_view, int> key_ids_;
  std::unordered_map<std::string_view, int> writer_of_;  // value -> op
  std::vector<int64_t> revision_;  // of each op that has a place in the order; 0: none known
  std::map<int64_t, int> write_at_;
  std::vector<Item> items_;                 // by place
  std::vector<size_t> gaps_;                // those of items_ that are gaps
  std::vector<int64_t> answered_ns_;        // per item: the earliest end among it and all behind it
  std::vector<std::vector<size_t>> facts_;  // per key: its items
  std::vector<UnknownWrites> unknown_;      // per key

  // Of the search.
  std::vector<KeyState> state_;
  std::vector<int> unknown_keys_;  // keys with unknown_ writes
  int64_t steps_ = 0;
  std::vector<std::pair<int, KeyState>> undo_;
  std::vector<Choice> choices_;
};

std::string Checker::Check() {
  for (const Op& op : ops_) {
    if (op.outcome == Outcome::kOk) CHECK(op.start_ns <= op.end_ns);
    key_ids_.emplace(op.key, int(key_ids_.size()));
    verdict_.ok += op.outcome == Outcome::kOk;
    verdict_.refused += op.outcome == Outcome::kRefused;
  }
  std::string error = IndexWrites();
  if (error.empty()) error = IdentifyBySight();
  if (error.empty()) error = CheckRealTime();
  if (error.empty()) error = BuildItems();
  if (error.empty()) error = CheckEachKey();
  if (error.empty()) error = Search();
  return error;
}

std::string Checker::IndexWrites() {
  revision_.assign(ops_.size(), 0);
  for (int i = 0; i < int(ops_.size()); ++i) {
    const Op& op = OpAt(i);
    if (op.kind == Kind::kPut || op.kind == Kind::kCas) {
      const auto [it, fresh] = writer_of_.emplace(op.value, i);
      if (!fresh) {
        return fmt::format("two writes of one value cannot be told apart: {} and {}", ToText(op),
                           ToText(OpAt(it->second)));
      }
    }
    if (op.outcome != Outcome::kOk) continue;
    revision_[size_t(i)] = op.revision;
    if (op.revision < initial_revision_ + (TakesEffect(op) ? 1 : 0)) {
      return fmt::format("{}: the history began at revision {}", ToText(op), initial_revision_);
    }
    if (!TakesEffect(op)) continue;
    const auto [it, fresh] = write_at_.emplace(op.revision, i);
    if (!fresh) {
      return fmt::format("two writes at one revision: {} and {}", ToText(op),
                         ToText(OpAt(it->second)));
    }
  }
  return "";
}

// A read that shows the value of a write of unknown outcome tells its revision.
std::string Checker::IdentifyBySight() {
  for (const Op& op : ops_) {
    if (op.outcome != Outcome::kOk || !Looked(op) || !op.found) continue;
    std::string error = Identify(op);
    if (!error.empty()) return error;
  }
  return "";
}

std::string Checker::Identify(const Op& reader) {
  const auto it = writer_of_.find(reader.found_value);
  if (it == writer_of_.end()) {
    return fmt::format("nobody wrote what was read: {}", ToText(reader));
  }
  const Op& writer = OpAt(it->second);
  int64_t& revision = revision_[size_t(it->second)];
  if (writer.key != reader.key) {
    return fmt::format("read under another key than it was written: {} of {}", ToText(reader),
                       ToText(writer));
  }
  if (writer.outcome == Outcome::kRefused ||
      (writer.outcome == Outcome::kOk && !TakesEffect(writer))) {
    return fmt::format("a write without effect was seen: {} of {}", ToText(reader), ToText(writer));
  }
  if (revision == 0) {
    revision = reader.found_mod;
    ++verdict_.unknown_seen;
    const auto [at, fresh] = write_at_.emplace(revision, it->second);
    if (!fresh) {
      return fmt::format("two writes at one revision: {} shows {} where {} is", ToText(reader),
                         ToText(writer), ToText(OpAt(at->second)));
    }
    if (revision <= initial_revision_) {
      return fmt::format("{}: the history began at revision {}", ToText(reader), initial_revision_);
    }
  }
  if (revision != reader.found_mod) {
    return fmt::format("one write at two revisions: {} of {}, which is at {}", ToText(reader),
                       ToText(writer), revision);
  }
  return "";
}

// If a ended before b began, a must not stand behind b. It is enough to compare each operation with
// the one farthest on among all that had ended when it began.
std::string Checker::CheckRealTime() const {
  struct Event {
    int64_t at_ns;
    bool is_end;  // behind starts at the same instant: those are concurrent
    int op;
  };
  std::vector<Event> events;
  for (int i = 0; i < int(ops_.size()); ++i) {
    if (revision_[size_t(i)] == 0) continue;
    events.push_back({OpAt(i).start_ns, false, i});
    if (OpAt(i).outcome == Outcome::kOk) events.push_back({OpAt(i).end_ns, true, i});
  }
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return std::pair(a.at_ns, a.is_end) < std::pair(b.at_ns, b.is_end);
  });
  const auto is_read = [this](int i) {
    return OpAt(i).outcome == Outcome::kOk && !TakesEffect(OpAt(i));
  };
  int64_t farthest = -1;
  int farthest_op = -1;
  for (const Event& event : events) {
    const int64_t place = 2 * revision_[size_t(event.op)] + (is_read(event.op) ? 1 : 0);
    if (!event.is_end && place < farthest && !OpAt(event.op).stale) {
      return fmt::format(
          "the order contradicts real time: {} (revision {}) began after {} had "
          "ended",
          ToText(OpAt(event.op)), revision_[size_t(event.op)], ToText(OpAt(farthest_op)));
    }
    if (event.is_end && place > farthest) {
      farthest = place;
      farthest_op = event.op;
    }
  }
  return "";
}

std::string Checker::BuildItems() {
  int64_t last_revision = initial_revision_;
  for (const auto& [revision, i] : write_at_) {
    items_.push_back({2 * revision, i, KeyId(OpAt(i).key)});
    last_revision = std::max(last_revision, revision);
  }
  for (int i = 0; i < int(ops_.size()); ++i) {
    const Op& op = OpAt(i);
    if (op.outcome != Outcome::kOk || TakesEffect(op)) continue;
    items_.push_back({2 * op.revision + 1, i, KeyId(op.key)});
    last_revision = std::max(last_revision, op.revision);
  }
  BuildUnknown();
  std::string error = AddGaps(last_revision);
  if (!error.empty()) return error;
  std::sort(items_.begin(), items_.end(),
            [](const Item& a, const Item& b) { return a.place < b.place; });
  facts_.resize(key_ids_.size());
  answered_ns_.assign(items_.size() + 1, kNever);
  for (size_t i = items_.size(); i-- > 0;) {
    const Item& item = items_[i];
    const bool answered = item.op >= 0 && OpAt(item.op).outcome == Outcome::kOk;
    answered_ns_[i] = std::min(answered_ns_[i + 1], answered ? OpAt(item.op).end_ns : kNever);
  }
  for (size_t i = 0; i < items_.size(); ++i) {
    if (items_[i].op < 0) {
      gaps_.push_back(i);
    } else {
      facts_[size_t(items_[i].key)].push_back(i);
    }
  }
  return "";
}

void Checker::BuildUnknown() {
  unknown_.resize(key_ids_.size());
  std::vector<int> left;
  for (int i = 0; i < int(ops_.size()); ++i) {
    const Op& op = OpAt(i);
    if (op.outcome == Outcome::kUnknown && op.kind != Kind::kGet && revision_[size_t(i)] == 0) {
      left.push_back(i);
    }
  }
  std::sort(left.begin(), left.end(),
            [this](int a, int b) { return OpAt(a).start_ns < OpAt(b).start_ns; });
  for (const int i : left) {
    const Op& op = OpAt(i);
    UnknownWrites& of_key = unknown_[size_t(KeyId(op.key))];
    UnknownWrites::Class& its_class = op.kind == Kind::kPut      ? of_key.puts
                                      : op.kind == Kind::kDelete ? of_key.deletes
                                                                 : of_key.cas[op.expected_mod];
    its_class.ops.push_back(i);
  }
}

// Every revision is some write: where none is known, one of unknown outcome must have been.
std::string Checker::AddGaps(int64_t last_revision) {
  int64_t candidates = 0;
  for (const UnknownWrites& of_key : unknown_) {
    candidates += int64_t(of_key.puts.ops.size() + of_key.deletes.ops.size());
    for (const auto& [expected, its_class] : of_key.cas)
      candidates += int64_t(its_class.ops.size());
  }
  const int64_t missing = last_revision - initial_revision_ - int64_t(write_at_.size());
  int64_t revision = initial_revision_ + 1;
  std::string missing_text;
  std::vector<Item> gaps;
  const auto add_until = [&](int64_t end) {
    for (; revision < end && int64_t(gaps.size()) <= candidates; ++revision) {
      gaps.push_back({2 * revision, -1, -1});
    }
    revision = end + 1;
  };
  for (const auto& [known, op] : write_at_) add_until(known);
  add_until(last_revision + 1);
  if (missing > candidates) {
    return fmt::format(
        "{} revisions are nobody's write (the {}th is {}), and only {} writes of "
        "unknown outcome could be there",
        missing, candidates + 1, gaps.back().revision(), candidates);
  }
  items_.insert(items_.end(), gaps.begin(), gaps.end());
  return "";
}

// What is wrong whatever the unknown writes did.
std::string Checker::CheckEachKey() const {
  for (const std::vector<size_t>& facts : facts_) {
    KeyState state;
    int64_t since = 2 * initial_revision_;  // place of what `state` is known from
    for (const size_t i : facts) {
      const Item& item = items_[i];
      const Op& op = OpAt(item.op);
      const bool fits = Fits(op, state);
      if (!fits && !CouldBeExplained(item, state, since)) return Contradiction(item, state, since);
      if (item.place % 2 == 0) {
        state = After(op, item.revision());
        since = item.place;
      } else if (!fits && (op.kind == Kind::kDelete || Looked(op))) {
        state.mod = op.kind == Kind::kDelete || !op.found ? 0 : op.found_mod;
        since = item.place;
      }
    }
  }
  return "";
}

// Whether unknown writes on the key, by themselves, could make the item fit. They cannot help with
// what was read: all writes that a read has shown have their revision already.
bool Checker::CouldBeExplained(const Item& item, KeyState state, int64_t since) const {
  const Op& op = OpAt(item.op);
  const UnknownWrites& of_key = unknown_[size_t(item.key)];
  // The last gap in between is the one that most of them may fill.
  const auto begin_before = [this](int64_t place) {
    return std::lower_bound(gaps_.begin(), gaps_.end(), place,
                            [this](size_t gap, int64_t p) { return items_[gap].place < p; });
  };
  const auto filled = [&](std::optional<int64_t> revision, bool puts, bool deletes) {
    auto gap = begin_before(revision.has_value() ? 2 * *revision + 1 : item.place);
    if (gap == gaps_.begin()) return false;
    --gap;
    const Item& last = items_[*gap];
    if (last.place < since || (revision.has_value() && last.revision() != *revision)) return false;
    const auto can = [&](const UnknownWrites::Class& from) {
      return !from.ops.empty() && OpAt(from.ops[0]).start_ns <= answered_ns_[*gap];
    };
    if (deletes && can(of_key.deletes)) return true;
    if (!puts) return false;
    return can(of_key.puts) || std::any_of(of_key.cas.begin(), of_key.cas.end(),
                                           [&](const auto& c) { return can(c.second); });
  };
  const bool compare_held =
      op.kind == Kind::kCas && (TakesEffect(op) || op.outcome == Outcome::kUnknown);
  if ((op.kind == Kind::kDelete && !op.effective) || (Looked(op) && !op.found) ||
      (compare_held && op.expected_mod == 0)) {
    return Fits(op, KeyState{0}) && filled(std::nullopt, false, true);
  }
  if (op.kind == Kind::kDelete) return filled(std::nullopt, true, false);
  if (Looked(op)) return false;
  // The gap that it compared with must be the write.
  if (compare_held) return filled(op.expected_mod, true, false);
  return filled(std::nullopt, true, true);
}

std::string Checker::Contradiction(const Item& item, KeyState state, int64_t since) const {
  std::string text = fmt::format("{} contradicts the state at revision {}, which is ",
                                 ToText(OpAt(item.op)), item.revision() - (item.place % 2 == 0));
  const auto last = write_at_.find(state.mod != 0 ? state.mod : since / 2);
  text += state.mod == 0 ? "absent" : fmt::format("mod_revision {}", state.mod);
  if (last != write_at_.end() && OpAt(last->second).key == OpAt(item.op).key) {
    text += " by " + ToText(OpAt(last->second));
  }
  return text;
}

void Checker::SetState(int key, KeyState state) {
  if (!choices_.empty()) undo_.emplace_back(key, state_[size_t(key)]);
  state_[size_t(key)] = state;
}

// Adds the next write of a class if it may stand at this gap. One that could, were there another
// left, counts as scarce.
void Checker::Consider(size_t item, int key, UnknownWrites::Class& from,
                       std::vector<Candidate>& out) {
  if (from.ops.empty()) return;
  const bool left =
      from.used < from.ops.size() && OpAt(from.ops[from.used]).start_ns <= answered_ns_[item];
  const Op& op = OpAt(from.ops[left ? from.used : 0]);
  const KeyState now = state_[size_t(key)];
  if (op.start_ns > answered_ns_[item]) return;
  if (op.kind == Kind::kDelete && now.mod == 0) return;
  if (op.kind == Kind::kCas && now.mod != op.expected_mod) return;
  const std::vector<size_t>& facts = facts_[size_t(key)];
  const KeyState then = After(op, items_[item].revision());
  auto next = std::upper_bound(facts.begin(), facts.end(), item);
  // A compare that did not hold says little; what comes behind it tells more.
  while (next != facts.end() && SaysLittle(OpAt(items_[*next].op)) &&
         Fits(OpAt(items_[*next].op), then)) {
    ++next;
  }
  const Item* fact = next == facts.end() ? nullptr : &items_[*next];
  Candidate candidate{key,       &from, 1, from.scarce, -int64_t(from.ops.size() - from.used),
                      out.size()};
  if (fact != nullptr && Fits(OpAt(fact->op), then)) {
    if (!Fits(OpAt(fact->op), now)) {
      candidate.rank = 0;
      candidate.second = fact->place;
    }
  } else if (fact != nullptr) {
    // Only yet another unknown write in between could help, and not with what a read has shown:
    // all of that has its place already.
    if (Looked(OpAt(fact->op)) && OpAt(fact->op).found) return;
    const auto gap = std::upper_bound(gaps_.begin(), gaps_.end(), item);
    if (gap == gaps_.end() || *gap > *next) return;
    candidate.rank = 2;
  }
  if (left) {
    out.push_back(candidate);
  } else {
    ++from.scarce_now;
  }
}

std::vector<Checker::Candidate> Checker::CandidatesFor(size_t item) {
  std::vector<Candidate> out;
  steps_ += int64_t(unknown_keys_.size());
  for (const int key : unknown_keys_) {
    UnknownWrites& of_key = unknown_[size_t(key)];
    Consider(item, key, of_key.puts, out);
    Consider(item, key, of_key.deletes, out);
    const auto cas = of_key.cas.find(state_[size_t(key)].mod);
    if (cas != of_key.cas.end()) Consider(item, key, cas->second, out);
  }
  return out;
}

bool Checker::TakeNext(Choice& choice) {
  if (choice.taken != nullptr) --choice.taken->used;
  choice.taken = nullptr;
  for (; undo_.size() > choice.undo; undo_.pop_back()) {
    state_[size_t(undo_.back().first)] = undo_.back().second;
  }
  std::vector<Candidate> candidates = CandidatesFor(choice.item);
  if (choice.next >= candidates.size()) return false;
  const auto nth = candidates.begin() + std::ptrdiff_t(choice.next++);
  std::nth_element(candidates.begin(), nth, candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.Rank() < b.Rank(); });
  choice.taken = nth->from;
  const int op = nth->from->ops[nth->from->used++];
  SetState(nth->key, After(OpAt(op), items_[choice.item].revision()));
  return true;
}

// Goes back to the last choice that has another way; false if there is none.
bool Checker::Backtrack(size_t& item) {
  while (!choices_.empty()) {
    if (TakeNext(choices_.back())) {
      item = choices_.back().item + 1;
      return true;
    }
    choices_.pop_back();
  }
  return false;
}

void Checker::BeginWalk() {
  choices_.clear();
  undo_.clear();
  state_.assign(key_ids_.size(), KeyState{});
  for (const int key : unknown_keys_) {
    unknown_[size_t(key)].ForEach([](UnknownWrites::Class& its_class) {
      its_class.used = 0;
      its_class.scarce += std::exchange(its_class.scarce_now, 0);
    });
  }
}

// Goes over one item. False: it does not fit, whatever else could stand there.
bool Checker::StepTo(size_t i) {
  const Item& item = items_[i];
  if (item.op < 0) {
    choices_.push_back(Choice{.item = i, .undo = undo_.size()});
    return TakeNext(choices_.back());
  }
  if (Fits(OpAt(item.op), state_[size_t(item.key)])) {
    if (item.place % 2 == 0) SetState(item.key, After(OpAt(item.op), item.revision()));
    return true;
  }
  unknown_[size_t(item.key)].ForEach([](UnknownWrites::Class& c) { ++c.scarce_now; });
  return false;
}

// Walks the order and fills each gap with an unknown write, going back where that fails. A wrong
// choice may show only much later, so after some dead ends the walk begins anew, and then spares
// what was missing there.
std::string Checker::Search() {
  if (gaps_.empty()) return "";
  for (int key = 0; key < int(unknown_.size()); ++key) {
    bool any = false;
    unknown_[size_t(key)].ForEach([&](const UnknownWrites::Class& c) { any |= !c.ops.empty(); });
    if (any) unknown_keys_.push_back(key);
  }
  size_t farthest = 0;
  int64_t dead_ends = 0;
  int64_t dead_ends_max = kDeadEndsOfFirstWalk;
  BeginWalk();
  for (size_t i = 0; i < items_.size();) {
    if (++steps_ > kMaxSearchSteps) {
      verdict_.undecided = true;
      return "";
    }
    if (StepTo(i)) {
      ++i;
      continue;
    }
    farthest = std::max(farthest, i);
    if (++dead_ends == dead_ends_max) {
      dead_ends = 0;
      dead_ends_max *= 2;
      BeginWalk();
      i = 0;
    } else if (!Backtrack(i)) {
      const Item& stuck = items_[farthest];
      return fmt::format(
          "no way to fill the {} revisions of no known write with writes of unknown outcome; the "
          "best comes to revision {}{}",
          gaps_.size(), stuck.revision(), stuck.op < 0 ? "" : ": " + ToText(OpAt(stuck.op)));
    }
  }
  verdict_.unknown_placed = int(gaps_.size());
  return "";
}

}  // namespace

std::string ToText(const Op& op) {
  constexpr std::string_view kNames[] = {"get", "put", "delete", "cas"};
  std::string text =
      fmt::format("client {} {} {}", op.client, kNames[size_t(op.kind)], Shown(op.key));
  if (op.kind == Kind::kPut || op.kind == Kind::kCas) text += " := " + Shown(op.value);
  if (op.kind == Kind::kCas) text += fmt::format(" if at {}", op.expected_mod);
  if (op.outcome == Outcome::kRefused) return fmt::format("[{}: refused]", text);
  if (op.outcome == Outcome::kUnknown) {
    return fmt::format("[{}: unknown, {} ns to ?]", text, op.start_ns);
  }
  if (op.stale) text += " (may be old)";
  text += fmt::format(": revision {}", op.revision);
  if (op.kind == Kind::kDelete || op.kind == Kind::kCas) {
    text += op.effective ? ", done" : ", not done";
  }
  if (Looked(op)) {
    text += op.found ? fmt::format(", found {} at {}", Shown(op.found_value), op.found_mod)
                     : ", found nothing";
  }
  return fmt::format("[{}, {} to {} ns]", text, op.start_ns, op.end_ns);
}

HistoryVerdict CheckHistory(const std::vector<Op>& ops, int64_t initial_revision) {
  return Checker(ops, initial_revision).Run();
}

std::string CheckLinearizable(const std::vector<Op>& ops, int64_t initial_revision) {
  return CheckHistory(ops, initial_revision).error;
}

}  // namespace holdfast::history
