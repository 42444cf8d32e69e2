// The same calls to etcd's own Election and Lock and to ours, over another etcd and in holdfastd:
// the same answers, texts and revisions, headers' identities aside.
//
// Codes: etcd's services are clients of their own server, and lose the code of its errors, which go
// out as Unknown. Ours keep the code under the same text. What is theirs alone ("election: ...")
// is Unknown in both.
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "concurrency_test_util.h"
#include "kv_test_util.h"

namespace holdfast::server {
namespace {

using testing::Client;

struct Result {
  int code = 0;
  std::string text;  // of the error, or the answer
};

template <class Request, class Response, class Stub>
Result Answer(Stub& stub,
              grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
              const std::string& text) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  Response response;
  const grpc::Status status = (stub.*method)(&context, testing::Parse<Request>(text), &response);
  if (!status.ok()) return {status.error_code(), status.error_message()};
  EXPECT_NE(response.header().cluster_id(), 0u);
  EXPECT_NE(response.header().member_id(), 0u);
  EXPECT_NE(response.header().raft_term(), 0u);
  response.mutable_header()->clear_cluster_id();
  response.mutable_header()->clear_member_id();
  response.mutable_header()->clear_raft_term();
  return {0, testing::Text(response)};
}

Result Ask(Client& client, const std::string& request) {
  const size_t space = request.find(' ');
  const std::string method = request.substr(0, space);
  const std::string text = space == std::string::npos ? "" : request.substr(space);
  using v3electionpb::Election;
  using v3lockpb::Lock;
  if (method == "put") return Answer(*client.kv, &etcdserverpb::KV::Stub::Put, text);
  if (method == "delete") return Answer(*client.kv, &etcdserverpb::KV::Stub::DeleteRange, text);
  if (method == "range") return Answer(*client.kv, &etcdserverpb::KV::Stub::Range, text);
  if (method == "grant")
    return Answer(*client.leases, &etcdserverpb::Lease::Stub::LeaseGrant, text);
  if (method == "campaign") return Answer(*client.election, &Election::Stub::Campaign, text);
  if (method == "proclaim") return Answer(*client.election, &Election::Stub::Proclaim, text);
  if (method == "leader") return Answer(*client.election, &Election::Stub::Leader, text);
  if (method == "resign") return Answer(*client.election, &Election::Stub::Resign, text);
  if (method == "lock") return Answer(*client.lock, &Lock::Stub::Lock, text);
  CHECK_MSG(method == "unlock", request);
  return Answer(*client.lock, &Lock::Stub::Unlock, text);
}

const char* const kRequests[] = {
    "grant TTL: 600 ID: 1000",
    "grant TTL: 600 ID: 1001",
    "leader name: 'e'",
    "leader",
    "proclaim",
    "resign",
    "proclaim leader { }",
    "resign leader { }",
    "proclaim leader { name: 'e' key: 'e/4d' rev: 5 lease: 77 }",
    "resign leader { name: 'e' key: 'e/4d' rev: 5 lease: 77 }",
    "campaign name: 'e' lease: 77",
    "campaign name: 'e' lease: -1",
    "lock name: 'l' lease: 77",
    "lock name: 'l' lease: -1",
    "unlock",
    "unlock key: 'l/4d'",
    "campaign name: 'e' lease: 1000 value: 'a'",
    "campaign name: 'e' lease: 1000 value: 'a'",
    "leader name: 'e'",
    "campaign name: 'e' lease: 1000 value: 'b'",
    "leader name: 'e'",
    "campaign name: 'e' lease: 1000",
    "leader name: 'e'",
    "proclaim leader { name: 'e' key: 'e/3e8' rev: 2 lease: 1000 } value: 'c'",
    "leader name: 'e'",
    "proclaim leader { name: 'e' key: 'e/3e8' rev: 3 lease: 1000 } value: 'd'",
    "proclaim leader { name: 'e' key: 'e/3e8' rev: 0 lease: 1000 } value: 'd'",
    "proclaim leader { name: 'e' key: 'e/3e8' rev: 2 lease: 77 } value: 'd'",
    "proclaim leader { key: 'e/3e8' rev: 2 lease: 1001 } value: 'moved'",
    "leader name: 'e'",
    "resign leader { name: 'e' key: 'e/3e8' rev: 9 lease: 1000 }",
    "leader name: 'e'",
    "resign leader { name: 'other' key: 'e/3e8' rev: 2 lease: 5 }",
    "leader name: 'e'",
    "resign leader { name: 'e' key: 'e/3e8' rev: 2 lease: 1000 }",
    "campaign name: 'e' lease: 1001 value: 'z'",
    "leader name: 'e'",
    "put key: 'e/zz' value: 'a stranger' ",
    "leader name: 'e'",
    "delete key: 'e/3e9'",
    "leader name: 'e'",
    "delete key: 'e/zz'",
    "leader name: 'e'",
    "lock name: 'l' lease: 1000",
    "lock name: 'l' lease: 1000",
    "put key: 'unrelated'",
    "lock name: 'l' lease: 1000",
    "range key: 'l/' range_end: 'l0'",
    "unlock key: 'l/3e8'",
    "unlock key: 'l/3e8'",
    "lock name: 'l' lease: 1001",
    "range key: 'l/' range_end: 'l0'",
    "lock lease: 1000",
    "range key: '/' range_end: '0'",
    "campaign lease: 1000 value: 'v'",
    "leader",
    "lock name: 'a/b' lease: 1000",
    "lock name: '\\377\\000' lease: 1000",
};

TEST(ConcurrencyCompare, SameAnswers) {
  if (access(testing::kEtcd, X_OK) != 0) GTEST_SKIP() << testing::kEtcd << " is not installed";
  const auto theirs = testing::StartEtcd();
  const auto under_ours = testing::StartEtcd();
  const auto etcd = testing::Dial(theirs->endpoint(0));
  const auto inner = testing::Dial(under_ours->endpoint(0));
  testing::OurServices ours(inner);
  Client etcd_client(etcd, etcd);
  Client our_client(inner, ours.channel());
  const auto whole = testing::StartHoldfastd();
  const auto holdfastd = testing::Dial(whole->endpoint(0));
  Client holdfastd_client(holdfastd, holdfastd);
  for (const char* request : kRequests) {
    const Result expected = Ask(etcd_client, request);
    const Result answer = Ask(our_client, request);
    const Result whole_answer = Ask(holdfastd_client, request);
    EXPECT_EQ(whole_answer.text, answer.text) << request;
    EXPECT_EQ(whole_answer.code, answer.code) << request;
    EXPECT_EQ(answer.text, expected.text) << request;
    if (expected.text.rfind("etcdserver: ", 0) == 0 && expected.code == grpc::StatusCode::UNKNOWN) {
      EXPECT_NE(answer.code, grpc::StatusCode::OK) << request;
    } else {
      EXPECT_EQ(answer.code, expected.code) << request;
    }
  }
}

}  // namespace
}  // namespace holdfast::server
