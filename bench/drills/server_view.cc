#include "bench/drills/server_view.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <map>

#include "holdfast/client.grpc.pb.h"

namespace holdfast::bench {
namespace {

constexpr auto kTimeout = std::chrono::seconds(1);

}  // namespace

std::vector<v1::ClientsResponse::Client> ClientsOf(const std::vector<std::string>& endpoints) {
  std::map<std::string, v1::ClientsResponse::Client> newest;
  for (const std::string& endpoint : endpoints) {
    auto stub =
        v1::Mirror::NewStub(grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kTimeout);
    v1::ClientsResponse response;
    if (!stub->Clients(&context, v1::ClientsRequest(), &response).ok()) continue;
    for (v1::ClientsResponse::Client& client : *response.mutable_clients()) {
      const auto [it, added] = newest.try_emplace(client.report().client_id(), client);
      if (!added && client.heard_ms_ago() < it->second.heard_ms_ago()) it->second = client;
    }
  }
  std::vector<v1::ClientsResponse::Client> clients;
  for (auto& [id, client] : newest) clients.push_back(std::move(client));
  return clients;
}

Refusals RefusalsSeen(const std::vector<std::string>& endpoints, const std::string& name,
                      const std::string& prefix) {
  Refusals refusals;
  for (const v1::ClientsResponse::Client& client : ClientsOf(endpoints)) {
    if (client.report().name() != name) continue;
    for (const v1::PrefixReport& report : client.report().prefixes()) {
      if (report.prefix() != prefix || report.refused_revision() == 0) continue;
      if (refusals.clients++ == 0) refusals.why = report.refused_why();
    }
  }
  return refusals;
}

}  // namespace holdfast::bench
