// The words of one command, taken one after the other. The first thing that is wrong is remembered
// and told by Done(), so that a command reads its arguments without a branch for each.
//
// Threads: one.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "script.h"

namespace holdfast::raft::test {

// "1", "1,3" or "all"; empty: all.
struct IdList {
  bool all = false;
  std::vector<uint64_t> ids;
};

// "1->2", "1->", "->2" or "all"; 0: anybody.
struct Link {
  uint64_t from = 0;
  uint64_t to = 0;
};

class Args {
 public:
  explicit Args(const Command& command);

  // The next word; an error if there is none.
  std::string Word(std::string_view what);
  bool more() const { return !words_.empty(); }
  // 0 .. max.
  uint64_t Number(std::string_view what, uint64_t max);
  uint64_t NumberOr(std::string_view what, uint64_t max, uint64_t otherwise);
  // At least one word.
  std::vector<std::string> Rest(std::string_view what);
  IdList Ids(std::string_view what);  // an error if there is no word
  IdList IdsOrAll(std::string_view what);
  Link TakeLink(std::string_view what);
  // name=value words, wherever they stand.
  std::optional<std::string> Named(std::string_view name);
  uint64_t NamedNumber(std::string_view name, uint64_t max, uint64_t otherwise);
  // "1,2" of name=1,2; empty if not given.
  std::vector<uint64_t> NamedIds(std::string_view name);

  // Notes an error of the caller's; only the first one counts.
  void Fail(std::string text);
  // To be asked before anything is done: an error, or words that nobody took.
  absl::Status Done() const;

 private:
  uint64_t ToNumber(std::string_view what, std::string_view word, uint64_t max);
  std::vector<uint64_t> ToIds(std::string_view what, std::string_view word);

  std::deque<std::string> words_;
  std::map<std::string, std::string, std::less<>> named_;
  std::string error_;
};

}  // namespace holdfast::raft::test
