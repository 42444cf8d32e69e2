// Runs the cases against a real etcd and against Holdfast and compares the answers.
//
// Groups run side by side, each on an etcd and a Holdfast cluster of its own, both at the same
// time; the cases of a group one after the other. With `self` both are etcd: whatever then differs
// is hidden too little, and what the suite calls equal it calls equal by itself.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "case_file.h"

namespace holdfast::compat {

struct SuiteOptions {
  std::string cases_dir;
  std::string etcd = "/usr/bin/etcd";
  std::string holdfastd;
  bool self = false;
  // Only groups with a case whose name contains this, and of those all (they build on each other);
  // the others are run, but not counted. Empty: all.
  std::string only;
  bool verbose = false;
  bool answers = false;  // print every step with etcd's answer
  int parallel = 3;      // groups at a time: each is two clusters
};

enum class Verdict { kEqual, kDifferent, kFailed };

struct CaseResult {
  std::string name, area, title, where;  // where: file:line
  Verdict verdict = Verdict::kFailed;
  std::string answers = "";  // every step with etcd's answer
  std::string report = "";   // of kFailed: the steps that differ, with both answers
};

// `group`'s cases on both; the texts of a server that did not start make all of its cases fail.
std::vector<CaseResult> RunGroup(const Group& group, const SuiteOptions& options);

// All groups; prints each case (verbose), failures as they come, and the compat table. The results
// are in the order of the files.
absl::StatusOr<std::vector<CaseResult>> RunSuite(const SuiteOptions& options, std::ostream& out);

// Per area: cases, equal, different with a reason, failed.
std::string CompatTable(const std::vector<CaseResult>& results);

}  // namespace holdfast::compat
