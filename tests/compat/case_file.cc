#include "case_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"

namespace holdfast::compat {
namespace {

namespace fs = std::filesystem;

std::string Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return "";
  const size_t end = text.find_last_not_of(" \t\r");
  return std::string(text.substr(begin, end - begin + 1));
}

// True, and `rest` is what follows, if the line is that word alone or begins with it and a space.
bool Word(const std::string& line, std::string_view word, std::string* rest) {
  if (!line.starts_with(word)) return false;
  if (line.size() > word.size() && line[word.size()] != ' ') return false;
  *rest = Trimmed(std::string_view(line).substr(word.size()));
  return true;
}

class Parser {
 public:
  Parser(std::string file, std::vector<Group>* groups) : file_(std::move(file)), groups_(*groups) {
    for (const Group& group : groups_) {
      for (const Case& other : group.cases) names_.insert(other.name);
    }
  }

  absl::Status Line(const std::string& line) {
    ++line_;
    if (line.empty() || line[0] == '#') return absl::OkStatus();
    std::string rest;
    if (Word(line, "server", &rest)) return Server(rest);
    if (Word(line, "area", &rest)) {
      area_ = rest;
      return absl::OkStatus();
    }
    if (Word(line, "case", &rest)) return NewCase(rest);
    if (group_ == kNone || groups_[group_].cases.empty()) return Bad("no case yet");
    return OfCase(line, groups_[group_].cases.back());
  }

  absl::Status Bad(std::string_view what) const {
    return absl::InvalidArgumentError(fmt::format("{}:{}: {}", file_, line_, what));
  }

 private:
  static constexpr size_t kNone = ~size_t{0};

  absl::Status Server(const std::string& rest) {
    std::vector<std::string> words = absl::StrSplit(rest, ' ', absl::SkipEmpty());
    if (words.empty()) return Bad("server: no name");
    const auto known = std::ranges::find(groups_, words[0], &Group::server);
    group_ = size_t(known - groups_.begin());
    if (known != groups_.end()) {
      return words.size() == 1 ? absl::OkStatus() : Bad("a server's flags stand where it is first");
    }
    Group group{.server = words[0], .members = 1, .args = {}, .cases = {}};
    for (size_t i = 1; i < words.size(); ++i) {
      if (words[i].starts_with("members=")) {
        const std::string number = words[i].substr(8);
        std::from_chars(number.data(), number.data() + number.size(), group.members);
      } else {
        group.args.push_back(words[i]);
      }
    }
    groups_.push_back(std::move(group));
    return absl::OkStatus();
  }

  absl::Status NewCase(const std::string& rest) {
    const size_t colon = rest.find(':');
    if (colon == std::string::npos) return Bad("case NAME: what it shows");
    if (group_ == kNone || area_.empty()) return Bad("a case needs a server and an area");
    Case added;
    added.name = rest.substr(0, colon);
    added.title = Trimmed(std::string_view(rest).substr(colon + 1));
    added.area = area_;
    added.file = file_;
    added.line = line_;
    if (!names_.insert(added.name).second)
      return Bad("there is a case of that name: " + added.name);
    groups_[group_].cases.push_back(std::move(added));
    return absl::OkStatus();
  }

  absl::Status OfCase(const std::string& line, Case& current) {
    std::string rest;
    Step* const last = current.steps.empty() ? nullptr : &current.steps.back();
    const bool about_last = Word(line, "|", &rest) || Word(line, "mask", &rest) ||
                            Word(line, "sorted", &rest) || Word(line, "=", &rest) ||
                            Word(line, "~", &rest) || Word(line, "why", &rest);
    if (about_last) return last == nullptr ? Bad("no step yet") : OfStep(line, *last);
    Step step;
    step.ours_only = Word(line, "!", &rest);
    step.text = step.ours_only ? rest : line;
    step.line = line_;
    current.steps.push_back(std::move(step));
    return absl::OkStatus();
  }

  absl::Status OfStep(const std::string& line, Step& step) {
    std::string rest;
    if (Word(line, "|", &rest)) {
      step.text += " " + rest;
    } else if (Word(line, "mask", &rest)) {
      rest += ' ';  // nothing may stand behind the arrow
      const size_t arrow = rest.find(" => ");
      if (arrow == std::string::npos) return Bad("mask REGEX => TEXT");
      step.masks.push_back(
          {rest.substr(0, arrow), Trimmed(std::string_view(rest).substr(arrow + 4))});
    } else if (Word(line, "sorted", &rest)) {
      step.sorted = true;
    } else if (Word(line, "why", &rest)) {
      step.why = rest;
    } else {
      const bool regex = line[0] == '~';
      if (!step.ours.empty() && (regex || step.ours_is_regex)) return Bad("one `~` and no `=`");
      step.ours_is_regex = regex;
      step.ours.push_back(Trimmed(std::string_view(line).substr(1)));
    }
    return absl::OkStatus();
  }

  const std::string file_;
  std::vector<Group>& groups_;
  std::set<std::string> names_;
  int line_ = 0;
  size_t group_ = kNone;
  std::string area_;
};

// What the grammar cannot say: a difference has a reason, and a reason a difference.
absl::Status Check(const std::vector<Group>& groups) {
  for (const Group& group : groups) {
    for (const Case& one : group.cases) {
      for (const Step& step : one.steps) {
        if (step.ours.empty() != step.why.empty() || (step.ours_only && step.why.empty())) {
          return absl::InvalidArgumentError(
              fmt::format("{}:{}: what Holdfast must say (= or ~) and `why` come together",
                          one.file, step.line));
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool Case::differs() const {
  return std::ranges::any_of(steps, [](const Step& step) { return !step.why.empty(); });
}

absl::Status ParseCases(const std::string& file, const std::string& text,
                        std::vector<Group>* groups) {
  Parser parser(file, groups);
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const absl::Status status = parser.Line(Trimmed(std::string(line)));
    if (!status.ok()) return status;
  }
  return Check(*groups);
}

absl::StatusOr<std::vector<Group>> LoadCases(const std::string& dir) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir, error)) {
    if (entry.path().extension() == ".cases") files.push_back(entry.path());
  }
  if (files.empty()) return absl::NotFoundError(fmt::format("no *.cases in {}", dir));
  std::ranges::sort(files);
  std::vector<Group> groups;
  for (const fs::path& file : files) {
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    const absl::Status status = ParseCases(file.filename().string(), text.str(), &groups);
    if (!status.ok()) return status;
  }
  return groups;
}

}  // namespace holdfast::compat
