// Rot and wiped disks are repaired while writes go on; a majority that is lost for good; a planned
// restart of every member under load.
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "base/rng.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// Writes one key after the other until told to stop; remembers what was acknowledged, and the
// longest time between two acknowledgements.
class Writer {
 public:
  explicit Writer(const std::vector<std::string>& endpoints) : client_(OpenClient(endpoints)) {
    thread_ = std::thread([this] { Run(); });
  }
  ~Writer() { Stop(); }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // After Stop.
  const std::set<std::string>& acked() const { return acked_; }
  double longest_gap_ms() const { return longest_gap_ms_; }
  int failed() const { return failed_; }

 private:
  void Run() {
    auto last = Clock::now();
    for (int n = 0; !stop_; ++n) {
      const std::string key = fmt::format("/w/{:07}", n);
      if (client_->Put(key, std::string(200, 'v')).ok()) {
        acked_.insert(key);
        const auto now = Clock::now();
        longest_gap_ms_ = std::max(longest_gap_ms_,
                                   std::chrono::duration<double, std::milli>(now - last).count());
        last = now;
      } else {
        ++failed_;
      }
    }
  }

  std::unique_ptr<Client> client_;
  std::atomic<bool> stop_{false};
  std::set<std::string> acked_;
  double longest_gap_ms_ = 0;
  int failed_ = 0;
  std::thread thread_;
};

void FlipBit(const fs::path& path, uint64_t offset) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  ASSERT_TRUE(file.is_open()) << path;
  file.seekg(static_cast<std::streamoff>(offset));
  const int byte = file.get();
  ASSERT_NE(byte, EOF) << path;
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(static_cast<char>(byte ^ 1));
  ASSERT_TRUE(file.good());
}

// All files below `dir` whose name `fits`, by name.
std::vector<fs::path> Files(const fs::path& dir,
                            const std::function<bool(const std::string&)>& fits) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (entry.is_regular_file() && fits(entry.path().filename().string())) {
      found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

ProgramEnd Ctl(const std::string& endpoint, std::vector<std::string> args) {
  args.insert(args.begin(), {bench::BinaryBesideOwn("holdfastctl"), "--endpoints", endpoint});
  return RunToEnd(args);
}

// Whole text of the member's log file.
std::string LogOf(bench::LocalCluster& cluster, int i) {
  std::ifstream in(cluster.log_file(i));
  return {std::istreambuf_iterator<char>(in), {}};
}

size_t Count(const std::string& text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

std::vector<std::string> AsidesOf(const bench::LocalCluster& cluster, int i) {
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(cluster.data_dir(i))) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("damaged-")) found.push_back(name);
  }
  return found;
}

// The id under which the cluster knows the member at i's peer port.
std::string IdOf(const bench::LocalCluster& cluster, int ask, int i) {
  const std::string list = Ctl(cluster.endpoint(ask), {"member", "list"}).output;
  const size_t at = list.find(fmt::format(":{},", cluster.peer_port(i)));
  if (at == std::string::npos) {
    ADD_FAILURE() << list;
    return "";
  }
  const size_t line = list.rfind('\n', at) + 1;
  return list.substr(line, list.find(',', line) - line);
}

