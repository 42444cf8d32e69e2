#include "client/config_json.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/time/time.h"
#include "base/strings.h"

namespace holdfast::internal {
namespace {

using nlohmann::json;

// The fields of one object, read once each; what was wrong first is what is told. `path` is of the
// object, with a dot at its end.
class Fields {
 public:
  Fields(const json& object, std::string path) : object_(object), path_(std::move(path)) {
    if (object.is_object()) return;
    status_ = absl::InvalidArgumentError(base::ToAbsl(
        fmt::format("the client's configuration: {} must be an object: {{\"field\": value}}",
                    path_.empty() ? std::string_view("it")
                                  : std::string_view(path_).substr(0, path_.size() - 1))));
  }

  // Each gives false, and leaves `*out` alone, if the field is not there.
  bool Text(const char* name, std::string* out) {
    const json* const value = Find(name);
    if (value == nullptr) return false;
    if (!value->is_string()) return Fail(name, "must be a text");
    *out = value->get<std::string>();
    return true;
  }
  bool Bool(const char* name, bool* out) {
    const json* const value = Find(name);
    if (value == nullptr) return false;
    if (!value->is_boolean()) return Fail(name, "must be true or false");
    *out = value->get<bool>();
    return true;
  }
  bool Number(const char* name, double* out) {
    const json* const value = Find(name);
    if (value == nullptr) return false;
    if (!value->is_number()) return Fail(name, "must be a number");
    *out = value->get<double>();
    return true;
  }
  template <class Integer>
  bool Whole(const char* name, Integer* out) {
    const json* const value = Find(name);
    if (value == nullptr) return false;
    if (!value->is_number_unsigned() ||
        value->get<uint64_t>() > uint64_t{std::numeric_limits<int32_t>::max()}) {
      return Fail(name, "must be a whole number, from 0 to 2147483647");
    }
    *out = static_cast<Integer>(value->get<uint64_t>());
    return true;
  }
  // "250ms", "5m", "4h30m", "inf".
  bool Duration(const char* name, absl::Duration* out) {
    const json* const value = Find(name);
    if (value == nullptr) return false;
    absl::Duration parsed;
    if (!value->is_string() || !absl::ParseDuration(value->get<std::string>(), &parsed) ||
        parsed < absl::ZeroDuration()) {
      return Fail(name, "must be a duration, as \"250ms\", \"5m\" or \"4h30m\"");
    }
    *out = parsed;
    return true;
  }
  bool Texts(const char* name, std::vector<std::string>* out) {
    const json* const value = Find(name);
    if (value == nullptr) return false;
    if (!value->is_array()) return Fail(name, "must be a list of texts");
    for (const json& one : *value) {
      if (!one.is_string()) return Fail(name, "must be a list of texts");
      out->push_back(one.get<std::string>());
    }
    return true;
  }
  bool Entries(const char* name, std::vector<Entry>* out) {
    const json* const value = Find(name);
    if (value == nullptr) return false;
    if (!value->is_object()) return Fail(name, "must be an object: {\"key\": \"value\"}");
    for (const auto& [key, text] : value->items()) {
      if (!text.is_string()) return Fail(name, "must hold texts: {\"key\": \"value\"}");
      out->push_back({.key = key, .value = text.get<std::string>()});
    }
    return true;
  }
  const json* Find(const char* name) {
    known_.push_back(name);
    if (!object_.is_object()) return nullptr;
    const auto it = object_.find(name);
    return it == object_.end() ? nullptr : &*it;
  }

  // False always, for the functions above.
  bool Fail(std::string_view name, std::string_view why) {
    if (status_.ok()) {
      status_ = absl::InvalidArgumentError(base::ToAbsl(
          fmt::format("the client's configuration: {}{} {}", path_, base::Printable(name), why)));
    }
    return false;
  }
  // After all fields were read.
  absl::Status Status() {
    if (!object_.is_object()) return status_;
    for (const auto& [name, value] : object_.items()) {
      if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
      std::string fields;
      for (const std::string_view field : known_) {
        fields += fmt::format("{}{}", fields.empty() ? "" : ", ", field);
      }
      Fail(name, fmt::format("is unknown; known are {}", fields));
    }
    return status_;
  }

