// A service that goes on reading its configuration, whatever happens to the store:
//
//   holdfast_example_config_service 127.0.0.1:2379,127.0.0.1:2479 200ms /config/a /config/b
#include <iostream>
#include <thread>

#include "absl/strings/str_split.h"
#include "holdfast/client.h"

int main(int argc, char** argv) {
  absl::Duration interval;
  if (argc < 4 || !absl::ParseDuration(argv[2], &interval)) {
    std::cerr << "usage: " << argv[0] << " HOST:PORT[,HOST:PORT...] INTERVAL KEY...\n";
    return 2;
  }
  auto client = holdfast::Client::Open({.endpoints = absl::StrSplit(argv[1], ',')});
  if (!client.ok()) {
    std::cerr << client.status() << "\n";
    return 2;
  }
  // Fresh if the store can, else whatever any member still has: this service never stops reading.
  const auto options = holdfast::ReadOptions::Linearizable()
                           .OrStale(absl::InfiniteDuration())
                           .Deadline(absl::Seconds(1));
  for (const absl::Time start = absl::Now();; std::this_thread::sleep_for(absl::ToChronoMilliseconds(interval))) {
    for (int i = 3; i < argc; ++i) {
      const auto read = (*client)->Get(argv[i], options);
      std::cout << "t=" << absl::ToDoubleSeconds(absl::Now() - start) << "s key=" << argv[i];
      if (read.ok()) {
        const holdfast::Freshness& fresh = read->fresh;
        std::cout << " rev=" << fresh.revision() << " age=" << absl::ToDoubleSeconds(fresh.MaxAge())
                  << "s proof=" << ToString(fresh.proof()) << " source=" << ToString(fresh.source())
                  << " value=" << (read->value ? read->value->value : "(none)") << std::endl;
      } else {
        std::cout << " error=" << read.status() << std::endl;
      }
    }
  }
}
