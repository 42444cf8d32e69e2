// Replay: 12 June 2025. A store without quorum, then gone, for what was 2 h 36 min; beside it, the
// same reads of plain clients on etcd.
#include "bench/drills/june_12.h"

#include <fmt/format.h>

#include <algorithm>

#include "bench/drills/all.h"
#include "bench/drills/june_12_replay.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kOutageInLife = absl::Minutes(156);
constexpr absl::Duration kOutage = absl::Seconds(52);
constexpr absl::Duration kCalm = absl::Seconds(8);
constexpr absl::Duration kBack = absl::Seconds(12);
constexpr size_t kProcesses = 6;      // clients, each with all the copies
constexpr double kMirrorReads = 500;  // a second and product
constexpr double kCalls = 10;         // a second and product, of what goes to the store
constexpr double kWrites = 20;
constexpr absl::Duration kRegistrationDeadline = absl::Seconds(2);

}  // namespace

absl::Status June12Replay::Play() {
  const absl::Duration asked = run_.options().drill.length;
  outage_ = asked > absl::ZeroDuration() ? asked : kOutage;
  run_.SetFactor(
      absl::FDivDuration(kOutageInLife, outage_),
      fmt::format(
          "{:.0f} times as fast as life: 2 h 36 min of outage in {}, identity is "
          "marked after {:.2f} s (5 min) and would close after {:.1f} s (4 h), "
          "sessions close after {:.1f} s (1 h)",
          absl::FDivDuration(kOutageInLife, outage_), absl::FormatDuration(outage_),
          absl::ToDoubleSeconds(outage_) * absl::FDivDuration(kIdentityReduced, kOutageInLife),
          absl::ToDoubleSeconds(outage_) * absl::FDivDuration(kIdentityBound, kOutageInLife),
          absl::ToDoubleSeconds(outage_) * absl::FDivDuration(kSessionBound, kOutageInLife)));
  for (const auto step : {&June12Replay::StartStore, &June12Replay::StartClients,
                          &June12Replay::Outage, &June12Replay::Return}) {
    if (absl::Status status = (this->*step)(); !status.ok()) return status;
  }
  StopAll();
  Report();
  return absl::OkStatus();
}

absl::Status June12Replay::StartStore() {
  auto store = DrillStore::Start(run_, {});
  if (!store.ok()) return store.status();
  store_ = *std::move(store);
  if (absl::Status status = store_->Fill(); !status.ok()) return status;
  for (const char* const prefix : {kSessionPrefix, kTokenPrefix}) {
    if (absl::Status status = store_->FillPrefix(prefix, 50, 300); !status.ok()) return status;
    const auto put = store_->admin().Put(std::string(prefix) + "1", "1");
    if (!put.ok()) return put.status();
  }
  if (!run_.options().drill.beside_etcd) return absl::OkStatus();
  auto etcd = EtcdTown::Start(run_, kCalls);
  if (absl::IsInvalidArgument(etcd.status())) {
    run_.Note("no etcd here: its columns are left out");
    return absl::OkStatus();
  }
  if (!etcd.ok()) return etcd.status();
  etcd_ = *std::move(etcd);
  return absl::OkStatus();
}

absl::Status June12Replay::StartClients() {
  auto writers = Client::Open({.endpoints = store_->direct(), .seed = run_.options().seed + 1});
  if (!writers.ok()) return writers.status();
  writers_client_ = *std::move(writers);
  for (const auto& [need, key] : {std::pair{Need::kConfig, std::string(kConfigKey)},
                                  {Need::kIdentity, std::string(kAuthKey)},
                                  {Need::kSession, std::string(kSessionPrefix) + "1"}}) {
    histories_[need] = run_.oracle().AddHistory();
    writers_.push_back(std::make_unique<Writer>(
        writers_client_.get(), key, kWrites, run_.timeline().AddTrack("writer"), histories_[need]));
  }
  for (size_t i = 0; i < kProcesses; ++i) {
    ClientOptions options = store_->ServiceOptions(
        fmt::format("process-{}", i),
        {{kConfigPrefix, Policy::FailStatic()},
         {kAuthPrefix, Policy::FailClosedAfter(run_.Played(kIdentityBound))
                           .ReducedAfter(run_.Played(kIdentityReduced))},
         {kSessionPrefix, Policy::FailClosedAfter(run_.Played(kSessionBound))},
         {kTokenPrefix, Policy::NeverStale()}});
    options.seed = run_.options().seed + 10 + i;
    auto client = Client::Open(std::move(options));
    if (!client.ok()) return client.status();
    clients_.push_back(*std::move(client));
  }
  const absl::Status live =
      run_.Await("all copies are live", kLiveLimit, [&] { return AllLive(); });
  if (!live.ok()) return live;
  rate_ = std::make_unique<RequestRate>(store_->direct(), &run_.timeline());
  for (size_t i = 0; i < ProductsOfJune12().size(); ++i) StartProduct(i);
  return absl::OkStatus();
}

