#include "storage/damage.h"

#include <fmt/format.h>

#include <utility>

#include "absl/strings/cord.h"
#include "base/check.h"
#include "base/strings.h"

namespace holdfast::storage {
namespace {

constexpr char kPayloadUrl[] = "holdfast.storage.Damage";
constexpr size_t kFixedBytes = 1 + 5 * 8;  // part, four numbers, length of `file`

std::string Encode(const Damage& damage) {
  std::string out(1, static_cast<char>(damage.part));
  for (const uint64_t number : {damage.first_byte, damage.last_byte, damage.first_index.value,
                                damage.last_index.value, uint64_t{damage.file.size()}}) {
    base::AppendBigEndian64(out, number);
  }
  return out + damage.file + damage.what;
}

Damage Decode(std::string_view in) {
  CHECK(in.size() >= kFixedBytes);
  Damage damage;
  damage.part = static_cast<Damage::Part>(in[0]);
  in.remove_prefix(1);
  const auto next = [&in] {
    const uint64_t number = base::ReadBigEndian64(in);
    in.remove_prefix(8);
    return number;
  };
  damage.first_byte = next();
  damage.last_byte = next();
  damage.first_index = Index(next());
  damage.last_index = Index(next());
  const uint64_t file_bytes = next();
  CHECK(file_bytes <= in.size());
  damage.file = in.substr(0, file_bytes);
  damage.what = in.substr(file_bytes);
  return damage;
}

}  // namespace

std::string_view PartName(Damage::Part part) { return part == Damage::Part::kLog ? "log" : "data"; }

std::string Describe(const Damage& damage) {
  std::string text =
      damage.file.empty() ? fmt::format("the {}", PartName(damage.part)) : damage.file;
  if (damage.last_byte > 0) {
    text += fmt::format(" bytes {} to {}", damage.first_byte, damage.last_byte);
  }
  if (damage.first_index.value > 0) {
    text += damage.last_index.value == 0
                ? fmt::format(" (log entries from {} on)", damage.first_index.value)
                : fmt::format(" (log entries {} to {})", damage.first_index.value,
                              damage.last_index.value);
  }
  return damage.what.empty() ? text : fmt::format("{}: {}", text, damage.what);
}

absl::Status DamageError(const Damage& damage, std::string_view hint) {
  std::string text = Describe(damage);
  if (!hint.empty()) text += fmt::format("; {}", hint);
  return WithDamage(absl::DataLossError(base::ToAbsl(text)), damage);
}

absl::Status WithDamage(absl::Status status, const Damage& damage) {
  CHECK(!status.ok());
  status.SetPayload(kPayloadUrl, absl::Cord(Encode(damage)));
  return status;
}

std::optional<Damage> DamageOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return std::nullopt;
  return Decode(std::string(*payload));
}

absl::Status Annotate(const absl::Status& status, std::string_view doing) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(),
                         base::ToAbsl(fmt::format("{}: {}", doing, base::Message(status))));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

}  // namespace holdfast::storage
