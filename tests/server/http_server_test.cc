// The HTTP/1.1 side: what decides a connection's protocol, how requests are read, and that nobody
// who is slow, large or silent holds up the others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <string>
#include <vector>

#include "http_test_client.h"
#include "server/client_acceptor.h"
#include "server/http_server.h"
#include "server/metrics.h"

namespace holdfast::server {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(ProtocolTest, TheFirstBytesDecide) {
  EXPECT_EQ(ProtocolOf(""), Protocol::kUndecided);
  EXPECT_EQ(ProtocolOf("P"), Protocol::kUndecided) << "PRI, POST or PUT";
  EXPECT_EQ(ProtocolOf("PO"), Protocol::kHttp1);
  EXPECT_EQ(ProtocolOf("PRI * HTTP/"), Protocol::kUndecided);
  EXPECT_EQ(ProtocolOf("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Protocol::kHttp2);
  EXPECT_EQ(ProtocolOf("GET / HTTP/1.1"), Protocol::kHttp1);
  EXPECT_EQ(ProtocolOf("\x16\x03\x01"), Protocol::kHttp1) << "answered 400 there";
}

// An acceptor and a server whose handler echoes.
class HttpServerTest : public testing::Test {
 protected:
  void Start(HttpServer::Options options, ClientAcceptor::Options acceptor = {}) {
    if (!options.handler) {
      options.handler = [](HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
        exchange->Send({.body = request.method + " " + request.path + " [" + request.body + "]"});
      };
    }
    auto server = HttpServer::Start(options);
    ASSERT_TRUE(server.ok());
    server_ = *std::move(server);
    Url url = {.host = "127.0.0.1", .port = 0};
    auto sockets = ListenSockets::Open("listen", &url);
    ASSERT_TRUE(sockets.ok()) << sockets.status();
    ASSERT_NE(url.port, 0);
    port_ = url.port;
    acceptor.on_http1 = [this](int fd) { server_->Take(fd); };
    acceptor.on_http2 = [](int fd) {
      EXPECT_EQ(send(fd, "two", 3, MSG_NOSIGNAL), 3);
      close(fd);
    };
    std::vector<ClientAcceptor::Port> ports;
    ports.push_back({.sockets = *std::move(sockets)});
    auto accepting = ClientAcceptor::Start(acceptor, std::move(ports));
    ASSERT_TRUE(accepting.ok());
    acceptor_ = *std::move(accepting);
  }

  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<ClientAcceptor> acceptor_;
  uint16_t port_ = 0;
};

TEST_F(HttpServerTest, EachProtocolGoesItsWay) {
  Start({});
  RawClient http(port_);
  http.Say("P");
  RawClient grpc(port_);
  grpc.Say("PRI * HT");
  grpc.Say("TP/2.0\r\n\r\nSM\r\n\r\n");
  EXPECT_EQ(grpc.ReadAll(), "two");
  http.Say("OST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
  EXPECT_THAT(http.ReadUntil("]"), HasSubstr("POST /a [hi]"));
}

TEST_F(HttpServerTest, OneConnectionServesOneRequestAfterTheOther) {
  Start({});
  RawClient client(port_);
  client.Say(Post("/a", "1") + Post("/b%20c?x=1", "22"));
  EXPECT_THAT(client.ReadUntil("]"), HasSubstr("POST /a [1]"));
  EXPECT_THAT(client.ReadUntil("]"), HasSubstr("POST /b c [22]"));
  client.Say(
      "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("]"), HasSubstr("POST /c [abc]"));
  client.Say("GET /d HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.ReadAll(), HasSubstr("Connection: close"));
}

TEST_F(HttpServerTest, WhatIsNoRequestIsRefusedAndClosed) {
  HttpServer::Options options;
  options.max_body_bytes = 4;
  options.max_head_bytes = 1000;
  Start(options);
  RawClient tls(port_);
  tls.Say("\x16\x03\x01 hello\r\n\r\n");
  EXPECT_THAT(tls.ReadAll(), StartsWith("HTTP/1.1 400 Bad Request"));
  RawClient large(port_);
  large.Say(Post("/", "12345"));
  EXPECT_THAT(large.ReadAll(), StartsWith("HTTP/1.1 413"));
  RawClient chunked(port_);
  chunked.Say("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n");
  EXPECT_THAT(chunked.ReadAll(), StartsWith("HTTP/1.1 413"));
  RawClient head(port_);
  head.Say("GET / HTTP/1.1\r\nX: " + std::string(2000, 'x') + "\r\n\r\n");
  EXPECT_THAT(head.ReadAll(), StartsWith("HTTP/1.1 431"));
}

TEST_F(HttpServerTest, SilentAndSlowConnectionsAreClosedAndHoldUpNobody) {
  HttpServer::Options options;
  options.head_max = options.idle_max = std::chrono::milliseconds(300);
  ClientAcceptor::Options acceptor;
  acceptor.undecided_max = std::chrono::milliseconds(300);
  Start(options, acceptor);
  RawClient silent(port_);
  RawClient half(port_);
  half.Say("GET /never HTTP/1.1\r\nX-Slow");
  RawClient quick(port_);
  quick.Say("GET /now HTTP/1.1\r\n\r\n");
  EXPECT_THAT(quick.ReadUntil("]"), HasSubstr("GET /now []"));
  EXPECT_EQ(silent.ReadAll(), "");
  EXPECT_EQ(half.ReadAll(), "");
}

TEST_F(HttpServerTest, TheOldestSilentConnectionMakesRoom) {
  ClientAcceptor::Options acceptor;
  acceptor.max_undecided = 1;
  Start({}, acceptor);
  RawClient first(port_);
  RawClient second(port_);
  EXPECT_EQ(first.ReadAll(), "");
  second.Say("GET /x HTTP/1.1\r\n\r\n");
  EXPECT_THAT(second.ReadUntil("]"), HasSubstr("GET /x []"));
}

TEST_F(HttpServerTest, AForgottenRequestIsAnswered500) {
  HttpServer::Options options;
  options.handler = [](HttpRequest, std::shared_ptr<HttpExchange>) {};
  Start(options);
  RawClient client(port_);
  client.Say("GET / HTTP/1.0\r\n\r\n");
  EXPECT_THAT(client.ReadAll(), StartsWith("HTTP/1.1 500"));
}

TEST(MetricsTest, ThePageHasWhatWasCounted) {
  Counter counter;
  counter.Add(3);
  DurationHistogram histogram;
  histogram.Observe(absl::Microseconds(1500));
  histogram.Observe(absl::Seconds(100));
  MetricsRegistry registry;
  registry.AddCounter("a_total", "help", &counter);
  registry.AddGauge("b", "help", [] { return 0.5; });
  registry.AddGauge("unknown", "help", [] { return std::nullopt; });
  registry.AddHistogram("c_seconds", "help", &histogram);
  const std::string page = registry.Scrape();
  EXPECT_THAT(page, HasSubstr("# TYPE a_total counter\na_total 3\n"));
  EXPECT_THAT(page, HasSubstr("\nb 0.5\n"));
  EXPECT_THAT(page, testing::Not(HasSubstr("unknown")));
  EXPECT_THAT(page, HasSubstr("c_seconds_bucket{le=\"0.001\"} 0\n"));
  EXPECT_THAT(page, HasSubstr("c_seconds_bucket{le=\"0.002\"} 1\n"));
  EXPECT_THAT(page, HasSubstr("c_seconds_bucket{le=\"+Inf\"} 2\n"));
  EXPECT_THAT(page, HasSubstr("c_seconds_count 2\n"));
}

}  // namespace
}  // namespace holdfast::server