bool June12Replay::AllLive() const {
  return std::ranges::all_of(clients_, [](const auto& client) {
    return client->state(kConfigPrefix) == Link::kLive &&
           client->state(kAuthPrefix) == Link::kLive &&
           client->state(kSessionPrefix) == Link::kLive;
  });
}

void June12Replay::StartProduct(size_t number) {
  const Product& product = ProductsOfJune12()[number];
  Client* const client = clients_[number % clients_.size()].get();
  Track* const track = run_.timeline().AddTrack(product.name);
  tracks_.push_back(track);
  const auto mirror = [&](const char* prefix, const std::string& key) {
    readers_.push_back(std::make_unique<MirrorReader>(
        client->mirror(prefix), key, kMirrorReads, track,
        run_.oracle().AddReader(histories_.at(product.need), product.name)));
  };
  switch (product.need) {
    case Need::kConfig:
      return mirror(kConfigPrefix, kConfigKey);
    case Need::kIdentity:
      return mirror(kAuthPrefix, kAuthKey);
    case Need::kSession:
      return mirror(kSessionPrefix, std::string(kSessionPrefix) + "1");
    case Need::kToken:
      // Asked for with the loosest ladder there is: the policy must not give in to it.
      callers_.push_back(std::make_unique<Caller>(kCalls, track, [client](int64_t) {
        return client
            ->Get(std::string(kTokenPrefix) + "1",
                  ReadOptions::Linearizable().OrStale(absl::InfiniteDuration()))
            .status();
      }));
      return;
    case Need::kRegistration:
      registrations_.push_back(
          std::make_unique<Writer>(client, fmt::format("/registrations/{}", number), kCalls, track,
                                   nullptr, kRegistrationDeadline));
      return;
  }
}

absl::Status June12Replay::Outage() {
  Timeline& timeline = run_.timeline();
  timeline.Begin("all well");
  begin_ns_ = Timeline::Now();
  if (absl::Status status = run_.Sleep(std::min(kCalm, outage_)); !status.ok()) return status;
  timeline.Begin("no quorum", true);
  if (absl::Status status = store_->KillTwo(); !status.ok()) return status;
  if (etcd_ != nullptr) {
    if (absl::Status status = etcd_->store().KillTwo(); !status.ok()) return status;
  }
  fault_ns_ = Timeline::Now();
  if (absl::Status status = run_.Sleep(outage_ / 3); !status.ok()) return status;
  timeline.Begin("every server gone", true);
  store_->KillAll();
  if (etcd_ != nullptr) etcd_->store().KillAll();
  gone_ns_ = Timeline::Now();
  if (absl::Status status = run_.Sleep(outage_ * 2 / 3); !status.ok()) return status;
  timeline.Begin("back");
  back_ns_ = Timeline::Now();
  return absl::OkStatus();
}

absl::Status June12Replay::Return() {
  if (absl::Status status = store_->BringBack(); !status.ok()) return status;
  if (etcd_ != nullptr) {
    if (absl::Status status = etcd_->store().BringBack(); !status.ok()) return status;
  }
  const int64_t leader_ns = Timeline::Now();
  const absl::Status live =
      run_.Await("all copies are live again", kLiveLimit, [&] { return AllLive(); });
  if (absl::IsCancelled(live)) return live;
  if (live.ok()) live_s_ = double(Timeline::Now() - leader_ns) * 1e-9;
  if (absl::Status status = run_.Sleep(std::min(kBack, outage_)); !status.ok()) return status;
  run_.timeline().End();
  end_ns_ = Timeline::Now();
  return absl::OkStatus();
}

void June12Replay::StopAll() {
  for (const auto& writer : writers_) writer->Stop();
  for (const auto& writer : registrations_) writer->Stop();
  for (const auto& reader : readers_) reader->Stop();
  for (const auto& caller : callers_) caller->Stop();
  if (etcd_ != nullptr) etcd_->Stop();
  rate_->Stop();
}

const std::vector<Product>& ProductsOfJune12() {
  static const auto& products =
      *new std::vector<Product>{{"Access", Need::kIdentity},
                                {"Gateway", Need::kConfig},
                                {"WARP registration", Need::kRegistration},
                                {"Turnstile", Need::kToken},
                                {"dashboard", Need::kSession},
                                {"Workers AI", Need::kIdentity},
                                {"AutoRAG", Need::kConfig},
                                {"AI Gateway", Need::kConfig},
                                {"Images uploads", Need::kToken},
                                {"Stream", Need::kIdentity},
                                {"Zaraz", Need::kConfig},
                                {"Pages builds", Need::kRegistration},
                                {"Queues", Need::kConfig},
                                {"Durable Objects", Need::kConfig}};
  return products;
}

std::string NeedText(Need need) {
  switch (need) {
    case Need::kConfig:
      return "config";
    case Need::kIdentity:
      return "identity, 4 h";
    case Need::kSession:
      return "sessions, 1 h";
    case Need::kToken:
      return "single-use tokens";
    case Need::kRegistration:
      break;
  }
  return "writes";
}

absl::Status June12(DrillRun& run) { return June12Replay(run).Play(); }

}  // namespace holdfast::bench
