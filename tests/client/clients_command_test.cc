// holdfastctl clients: every endpoint is asked, and the newest word of each client counts.
#include "client/ctl/clients_command.h"

#include <memory>
#include <sstream>
#include <string>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "holdfast/client.grpc.pb.h"
#include "tests/client/fake_server.h"

namespace holdfast::ctl {
namespace {

using test::DeadEndpoint;
using test::FakeServer;
using testing::HasSubstr;

// A member that tells of these clients.
class FakeMirror : public v1::Mirror::Service {
 public:
  explicit FakeMirror(const std::string& text) {
    CHECK(google::protobuf::TextFormat::ParseFromString(text, &response_));
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    endpoint_ = fmt::format("127.0.0.1:{}", port);
  }
  const std::string& endpoint() const { return endpoint_; }

 private:
  grpc::Status Clients(grpc::ServerContext*, const v1::ClientsRequest*,
                       v1::ClientsResponse* response) override {
    *response = response_;
    return grpc::Status::OK;
  }

  v1::ClientsResponse response_;
  std::string endpoint_;
  std::unique_ptr<grpc::Server> server_;
};

class ClientsCommand : public testing::Test {
 protected:
  Io io() { return {in_, out_, err_}; }

  Common common_;
  std::istringstream in_;
  std::ostringstream out_, err_;
};

constexpr char kHere[] = R"(
  clients {
    report {
      client_id: "b2" name: "edge"
      prefixes { prefix: "/config/" link: "live" source: "mirror" revision: 7
                 refused_revision: 8 refused_why: "3 routes have no backend" }
      prefixes { prefix: "" link: "stale" source: "disk" revision: 5 }
    }
    peer: "10.0.0.7:51822" heard_ms_ago: 1234
  }
  clients { report { client_id: "a1" name: "edge" } peer: "10.0.0.6:1" heard_ms_ago: 50 })";
constexpr char kThere[] = R"(
  clients { report { client_id: "b2" name: "edge"
                     prefixes { prefix: "/config/" link: "expired" revision: 3 } }
            peer: "10.0.0.7:4" heard_ms_ago: 60000 }
  clients { report { client_id: "c3" name: "auth\nd" } peer: "10.0.0.8:1" heard_ms_ago: 99 })";

TEST_F(ClientsCommand, MergesWhatTheEndpointsKnowAndBelievesTheNewest) {
  FakeMirror here(kHere), there(kThere);
  common_.endpoints = {there.endpoint(), here.endpoint()};
  EXPECT_EQ(Clients(common_, io()), kOk);
  EXPECT_EQ(out_.str(),
            "c3, auth\\x0ad, 10.0.0.8:1, -, -, -, -, -, 0.1s\n"
            "a1, edge, 10.0.0.6:1, -, -, -, -, -, 0.1s\n"
            "b2, edge, 10.0.0.7:51822, /config/, live, mirror, 7, 8 (3 routes have no backend), "
            "1.2s\n"
            "b2, edge, 10.0.0.7:51822, (all keys), stale, disk, 5, -, 1.2s\n");
  EXPECT_EQ(err_.str(), "");
}

TEST_F(ClientsCommand, NamesWhoDidNotAnswerAndIsContentWithOne) {
  FakeMirror here(kHere);
  FakeServer etcd;
  const std::string dead = DeadEndpoint();
  common_.endpoints = {dead, etcd.endpoint(), here.endpoint()};
  common_.json = true;
  EXPECT_EQ(Clients(common_, io()), kOk);
  EXPECT_THAT(err_.str(), HasSubstr(dead + ": "));
  EXPECT_THAT(err_.str(), HasSubstr("it keeps no list of clients"));
  const auto json = nlohmann::json::parse(out_.str());
  ASSERT_EQ(json["clients"].size(), 2u);
  EXPECT_EQ(json["clients"][1]["prefixes"][0]["prefix"], "L2NvbmZpZy8=");
  EXPECT_EQ(json["clients"][1]["prefixes"][0]["refused_revision"], 8);
  EXPECT_FALSE(json["clients"][1]["prefixes"][1].contains("refused_revision"));
}

TEST_F(ClientsCommand, SaysSoIfNobodyAnswers) {
  common_.endpoints = {DeadEndpoint()};
  EXPECT_EQ(Clients(common_, io()), kUnavailable);
  EXPECT_THAT(err_.str(), HasSubstr("no endpoint answered"));
  EXPECT_EQ(out_.str(), "");
}

}  // namespace
}  // namespace holdfast::ctl
