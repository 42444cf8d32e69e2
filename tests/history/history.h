// Is what clients saw linearizable? For histories of an etcd-like store.
//
// In general that question takes exponential time (Gibbons and Korach, 1997). Here every answer
// carries the store's revision, which names the place of the operation in the order: a write that
// took effect is the only one at its revision, a read at revision R lies right behind write R. What
// is left is to check that this order agrees with real time and with what was read, which takes
// O(n log n). A search remains only for writes of unknown outcome that no read ever showed.
//
//   HistoryVerdict verdict = CheckHistory(ops);
//   EXPECT_EQ(verdict.error, "");
//
// Pure functions; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace holdfast::history {

enum class Kind {
  kGet,
  kPut,
  kDelete,
  kCas,  // if mod_revision(key) == expected_mod then put(value) else get(key)
};

enum class Outcome {
  kOk,
  kRefused,  // certainly without effect
  kUnknown,  // takes effect once, at any instant after its start, or never
};

// One operation on one key.
struct Op {
  int client = 0;  // for texts only
  Kind kind = Kind::kGet;
  std::string key = {};
  std::string value = {};    // of kPut and kCas. REQUIRES: no two writes of a history share one
  int64_t expected_mod = 0;  // of kCas; 0: the key must not exist
  // On one clock for the whole history, in ns: taken before the request was sent, and after the
  // answer had come (kOk only). REQUIRES: start_ns <= end_ns.
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  Outcome outcome = Outcome::kOk;

  // Below: of kOk only.
  int64_t revision = 0;  // of the answer's header
  // kDelete: the key existed. kCas: the compare held. A kPut always takes effect.
  bool effective = false;
  // A read that was allowed to be old: it must show the state at its revision, and that revision
  // must have existed, but it may lie before what was acknowledged when it began.
  bool stale = false;
  // What a kGet, or a kCas whose compare did not hold, found. `looked`: a kCas reports it.
  bool looked = false;
  bool found = false;
  std::string found_value = {};
  int64_t found_mod = 0;
};

std::string ToText(const Op& op);

struct HistoryVerdict {
  std::string error;  // empty: linearizable; else the operations that contradict each other
  // The search gave up: no contradiction was found, and no order either. Only with many writes of
  // unknown outcome on the same keys; a caller should count these.
  bool undecided = false;
  // Figures.
  int ok = 0;
  int refused = 0;
  int unknown_seen = 0;    // of unknown outcome, shown by a read
  int unknown_placed = 0;  // ... needed to explain a revision
};

// `initial_revision`: the store's when the history begins, with none of the history's keys in it.
// REQUIRES: nobody else writes, so every later revision is a write of this history.
HistoryVerdict CheckHistory(const std::vector<Op>& ops, int64_t initial_revision = 1);

// The error alone.
std::string CheckLinearizable(const std::vector<Op>& ops, int64_t initial_revision = 1);

}  // namespace holdfast::history
