// holdfast-fake-store: a FakeStore for the tests of services in other languages, driven by lines.
//
//   $ holdfast-fake-store --members 1
//   listening 127.0.0.1:40123
//   > put /config/limits rps=100
//   ok 2
//
// It says `ok`, with a result if there is one, or `error` and why, to each line of its standard
// input, and ends when that does.
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "holdfast/testing/fake_store.h"

namespace holdfast::testing {
namespace {

// The words of one line; a value may hold spaces and is the rest of it.
class Line {
 public:
  explicit Line(const std::string& line) : words_(line) {}
  std::string Word() {
    std::string word;
    words_ >> word;
    return word;
  }
  std::string Rest() {
    std::string rest;
    std::getline(words_ >> std::ws, rest);
    return rest;
  }
  int Number(int otherwise) {
    int number = otherwise;
    const std::string word = Word();
    return word.empty() || !absl::SimpleAtoi(word, &number) ? otherwise : number;
  }

 private:
  std::istringstream words_;
};

// What each word does; gives what is said behind "ok".
std::map<std::string, std::function<std::string(Line&)>> Commands(FakeStore* store) {
  const auto plain = [](auto action) {
    return [action](Line&) {
      action();
      return std::string();
    };
  };
  const auto fault = [store](auto inject) {
    return [store, inject](Line& line) {
      const FaultInjector::Match match = {.method = line.Word()};
      inject(store->faults(), match, line.Number(1));
      return std::string();
    };
  };
  const auto yes = [](bool holds) { return std::string(holds ? "yes" : "no"); };
  return {
      {"put",
       [store](Line& line) {
         const std::string key = line.Word();
         return std::to_string(store->Put(key, line.Rest()));
       }},
      {"get",
       [store](Line& line) {
         const auto entry = store->Get(line.Word());
         return entry.has_value() ? entry->value : std::string("(none)");
       }},
      {"delete", [store](Line& line) { return std::to_string(store->Delete(line.Word())); }},
      {"delete-prefix",
       [store](Line& line) { return std::to_string(store->DeletePrefix(line.Word())); }},
      {"compact", plain([store] { store->Compact(); })},
      {"revision", [store](Line&) { return std::to_string(store->revision()); }},
      {"lose-quorum", plain([store] { store->LoseQuorum(); })},
      {"restore-quorum", plain([store] { store->RestoreQuorum(); })},
      {"stop", plain([store] { store->StopServing(); })},
      {"resume", plain([store] { store->ResumeServing(); })},
      {"hang", plain([store] { store->Hang(); })},
      {"unhang", plain([store] { store->Unhang(); })},
      {"break-watches", plain([store] { store->BreakWatches(); })},
      {"new-incarnation", plain([store] { store->NewIncarnation(); })},
      {"forget-sessions", plain([store] { store->ForgetSessions(); })},
      {"age",
       [store](Line& line) -> std::string {
         absl::Duration age;
         if (!absl::ParseDuration(line.Word(), &age)) return "not a duration";
         store->SetAge(age);
         return "";
       }},
      {"lose-answer", fault([](FaultInjector& f, const auto& m, int n) { f.LoseAnswer(m, n); })},
      {"drop", fault([](FaultInjector& f, const auto& m, int n) { f.Drop(m, n); })},
      {"fail", fault([](FaultInjector& f, const auto& m, int n) {
         f.Fail(m, absl::InternalError("a fault that the test injected"), n);
       })},
      {"calls", [store](Line& line) { return std::to_string(store->calls(line.Word())); }},
      {"refused",
       [store](Line& line) -> std::string {
         const auto report = store->report(line.Word());
         if (!report.has_value() || report->refused_revision == 0) return "(none)";
         return std::to_string(report->refused_revision) + " " + report->refused_why;
       }},
      {"wait-watches",
       [store, yes](Line& line) { return yes(store->WaitForWatches(line.Number(1))); }},
      {"wait-calls",
       [store, yes](Line& line) {
         const std::string method = line.Word();
         return yes(store->WaitForCalls(method, line.Number(1)));
       }},
  };
}

int Main(int argc, char** argv) {
  FakeStore::Options options;
  if (argc == 3 && std::string(argv[1]) == "--members" &&
      absl::SimpleAtoi(argv[2], &options.members) && options.members > 0) {
    argc = 1;
  }
  if (argc != 1) {
    std::cerr << "usage: holdfast-fake-store [--members N]; then commands, one a line\n";
    return 2;
  }
  FakeStore store(options);
  const auto commands = Commands(&store);
  std::cout << "listening " << absl::StrJoin(store.endpoints(), ",") << std::endl;
  for (std::string text; std::getline(std::cin, text);) {
    Line line(text);
    const std::string word = line.Word();
    const auto it = commands.find(word);
    if (it == commands.end()) {
      std::cout << "error unknown command " << word << "; see docs/testing-your-service.md"
                << std::endl;
      continue;
    }
    const std::string result = it->second(line);
    std::cout << "ok" << (result.empty() ? "" : " ") << result << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace holdfast::testing

int main(int argc, char** argv) { return holdfast::testing::Main(argc, argv); }
