// The batch door on real members whose leaders are killed: raw streams to every member, followers
// too, and the whole history is linearizable. No acknowledged write is lost, what was not answered
// may have happened, and what was called refused has not.
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include "absl/synchronization/mutex.h"
#include "base/rng.h"
#include "bench/monotonic.h"
#include "tests/history/history.h"
#include "tests/process/process_util.h"
#include "tests/process/workload.h"
#include "tests/server/exchange_caller.h"

namespace holdfast {
namespace {

using bench::MonotonicNs;
using history::Kind;
using history::Op;
using history::Outcome;
using server::testing::DoorAnswer;
using server::testing::ExchangeCaller;

constexpr int kKeys = 6;
constexpr int kBatch = 8;
constexpr uint64_t kTimeoutMs = 3000;

// One caller of one member: batch after batch, on a new stream whenever one breaks.
class Caller {
 public:
  Caller(int number, int member, const std::string& endpoint, uint64_t seed)
      : number_(number),
        member_(member),
        rng_(seed),
        channel_(grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), Own())) {}

  void Run(const std::atomic<bool>& stop) {
    while (!stop) {
      if (stream_ == nullptr || stream_->ended()) {
        stream_.reset();
        // While it is down there is nothing to be sent.
        if (!channel_->WaitForConnected(std::chrono::system_clock::now() +
                                        std::chrono::milliseconds(200))) {
          continue;
        }
        stream_ = std::make_unique<ExchangeCaller>(channel_);
        ++streams_;
      }
      RunBatch();
    }
    stream_.reset();
  }

  int member() const { return member_; }
  int64_t acked() const { return acked_; }
  int streams() const { return streams_; }
  std::vector<Op>& history() { return history_; }

 private:
  static grpc::ChannelArguments Own() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
    return arguments;
  }

  Op Next() {
    Op op;
    op.client = number_;
    op.key = fmt::format("x{}", rng_.Below(kKeys));
    const uint64_t dice = rng_.Below(100);
    op.kind = dice < 45   ? Kind::kGet
              : dice < 75 ? Kind::kPut
              : dice < 85 ? Kind::kDelete
                          : Kind::kCas;
    op.stale = op.kind == Kind::kGet && dice < 10;
    if (op.kind == Kind::kPut || op.kind == Kind::kCas) {
      op.value = fmt::format("{}.{}", number_, values_++);
    }
    if (op.kind == Kind::kCas) op.expected_mod = last_mod_[op.key];
    return op;
  }

  static void Encode(const Op& op, v1::ExchangeRequest* request) {
    request->set_timeout_ms(kTimeoutMs);
    switch (op.kind) {
      case Kind::kGet:
        request->mutable_range()->set_key(op.key);
        request->mutable_range()->set_serializable(op.stale);
        return;
      case Kind::kPut:
        request->mutable_put()->set_key(op.key);
        request->mutable_put()->set_value(op.value);
        return;
      case Kind::kDelete:
        request->mutable_delete_range()->set_key(op.key);
        return;
      case Kind::kCas: {
        etcdserverpb::TxnRequest* const txn = request->mutable_txn();
        etcdserverpb::Compare* const compare = txn->add_compare();
        compare->set_key(op.key);
        compare->set_target(etcdserverpb::Compare::MOD);
        compare->set_mod_revision(op.expected_mod);
        txn->add_success()->mutable_request_put()->set_key(op.key);
        txn->mutable_success(0)->mutable_request_put()->set_value(op.value);
        txn->add_failure()->mutable_request_range()->set_key(op.key);
        return;
      }
    }
  }

  static void TakeSight(const etcdserverpb::RangeResponse& range, Op* op) {
    op->looked = true;
    op->found = range.kvs_size() == 1;
    if (!op->found) return;
    op->found_value = range.kvs(0).value();
    op->found_mod = range.kvs(0).mod_revision();
  }

  void Decode(const std::optional<DoorAnswer>& answer, Op* op) {
    if (!answer.has_value()) {
      op->outcome = Outcome::kUnknown;
      return;
    }
    EXPECT_EQ(answer->times, 1);
    const v1::ExchangeReply& reply = answer->reply;
    if (reply.code() != 0) {
      // These promise that nothing was done; that they keep it, the history shows.
      const bool certain = reply.message() == "etcdserver: no leader" ||
                           reply.message() == "etcdserver: too many requests";
      op->outcome = certain ? Outcome::kRefused : Outcome::kUnknown;
      return;
    }
    v1::ExchangeReply copy = reply;
    op->revision = server::testing::HeaderOf(&copy)->revision();
    op->effective = true;
    switch (op->kind) {
      case Kind::kGet:
        TakeSight(reply.range(), op);
        break;
      case Kind::kPut:
        break;
      case Kind::kDelete:
        op->effective = reply.delete_range().deleted() > 0;
        break;
      case Kind::kCas:
        op->effective = reply.txn().succeeded();
        if (!op->effective) TakeSight(reply.txn().responses(0).response_range(), op);
        break;
    }
    if (op->kind != Kind::kGet) ++acked_;
    if (op->kind == Kind::kPut || (op->kind == Kind::kCas && op->effective)) {
      last_mod_[op->key] = op->revision;
    } else if (op->looked && !op->stale) {
      last_mod_[op->key] = op->found_mod;
    }
  }

  void RunBatch() {
    v1::ExchangeRequests batch;
    std::vector<Op> ops;
    const uint64_t first = next_id_;
    for (int i = 0; i < kBatch; ++i) {
      ops.push_back(Next());
      batch.add_requests()->set_id(next_id_++);
      Encode(ops.back(), batch.mutable_requests(i));
    }
    const int64_t start_ns = MonotonicNs();
    stream_->Send(batch);  // if it fails, no answer will come
    for (int i = 0; i < kBatch; ++i) {
      Op& op = ops[static_cast<size_t>(i)];
      op.start_ns = start_ns;
      const auto answer = stream_->Await(first + static_cast<uint64_t>(i));
      op.end_ns = MonotonicNs();
      Decode(answer, &op);
      history_.push_back(std::move(op));
    }
  }

  const int number_;
  const int member_;
  base::Rng rng_;
  const std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<ExchangeCaller> stream_;
  uint64_t next_id_ = 1;
  int values_ = 0;
  int streams_ = 0;
  std::atomic<int64_t> acked_{0};
  std::map<std::string, int64_t> last_mod_;
  std::vector<Op> history_;
};

