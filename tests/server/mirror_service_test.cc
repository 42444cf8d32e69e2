// The Mirror service over a real in-process gRPC channel and a real store; only Raft is a fake.
#include "server/mirror_service.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "base/record_digest.h"
#include "holdfast/client.grpc.pb.h"
#include "kv_test_member.h"
#include "kv_test_util.h"

namespace holdfast::server {
namespace {

using ::testing::HasSubstr;
using testing::Parse;
using v1::LoadHead;

constexpr uint64_t kIncarnation = 77;

struct Loaded {
  grpc::Status status;
  std::string retry_after = "-";
  std::string incarnation = "-";
  LoadHead head;
  bool ended = false;  // by a response with `last`
  int parts = 0;
  std::vector<mvccpb::KeyValue> records;

  base::RecordDigest digest() const {
    base::RecordDigest sum;
    for (const mvccpb::KeyValue& kv : records) {
      sum.Add(base::DigestOfRecord(base::DigestOfContent(kv.key(), kv.value()),
                                   static_cast<uint64_t>(kv.create_revision()),
                                   static_cast<uint64_t>(kv.mod_revision()),
                                   static_cast<uint64_t>(kv.version()), kv.lease()));
    }
    return sum;
  }
};

std::string Trailer(const grpc::ClientContext& context, const char* key) {
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto found = trailers.find(key);
  return found == trailers.end() ? "-" : std::string(found->second.data(), found->second.size());
}

class MirrorServiceTest : public ::testing::Test, protected testing::TestMember {
 protected:
  MirrorServiceTest() : TestMember(KvService::Options()) {}
  ~MirrorServiceTest() override { Close(); }

  void Open(MirrorService::Options options = {}, uint64_t incarnation = kIncarnation) {
    if (options.part_bytes == MirrorService::Options().part_bytes) options.part_bytes = 64;
    if (incarnation != 0) {
      Apply(fmt::format("cluster_birth {{ incarnation: {} }}", incarnation));
    }
    service_ = MirrorService::Create(options,
                                     {.cluster_id = kCluster,
                                      .self = NodeId(kMember),
                                      .node = node_.get(),
                                      .machine = machine_.get(),
                                      .pipeline = pipeline_.get(),
                                      .admission = admission_.get()},
                                     admission_.get());
    grpc::ServerBuilder builder;
    builder.RegisterService(service_->service());
    mirror_server_ = builder.BuildAndStart();
    mirror_ = v1::Mirror::NewStub(mirror_server_->InProcessChannel({}));
  }
  void Close() {
    if (service_ == nullptr) return;
    service_->Stop();
    mirror_server_->Shutdown();
    mirror_server_.reset();
    service_.reset();
  }

  void Apply(const std::string& command) {
    node_->ApplyForeign(Parse<command::v1::Command>(command).SerializeAsString());
  }
  void Put(const std::string& key, const std::string& value) {
    Apply(fmt::format("put {{ key: '{}' value: '{}' }}", key, value));
  }
  void Compact(int64_t revision) { Apply(fmt::format("compaction {{ revision: {} }}", revision)); }
  int64_t revision() const { return machine_->applied_state().revision; }

  Loaded Load(const v1::LoadRequest& request, const char* load_class = nullptr) {
    Loaded loaded;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    if (load_class != nullptr) context.AddMetadata(kLoadClassKey, load_class);
    auto reader = mirror_->Load(&context, request);
    v1::LoadResponse response;
    while (reader->Read(&response)) {
      EXPECT_FALSE(loaded.ended) << "a response after the last one";
      EXPECT_EQ(response.has_head(), loaded.parts == 0);
      if (response.has_head()) loaded.head = response.head();
      for (auto& kv : *response.mutable_records()) loaded.records.push_back(std::move(kv));
      loaded.ended = response.last();
      ++loaded.parts;
    }
    loaded.status = reader->Finish();
    loaded.retry_after = Trailer(context, kRetryAfterKey);
    loaded.incarnation = Trailer(context, "holdfast-incarnation");
    return loaded;
  }
  v1::LoadRequest With(const std::string& prefix, int64_t revision,
                       const base::RecordDigest* digest = nullptr,
                       uint64_t incarnation = kIncarnation) {
    v1::LoadRequest request;
    request.set_prefix(prefix);
    request.set_revision(static_cast<uint64_t>(revision));
    request.set_incarnation(incarnation);
    if (digest != nullptr) request.set_digest(digest->ToBytes());
    return request;
  }

