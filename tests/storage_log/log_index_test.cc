// The index against a dumb twin.
#include "storage/log_index.h"

#include <gtest/gtest.h>

#include <map>

#include "base/rng.h"

namespace holdfast::storage {
namespace {

struct Twin {
  uint64_t next = 1;                                          // while empty
  std::map<uint64_t, std::pair<uint64_t, uint32_t>> entries;  // index -> term, segment
};

void Compare(const Twin& twin, const LogIndex& index) {
  ASSERT_EQ(index.size(), twin.entries.size());
  const uint64_t first = twin.entries.empty() ? twin.next : twin.entries.begin()->first;
  ASSERT_EQ(index.first(), Index(first));
  ASSERT_EQ(index.last(), Index(first + twin.entries.size() - 1));
  for (const auto& [i, entry] : twin.entries) {
    ASSERT_EQ(index.TermAt(Index(i)), Term(entry.first));
    ASSERT_EQ(index.At(Index(i)).segment, entry.second);
  }
  for (uint64_t from = first; from <= first + twin.entries.size(); ++from) {
    std::vector<TermRun> expected;
    for (auto it = twin.entries.lower_bound(from); it != twin.entries.end(); ++it) {
      const Term term(it->second.first);
      if (expected.empty() || expected.back().term != term) {
        expected.push_back({Index(it->first), term});
      }
    }
    const std::vector<TermRun> runs = index.RunsFrom(Index(from));
    ASSERT_EQ(runs.size(), expected.size());
    for (size_t i = 0; i < runs.size(); ++i) {
      ASSERT_EQ(runs[i].first, expected[i].first);
      ASSERT_EQ(runs[i].term, expected[i].term);
    }
  }
}

TEST(LogIndex, EqualsItsTwin) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    base::Rng rng(seed);
    Twin twin;
    LogIndex index;
    uint64_t term = 1;
    uint32_t segment = 1;
    for (int step = 0; step < 60; ++step) {
      const uint64_t last = twin.entries.empty() ? twin.next - 1 : twin.entries.rbegin()->first;
      if (rng.OneIn(20)) {
        twin = {.next = 1 + rng.Below(50), .entries = {}};
        index.Reset(Index(twin.next));
      } else if (rng.OneIn(8)) {
        const uint32_t below = segment - static_cast<uint32_t>(rng.Below(3));
        std::erase_if(twin.entries, [&](const auto& e) { return e.second.second < below; });
        if (twin.entries.empty()) twin.next = last + 1;
        index.DropSegmentsBelow(below);
      } else {
        if (rng.OneIn(4)) ++segment;
        if (rng.OneIn(4)) ++term;
        const uint64_t back = rng.OneIn(4) ? rng.Below(6) : 0;
        const uint64_t at = last + 1 > back ? last + 1 - back : 1;
        twin.entries.erase(twin.entries.lower_bound(at), twin.entries.end());
        twin.entries[at] = {term, segment};
        index.Append(Index(at), Term(term), {.segment = segment, .offset = 0, .bytes = 0});
      }
      Compare(twin, index);
      ASSERT_FALSE(HasFatalFailure());
    }
  }
}

}  // namespace
}  // namespace holdfast::storage
