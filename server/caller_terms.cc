#include "server/caller_terms.h"

#include <algorithm>
#include <string_view>

namespace holdfast::server {
namespace {

constexpr std::string_view kHasLeader = "hasleader";
constexpr std::string_view kPassedOn[] = {kHasLeader, "token", "authorization",
                                          "client-api-version"};

}  // namespace

CallerTerms CallerTerms::Of(const grpc::CallbackServerContext& context) {
  CallerTerms terms;
  terms.deadline = context.deadline();
  for (const auto& [key, value] : context.client_metadata()) {
    const std::string_view name(key.data(), key.size());
    if (std::find(std::begin(kPassedOn), std::end(kPassedOn), name) == std::end(kPassedOn)) {
      continue;
    }
    terms.metadata.emplace_back(name, std::string(value.data(), value.size()));
  }
  return terms;
}

bool CallerTerms::wants_leader() const {
  return std::any_of(metadata.begin(), metadata.end(), [](const auto& entry) {
    return entry.first == kHasLeader && entry.second == "true";
  });
}

CallerTerms CallerTerms::Detached() const {
  CallerTerms terms;
  for (const auto& entry : metadata) {
    if (entry.first != kHasLeader) terms.metadata.push_back(entry);
  }
  return terms;
}

std::shared_ptr<grpc::ClientContext> CallerTerms::NewContext(std::chrono::milliseconds max) const {
  auto context = std::make_shared<grpc::ClientContext>();
  for (const auto& [key, value] : metadata) context->AddMetadata(key, value);
  auto until = deadline;
  if (max.count() > 0) until = std::min(until, std::chrono::system_clock::now() + max);
  context->set_deadline(until);
  return context;
}

absl::Status WhyCancelled(const grpc::CallbackServerContext& context) {
  if (context.deadline() <= std::chrono::system_clock::now()) {
    return absl::DeadlineExceededError("context deadline exceeded");
  }
  return absl::CancelledError("context canceled");
}

}  // namespace holdfast::server
