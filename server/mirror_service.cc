#include "server/mirror_service.h"

#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "holdfast/client.grpc.pb.h"
#include "server/etcd_errors.h"
#include "server/load_stream.h"
#include "server/ticker.h"

namespace holdfast::server {
namespace {

constexpr absl::Duration kStallCheck = absl::Seconds(1);

// gRPC's "ipv4:10.0.0.1:4711" and "ipv6:%5B::1%5D:4711" as people write them.
std::string AddressOf(const std::string& peer) {
  std::string address = peer.substr(peer.find(':') + 1);
  for (const auto& [code, bracket] : {std::pair{"%5B", "["}, std::pair{"%5D", "]"}}) {
    if (const size_t at = address.find(code); at != std::string::npos) {
      address.replace(at, 3, bracket);
    }
  }
  return address;
}

class MirrorServiceImpl : public MirrorService, public v1::Mirror::CallbackService {
 public:
  MirrorServiceImpl(const Options& options, const MemberView& member, const Admission* admission)
      : host_(options, member, admission),
        clients_(options.clients),
        ticker_(kStallCheck, [this] { host_.CutStalled(LoadHost::Now()); }) {}
  ~MirrorServiceImpl() override { Stop(); }

  grpc::Service* service() override { return this; }
  const Counters& counters() const override { return host_.counters; }
  uint64_t scans() const override { return host_.summaries.scans(); }
  int snapshots_under_way() const override {
    return host_.WithAdmission([](LoadAdmission& admission) {
      return admission.snapshots(LoadClass::kAuth) + admission.snapshots(LoadClass::kConfig) +
             admission.snapshots(LoadClass::kBulk);
    });
  }
  void RegisterMetrics(MetricsRegistry* registry) override;

  void Stop() override {
    ticker_.Stop();
    host_.Stop();
  }

  grpc::ServerWriteReactor<v1::LoadResponse>* Load(grpc::CallbackServerContext* context,
                                                   const v1::LoadRequest* request) override {
    return new LoadStream(context, request, &host_);
  }

  grpc::ServerUnaryReactor* Report(grpc::CallbackServerContext* context,
                                   const v1::ReportRequest* request, v1::ReportResponse*) override {
    absl::Status status = host_.admission->Admit(*context, Admission::Call::kLocal);
    if (status.ok()) status = clients_.Take(*request, AddressOf(context->peer()));
    return FinishWith(context, ToGrpc(status));
  }

  grpc::ServerUnaryReactor* Clients(grpc::CallbackServerContext* context, const v1::ClientsRequest*,
                                    v1::ClientsResponse* response) override {
    const absl::Status status = host_.admission->Admit(*context, Admission::Call::kLocal);
    if (status.ok()) {
      etcdserverpb::ResponseHeader* header = response->mutable_header();
      header->set_cluster_id(host_.member.cluster_id);
      header->set_member_id(host_.member.self.value);
      header->set_raft_term(host_.member.node->status().term.value);
      header->set_revision(host_.member.machine->applied_state().revision);
      clients_.Fill(response);
    }
    return FinishWith(context, ToGrpc(status));
  }

 private:
  mutable LoadHost host_;  // its lock is in it
  ClientTable clients_;
  Ticker ticker_;
};

void MirrorServiceImpl::RegisterMetrics(MetricsRegistry* registry) {
  const auto number = [](uint64_t value) { return static_cast<double>(value); };
  registry->AddSamples(
      "holdfast_clients", "Prefixes that clients said they mirror, by how well their copy follows.",
      MetricKind::kGauge, [this, number] {
        const auto counts = clients_.CountByLink();
        std::vector<MetricSample> samples;
        for (size_t i = 0; i < counts.size(); ++i) {
          samples.push_back({{{"link", std::string(ClientTable::kLinks[i])}}, number(counts[i])});
        }
        return samples;
      });
  registry->AddCounterOf("holdfast_client_refusals_total",
                         "Revisions that clients said they do not serve, each client's counted.",
                         [this, number] { return number(clients_.refusals()); });
  registry->AddSamples(
      "holdfast_mirror_loads_total", "Copies that clients had brought up to date, by how.",
      MetricKind::kCounter, [this, number] {
        const Counters& c = host_.counters;
        return std::vector<MetricSample>{{{{"kind", "resume"}}, number(c.resumed.value())},
                                         {{{"kind", "unchanged"}}, number(c.unchanged.value())},
                                         {{{"kind", "snapshot"}}, number(c.snapshots.value())}};
      });
  registry->AddSamples(
      "holdfast_mirror_load_refused_total",
      "Clients that were told to come again later for their copies, by class.",
      MetricKind::kCounter, [this, number] {
        std::vector<MetricSample> samples;
        for (size_t i = 0; i < kLoadClasses; ++i) {
          samples.push_back({{{"class", std::string(LoadClassName(static_cast<LoadClass>(i)))}},
                             number(host_.counters.refused[i].value())});
        }
        return samples;
      });
  registry->AddCounter("holdfast_mirror_sent_bytes_total",
                       "Keys and values sent to clients as whole copies.", &host_.counters.bytes);
  registry->AddGauge("holdfast_mirror_snapshots", "Whole copies on their way to clients.",
                     [this, number] { return number(snapshots_under_way()); });
}

}  // namespace

std::unique_ptr<MirrorService> MirrorService::Create(Options options, const MemberView& member,
                                                     const Admission* admission) {
  return std::make_unique<MirrorServiceImpl>(options, member, admission);
}

}  // namespace holdfast::server
