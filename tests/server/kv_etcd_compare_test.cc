// The same raw requests to a real etcd (where it is installed) and to ours: the same codes, texts
// and answers, headers' identities aside.
//
// Left out, because ours differs on purpose (docs/etcd-compatibility.md): unknown enum values
// (etcd 3.4 takes some and panics on others), a compaction at 0, holdfast's own limits.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "etcd/rpc.grpc.pb.h"
#include "kv_test_member.h"
#include "kv_test_util.h"

namespace holdfast::server {
namespace {

using etcdserverpb::KV;

constexpr char kEtcd[] = "/usr/bin/etcd";

// A port that was free a moment ago; etcd can not be asked which one it took.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  CHECK(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
  CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  close(fd);
  return ntohs(address.sin_port);
}

// An etcd of one member, killed at the end.
class Etcd {
 public:
  Etcd() {
    const std::string client = fmt::format("http://127.0.0.1:{}", client_port_);
    const std::string peer = fmt::format("http://127.0.0.1:{}", FreePort());
    std::vector<std::string> args = {kEtcd,
                                     "--data-dir=" + (dir_ / "data"),
                                     "--listen-client-urls=" + client,
                                     "--advertise-client-urls=" + client,
                                     "--listen-peer-urls=" + peer,
                                     "--initial-advertise-peer-urls=" + peer,
                                     "--initial-cluster=default=" + peer};
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    const std::string log = dir_ / "log";
    pid_ = fork();
    CHECK(pid_ >= 0);
    if (pid_ == 0) {
      if (freopen(log.c_str(), "w", stderr) == nullptr || dup2(2, 1) < 0) _exit(127);
      execv(kEtcd, argv.data());
      _exit(127);
    }
  }
  ~Etcd() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  std::shared_ptr<grpc::Channel> Connect() const {
    auto channel = grpc::CreateChannel(fmt::format("127.0.0.1:{}", client_port_),
                                       grpc::InsecureChannelCredentials());
    CHECK(channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(30)));
    return channel;
  }

 private:
  testing::TempDir dir_;
  const int client_port_ = FreePort();
  pid_t pid_ = -1;
};

template <class Request, class Response>
std::string Answer(KV::Stub& stub,
                   grpc::Status (KV::Stub::*method)(grpc::ClientContext*, const Request&,
                                                    Response*),
                   const std::string& text) {
  grpc::ClientContext context;
  Response response;
  const grpc::Status status = (stub.*method)(&context, testing::Parse<Request>(text), &response);
  if (!status.ok()) {
    return fmt::format("{} {}", static_cast<int>(status.error_code()), status.error_message());
  }
  EXPECT_NE(response.header().cluster_id(), 0u);
  EXPECT_NE(response.header().member_id(), 0u);
  EXPECT_NE(response.header().raft_term(), 0u);
  response.mutable_header()->clear_cluster_id();
  response.mutable_header()->clear_member_id();
  response.mutable_header()->clear_raft_term();
  return testing::Text(response);
}

std::string Ask(KV::Stub& stub, const std::string& request) {
  const size_t space = request.find(' ');
  const std::string method = request.substr(0, space);
  const std::string text = space == std::string::npos ? "" : request.substr(space);
  if (method == "range") return Answer(stub, &KV::Stub::Range, text);
  if (method == "put") return Answer(stub, &KV::Stub::Put, text);
  if (method == "delete") return Answer(stub, &KV::Stub::DeleteRange, text);
  if (method == "compact") return Answer(stub, &KV::Stub::Compact, text);
  CHECK_MSG(method == "txn", request);
  return Answer(stub, &KV::Stub::Txn, text);
}