 private:
  const json& object_;
  const std::string path_;
  std::vector<std::string_view> known_;
  absl::Status status_;
};

// Which fields belong to which rule; a rule's own field anywhere else is a mistake.
absl::StatusOr<Policy> ParseRule(Fields& fields) {
  std::string rule = "fail-static";
  fields.Text("policy", &rule);
  absl::Duration max_age;
  const bool bounded = fields.Duration("max_age", &max_age);
  std::string proof_name = "proven";
  const bool with_proof = fields.Text("at_least", &proof_name);
  Proof proof = Proof::kProven;
  if (proof_name == "estimated") {
    proof = Proof::kEstimated;
  } else if (proof_name == "unknown") {
    proof = Proof::kUnknown;
  } else if (proof_name != "proven") {
    fields.Fail("at_least", "must be \"proven\", \"estimated\" or \"unknown\"");
  }
  const bool closed = rule == "fail-closed";
  const bool open = rule == "fail-open";
  if ((closed || open) && !bounded) fields.Fail("max_age", "is missing: this policy needs it");
  if (bounded && !closed && !open) {
    fields.Fail("max_age", "is for the policies \"fail-closed\" and \"fail-open\"");
  }
  if (with_proof && !closed) fields.Fail("at_least", "is for the policy \"fail-closed\"");
  if (closed) return Policy::FailClosedAfter(max_age, proof);
  if (rule == "never-stale") return Policy::NeverStale();
  if (open) {
    std::vector<Entry> defaults;
    if (!fields.Entries("defaults", &defaults)) {
      fields.Fail("defaults", "are missing: this policy serves them");
    }
    return Policy::FailOpenAfter(max_age, std::move(defaults));
  }
  if (rule != "fail-static") {
    fields.Fail("policy",
                "must be \"fail-static\", \"fail-closed\", \"fail-open\" or \"never-stale\"");
  }
  return Policy::FailStatic();
}

void ParseModifiers(Fields& fields, Policy& policy) {
  absl::Duration duration;
  double number = 0;
  int whole = 0;
  bool flag = false;
  std::string text;
  if (fields.Duration("reduced_after", &duration)) policy.ReducedAfter(duration);
  if (fields.Number("max_bytes", &number)) {
    if (number >= 1 && number <= 1e12 && std::floor(number) == number) {
      policy.MaxBytes(static_cast<size_t>(number));
    } else {
      fields.Fail("max_bytes", "must be a whole number, from 1 to 1e12");
    }
  }
  int keep = policy.keep_generations();
  if (fields.Whole("keep_generations", &whole)) keep = whole;
  if (fields.Text("disk_dir", &text)) {
    policy.Disk(text, keep);
  } else if (keep != policy.keep_generations()) {
    fields.Fail("keep_generations", "goes with a disk_dir of the same prefix");
  }
  if (fields.Bool("memory_only", &flag) && flag) policy.MemoryOnly();
  if (fields.Number("hold_if_deletes", &number)) policy.HoldIfDeletes(number);
  if (fields.Number("hold_if_grows", &number)) policy.HoldIfGrows(number);
  if (fields.Duration("probation", &duration)) policy.Probation(duration);
  if (fields.Duration("startup_wait", &duration)) policy.StartupWait(duration);
  if (fields.Text("class", &text)) policy.Class(text);
  if (policy.rule() == Policy::Rule::kFailOpen) return;  // has its defaults
  std::vector<Entry> defaults;
  if (fields.Entries("defaults", &defaults)) policy.Defaults(std::move(defaults));
}

absl::StatusOr<PrefixOptions> ParsePrefix(const json& object, const std::string& path) {
  Fields fields(object, path);
  std::string prefix;
  if (!fields.Text("prefix", &prefix)) fields.Fail("prefix", "is missing");
  absl::StatusOr<Policy> policy = ParseRule(fields);
  if (!policy.ok()) return policy.status();
  ParseModifiers(fields, *policy);
  if (absl::Status status = fields.Status(); !status.ok()) return status;
  return PrefixOptions{std::move(prefix), *std::move(policy)};
}

absl::Status ParseRetry(const json& object, RetryPolicy* retry) {
  Fields fields(object, "retry.");
  fields.Whole("max_attempts", &retry->max_attempts);
  fields.Duration("base", &retry->base);
  fields.Duration("cap", &retry->cap);
  fields.Duration("try_timeout", &retry->try_timeout);
  fields.Duration("healthy_after", &retry->healthy_after);
  fields.Duration("quorum_patience", &retry->quorum_patience);
  fields.Number("budget_ratio", &retry->budget_ratio);
  fields.Number("budget_per_second", &retry->budget_per_second);
  return fields.Status();
}

absl::Status ParseHedge(const json& object, HedgePolicy* hedge) {
  Fields fields(object, "hedge.");
  fields.Number("after_quantile", &hedge->after_quantile);
  fields.Duration("floor", &hedge->floor);
  fields.Number("budget_ratio", &hedge->budget_ratio);
  return fields.Status();
}

}  // namespace

absl::StatusOr<ClientOptions> ParseClientConfig(std::string_view text) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) {
    return absl::InvalidArgumentError("the client's configuration is not JSON");
  }
  ClientOptions options;
  Fields fields(root, "");
  fields.Texts("endpoints", &options.endpoints);
  fields.Text("name", &options.name);
  fields.Text("disk_dir", &options.disk_dir);
  fields.Bool("exactly_once", &options.exactly_once);
  fields.Bool("batch_stream", &options.batch_stream);
  fields.Bool("handle_termination", &options.handle_termination);
  fields.Number("max_clock_slow", &options.max_clock_slow);
  if (const json* prefixes = fields.Find("prefixes"); prefixes != nullptr) {
    if (!prefixes->is_array()) fields.Fail("prefixes", "must be a list of objects");
    for (size_t i = 0; prefixes->is_array() && i < prefixes->size(); ++i) {
      auto prefix = ParsePrefix((*prefixes)[i], fmt::format("prefixes[{}].", i));
      if (!prefix.ok()) return prefix.status();
      options.prefixes.push_back(*std::move(prefix));
    }
  }
  if (const json* retry = fields.Find("retry"); retry != nullptr) {
    if (absl::Status status = ParseRetry(*retry, &options.retry); !status.ok()) return status;
  }
  if (const json* hedge = fields.Find("hedge"); hedge != nullptr) {
    if (absl::Status status = ParseHedge(*hedge, &options.hedge); !status.ok()) return status;
  }
  if (absl::Status status = fields.Status(); !status.ok()) return status;
  return options;
}

}  // namespace holdfast::internal