  std::unique_ptr<MirrorService> service_;
  std::unique_ptr<grpc::Server> mirror_server_;
  std::unique_ptr<v1::Mirror::Stub> mirror_;
};

TEST_F(MirrorServiceTest, WhoHasNothingGetsTheRecordsOfThePrefixInKeyOrderAtOneRevision) {
  Open();
  for (int i = 39; i >= 0; --i) Put(fmt::format("/c/{:02}", i), "a value of some length");
  Put("/b", "before");
  Put("/c0", "behind");
  const Loaded loaded = Load(With("/c/", 0));
  ASSERT_TRUE(loaded.status.ok()) << loaded.status.error_message();
  EXPECT_EQ(loaded.head.kind(), LoadHead::SNAPSHOT);
  EXPECT_EQ(loaded.head.revision(), static_cast<uint64_t>(revision()));
  EXPECT_EQ(loaded.head.incarnation(), kIncarnation);
  EXPECT_EQ(loaded.head.cluster_id(), kCluster);
  EXPECT_EQ(loaded.head.records(), 40u);
  EXPECT_EQ(loaded.head.bytes(), 40u * (5 + 22));
  EXPECT_TRUE(loaded.ended);
  EXPECT_GT(loaded.parts, 10);
  ASSERT_EQ(loaded.records.size(), 40u);
  for (int i = 0; i < 40; ++i) {
    const mvccpb::KeyValue& kv = loaded.records[static_cast<size_t>(i)];
    EXPECT_EQ(kv.key(), fmt::format("/c/{:02}", i));
    EXPECT_EQ(kv.mod_revision(), 2 + 39 - i);
    EXPECT_EQ(kv.version(), 1);
  }
}

TEST_F(MirrorServiceTest, TheEmptyPrefixIsAllKeysAndAPrefixCanBeWithoutKeys) {
  Open();
  Put("a", "1");
  Put("\\377\\377", "2");
  EXPECT_EQ(Load(With("", 0)).records.size(), 2u);
  const Loaded last = Load(With("\xff", 0));
  ASSERT_EQ(last.records.size(), 1u);
  EXPECT_TRUE(last.ended);
  const Loaded none = Load(With("nothing/", 0));
  ASSERT_TRUE(none.status.ok());
  EXPECT_EQ(none.head.kind(), LoadHead::SNAPSHOT);
  EXPECT_EQ(none.parts, 1);
  EXPECT_TRUE(none.ended);
  EXPECT_EQ(none.head.records(), 0u);
}

TEST_F(MirrorServiceTest, ResumesExactlyWhileAWatchCouldGoOn) {
  Open();
  for (int i = 0; i < 10; ++i) Put("/c/a", fmt::format("{}", i));  // revisions 2 to 11
  const Loaded old = Load(With("/c/", 3));
  ASSERT_TRUE(old.status.ok());
  EXPECT_EQ(old.head.kind(), LoadHead::RESUME);
  EXPECT_EQ(old.head.revision(), 3u);
  EXPECT_EQ(old.head.incarnation(), kIncarnation);
  EXPECT_TRUE(old.ended);
  EXPECT_EQ(Load(With("/c/", 11)).head.kind(), LoadHead::RESUME);
  Compact(6);
  // A watch from 6 on is given the events of 6 too.
  EXPECT_EQ(Load(With("/c/", 5)).head.kind(), LoadHead::RESUME);
  EXPECT_EQ(Load(With("/c/", 4)).head.kind(), LoadHead::SNAPSHOT);
  EXPECT_EQ(service_->counters().resumed.value(), 3u);
  EXPECT_EQ(service_->counters().snapshots.value(), 1u);
}

TEST_F(MirrorServiceTest, AMemberBehindTheCallerSaysSo) {
  Open();
  Put("/c/a", "1");
  const Loaded ahead = Load(With("/c/", 3));
  EXPECT_EQ(ahead.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(ahead.status.error_message(), HasSubstr("ask another member"));
  EXPECT_EQ(ahead.incarnation, "4d");
  // Of another incarnation the revision means nothing.
  const Loaded foreign = Load(With("/c/", 99, nullptr, 5));
  EXPECT_EQ(foreign.head.kind(), LoadHead::SNAPSHOT);
  EXPECT_EQ(foreign.head.revision(), 2u);
}

TEST_F(MirrorServiceTest, TheSameRecordsAreUnchangedWhateverElseWasWrittenAndCompacted) {
  Open();
  for (int i = 0; i < 10; ++i) Put(fmt::format("/c/{}", i), "value");
  Apply("delete_range { key: '/c/3' }");
  const Loaded first = Load(With("/c/", 0));
  const base::RecordDigest digest = first.digest();
  for (int i = 0; i < 10; ++i) Put("/other", "x");
  Compact(revision());
  const auto at = static_cast<int64_t>(first.head.revision());
  const Loaded again = Load(With("/c/", at, &digest));
  ASSERT_TRUE(again.status.ok());
  EXPECT_EQ(again.head.kind(), LoadHead::UNCHANGED);
  EXPECT_EQ(again.head.revision(), static_cast<uint64_t>(revision()));
  EXPECT_TRUE(again.ended);
  EXPECT_TRUE(again.records.empty());
  // Also for a copy of another life of the store.
  EXPECT_EQ(Load(With("/c/", at, &digest, 5)).head.kind(), LoadHead::UNCHANGED);
  Put("/c/5", "value");  // the same content, another revision
  Compact(revision());
  const Loaded changed = Load(With("/c/", at, &digest));
  EXPECT_EQ(changed.head.kind(), LoadHead::SNAPSHOT);
  EXPECT_EQ(changed.records.size(), 9u);
  EXPECT_EQ(service_->counters().unchanged.value(), 2u);
}

TEST_F(MirrorServiceTest, OneScanServesManyAlsoWhileOthersWrite) {
  MirrorService::Options options;
  options.keep_summaries = absl::Minutes(10);
  Open(options);
  for (int i = 0; i < 10; ++i) Put(fmt::format("/c/{}", i), "value");
  const Loaded first = Load(With("/c/", 0));
  const base::RecordDigest digest = first.digest();
  for (int i = 0; i < 20; ++i) {
    Put("/other", "x");
    const Loaded loaded = Load(With("/c/", 9, &digest, 5));
    EXPECT_EQ(loaded.head.kind(), LoadHead::UNCHANGED);
    EXPECT_EQ(loaded.head.revision(), first.head.revision());
  }
  EXPECT_EQ(service_->scans(), 1u);
  // One that is too old to be watched on from, or older than the caller's copy, is of no use.
  Put("/c/1", "new");
  Compact(revision());
  const Loaded behind = Load(With("/c/", 9, &digest));
  EXPECT_EQ(behind.head.kind(), LoadHead::SNAPSHOT);
  EXPECT_EQ(behind.head.revision(), static_cast<uint64_t>(revision()));
  EXPECT_EQ(service_->scans(), 2u);
}

TEST_F(MirrorServiceTest, ManyWhoAskAtOnceShareAScan) {
  MirrorService::Options options;
  options.keep_summaries = absl::Minutes(10);
  Open(options);
  for (int i = 0; i < 500; ++i) Put(fmt::format("/c/{}", i), std::string(100, 'v'));
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&] {
      const Loaded loaded = Load(With("/c/", 0), "auth");
      if (loaded.status.ok() && loaded.records.size() == 500) ++good;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 16);
  EXPECT_EQ(service_->scans(), 1u);
}

TEST_F(MirrorServiceTest, WhatIsWrittenWhileACopyIsSentIsNotInIt) {
  Open();
  for (int i = 0; i < 2000; ++i) Put(fmt::format("/c/{:04}", i), std::string(100, 'x'));
  grpc::ClientContext context;
  auto reader = mirror_->Load(&context, With("/c/", 0));
  v1::LoadResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.head().revision(), 2001u);
  for (int i = 0; i < 2000; i += 100) Put(fmt::format("/c/{:04}", i), "new");
  Put("/c/9999", "new");
  int records = 0;
  while (reader->Read(&response)) {
    for (const auto& kv : response.records()) EXPECT_EQ(kv.value().size(), 100u) << kv.key();
    records += response.records_size();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(records, 2000);
}

TEST_F(MirrorServiceTest, ACompactionOrAFenceEndsACopyUnderWayAndALaterCallSaysWhy) {
  Open();
  for (int i = 0; i < 2000; ++i) Put(fmt::format("/c/{:04}", i), std::string(100, 'x'));
  {
    grpc::ClientContext context;
    auto reader = mirror_->Load(&context, With("/c/", 0));
    v1::LoadResponse response;
    ASSERT_TRUE(reader->Read(&response));
    Put("/c/0000", "new");
    Compact(revision());
    while (reader->Read(&response)) EXPECT_FALSE(response.last());
    const grpc::Status status = reader->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
    EXPECT_THAT(status.error_message(), HasSubstr("load again"));
  }
  {
    grpc::ClientContext context;
    auto reader = mirror_->Load(&context, With("/c/", 0));
    v1::LoadResponse response;
    ASSERT_TRUE(reader->Read(&response));
    admission_->Fence();
    while (reader->Read(&response)) EXPECT_FALSE(response.last());
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DATA_LOSS);
  }
  EXPECT_EQ(Load(With("/c/", 5)).status.error_code(), grpc::StatusCode::DATA_LOSS);
}

TEST_F(MirrorServiceTest, WorksWithoutALeaderButNotWithoutDataOfTheCluster) {
  Open({}, /*incarnation=*/0);
  const Loaded empty = Load(With("/c/", 0));
  EXPECT_EQ(empty.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(empty.status.error_message(), HasSubstr("no data of the cluster yet"));
  Apply("cluster_birth { incarnation: 77 }");
  Put("/c/a", "1");
  node_->set_leader(NodeId(), Term(4), absl::Seconds(100));
  node_->set_reads(testing::FakeNode::Mode::kRefuse);
  EXPECT_EQ(Load(With("/c/", 0)).records.size(), 1u);
  EXPECT_EQ(Load(With("/c/", 2)).head.kind(), LoadHead::RESUME);
}

TEST_F(MirrorServiceTest, RefusesNonsense) {
  Open();
  v1::LoadRequest request = With("/c/", 0);
  request.set_digest("short");
  EXPECT_EQ(Load(request).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Load(With(std::string(70'000, 'x'), 0)).status.error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

// So many copies are begun and not read on: each holds its place.
struct Holder {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::LoadResponse>> reader;
  v1::LoadResponse response;
};

TEST_F(MirrorServiceTest, WhoFindsNoPlaceIsToldWhenToComeAgainAndAuthFindsOne) {
  MirrorService::Options options;
  options.limits.snapshots = 4;
  options.limits.bytes_per_second = 0;
  Open(options);
  for (int i = 0; i < 2000; ++i) Put(fmt::format("/c/{:04}", i), std::string(1000, 'x'));
  std::vector<std::unique_ptr<Holder>> holders;
  const auto hold = [&](const char* load_class) {
    Holder& holder = *holders.emplace_back(std::make_unique<Holder>());
    holder.context.AddMetadata(kLoadClassKey, load_class);
    holder.reader = mirror_->Load(&holder.context, With("/c/", 0));
    return holder.reader->Read(&holder.response);
  };
  ASSERT_TRUE(hold("config"));
  const Loaded refused = Load(With("/c/", 0));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("try again in"));
  const int ms = std::stoi(refused.retry_after);
  EXPECT_GE(ms, 500);
  EXPECT_LT(ms, 2000);
  EXPECT_EQ(service_->counters().refused[1].value(), 1u);
  // Going on where one was costs no place, and auth has places of its own.
  EXPECT_EQ(Load(With("/c/", revision())).head.kind(), LoadHead::RESUME);
  ASSERT_TRUE(hold("auth"));
  ASSERT_TRUE(hold("auth"));
  ASSERT_TRUE(hold("auth"));
  EXPECT_FALSE(hold("auth"));
  EXPECT_EQ(service_->snapshots_under_way(), 4);
  // A place is free again when a copy is whole, or its reader gone.
  for (auto& holder : holders) holder->context.TryCancel();
  for (auto& holder : holders) {
    while (holder->reader->Read(&holder->response)) {
    }
    holder->reader->Finish();
  }
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (service_->snapshots_under_way() > 0) {
    ASSERT_LT(std::chrono::steady_clock::now(), give_up);
    std::this_thread::yield();
  }
}

TEST_F(MirrorServiceTest, AReaderThatTakesNothingIsCutOff) {
  MirrorService::Options options;
  options.stall_max = absl::Milliseconds(100);
  options.part_bytes = size_t{1} << 20;
  Open(options);
  for (int i = 0; i < 300; ++i) Put(fmt::format("/c/{:04}", i), std::string(100'000, 'x'));
  Holder holder;
  holder.context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  holder.reader = mirror_->Load(&holder.context, With("/c/", 0));
  ASSERT_TRUE(holder.reader->Read(&holder.response));
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (service_->snapshots_under_way() > 0) {
    ASSERT_LT(std::chrono::steady_clock::now(), give_up);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  while (holder.reader->Read(&holder.response)) {
  }
  EXPECT_EQ(holder.reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(MirrorServiceTest, StopEndsWhatIsUnderWay) {
  MirrorService::Options options;
  options.limits.bytes_per_second = 64 << 10;  // the copy would take minutes
  Open(options);
  for (int i = 0; i < 200; ++i) Put(fmt::format("/c/{:04}", i), std::string(50'000, 'x'));
  Holder holder;
  holder.reader = mirror_->Load(&holder.context, With("/c/", 0));
  ASSERT_TRUE(holder.reader->Read(&holder.response));
  service_->Stop();
  while (holder.reader->Read(&holder.response)) EXPECT_FALSE(holder.response.last());
  EXPECT_THAT(holder.reader->Finish().error_message(), HasSubstr("server stopped"));
  EXPECT_THAT(Load(With("/c/", 0)).status.error_message(), HasSubstr("server stopped"));
  Close();
}

TEST_F(MirrorServiceTest, TellsWhatClientsReportedAndCountsIt) {
  Open();
  grpc::ClientContext context;
  v1::ReportResponse taken;
  ASSERT_TRUE(mirror_
                  ->Report(&context,
                           Parse<v1::ReportRequest>(
                               "client_id: 'c1' name: 'edge' prefixes { prefix: '/c/' link: 'live' "
                               "revision: 5 refused_revision: 6 refused_why: 'too large' }"),
                           &taken)
                  .ok());
  admission_->Fence();  // what clients say is told in any state
  grpc::ClientContext asking;
  v1::ClientsResponse response;
  ASSERT_TRUE(mirror_->Clients(&asking, {}, &response).ok());
  ASSERT_EQ(response.clients_size(), 1);
  EXPECT_EQ(response.clients(0).report().prefixes(0).refused_why(), "too large");
  EXPECT_EQ(response.header().member_id(), kMember);
  MetricsRegistry registry;
  service_->RegisterMetrics(&registry);
  const std::string page = registry.Scrape();
  EXPECT_THAT(page, HasSubstr("holdfast_clients{link=\"live\"} 1"));
  EXPECT_THAT(page, HasSubstr("holdfast_client_refusals_total 1"));
  EXPECT_THAT(page, HasSubstr("holdfast_mirror_loads_total{kind=\"resume\"} 0"));
  EXPECT_THAT(page, HasSubstr("holdfast_mirror_load_refused_total{class=\"auth\"} 0"));
}

}  // namespace
}  // namespace holdfast::server
