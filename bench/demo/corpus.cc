#include "bench/demo/corpus.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>

#include <fmt/format.h>

namespace holdfast::bench {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSuffixList = "/usr/share/publicsuffix/public_suffix_list.dat";
constexpr const char* kBundle = "/etc/ssl/certs/ca-certificates.crt";
constexpr const char* kZoneTree = "/usr/share/zoneinfo";

absl::Status Missing(const std::string& path, const char* package) {
  return absl::NotFoundError(
      fmt::format("cannot read {}: install Debian's package {}", path, package));
}

void Add(Corpus& corpus, const char* source, std::string_view name, std::string value) {
  std::string key = fmt::format("{}{}/{}", kCorpusPrefix, source, name);
  corpus.bytes += key.size() + value.size();
  if (corpus.entries.emplace(std::move(key), std::move(value)).second) ++corpus.sources[source];
}

absl::Status AddPublicSuffixes(Corpus& corpus) {
  std::ifstream in(kSuffixList);
  if (!in) return Missing(kSuffixList, "publicsuffix");
  std::string section = "ICANN";
  for (std::string line; std::getline(in, line);) {
    if (line.find("===BEGIN PRIVATE DOMAINS===") != std::string::npos) section = "PRIVATE";
    if (line.empty() || line.starts_with("//")) continue;
    Add(corpus, "publicsuffix", line, section + " " + line);
  }
  return absl::OkStatus();
}

absl::Status AddCertificates(Corpus& corpus) {
  std::ifstream in(kBundle);
  if (!in) return Missing(kBundle, "ca-certificates");
  std::string pem;
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    pem += line + "\n";
    if (line != "-----END CERTIFICATE-----") continue;
    Add(corpus, "ca-certificates", fmt::format("{:04}", ++number), std::move(pem));
    pem.clear();
  }
  return absl::OkStatus();
}

absl::Status AddZones(Corpus& corpus) {
  std::error_code error;
  auto tree = fs::recursive_directory_iterator(
      kZoneTree, fs::directory_options::follow_directory_symlink, error);
  if (error) return Missing(kZoneTree, "tzdata");
  for (const fs::directory_entry& file : tree) {
    if (!file.is_regular_file()) continue;
    std::ifstream in(file.path(), std::ios::binary);
    if (!in) return Missing(file.path(), "tzdata");
    std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    Add(corpus, "zoneinfo", fs::relative(file.path(), kZoneTree).string(), std::move(bytes));
  }
  std::ifstream source(std::string(kZoneTree) + "/tzdata.zi");
  int number = 0;
  for (std::string line; std::getline(source, line);) {
    Add(corpus, "tzdata.zi", fmt::format("{:06}", ++number), line);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Corpus> LoadCorpus() {
  Corpus corpus;
  for (const auto& add : {AddPublicSuffixes, AddCertificates, AddZones}) {
    const absl::Status added = add(corpus);
    if (!added.ok()) return added;
  }
  return corpus;
}

}  // namespace holdfast::bench
