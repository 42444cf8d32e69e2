#include "client/ctl/txn_script.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "absl/strings/numbers.h"
#include "base/strings.h"

namespace holdfast::ctl {
namespace {

absl::Status Bad(std::string_view line, std::string_view why) {
  return absl::InvalidArgumentError(
      base::ToAbsl(fmt::format("{}, in the line: {}", why, base::Printable(line, 200))));
}

// Reads one line from left to right.
class LineReader {
 public:
  explicit LineReader(std::string_view line) : line_(line), rest_(line) {}

  std::string_view line() const { return line_; }
  bool AtEnd() {
    SkipSpace();
    return rest_.empty();
  }
  bool Take(std::string_view token) {
    SkipSpace();
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  // A bare word up to white space or one of `stop`, or a quoted string.
  absl::StatusOr<std::string> Word(std::string_view stop = "") {
    SkipSpace();
    if (rest_.empty()) return Bad(line_, "a word is missing");
    if (rest_.front() == '"') return Quoted();
    std::string word;
    while (!rest_.empty() && rest_.front() != ' ' && rest_.front() != '\t' &&
           stop.find(rest_.front()) == stop.npos) {
      word += rest_.front();
      rest_.remove_prefix(1);
    }
    if (word.empty()) return Bad(line_, "a word is missing");
    return word;
  }

 private:
  void SkipSpace() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t')) {
      rest_.remove_prefix(1);
    }
  }

  absl::StatusOr<std::string> Quoted() {
    rest_.remove_prefix(1);
    std::string word;
    while (!rest_.empty()) {
      const char c = rest_.front();
      rest_.remove_prefix(1);
      if (c == '"') return word;
      if (c != '\\') {
        word += c;
        continue;
      }
      const std::optional<char> escaped = Escaped();
      if (!escaped.has_value()) {
        return Bad(line_, "an escape is none of \\n \\t \\\\ \\\" and \\xHH");
      }
      word += *escaped;
    }
    return Bad(line_, "a quote is not closed");
  }

  std::optional<char> Escaped() {
    if (rest_.empty()) return std::nullopt;
    const char c = rest_.front();
    rest_.remove_prefix(1);
    switch (c) {
      case 'n':
        return '\n';
      case 't':
        return '\t';
      case '\\':
      case '"':
        return c;
      case 'x': {
        uint32_t byte = 0;
        if (rest_.size() < 2 || !absl::SimpleHexAtoi(base::ToAbsl(rest_.substr(0, 2)), &byte)) {
          return std::nullopt;
        }
        rest_.remove_prefix(2);
        return static_cast<char>(byte);
      }
      default:
        return std::nullopt;
    }
  }

  const std::string_view line_;
  std::string_view rest_;
};

template <class Target, class Value>
Compare Related(const Target& target, std::string_view relation, const Value& value) {
  if (relation == "=") return target.Equal(value);
  if (relation == "!=") return target.NotEqual(value);
  if (relation == ">") return target.Greater(value);
  return target.Less(value);
}

std::optional<Compare::Number> NumberTarget(std::string_view name, std::string_view key) {
  if (name == "version" || name == "ver") return Compare::Version(key);
  if (name == "create" || name == "c") return Compare::CreateRevision(key);
  if (name == "mod" || name == "m") return Compare::ModRevision(key);
  if (name == "lease") return Compare::Lease(key);
  return std::nullopt;
}

absl::StatusOr<Compare> ParseCompare(std::string_view line) {
  LineReader in(line);
  const auto name = in.Word("(");
  if (!name.ok()) return name.status();
  if (!in.Take("(")) return Bad(line, "expected TARGET(\"KEY\") RELATION \"VALUE\"");
  const auto key = in.Word(")");
  if (!key.ok()) return key.status();
  if (!in.Take(")")) return Bad(line, "the ')' after the key is missing");
  std::string_view relation;
  for (const std::string_view known : {"!=", "=", ">", "<"}) {
    if (in.Take(known)) {
      relation = known;
      break;
    }
  }
  if (relation.empty()) return Bad(line, "the relation is none of = != > <");
  const auto value = in.Word();
  if (!value.ok()) return value.status();
  if (!in.AtEnd()) return Bad(line, "there is more after the value");
  if (*name == "value" || *name == "val") return Related(Compare::Value(*key), relation, *value);
  const auto target = NumberTarget(*name, *key);
  if (!target.has_value()) {
    return Bad(line, "the target is none of version, create, mod, value, lease");
  }
  int64_t number = 0;
  if (!absl::SimpleAtoi(*value, &number)) return Bad(line, "the value must be a number");
  return Related(*target, relation, number);
}

absl::StatusOr<Op> ParseOp(std::string_view line) {
  LineReader in(line);
  const auto verb = in.Word();
  if (!verb.ok()) return verb.status();
  const auto key = in.Word();
  if (!key.ok()) return key.status();
  if (*verb == "put") {
    const auto value = in.Word();
    if (!value.ok()) return value.status();
    if (!in.AtEnd()) return Bad(line, "there is more after the value; quote it if it has spaces");
    return Op::Put(*key, *value);
  }
  const bool prefix = in.Take("--prefix");
  if (!in.AtEnd()) return Bad(line, "only --prefix may follow the key");
  if (*verb == "get") {
    return Op::Range(prefix ? RangeQuery::Prefix(*key) : RangeQuery::Key(*key));
  }
  if (*verb == "del") return prefix ? Op::DeletePrefix(*key) : Op::Delete(*key);
  return Bad(line, "the operation is none of put, get, del");
}

}  // namespace

absl::StatusOr<Txn> ParseTxnScript(std::string_view text) {
  Txn txn;
  int section = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (LineReader(line).AtEnd()) {
      ++section;
      continue;
    }
    if (section > 2) return Bad(line, "there is a fourth section; a transaction has three");
    if (section == 0) {
      auto compare = ParseCompare(line);
      if (!compare.ok()) return compare.status();
      txn.If({*std::move(compare)});
      continue;
    }
    auto op = ParseOp(line);
    if (!op.ok()) return op.status();
    section == 1 ? txn.Then({*std::move(op)}) : txn.Else({*std::move(op)});
  }
  if (txn.then_ops().empty() && txn.else_ops().empty()) {
    return absl::InvalidArgumentError(
        "the transaction has no operation: it needs compares, a blank line, operations, a blank "
        "line, and operations for the other case");
  }
  return txn;
}

}  // namespace holdfast::ctl
