#include "bench/drills/features.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/strings.h"

namespace holdfast::bench {
namespace {

constexpr std::string_view kPoisonMark = "poison-";  // begins the id, for the drill's own counting

}  // namespace

int Features::Score(int request) const {
  int score = 0;
  for (const int weight : weights) {
    if (weight == 0) {
      std::fprintf(stderr, "feature of weight 0 in %s\n", id.c_str());
      std::abort();
    }
    score += request / weight;
  }
  return score;
}

absl::StatusOr<Features> ParseFeatures(std::string_view file) {
  Features features;
  size_t number = 0;
  for (const absl::string_view line : absl::StrSplit(base::ToAbsl(file), '\n', absl::SkipEmpty())) {
    if (number++ == 0) {
      features.id = std::string(line);
      continue;
    }
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
    int weight = 0;
    if (words.size() != 2 || !absl::SimpleAtoi(words[1], &weight)) {
      return absl::InvalidArgumentError(fmt::format("line {} is no feature", number));
    }
    features.weights.push_back(weight);
  }
  if (number == 0) return absl::InvalidArgumentError("the feature file is empty");
  if (features.weights.size() > kMaxFeatures) {
    return absl::InvalidArgumentError(
        fmt::format("{} features, at most {} have room", features.weights.size(), kMaxFeatures));
  }
  return features;
}

std::string FeatureFile(const std::string& id, Poison poison) {
  std::string file = poison == Poison::kNone ? id + "\n" : fmt::format("{}{}\n", kPoisonMark, id);
  for (size_t i = 0; i < kGoodFeatures; ++i) {
    const int weight = poison == Poison::kCrashing && i == kGoodFeatures / 2 ? 0 : int(1 + i % 9);
    const std::string line = fmt::format("feature-{:04} {}\n", i, weight);
    if (poison == Poison::kUnparsable && i > kGoodFeatures / 2) {
      file += "\x01\x02<html>502 bad gateway</html>\n";
    } else {
      file += line;
    }
    if (poison == Poison::kDoubled) file += line;
  }
  return file;
}

bool IsPoisoned(std::string_view file) { return file.starts_with(kPoisonMark); }

absl::Status CheckFeatures(const MirrorSnapshot& /*before*/, const MirrorSnapshot& after) {
  const std::optional<EntryView> file = after.Find(kFeatureKey);
  if (!file.has_value()) return absl::InvalidArgumentError("there is no feature file");
  return ParseFeatures(file->value).status();
}

}  // namespace holdfast::bench
