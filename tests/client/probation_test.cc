// What a crash leaves behind: a process that dies while it has just begun to serve new data, and
// what the next one does. The processes are this program itself, started anew.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "holdfast/client.h"
#include "holdfast/testing/fake_store.h"

namespace holdfast {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

// --- the service ---
// ENDPOINT DIR PROBATION WANTED END: serves until it shows WANTED in /c/k ("-": whatever is there
// at once), prints what it serves, and ends: "clean", "crash", or "good" (clean, once the copy on
// disk is past its probation).
int Service(int argc, char** argv) {
  if (argc != 7) return 2;
  absl::Duration probation;
  if (!absl::ParseDuration(argv[4], &probation)) return 2;
  const std::string wanted = argv[5];
  const std::string end = argv[6];
  auto client = Client::Open(
      {.endpoints = {argv[2]},
       .prefixes = {{"/c/", Policy::FailStatic().Probation(probation).Disk(argv[3])}}});
  if (!client.ok()) {
    std::cout << "open: " << client.status() << std::endl;
    return 1;
  }
  Mirror& mirror = *(*client)->mirror("/c/");
  const absl::Time deadline = absl::Now() + kPatience;
  const auto value = [&mirror] {
    const auto read = mirror.Get("/c/k");
    return !read.ok() ? std::string("error") : read->value ? read->value->value : "none";
  };
  while (wanted != "-" && value() != wanted && absl::Now() < deadline) {
    std::this_thread::yield();
  }
  std::cout << value() << std::endl;
  if (end == "crash") abort();
  if (end == "terminated") raise(SIGTERM);
  if (end == "refused") {
    while (mirror.status().refused_revision == 0 && absl::Now() < deadline) {
      std::this_thread::yield();
    }
    std::cout << (mirror.status().fresh.superseded() ? "superseded " : "current ") << value()
              << std::endl;
    if (mirror.status().refused_revision == 0) return 1;
  }
  if (end == "accept") {
    mirror.MarkAccepted(mirror.status().refused_revision);
  }
  return 0;
}

class ProbationTest : public ::testing::Test {
 protected:
  ProbationTest() {
    std::string dir = ::testing::TempDir() + "probationXXXXXX";
    dir_ = mkdtemp(dir.data());
  }
  ~ProbationTest() override { std::filesystem::remove_all(dir_); }

  // The lines that the service printed.
  std::vector<std::string> Run(const std::string& probation, const std::string& wanted,
                               const std::string& end) {
    const std::string command = absl::StrCat(
        "exec ", std::filesystem::read_symlink("/proc/self/exe").string(), " service ",
        store_.endpoints()[0], " ", dir_, " ", probation, " ", wanted, " ", end, " 2>/dev/null");
    FILE* out = popen(command.c_str(), "r");
    std::string text;
    std::array<char, 4096> buffer;
    while (const size_t n = fread(buffer.data(), 1, buffer.size(), out)) {
      text.append(buffer.data(), n);
    }
    pclose(out);
    return absl::StrSplit(text, '\n', absl::SkipEmpty());
  }

  using Lines = std::vector<std::string>;
  testing::FakeStore store_;
  std::string dir_;
};

TEST_F(ProbationTest, WhatCrashedAProcessIsNotServedByTheNext) {
  store_.Put("/c/k", "good");
  store_.Put("/c/other", "1");
  EXPECT_EQ(Run("0s", "good", "clean"), Lines{"good"});
  store_.Put("/c/k", "bad");
  EXPECT_EQ(Run("1h", "bad", "crash"), Lines{"bad"});
  // The store is up and still says "bad": it is refused, and the one before it served.
  EXPECT_EQ(Run("1h", "good", "refused"), (Lines{"good", "superseded good"}));
  // Another change beside it does not make it good.
  store_.Put("/c/other", "2");
  EXPECT_EQ(Run("1h", "good", "refused"), (Lines{"good", "superseded good"}));
  // A mended value is.
  store_.Put("/c/k", "mended");
  EXPECT_EQ(Run("1h", "mended", "clean"), Lines{"mended"});
}

TEST_F(ProbationTest, AnOrderlyEndIsNoCrash) {
  store_.Put("/c/k", "good");
  EXPECT_EQ(Run("0s", "good", "clean"), Lines{"good"});
  store_.Put("/c/k", "new");
  EXPECT_EQ(Run("1h", "new", "clean"), Lines{"new"});
  EXPECT_EQ(Run("1h", "new", "clean"), Lines{"new"});
}

// A rollout: the process is told to end, and has no handler of its own for that.
TEST_F(ProbationTest, BeingToldToEndIsNoCrash) {
  store_.Put("/c/k", "good");
  EXPECT_EQ(Run("0s", "good", "clean"), Lines{"good"});
  store_.Put("/c/k", "new");
  EXPECT_EQ(Run("1h", "new", "terminated"), Lines{"new"});
  EXPECT_EQ(Run("1h", "new", "terminated"), Lines{"new"});
  EXPECT_EQ(Run("1h", "new", "clean"), Lines{"new"});
}

TEST_F(ProbationTest, WithTheStoreGoneTheGenerationBeforeTheCrashIsServed) {
  store_.Put("/c/k", "good");
  EXPECT_EQ(Run("0s", "good", "clean"), Lines{"good"});
  store_.Put("/c/k", "bad");
  EXPECT_EQ(Run("1h", "bad", "crash"), Lines{"bad"});
  store_.StopServing();
  EXPECT_EQ(Run("1h", "-", "clean"), Lines{"good"});
}

// With nothing older there is nothing better: refusing everything would only make it worse.
TEST_F(ProbationTest, TheVeryFirstDataIsServedAgainAfterACrash) {
  store_.Put("/c/k", "first");
  EXPECT_EQ(Run("1h", "first", "crash"), Lines{"first"});
  EXPECT_EQ(Run("1h", "first", "crash"), Lines{"first"});
  EXPECT_EQ(Run("1h", "first", "clean"), Lines{"first"});
}

}  // namespace
}  // namespace holdfast

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "service") return holdfast::Service(argc, argv);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
