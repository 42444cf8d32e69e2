// The language: what is understood, what is refused and how, and that nothing makes it crash.
#include "script.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "args.h"
#include "base/rng.h"
#include "base/strings.h"
#include "world.h"

namespace holdfast::raft::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string ErrorOf(const std::string& text) {
  const auto script = ParseScript("f", text);
  if (!script.ok()) return std::string(base::Message(script.status()));
  const auto traces = RunScript(*script);
  return traces.ok() ? "" : std::string(base::Message(traces.status()));
}

TEST(Script, HasCommandsTracesAndComments) {
  const auto script = ParseScript("f", "# why\n\n> silently propose 1 \"a b\" c\n  one\n  two\n");
  ASSERT_TRUE(script.ok()) << script.status();
  ASSERT_EQ(script->blocks.size(), 3u);
  EXPECT_FALSE(script->blocks[0].is_command);
  const Command& command = script->blocks[2].command;
  EXPECT_EQ(command.line, 3);
  EXPECT_TRUE(command.silent);
  EXPECT_EQ(command.name, "propose");
  EXPECT_THAT(command.words, ElementsAre("1", "a b", "c"));
  EXPECT_THAT(script->blocks[2].expected, ElementsAre("one", "two"));
}

TEST(Script, RewritingKeepsAllButTheTraces) {
  const auto script = ParseScript("f", "# why\n> a\n  old\n\n> b x\n# then\n");
  ASSERT_TRUE(script.ok());
  EXPECT_EQ(RenderScript(*script, {{"new", "more"}, {}}),
            "# why\n> a\n  new\n  more\n\n> b x\n# then\n");
}

TEST(Script, SaysWhereAndWhatIsWrong) {
  EXPECT_EQ(ErrorOf("> cluster 3\nstray\n").substr(0, 4), "f:2:");
  EXPECT_THAT(ErrorOf("  trace\n"), HasSubstr("f:1: a trace stands directly below its command"));
  EXPECT_THAT(ErrorOf("> cluster 3\n\n  trace\n"), HasSubstr("f:3:"));
  EXPECT_THAT(ErrorOf("> \n"), HasSubstr("a command is missing"));
  EXPECT_THAT(ErrorOf("> propose 1 \"a\n"), HasSubstr("a quote is not closed"));
  EXPECT_THAT(ErrorOf("> a\tb\n"), HasSubstr("control character"));
  EXPECT_THAT(ErrorOf("> " + std::string(kMaxLineBytes, 'x')), HasSubstr("too long"));
  EXPECT_THAT(ErrorOf(std::string(kMaxScriptLines + 1, '\n')), HasSubstr("too long"));
  EXPECT_THAT(ErrorOf("> cluster 3\n> jump 1\n"), HasSubstr("f:2: 'jump' is no command"));
}

TEST(Commands, SayWhatIsWrongWithTheirArguments) {
  const std::string three = "> cluster 3\n> ";
  EXPECT_THAT(ErrorOf("> cluster\n"), HasSubstr("VOTERS is missing"));
  EXPECT_THAT(ErrorOf("> cluster 0\n"), HasSubstr("a cluster has voters"));
  EXPECT_THAT(ErrorOf("> cluster 3 election=1\n"), HasSubstr("at least 3 heartbeats"));
  EXPECT_THAT(ErrorOf("> cluster 3 color=1\n"), HasSubstr("color= is not known here"));
  EXPECT_THAT(ErrorOf("> cluster 3 spares=1 spares=2\n"), HasSubstr("stands there twice"));
  EXPECT_THAT(ErrorOf("> campaign 1\n"), HasSubstr("there is no member 1"));
  EXPECT_THAT(ErrorOf(three + "campaign 4\n"), HasSubstr("f:2: campaign ID: there is no member 4"));
  EXPECT_THAT(ErrorOf(three + "campaign 1 2\n"), HasSubstr("'2' is too much"));
  EXPECT_THAT(ErrorOf(three + "campaign one\n"), HasSubstr("must be a number"));
  EXPECT_THAT(ErrorOf(three + "tick 1 99999999999\n"), HasSubstr("must be a number up to"));
  EXPECT_THAT(ErrorOf(three + "deliver 1-2\n"), HasSubstr("must be like 1->2"));
  EXPECT_THAT(ErrorOf(three + "deliver all type=letter\n"), HasSubstr("is no type of message"));
  EXPECT_THAT(ErrorOf(three + "process-log 1\n"), HasSubstr("not held"));
  EXPECT_THAT(ErrorOf(three + "compact 1 5\n"), HasSubstr("only what is applied"));
  EXPECT_THAT(ErrorOf(three + "snapshot 1->2\n"), HasSubstr("only a leader"));
  EXPECT_THAT(ErrorOf(three + "restart 1\n"), HasSubstr("is running"));
  EXPECT_THAT(ErrorOf(three + "crash 1\n> campaign 1\n"), HasSubstr("member 1 is crashed"));
  EXPECT_THAT(ErrorOf(three + "given 1 log=2,1\n"), HasSubstr("terms rise"));
  EXPECT_THAT(ErrorOf(three + "given 1 log=1x99999\n"), HasSubstr("log= must be like"));
  EXPECT_THAT(ErrorOf(three + "change-members 1 marry 2\n"), HasSubstr("'marry' is no change"));
  EXPECT_THAT(ErrorOf(three + "set-members 1 voters=1,2 learners=2\n"),
              HasSubstr("cannot be both"));
}