// Waits until the cluster has `members` members, all started, none a learner, none `gone`.
bool WaitForVoters(const bench::LocalCluster& cluster, int ask, size_t members,
                   const std::string& gone = "?") {
  std::string last;
  for (const absl::Time give_up = absl::Now() + kGiveUp; absl::Now() < give_up;) {
    const ProgramEnd end = Ctl(cluster.endpoint(ask), {"member", "list"});
    last = end.output;
    if (end.exit_code == 0 && Count(end.output, ", started, ") == members &&
        Count(end.output, "\n") == members && Count(end.output, "true") == 0 &&
        Count(end.output, gone) == 0) {
      return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  ADD_FAILURE() << "members at last: " << last;
  return false;
}

void ExpectEqual(bench::LocalCluster& cluster, const std::set<std::string>& acked) {
  uint64_t revision = 0;
  {
    auto client = OpenClient(cluster.Endpoints());
    const auto put = client->Put("/last", "x", {.deadline = kGiveUp});
    ASSERT_TRUE(put.ok()) << put.status();
    revision = put->token.revision;
  }
  std::vector<std::vector<Entry>> dumps;
  for (int m = 0; m < cluster.size(); ++m) {
    auto one = OpenClient({cluster.endpoint(m)});
    const auto read = one->Get("/last", ReadOptions::Linearizable().Deadline(kGiveUp));
    ASSERT_TRUE(read.ok()) << read.status() << cluster.LogTail(m);
    dumps.push_back(DumpAt(cluster, m, revision));
  }
  std::set<std::string> have;
  for (const Entry& entry : dumps[0]) have.insert(entry.key);
  for (const std::string& key : acked) ASSERT_TRUE(have.contains(key)) << key;
  for (size_t m = 1; m < dumps.size(); ++m) {
    ASSERT_EQ(dumps[m].size(), dumps[0].size()) << m;
    for (size_t k = 0; k < dumps[0].size(); ++k) {
      ASSERT_EQ(dumps[m][k].key, dumps[0][k].key);
      ASSERT_EQ(dumps[m][k].value, dumps[0][k].value);
      ASSERT_EQ(dumps[m][k].mod_revision, dumps[0][k].mod_revision);
    }
  }
}

// Gives the stopped member's disk some damage.
struct Rot {
  std::string name;
  std::string said;  // in the member's log
  std::function<void(const std::string& data_dir)> damage;
  bool found_at_start = true;  // else when a client reads there
};

std::vector<Rot> AllRots() {
  const auto is_segment = [](const std::string& name) {
    return name.ends_with(".log") && name.size() == 24;
  };
  return {
      {"a bit of a closed log segment", "bad older segment",
       [=](const std::string& dir) {
         const auto segments = Files(dir + "/log", is_segment);
         ASSERT_GE(segments.size(), 2u) << "the load is too small to close a segment";
         FlipBit(segments.front(), 4 << 20);
       }},
      {"a bit of the last log segment", "[hole]",
       [=](const std::string& dir) { FlipBit(Files(dir + "/log", is_segment).back(), 2000); }},
      {"a bit of a table", "checksum",
       [](const std::string& dir) {
         // The small ones hold what is read at the start.
         for (const fs::path& table :
              Files(dir + "/db", [](const std::string& name) { return name.ends_with(".sst"); })) {
           if (fs::file_size(table) > 16 << 10) FlipBit(table, fs::file_size(table) / 3);
         }
       },
       /*found_at_start=*/false},
      {"a bit of the manifest", "MANIFEST",
       [](const std::string& dir) {
         const auto manifests = Files(
             dir + "/db", [](const std::string& name) { return name.starts_with("MANIFEST"); });
         ASSERT_FALSE(manifests.empty());
         FlipBit(manifests.back(), 40);
       }},
      {"a bit of the member's identity", "member.json",
       [](const std::string& dir) { FlipBit(dir + "/member.json", 0); }},
      {"the log is gone", "log", [](const std::string& dir) { fs::remove_all(dir + "/log"); }},
      {"the disk is gone", "already been bootstrapped",
       [](const std::string& dir) { fs::remove_all(dir); }},
  };
}

TEST(Repair, RotAndWipedDisksAreRepairedWhileWritesGoOn) {
  // Small enough for a closed segment (64 MiB) to stay, large enough for flushes.
  auto cluster = StartCluster({"--snapshot-count=100000000"});
  ASSERT_NE(cluster, nullptr);
  {
    auto client = OpenClient(cluster->Endpoints());
    base::Rng rng(1);
    std::string large;  // of bytes that do not compress
    while (large.size() < (1 << 20)) large += static_cast<char>(rng.Next());
    for (int i = 0; i < 70; ++i) {
      ASSERT_TRUE(client->Put(fmt::format("/large/{}", i % 4), large, {.deadline = kGiveUp}).ok());
    }
  }
  Writer writer(cluster->Endpoints());
  int victim = 0;  // each member is it twice, the second time under a new id
  for (const Rot& rot : AllRots()) {
    SCOPED_TRACE(rot.name);
    victim = (victim + 1) % 3;
    const int other = (victim + 1) % 3;
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
    const std::string old_id = IdOf(*cluster, other, victim);
    const auto begin = Clock::now();
    ASSERT_TRUE(cluster->Stop(victim).ok()) << cluster->LogTail(victim);
    rot.damage(cluster->data_dir(victim));
    ASSERT_TRUE(cluster->Restart(victim).ok());
    if (!rot.found_at_start) {
      // A client's read meets it, or a compaction before that, and the member stops; started again,
      // it knows.
      auto reader = OpenClient({cluster->endpoint(victim)});
      const auto any_age = ReadOptions::Bounded(absl::InfiniteDuration());
      EXPECT_TRUE(Eventually([&] {
        if (cluster->Running(victim)) (void)reader->Range(RangeQuery::Prefix(""), any_age);
        return !cluster->Running(victim);
      }));
      ASSERT_FALSE(cluster->Running(victim)) << cluster->LogTail(victim);
      EXPECT_TRUE(fs::exists(cluster->data_dir(victim) + "/damage"));
      ASSERT_TRUE(cluster->Restart(victim).ok());
    }
    ASSERT_TRUE(WaitForVoters(*cluster, other, 3, old_id)) << cluster->LogTail(victim);
    EXPECT_THAT(LogOf(*cluster, victim), HasSubstr(rot.said));
    EXPECT_FALSE(AsidesOf(*cluster, victim).empty());
    EXPECT_FALSE(fs::exists(cluster->data_dir(victim) + "/damage"));
    EXPECT_FALSE(fs::exists(cluster->data_dir(victim) + "/repair.json"));
    fmt::print("{}: repaired and voting after {:.1f} s\n", rot.name,
               std::chrono::duration<double>(Clock::now() - begin).count());
  }
  writer.Stop();
  EXPECT_GT(writer.acked().size(), 100u);
  ExpectEqual(*cluster, writer.acked());
  // It votes: with another member gone, it takes one of the two that are left.
  ASSERT_TRUE(cluster->Kill((victim + 1) % 3).ok());
  auto client = OpenClient(cluster->Endpoints());
  absl::Status put = absl::UnavailableError("not tried");
  for (const absl::Time give_up = absl::Now() + kGiveUp; !put.ok() && absl::Now() < give_up;) {
    put = client->Put("/after", "x").status();
  }
  EXPECT_TRUE(put.ok()) << put;
}

// kill -9 at random moments of the repair: the next start goes on.
TEST(Repair, AKilledRepairIsFinishedByTheNextStart) {
  const uint64_t seed = base::RandomSeed();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  base::Rng rng(seed);
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  ASSERT_TRUE(OpenClient(cluster->Endpoints())->Put("/a", "1", {.deadline = kGiveUp}).ok());
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
    const std::string old_id = IdOf(*cluster, (round + 1) % 3, round);
    ASSERT_TRUE(cluster->Kill(round).ok());
    fs::remove_all(cluster->data_dir(round) + "/log");
    for (int kills = 0; kills < 6; ++kills) {
      ASSERT_TRUE(cluster->Restart(round).ok());
      std::this_thread::sleep_for(std::chrono::milliseconds(20 + rng.Below(150)));
      if (cluster->Running(round)) {
        ASSERT_TRUE(cluster->Kill(round).ok());
      }
    }
    ASSERT_TRUE(cluster->Restart(round).ok());
    ASSERT_TRUE(WaitForVoters(*cluster, (round + 1) % 3, 3, old_id)) << cluster->LogTail(round);
    EXPECT_EQ(AsidesOf(*cluster, round).size(), 1u);
    EXPECT_FALSE(fs::exists(cluster->data_dir(round) + "/repair.json"));
  }
  ExpectEqual(*cluster, {"/a"});
}

TEST(Repair, ManualSaysWhatToDoAndNothingIsMovedWithoutAQuorum) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  ASSERT_TRUE(OpenClient(cluster->Endpoints())->Put("/a", "1", {.deadline = kGiveUp}).ok());
  ASSERT_TRUE(cluster->Kill(0).ok());
  FlipBit(cluster->data_dir(0) + "/log/00000000000000000001.log", 100);
  const auto wait_for_end = [&] {
    for (const absl::Time give_up = absl::Now() + kGiveUp;
         cluster->Running(0) && absl::Now() < give_up;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_FALSE(cluster->Running(0));
    ASSERT_TRUE(WIFEXITED(*cluster->wait_status(0)));
    EXPECT_EQ(WEXITSTATUS(*cluster->wait_status(0)), 1);
  };
  ASSERT_TRUE(cluster->Restart(0, {"--repair=manual"}).ok());
  wait_for_end();
  const std::string log = LogOf(*cluster, 0);
  EXPECT_THAT(log, HasSubstr("00000000000000000001.log bytes "));
  const size_t at = log.find("holdfastctl member replace ");
  ASSERT_NE(at, std::string::npos) << log;
  EXPECT_TRUE(AsidesOf(*cluster, 0).empty());
  EXPECT_TRUE(fs::exists(cluster->data_dir(0) + "/log/00000000000000000001.log"));

  // The very command it printed, then the same start again.
  const size_t id_at = at + std::string_view("holdfastctl member replace ").size();
  const std::string id = log.substr(id_at, log.find('`', id_at) - id_at);
  const ProgramEnd replaced = Ctl(cluster->endpoint(1), {"member", "replace", id});
  EXPECT_EQ(replaced.exit_code, 0) << replaced.output;
  ASSERT_TRUE(cluster->Restart(0, {"--repair=manual"}).ok());
  EXPECT_TRUE(WaitForVoters(*cluster, 1, 3, id)) << cluster->LogTail(0);
  ExpectEqual(*cluster, {"/a"});
}

// Two of three are gone for good.
TEST(LastResort, OneOfThreeGoesOnAsANewIncarnation) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  Token before;
  uint64_t incarnation = 0;
  {
    auto client = OpenClient(cluster->Endpoints());
    // The first leader gives the cluster its incarnation soon after its election.
    absl::StatusOr<WriteResult> put;
    do {
      put = client->Put("/a", "1", {.deadline = kGiveUp});
      ASSERT_TRUE(put.ok()) << put.status();
    } while (put->token.incarnation == 0);
    before = put->token;
    // Read at the survivor, so that it has it.
    auto one = OpenClient({cluster->endpoint(0)});
    const auto get = one->Get("/a", ReadOptions::Linearizable().Deadline(kGiveUp));
    ASSERT_TRUE(get.ok());
    incarnation = get->incarnation;
  }
  EXPECT_NE(incarnation, 0u);
  EXPECT_EQ(before.incarnation, incarnation);

  // Refused while others answer.
  ASSERT_TRUE(cluster->Kill(0).ok());
  ASSERT_TRUE(cluster->Restart(0, {"--force-new-cluster"}).ok());
  for (const absl::Time give_up = absl::Now() + kGiveUp;
       cluster->Running(0) && absl::Now() < give_up;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ASSERT_FALSE(cluster->Running(0));
  EXPECT_THAT(LogOf(*cluster, 0), HasSubstr("nothing was changed"));

  ASSERT_TRUE(cluster->Kill(1).ok());
  ASSERT_TRUE(cluster->Kill(2).ok());
  ASSERT_TRUE(cluster->Restart(0, {"--force-new-cluster"}).ok());
  ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok()) << cluster->LogTail(0);
  auto client = OpenClient({cluster->endpoint(0)});
  const auto put = client->Put("/b", "2", {.deadline = kGiveUp});
  ASSERT_TRUE(put.ok()) << put.status() << cluster->LogTail(0);
  const auto kept = client->Get("/a", ReadOptions::Linearizable().Deadline(kGiveUp));
  ASSERT_TRUE(kept.ok()) << kept.status();
  ASSERT_TRUE(kept->value.has_value());
  EXPECT_EQ(kept->value->value, "1");
  EXPECT_NE(kept->incarnation, incarnation);
  const uint64_t second = kept->incarnation;
  // What was read before does not merge.
  const auto token_read = client->Get("/a", ReadOptions::AtLeast(before));
  EXPECT_TRUE(absl::IsFailedPrecondition(token_read.status())) << token_read.status();

  // The flag left on means nothing any more.
  ASSERT_TRUE(cluster->Kill(0).ok());
  ASSERT_TRUE(cluster->Restart(0, {"--force-new-cluster"}).ok());
  ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok()) << cluster->LogTail(0);
  const auto again = client->Get("/b", ReadOptions::Linearizable().Deadline(kGiveUp));
  ASSERT_TRUE(again.ok()) << again.status() << cluster->LogTail(0);
  EXPECT_EQ(again->incarnation, second);

  // The old members come back with their data: the new incarnation does not hear them, nor they it.
  for (const int old : {1, 2}) ASSERT_TRUE(cluster->Restart(old).ok());
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(client->Put("/c", std::to_string(i), {.deadline = kGiveUp}).ok());
  }
  const auto still = client->Get("/c", ReadOptions::Linearizable().Deadline(kGiveUp));
  ASSERT_TRUE(still.ok());
  EXPECT_EQ(still->incarnation, second);
  for (const int old : {1, 2}) {
    if (cluster->Running(old)) {
      ASSERT_TRUE(cluster->Kill(old).ok());
    }
  }

  // The place of the lost ones is taken by new members, with empty disks.
  const ProgramEnd list = Ctl(cluster->endpoint(0), {"member", "list"});
  const size_t name_at = list.output.find("started, ");
  ASSERT_NE(name_at, std::string::npos) << list.output;
  const std::string name =
      list.output.substr(name_at + 9, list.output.find(',', name_at + 9) - name_at - 9);
  std::string members = fmt::format("{}=http://127.0.0.1:{}", name, cluster->peer_port(0));
  for (const int fresh : {1, 2}) {
    fs::remove_all(cluster->data_dir(fresh));
    const std::string url = fmt::format("http://127.0.0.1:{}", cluster->peer_port(fresh));
    const std::string fresh_name = fs::path(cluster->data_dir(fresh)).filename().string();
    const ProgramEnd added =
        Ctl(cluster->endpoint(0), {"member", "add", fresh_name, "--peer-urls=" + url});
    ASSERT_EQ(added.exit_code, 0) << added.output;
    members += fmt::format(",{}={}", fresh_name, url);
    ASSERT_TRUE(cluster
                    ->Restart(fresh, {"--name=" + fresh_name, "--initial-cluster=" + members,
                                      "--initial-cluster-state=existing"})
                    .ok());
    ASSERT_TRUE(WaitForVoters(*cluster, 0, static_cast<size_t>(fresh) + 1))
        << cluster->LogTail(fresh);
  }
  ExpectEqual(*cluster, {"/a", "/b", "/c"});
}