const char* const kRequests[] = {
    "range key: 'a'",
    "range",
    "range key: 'a' range_end: '\\000' revision: 5",
    "put key: 'a' value: '1'",
    "put key: 'a' value: '2' prev_kv: true",
    "put key: 'b' value: '1'",
    "put key: 'b' value: '1' ignore_value: true",
    "put key: 'b' lease: 5 ignore_lease: true",
    "put key: 'nope' ignore_value: true",
    "put key: 'nope' value: 'x' ignore_lease: true",
    "put value: 'x'",
    "put value: 'x' ignore_value: true",
    "put key: 'b' ignore_value: true",
    "put key: 'b' value: 'z' ignore_lease: true ignore_value: false",
    "put key: 'b' value: '1' lease: 77",
    "put key: 'b' value: '1' lease: -1",
    "range key: 'a' range_end: '\\000' sort_target: VALUE",
    "range key: 'a' range_end: '\\000' sort_target: VALUE sort_order: DESCEND limit: 1",
    "range key: 'a' range_end: '\\000' limit: 1",
    "range key: 'a' range_end: '\\000' limit: -1",
    "range key: 'a' range_end: '\\000' limit: 1 keys_only: true",
    "range key: 'a' range_end: '\\000' limit: 1 count_only: true",
    "range key: 'a' range_end: '\\000' min_mod_revision: 4",
    "range key: 'a' range_end: '\\000' revision: 2",
    "range key: 'a' range_end: '\\000' revision: 99",
    "range key: 'a' range_end: '\\000' revision: -3",
    "range key: 'b' range_end: 'a'",
    "range key: 'b' range_end: 'b'",
    "range key: 'a' range_end: '\\000' revision: 99 serializable: true",
    "delete key: 'zz'",
    "delete",
    "delete key: 'b' range_end: 'a' prev_kv: true",
    "txn",
    "txn success { }",
    "txn failure { }",
    "txn compare { }",
    "txn compare { key: 'a' target: VERSION result: EQUAL version: 2 }",
    "txn compare { key: 'a' target: VERSION result: EQUAL }",
    "txn compare { key: 'a' target: VERSION result: GREATER value: 'x' }",
    "txn compare { key: 'a' target: VALUE result: EQUAL version: 2 }",
    "txn compare { key: 'a' target: VALUE result: EQUAL }",
    "txn compare { key: 'nokey' target: VALUE result: EQUAL value: '' }",
    "txn compare { key: 'nokey' target: VALUE result: NOT_EQUAL value: 'x' }",
    "txn compare { key: 'nokey' target: VALUE result: LESS value: 'x' }",
    "txn compare { key: 'nokey' target: VERSION result: LESS version: 1 }",
    "txn compare { key: 'nokey' target: LEASE result: EQUAL lease: 0 }",
    "txn compare { key: 'nokey' range_end: 'nokez' target: VALUE result: EQUAL value: 'q' }",
    "txn compare { key: 'nokey' range_end: 'nokez' target: VERSION result: EQUAL version: 7 }",
    "txn compare { key: 'nokey' range_end: 'nokez' target: VERSION result: EQUAL version: 0 }",
    "txn compare { key: 'a' range_end: 'c' target: VERSION result: GREATER version: 0 }",
    "txn compare { key: 'a' range_end: '\\000' target: VALUE result: GREATER value: '0' }",
    "txn compare { key: 'b' range_end: 'a' target: VERSION result: GREATER version: 3 }",
    "txn success { request_put { key: 'k' value: '1' } } success { request_put { key: 'k' value: "
    "'2' } }",
    "txn success { request_put { key: 'k' value: '1' } } success { request_delete_range { key: 'k' "
    "} }",
    "txn success { request_delete_range { key: 'k' } } success { request_put { key: 'k' value: '1' "
    "} }",
    "txn success { request_delete_range { key: 'j' range_end: 'l' } } success { request_put { key: "
    "'k' value: '1' } }",
    "txn success { request_delete_range { key: 'j' range_end: '\\000' } } success { request_put { "
    "key: 'k' value: '1' } }",
    "txn success { request_delete_range { key: 'j' range_end: 'k' } } success { request_put { key: "
    "'k' value: '1' } }",
    "txn success { request_delete_range { key: 'k' range_end: 'a' } } success { request_put { key: "
    "'k' value: '1' } }",
    "txn success { request_delete_range { key: 'z' range_end: 'a' } } success { request_put { key: "
    "'k' value: '1' } }",
    "txn success { request_delete_range { key: 'zz' range_end: 'zzz' } } success { "
    "request_delete_range { key: 'zz' range_end: 'zzz' } }",
    "txn success { request_put { key: 'k' value: '1' } } success { request_txn { success { "
    "request_put { key: 'k' value: '2' } } } }",
    "txn success { request_put { key: 'k' value: '1' } } success { request_txn { failure { "
    "request_put { key: 'k' value: '2' } } } }",
    "txn success { request_put { key: 'k' value: '1' } } success { request_txn { success { "
    "request_delete_range { key: 'k' } } } }",
    "txn success { request_delete_range { key: 'k' } } success { request_txn { success { "
    "request_put { key: 'k' value: '1' } } } }",
    "txn success { request_txn { success { request_delete_range { key: 'k' } } } } success { "
    "request_put { key: 'k' value: '1' } }",
    "txn success { request_txn { success { request_put { key: 'k' value: '2' } } failure { "
    "request_put { key: 'k' value: '3' } } } }",
    "txn success { request_txn { success { request_put { key: 'k' value: '2' } } failure { "
    "request_put { key: 'k' value: '3' } } } } success { request_txn { success { request_put { "
    "key: 'k' value: '2' } } } }",
    "txn success { request_txn { success { request_put { key: 'k' value: '2' } } failure { "
    "request_delete_range { key: 'k' } } } }",
    "txn success { request_txn { success { request_delete_range { key: 'k' } } } } success { "
    "request_txn { success { request_delete_range { key: 'k' } } } }",
    "txn success { request_txn { success { request_put { key: 'k' value: '2' } } } } success { "
    "request_txn { success { request_delete_range { key: 'k' } } } }",
    "txn success { request_txn { success { request_delete_range { key: 'k' } } } } success { "
    "request_txn { success { request_put { key: 'k' value: '2' } } } }",
    "txn success { request_put { key: 'k' value: '1' } } failure { request_put { key: 'k' value: "
    "'2' } }",
    "txn failure { request_put { key: 'k' value: '1' } } failure { request_put { key: 'k' value: "
    "'2' } }",
    "txn success { request_put { } }",
    "txn failure { request_range { } }",
    "txn success { request_txn { success { request_put { } } } }",
    "txn success { request_txn { failure { } } }",
    "txn success { request_txn { } }",
    "txn success { request_delete_range { } }",
    "txn success { request_put { key: 'nope' ignore_value: true } }",
    "txn failure { request_put { key: 'nope' ignore_value: true } }",
    "txn success { request_put { key: 'w' value: '1' } } success { request_put { key: 'nope' "
    "ignore_value: true } }",
    "txn success { request_put { key: 'w' value: '1' } } success { request_txn { success { "
    "request_put { key: 'w2' ignore_value: true } } } }",
    "txn success { request_put { key: 'w' value: '1' } } success { request_put { key: 'x' value: "
    "'1' lease: 9 } }",
    "txn success { request_put { key: 'w' value: '1' } } success { request_range { key: 'a' "
    "revision: 99 } }",
    "range key: 'w'",
    "txn success { request_put { key: 'w' value: '1' } } success { request_range { key: 'w' } }",
    "txn success { request_put { key: 'w' value: '2' } } success { request_range { key: 'w' "
    "revision: 3 } }",
    "txn success { request_put { key: 'w' value: '3' } } success { request_range { key: 'a' "
    "range_end: '\\000' limit: 1 } } success { request_txn { compare { key: 'w' target: VALUE "
    "result: EQUAL value: '3' } success { request_range { key: 'w' } } failure { request_range { "
    "key: 'a' } } } }",
    "txn success { request_put { key: 'w' value: '4' prev_kv: true } } success { "
    "request_delete_range { key: 'a' range_end: 'b' prev_kv: true } } success { request_range { "
    "key: 'a' range_end: '\\000' } }",
    "txn success { request_delete_range { key: 'none' } }",
    "txn success { request_range { key: 'w' } }",
    "txn success { request_range { key: 'w' serializable: true revision: 99 } }",
    "compact revision: -1",
    "compact revision: 999",
    "compact revision: 5",
    "compact revision: 5",
    "compact revision: 4",
    "range key: 'a' revision: 4",
    "range key: 'b' revision: 5",
    "compact revision: 6 physical: true",
    "txn success { request_put { key: 'w' value: '4' } } success { request_range { key: 'w' "
    "revision: 2 } }",
    "put key: 'a' value: '1'",
    "txn success { request_put { key: 'k' value: '1' } } success { request_txn { success { "
    "request_delete_range { key: 'a' range_end: '\\000' } } } }",
    "txn success { request_put { key: 'k' value: '1' } } success { request_delete_range { key: 'a' "
    "range_end: '\\000' } } success { request_range { key: 'k' } }",
    "range key: 'k'",
    "txn success { request_delete_range { key: 'a' range_end: '\\000' } } success { request_put { "
    "key: 'k' value: '9' prev_kv: true } } success { request_range { key: 'k' } }",
    "range key: 'k'",
    "txn success { request_range { key: 'k' keys_only: true } } success { request_put { key: 'q' "
    "value: '9' } } success { request_range { key: 'k' range_end: 'z' count_only: true } } success "
    "{ request_range { key: 'k' range_end: 'z' limit: 1 sort_order: DESCEND } }",
    "put key: 'k' value: 'x' lease: 3 ignore_value: true",
    "put key: 'new' value: 'x' lease: 3",
    "put key: 'new' lease: 3 ignore_value: true",
    "range key: 'k' min_create_revision: 3 max_mod_revision: 2",
    "range key: 'k' range_end: 'z' max_mod_revision: 5 limit: 1",
    "range key: 'k' range_end: 'z' sort_target: MOD sort_order: DESCEND",
    "range key: 'k' range_end: 'z' sort_target: MOD sort_order: NONE",
    "range key: 'k' range_end: 'z' sort_order: DESCEND limit: 1 keys_only: true",
    "txn compare { key: 'k' target: VALUE result: NOT_EQUAL value: 'zz' } compare { key: 'k' "
    "target: MOD result: LESS mod_revision: 900 } success { request_range { key: 'k' } }",
    "txn compare { key: 'k' range_end: 'z' target: CREATE result: GREATER create_revision: 900 } "
    "failure { request_range { key: 'k' } }",
};

TEST(KvEtcdCompare, SameAnswers) {
  if (access(kEtcd, X_OK) != 0) GTEST_SKIP() << kEtcd << " is not installed";
  testing::TestMember member{KvService::Options()};
  const Etcd etcd;
  const auto theirs = KV::NewStub(etcd.Connect());
  for (const char* request : kRequests) {
    EXPECT_EQ(Ask(*member.stub_, request), Ask(*theirs, request)) << request;
  }
}

}  // namespace
}  // namespace holdfast::server
