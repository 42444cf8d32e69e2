// A service that reads its limits by one line, which costs the same whether the store is up,
// without a quorum, or gone, and also when the service itself starts during that:
//   holdfast_example_edge_service 127.0.0.1:2379,127.0.0.1:22379 /var/lib/edge
#include <iostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "holdfast/client.h"

using namespace holdfast;  // NOLINT: an example

struct Limits {
  int max_rps = 0;
};

// What it refuses is never served: the value before it stays, and the store is told.
absl::StatusOr<Limits> ParseLimits(std::string_view text) {
  Limits limits;
  if (absl::SimpleAtoi({text.data(), text.size()}, &limits.max_rps)) return limits;
  return absl::InvalidArgumentError("limits must be a whole number of requests a second");
}

int main(int argc, char** argv) {
  if (argc != 3) return std::cerr << "usage: " << argv[0] << " HOST:PORT[,...] CACHE_DIR\n", 2;
  auto store = Client::Open({.endpoints = absl::StrSplit(argv[1], ','),
                             .prefixes = {{"/config/edge/", Policy::FailStatic()}},
                             .disk_dir = argv[2]});
  if (!store.ok()) return std::cerr << store.status() << "\n", 1;
  auto limits = (*store)->Open<Limits>("/config/edge/limits", ParseLimits);
  if (!limits.ok()) return std::cerr << limits.status() << "\n", 1;
  for (;; absl::SleepFor(absl::Milliseconds(200))) {
    const Freshness fresh = limits->fresh();
    std::cout << "max_rps=" << (**limits)->max_rps << " age=" << fresh.MaxAge()
              << " proof=" << ToString(fresh.proof()) << " source=" << ToString(fresh.source())
              << std::endl;
  }
}
