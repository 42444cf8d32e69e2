#include "masks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>

#include "absl/strings/escaping.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/crc32c.h"

namespace holdfast::compat {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr size_t kShortestKnown = 5;
constexpr uint64_t kSmallIds = uint64_t{1} << 40;  // those that a case chose itself are below
constexpr size_t kLongestShown = 160;

enum class Kind { kPlain, kId, kRevision, kTerm, kIndex, kBytes, kHash };

struct Name {
  std::string_view name;  // lower case, without '_' and ' '
  Kind kind;
};
constexpr Name kNames[] = {
    {"clusterid", Kind::kId},
    {"memberid", Kind::kId},
    {"leader", Kind::kId},
    {"id", Kind::kId},
    {"lease", Kind::kId},
    {"leaseid", Kind::kId},
    {"revision", Kind::kRevision},
    {"createrevision", Kind::kRevision},
    {"modrevision", Kind::kRevision},
    {"compactrevision", Kind::kRevision},
    {"rev", Kind::kRevision},
    {"hashrevision", Kind::kRevision},
    {"raftterm", Kind::kTerm},
    {"raftindex", Kind::kIndex},
    {"dbsize", Kind::kBytes},
    {"raftappliedindex", Kind::kIndex},
    {"dbsizeinuse", Kind::kBytes},
    {"hash", Kind::kHash},
};

Kind KindOf(std::string_view field) {
  std::string plain;
  for (const char c : field) {
    if (c != '_' && c != ' ') plain += char(std::tolower(static_cast<unsigned char>(c)));
  }
  const Name* const found = std::ranges::find(kNames, plain, &Name::name);
  return found == std::end(kNames) ? Kind::kPlain : found->kind;
}

std::string Shown(const std::string& bytes) {
  if (bytes.size() <= kLongestShown) return "'" + absl::CEscape(bytes) + "'";
  return fmt::format("<{} bytes, crc {:08x}>", bytes.size(), base::Crc32c(bytes));
}

std::optional<uint64_t> WholeNumber(const std::string& text) {
  if (text.empty() || text.size() > 20) return std::nullopt;
  const bool negative = text[0] == '-';
  const char* const begin = text.data() + (negative ? 1 : 0);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || begin == end) return std::nullopt;
  return negative ? ~value + 1 : value;
}

}  // namespace

void Masks::Know(const std::string& text, const std::string& symbol) {
  if (text.size() < kShortestKnown) return;
  known_.emplace_back(text, symbol);
  std::ranges::stable_sort(
      known_, [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
}

void Masks::KnowId(uint64_t id, const std::string& symbol) {
  ids_[id] = symbol;
  Know(fmt::format("{}", id), symbol);
  Know(fmt::format("{:x}", id), symbol);
  // etcdctl pads short ones. The space before them is its own.
  if (id >> 60 == 0) {
    Know(fmt::format(" {:16x}", id), " " + symbol);
    Know(fmt::format("{:016x}", id), symbol);
  }
}

std::string Masks::Id(uint64_t id) {
  if (const auto known = ids_.find(id); known != ids_.end()) return known->second;
  if (id < kSmallIds) return fmt::format("{}", id);
  KnowId(id, fmt::format("<id{}>", ++ids_seen_));
  return ids_[id];
}

std::string Masks::Number(std::string_view field, uint64_t value, bool is_signed) {
  const std::string plain =
      is_signed ? fmt::format("{}", int64_t(value)) : fmt::format("{}", value);
  const Kind kind = KindOf(field);
  if (value == 0 || kind == Kind::kPlain || (is_signed && int64_t(value) < 0)) return plain;
  switch (kind) {
    case Kind::kId:
      return Id(value);
    case Kind::kRevision: {
      const int64_t distance = int64_t(value) - base_revision_;
      return distance == 0 ? "R" : fmt::format("R{:+}", distance);
    }
    case Kind::kTerm:
      return "<term>";
    case Kind::kIndex:
      return "<index>";
    case Kind::kBytes:
      return "<bytes>";
    case Kind::kHash:
      return "<hash>";
    case Kind::kPlain:
      break;
  }
  return plain;
}

std::string Masks::Known(std::string text) const {
  for (const auto& [known, symbol] : known_) {
    for (size_t at = 0; (at = text.find(known, at)) != std::string::npos; at += symbol.size()) {
      text.replace(at, known.size(), symbol);
    }
  }
  return text;
}

// A key may hold an id that a later field of the message names.
void Masks::FindIds(const Message& message) {
  const Reflection* const reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? reflection->FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        FindIds(field->is_repeated() ? reflection->GetRepeatedMessage(message, field, i)
                                     : reflection->GetMessage(message, field));
      } else if (KindOf(field->name()) == Kind::kId && !field->is_repeated()) {
        PrintValue(message, *field, i);
      }
    }
  }
}

std::string Masks::Print(const Message& message) {
  FindIds(message);
  return PrintFields(message);
}

std::string Masks::PrintFields(const Message& message) {
  const Reflection* const reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);  // in the order of their numbers
  std::vector<std::string> parts;
  for (const FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? reflection->FieldSize(message, field) : 1;
    std::vector<std::string> values;
    for (int i = 0; i < count; ++i) {
      const std::string value = PrintValue(message, *field, i);
      const bool nested = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
      values.push_back(fmt::format("{}{}{}", field->name(), nested ? " " : ": ", value));
    }
    // They stand in the order of their ids, which are random.
    if (field->name() == "members") std::ranges::sort(values);
    parts.insert(parts.end(), values.begin(), values.end());
  }
  const auto& unknown = reflection->GetUnknownFields(message);
  for (int i = 0; i < unknown.field_count(); ++i) {
    parts.push_back(fmt::format("unknown field {}", unknown.field(i).number()));
  }
  return absl::StrJoin(parts, " ");
}

