// How often a client connects while nobody is there, counted by a socket; and how soon it notices
// that somebody is there again.
#include "client/connections.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/check.h"
#include "base/clock.h"
#include "client/rpc.h"
#include "holdfast/client.h"

namespace holdfast::internal {
namespace {

// --- When a call may dial
// --------------------------------------------------------------------------

TEST(Redial, DialsNeverSoonerThanATenthOfTheOutageAndTenSeconds) {
  Redial redial(1);
  EXPECT_FALSE(redial.Take(0, absl::Seconds(1))) << "nothing is out";
  redial.OnUnreachable(0, absl::Seconds(100));
  EXPECT_FALSE(redial.Take(0, absl::Seconds(104))) << "gRPC's own attempts do";
  std::vector<absl::Duration> dials;
  for (absl::Duration now = absl::Seconds(105); now < absl::Seconds(1000);
       now += absl::Milliseconds(10)) {
    if (redial.Take(0, now)) dials.push_back(now);
  }
  for (size_t i = 1; i < dials.size(); ++i) {
    const absl::Duration out = dials[i] - absl::Seconds(100);
    const absl::Duration gap = dials[i] - dials[i - 1];
    EXPECT_GE(gap, std::min(out / 10, absl::Seconds(10)));
    EXPECT_LE(gap, std::min(out / 10, absl::Seconds(10)) + absl::Milliseconds(500));
  }
  EXPECT_GT(dials.size(), 100u);
  EXPECT_LT(dials.size(), 130u);
}

TEST(Redial, TheIntervalIsTheClientsNotTheEndpoints) {
  Redial redial(3);
  for (size_t i = 0; i < 3; ++i) redial.OnUnreachable(i, absl::ZeroDuration());
  int dials = 0;
  for (absl::Duration now = absl::Seconds(200); now < absl::Seconds(300); now += absl::Seconds(1)) {
    for (size_t i = 0; i < 3; ++i) dials += redial.Take(i, now);
  }
  EXPECT_EQ(dials, 10);
}

TEST(Redial, WhatIsReachedIsNotDialed) {
  Redial redial(2);
  redial.OnUnreachable(0, absl::ZeroDuration());
  EXPECT_FALSE(redial.OnUnreachable(0, absl::Seconds(50))) << "it was out before";
  EXPECT_FALSE(redial.Take(1, absl::Seconds(100)));
  EXPECT_EQ(redial.OutFor(0, absl::Seconds(100)), absl::Seconds(100));
  redial.OnReached(0);
  EXPECT_EQ(redial.OutFor(0, absl::Seconds(100)), std::nullopt);
  EXPECT_FALSE(redial.Take(0, absl::Seconds(100)));
  EXPECT_TRUE(redial.OnUnreachable(0, absl::Seconds(101)));
}

// --- Real connections
// ------------------------------------------------------------------------------

// Takes connections, counts them and closes them at once: to gRPC an attempt that failed.
class CountingSocket {
 public:
  CountingSocket() {
    listen_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(listen_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    CHECK(listen(listen_, 64) == 0);
    socklen_t size = sizeof(address);
    CHECK(getsockname(listen_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    endpoint_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this] { Run(); });
  }
  ~CountingSocket() {
    stop_ = true;
    thread_.join();
    close(listen_);
  }
  const std::string& endpoint() const { return endpoint_; }
  int connects() const { return connects_; }

 private:
  void Run() {
    while (!stop_) {
      pollfd ready = {listen_, POLLIN, 0};
      if (poll(&ready, 1, 20) <= 0) continue;
      const int one = accept4(listen_, nullptr, nullptr, SOCK_CLOEXEC);
      if (one < 0) continue;
      ++connects_;
      close(one);
    }
  }

  int listen_ = -1;
  std::string endpoint_;
  std::atomic<bool> stop_ = false;
  std::atomic<int> connects_ = 0;
  std::thread thread_;
};

bool Eventually(const std::function<bool()>& condition) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

TEST(Connections, WhatWasDialedForACallRestsAfterwards) {
  CountingSocket socket;
  auto clock = std::make_shared<base::FakeClock>();
  Connections connections({{socket.endpoint(), "dns:///" + socket.endpoint()}}, clock);
  const auto failed = [&](const std::shared_ptr<grpc::Channel>& channel) {
    return channel->GetState(false) == GRPC_CHANNEL_TRANSIENT_FAILURE;
  };
  const auto first = connections.ForTry(0);
  first->GetState(/*try_to_connect=*/true);
  ASSERT_TRUE(Eventually([&] { return failed(first); }));
  connections.OnTry(0, /*reached=*/false);
  EXPECT_EQ(connections.ForTry(0), first) << "a short outage is gRPC's";
  clock->Advance(absl::Minutes(5));
  ASSERT_TRUE(Eventually([&] { return failed(first); }));
  const auto second = connections.ForTry(0);
  EXPECT_NE(second, first);
  EXPECT_EQ(connections.redials(), 1u);
  const int before = socket.connects();
  second->GetState(/*try_to_connect=*/true);
  ASSERT_TRUE(Eventually([&] { return socket.connects() > before; }));
  EXPECT_EQ(connections.ForTry(0), second) << "a call may wait for the attempt";
  clock->Advance(absl::Seconds(2));
  EXPECT_EQ(connections.ForTry(0), nullptr) << "but not for long";
  clock->Advance(absl::Seconds(9));
  EXPECT_NE(connections.ForTry(0), nullptr);
  EXPECT_EQ(connections.redials(), 2u);
  const auto third = connections.ForTry(0);
  connections.OnTry(0, /*reached=*/true);
  EXPECT_EQ(connections.ForTry(0), third);
  connections.OnTry(0, /*reached=*/false);
  EXPECT_NE(connections.ForTry(0), third) << "a new outage may be short";
}

// By hand: how often a client connects in an outage, with calls and without.
//   HOLDFAST_OUTAGE_S=300 client_test --gtest_also_run_disabled_tests --gtest_filter='*Outage*'
TEST(Connections, DISABLED_OutageMeasured) {
  const char* text = std::getenv("HOLDFAST_OUTAGE_S");
  const int seconds = text == nullptr ? 120 : std::atoi(text);
  const char* calls_text = std::getenv("HOLDFAST_CALLS_PER_S");
  const int calls = calls_text == nullptr ? 0 : std::atoi(calls_text);
  CountingSocket a, b, c;
  Client::Options options{.endpoints = {a.endpoint(), b.endpoint(), c.endpoint()}};
  options.exactly_once = false;
  auto client = *Client::Open(std::move(options));
  (void)client->Get("k", ReadOptions().Deadline(absl::Seconds(1)));
  const auto start = std::chrono::steady_clock::now();
  int last = 0;
  for (int second = 1; second <= seconds; ++second) {
    for (int i = 0; i < calls; ++i) {
      client->Get("k", ReadOptions().Deadline(absl::Seconds(2)), [](auto) {});
      std::this_thread::sleep_until(start + std::chrono::milliseconds(1000) * (second - 1) +
                                    std::chrono::milliseconds(1000 * i / calls));
    }
    std::this_thread::sleep_until(start + std::chrono::seconds(second));
    if (second % 10 != 0) continue;
    const int now = a.connects() + b.connects() + c.connects();
    printf("%4d s: %3d connects in the last 10 s, %d in all\n", second, now - last, now);
    fflush(stdout);
    last = now;
  }
}

}  // namespace
}  // namespace holdfast::internal
