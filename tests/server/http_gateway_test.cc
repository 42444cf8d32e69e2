// A whole client port over services that say what the test wants: gRPC and HTTP on one port, the
// JSON gateway's mapping, streams, health.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <string>

#include "etcd/rpc.grpc.pb.h"
#include "http_test_client.h"
#include "server/client_port.h"
#include "server/etcd_errors.h"
#include "server/gateway_codec.h"

namespace holdfast::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class FakeKv : public etcdserverpb::KV::CallbackService {
 public:
  grpc::ServerUnaryReactor* Range(grpc::CallbackServerContext* context,
                                  const etcdserverpb::RangeRequest* request,
                                  etcdserverpb::RangeResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (request->key().empty()) {
      reactor->Finish(ToGrpc(ErrEmptyKey()));
      return reactor;
    }
    const auto& metadata = context->client_metadata();
    const auto token = metadata.find("token");
    response->mutable_header()->set_cluster_id(14841639068965178418u);
    etcdserverpb::RangeResponse& answer = *response;
    mvccpb::KeyValue* kv = answer.add_kvs();
    kv->set_key(request->key());
    if (token != metadata.end()) kv->set_value({token->second.data(), token->second.size()});
    answer.set_count(request->limit());
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

// Answers each create; the stream goes on until the client leaves.
class FakeWatch : public etcdserverpb::Watch::CallbackService {
 public:
  grpc::ServerBidiReactor<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse>* Watch(
      grpc::CallbackServerContext*) override {
    class Stream
        : public grpc::ServerBidiReactor<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse> {
     public:
      explicit Stream(std::promise<void>* cancelled) : cancelled_(cancelled) {
        StartRead(&request_);
      }
      void OnReadDone(bool ok) override {
        if (!ok) return;
        response_.set_created(true);
        response_.set_watch_id(next_++);
        StartWrite(&response_);
      }
      void OnWriteDone(bool ok) override {
        if (ok) StartRead(&request_);
      }
      void OnCancel() override { Finish(grpc::Status::CANCELLED); }
      void OnDone() override {
        cancelled_->set_value();
        delete this;
      }

     private:
      std::promise<void>* const cancelled_;
      etcdserverpb::WatchRequest request_;
      etcdserverpb::WatchResponse response_;
      int64_t next_ = 0;
    };
    return new Stream(&cancelled_);
  }
  std::promise<void> cancelled_;
};

class ClientPortTest : public testing::Test {
 protected:
  ClientPortTest() {
    ClientPort::Options options;
    options.flag = "listen-client-urls";
    options.urls = {{.host = "127.0.0.1", .port = 0}};
    options.metrics_urls = {{.host = "127.0.0.1", .port = 0}};
    options.services = {&kv_, &watch_};
    options.max_request_bytes = 4096;
    options.health = {.alarms = [this] { return alarms_; },
                      .has_leader = [this] { return has_leader_.load(); },
                      .is_learner = [] { return false; },
                      .read =
                          [this](bool serializable, HealthSources::ReadDone done) {
                            std::move(done)(serializable ? absl::OkStatus() : linearizable_);
                          }};
    options.rpc_metrics = &rpcs_;
    options.metrics = &metrics_;
    rpcs_.Register(&metrics_);
    auto port = ClientPort::Open(options);
    EXPECT_TRUE(port.ok()) << port.status();
    port_ = *std::move(port);
  }
  uint16_t client_port() const { return port_->bound().front().port; }
  std::string Ask(const std::string& request) {
    RawClient client(client_port());
    // The answer ends with the connection.
    const size_t line = request.find("\r\n") + 2;
    client.Say(request.substr(0, line) + "Connection: close\r\n" + request.substr(line));
    return client.ReadAll();
  }
  std::string Get(const std::string& path) { return Ask("GET " + path + " HTTP/1.1\r\n\r\n"); }

  FakeKv kv_;
  FakeWatch watch_;
  AlarmSet alarms_;
  std::atomic<bool> has_leader_ = true;
  absl::Status linearizable_;
  RpcMetrics rpcs_{{"etcdserverpb.KV"}};
  MetricsRegistry metrics_;
  std::unique_ptr<ClientPort> port_;
};

TEST_F(ClientPortTest, GrpcAndJsonShareThePort) {
  const auto channel =
      grpc::CreateChannel(port_->bound().front().Address(), grpc::InsecureChannelCredentials());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  etcdserverpb::RangeRequest request;
  request.set_key("foo");
  etcdserverpb::RangeResponse response;
  const grpc::Status status =
      etcdserverpb::KV::NewStub(channel)->Range(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.kvs(0).key(), "foo");

  const std::string json =
      Ask(Post("/v3/kv/range", R"({"key":"Zm9v","limit":"7","unknown":1})",
               "Authorization: Bearer t.1\r\nGrpc-Metadata-X: y\r\nGrpc-Metadata-B\x01d: z\r\n"));
  EXPECT_THAT(json, StartsWith("HTTP/1.1 400")) << "not a header";
  const std::string answer =
      Ask(Post("/v3/kv/range", R"({"key":"Zm9v","limit":"7","unknown":1})",
               "Authorization: Bearer t.1\r\nGrpc-Metadata-B~d|: z\r\nGrpc-Metadata-a: \x80\r\n"));
  EXPECT_THAT(answer, HasSubstr(R"({"header":{"cluster_id":"14841639068965178418"},)"
                                R"("kvs":[{"key":"Zm9v","value":"dC4x"}],"count":"7"})"));
  EXPECT_EQ(rpcs_.Succeeded("/etcdserverpb.KV/Range"), 2u);
  EXPECT_THAT(Get("/metrics"),
              HasSubstr(R"(grpc_server_handled_total{grpc_code="OK",grpc_method="Range",)"
                        R"(grpc_service="etcdserverpb.KV",grpc_type="unary"} 2)"));
}

TEST_F(ClientPortTest, ErrorsAreGrpcGateways) {
  EXPECT_THAT(Ask(Post("/v3/kv/range", "")),
              HasSubstr(R"({"error":"etcdserver: key is not provided","code":3,)"
                        R"("message":"etcdserver: key is not provided"})"));
  EXPECT_THAT(Ask(Post("/v3/kv/range", R"({"key":)")), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(Get("/v3/kv/range"), StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(Ask(Post("/v3/kv/nothing", "{}")), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Ask(Post("/v3/lock/lock", "{}")), StartsWith("HTTP/1.1 501"));
  EXPECT_THAT(Ask(Post("/v3/lease/keepalive", "{}")), StartsWith("HTTP/1.1 501"));
  EXPECT_THAT(Ask(Post("/v3/watch", "5")), StartsWith("HTTP/1.1 400"));
}

TEST_F(ClientPortTest, AWatchIsAStreamOfLinesUntilTheClientLeaves) {
  {
    RawClient client(client_port());
    client.Say(Post("/v3/watch", R"({"create_request":{"key":"YQ=="}}{"create_request":{}})"));
    EXPECT_THAT(client.ReadUntil("}}\n"), HasSubstr(R"({"result":{"created":true}})"));
    EXPECT_THAT(client.ReadUntil("}}\n"),
                HasSubstr(R"({"result":{"watch_id":"1","created":true}})"));
  }
  EXPECT_EQ(watch_.cancelled_.get_future().wait_for(std::chrono::seconds(20)),
            std::future_status::ready);
}

TEST_F(ClientPortTest, HealthInEtcdsWords) {
  EXPECT_THAT(Get("/health"), HasSubstr(R"({"health":"true","reason":""})"));
  alarms_.Raise({7, AlarmType::kNoSpace});
  EXPECT_THAT(Get("/health"), HasSubstr(R"({"health":"false","reason":"ALARM NOSPACE"})"));
  EXPECT_THAT(Get("/health?exclude=NOSPACE"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Get("/readyz"), StartsWith("HTTP/1.1 200")) << "NOSPACE is no reason";
  has_leader_ = false;
  linearizable_ = ErrNoLeader();
  EXPECT_THAT(Get("/health?exclude=NOSPACE"), HasSubstr("RAFT NO LEADER"));
  EXPECT_THAT(Get("/health?exclude=NOSPACE&serializable=true"), StartsWith("HTTP/1.1 200"));
  const std::string readyz = Get("/readyz");
  EXPECT_THAT(readyz, StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(readyz, HasSubstr("[-]linearizable_read failed: etcdserver: no leader\n"));
  EXPECT_THAT(Get("/readyz?exclude=linearizable_read&verbose"), HasSubstr("[+]non_learner ok\nok"));
  EXPECT_THAT(Get("/livez/serializable_read"), HasSubstr("\r\n\r\nok\n"));
  EXPECT_THAT(Ask(Post("/health", "")), StartsWith("HTTP/1.1 405"));
}

TEST_F(ClientPortTest, AMetricsPortServesNothingElse) {
  RawClient client(port_->metrics_bound().front().port);
  client.Say("GET /version HTTP/1.1\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("}"), HasSubstr(R"({"etcdserver":"3.)"));
  client.Say("GET /v3/kv/range HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.ReadAll(), StartsWith("HTTP/1.1 404"));
}

TEST(JsonSplitterTest, ObjectsThatFollowEachOther) {
  JsonSplitter splitter(16);
  std::vector<std::string> objects;
  EXPECT_TRUE(splitter.Add(" {\"a\":\"}\\\"", &objects).ok());
  EXPECT_FALSE(splitter.End().ok());
  EXPECT_TRUE(splitter.Add("{\"} {}\n", &objects).ok());
  EXPECT_TRUE(splitter.End().ok());
  EXPECT_THAT(objects, ElementsAre("{\"a\":\"}\\\"{\"}", "{}"));
  EXPECT_FALSE(splitter.Add("x", &objects).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(splitter.Add("{" + std::string(16, ' '), &objects)));
}

}  // namespace
}  // namespace holdfast::server
