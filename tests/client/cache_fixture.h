// A cache directory for a test, a machine whose clocks and boots the test decides on, and children
// that end when they are told to.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/check.h"
#include "base/clock.h"
#include "client/last_good.h"

namespace holdfast::test {

namespace fs = std::filesystem;

class TempDir {
 public:
  // In memory where that is possible: what is tested is the order of steps, not a disk.
  TempDir() {
    std::string name = (fs::exists("/dev/shm") ? "/dev/shm" : testing::TempDir()) +
                       std::string("/holdfast-cache-XXXXXX");
    CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TempDir() { fs::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

inline void WriteFile(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  CHECK(out.good());
}

// Names of the files that contain `part`, sorted.
inline std::vector<std::string> FilesWith(const std::string& dir, std::string_view part) {
  std::vector<std::string> names;
  for (const auto& item : fs::directory_iterator(dir)) {
    const std::string name = item.path().filename();
    if (name.find(part) != std::string::npos) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Runs `body` in a child. Its exit code is what body returns; a signal that ends it is its negative
// number. A failed EXPECT in there is not seen: return a code.
inline int InChild(const std::function<int()>& body) {
  const pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) _exit(body());
  int status = 0;
  CHECK(waitpid(pid, &status, 0) == pid);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

class Machine {
 public:
  internal::Surroundings surroundings() const {
    return {.clock = clock,
            .wall = [this] { return wall; },
            .boot_id = boot_id,
            .time_namespace = time_namespace};
  }
  void Advance(absl::Duration d) {
    clock->Advance(d);
    wall.now += d;
  }
  // The clock begins anew.
  void Reboot(absl::Duration down) {
    boot_id += "'";
    clock = std::make_shared<base::FakeClock>();
    wall.now += down;
  }

  std::shared_ptr<base::FakeClock> clock = std::make_shared<base::FakeClock>();
  internal::WallReading wall = {.now = absl::FromUnixSeconds(1'700'000'000),
                                .synchronized = true,
                                .error = absl::Milliseconds(20)};
  std::string boot_id = "boot";
  std::string time_namespace = "time:[1]";
};

using Records = std::map<std::string, std::string>;

class CacheTest : public testing::Test {
 protected:
  static constexpr char kPrefix[] = "/config/";

  internal::LastGood::Options options() const {
    internal::LastGood::Options options;
    options.dir = dir_.path();
    options.prefix = kPrefix;
    options.surroundings = machine_.surroundings();
    return options;
  }
  std::unique_ptr<internal::LastGood> Open() const { return Open(options()); }
  static std::unique_ptr<internal::LastGood> Open(internal::LastGood::Options options) {
    auto opened = internal::LastGood::Open(std::move(options));
    CHECK(opened.ok());
    return *std::move(opened);
  }

  // Known to be fresh just now.
  internal::GenerationInfo InfoAt(uint64_t revision,
                                  absl::Duration extra = absl::ZeroDuration()) const {
    return {.cluster_id = 7,
            .incarnation = 9,
            .revision = revision,
            .claim = {.at = machine_.clock->Sample(),
                      .extra = extra,
                      .proof = Proof::kProven,
                      .source = Source::kMirror,
                      .revision = revision}};
  }
  static absl::Status Write(internal::LastGood& last_good, const Records& records,
                            const internal::GenerationInfo& info, bool on_trial = false) {
    return last_good.WriteRecords(
        [&](internal::RecordVisitor visit) {
          for (const auto& [key, value] : records) {
            if (!visit({.key = key,
                        .value = value,
                        .create_revision = 1,
                        .mod_revision = info.revision,
                        .version = 3,
                        .lease = 0})) {
              return;
            }
          }
        },
        info, on_trial);
  }
  static Records RecordsOf(const internal::Loaded& loaded) {
    Records records;
    for (const Entry& entry : loaded.entries) records[entry.key] = entry.value;
    return records;
  }
  absl::Duration AgeOf(const internal::Claim& claim) const {
    return claim.extra + base::Elapsed(claim.at, machine_.clock->Sample());
  }

  TempDir dir_;
  Machine machine_;
};

}  // namespace holdfast::test
