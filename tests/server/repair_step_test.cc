// What a damaged member asks for, case by case; its marker, its plan, and what it moves aside.
#include "server/repair.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <ostream>
#include <string>

#include "base/strings.h"
#include "holdfast/command.pb.h"
#include "server/data_dir.h"
#include "server/fatal.h"
#include "server/last_resort.h"
#include "server/state_machine.h"
#include "storage/memory_log.h"

namespace holdfast::server {
namespace {

namespace fs = std::filesystem;
using Kind = raft::MemberChange::Kind;

const NodeId kOld(3);
const NodeId kNew(30);
const std::vector<std::string> kUrls = {"http://m3:1"};

ClusterView ThreeVoters() {
  ClusterView view;
  view.cluster_id = 7;
  view.teller = NodeId(1);
  view.linearizable = true;
  for (const uint64_t id : {1, 2, 3}) {
    view.membership.voters.insert(NodeId(id));
    view.membership.peer_urls[NodeId(id)] = {"http://m" + std::to_string(id) + ":1"};
    view.published[NodeId(id)] = {};
  }
  return view;
}

void MakeLearner(ClusterView& view, NodeId id) {
  view.membership.voters.erase(id);
  view.membership.learners.insert(id);
}

void Remove(ClusterView& view, NodeId id) {
  view.membership.voters.erase(id);
  view.membership.peer_urls.erase(id);
  view.membership.removed = {id};
}

enum class Expect { kGoOn, kAsk, kNotNow, kNever };

struct Case {
  std::string name;
  std::function<void(ClusterView&, RepairPlan&)> arrange;
  Expect expect;
  Kind kind = Kind::kAdd;  // of what is asked for
  NodeId id = kNew;        // whom it is about; with kGoOn, who the member is from now on
  NodeId replaces = {};
};
void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }

std::vector<Case> AllCases() {
  using View = ClusterView;
  using Plan = RepairPlan;
  return {
      {"AVoterIsReplaced", [](View&, Plan&) {}, Expect::kAsk, Kind::kReplace, kNew, kOld},
      {"TheNewIdIsInAlready",
       [](View& v, Plan&) {
         v.membership.learners.insert(kNew);
         v.membership.promotions[kNew] = kOld;
         v.membership.peer_urls[kNew] = kUrls;
       },
       Expect::kGoOn},
      {"TheNewIdIsInAndTheOldOneHasLeft",
       [](View& v, Plan&) {
         v.membership.voters.erase(kOld);
         v.membership.voters.insert(kNew);
         v.membership.removed = {kOld};
       },
       Expect::kGoOn},
      {"SomebodyReplacedItByHandAtItsUrls",
       [](View& v, Plan&) {
         v.membership.learners.insert(NodeId(31));
         v.membership.promotions[NodeId(31)] = kOld;
         v.membership.peer_urls[NodeId(31)] = kUrls;
       },
       Expect::kGoOn, Kind::kAdd, NodeId(31)},
      {"AReplacementThatHasStartedIsReplacedInItsTurn",
       [](View& v, Plan&) {
         v.membership.learners.insert(NodeId(31));
         v.membership.promotions[NodeId(31)] = kOld;
         v.membership.peer_urls[NodeId(31)] = kUrls;
         v.published[NodeId(31)] = {};
       },
       Expect::kAsk, Kind::kReplace, kNew, kOld},
      {"ALearnerLeavesFirst", [](View& v, Plan&) { MakeLearner(v, kOld); }, Expect::kAsk,
       Kind::kRemove, kOld},
      {"ALearnerComesAnew",
       [](View& v, Plan& p) {
         Remove(v, kOld);
         p.kind = Kind::kAddLearner;
       },
       Expect::kAsk, Kind::kAddLearner},
      {"ALearnerThatIsToVoteLeavesFirst",
       [](View& v, Plan&) {
         MakeLearner(v, kOld);
         v.membership.promotions[kOld] = NodeId(0);
       },
       Expect::kAsk, Kind::kRemove, kOld},
      {"ALearnerThatIsToVoteComesAnew",
       [](View& v, Plan& p) {
         Remove(v, kOld);
         p.kind = Kind::kAdd;
       },
       Expect::kAsk, Kind::kAdd},
      {"AReplacementThatHasNoVoteYetIsReplacedInItsTurn",
       [](View& v, Plan&) {
         v.membership.voters.insert(NodeId(4));
         MakeLearner(v, kOld);
         v.membership.promotions[kOld] = NodeId(4);
       },
       Expect::kAsk, Kind::kReplace, kNew, NodeId(4)},
      {"AMemberThatGotItsVoteMeanwhileIsReplaced", [](View&, Plan& p) { p.kind = Kind::kAdd; },
       Expect::kAsk, Kind::kReplace, kNew, kOld},
      {"AJointConfigurationIsWaitedFor",
       [](View& v, Plan&) { v.membership.voters_outgoing = {NodeId(1)}; }, Expect::kNotNow},
      {"ARemovedMemberIsNotBroughtBack", [](View& v, Plan&) { Remove(v, kOld); }, Expect::kNever},
      {"AVoterThatWasRemovedAfterItAskedIsNotBroughtBack",
       [](View& v, Plan& p) {
         Remove(v, kOld);
         p.kind = Kind::kReplace;
         p.replaces = kOld;
       },
       Expect::kNever},
      {"ANewIdThatWasRemovedIsNotUsedAgain", [](View& v, Plan&) { v.membership.removed = {kNew}; },
       Expect::kNever},
      {"TheOnlyVoterHasNobodyToAsk", [](View& v, Plan&) { v.membership.voters = {kOld}; },
       Expect::kNever},
  };
}

class RepairStepTest : public testing::TestWithParam<Case> {};

TEST_P(RepairStepTest, IsTaken) {
  const Case& one = GetParam();
  ClusterView view = ThreeVoters();
  RepairPlan plan;
  plan.cluster_id = 7;
  plan.old_id = kOld;
  plan.new_id = kNew;
  one.arrange(view, plan);
  const auto step = NextStep(plan, view, kUrls);
  if (one.expect == Expect::kNever || one.expect == Expect::kNotNow) {
    EXPECT_EQ(step.status().code(), one.expect == Expect::kNever
                                        ? absl::StatusCode::kFailedPrecondition
                                        : absl::StatusCode::kUnavailable)
        << step.status();
    return;
  }
  ASSERT_TRUE(step.ok()) << step.status();
  ASSERT_EQ(step->change.has_value(), one.expect == Expect::kAsk);
  if (one.expect == Expect::kGoOn) {
    EXPECT_EQ(step->plan.new_id, one.id);
    return;
  }
  EXPECT_EQ(step->change->kind, one.kind);
  EXPECT_EQ(step->change->id, one.id);
  EXPECT_EQ(step->change->replaces, one.replaces);
  if (one.kind == Kind::kRemove) return;
  EXPECT_EQ(step->change->peer_urls, kUrls);
  // Whoever starts again after asking must know what it asked for.
  EXPECT_EQ(step->plan.kind, one.kind);
  EXPECT_EQ(step->plan.replaces, one.replaces);
  // And what it asks for is a change that can be made.
  EXPECT_TRUE(raft::TargetOf(view.membership, *step->change).ok());
}
INSTANTIATE_TEST_SUITE_P(Table, RepairStepTest, testing::ValuesIn(AllCases()),
                         [](const auto& info) { return info.param.name; });

class RepairFiles : public testing::Test {
 protected:
  RepairFiles() : dir_(testing::TempDir() + "repair_files") {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  ~RepairFiles() override { fs::remove_all(dir_); }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(dir_ + "/" + name) << text;
  }
  const std::string dir_;
};

TEST_F(RepairFiles, TheMarkerSurvivesTheTrip) {
  EXPECT_FALSE(ReadDamageMarker(dir_).has_value());
  storage::Damage damage;
  damage.part = storage::Damage::Part::kData;
  damage.file = "/x/000012.sst";
  damage.first_byte = 4096;
  damage.last_byte = 8191;
  damage.first_index = Index(7);
  damage.last_index = Index(9);
  damage.what = std::string("bytes \xff\xfe that are no text");
  ASSERT_TRUE(WriteDamageMarker(dir_, damage).ok());
  const auto back = ReadDamageMarker(dir_);
  ASSERT_TRUE(back.has_value());
  damage.what = back->what;
  EXPECT_EQ(*back, damage);
  EXPECT_THAT(back->what, testing::StartsWith("bytes "));
}

TEST_F(RepairFiles, AnUnreadableMarkerIsDamageAllTheSame) {
  for (const char* text : {"", "{", "[]", "\xff"}) {
    Write("damage", text);
    EXPECT_TRUE(ReadDamageMarker(dir_).has_value()) << text;
  }
}

TEST_F(RepairFiles, AnUnreadablePlanIsRefused) {
  const auto none = ReadRepairPlan(dir_);
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->has_value());
  for (const char* text : {"", "{}", "{\"format\":1}", "[]"}) {
    Write("repair.json", text);
    EXPECT_TRUE(absl::IsDataLoss(ReadRepairPlan(dir_).status())) << text;
  }
}

