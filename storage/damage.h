// What a disk lost, and where: carried by a DataLoss status from the place that noticed it to the
// place that repairs the member.
//
// A DataLoss status WITHOUT a Damage (a failed fsync, say) is no reason to distrust what lies on
// the disk; one WITH a Damage is: the member must not vote or acknowledge on the strength of it.
// Threads: values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "base/ids.h"

namespace holdfast::storage {

struct Damage {
  enum class Part : uint8_t { kLog = 0, kData = 1 };

  Part part = Part::kLog;
  // A directory when a whole file is missing; empty: not known.
  std::string file = {};
  // The bytes that cannot be trusted, both ends included; last_byte 0: not known, or all of it.
  uint64_t first_byte = 0;
  uint64_t last_byte = 0;
  // The log entries that are lost with them, both ends included. first_index 0: none are, or it is
  // not known which; last_index 0: everything from first_index on.
  Index first_index = {};
  Index last_index = {};
  std::string what = {};  // one clause for people

  friend bool operator==(const Damage&, const Damage&) = default;
};

std::string_view PartName(Damage::Part part);  // "log", "data"

// "FILE bytes A to B (log entries X to Y): WHAT".
std::string Describe(const Damage& damage);

// DataLoss; the text is Describe(damage), then `hint` if there is one.
absl::Status DamageError(const Damage& damage, std::string_view hint = {});

// `status`, which says it in its own words, made to carry `damage`. REQUIRES: !status.ok().
absl::Status WithDamage(absl::Status status, const Damage& damage);

// The damage that `status` carries, if it does.
std::optional<Damage> DamageOf(const absl::Status& status);

// "DOING: text of status", with the same code and the same damage.
absl::Status Annotate(const absl::Status& status, std::string_view doing);

}  // namespace holdfast::storage
