// The feature file of november-18: what its consumers make of it, and the ways to poison it.
//
// A file is lines of "name weight", at most kMaxFeatures of them: the consumer has reserved memory
// for so many, as the one in the incident had.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "holdfast/policy.h"

namespace holdfast::bench {

inline constexpr size_t kMaxFeatures = 200;
inline constexpr size_t kGoodFeatures = 150;
inline constexpr const char* kFeaturePrefix = "/bot/";
inline constexpr const char* kFeatureKey = "/bot/features";
inline constexpr int kBotRules = 40;  // further keys of the prefix, that mass deletion takes

struct Features {
  std::string id;  // first word of the file: which one it is
  std::vector<int> weights;
  // What the service does with them. Divides by the weights: a zero ends the process, as an
  // unhandled error in a consumer did.
  int Score(int request) const;
};
// InvalidArgument for a bad line or too many of them.
absl::StatusOr<Features> ParseFeatures(std::string_view file);

enum class Poison {
  kNone,
  kDoubled,     // every line twice: beyond the consumer's limit
  kUnparsable,  // half of it is something else
  kCrashing,    // parses, passes the validator, and ends the process once it is used
};
std::string FeatureFile(const std::string& id, Poison poison);
bool IsPoisoned(std::string_view file);

// The validator of the service: the file must be there, and parse.
absl::Status CheckFeatures(const MirrorSnapshot& before, const MirrorSnapshot& after);

}  // namespace holdfast::bench