TEST(ExchangeStorm, LeadersAreKilledUnderBatchesAtEveryMember) {
  const uint64_t seed = SeedFromEnvironment();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  base::Rng rng(seed);
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  std::vector<std::unique_ptr<Caller>> callers;
  for (int i = 0; i < 6; ++i) {
    callers.push_back(std::make_unique<Caller>(i, i % 3, cluster->endpoint(i % 3), rng.Next()));
  }
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (const auto& caller : callers) {
    threads.emplace_back([&stop, c = caller.get()] { c->Run(stop); });
  }
  const auto acked_at = [&](int member) {
    int64_t acked = 0;
    for (const auto& caller : callers) acked += caller->member() == member ? caller->acked() : 0;
    return acked;
  };
  // Until so many writes more were acknowledged at each of the members that are up.
  const auto progress = [&](int but) {
    std::vector<int64_t> goal;
    for (int m = 0; m < 3; ++m) goal.push_back(acked_at(m) + 100);
    return Eventually([&] {
      for (int m = 0; m < 3; ++m) {
        if (m != but && acked_at(m) < goal[static_cast<size_t>(m)]) return false;
      }
      return true;
    });
  };
  const int kills = FromEnvironment("HOLDFAST_KILLS", 3);
  for (int i = 0; i < kills; ++i) {
    ASSERT_TRUE(progress(/*but=*/-1)) << "a member's door forwards no writes";
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
    const auto leader = cluster->Leader();
    if (!leader.ok()) continue;
    ASSERT_TRUE(cluster->Kill(*leader).ok());
    ASSERT_TRUE(progress(/*but=*/*leader)) << "load does not go on without member " << *leader;
    ASSERT_TRUE(cluster->Restart(*leader).ok());
  }
  ASSERT_TRUE(progress(/*but=*/-1));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  std::vector<Op> history;
  int64_t acked = 0;
  int streams = 0;
  for (const auto& caller : callers) {
    acked += caller->acked();
    streams += caller->streams();
    for (Op& op : caller->history()) history.push_back(std::move(op));
  }
  // What the members hold now belongs to it.
  for (int m = 0; m < 3; ++m) {
    auto client = OpenClient({cluster->endpoint(m)});
    for (int k = 0; k < kKeys; ++k) {
      Op op;
      op.client = 100 + m;
      op.key = fmt::format("x{}", k);
      op.looked = true;
      op.start_ns = MonotonicNs();
      const auto got = client->Get(op.key, ReadOptions::Linearizable().Deadline(kGiveUp));
      op.end_ns = MonotonicNs();
      ASSERT_TRUE(got.ok()) << got.status();
      op.revision = static_cast<int64_t>(got->fresh.revision());
      op.found = got->value.has_value();
      if (op.found) op.found_value = got->value->value;
      if (op.found) op.found_mod = static_cast<int64_t>(got->value->mod_revision);
      history.push_back(std::move(op));
    }
  }
  fmt::print("{} leaders killed, {} streams, {} writes acknowledged\n", kills, streams, acked);
  ExpectLinearizable(history);
}

}  // namespace
}  // namespace holdfast
