// Watches on every member of a real cluster, through kill -9 of any of them, also in the middle of
// a compaction: whoever resumes by revision sees every change once, in order, no revision torn.
#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include "base/rng.h"
#include "etcd/rpc.grpc.pb.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

using etcdserverpb::WatchRequest;
using etcdserverpb::WatchResponse;

std::shared_ptr<grpc::Channel> Dial(const std::string& endpoint) {
  grpc::ChannelArguments arguments;
  // A member that comes back is noticed at once.
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), arguments);
}

// Follows everything below "w/" from revision 2 on, whatever happens to the member. Every write of
// the test is there, so no revision may be missing.
class Follower {
 public:
  explicit Follower(std::vector<std::string> endpoints)
      : endpoints_(std::move(endpoints)), thread_([this] { Run(); }) {}
  ~Follower() { Stop(); }
  void Stop() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      if (context_ != nullptr) context_->TryCancel();
    }
    if (thread_.joinable()) thread_.join();
  }
  // The newest revision that was seen whole.
  int64_t seen() const { return seen_; }
  int resumed() const { return resumed_; }
  bool faulty() const { return faulty_; }
  // What is wrong; empty: nothing. After Stop().
  const std::string& fault() const { return fault_; }
  const std::vector<std::string>& events() const { return events_; }

 private:
  void Run() {
    for (size_t turn = 0; !stop_ && !faulty_; ++turn) {
      Follow(endpoints_[turn % endpoints_.size()]);
      ++resumed_;
    }
  }

  void Follow(const std::string& endpoint) {
    const auto channel = Dial(endpoint);
    if (!channel->WaitForConnected(std::chrono::system_clock::now() +
                                   std::chrono::milliseconds(500))) {
      return;
    }
    grpc::ClientContext context;
    {
      std::lock_guard lock(mutex_);
      if (stop_) return;
      context_ = &context;
    }
    const auto stub = etcdserverpb::Watch::NewStub(channel);
    const auto stream = stub->Watch(&context);
    WatchRequest request;
    auto* create = request.mutable_create_request();
    create->set_key("w/");
    create->set_range_end("w0");
    create->set_start_revision(seen_ + 1);
    create->set_prev_kv(true);
    stream->Write(request);
    WatchResponse response;
    while (!faulty_ && stream->Read(&response)) Take(response);
    context.TryCancel();
    {
      std::lock_guard lock(mutex_);
      context_ = nullptr;
    }
    stream->Finish();
  }

  void Fail(std::string fault) {
    fault_ = std::move(fault);
    faulty_ = true;
  }

  void Take(const WatchResponse& response) {
    if (response.canceled()) {
      return Fail(fmt::format("canceled: {}", response.ShortDebugString()));
    }
    for (int i = 0; i < response.events_size(); ++i) {
      const auto& event = response.events(i);
      const int64_t revision = event.kv().mod_revision();
      const bool first = i == 0 || response.events(i - 1).kv().mod_revision() != revision;
      if (first && revision != seen_ + 1) {
        return Fail(fmt::format("revision {} follows {}", revision, seen_.load()));
      }
      seen_ = revision;
      events_.push_back(fmt::format("{} {} {} {} <- {}", revision, static_cast<int>(event.type()),
                                    event.kv().key(), event.kv().value(), event.prev_kv().value()));
    }
  }

  const std::vector<std::string> endpoints_;
  std::mutex mutex_;
  std::atomic<bool> stop_ = false;
  grpc::ClientContext* context_ = nullptr;  // mutex_
  std::atomic<int64_t> seen_ = 1;
  std::atomic<int> resumed_ = -1;
  std::string fault_;  // before faulty_ is set
  std::atomic<bool> faulty_ = false;
  std::vector<std::string> events_;
  std::thread thread_;
};

etcdserverpb::TxnRequest SomeWrite(base::Rng& rng, int number) {
  etcdserverpb::TxnRequest txn;
  const auto key = [&rng] { return fmt::format("w/{}", rng.Below(20)); };
  const std::string gone = key();
  if (rng.OneIn(3)) txn.add_success()->mutable_request_delete_range()->set_key(gone);
  std::string put = key();
  while (put == gone) put = key();
  auto* request = txn.add_success()->mutable_request_put();
  request->set_key(put);
  request->set_value(fmt::format("{}", number));
  return txn;
}

