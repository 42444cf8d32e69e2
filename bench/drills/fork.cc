// Drill 15: two processes write on under one session: a clone of a machine, or fork().
#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <array>
#include <atomic>
#include <chrono>

#include "base/rng.h"
#include "base/strings.h"
#include "bench/drills/all.h"
#include "bench/drills/service.h"
#include "bench/drills/standard.h"
#include "etcd/rpc.grpc.pb.h"
#include "holdfast/client.grpc.pb.h"

namespace holdfast::bench {
namespace {

constexpr int kRounds = 100;
constexpr int kBefore = 3;  // writes of the one process, before it is cloned
constexpr int kAfter = 5;   // that each twin goes on to make
constexpr auto kTimeout = std::chrono::seconds(5);
constexpr absl::Duration kForkLimit = absl::Seconds(20);
constexpr std::string_view kForked = "SESSION_FORKED";
// Of a sequence that the other twin has used and put behind it.
constexpr std::string_view kAcknowledged = "SESSION_ACKNOWLEDGED";

// One of two clones: it has the session's number and its own counter, as its twin has.
class Twin {
 public:
  Twin(std::shared_ptr<grpc::Channel> channel, uint64_t session, uint64_t next, uint64_t salt)
      : stub_(etcdserverpb::KV::NewStub(channel)), session_(session), next_(next), salt_(salt) {}

  grpc::Status Put(const std::string& key, const std::string& value) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kTimeout);
    const uint64_t sequence = next_++;
    // Everything before it is acknowledged. The digest is of what is written, and by whom.
    context.AddMetadata("holdfast-session",
                        fmt::format("{:x}-{}-{}-{:x}", session_, sequence, sequence,
                                    std::hash<std::string>()(key + value) ^ salt_));
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_value(value);
    etcdserverpb::PutResponse response;
    return stub_->Put(&context, request, &response);
  }
  uint64_t next() const { return next_; }

 private:
  std::unique_ptr<etcdserverpb::KV::Stub> stub_;
  const uint64_t session_;
  uint64_t next_;
  const uint64_t salt_;
};

struct Counts {
  std::atomic<uint64_t> acked{0};
  std::atomic<uint64_t> forked{0};
  std::atomic<uint64_t> acknowledged{0};  // of the forked ones: told so, in place of FORKED
  std::atomic<uint64_t> other{0};
  std::atomic<uint64_t> swallowed{0};  // acknowledged, and not there
  std::atomic<uint64_t> leaked{0};     // refused as forked, and there
  std::atomic<uint64_t> rounds_told{0};
};

class Run {
 public:
  explicit Run(DrillRun& run) : run_(run), rng_(run.options().seed) {}

  absl::Status Play() {
    auto store = DrillStore::Start(run_, {});
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    run_.timeline().Begin("clones write on", true);
    for (int round = 0; round < kRounds; ++round) {
      if (run_.cancelled()) return absl::CancelledError("interrupted");
      if (absl::Status status = Round(round); !status.ok()) return status;
    }
    run_.timeline().Begin("fork()", true);
    if (absl::Status status = RealFork(); !status.ok()) return status;
    run_.timeline().End();
    Report();
    return absl::OkStatus();
  }

 private:
  std::shared_ptr<grpc::Channel> Channel() {
    const auto& endpoints = store_->direct();
    return grpc::CreateChannel(endpoints[rng_.Below(endpoints.size())],
                               grpc::InsecureChannelCredentials());
  }

