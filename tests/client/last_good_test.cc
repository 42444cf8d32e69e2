// The copies on disk: whatever happens to the process, the disk or the clock, what is read back is
// a whole generation that was once written, and its age is never too small. Drills 4, 5, 8, 14.
#include "client/last_good.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "base/frames.h"
#include "base/rng.h"
#include "base/strings.h"
#include "client/cache_directory.h"
#include "client/generation_file.h"
#include "client/stored_claim.h"
#include "tests/client/cache_fixture.h"

namespace holdfast::internal {
namespace {

namespace fs = test::fs;
using test::CacheTest;
using test::FilesWith;
using test::InChild;
using test::ReadFile;
using test::Records;
using test::WriteFile;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

const Records kOld = {{"/config/a", "1"}, {"/config/b", std::string("\0\xff", 2)}};
const Records kNew = {{"/config/a", "2"}, {"/config/c", ""}};

uint64_t SeedOfRun() {
  const char* seed = std::getenv("HOLDFAST_SEED");
  return seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10);
}

Suspect Put(const std::string& key, const std::string& value) {
  return {key, base::DigestOfContent(key, value)};
}

class LastGoodTest : public CacheTest {
 protected:
  // kOld at 10, then kNew at 20, both good.
  void WriteTwo() {
    auto last_good = Open();
    ASSERT_TRUE(Write(*last_good, kOld, InfoAt(10)).ok());
    ASSERT_TRUE(Write(*last_good, kNew, InfoAt(20)).ok());
  }
  absl::StatusOr<Loaded> Load() { return Open()->Load(nullptr); }
  std::string Newest() { return dir_.path() + "/" + Generations().back(); }
  std::vector<std::string> Generations() {
    std::vector<std::string> names = FilesWith(dir_.path(), ".0000");
    return names;
  }
};

// ------------------------------------------------------------------------- what is written is read

TEST_F(LastGoodTest, WhatWasWrittenIsReadBackWithItsAge) {
  WriteTwo();
  machine_.Advance(absl::Seconds(30));
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(RecordsOf(*loaded), kNew);
  EXPECT_EQ(loaded->entries[0].mod_revision, 20U);
  EXPECT_EQ(loaded->entries[0].create_revision, 1U);
  EXPECT_EQ(loaded->entries[0].version, 3U);
  EXPECT_EQ(loaded->info.cluster_id, 7U);
  EXPECT_EQ(loaded->info.incarnation, 9U);
  EXPECT_EQ(loaded->info.revision, 20U);
  EXPECT_EQ(loaded->generation, 2U);
  EXPECT_TRUE(loaded->good);
  EXPECT_EQ(loaded->info.claim.source, Source::kDisk);
  EXPECT_EQ(loaded->info.claim.proof, Proof::kProven);
  EXPECT_GE(AgeOf(loaded->info.claim), absl::Seconds(30));
  EXPECT_LT(AgeOf(loaded->info.claim), absl::Seconds(31));
  EXPECT_THAT(loaded->passed_over, IsEmpty());
}

TEST_F(LastGoodTest, AnEmptyPrefixIsACopyToo) {
  {
    auto last_good = Open();
    ASSERT_TRUE(Write(*last_good, {}, InfoAt(10)).ok());
  }
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(loaded->entries, IsEmpty());
  EXPECT_EQ(loaded->info.revision, 10U);
}

TEST_F(LastGoodTest, ManyBlocksAreReadBackInOrder) {
  Records many;
  for (int i = 0; i < 3000; ++i) {
    many["/config/" + std::to_string(i)] = std::string(static_cast<size_t>(i % 700), 'v');
  }
  many["/config/large"] = std::string(3 * kGenerationBlockBytes, 'x');
  {
    auto last_good = Open();
    ASSERT_TRUE(Write(*last_good, many, InfoAt(10)).ok());
  }
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(RecordsOf(*loaded), many);
}

TEST_F(LastGoodTest, NothingThereIsNotFound) {
  const auto loaded = Load();
  EXPECT_TRUE(absl::IsNotFound(loaded.status())) << loaded.status();
}

TEST_F(LastGoodTest, FilesAreForThisUserAlone) {
  const mode_t mask = umask(0);
  LastGood::Options deep = options();
  deep.dir += "/made/for/it";
  auto last_good = CacheTest::Open(deep);
  ASSERT_TRUE(Write(*last_good, kOld, InfoAt(10)).ok());
  ASSERT_TRUE(last_good->NoteClaim(InfoAt(10)).ok());
  umask(mask);
  struct stat info;
  ASSERT_EQ(stat((dir_.path() + "/made").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
  const std::vector<std::string> files = FilesWith(deep.dir, "");
  EXPECT_THAT(files, SizeIs(4));  // generation, claim, lock, trial
  for (const std::string& name : files) {
    ASSERT_EQ(stat((deep.dir + "/" + name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600U) << name;
  }
}

TEST_F(LastGoodTest, PrefixesShareADirectory) {
  LastGood::Options other = options();
  other.prefix = "/config";  // a name much like the other's
  {
    auto a = Open();
    auto b = CacheTest::Open(other);
    ASSERT_TRUE(Write(*a, kOld, InfoAt(10)).ok());
    ASSERT_TRUE(Write(*b, kNew, InfoAt(20)).ok());
  }
  EXPECT_EQ(RecordsOf(*Load()), kOld);
  EXPECT_EQ(RecordsOf(*CacheTest::Open(other)->Load(nullptr)), kNew);
}

TEST_F(LastGoodTest, NamesAreBoundedAndTellPrefixesApart) {
  std::set<std::string> stems;
  const std::vector<std::string> prefixes = {"",
                                             "/",
                                             "//",
                                             "/a/b",
                                             "/a_b",
                                             "/a/b/",
                                             std::string(5000, 'x'),
                                             std::string(5001, 'x'),
                                             "..",
                                             "./",
                                             std::string("\0", 1),
                                             "\xff\xfe"};
  for (const std::string& prefix : prefixes) {
    const std::string stem = CacheStem(prefix);
    EXPECT_LE(stem.size(), 57U);
    EXPECT_EQ(stem.find_first_of("./"), std::string::npos) << stem;
    stems.insert(stem);
  }
  EXPECT_EQ(stems.size(), prefixes.size());
  EXPECT_THAT(CacheStem("/config/edge/"), testing::StartsWith("config_edge-"));
}

TEST_F(LastGoodTest, KeysOutOfOrderOrOfAnotherPrefixAreRefused) {
  auto last_good = Open();
  EXPECT_TRUE(absl::IsInvalidArgument(Write(*last_good, {{"/other", "1"}}, InfoAt(10))));
  const auto twice = [](RecordVisitor visit) {
    if (visit({.key = "/config/a"})) visit({.key = "/config/a"});
  };
  EXPECT_TRUE(absl::IsInvalidArgument(last_good->WriteRecords(twice, InfoAt(10), false)));
  EXPECT_THAT(Generations(), IsEmpty());
}

// ----------------------------------------------------------------------------------------- damage

TEST_F(LastGoodTest, NoFlippedBitIsEverRead) {
  WriteTwo();
  const std::string sound = ReadFile(Newest());
  ASSERT_LT(sound.size(), 1000U);
  for (size_t bit = 0; bit < 8 * sound.size(); ++bit) {
    std::string flipped = sound;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    WriteFile(Newest(), flipped);
    ASSERT_FALSE(ReadGenerationContent(Newest(), true).ok()) << "bit " << bit;
    if (bit % 61 != 0) continue;
    const auto loaded = Load();
    ASSERT_TRUE(loaded.ok()) << "bit " << bit << ": " << loaded.status();
    ASSERT_EQ(RecordsOf(*loaded), kOld);
    ASSERT_THAT(loaded->passed_over, SizeIs(1));
  }
  EXPECT_THAT(Generations(), SizeIs(2)) << "a reader removes nothing";
}

TEST_F(LastGoodTest, NoCutOffFileIsEverRead) {
  WriteTwo();
  const std::string sound = ReadFile(Newest());
  for (size_t length = 0; length < sound.size(); ++length) {
    WriteFile(Newest(), sound.substr(0, length));
    const auto loaded = Load();
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    ASSERT_EQ(RecordsOf(*loaded), kOld) << "cut to " << length;
  }
  WriteFile(Newest(), sound + '\0');
  EXPECT_EQ(RecordsOf(*Load()), kOld) << "something follows the end";
  WriteFile(Newest(), sound);
  EXPECT_EQ(RecordsOf(*Load()), kNew);
}

TEST_F(LastGoodTest, NoRandomDamageIsEverRead) {
  WriteTwo();
  const std::string sound = ReadFile(Newest());
  const uint64_t seed = SeedOfRun();
  SCOPED_TRACE(testing::Message() << "HOLDFAST_SEED=" << seed);
  base::Rng rng(seed);
  for (int i = 0; i < 5000; ++i) {
    std::string bytes = sound;
    for (uint64_t n = 1 + rng.Below(8); n > 0; --n) {
      const size_t at = rng.Below(bytes.size());
      switch (rng.Below(3)) {
        case 0:
          bytes[at] = static_cast<char>(rng.Next());
          break;
        case 1:
          bytes.erase(at, 1 + rng.Below(40));
          break;
        default:
          bytes.insert(at, bytes.substr(rng.Below(bytes.size()), rng.Below(60)));
      }
      if (bytes.empty()) bytes = "x";
    }
    if (bytes == sound) continue;
    WriteFile(Newest(), bytes);
    ASSERT_FALSE(ReadGenerationContent(Newest(), true).ok()) << "round " << i;
  }
}

// Every block sound by itself, and yet not the file that was written.
TEST_F(LastGoodTest, SoundBlocksOfAnotherFileAreNotRead) {
  WriteTwo();
  const std::vector<std::string> names = Generations();
  const auto frames = [&](const std::string& name) {
    const std::string bytes = ReadFile(dir_.path() + "/" + name);
    base::FrameReader reader(base::SourceOf(bytes));
    std::vector<std::string> all;
    std::string frame;
    while (*reader.Next(&frame)) all.push_back(frame);
    return all;
  };
  const std::vector<std::string> old = frames(names[0]), now = frames(names[1]);
  ASSERT_THAT(now, SizeIs(3));
  for (const std::vector<std::string>& mixed :
       {std::vector{now[0], old[1], now[2]}, std::vector{old[0], now[1], now[2]},
        std::vector{now[0], now[2]}, std::vector{now[0], now[1], now[1], now[2]},
        std::vector{now[0], now[1], old[2]}, std::vector{now[1], now[0], now[2]},
        std::vector{now[0], now[1], now[2], now[2]}}) {
    std::string bytes;
    base::FrameWriter writer([&](std::string_view piece) {
      bytes += piece;
      return absl::OkStatus();
    });
    for (const std::string& frame : mixed) ASSERT_TRUE(writer.Write(frame).ok());
    WriteFile(Newest(), bytes);
    EXPECT_FALSE(ReadGenerationContent(Newest(), true).ok());
    EXPECT_EQ(RecordsOf(*Load()), kOld);
  }
}

TEST_F(LastGoodTest, ACopyUnderAnothersNameIsNotRead) {
  WriteTwo();
  const std::string sound = ReadFile(Newest());
  LastGood::Options other = options();
  other.prefix = "/other/";
  WriteFile(dir_.path() + "/" + CacheStem("/other/") + ".000000000005.good", sound);
  const auto loaded = CacheTest::Open(other)->Load(nullptr);
  EXPECT_TRUE(absl::IsNotFound(loaded.status()));
  EXPECT_THAT(std::string(base::Message(loaded.status())), HasSubstr("of the prefix /config/"));
  WriteFile(dir_.path() + "/" + CacheStem(kPrefix) + ".000000000009.good", sound);
  EXPECT_EQ(Load()->generation, 2U);
}

TEST_F(LastGoodTest, AFileOfALaterFormatIsPassedOverAndNeverRemoved) {
  WriteTwo();
  std::string later;
  base::FrameWriter writer([&](std::string_view piece) {
    later += piece;
    return absl::OkStatus();
  });
  std::string header = "last-good";
  base::AppendBigEndian32(header, kGenerationFormat + 1);
  ASSERT_TRUE(writer.Write(header + "whatever").ok());
  const std::string path = dir_.path() + "/" + CacheStem(kPrefix) + ".000000000003.good";
  WriteFile(path, later);
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(RecordsOf(*loaded), kNew);
  EXPECT_THAT(loaded->passed_over, ElementsAre(HasSubstr("a later version wrote it")));
  auto last_good = Open();
  for (uint64_t r = 30; r < 40; ++r) ASSERT_TRUE(Write(*last_good, kNew, InfoAt(r)).ok());
  EXPECT_EQ(ReadFile(path), later);
  EXPECT_THAT(Generations(), SizeIs(4));
}

TEST_F(LastGoodTest, WhatIsNoFileIsPassedOver) {
  WriteTwo();
  const std::string stem = dir_.path() + "/" + CacheStem(kPrefix);
  fs::create_directory(stem + ".000000000007.good");
  ASSERT_EQ(mkfifo((stem + ".000000000008.good").c_str(), 0600), 0);
  fs::create_symlink("/nowhere", stem + ".000000000009.good");
  EXPECT_EQ(RecordsOf(*Load()), kNew);
}

TEST_F(LastGoodTest, DamagedFilesPushNoGoodOneOut) {
  {
    auto last_good = Open();
    for (uint64_t r = 1; r <= 3; ++r) ASSERT_TRUE(Write(*last_good, kOld, InfoAt(r)).ok());
  }
  for (const std::string& name : Generations()) {
    if (name.find("001.good") == std::string::npos) WriteFile(dir_.path() + "/" + name, "gone");
  }
  auto last_good = Open();
  ASSERT_TRUE(Write(*last_good, kNew, InfoAt(4)).ok());
  EXPECT_THAT(Generations(), SizeIs(4)) << "the two damaged ones are left for people to look at";
  EXPECT_EQ(
      ReadGeneration(dir_.path() + "/" + Generations()[0], machine_.surroundings())->info.revision,
      1U);
  for (uint64_t r = 5; r <= 6; ++r) ASSERT_TRUE(Write(*last_good, kNew, InfoAt(r)).ok());
  EXPECT_THAT(Generations(), SizeIs(3)) << "older than all that are kept";
}

// --------------------------------------------------------------------------------- ends and faults

// The process ends before each step of writing, one after the other.
TEST_F(LastGoodTest, EndingAtAnyStepOfWritingLosesNothing) {
  ASSERT_TRUE(Write(*Open(), kOld, InfoAt(10)).ok());
  std::vector<std::string> reached;
  int code = 1;
  for (int last = 1; code != 0; ++last) {
    ASSERT_LT(last, 100);
    code = InChild([&] {
      LastGood::Options dying = options();
      int step = 0;
      dying.before_step = [&](std::string_view) {
        if (++step == last) _exit(1);
        return 0;
      };
      auto last_good = CacheTest::Open(dying);
      return Write(*last_good, kNew, InfoAt(20)).ok() ? 0 : 2;
    });
    ASSERT_NE(code, 2);
    const auto loaded = Load();
    ASSERT_TRUE(loaded.ok()) << "step " << last << ": " << loaded.status();
    ASSERT_TRUE(RecordsOf(*loaded) == kOld || RecordsOf(*loaded) == kNew) << "step " << last;
    if (code == 0) {
      EXPECT_EQ(RecordsOf(*loaded), kNew);
    }
  }
  EXPECT_THAT(FilesWith(dir_.path(), ".part"), IsEmpty());
}

TEST_F(LastGoodTest, FailingAtAnyStepOfWritingLosesNothing) {
  ASSERT_TRUE(Write(*Open(), kOld, InfoAt(10)).ok());
  for (const int error : {ENOSPC, EIO, EROFS, EDQUOT}) {
    std::string at;
    LastGood::Options failing = options();
    failing.before_step = [&](std::string_view step) { return step == at ? error : 0; };
    auto last_good = CacheTest::Open(failing);
    for (const std::string step : {"create", "write", "sync", "rename", "sync directory"}) {
      at = step;
      const absl::Status status = Write(*last_good, kNew, InfoAt(20));
      const bool full = error == ENOSPC || error == EDQUOT;
      EXPECT_EQ(absl::IsResourceExhausted(status), full) << status;
      EXPECT_FALSE(status.ok());
      EXPECT_THAT(FilesWith(dir_.path(), ".part"), IsEmpty());
      // Not known to be on the disk is not the same as not there.
      if (step != "sync directory") {
        EXPECT_EQ(RecordsOf(*Load()), kOld) << step;
      }
    }
    at.clear();
    EXPECT_TRUE(Write(*last_good, kOld, InfoAt(30)).ok()) << "and it goes on when there is room";
  }
}

TEST_F(LastGoodTest, ARealFullDiskIsResourceExhausted) {
  ASSERT_TRUE(Write(*Open(), kOld, InfoAt(10)).ok());
  EXPECT_EQ(InChild([&] {
              auto last_good = Open();
              signal(SIGXFSZ, SIG_IGN);
              const rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
              if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
              const Records large = {{"/config/a", std::string(3 << 20, 'x')}};
              if (!absl::IsResourceExhausted(Write(*last_good, large, InfoAt(20)))) return 3;
              return RecordsOf(*last_good->Load(nullptr)) == kOld ? 0 : 4;
            }),
            0);
  EXPECT_THAT(FilesWith(dir_.path(), ".part"), IsEmpty());
}

TEST_F(LastGoodTest, ADirectoryThatCanOnlyBeReadIsRead) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become somebody else";
  WriteTwo();
  constexpr uid_t kNobody = 65534;
  for (const auto& item : fs::directory_iterator(dir_.path())) {
    ASSERT_EQ(chown(item.path().c_str(), kNobody, kNobody), 0);
  }
  ASSERT_EQ(chmod(dir_.path().c_str(), 0555), 0);
  EXPECT_EQ(InChild([&] {
              if (setuid(kNobody) != 0) return 2;
              auto last_good = LastGood::Open(options());
              if (!last_good.ok()) return 3;
              const auto loaded = (*last_good)->Load(nullptr);
              if (!loaded.ok() || RecordsOf(*loaded) != kNew) return 4;
              if (!absl::IsPermissionDenied(Write(**last_good, kOld, InfoAt(30)))) return 5;
              const absl::Status noted = (*last_good)->NoteTrial({Put("/config/a", "3")}, {});
              return absl::IsPermissionDenied(noted) ? 0 : 6;
            }),
            0);
  EXPECT_EQ(InChild([&] {
              if (chmod(dir_.path().c_str(), 0) != 0 || setuid(kNobody) != 0) return 2;
              const auto last_good = LastGood::Open(options());
              return absl::IsPermissionDenied(last_good.status()) ? 0 : 3;
            }),
            0);
}

class KillTest : public LastGoodTest {};

// kill -9, a thousand times, whenever; on a machine that is busy with other things, as often as
// there is time for.
TEST_F(KillTest, AtAnyTimeNothingAcknowledgedIsLost) {
  struct Shared {
    std::atomic<uint64_t> begun = 0;
    std::atomic<uint64_t> done = 0;
  };
  void* memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* shared = new (memory) Shared;
  const uint64_t seed = SeedOfRun();
  SCOPED_TRACE(testing::Message() << "HOLDFAST_SEED=" << seed);
  base::Rng rng(seed);
  const auto records_of = [](uint64_t revision) {
    Records records;
    for (int i = 0; i < 20; ++i) {
      records["/config/" + std::to_string(i)] = std::string(500, static_cast<char>(revision));
    }
    return records;
  };
  const absl::Time enough = absl::Now() + absl::Seconds(60);
  int kills = 0;
  for (; kills < 1000 && (kills < 20 || absl::Now() < enough); ++kills) {
    const uint64_t before = shared->begun;
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      auto last_good = Open();
      for (;;) {
        const uint64_t revision = ++shared->begun;
        if (!Write(*last_good, records_of(revision), InfoAt(revision)).ok()) _exit(1);
        if (!last_good->NoteClaim(InfoAt(revision)).ok()) _exit(1);
        shared->done = revision;
      }
    }
    // Mostly within the first few writes, wherever they are.
    while (shared->begun == before) sched_yield();
    for (uint64_t spin = rng.Below(200'000); spin > 0; --spin)
      std::atomic_signal_fence(std::memory_order_seq_cst);
    kill(pid, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child failed by itself";
    const auto loaded = Load();
    if (shared->done == 0 && !loaded.ok()) continue;  // nothing was ever acknowledged
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    ASSERT_GE(loaded->info.revision, shared->done);
    ASSERT_LE(loaded->info.revision, shared->begun);
    ASSERT_EQ(RecordsOf(*loaded), records_of(loaded->info.revision));
    ASSERT_THAT(loaded->passed_over, IsEmpty());
  }
  {
    auto last_good = Open();
    ASSERT_TRUE(last_good->Load(nullptr).ok());
    ASSERT_TRUE(Write(*last_good, kNew, InfoAt(shared->begun + 1)).ok());
  }
  EXPECT_LE(FilesWith(dir_.path(), "").size(), 5U)
      << "piled up: " << testing::PrintToString(FilesWith(dir_.path(), ""));
  EXPECT_GT(shared->done, 0U);
  RecordProperty("kills", kills);
  munmap(memory, sizeof(Shared));
}

// --------------------------------------------------------------------------------------- the age

struct AgeRow {
  const char* what;
  std::function<void(test::Machine&)> then;
  Proof proof;
  absl::Duration at_least;
};

class AgeTest : public LastGoodTest, public testing::WithParamInterface<AgeRow> {};

// Freshness 7, the table. All are written with an age of 5 s, and 60 s pass.
TEST_P(AgeTest, AsFreshnessSevenSays) {
  ASSERT_TRUE(Write(*Open(), kOld, InfoAt(10, absl::Seconds(5))).ok());
  GetParam().then(machine_);
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << "the data is served whatever its age";
  const Claim& claim = loaded->info.claim;
  EXPECT_EQ(claim.proof, GetParam().proof);
  if (claim.proof == Proof::kUnknown) {
    EXPECT_EQ(claim.extra, absl::InfiniteDuration());
    return;
  }
  EXPECT_GE(AgeOf(claim), GetParam().at_least);
  EXPECT_LT(AgeOf(claim), GetParam().at_least + absl::Seconds(1));
  machine_.Advance(absl::Hours(1));
  EXPECT_GE(AgeOf(claim), GetParam().at_least + absl::Hours(1)) << "it goes on growing";
}

INSTANTIATE_TEST_SUITE_P(
    Table, AgeTest,
    testing::Values(AgeRow{"same_boot", [](test::Machine& m) { m.Advance(absl::Minutes(1)); },
                           Proof::kProven, absl::Seconds(65)},
                    AgeRow{"wall_set_back_in_the_same_boot",
                           [](test::Machine& m) {
                             m.Advance(absl::Minutes(1));
                             m.wall.now -= absl::Hours(1);
                           },
                           Proof::kProven, absl::Seconds(65)},
                    AgeRow{"wall_not_synchronized_in_the_same_boot",
                           [](test::Machine& m) {
                             m.Advance(absl::Minutes(1));
                             m.wall.synchronized = false;
                           },
                           Proof::kProven, absl::Seconds(65)},
                    AgeRow{"other_boot", [](test::Machine& m) { m.Reboot(absl::Minutes(1)); },
                           Proof::kEstimated, absl::Seconds(65)},
                    AgeRow{"other_boot_errors_add_up",
                           [](test::Machine& m) {
                             m.Reboot(absl::Minutes(1));
                             m.wall.error = absl::Seconds(3);
                           },
                           Proof::kEstimated, absl::Seconds(68)},
                    AgeRow{"other_boot_whose_clock_is_further",
                           [](test::Machine& m) {
                             m.Reboot(absl::Minutes(1));
                             m.clock->Advance(absl::Hours(200));
                           },
                           Proof::kEstimated, absl::Seconds(65)},
                    AgeRow{"other_boot_wall_an_hour_back",
                           [](test::Machine& m) {
                             m.Reboot(absl::Minutes(1));
                             m.wall.now -= absl::Hours(1);
                           },
                           Proof::kUnknown,
                           {}},
                    AgeRow{"other_boot_not_synchronized",
                           [](test::Machine& m) {
                             m.Reboot(absl::Minutes(1));
                             m.wall.synchronized = false;
                           },
                           Proof::kUnknown,
                           {}},
                    AgeRow{"other_boot_error_unknown",
                           [](test::Machine& m) {
                             m.Reboot(absl::Minutes(1));
                             m.wall.error = absl::InfiniteDuration();
                           },
                           Proof::kUnknown,
                           {}},
                    AgeRow{"other_time_namespace",
                           [](test::Machine& m) {
                             m.Advance(absl::Minutes(1));
                             m.time_namespace = "time:[2]";
                           },
                           Proof::kEstimated, absl::Seconds(65)},
                    AgeRow{"a_namespace_name_given_out_again",
                           [](test::Machine& m) {
                             m.clock = std::make_shared<base::FakeClock>();
                             m.clock->Advance(-absl::Milliseconds(900));
                             m.wall.now += absl::Minutes(1);
                           },
                           Proof::kEstimated, absl::Seconds(65)},
                    AgeRow{"boot_id_cannot_be_read",
                           [](test::Machine& m) {
                             m.Advance(absl::Minutes(1));
                             m.boot_id = "";
                           },
                           Proof::kEstimated, absl::Seconds(65)},
                    AgeRow{"wall_gained_a_second",
                           [](test::Machine& m) {
                             m.Advance(absl::Minutes(1));
                             m.wall.now += absl::Seconds(1);
                           },
                           Proof::kProven, absl::Seconds(65)},
                    AgeRow{"wall_gained_a_minute",
                           [](test::Machine& m) {
                             m.Advance(absl::Minutes(1));
                             m.wall.now += absl::Minutes(1);
                           },
                           Proof::kEstimated, absl::Seconds(125)},
                    AgeRow{"wall_gained_a_minute_not_synchronized",
                           [](test::Machine& m) {
                             m.Advance(absl::Minutes(1));
                             m.wall.now += absl::Minutes(1);
                             m.wall.synchronized = false;
                             m.wall.error = absl::InfiniteDuration();
                           },
                           Proof::kEstimated, absl::Seconds(125)}),
    [](const auto& row) { return row.param.what; });

TEST_F(LastGoodTest, WrittenWithoutASynchronizedClockIsUnknownAfterAReboot) {
  machine_.wall.synchronized = false;
  ASSERT_TRUE(Write(*Open(), kOld, InfoAt(10)).ok());
  machine_.wall.synchronized = true;
  EXPECT_EQ(Load()->info.claim.proof, Proof::kProven);
  machine_.Reboot(absl::Minutes(1));
  EXPECT_EQ(Load()->info.claim.proof, Proof::kUnknown);
}

TEST_F(LastGoodTest, WithoutABootIdNothingIsProvenLater) {
  machine_.boot_id = "";
  ASSERT_TRUE(Write(*Open(), kOld, InfoAt(10)).ok());
  EXPECT_EQ(Load()->info.claim.proof, Proof::kEstimated);
}

TEST_F(LastGoodTest, AnyLaterWallTimeOnDiskTellsThatTheClockWentBack) {
  ASSERT_TRUE(Write(*Open(), kOld, InfoAt(10)).ok());
  // Another generation, which cannot be used, was written an hour later.
  machine_.Advance(absl::Hours(1));
  ASSERT_TRUE(Write(*Open(), kNew, InfoAt(20)).ok());
  std::string bytes = ReadFile(Newest());
  bytes.back() = static_cast<char>(~bytes.back());
  WriteFile(Newest(), bytes);
  machine_.Reboot(absl::ZeroDuration());
  EXPECT_EQ(Load()->info.claim.proof, Proof::kEstimated);
  machine_.wall.now -= absl::Minutes(30);
  EXPECT_EQ(Load()->info.revision, 10U);
  EXPECT_EQ(Load()->info.claim.proof, Proof::kUnknown);
}

TEST_F(LastGoodTest, WhatWasOnlyEstimatedWhenWrittenIsNeverProvenLater) {
  GenerationInfo info = InfoAt(10);
  info.claim.proof = Proof::kEstimated;
  ASSERT_TRUE(Write(*Open(), kOld, info).ok());
  EXPECT_EQ(Load()->info.claim.proof, Proof::kEstimated);
  info.claim = Claim{};
  ASSERT_TRUE(Write(*Open(), kNew, info).ok());
  EXPECT_EQ(Load()->info.claim.proof, Proof::kUnknown);
}

TEST_F(LastGoodTest, TheRealMachineHasASurroundings) {
  const Surroundings real = Surroundings::OfThisMachine();
  EXPECT_FALSE(real.boot_id.empty());
  EXPECT_EQ(real.boot_id, Surroundings::OfThisMachine().boot_id);
  EXPECT_THAT(real.time_namespace, HasSubstr("time:["));
  EXPECT_LT(absl::AbsDuration(real.wall().now - absl::Now()), absl::Seconds(10));
  LastGood::Options real_options = options();
  real_options.surroundings = real;
  GenerationInfo info = InfoAt(10);
  info.claim.at = real.clock->Sample();
  ASSERT_TRUE(Write(*CacheTest::Open(real_options), kOld, info).ok());
  const auto loaded = CacheTest::Open(real_options)->Load(nullptr);
  EXPECT_EQ(loaded->info.claim.proof, Proof::kProven);
}

// ------------------------------------------------------------------------------- the side record

TEST_F(LastGoodTest, ANewerClaimMakesTheAgeSmaller) {
  auto last_good = Open();
  ASSERT_TRUE(Write(*last_good, kOld, InfoAt(10)).ok());
  machine_.Advance(absl::Minutes(1));
  ASSERT_TRUE(last_good->NoteClaim(InfoAt(10)).ok());
  machine_.Advance(absl::Seconds(3));
  EXPECT_LT(AgeOf(Load()->info.claim), absl::Seconds(4));
  EXPECT_GE(AgeOf(Load()->info.claim), absl::Seconds(3));
  // Known to be unchanged up to a later revision.
  GenerationInfo later = InfoAt(10);
  later.claim.revision = 50;
  ASSERT_TRUE(last_good->NoteClaim(later).ok());
  EXPECT_EQ(Load()->info.revision, 10U);
  EXPECT_EQ(Load()->info.claim.revision, 50U);
  // After a reboot the wall clock's reading in the side record counts.
  machine_.Reboot(absl::Minutes(5));
  EXPECT_EQ(Load()->info.claim.proof, Proof::kEstimated);
  EXPECT_LT(AgeOf(Load()->info.claim), absl::Minutes(5) + absl::Seconds(1));
}

TEST_F(LastGoodTest, AClaimOfOtherDataDoesNotCount) {
  auto last_good = Open();
  ASSERT_TRUE(Write(*last_good, kOld, InfoAt(10)).ok());
  machine_.Advance(absl::Minutes(1));
  GenerationInfo other = InfoAt(10);
  other.incarnation = 1;
  ASSERT_TRUE(last_good->NoteClaim(other).ok());
  ASSERT_TRUE(last_good->NoteClaim(InfoAt(11)).ok());
  EXPECT_GE(AgeOf(Load()->info.claim), absl::Minutes(1));
  // Nor does one that was for the generation before.
  ASSERT_TRUE(last_good->NoteClaim(InfoAt(10)).ok());
  EXPECT_LT(AgeOf(Load()->info.claim), absl::Seconds(1));
  ASSERT_TRUE(Write(*last_good, kNew, InfoAt(20, absl::Hours(1))).ok());
  EXPECT_GE(AgeOf(Load()->info.claim), absl::Hours(1));
}

TEST_F(LastGoodTest, ClaimsReachTheDiskOnceASecondAndTheLastAtTheEnd) {
  LastGood::Options counting = options();
  int written = 0;
  counting.before_step = [&](std::string_view step) {
    written += step == "claim" ? 1 : 0;
    return 0;
  };
  auto last_good = CacheTest::Open(counting);
  ASSERT_TRUE(Write(*last_good, kOld, InfoAt(10)).ok());
  for (int i = 0; i < 95; ++i) {
    machine_.Advance(absl::Milliseconds(100));
    ASSERT_TRUE(last_good->NoteClaim(InfoAt(10)).ok());
  }
  EXPECT_EQ(written, 10);
  last_good.reset();
  EXPECT_EQ(written, 11);
  EXPECT_LT(AgeOf(Load()->info.claim), absl::Milliseconds(10));
}

TEST_F(LastGoodTest, ADamagedClaimMakesTheAgeLargerNeverSmaller) {
  auto last_good = Open();
  ASSERT_TRUE(Write(*last_good, kOld, InfoAt(10)).ok());
  for (int i = 0; i < 2; ++i) {
    machine_.Advance(absl::Minutes(1));
    ASSERT_TRUE(last_good->NoteClaim(InfoAt(10)).ok());
  }
  machine_.Advance(absl::Minutes(1));
  const std::string path = dir_.path() + "/" + FilesWith(dir_.path(), ".claim").at(0);
  const std::string sound = ReadFile(path);
  for (size_t bit = 0; bit < 8 * sound.size(); ++bit) {
    std::string flipped = sound;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    WriteFile(path, flipped);
    const auto loaded = last_good->Load(nullptr);
    ASSERT_TRUE(loaded.ok());
    ASSERT_GE(AgeOf(loaded->info.claim), absl::Minutes(1)) << "bit " << bit;
    ASSERT_LT(AgeOf(loaded->info.claim), absl::Minutes(2) + absl::Seconds(1)) << "bit " << bit;
  }
  for (size_t length = 0; length < sound.size(); ++length) {
    WriteFile(path, sound.substr(0, length));
    ASSERT_GE(AgeOf(last_good->Load(nullptr)->info.claim), absl::Minutes(1)) << length;
  }
}

// ----------------------------------------------------------------------------- trials and suspects

class TrialTest : public LastGoodTest {
 protected:
  // A process that loads, does something, and dies of it.
  void Crash(const std::function<void(LastGood&)>& then) {
    ASSERT_EQ(InChild([&] {
                auto last_good = Open();
                (void)last_good->Load(nullptr);
                then(*last_good);
                _exit(3);  // nothing is taken back
                return 0;
              }),
              3);
  }
};

TEST_F(TrialTest, ACrashOnTrialMakesItsChangesSuspect) {
  WriteTwo();
  Crash([&](LastGood& it) {
    it.NoteTrial({Put("/config/a", "3"), {"/config/c", {}}}, {}).IgnoreError();
  });
  for (int start = 0; start < 3; ++start) {
    const auto loaded = Load();
    ASSERT_TRUE(loaded.ok());
    EXPECT_EQ(RecordsOf(*loaded), kNew) << "which was good, and is without them";
    EXPECT_THAT(loaded->suspects, ElementsAre(Put("/config/a", "3"), Suspect{"/config/c", {}}));
    EXPECT_EQ(loaded->crashes, 0);
  }
  ASSERT_TRUE(Open()->ForgetSuspects().ok());
  EXPECT_THAT(Load()->suspects, IsEmpty());
}

TEST_F(TrialTest, TheLastTrialReplacesTheOneBefore) {
  Crash([&](LastGood& it) {
    it.NoteTrial({Put("/config/a", "3")}, {}).IgnoreError();
    it.NoteTrial({}, {}).IgnoreError();
  });
  Crash([&](LastGood& it) {
    for (int i = 0; i < 5; ++i)
      it.NoteTrial({Put("/config/a", std::to_string(i))}, {}).IgnoreError();
  });
  ASSERT_TRUE(Write(*Open(), kOld, InfoAt(10)).ok());
  EXPECT_THAT(Load()->suspects, ElementsAre(Put("/config/a", "4")));
}

TEST_F(TrialTest, TooManyChangesAreNamedByTheirSet) {
  WriteTwo();
  const base::RecordDigest set{.low = 4, .high = 5};
  Crash([&](LastGood& it) { it.NoteTrial({}, set).IgnoreError(); });
  EXPECT_EQ(Load()->suspect_set, set);
  std::vector<Suspect> many(60'000, Put("/config/a", "3"));
  EXPECT_TRUE(absl::IsInvalidArgument(Open()->NoteTrial(many, {})));
}

TEST_F(TrialTest, AGenerationOnTrialIsPassedOverAfterACrash) {
  WriteTwo();
  const Records bad = {{"/config/a", "bad"}, {"/config/c", ""}};
  Crash([&](LastGood& it) {
    it.NoteTrial({Put("/config/a", "bad")}, {}).IgnoreError();
    Write(it, bad, InfoAt(30), true).IgnoreError();
  });
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(RecordsOf(*loaded), kNew);
  EXPECT_THAT(loaded->passed_over, ElementsAre(HasSubstr("ended while it was on trial")));
  EXPECT_THAT(loaded->suspects, ElementsAre(Put("/config/a", "bad")));
  // A second crash, with nothing on trial, does not go back further.
  Crash([](LastGood&) {});
  EXPECT_EQ(RecordsOf(*Load()), kNew);
}

// Whenever it ends: either the new generation cannot be found, or it is found to be on trial.
TEST_F(TrialTest, EndingAtAnyStepOfWritingOnTrialIsACrashOnTrial) {
  WriteTwo();
  int code = 1;
  for (int last = 1; code != 0; ++last) {
    ASSERT_LT(last, 100);
    code = InChild([&] {
      LastGood::Options dying = options();
      int step = 0;
      dying.before_step = [&](std::string_view) {
        if (++step == last) _exit(1);
        return 0;
      };
      auto last_good = CacheTest::Open(dying);
      return Write(*last_good, kOld, InfoAt(30), true).ok() ? 0 : 2;
    });
    ASSERT_NE(code, 2);
    EXPECT_EQ(Load()->info.revision, code == 0 ? 30U : 20U) << "step " << last;
  }
}

TEST_F(TrialTest, TwoCrashesGoBackTwiceOnlyIfTheSecondWasUnprovenToo) {
  ASSERT_TRUE(Write(*Open(), kOld, InfoAt(10)).ok());
  // An orderly end leaves this one unproven, and not suspect.
  ASSERT_TRUE(Write(*Open(), kNew, InfoAt(20), true).ok());
  Crash([&](LastGood& it) { Write(it, {{"/config/z", "z"}}, InfoAt(30), true).IgnoreError(); });
  auto loaded = Load();
  EXPECT_EQ(RecordsOf(*loaded), kNew);
  EXPECT_FALSE(loaded->good);
  Crash([](LastGood&) {});  // it loaded what was unproven
  EXPECT_EQ(RecordsOf(*Load()), kOld);
  Crash([](LastGood&) {});  // and this was good
  EXPECT_EQ(RecordsOf(*Load()), kOld);
}

TEST_F(TrialTest, AnOrderlyEndIsNoCrash) {
  WriteTwo();
  {
    auto last_good = Open();
    ASSERT_TRUE(last_good->NoteTrial({Put("/config/a", "3")}, {}).ok());
    ASSERT_TRUE(Write(*last_good, kOld, InfoAt(30), true).ok());
  }
  const auto loaded = Load();
  EXPECT_EQ(loaded->info.revision, 30U);
  EXPECT_FALSE(loaded->good);
  EXPECT_THAT(loaded->suspects, IsEmpty());
  EXPECT_THAT(FilesWith(dir_.path(), ".trial"), IsEmpty());
}

TEST_F(TrialTest, WhatIsOnTrialInALivingProcessIsNotSuspect) {
  WriteTwo();
  auto alive = Open();
  ASSERT_TRUE(alive->NoteTrial({Put("/config/a", "3")}, {}).ok());
  ASSERT_TRUE(Write(*alive, kOld, InfoAt(30), true).ok());
  auto loaded = Load();
  EXPECT_EQ(loaded->info.revision, 30U);
  EXPECT_THAT(loaded->suspects, IsEmpty());
  // The other process loads what is unproven, and dies: that is its own trial.
  Crash([](LastGood&) {});
  EXPECT_EQ(Load()->info.revision, 20U);
  ASSERT_TRUE(alive->MarkGood(30).ok());
  EXPECT_EQ(Load()->info.revision, 30U) << "proven since, as a whole";
}

TEST_F(TrialTest, MarkedGoodIsGoodAfterACrash) {
  WriteTwo();
  Crash([&](LastGood& it) {
    Write(it, kOld, InfoAt(30), true).IgnoreError();
    it.MarkGood(29).IgnoreError();  // of nothing
  });
  EXPECT_EQ(Load()->info.revision, 20U);
  Crash([&](LastGood& it) {
    Write(it, kOld, InfoAt(31), true).IgnoreError();
    it.MarkGood(35).IgnoreError();
  });
  EXPECT_EQ(Load()->info.revision, 31U);
  EXPECT_TRUE(Load()->good);
}

TEST_F(TrialTest, MarkGoodIsOfThisIncarnationOnly) {
  auto last_good = Open();
  ASSERT_TRUE(Write(*last_good, kOld, InfoAt(100), true).ok());
  GenerationInfo restored = InfoAt(30);
  restored.incarnation = 10;
  ASSERT_TRUE(Write(*last_good, kNew, restored, true).ok());
  ASSERT_TRUE(last_good->MarkGood(100).ok());
  EXPECT_THAT(FilesWith(dir_.path(), ".good"), ElementsAre(HasSubstr("002.good")));
}

TEST_F(TrialTest, TheOnlyCopyIsOfferedAfterACrashWithAWarning) {
  const Records bad = {{"/config/a", "bad"}};
  Crash([&](LastGood& it) {
    it.NoteTrial({Put("/config/a", "bad"), Put("/config/b", "worse")}, {}).IgnoreError();
    Write(it, bad, InfoAt(30), true).IgnoreError();
  });
  auto last_good = Open();
  auto loaded = last_good->Load([](const Loaded& candidate) {
    return candidate.crashes > 0 ? absl::AbortedError("defaults are better") : absl::OkStatus();
  });
  EXPECT_TRUE(absl::IsNotFound(loaded.status()));
  EXPECT_THAT(std::string(base::Message(loaded.status())), HasSubstr("defaults are better"));
  loaded = last_good->Load(nullptr);
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(RecordsOf(*loaded), bad);
  EXPECT_EQ(loaded->crashes, 1);
  EXPECT_THAT(loaded->suspects, ElementsAre(Put("/config/b", "worse"))) << "what is not in it";
  // It did no harm this time.
  ASSERT_TRUE(last_good->MarkGood(30).ok());
  last_good.reset();
  EXPECT_EQ(Load()->crashes, 0);
  EXPECT_TRUE(Load()->good);
}

TEST_F(TrialTest, EachCrashOnTheOnlyCopyIsCounted) {
  Crash([&](LastGood& it) { Write(it, kOld, InfoAt(30), true).IgnoreError(); });
  for (int crashes = 1; crashes < 30; ++crashes) {
    EXPECT_EQ(Load()->crashes, std::min(crashes, 16));
    Crash([](LastGood&) {});
  }
  EXPECT_LE(FilesWith(dir_.path(), ".trial").size(), 17U) << "they are bounded";
}

TEST_F(TrialTest, AGenerationThatHoldsASuspectIsPassedOverWhoeverWroteIt) {
  WriteTwo();
  auto writer = Open();
  ASSERT_TRUE(Write(*writer, {{"/config/a", "bad"}}, InfoAt(30)).ok());
  Crash([&](LastGood& it) { it.NoteTrial({Put("/config/a", "bad")}, {}).IgnoreError(); });
  EXPECT_EQ(Load()->info.revision, 20U);
  // Of a whole set likewise.
  ASSERT_TRUE(writer->ForgetSuspects().ok());
  EXPECT_EQ(Load()->info.revision, 30U);
  Crash([&](LastGood& it) {
    it.NoteTrial({}, base::DigestOfContent("/config/a", "bad")).IgnoreError();
  });
  EXPECT_EQ(Load()->info.revision, 20U);
}

TEST_F(TrialTest, ACandidateMayBeRejected) {
  WriteTwo();
  std::vector<uint64_t> asked;
  auto last_good = Open();
  const auto loaded = last_good->Load([&](const Loaded& candidate) {
    asked.push_back(candidate.info.revision);
    return candidate.info.revision == 20 ? absl::InvalidArgumentError("no parse")
                                         : absl::OkStatus();
  });
  EXPECT_THAT(asked, ElementsAre(20, 10));
  EXPECT_EQ(RecordsOf(*loaded), kOld);
  EXPECT_THAT(loaded->passed_over, ElementsAre(HasSubstr("no parse")));
}

TEST_F(TrialTest, ADamagedTrialIsTheOneBeforeOrNone) {
  WriteTwo();
  Crash([&](LastGood& it) {
    it.NoteTrial({Put("/config/a", "3")}, {}).IgnoreError();
    it.NoteTrial({Put("/config/a", "4")}, {}).IgnoreError();
  });
  const std::string path = dir_.path() + "/" + FilesWith(dir_.path(), ".trial").at(0);
  const std::string sound = ReadFile(path);
  base::Rng rng(SeedOfRun());
  const size_t slot = sound.find(std::string("\0\0\0\0\0\0\0\2", 8), 1 << 20) - 8;
  for (size_t bit = 0; bit < 8 * 60; ++bit) {
    std::string flipped = sound;
    flipped[slot + bit / 8] = static_cast<char>(flipped[slot + bit / 8] ^ (1 << (bit % 8)));
    WriteFile(path, flipped);
    const auto loaded = Load();
    ASSERT_TRUE(loaded.ok());
    ASSERT_THAT(loaded->suspects, SizeIs(1));
    ASSERT_TRUE(loaded->suspects[0] == Put("/config/a", "3") ||
                loaded->suspects[0] == Put("/config/a", "4"));
  }
}

TEST_F(TrialTest, ATrialIsNotedInAChildOfItsOwn) {
  WriteTwo();
  auto parent = Open();
  ASSERT_TRUE(parent->NoteTrial({Put("/config/a", "parent")}, {}).ok());
  ASSERT_TRUE(Write(*parent, kOld, InfoAt(30)).ok());
  EXPECT_EQ(InChild([&] {
              if (!parent->NoteTrial({Put("/config/a", "child")}, {}).ok()) return 1;
              if (!Write(*parent, kNew, InfoAt(40)).ok() || parent->writes()) return 2;
              return 3;
            }),
            3);
  EXPECT_TRUE(parent->writes());
  const auto loaded = Load();
  EXPECT_EQ(loaded->info.revision, 30U);
  EXPECT_THAT(loaded->suspects, ElementsAre(Put("/config/a", "child")));
}

// ------------------------------------------------------------------------------ pruning and
// sharing

TEST_F(LastGoodTest, KeepsThree) {
  auto last_good = Open();
  for (uint64_t r = 1; r <= 5; ++r) ASSERT_TRUE(Write(*last_good, kOld, InfoAt(r)).ok());
  EXPECT_THAT(Generations(),
              ElementsAre(HasSubstr("003.good"), HasSubstr("004.good"), HasSubstr("005.good")));
}

// A change every second, and a probation of sixty: one of them must get through it.
TEST_F(LastGoodTest, WhereDataChangesAllTheTimeTheGoodOneStillMovesOn) {
  for (const int keep : {1, 2, 3, 5}) {
    LastGood::Options few = options();
    few.keep_generations = keep;
    few.prefix = "/" + std::to_string(keep);
    auto last_good = CacheTest::Open(few);
    ASSERT_TRUE(Write(*last_good, {}, InfoAt(1)).ok());
    uint64_t good = 1;
    for (uint64_t r = 2; r <= 300; ++r) {
      ASSERT_TRUE(Write(*last_good, {}, InfoAt(r), true).ok());
      if (r > 60) {
        ASSERT_TRUE(last_good->MarkGood(r - 60).ok());
      }
      const auto all = ListGenerations(dir_.path(), machine_.surroundings());
      size_t here = 0;
      for (const GenerationListing& one : *all) {
        if (one.prefix != few.prefix) continue;
        ++here;
        if (one.good) good = std::max(good, one.info.revision);
      }
      ASSERT_LE(here, static_cast<size_t>(std::max(keep, 3)));
      ASSERT_GE(good + 125, r);
    }
    // A last one that is good at once leaves no more than asked for.
    ASSERT_TRUE(Write(*last_good, {}, InfoAt(301)).ok());
    EXPECT_EQ(FilesWith(dir_.path(), CacheStem(few.prefix) + ".0").size(),
              static_cast<size_t>(keep));
  }
}

TEST_F(LastGoodTest, OneThatNobodyWillProveDoesNotTakeTheRoom) {
  ASSERT_TRUE(Write(*Open(), kOld, InfoAt(1)).ok());
  ASSERT_TRUE(Write(*Open(), kOld, InfoAt(2), true).ok());
  auto last_good = Open();
  ASSERT_EQ(last_good
                ->Load([](const Loaded& candidate) {
                  return candidate.good ? absl::OkStatus() : absl::AbortedError("no");
                })
                ->info.revision,
            1U);
  for (uint64_t r = 3; r <= 6; ++r) ASSERT_TRUE(Write(*last_good, kOld, InfoAt(r), true).ok());
  EXPECT_THAT(Generations(), ElementsAre(HasSubstr("001.good"), HasSubstr("003.unproven"),
                                         HasSubstr("006.unproven")));
  ASSERT_TRUE(last_good->MarkGood(5).ok());
  ASSERT_TRUE(Write(*last_good, kOld, InfoAt(7), true).ok());
  EXPECT_THAT(Generations(), ElementsAre(HasSubstr("003.good"), HasSubstr("006.unproven"),
                                         HasSubstr("007.unproven")));
}

TEST_F(LastGoodTest, OneOfTwoProcessesWritesAndTheOtherTakesOver) {
  auto a = Open();
  auto b = Open();
  ASSERT_TRUE(Write(*a, kOld, InfoAt(10)).ok());
  ASSERT_TRUE(b->Load(nullptr).ok());
  EXPECT_TRUE(Write(*b, kNew, InfoAt(20)).ok()) << "that is no trouble";
  EXPECT_TRUE(a->writes());
  EXPECT_FALSE(b->writes());
  EXPECT_EQ(Load()->info.revision, 10U);
  EXPECT_THAT(Generations(), SizeIs(1));
  a.reset();
  ASSERT_TRUE(Write(*b, kNew, InfoAt(20)).ok());
  EXPECT_TRUE(b->writes());
  EXPECT_EQ(Load()->info.revision, 20U);
  EXPECT_EQ(Load()->generation, 2U);
}

// It may be cut off from a store that the other one can reach.
TEST_F(LastGoodTest, AWriterThatHasNothingToWriteLeavesItsPart) {
  auto a = Open();
  auto b = Open();
  ASSERT_TRUE(Write(*a, kOld, InfoAt(10)).ok());
  machine_.Advance(absl::Seconds(9));
  ASSERT_TRUE(a->NoteClaim(InfoAt(10)).ok());
  machine_.Advance(absl::Milliseconds(500));
  ASSERT_TRUE(a->NoteClaim(InfoAt(10)).ok());  // too soon to be written
  machine_.Advance(absl::Seconds(9));
  ASSERT_TRUE(a->PollOverride().ok());
  ASSERT_TRUE(Write(*b, kNew, InfoAt(20)).ok());
  EXPECT_FALSE(b->writes()) << "claims show that it is alive";
  machine_.Advance(absl::Seconds(2));
  ASSERT_TRUE(a->PollOverride().ok());
  EXPECT_FALSE(a->writes());
  EXPECT_LT(AgeOf(Load()->info.claim), absl::Seconds(12)) << "the last claim is written";
  ASSERT_TRUE(Write(*b, kNew, InfoAt(20)).ok());
  EXPECT_TRUE(b->writes());
  machine_.Advance(absl::Seconds(2));
  ASSERT_TRUE(b->NoteClaim(InfoAt(20)).ok());
  // The first one comes back, with what is no longer the newest, and then with what is.
  ASSERT_TRUE(a->NoteClaim(InfoAt(10)).ok());
  b.reset();
  ASSERT_TRUE(a->NoteClaim(InfoAt(10)).ok());
  EXPECT_LT(AgeOf(Load()->info.claim), absl::Seconds(1)) << "b's claim stands";
  ASSERT_TRUE(Write(*a, kOld, InfoAt(30)).ok());
  ASSERT_TRUE(a->NoteClaim(InfoAt(30)).ok());
  EXPECT_EQ(Load()->info.revision, 30U);
}

TEST_F(LastGoodTest, AKilledWritersPartIsFreeAtOnce) {
  EXPECT_EQ(InChild([&] {
              auto last_good = Open();
              if (!Write(*last_good, kOld, InfoAt(10)).ok()) return 1;
              kill(getpid(), SIGKILL);
              return 2;
            }),
            -SIGKILL);
  auto last_good = Open();
  ASSERT_TRUE(Write(*last_good, kNew, InfoAt(20)).ok());
  EXPECT_TRUE(last_good->writes());
  EXPECT_EQ(Load()->info.revision, 20U);
}

TEST_F(LastGoodTest, AClaimIsNotGivenToAGenerationThatAnotherWrote) {
  ASSERT_TRUE(Write(*Open(), kOld, InfoAt(10)).ok());
  auto b = Open();
  ASSERT_TRUE(b->Load(nullptr).ok());
  {
    auto a = Open();
    ASSERT_TRUE(Write(*a, kNew, InfoAt(20)).ok());
    ASSERT_TRUE(a->NoteClaim(InfoAt(20)).ok());
  }
  machine_.Advance(absl::Minutes(1));
  ASSERT_TRUE(b->NoteClaim(InfoAt(10)).ok());
  EXPECT_GE(AgeOf(Load()->info.claim), absl::Minutes(1));
  EXPECT_EQ(Load()->info.revision, 20U);
}

TEST_F(LastGoodTest, TwoProcessesAtOnce) {
  std::vector<pid_t> children;
  for (int child = 0; child < 2; ++child) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid != 0) {
      children.push_back(pid);
      continue;
    }
    for (uint64_t r = 1; r <= 100; ++r) {
      auto last_good = Open();
      const Records all = {{"/config/a", std::to_string(r)}, {"/config/b", std::to_string(r)}};
      if (!Write(*last_good, all, InfoAt(r), r % 2 == 0).ok()) _exit(1);
      if (!last_good->MarkGood(r).ok()) _exit(2);
      const auto loaded = last_good->Load(nullptr);
      if (loaded.ok()) {
        Records read = RecordsOf(*loaded);
        if (read["/config/a"] != read["/config/b"]) _exit(3);
      } else if (r > 1) {
        _exit(4);
      }
    }
    _exit(0);
  }
  for (const pid_t pid : children) {
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }
  EXPECT_LE(Generations().size(), 4U);
}

// ------------------------------------------------------------------------------------- listing

TEST_F(LastGoodTest, ListingSaysWhatIsThereAndChangesNothing) {
  WriteTwo();
  WriteFile(Newest(), ReadFile(Newest()).substr(0, 300));
  EXPECT_EQ(InChild([&] {
              auto last_good = Open();
              _exit(Write(*last_good, kNew, InfoAt(30), true).ok() ? 3 : 1);
              return 0;
            }),
            3);
  const std::vector<std::string> before = FilesWith(dir_.path(), "");
  const auto all = ListGenerations(dir_.path(), machine_.surroundings());
  ASSERT_TRUE(all.ok());
  ASSERT_THAT(*all, SizeIs(3));
  EXPECT_TRUE((*all)[0].health.ok());
  EXPECT_FALSE((*all)[0].good);
  EXPECT_EQ((*all)[0].crashes, 1);
  EXPECT_EQ((*all)[0].records, 2U);
  EXPECT_EQ((*all)[0].prefix, "/config/");
  EXPECT_TRUE(absl::IsDataLoss((*all)[1].health)) << (*all)[1].health;
  EXPECT_EQ((*all)[1].info.revision, 20U) << "its header can be read";
  EXPECT_TRUE((*all)[2].good);
  EXPECT_EQ(FilesWith(dir_.path(), ""), before);
}

}  // namespace
}  // namespace holdfast::internal
