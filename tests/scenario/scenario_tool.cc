// scenario-tool [--rewrite] FILES: runs scenarios and shows where a trace differs; with --rewrite
// it puts the traces that came out into the files. Only commit a rewritten trace when you know what
// caused the difference.
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/strings.h"
#include "script.h"
#include "world.h"

namespace holdfast::raft::test {
namespace {

enum class Outcome { kSame, kDifferent, kFailed };

Outcome RunFile(const std::string& file, bool rewrite) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  if (!in) {
    fmt::print(stderr, "{}: cannot be read\n", file);
    return Outcome::kFailed;
  }
  const auto script = ParseScript(file, text.str());
  const auto traces = script.ok() ? RunScript(*script) : script.status();
  if (!traces.ok()) {
    fmt::print(stderr, "{}\n", base::Message(traces.status()));
    return Outcome::kFailed;
  }
  const std::string rendered = RenderScript(*script, *traces);
  if (rendered == text.str()) return Outcome::kSame;
  if (!rewrite) {
    fmt::print("{}: the trace differs; it is now:\n{}", file, rendered);
    return Outcome::kDifferent;
  }
  std::ofstream out(file, std::ios::trunc);
  out << rendered;
  if (!out.flush()) {
    fmt::print(stderr, "{}: cannot be written\n", file);
    return Outcome::kFailed;
  }
  fmt::print("{}: rewritten\n", file);
  return Outcome::kSame;
}

}  // namespace
}  // namespace holdfast::raft::test

int main(int argc, char** argv) {
  using holdfast::raft::test::Outcome;
  bool rewrite = false;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--rewrite") {
      rewrite = true;
    } else {
      files.emplace_back(word);
    }
  }
  if (files.empty()) {
    fmt::print(stderr, "usage: scenario-tool [--rewrite] FILES\n");
    return 2;
  }
  bool good = true;
  for (const std::string& file : files) {
    good = holdfast::raft::test::RunFile(file, rewrite) == Outcome::kSame && good;
  }
  return good ? 0 : 1;
}
