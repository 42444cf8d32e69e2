// Every file in testdata/ leaves the trace that stands in it. To look at a difference, or to accept
// one that you can explain: scenario-tool [--rewrite] FILES.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "script.h"
#include "world.h"

namespace holdfast::raft::test {
namespace {

std::vector<std::filesystem::path> ScenarioFiles() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(SCENARIO_DIR)) {
    if (entry.path().extension() == ".scenario") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

class Scenario : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(Scenario, LeavesItsTrace) {
  std::ifstream in(GetParam());
  std::stringstream text;
  text << in.rdbuf();
  ASSERT_TRUE(in);
  const auto script = ParseScript(GetParam().filename().string(), text.str());
  ASSERT_TRUE(script.ok()) << script.status();
  const auto traces = RunScript(*script);
  ASSERT_TRUE(traces.ok()) << traces.status();
  size_t next = 0;
  for (const Block& block : script->blocks) {
    if (!block.is_command) continue;
    EXPECT_EQ((*traces)[next], block.expected)
        << script->file << ":" << block.command.line << ": " << block.text;
    ++next;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, Scenario, testing::ValuesIn(ScenarioFiles()),
                         [](const auto& info) { return info.param.stem().string(); });

TEST(Scenarios, AreThere) { EXPECT_GE(ScenarioFiles().size(), 28u); }

}  // namespace
}  // namespace holdfast::raft::test
