#include "client/ctl/clients_command.h"

#include <algorithm>
#include <future>
#include <map>
#include <memory>
#include <utility>

#include <fmt/format.h>
#include <grpcpp/client_context.h>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "base/strings.h"
#include "client/ctl/remote.h"
#include "client/endpoint.h"
#include "client/grpc_time.h"
#include "client/rpc.h"
#include "holdfast/client.grpc.pb.h"

namespace holdfast::ctl {
namespace {

using nlohmann::json;
using Client = v1::ClientsResponse::Client;

absl::StatusOr<v1::ClientsResponse> AskOne(const std::string& text, absl::Duration timeout) {
  const auto endpoint = internal::ParseEndpoint(text);
  if (!endpoint.ok()) return endpoint.status();
  const auto stub = v1::Mirror::NewStub(internal::MakeChannel(*endpoint));
  grpc::ClientContext context;
  context.set_deadline(internal::ToGrpcTimespan(timeout));
  v1::ClientsResponse response;
  const grpc::Status status = stub->Clients(&context, {}, &response);
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    return absl::UnimplementedError(
        "it keeps no list of clients: it is an etcd, or an old release");
  }
  if (!status.ok()) return FromGrpc(status);
  return response;
}

std::string OrDash(const std::string& text) { return text.empty() ? "-" : base::Printable(text); }

std::string HeardAgo(const Client& client) {
  return fmt::format("{:.1f}s", static_cast<double>(client.heard_ms_ago()) / 1000);
}

// A line for each prefix of each client; one without prefixes has one too.
std::vector<std::string> LinesOf(const Client& client) {
  const v1::ReportRequest& report = client.report();
  const std::string who = fmt::format("{}, {}, {}", OrDash(report.client_id()),
                                      OrDash(report.name()), OrDash(client.peer()));
  std::vector<std::string> lines;
  for (const v1::PrefixReport& prefix : report.prefixes()) {
    const std::string refused = prefix.refused_revision() == 0
                                    ? "-"
                                    : fmt::format("{} ({})", prefix.refused_revision(),
                                                  base::Printable(prefix.refused_why(), 256));
    lines.push_back(
        fmt::format("{}, {}, {}, {}, {}, {}, {}", who,
                    prefix.prefix().empty() ? "(all keys)" : base::Printable(prefix.prefix(), 256),
                    OrDash(prefix.link()), OrDash(prefix.source()), prefix.revision(), refused,
                    HeardAgo(client)));
  }
  if (lines.empty()) lines.push_back(fmt::format("{}, -, -, -, -, -, {}", who, HeardAgo(client)));
  return lines;
}

json ToJson(const Client& client) {
  const v1::ReportRequest& report = client.report();
  json out = {{"client", report.client_id()},          {"name", report.name()},
              {"version", report.version()},           {"peer", client.peer()},
              {"heard_ms_ago", client.heard_ms_ago()}, {"prefixes", json::array()}};
  for (const v1::PrefixReport& prefix : report.prefixes()) {
    json one = {{"prefix", absl::Base64Escape(prefix.prefix())},
                {"link", prefix.link()},
                {"source", prefix.source()},
                {"revision", prefix.revision()},
                {"records", prefix.records()},
                {"bytes", prefix.bytes()}};
    if (prefix.refused_revision() != 0) {
      one["refused_revision"] = prefix.refused_revision();
      one["refused_why"] = prefix.refused_why();
    }
    out["prefixes"].push_back(std::move(one));
  }
  return out;
}

}  // namespace

std::vector<EndpointClients> AskClients(const std::vector<std::string>& endpoints,
                                        absl::Duration timeout) {
  std::vector<std::future<absl::StatusOr<v1::ClientsResponse>>> asked;
  for (const std::string& endpoint : endpoints) {
    asked.push_back(std::async(std::launch::async, AskOne, endpoint, timeout));
  }
  std::vector<EndpointClients> all;
  for (size_t i = 0; i < endpoints.size(); ++i) all.push_back({endpoints[i], asked[i].get()});
  return all;
}

std::vector<Client> MergeClients(const std::vector<EndpointClients>& all) {
  // By name and id: the order of the list.
  std::map<std::pair<std::string, std::string>, const Client*> newest;
  std::map<std::string, const Client*> by_id;
  for (const EndpointClients& one : all) {
    if (!one.response.ok()) continue;
    for (const Client& client : one.response->clients()) {
      const Client*& known = by_id[client.report().client_id()];
      if (known == nullptr || client.heard_ms_ago() < known->heard_ms_ago()) known = &client;
    }
  }
  for (const auto& [id, client] : by_id) newest[{client->report().name(), id}] = client;
  std::vector<Client> merged;
  for (const auto& [key, client] : newest) merged.push_back(*client);
  return merged;
}

ExitCode Clients(const Common& common, Io io) {
  const std::vector<EndpointClients> all = AskClients(common.endpoints, common.timeout);
  size_t answered = 0;
  for (const EndpointClients& one : all) {
    if (one.response.ok()) {
      ++answered;
    } else {
      io.err << fmt::format("holdfastctl: {}: {}\n", one.endpoint,
                            base::Message(one.response.status()));
    }
  }
  if (answered == 0) {
    io.err << "holdfastctl: no endpoint answered: what the clients do without the store, each says "
              "itself (Client::Dump)\n";
    return kUnavailable;
  }
  const std::vector<Client> clients = MergeClients(all);
  if (common.json) {
    json out = {{"clients", json::array()}};
    for (const Client& client : clients) out["clients"].push_back(ToJson(client));
    io.out << out.dump(-1, ' ', false, json::error_handler_t::replace) << "\n" << std::flush;
    return kOk;
  }
  for (const Client& client : clients) {
    for (const std::string& line : LinesOf(client)) io.out << line << "\n";
  }
  io.out << std::flush;
  return kOk;
}

}  // namespace holdfast::ctl