// Bytes of any kind.
TEST(Script, GarbageIsRefusedNotCrashedOn) {
  base::Rng rng(20260101);
  const std::string pieces = "> \n  #\"=,->silently 19x\t\x01\xff";
  for (int run = 0; run < 20'000; ++run) {
    std::string text;
    for (uint64_t n = rng.Below(60); n > 0; --n) {
      text += rng.OneIn(8) ? static_cast<char>(rng.Next()) : pieces[rng.Below(pieces.size())];
    }
    (void)ErrorOf(text);
  }
}

std::string RandomWord(base::Rng& rng) {
  static const std::vector<std::string> kWords = {
      "1",          "2",           "3",      "4",           "5",
      "6",          "0",           "9",      "all",         "1,2",
      "1->2",       "2->1",        "->3",    "3->",         "timeout",
      "disk",       "apply",       "ready",  "fetch",       "add",
      "remove",     "promote",     "demote", "add-learner", "replace",
      "update",     "ok",          "failed", "urgent",      "\"b c\"",
      "voters=1,2", "voters=",     "a",      "voters=4",    "voters=1,2,4 learners=3",
      "index=1",    "type=append", "=",      "type=vote",   "applied=1",
      "bytes=50",   "spares=1",    "=1",     "x=",          "log=1x3,2",
      "term=4"};
  return kWords[rng.Below(kWords.size())];
}

// Most of the time something that is likely to be understood, so that the cluster gets somewhere.
std::string RandomLine(base::Rng& rng) {
  const std::string a = std::to_string(1 + rng.Below(6)), b = std::to_string(1 + rng.Below(6));
  const std::vector<std::string> likely = {"stabilize",
                                           "stabilize",
                                           "stabilize",
                                           "stabilize 1,2,3,4",
                                           "release disk all",
                                           "release ready all",
                                           "release apply all",
                                           "release fetch all",
                                           "restart " + b,
                                           "heal",
                                           "deliver all",
                                           "tick all",
                                           "tick " + a + " timeout",
                                           "campaign " + a,
                                           "propose " + a + " x y",
                                           "read " + a,
                                           "probe " + a,
                                           "crash " + a,
                                           "restart " + a,
                                           "drop " + a + "->",
                                           "repeat all",
                                           "isolate " + a,
                                           "heal",
                                           "heal",
                                           "change-members " + a + " add " + b,
                                           "change-members " + a + " remove " + b,
                                           "change-members " + a + " demote " + b,
                                           "change-members " + a + " promote " + b,
                                           "change-members " + a + " replace " + b + " " + a,
                                           "set-members " + a + " voters=1,2,3,4",
                                           "transfer " + a + " " + b,
                                           "compact " + a + " " + b,
                                           "snapshot " + a + "->" + b,
                                           "report " + a + "->" + b + " 3 ok",
                                           "hold disk " + a,
                                           "release disk " + a,
                                           "hold apply " + a,
                                           "release apply " + a,
                                           "process-log " + a,
                                           "unreachable " + a + " " + b};
  if (!rng.OneIn(3)) return likely[rng.Below(likely.size())];
  const auto table = World::Commands();
  std::string line(table[rng.Below(table.size())].first);
  for (uint64_t n = rng.Below(4); n > 0; --n) line += " " + RandomWord(rng);
  return line;
}

// Every command with any words, in any order: most are refused, and the rest is a cluster under
// very odd treatment. Without "cluster", which would begin anew, and "given": two logs that never
// could be of one cluster are no fault of the core's.
TEST(Commands, AnySequenceIsRefusedOrCarriedOut) {
  uint64_t refused = 0, carried_out = 0, leaders = 0, changes = 0;
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    base::Rng rng(seed);
    World world;
    std::string history;
    const auto run = [&](const std::string& line) {
      const auto script = ParseScript("f", "> " + line + "\n");
      if (!script.ok()) return;
      const auto trace = world.Run(script->blocks[0].command);
      ASSERT_NE(trace.status().code(), absl::StatusCode::kInternal)
          << trace.status() << " seed " << seed << "\n"
          << history << line;
      ++(trace.ok() ? carried_out : refused);
      if (!trace.ok()) return;
      history += line + "\n";
      for (const std::string& said : *trace) {
        leaders += said.find(" is leader at term ") != std::string::npos ? 1 : 0;
        changes += said.find(" has members(") != std::string::npos ? 1 : 0;
      }
    };
    run("cluster 3 learners=1 spares=2");
    for (int i = 0; i < 300; ++i) {
      const std::string line = RandomLine(rng);
      if (line.starts_with("cluster") || line.starts_with("given")) continue;
      run(line);
      if (HasFatalFailure()) return;
    }
  }
  // A test that gets nowhere tests nothing.
  EXPECT_GT(refused, 50'000u);
  EXPECT_GT(carried_out, 100'000u);
  EXPECT_GT(leaders, 800u);
  EXPECT_GT(changes, 1'000u);
}

}  // namespace
}  // namespace holdfast::raft::test