  absl::Status Round(int round) {
    auto sessions = v1::Sessions::NewStub(Channel());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kTimeout);
    v1::SessionOpenResponse opened;
    const grpc::Status open = sessions->Open(&context, v1::SessionOpenRequest(), &opened);
    if (!open.ok()) return absl::UnavailableError(base::ToAbsl(open.error_message()));
    const std::string key = fmt::format("/fork/{:04}/", round);
    Twin first(Channel(), opened.session(), 1, rng_.Next());
    for (int i = 0; i < kBefore; ++i) {
      const grpc::Status put = first.Put(key + fmt::format("before-{}", i), "x");
      if (!put.ok()) return absl::UnavailableError(base::ToAbsl(put.error_message()));
    }
    // Cloned: from here on both have the same session and the same next sequence.
    Twin second(Channel(), opened.session(), first.next(), rng_.Next());
    std::array<Twin*, 2> twins = {&first, &second};
    std::array<std::vector<bool>, 2> acked;
    std::array<std::vector<bool>, 2> forked;
    std::array<std::thread, 2> threads;
    for (size_t t = 0; t < twins.size(); ++t) {
      threads[t] = std::thread([&, t] {
        for (int i = 0; i < kAfter; ++i) {
          const grpc::Status put = twins[t]->Put(key + fmt::format("twin-{}-{}", t, i), "x");
          const bool aborted = put.error_code() == grpc::StatusCode::ABORTED;
          const bool says_forked =
              aborted && put.error_message().find(kForked) != std::string::npos;
          const bool is_forked =
              says_forked ||
              (aborted && put.error_message().find(kAcknowledged) != std::string::npos);
          if (is_forked && !says_forked) ++counts_.acknowledged;
          acked[t].push_back(put.ok());
          forked[t].push_back(is_forked);
          ++(put.ok() ? counts_.acked : is_forked ? counts_.forked : counts_.other);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    bool told = false;
    for (size_t t = 0; t < twins.size(); ++t) {
      for (int i = 0; i < kAfter; ++i) {
        const auto read = store_->admin().Get(key + fmt::format("twin-{}-{}", t, i));
        if (!read.ok()) return read.status();
        const bool there = read->value.has_value();
        if (acked[t][size_t(i)] && !there) ++counts_.swallowed;
        if (forked[t][size_t(i)] && there) ++counts_.leaked;
        told = told || forked[t][size_t(i)];
      }
    }
    if (told) ++counts_.rounds_told;
    return absl::OkStatus();
  }

  // A process that has a Client forks, and both go on to use it.
  absl::Status RealFork() {
    ServiceTerms terms;
    terms.role = ServiceRole::kForks;
    terms.endpoints = store_->direct();
    terms.name = "forks";
    terms.prefix = kConfigPrefix;
    terms.key = "/fork/real";
    forks_ = std::make_unique<Service>(terms, nullptr, nullptr);
    if (absl::Status status = forks_->Start(); !status.ok()) return status;
    const absl::Status ended = run_.Await("parent and child of a fork() come to an end", kForkLimit,
                                          [&] { return !forks_->Running(); });
    if (absl::IsCancelled(ended)) return ended;
    fork_ended_ = ended.ok();
    forks_->Kill();
    return absl::OkStatus();
  }

  void Report() {
    run_.AddGoal("clones: rounds in which a twin was told so", counts_.rounds_told == kRounds,
                 fmt::format("{} of {}: {} x SESSION_FORKED, {} x SESSION_ACKNOWLEDGED",
                             counts_.rounds_told.load(), kRounds,
                             counts_.forked - counts_.acknowledged, counts_.acknowledged.load()),
                 "all");
    run_.AddGoal("clones: writes that were acknowledged and are not there", counts_.swallowed == 0,
                 fmt::format("{} of {}", counts_.swallowed.load(), counts_.acked.load()), "0");
    run_.AddGoal("clones: writes refused as forked that are there", counts_.leaked == 0,
                 fmt::format("{} of {}", counts_.leaked.load(), counts_.forked.load()), "0");
    run_.AddGoal("clones: other answers", counts_.other == 0,
                 fmt::format("{}", counts_.other.load()), "0");
    const ServiceReport report = forks_->report();
    run_.AddGoal("fork(): the parent writes on", report.last_error.find("parent OK") == 0,
                 report.last_error.empty() ? "nothing told" : report.last_error, "parent OK");
    run_.AddGoal("fork(): the child's write comes to an end, and nothing is swallowed",
                 fork_ended_ && ForkedChildIsHonest(report.failed),
                 fork_ended_ ? report.failed : "it hangs", "an error, or a write that is there");
  }

  bool ForkedChildIsHonest(const std::string& told) {
    if (told.find("child OK") != 0) return told.find("child ") == 0;
    const auto read = store_->admin().Get("/fork/real/child");
    return read.ok() && read->value.has_value();
  }

  DrillRun& run_;
  base::Rng rng_;
  std::unique_ptr<DrillStore> store_;
  std::unique_ptr<Service> forks_;
  Counts counts_;
  bool fork_ended_ = false;
};

}  // namespace

absl::Status Fork(DrillRun& run) { return Run(run).Play(); }

}  // namespace holdfast::bench
