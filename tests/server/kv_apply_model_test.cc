// Random commands, on the real store and on a dumb model: same answers, same state at every
// revision. A third one applies the same commands as a member on which nobody waits does, in other
// batches, and must hold the same.
//
// HOLDFAST_SEED=N replays one run.
#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "kv_model.h"
#include "kv_test_util.h"
#include "server/apply_command.h"
#include "server/kv_codec.h"
#include "server/kv_validate.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using etcdserverpb::Compare;
using etcdserverpb::RangeRequest;
using etcdserverpb::TxnRequest;

class Generator {
 public:
  explicit Generator(uint64_t seed) : rng_(seed) {}

  // About two thirds of the transactions pass CheckTxn; the caller leaves the others out.
  Command Next(const testing::Model& model) {
    model_ = &model;
    Command command;
    switch (rng_.Below(12)) {
      case 0:
        command.mutable_compaction()->set_revision(SomeRevision());
        break;
      case 1:
      case 2:
        FillDelete(command.mutable_delete_range());
        break;
      case 3:
      case 4:
      case 5:
        FillPut(command.mutable_put());
        break;
      default:
        FillTxn(command.mutable_txn(), 1);
    }
    return command;
  }

 private:
  std::string SomeKey() { return std::string(1, static_cast<char>('a' + rng_.Below(8))); }
  std::string SomeEnd() {
    switch (rng_.Below(6)) {
      case 0:
        return std::string(1, '\0');
      case 1:
      case 2:
        return SomeKey();
      default:
        return "";
    }
  }
  std::string SomeValue() { return std::string(1, static_cast<char>('0' + rng_.Below(4))); }
  // From below the compacted to beyond the newest; mostly good ones.
  int64_t SomeRevision() {
    const int64_t last = model_->revision() + 2;
    const int64_t first = std::max<int64_t>(0, model_->compact_revision() - 2);
    return first + static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(last - first)));
  }

  void FillPut(etcdserverpb::PutRequest* put) {
    put->set_key(SomeKey());
    put->set_prev_kv(rng_.OneIn(2));
    put->set_ignore_value(rng_.OneIn(5));
    put->set_ignore_lease(rng_.OneIn(8));
    if (!put->ignore_value()) put->set_value(SomeValue());
    if (!put->ignore_lease() && rng_.OneIn(30)) put->set_lease(7);
  }
  void FillDelete(etcdserverpb::DeleteRangeRequest* request) {
    request->set_key(SomeKey());
    request->set_range_end(SomeEnd());
    request->set_prev_kv(rng_.OneIn(2));
  }
  void FillRange(RangeRequest* request) {
    request->set_key(SomeKey());
    request->set_range_end(SomeEnd());
    if (rng_.OneIn(3)) request->set_limit(static_cast<int64_t>(rng_.Below(4)));
    if (rng_.OneIn(4)) request->set_revision(SomeRevision());
    if (rng_.OneIn(3)) {
      request->set_sort_order(static_cast<RangeRequest::SortOrder>(rng_.Below(3)));
      request->set_sort_target(static_cast<RangeRequest::SortTarget>(rng_.Below(5)));
    }
    request->set_keys_only(rng_.OneIn(6));
    request->set_count_only(rng_.OneIn(8));
    if (rng_.OneIn(8)) request->set_min_mod_revision(SomeRevision());
    if (rng_.OneIn(8)) request->set_max_mod_revision(SomeRevision());
  }
  void FillCompare(Compare* compare) {
    compare->set_key(SomeKey());
    compare->set_range_end(SomeEnd());
    compare->set_result(static_cast<Compare::CompareResult>(rng_.Below(4)));
    compare->set_target(static_cast<Compare::CompareTarget>(rng_.Below(5)));
    switch (compare->target()) {
      case Compare::VERSION:
        compare->set_version(static_cast<int64_t>(rng_.Below(3)));
        break;
      case Compare::CREATE:
        compare->set_create_revision(SomeRevision());
        break;
      case Compare::MOD:
        compare->set_mod_revision(SomeRevision());
        break;
      case Compare::VALUE:
        compare->set_value(SomeValue());
        break;
      default:
        compare->set_lease(static_cast<int64_t>(rng_.Below(2)));
    }
  }
  void FillTxn(TxnRequest* txn, int depth) {
    for (uint64_t n = rng_.Below(3); n > 0; --n) FillCompare(txn->add_compare());
    for (uint64_t n = rng_.Below(5); n > 0; --n) FillOp(txn->add_success(), depth);
    for (uint64_t n = rng_.Below(4); n > 0; --n) FillOp(txn->add_failure(), depth);
  }
  void FillOp(etcdserverpb::RequestOp* op, int depth) {
    switch (rng_.Below(depth < 3 ? 7 : 5)) {
      case 0:
        return FillDelete(op->mutable_request_delete_range());
      case 1:
      case 2:
        return FillPut(op->mutable_request_put());
      case 3:
      case 4:
        return FillRange(op->mutable_request_range());
      default:
        return FillTxn(op->mutable_request_txn(), depth + 1);
    }
  }

  base::Rng rng_;
  const testing::Model* model_ = nullptr;
};

