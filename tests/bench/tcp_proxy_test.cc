// The failing network, between sockets of this process: it is the dialing end, 0, and the listening
// end, 1.
#include "bench/tcp_proxy.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <thread>
#include <utility>

#include "bench/monotonic.h"

namespace holdfast::bench {
namespace {

constexpr int kPatienceMs = 20'000;

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

class Socket {
 public:
  Socket() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) : fd_(std::exchange(other.fd_, -1)) {}
  ~Socket() { Close(); }

  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  int Bind() {
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    return ntohs(address.sin_port);
  }
  void Listen() { EXPECT_EQ(listen(fd_, 8), 0); }
  Socket Accept() {
    pollfd ready{fd_, POLLIN, 0};
    EXPECT_EQ(poll(&ready, 1, kPatienceMs), 1);
    return Socket(accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC));
  }
  void Dial(int port) {
    const sockaddr_in address = Loopback(port);
    ASSERT_EQ(connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  void Send(const std::string& text) {
    EXPECT_EQ(send(fd_, text.data(), text.size(), MSG_NOSIGNAL), ssize_t(text.size()));
  }
  // Waits for so many bytes; less if the connection ends.
  std::string Receive(size_t size) {
    std::string text;
    while (text.size() < size) {
      pollfd ready{fd_, POLLIN, 0};
      char buffer[65536];
      if (poll(&ready, 1, kPatienceMs) != 1) return text + "(nothing comes)";
      const ssize_t n = recv(fd_, buffer, std::min(sizeof(buffer), size - text.size()), 0);
      if (n <= 0) return text + (n == 0 ? "(end)" : errno == ECONNRESET ? "(reset)" : "(error)");
      text.append(buffer, size_t(n));
    }
    return text;
  }
  bool NothingThere() {
    char byte;
    return recv(fd_, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
  }

 private:
  int fd_;
};

class TcpProxyTest : public testing::Test {
 protected:
  void SetUp() override {
    auto proxy = TcpProxy::Start();
    ASSERT_TRUE(proxy.ok()) << proxy.status();
    proxy_ = *std::move(proxy);
    const int target = listener_.Bind();
    listener_.Listen();
    port_ = FreePort();
    ASSERT_TRUE(proxy_->Listen(1, port_, target).ok());
    ASSERT_TRUE(proxy_->Listen(0, FreePort(), target).ok());
    proxy_->SetProcess(0, [] { return getpid(); });
  }
  static int FreePort() { return Socket().Bind(); }

  Socket listener_;
  int port_ = 0;
  std::unique_ptr<TcpProxy> proxy_;
};

TEST_F(TcpProxyTest, ForwardsBothWaysAndTheEnd) {
  Socket dialer;
  dialer.Dial(port_);
  Socket target = listener_.Accept();
  dialer.Send("hello");
  EXPECT_EQ(target.Receive(5), "hello");
  target.Send("well met");
  EXPECT_EQ(dialer.Receive(8), "well met");
  const std::string much(3 << 20, 'x');
  std::thread sender([&] { dialer.Send(much); });
  EXPECT_EQ(target.Receive(much.size()), much);
  sender.join();
  EXPECT_EQ(proxy_->Bytes(0, 1), 5 + much.size());
  EXPECT_EQ(proxy_->Bytes(1, 0), 8u);
  dialer.Close();
  EXPECT_EQ(target.Receive(1), "(end)");
}

TEST_F(TcpProxyTest, CutResetsWhatStandsAndWhatComes) {
  Socket dialer;
  dialer.Dial(port_);
  Socket target = listener_.Accept();
  proxy_->Cut(1, 0);
  EXPECT_EQ(dialer.Receive(1), "(reset)");
  EXPECT_EQ(target.Receive(1), "(reset)");
  Socket again;
  again.Dial(port_);
  EXPECT_EQ(again.Receive(1), "(reset)");
  proxy_->Heal(0, 1);
  Socket healed;
  healed.Dial(port_);
  healed.Send("x");
  EXPECT_EQ(listener_.Accept().Receive(1), "x");
}

TEST_F(TcpProxyTest, ABlackholeSilencesOneWayAndHealingDeliversWhatWasSent) {
  Socket dialer;
  dialer.Dial(port_);
  Socket target = listener_.Accept();
  proxy_->Blackhole(0, 1);
  dialer.Send("late");
  target.Send("through");
  EXPECT_EQ(dialer.Receive(7), "through");
  EXPECT_TRUE(target.NothingThere());
  proxy_->HealAll();
  EXPECT_EQ(target.Receive(4), "late");
}

TEST_F(TcpProxyTest, ABlackholeHidesTheEndOfAConnectionAndTheBeginningOfAnother) {
  Socket dialer;
  dialer.Dial(port_);
  Socket target = listener_.Accept();
  proxy_->Blackhole(0, 1);
  proxy_->Blackhole(1, 0);
  dialer.Close();
  Socket second;
  second.Dial(port_);  // the proxy takes it, as a network takes a packet
  second.Send("second");
  // Whatever the proxy does about those two it has done after a change of its rules or two.
  proxy_->Delay(1, 0, absl::ZeroDuration());
  proxy_->Delay(1, 0, absl::ZeroDuration());
  EXPECT_TRUE(target.NothingThere());
  proxy_->HealAll();
  EXPECT_EQ(target.Receive(1), "(end)");
  EXPECT_EQ(listener_.Accept().Receive(6), "second");
}

TEST_F(TcpProxyTest, DelayIsOneWayAndKeepsTheOrder) {
  Socket dialer;
  dialer.Dial(port_);
  Socket target = listener_.Accept();
  proxy_->Delay(0, TcpProxy::kAll, absl::Milliseconds(150));
  const int64_t sent_ns = MonotonicNs();
  dialer.Send("a");
  dialer.Send("b");
  EXPECT_EQ(target.Receive(2), "ab");
  EXPECT_GE(MonotonicNs() - sent_ns, 150'000'000);
  // The way back is not delayed: the answer is there before the delay could have passed.
  proxy_->Delay(0, 1, absl::Seconds(100));
  target.Send("c");
  EXPECT_EQ(dialer.Receive(1), "c");
}

TEST_F(TcpProxyTest, StrangersAreForwardedWithoutRules) {
  proxy_->SetProcess(0, [] { return pid_t{0}; });
  proxy_->Cut(0, 1);
  Socket dialer;
  dialer.Dial(port_);
  dialer.Send("x");
  EXPECT_EQ(listener_.Accept().Receive(1), "x");
}

TEST_F(TcpProxyTest, ATargetThatIsDownIsARefusal) {
  listener_.Close();
  Socket dialer;
  dialer.Dial(port_);
  EXPECT_EQ(dialer.Receive(1), "(reset)");
}

}  // namespace
}  // namespace holdfast::bench
