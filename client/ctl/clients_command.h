// holdfastctl clients: what the clients that mirror prefixes say of themselves.
//
// Each client tells the member that it follows, so every endpoint is asked, and where two know the
// same client the one that has heard of it last is believed. What is shown is hearsay, up to two
// minutes old; clients without mirrors, and those of plain etcd, are not in it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/ctl/commands.h"
#include "holdfast/client.pb.h"

namespace holdfast::ctl {

struct EndpointClients {
  std::string endpoint;
  absl::StatusOr<v1::ClientsResponse> response;
};

// All endpoints at once, each for at most `timeout`; in the order of `endpoints`.
std::vector<EndpointClients> AskClients(const std::vector<std::string>& endpoints,
                                        absl::Duration timeout);

// One of each client, ordered by name, then id. `heard_ms_ago` counts from the answer.
std::vector<v1::ClientsResponse::Client> MergeClients(const std::vector<EndpointClients>& all);

// kUnavailable if no endpoint answered; those that did not are named on io.err.
ExitCode Clients(const Common& common, Io io);

}  // namespace holdfast::ctl