// Every revision that can be read, whole.
void ExpectSameState(const storage::MvccStore& store, const testing::Model& model) {
  const auto view = store.NewView();
  ASSERT_EQ(view->applied().revision, model.revision());
  ASSERT_EQ(view->applied().compact_revision, model.compact_revision());
  for (int64_t r = std::max<int64_t>(1, model.compact_revision()); r <= model.revision(); ++r) {
    storage::RangeOptions all;
    all.key = std::string(1, '\0');
    all.range_end = all.key;
    all.revision = r;
    storage::RangeResult result;
    ASSERT_TRUE(view->Range(all, &result).ok());
    ASSERT_EQ(result.kvs.size(), model.at(r).size()) << "at revision " << r;
    auto expected = model.at(r).begin();
    for (storage::KeyValue& kv : result.kvs) {
      mvccpb::KeyValue got;
      FillKeyValue(std::move(kv), &got);
      ASSERT_EQ(testing::Text(got), testing::Text(expected->second)) << "at revision " << r;
      ++expected;
    }
  }
}

void RunSeed(uint64_t seed, int commands) {
  SCOPED_TRACE(fmt::format("HOLDFAST_SEED={}", seed));
  testing::TempDir dir;
  const auto store = testing::OpenStore(dir / "db");
  const auto silent_store = testing::OpenStore(dir / "silent");
  const auto writer = store->NewWriter();
  const auto silent_writer = silent_store->NewWriter();
  testing::Model model;
  Generator generator(seed);
  base::Rng rng(seed + 1);
  Index index;
  int refused = 0, transactions = 0;
  for (int i = 0; i < commands; ++i) {
    const Command command = generator.Next(model);
    if (command.has_txn() && !CheckTxn(command.txn(), TxnLimits()).ok()) continue;
    transactions += command.has_txn() ? 1 : 0;
    const testing::Model::Outcome expected = model.Apply(command);
    const auto got = testing::ApplyAlone(command, /*want_answer=*/true, *writer);
    ASSERT_TRUE(got.ok()) << got.status();
    ASSERT_EQ(got->status, expected.status) << testing::Text(command);
    const auto silent = testing::ApplyAlone(command, /*want_answer=*/false, *silent_writer);
    ASSERT_TRUE(silent.ok()) << silent.status();
    ASSERT_EQ(silent->status, expected.status) << testing::Text(command);
    if (got->status.ok()) {
      ASSERT_EQ(testing::Text(*got->response), testing::Text(*expected.response))
          << testing::Text(command);
    } else {
      ++refused;
    }
    ++index;
    if (rng.OneIn(3)) CHECK_OK(writer->Commit(index, Term(1)));
    if (rng.OneIn(10)) CHECK_OK(silent_writer->Commit(index, Term(1)));
  }
  ASSERT_TRUE(writer->Commit(index, Term(1)).ok());
  ASSERT_TRUE(silent_writer->Commit(index, Term(1)).ok());
  // The generator must not have become one of refusals only.
  EXPECT_GT(transactions, commands / 10);
  EXPECT_LT(refused, commands * 2 / 3);
  EXPECT_GT(refused, 0);
  ExpectSameState(*store, model);
  ExpectSameState(*silent_store, model);
}

TEST(KvApplyModel, RandomCommands) {
  if (const char* seed = std::getenv("HOLDFAST_SEED")) return RunSeed(std::stoull(seed), 400);
  for (uint64_t seed = 1; seed <= 12; ++seed) RunSeed(seed, 400);
  RunSeed(base::RandomSeed(), 400);
}

}  // namespace
}  // namespace holdfast::server