// A repair that was accepted, at every place where a crash can stop the moving.
TEST_F(RepairFiles, AnAcceptedRepairGoesOnFromEveryPlace) {
  raft::Membership agreed;
  agreed.voters = {NodeId(1), NodeId(2), kOld};
  agreed.learners = {kNew};
  agreed.promotions[kNew] = kOld;
  const std::string encoded = agreed.Encode();
  std::string hex;
  for (const unsigned char c : encoded) hex += fmt::format("{:02x}", c);
  Config config;
  config.name = "m3";
  config.data_dir = dir_;
  config.initial_advertise_peer_urls = {{.host = "m3", .port = 1}};
  const Identity self{.cluster_id = 7, .self = kOld, .bootstrap = {}};
  for (size_t moved = 0; moved <= 5; ++moved) {
    SCOPED_TRACE(moved);
    fs::remove_all(dir_);
    {
      const auto old = DataDir::Open(
          dir_, {.cluster_id = 7, .member_id = kOld, .name = "m3", .bootstrap = encoded});
      ASSERT_TRUE(old.ok()) << old.status();
    }
    Write("log/00000000000000000001.log", "what is damaged");
    Write("damage", "{}");
    Write("repair.json", fmt::format(R"({{"format": 1, "cluster_id": "7", "old_id": "3",
        "new_id": "1e", "replaces": "3", "accepted": true, "membership": "{}", "kind": 6,
        "aside": "damaged-20260101T000000Z"}})",
                                     hex));
    const std::vector<std::string> parts = {"log", "db", "member.json", "damage"};
    fs::create_directories(dir_ + "/damaged-20260101T000000Z");
    for (size_t i = 0; i < std::min(moved, parts.size()); ++i) {
      fs::rename(dir_ + "/" + parts[i], dir_ + "/damaged-20260101T000000Z/" + parts[i]);
    }
    // Everything moved, and the new member half made.
    if (moved == 5) {
      fs::create_directories(dir_ + "/log");
      fs::create_directories(dir_ + "/db");
    }
    const absl::Status repaired = RepairMember(config, self, std::nullopt);
    ASSERT_TRUE(repaired.ok()) << repaired;
    const auto owner = DataDir::ReadOwner(dir_);
    ASSERT_TRUE(owner.ok() && owner->has_value());
    EXPECT_EQ((*owner)->member_id, kNew);
    EXPECT_EQ((*owner)->cluster_id, 7u);
    EXPECT_EQ((*owner)->bootstrap, encoded);
    EXPECT_TRUE(fs::is_empty(dir_ + "/log"));
    EXPECT_FALSE(fs::exists(dir_ + "/repair.json"));
    EXPECT_FALSE(fs::exists(dir_ + "/damage"));
    std::ifstream kept(dir_ + "/damaged-20260101T000000Z/log/00000000000000000001.log");
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(kept), {}), "what is damaged");
  }
}

