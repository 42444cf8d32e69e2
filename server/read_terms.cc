#include "server/read_terms.h"

#include <charconv>
#include <chrono>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "base/strings.h"
#include "server/kv_service.h"

namespace holdfast::server {
namespace {

std::optional<std::string_view> Find(const grpc::CallbackServerContext& context, const char* key) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find(key);
  if (it == metadata.end()) return std::nullopt;
  return std::string_view(it->second.data(), it->second.size());
}

// Digits only, and no more than fit.
absl::StatusOr<std::optional<int64_t>> FindNumber(const grpc::CallbackServerContext& context,
                                                  const char* key) {
  const auto text = Find(context, key);
  if (!text.has_value()) return std::optional<int64_t>();
  int64_t number = 0;
  const char* const end = text->data() + text->size();
  const auto [parsed, error] = std::from_chars(text->data(), end, number);
  if (error != std::errc() || parsed != end || number < 0) {
    return absl::InvalidArgumentError(
        fmt::format("holdfast: metadata {} is '{}': use a whole number, 0 or more", key,
                    base::Printable(*text)));
  }
  return std::optional<int64_t>(number);
}

}  // namespace

absl::StatusOr<ReadTerms> ParseReadTerms(const grpc::CallbackServerContext& context) {
  const auto max_age = FindNumber(context, kMaxAgeKey);
  if (!max_age.ok()) return max_age.status();
  const auto min_revision = FindNumber(context, kMinRevisionKey);
  if (!min_revision.ok()) return min_revision.status();
  ReadTerms terms;
  if (max_age->has_value()) terms.max_age = absl::Milliseconds(**max_age);
  terms.min_revision = min_revision->value_or(0);
  return terms;
}

bool WantsLeader(const grpc::CallbackServerContext& context) {
  return Find(context, kHasLeaderKey) == "true";
}

absl::Duration TimeLeft(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteDuration();
  return absl::FromChrono(deadline - std::chrono::system_clock::now());
}

int64_t RoundUpToMs(absl::Duration age) {
  return absl::ToInt64Milliseconds(absl::Ceil(age, absl::Milliseconds(1)));
}

void AddFreshness(grpc::CallbackServerContext* context, std::optional<absl::Duration> age,
                  bool is_leader) {
  if (age.has_value()) {
    context->AddTrailingMetadata(kAgeKey, fmt::format("{}", RoundUpToMs(*age)));
  }
  context->AddTrailingMetadata(kProofKey, age.has_value() ? "proven" : "unknown");
  context->AddTrailingMetadata(kSourceKey, is_leader ? "leader" : "follower");
}

void AddIncarnation(grpc::CallbackServerContext* context, uint64_t incarnation) {
  if (incarnation == 0) return;
  context->AddTrailingMetadata(kIncarnationKey, fmt::format("{:x}", incarnation));
}

absl::Status TooStale(std::optional<absl::Duration> age, absl::Duration max_age) {
  const std::string how_old =
      age.has_value() ? fmt::format("{} ms old", RoundUpToMs(*age)) : "of unknown age";
  return absl::FailedPreconditionError(
      fmt::format("holdfast: answer would be {}, older than {} {}: ask another member, or allow a "
                  "larger age",
                  how_old, kMaxAgeKey, absl::ToInt64Milliseconds(max_age)));
}

absl::Status Behind(int64_t revision, int64_t min_revision) {
  return absl::FailedPreconditionError(
      fmt::format("holdfast: this member is at revision {}, below {} {}: ask another member",
                  revision, kMinRevisionKey, min_revision));
}

}  // namespace holdfast::server