size_t CountInLogs(bench::LocalCluster& cluster, const std::string& text) {
  size_t count = 0;
  for (int i = 0; i < cluster.size(); ++i) {
    std::ifstream log(cluster.log_file(i));
    for (std::string line; std::getline(log, line);) count += line.find(text) != line.npos;
  }
  return count;
}

TEST(RollingRestart, UnderLoadHandsLeadershipOver) {
  auto cluster = StartCluster({"--log-level=info"});
  ASSERT_NE(cluster, nullptr);
  Writer writer(cluster->Endpoints());
  for (int round = 0; round < 2; ++round) {
    for (int m = 0; m < 3; ++m) {
      ASSERT_TRUE(cluster->Stop(m).ok()) << cluster->LogTail(m);
      ASSERT_TRUE(cluster->Restart(m).ok());
      ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok()) << cluster->LogTail(m);
    }
  }
  writer.Stop();
  fmt::print("rolling restart, twice round: {} writes, {} failed, longest gap {:.0f} ms\n",
             writer.acked().size(), writer.failed(), writer.longest_gap_ms());
  // Every round stops whoever leads at least once, and it hands over first: by what the members
  // say, not by the clock of a machine that may be busy.
  EXPECT_GE(CountInLogs(*cluster, "handed leadership over"), 2u);
  ExpectEqual(*cluster, writer.acked());
}

}  // namespace
}  // namespace holdfast
