// Shared by the process tests: a cluster of real servers, clients for it, and their dumps.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/local_cluster.h"
#include "holdfast/client.h"

namespace holdfast {

inline constexpr absl::Duration kGiveUp = absl::Seconds(60);  // far beyond what is expected

// Three holdfastd, all agreed on a leader. The test fails if they do not come up.
std::unique_ptr<bench::LocalCluster> StartCluster(const std::vector<std::string>& extra_args = {});
std::unique_ptr<Client> OpenClient(const std::vector<std::string>& endpoints);

// Everything a member holds at `revision`, read from that member alone, in key order.
std::vector<Entry> DumpAt(bench::LocalCluster& cluster, int member, uint64_t revision);

// An integer of the environment, for longer runs by hand.
int FromEnvironment(const char* name, int otherwise);

// Runs a program to its end; what it printed, and its exit code (-1: ended by a signal).
struct ProgramEnd {
  int exit_code = -1;
  std::string output;
};
ProgramEnd RunToEnd(const std::vector<std::string>& argv, absl::Duration timeout = kGiveUp);

}  // namespace holdfast
