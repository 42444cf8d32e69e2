#include "client/call_stats.h"

#include <string_view>

#include <fmt/format.h>

namespace holdfast::internal {
namespace {

void AddCounter(std::string_view name, std::string_view help, uint64_t value, std::string* out) {
  *out += fmt::format("# HELP {0} {1}\n# TYPE {0} counter\n{0} {2}\n", name, help, value);
}

}  // namespace

void CallStats::DumpTo(std::string* out) const {
  *out += fmt::format(
      "calls {}, attempts {}, of these hedges {} ({} won); retries the budget forbade {}\n",
      calls.value(), attempts.value(), hedges.value(), hedges_won.value(), budget_denials.value());
  std::string outcomes;
  for (size_t i = 0; i < kOutcomes; ++i) {
    if (outcomes_[i].value() == 0) continue;
    outcomes += fmt::format("{}{} {}", outcomes.empty() ? "" : ", ",
                            ToString(static_cast<Outcome>(i)), outcomes_[i].value());
  }
  *out += fmt::format("attempts ended: {}\n", outcomes.empty() ? "none" : outcomes);
}

void CallStats::MetricsTo(std::string* out) const {
  AddCounter("holdfast_client_calls_total", "Calls that were started.", calls.value(), out);
  AddCounter("holdfast_client_hedges_total", "Second tries beside a first one that took long.",
             hedges.value(), out);
  AddCounter("holdfast_client_hedges_won_total", "Second tries whose answer was taken.",
             hedges_won.value(), out);
  AddCounter("holdfast_client_budget_denials_total", "Retries that the retry budget forbade.",
             budget_denials.value(), out);
  *out +=
      "# HELP holdfast_client_attempts_total What was sent for calls, by what it came to.\n"
      "# TYPE holdfast_client_attempts_total counter\n";
  for (size_t i = 0; i < kOutcomes; ++i) {
    *out += fmt::format("holdfast_client_attempts_total{{outcome=\"{}\"}} {}\n",
                        ToString(static_cast<Outcome>(i)), outcomes_[i].value());
  }
}

}  // namespace holdfast::internal