// Born, and then the crash: only the plan is left over.
TEST_F(RepairFiles, AMemberThatIsBornKeepsItsData) {
  {
    const auto born = DataDir::Open(dir_, {.cluster_id = 7, .member_id = kNew, .name = "m3"});
    ASSERT_TRUE(born.ok()) << born.status();
  }
  Write("log/new", "x");
  Write("repair.json", R"({"format": 1, "cluster_id": "7", "old_id": "3", "new_id": "1e",
      "replaces": "3", "accepted": true, "membership": "", "kind": 6, "aside": "damaged-1"})");
  Config config;
  config.name = "m3";
  config.data_dir = dir_;
  const Identity self{.cluster_id = 7, .self = kOld, .bootstrap = {}};
  const absl::Status repaired = RepairMember(config, self, std::nullopt);
  ASSERT_TRUE(repaired.ok()) << repaired;
  EXPECT_TRUE(fs::exists(dir_ + "/log/new"));
  EXPECT_FALSE(fs::exists(dir_ + "/repair.json"));
}

TEST_F(RepairFiles, AMemberAloneIsLeftAsItIs) {
  Config config;
  config.data_dir = dir_;
  config.initial_cluster = {{.name = config.name, .peer_urls = {}}};
  Write("damage", "{}");
  const Identity self{.cluster_id = 7, .self = kOld, .bootstrap = {}};
  const absl::Status repaired = RepairMember(config, self, ReadDamageMarker(dir_));
  EXPECT_TRUE(absl::IsFailedPrecondition(repaired)) << repaired;
  EXPECT_THAT(std::string(base::Message(repaired)), testing::HasSubstr("nothing was changed"));
  EXPECT_TRUE(fs::exists(dir_ + "/damage"));
  EXPECT_FALSE(fs::exists(dir_ + "/repair.json"));
}

