// The cases of the compatibility suite, as they stand in tests/compat/cases/*.cases.
//
// One line is one thing; the indentation means nothing, `#` begins a comment line:
//
//   server NAME [members=N] [--flag=value ...]   the cases below run on that server (a group)
//   area NAME                                    the cases below count in that row of the table
//   case NAME: what it shows                     NAME is unique
//     STEP                                       see session.h for the verbs
//       | more of the step                       a long step goes on
//       mask REGEX => TEXT                       applied to the step's output, of both sides
//       sorted                                   the lines of its output have no order
//       = line of what Holdfast must say         an intended difference; all such lines, in order
//       ~ REGEX that it must match as a whole    the same, where the exact text is not ours to fix
//       why ROW                                  the row of docs/etcd-compatibility.md that says
//       why
//     ! STEP                                     sent to Holdfast alone: etcd 3.4 would crash or
//     lose
//                                                its data; needs `=` or `~`, and `why`
//
// Threads: plain values.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace holdfast::compat {

struct Mask {
  std::string regex;
  std::string text;
};

struct Step {
  std::string text;  // placeholders not yet filled in
  int line = 0;
  bool ours_only = false;
  bool sorted = false;
  std::vector<Mask> masks;
  std::vector<std::string> ours;  // what Holdfast must say instead; empty: what etcd says
  bool ours_is_regex = false;
  std::string why;
};

struct Case {
  std::string name;
  std::string title;
  std::string area;
  std::string file;  // without its directory
  int line = 0;
  std::vector<Step> steps;
  bool differs() const;  // some step has an intended difference
};

// Cases that share a server run one after the other, in the order of their files' names.
struct Group {
  std::string server;
  int members = 1;
  std::vector<std::string> args;
  std::vector<Case> cases;
};

// InvalidArgument names file and line. `text` is what stands in the file called `file`.
absl::Status ParseCases(const std::string& file, const std::string& text,
                        std::vector<Group>* groups);
// All *.cases of a directory. NotFound if there are none.
absl::StatusOr<std::vector<Group>> LoadCases(const std::string& dir);

}  // namespace holdfast::compat
