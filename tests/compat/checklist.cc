#include "checklist.h"

#include <fmt/format.h>

#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"

namespace holdfast::compat {
namespace {

absl::Status Bad(int line, const std::string& what) {
  return absl::InvalidArgumentError(fmt::format("checklist.txt:{}: {}", line, what));
}

absl::Status AddEvidence(const std::string& line, int number, ChecklistItem* item) {
  const std::string rest = line.size() < 2 ? "" : line.substr(2);
  if (rest.empty()) return Bad(number, "nothing behind it");
  if (line[0] == '-') {
    item->reason += (item->reason.empty() ? "" : " ") + rest;
    return absl::OkStatus();
  }
  for (const absl::string_view view : absl::StrSplit(rest, ' ', absl::SkipEmpty())) {
    const std::string word(view);
    if (line[0] == '=') {
      item->cases.push_back(word);
      continue;
    }
    const size_t colon = word.find(':');
    if (colon == std::string::npos) return Bad(number, "@ PATH:TEST");
    item->tests.push_back({word.substr(0, colon), word.substr(colon + 1)});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<ChecklistItem>> ParseChecklist(const std::string& text) {
  std::vector<ChecklistItem> items;
  std::set<std::string> ids;
  int number = 0;
  for (const absl::string_view view : absl::StrSplit(text, '\n')) {
    ++number;
    const std::string line(absl::StripAsciiWhitespace(view));
    if (line.empty() || line[0] == '#') continue;
    if (line[0] == '=' || line[0] == '@' || line[0] == '-') {
      if (items.empty()) return Bad(number, "no item yet");
      const absl::Status status = AddEvidence(line, number, &items.back());
      if (!status.ok()) return status;
      continue;
    }
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) return Bad(number, "ID: the fact");
    ChecklistItem item;
    item.id = line.substr(0, colon);
    item.fact = line.substr(colon + 2);
    item.line = number;
    if (!ids.insert(item.id).second) return Bad(number, "there is an item " + item.id);
    items.push_back(std::move(item));
  }
  for (const ChecklistItem& item : items) {
    if (item.cases.empty() && item.tests.empty() && item.reason.empty()) {
      return Bad(item.line, item.id + " has no case, no test and no reason");
    }
  }
  return items;
}

}  // namespace holdfast::compat
