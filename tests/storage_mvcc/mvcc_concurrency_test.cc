// Views, flushes and checkpoints beside the writer.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/check.h"
#include "tests/storage_mvcc/mvcc_test_util.h"

namespace holdfast::storage {
namespace {

constexpr uint64_t kCommits = 4000;
constexpr int64_t kCompactLag = 20;

// Commit i: both keys and the meta record hold i, revision 1 + i, everything older than
// kCompactLag revisions compacted now and then.
void WriteAll(MvccStore& store) {
  auto writer = store.NewWriter();
  for (uint64_t i = 1; i <= kCommits; ++i) {
    const std::string value = std::to_string(i);
    writer->BeginRevision();
    CHECK_OK(writer->Put("a", value, 0, nullptr));
    CHECK_OK(writer->DeleteRange("b", "", nullptr).status());
    CHECK_OK(writer->Put("b", value + std::string(200, ' '), 0, nullptr));
    CHECK(writer->EndRevision());
    writer->PutMeta("m", value);
    if (i % 10 == 0 && writer->revision() > kCompactLag) {
      CHECK_OK(writer->Compact(writer->revision() - kCompactLag));
    }
    MustCommit(*writer, i);
  }
}

// True if the view is of one commit, and says of which.
::testing::AssertionResult IsWhole(const MvccStore::View& view) {
  const AppliedState& applied = view.applied();
  if (applied.index.value == 0) return ::testing::AssertionSuccess();
  const std::string value = std::to_string(applied.index.value);
  const auto a = view.Get("a");
  const auto b = view.Get("b");
  const auto m = view.GetMeta("m");
  if (!a.ok() || !b.ok() || !m.ok()) return ::testing::AssertionFailure() << "a read failed";
  if (applied.revision != 1 + static_cast<int64_t>(applied.index.value)) {
    return ::testing::AssertionFailure() << applied;
  }
  if (!*a || (*a)->value != value || !*b || std::stoull((*b)->value) != applied.index.value ||
      !*m || **m != value) {
    return ::testing::AssertionFailure() << "at " << applied << " a is " << (*a)->value;
  }
  RangeOptions oldest = Everything();
  oldest.revision = std::max<int64_t>(applied.compact_revision, 2);
  RangeResult result;
  const absl::Status status = view.Range(oldest, &result);
  if (!status.ok() || result.count != 2 ||
      result.kvs[0].value != std::to_string(oldest.revision - 1)) {
    return ::testing::AssertionFailure()
           << "at " << applied << " revision " << oldest.revision << ": " << status.ToString();
  }
  return ::testing::AssertionSuccess();
}

TEST(MvccConcurrency, AViewsStateIsTheStateItReads) {
  ScratchDir dir;
  auto store = MustOpen(dir.store(), kTinyWriteBuffer);
  std::atomic<bool> done = false;
  std::atomic<int> views = 0;

  std::vector<std::thread> readers;
  for (int reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&] {
      uint64_t last = 0;
      while (!done && !testing::Test::HasFailure()) {
        const auto view = store->NewView();
        EXPECT_GE(view->applied().index.value, last);
        last = view->applied().index.value;
        EXPECT_TRUE(IsWhole(*view));
        ++views;
      }
    });
  }
  std::thread flusher([&] {
    uint64_t last = 0;
    for (int i = 0; !done && !testing::Test::HasFailure(); ++i) {
      const uint64_t before = store->applied().index.value;
      const auto covered = store->Flush();
      ASSERT_TRUE(covered.ok());
      EXPECT_GE(covered->value, before);
      EXPECT_GE(covered->value, last);
      last = covered->value;
      if (i % 8 != 0) continue;
      const std::string copy = dir.Sub(fmt::format("copy{}", i));
      const auto held = store->Checkpoint(copy);
      ASSERT_TRUE(held.ok()) << held.status();
      EXPECT_GE(held->index.value, last);
      auto opened = MustOpen(copy);
      EXPECT_EQ(opened->applied(), *held);
      EXPECT_TRUE(IsWhole(*opened->NewView()));
    }
  });
  WriteAll(*store);
  done = true;
  for (std::thread& reader : readers) reader.join();
  flusher.join();
  EXPECT_EQ(store->NewView()->applied().index.value, kCommits);
  EXPECT_TRUE(IsWhole(*store->NewView()));
  EXPECT_GT(views, 0);
}

}  // namespace
}  // namespace holdfast::storage
