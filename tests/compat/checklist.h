// tests/compat/checklist.txt: every fact of etcd's v3 API that clients rely on, and what shows that
// it holds here. One line each:
//
//   ID: the fact, in a few words
//     = CASE ...             cases of the suite
//     @ PATH:TEST ...        a test elsewhere in the repository (the file must name that test)
//     - REASON               why there is neither
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace holdfast::compat {

struct ChecklistTest {
  std::string path;  // from the repository's root
  std::string name;
};

struct ChecklistItem {
  std::string id, fact;
  int line = 0;
  std::vector<std::string> cases;
  std::vector<ChecklistTest> tests;
  std::string reason;
};

// InvalidArgument names the line: bad form, an id twice, an item without any of the three.
absl::StatusOr<std::vector<ChecklistItem>> ParseChecklist(const std::string& text);

}  // namespace holdfast::compat