TEST(WatchProcess, ResumedThroughKillsNothingIsMissingAndNothingTwice) {
  const int kills = FromEnvironment("HOLDFAST_KILLS", 9);
  const uint64_t seed = SeedFromEnvironment();
  SCOPED_TRACE(fmt::format("HOLDFAST_SEED={}", seed));
  base::Rng rng(seed);
  auto cluster = StartCluster({"--snapshot-count=500"});
  ASSERT_NE(cluster, nullptr);

  std::vector<std::unique_ptr<Follower>> followers;
  for (int m = 0; m < 3; ++m) {
    followers.push_back(std::make_unique<Follower>(std::vector{cluster->endpoint(m)}));
  }
  followers.push_back(std::make_unique<Follower>(cluster->Endpoints()));

  std::atomic<bool> stop = false;
  std::atomic<int> written = 0;
  std::thread writer([&, seed] {
    base::Rng own(seed + 1);
    std::vector<std::unique_ptr<etcdserverpb::KV::Stub>> stubs;
    for (int m = 0; m < 3; ++m)
      stubs.push_back(etcdserverpb::KV::NewStub(Dial(cluster->endpoint(m))));
    for (int n = 0; !stop; ++n) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
      etcdserverpb::TxnResponse response;
      if (stubs[own.Below(3)]->Txn(&context, SomeWrite(own, n), &response).ok()) ++written;
    }
  });
  const auto await_writes = [&](int more) {
    const int until = written + more;
    return Eventually([&] { return written >= until; });
  };

  for (int kill = 0; kill < kills; ++kill) {
    ASSERT_TRUE(await_writes(50));
    const int victim = static_cast<int>(rng.Below(3));
    std::thread compactor;
    if (kill % 2 == 1) {
      // Not beyond what anybody still needs.
      int64_t to = INT64_MAX;
      for (const auto& follower : followers) to = std::min(to, follower->seen());
      compactor = std::thread([&, to] {
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
        etcdserverpb::CompactionRequest request;
        request.set_revision(to);
        request.set_physical(true);
        etcdserverpb::CompactionResponse response;
        etcdserverpb::KV::NewStub(Dial(cluster->endpoint(victim)))
            ->Compact(&context, request, &response);
      });
    }
    const bool killed = cluster->Kill(victim).ok();
    if (compactor.joinable()) compactor.join();
    ASSERT_TRUE(killed);
    // Sometimes the others go on for long without it: it must come back over their log.
    if (rng.OneIn(2)) {
      ASSERT_TRUE(await_writes(100));
    }
    ASSERT_TRUE(cluster->Restart(victim).ok());
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
  }
  ASSERT_TRUE(await_writes(50));
  stop = true;
  writer.join();

  int64_t last = 0;
  ASSERT_TRUE(Eventually([&] {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
    etcdserverpb::RangeRequest request;
    request.set_key("x");
    etcdserverpb::RangeResponse response;
    const auto stub = etcdserverpb::KV::NewStub(Dial(cluster->endpoint(0)));
    if (!stub->Range(&context, request, &response).ok()) return false;
    last = response.header().revision();
    return true;
  }));
  for (const auto& follower : followers) {
    EXPECT_TRUE(Eventually([&] { return follower->seen() >= last || follower->faulty(); },
                           absl::Seconds(30)))
        << "stands at " << follower->seen() << " of " << last;
    follower->Stop();
    EXPECT_EQ(follower->fault(), "");
    EXPECT_EQ(follower->seen(), last);
    EXPECT_EQ(follower->events(), followers[0]->events());
  }
  fmt::print(
      "{} kills, {} acknowledged writes, {} revisions, {} events on each, resumed {}+{}+{}+{} "
      "times\n",
      kills, written.load(), last, followers[0]->events().size(), followers[0]->resumed(),
      followers[1]->resumed(), followers[2]->resumed(), followers[3]->resumed());
}

}  // namespace
}  // namespace holdfast
