#include "script.h"

#include <fmt/format.h>

#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace holdfast::raft::test {
namespace {

constexpr std::string_view kPrompt = "> ";
constexpr std::string_view kIndent = "  ";
constexpr std::string_view kSilently = "silently";

absl::Status BadLine(const std::string& file, size_t line, std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("{}:{}: {}", file, line, what));
}

// Words are separated by blanks; "..." makes one word of what has blanks.
absl::StatusOr<std::vector<std::string>> SplitWords(std::string_view text) {
  std::vector<std::string> words;
  size_t i = 0;
  while (i < text.size()) {
    if (text[i] == ' ') {
      ++i;
      continue;
    }
    std::string word;
    bool quoted = false;
    for (; i < text.size() && (quoted || text[i] != ' '); ++i) {
      if (text[i] == '"') {
        quoted = !quoted;
      } else {
        word += text[i];
      }
    }
    if (quoted) return absl::InvalidArgumentError("a quote is not closed");
    words.push_back(std::move(word));
    if (words.size() > kMaxWords) return absl::InvalidArgumentError("too many words");
  }
  return words;
}

absl::StatusOr<Command> ParseCommand(std::string_view text, int line) {
  auto words = SplitWords(text);
  if (!words.ok()) return words.status();
  Command command;
  command.line = line;
  size_t at = 0;
  if (at < words->size() && (*words)[at] == kSilently) {
    command.silent = true;
    ++at;
  }
  if (at == words->size()) return absl::InvalidArgumentError("a command is missing after '> '");
  command.name = (*words)[at++];
  command.words.assign(words->begin() + static_cast<ptrdiff_t>(at), words->end());
  return command;
}

bool HasControlCharacter(std::string_view line) {
  for (const char c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return true;
  }
  return false;
}

absl::Status ParseLine(std::string_view line, size_t number, Script& script) {
  const auto bad = [&](std::string_view what) { return BadLine(script.file, number, what); };
  if (line.size() > kMaxLineBytes) return bad("the line is too long");
  if (HasControlCharacter(line)) return bad("a control character (tabs count) is in the line");
  if (line.empty() || line[0] == '#') {
    script.blocks.push_back({std::string(line), false, {}, {}});
    return absl::OkStatus();
  }
  if (line.starts_with(kPrompt)) {
    auto command = ParseCommand(line.substr(kPrompt.size()), static_cast<int>(number));
    if (!command.ok()) return bad(base::Message(command.status()));
    script.blocks.push_back({std::string(line), true, *std::move(command), {}});
    return absl::OkStatus();
  }
  if (!line.starts_with(kIndent)) {
    return bad("a line begins with '> ' (a command), two blanks (its trace) or '#' (a comment)");
  }
  if (script.blocks.empty() || !script.blocks.back().is_command) {
    return bad("a trace stands directly below its command");
  }
  script.blocks.back().expected.emplace_back(line.substr(kIndent.size()));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Script> ParseScript(std::string file, std::string_view text) {
  Script script;
  script.file = std::move(file);
  size_t number = 0;
  while (!text.empty()) {
    if (++number > kMaxScriptLines) return BadLine(script.file, number, "the file is too long");
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (auto status = ParseLine(line, number, script); !status.ok()) return status;
  }
  return script;
}

std::string RenderScript(const Script& script,
                         const std::vector<std::vector<std::string>>& traces) {
  std::string out;
  size_t next = 0;
  for (const Block& block : script.blocks) {
    out += block.text;
    out += '\n';
    if (!block.is_command) continue;
    CHECK(next < traces.size());
    for (const std::string& line : traces[next++]) out += fmt::format("{}{}\n", kIndent, line);
  }
  CHECK(next == traces.size());
  return out;
}

}  // namespace holdfast::raft::test
