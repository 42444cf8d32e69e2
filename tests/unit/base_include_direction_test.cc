// The folders of the repository may know each other in one direction only (ARCHITECTURE.md): this
// reads every source file and fails on an #include that points elsewhere.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace holdfast {
namespace {

const std::set<std::string> kFolders = {"api",         "base",   "bench",   "client",
                                        "replication", "server", "storage", "tests"};

// Who may include whom, besides itself. bench and tests may include everything.
const std::map<std::string, std::set<std::string>> kArrows = {
    {"base", {}},
    {"storage", {"base"}},
    {"replication", {"storage/log_store.h", "storage/damage.h", "base"}},
    {"server", {"replication", "storage", "api", "base"}},
    {"client", {"api", "base"}},
};

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// The folder an include path leads to; nullopt: not ours.
std::optional<std::string> FolderOf(const std::string& include) {
  if (EndsWith(include, ".pb.h")) return "api";  // generated
  const std::string first = include.substr(0, include.find('/'));
  if (first == "holdfast") return "client";  // client/include: the public headers
  if (kFolders.contains(first) && include.find('/') != std::string::npos) return first;
  return std::nullopt;
}

bool Allowed(const std::string& from, const std::string& include) {
  const auto folder = FolderOf(include);
  if (!folder || *folder == from) return true;
  const auto arrows = kArrows.find(from);
  if (arrows == kArrows.end()) return true;
  return arrows->second.contains(*folder) || arrows->second.contains(include);
}

// "x/y.h" of a line `#include "x/y.h"` or <x/y.h>; empty for any other line.
std::string IncludeOf(const std::string& line) {
  const size_t hash = line.find_first_not_of(" \t");
  if (hash == std::string::npos || line[hash] != '#') return "";
  const size_t word = line.find("include", hash);
  const size_t open = line.find_first_of("\"<", hash);
  if (word == std::string::npos || open == std::string::npos || open < word) return "";
  const size_t close = line.find_first_of("\">", open + 1);
  return close == std::string::npos ? "" : line.substr(open + 1, close - open - 1);
}

TEST(IncludeDirection, IsKeptByEverySourceFile) {
  namespace fs = std::filesystem;
  size_t files = 0, includes = 0;
  for (const auto& [folder, arrows] : kArrows) {
    const fs::path root = fs::path(HOLDFAST_SOURCE_DIR) / folder;
    ASSERT_TRUE(fs::exists(root)) << root;
    for (const fs::directory_entry& file : fs::recursive_directory_iterator(root)) {
      const std::string name = file.path().string();
      if (!file.is_regular_file() || !(EndsWith(name, ".h") || EndsWith(name, ".cc"))) continue;
      ++files;
      std::ifstream in(file.path());
      std::string line;
      for (int number = 1; std::getline(in, line); ++number) {
        const std::string include = IncludeOf(line);
        includes += include.empty() ? 0 : 1;
        EXPECT_TRUE(Allowed(folder, include))
            << name << ":" << number << ": " << folder << "/ must not include " << include;
      }
    }
  }
  EXPECT_GT(files, 20u);
  EXPECT_GT(includes, 100u);
}

TEST(IncludeDirection, TheRulesThemselves) {
  EXPECT_TRUE(Allowed("base", "base/ids.h"));
  EXPECT_TRUE(Allowed("base", "absl/status/status.h"));
  EXPECT_TRUE(Allowed("base", "vector"));
  EXPECT_FALSE(Allowed("base", "storage/log_store.h"));
  EXPECT_FALSE(Allowed("base", "holdfast/raft.pb.h"));
  EXPECT_FALSE(Allowed("storage", "replication/raft_core.h"));
  EXPECT_TRUE(Allowed("replication", "storage/log_store.h"));
  EXPECT_FALSE(Allowed("replication", "storage/mvcc_store.h"));
  EXPECT_FALSE(Allowed("replication", "etcd/rpc.pb.h"));
  EXPECT_FALSE(Allowed("replication", "server/server.h"));
  EXPECT_TRUE(Allowed("server", "etcd/rpc.grpc.pb.h"));
  EXPECT_FALSE(Allowed("server", "client/policy.h"));
  EXPECT_TRUE(Allowed("client", "holdfast/client.h"));
  EXPECT_TRUE(Allowed("client", "holdfast/raft.pb.h"));
  EXPECT_FALSE(Allowed("client", "server/server.h"));
  EXPECT_FALSE(Allowed("client", "bench/keys.h"));
  EXPECT_EQ(IncludeOf("#include \"base/ids.h\"  // why"), "base/ids.h");
  EXPECT_EQ(IncludeOf("  # include <vector>"), "vector");
  EXPECT_EQ(IncludeOf("// include \"x/y.h\""), "");
}

}  // namespace
}  // namespace holdfast
