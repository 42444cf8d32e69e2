// A scenario file: commands for a few cores, and below each the trace that it must leave.
// README.md tells the language.
//
// Purpose: text to commands and back. Knows no command by name. Threads: any; values only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace holdfast::raft::test {

// A file beyond these is refused: a scenario is something that one person reads.
constexpr size_t kMaxScriptLines = 20'000;
constexpr size_t kMaxLineBytes = 4'096;
constexpr size_t kMaxWords = 64;

struct Command {
  int line = 0;  // in the file, from 1
  bool silent = false;
  std::string name;
  std::vector<std::string> words;  // without the name; quotes are gone
};

struct Block {
  std::string text;  // of a comment, a blank line, or the command line, as it stands in the file
  bool is_command = false;
  Command command;
  std::vector<std::string> expected;  // without the indentation
};

struct Script {
  std::string file;  // for messages
  std::vector<Block> blocks;
};

// InvalidArgument, with "file:line: what is wrong". Never crashes, whatever the text is.
absl::StatusOr<Script> ParseScript(std::string file, std::string_view text);

// The text of `script` with `traces[i]` below its i-th command.
// REQUIRES: one trace a command.
std::string RenderScript(const Script& script, const std::vector<std::vector<std::string>>& traces);

}  // namespace holdfast::raft::test
