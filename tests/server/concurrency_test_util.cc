#include "concurrency_test_util.h"

#include <unistd.h>

namespace holdfast::server::testing {

namespace {

std::unique_ptr<bench::LocalCluster> StartOne(const std::string& binary) {
  bench::LocalClusterOptions options;
  options.binary = binary;
  options.members = 1;
  auto started = bench::LocalCluster::Start(options);
  CHECK_MSG(started.ok(), started.status().ToString());
  return *std::move(started);
}

}  // namespace

std::unique_ptr<bench::LocalCluster> StartEtcd() { return StartOne(kEtcd); }

std::unique_ptr<bench::LocalCluster> StartHoldfastd() {
  return StartOne(bench::BinaryBesideOwn("holdfastd"));
}

bench::LocalCluster* SharedHoldfastd() {
  static const std::unique_ptr<bench::LocalCluster> cluster = StartHoldfastd();
  return cluster.get();
}

bench::LocalCluster* SharedEtcd() {
  if (access(kEtcd, X_OK) != 0) return nullptr;
  // Destroyed at exit, which kills it.
  static const std::unique_ptr<bench::LocalCluster> cluster = StartEtcd();
  return cluster.get();
}

}  // namespace holdfast::server::testing
