// Shared by the process tests: a cluster of real servers, clients for it, and their dumps.
#pragma once

#include <cstdlib>
#include <functional>
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
// So many, whose links can fail: cluster->links().
std::unique_ptr<bench::LocalCluster> StartProxiedCluster(
    int members, const std::vector<std::string>& extra_args = {});
std::unique_ptr<Client> OpenClient(const std::vector<std::string>& endpoints);

// Everything a member holds at `revision`, read from that member alone, in key order.
std::vector<Entry> DumpAt(bench::LocalCluster& cluster, int member, uint64_t revision);

// An integer of the environment, for longer runs by hand.
int FromEnvironment(const char* name, int otherwise);
// HOLDFAST_SEED, or one from the operating system.
uint64_t SeedFromEnvironment();

// Asks until it holds; false if it does not before `give_up`.
bool Eventually(const std::function<bool()>& condition, absl::Duration give_up = kGiveUp);

// A tmpfs of a given size on an existing or new directory; needs the right to mount.
class SmallDisk {
 public:
  explicit SmallDisk(std::string dir);
  ~SmallDisk();  // unmounts, also what is in use
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool Mount(int mib);
  bool Grow(int mib);
  // Takes what is left of the space, by a file of its own; Free() removes that.
  void Fill();
  void Free();

 private:
  const std::string dir_;
  bool mounted_ = false;
};

// Runs a program to its end; what it printed, and its exit code (-1: ended by a signal).
struct ProgramEnd {
  int exit_code = -1;
  std::string output;
};
ProgramEnd RunToEnd(const std::vector<std::string>& argv, absl::Duration timeout = kGiveUp);

}  // namespace holdfast