// --- the incarnation ---

storage::EntryRef Birth(uint64_t index, uint64_t incarnation, uint64_t replaces) {
  command::v1::Command command;
  command.mutable_cluster_birth()->set_incarnation(incarnation);
  command.mutable_cluster_birth()->set_replaces(replaces);
  return std::make_shared<const storage::Entry>(storage::Entry{
      Term(1), Index(index), storage::EntryType::kNormal, command.SerializeAsString()});
}

// Replaced by exactly one birth; and known from the log before it is applied.
TEST_F(RepairFiles, TheIncarnationIsReplacedOnceAndIsKnownFromTheLog) {
  storage::MemoryLog log;
  storage::LogBatch batch;
  batch.entries = {Birth(1, 11, 0), Birth(2, 22, 0), Birth(3, 33, 11), Birth(4, 44, 11)};
  ASSERT_TRUE(log.Append({batch}).ok());
  log.Reopen();
  const uint64_t known_after[] = {0, 11, 11, 33, 33};
  for (size_t applied = 0; applied <= batch.entries.size(); ++applied) {
    KvStateMachine::Options options;
    options.dir = dir_ + "/db" + std::to_string(applied);
    options.cluster_id = 7;
    const auto machine = KvStateMachine::Open(options);
    ASSERT_TRUE(machine.ok()) << machine.status();
    ASSERT_TRUE((*machine)->Apply(absl::MakeConstSpan(batch.entries).subspan(0, applied)).ok());
    EXPECT_EQ((*machine)->incarnation(), known_after[applied]);
    const auto at_end = IncarnationAtEnd(log, **machine);
    ASSERT_TRUE(at_end.ok()) << at_end.status();
    EXPECT_EQ(*at_end, 33u);
  }
}

TEST(FatalText, TellsDamageFromAFailedWrite) {
  storage::Damage damage;
  damage.file = "/x/log";
  EXPECT_THAT(FatalText(storage::DamageError(damage)), testing::HasSubstr("--repair=auto"));
  EXPECT_THAT(FatalText(absl::DataLossError("raft log failed: fdatasync")),
              testing::Not(testing::HasSubstr("--repair=auto")));
}

TEST(Damage, SurvivesAnnotation) {
  storage::Damage damage;
  damage.file = "f";
  damage.what = "w";
  const absl::Status status = storage::Annotate(storage::DamageError(damage), "doing");
  EXPECT_EQ(storage::DamageOf(status), damage);
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_EQ(base::Message(status), "doing: f: w");
  EXPECT_FALSE(storage::DamageOf(absl::DataLossError("x")).has_value());
}

}  // namespace
}  // namespace holdfast::server