std::string Masks::PrintValue(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool repeated = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      const std::string inner = PrintFields(repeated ? r.GetRepeatedMessage(message, &field, index)
                                                     : r.GetMessage(message, &field));
      return inner.empty() ? "{}" : "{ " + inner + " }";
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      return Known(Shown(repeated ? r.GetRepeatedString(message, &field, index)
                                  : r.GetString(message, &field)));
    }
    case FieldDescriptor::CPPTYPE_INT64:
      return Number(field.name(),
                    uint64_t(repeated ? r.GetRepeatedInt64(message, &field, index)
                                      : r.GetInt64(message, &field)),
                    true);
    case FieldDescriptor::CPPTYPE_UINT64:
      return Number(
          field.name(),
          repeated ? r.GetRepeatedUInt64(message, &field, index) : r.GetUInt64(message, &field),
          false);
    case FieldDescriptor::CPPTYPE_UINT32:
      return Number(field.name(), r.GetUInt32(message, &field), false);
    case FieldDescriptor::CPPTYPE_BOOL:
      return r.GetBool(message, &field) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int number = repeated ? r.GetRepeatedEnumValue(message, &field, index)
                                  : r.GetEnumValue(message, &field);
      const auto* value = field.enum_type()->FindValueByNumber(number);
      return value == nullptr ? fmt::format("{}", number) : value->name();
    }
    default:
      return "<a type that etcd's API does not have>";
  }
}

void Masks::MaskJson(const std::string& key, nlohmann::json& value) {
  if (value.is_object() || value.is_array()) {
    for (auto& item : value.items()) MaskJson(value.is_object() ? item.key() : key, item.value());
    if (key == "members" && value.is_array()) std::sort(value.begin(), value.end());
    return;
  }
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (const std::string text = Number(key, number, false); text != fmt::format("{}", number)) {
      value = text;
    }
  } else if (value.is_string()) {
    const std::string text = value.get<std::string>();
    const std::optional<uint64_t> number = WholeNumber(text);
    value = number.has_value() && text[0] != '-' ? Number(key, *number, false) : Known(text);
  }
}

std::string Masks::Json(const std::string& text) {
  nlohmann::json value = nlohmann::json::parse(text, nullptr, false);
  if (value.is_discarded() || !value.is_structured()) return Known(text);
  MaskJson("", value);
  // What each endpoint says, in the order of their ports.
  if (value.is_array()) std::sort(value.begin(), value.end());
  // etcdctl logs to the same stream; when and through which connection is of no interest.
  if (value.is_object() && value.contains("level")) {
    for (const char* const key : {"ts", "target", "caller", "attempt"}) value.erase(key);
  }
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// | a | b |, the widths taken out; a cell below a heading is masked as a field of that name.
std::string Masks::TableRow(const std::string& line, std::vector<std::string>* headings) {
  std::vector<std::string> cells;
  for (const absl::string_view cell : absl::StrSplit(line.substr(1, line.size() - 2), '|')) {
    const size_t begin = cell.find_first_not_of(' ');
    cells.emplace_back(begin == absl::string_view::npos
                           ? absl::string_view()
                           : cell.substr(begin, cell.find_last_not_of(' ') - begin + 1));
  }
  if (headings->empty()) {
    *headings = cells;
  } else {
    for (size_t i = 0; i < cells.size() && i < headings->size(); ++i) {
      const Kind kind = KindOf((*headings)[i]);
      const std::optional<uint64_t> number = WholeNumber(cells[i]);
      if (kind == Kind::kBytes && !cells[i].empty()) {
        cells[i] = "<bytes>";
      } else if (number.has_value() && kind != Kind::kId) {
        cells[i] = Number((*headings)[i], *number, false);
      } else {
        cells[i] = Known(cells[i]);
      }
    }
  }
  return "| " + absl::StrJoin(cells, " | ") + " |";
}

std::string Masks::Line(const std::string& line) {
  if (line.starts_with('{') || line.starts_with('[')) return Json(line);
  static const std::regex* const field = new std::regex("\"([A-Za-z_ ]+)\" ?: (-?[0-9]+)");
  std::smatch match;
  if (std::regex_match(line, match, *field)) {
    const std::optional<uint64_t> number = WholeNumber(match[2]);
    if (number.has_value()) {
      return fmt::format("\"{}\" : {}", match[1].str(),
                         Number(match[1].str(), *number, line.find(": -") != std::string::npos));
    }
  }
  return Known(line);
}

std::string Masks::Text(const std::string& text) {
  std::vector<std::string> lines;
  std::vector<std::string> headings;
  for (const absl::string_view view : absl::StrSplit(text, '\n')) {
    const std::string line(view);
    if (line.starts_with("+--")) {
      lines.emplace_back("+--");
    } else if (line.starts_with("| ") && line.ends_with('|')) {
      lines.push_back(TableRow(line, &headings));
    } else {
      headings.clear();
      lines.push_back(Line(line));
    }
  }
  return absl::StrJoin(lines, "\n");
}

}  // namespace holdfast::compat
