// Real configuration from Debian's own packages, as key-value pairs.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace holdfast::bench {

struct Corpus {
  std::map<std::string, std::string> entries;
  // How many keys each source gave: "publicsuffix", "ca-certificates", "zoneinfo", "tzdata.zi".
  std::map<std::string, int> sources;
  uint64_t bytes = 0;  // of keys and values
};

// Everything lies below kCorpusPrefix:
//   publicsuffix/RULE          one key a rule of the list; value: section (ICANN or PRIVATE) and
//   rule ca-certificates/NAME       one key a certificate of the bundle; value: its PEM text
//   zoneinfo/ZONE              one key a file of the tree; value: the compiled zone, binary
//   tzdata.zi/LINE-NUMBER      one key a line of the zones' source
// NotFound: a package is missing; the text names it.
inline constexpr const char* kCorpusPrefix = "/config/";
absl::StatusOr<Corpus> LoadCorpus();

}  // namespace holdfast::bench
