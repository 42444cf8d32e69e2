// A service that goes on reading its configuration, whatever happens to the store:
//   holdfast_example_config_service 127.0.0.1:2379,127.0.0.1:2479 200ms /config/a /config/b
#include <iomanip>
#include <iostream>

#include "absl/strings/str_split.h"
#include "holdfast/client.h"

int main(int argc, char** argv) {
  absl::Duration interval;
  if (argc < 4 || !absl::ParseDuration(argv[2], &interval)) {
    std::cerr << "usage: " << argv[0] << " HOST:PORT[,HOST:PORT...] INTERVAL KEY...\n";
    return 2;
  }
  auto client = holdfast::Client::Open({.endpoints = absl::StrSplit(argv[1], ',')});
  if (!client.ok()) return std::cerr << client.status() << "\n", 2;

  // Fresh if the store can, else whatever any member still has: this service never stops reading.
  auto options = holdfast::ReadOptions::Linearizable().OrStale(absl::InfiniteDuration());
  options.Deadline(absl::Seconds(1));
  const absl::Time start = absl::Now();
  for (std::cout << std::fixed << std::setprecision(3);; absl::SleepFor(interval)) {
    for (int i = 3; i < argc; ++i) {
      const auto read = (*client)->Get(argv[i], options);
      std::cout << "t=" << absl::ToDoubleSeconds(absl::Now() - start) << "s key=" << argv[i];
      if (read.ok()) {
        std::cout << " rev=" << read->fresh.revision()
                  << " age=" << absl::ToDoubleSeconds(read->fresh.MaxAge())
                  << "s proof=" << ToString(read->fresh.proof())
                  << " source=" << ToString(read->fresh.source())
                  << " value=" << (read->value ? read->value->value : "(none)") << std::endl;
      } else {
        std::cout << " error=" << read.status() << std::endl;
      }
    }
  }
}
