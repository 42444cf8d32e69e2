#include "server/repair.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/strings.h"
#include "holdfast/raft.grpc.pb.h"
#include "server/data_dir.h"
#include "server/member_changer.h"
#include "server/peer_channel.h"

namespace holdfast::server {
namespace {

namespace fs = std::filesystem;
using Kind = raft::MemberChange::Kind;
using Json = nlohmann::ordered_json;

constexpr int kFormat = 1;
constexpr std::string_view kMarkerFile = "damage";
constexpr absl::Duration kLogInterval = absl::Seconds(5);
constexpr char kTimeFormat[] = "%Y%m%dT%H%M%SZ";

template <class... Args>
absl::Status Refuse(fmt::format_string<Args...> format, Args&&... args) {
  return absl::FailedPreconditionError(fmt::format(format, std::forward<Args>(args)...));
}

std::string PathOf(const std::string& dir, std::string_view name) {
  return fmt::format("{}/{}", dir, name);
}

// Not there, as far as this process may see.
bool Exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::optional<std::string> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in.is_open()) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

uint64_t NumberIn(const nlohmann::json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_number_unsigned() ? it->get<uint64_t>() : 0;
}

std::string TextIn(const nlohmann::json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : "";
}

std::string Hex(uint64_t id) { return fmt::format("{:016x}", id); }

std::optional<uint64_t> HexIn(const nlohmann::json& json, const char* key) {
  const std::string text = TextIn(json, key);
  uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id, 16);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return id;
}

Json ToJson(const RepairPlan& plan) {
  Json json = {{"format", kFormat},
               {"cluster_id", Hex(plan.cluster_id)},
               {"old_id", Hex(plan.old_id.value)},
               {"new_id", Hex(plan.new_id.value)},
               {"replaces", Hex(plan.replaces.value)},
               {"accepted", plan.accepted},
               {"membership", base::ToStd(absl::BytesToHexString(base::ToAbsl(plan.membership)))},
               {"aside", plan.aside}};
  if (plan.kind.has_value()) json["kind"] = static_cast<int>(*plan.kind);
  return json;
}

std::optional<RepairPlan> FromJson(const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || NumberIn(json, "format") != kFormat) return std::nullopt;
  const auto cluster_id = HexIn(json, "cluster_id");
  const auto old_id = HexIn(json, "old_id");
  const auto new_id = HexIn(json, "new_id");
  if (!cluster_id || !old_id || !new_id || *new_id == 0) return std::nullopt;
  RepairPlan plan;
  plan.cluster_id = *cluster_id;
  plan.old_id = NodeId(*old_id);
  plan.new_id = NodeId(*new_id);
  plan.replaces = NodeId(HexIn(json, "replaces").value_or(0));
  if (json.contains("kind")) plan.kind = static_cast<Kind>(NumberIn(json, "kind"));
  plan.accepted = json.value("accepted", false);
  plan.membership = absl::HexStringToBytes(TextIn(json, "membership"));
  plan.aside = TextIn(json, "aside");
  return plan;
}

absl::Status WritePlan(const std::string& dir, const RepairPlan& plan) {
  return DataDir::WriteFile(dir, DataDir::kRepairFile, ToJson(plan).dump(2) + "\n");
}

// When the directories aside were made, by their names.
std::vector<std::pair<absl::Time, std::string>> Asides(const std::string& dir) {
  std::vector<std::pair<absl::Time, std::string>> found;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    absl::Time time;
    if (name.starts_with(DataDir::kAsidePrefix) &&
        absl::ParseTime(kTimeFormat, name.substr(DataDir::kAsidePrefix.size()), &time, nullptr)) {
      found.emplace_back(time, name);
    }
  }
  std::ranges::sort(found);
  return found;
}

absl::Status CheckNotTooOften(const std::string& dir) {
  size_t recent = 0;
  for (const auto& [time, name] : Asides(dir)) recent += absl::Now() - time < kRepairWindow;
  if (recent < kRepairsMax) return absl::OkStatus();
  return Refuse(
      "this member was repaired {} times within {}: its disk, its memory or this program is at "
      "fault. Look at the kernel's log and at {}/{}*; move that data directory to a sound disk, or "
      "remove these directories to allow one more repair",
      recent, absl::FormatDuration(kRepairWindow), dir, DataDir::kAsidePrefix);
}

void RemoveOldAsides(const std::string& dir) {
  const auto asides = Asides(dir);
  for (size_t i = 0; i + kAsideKept < asides.size(); ++i) {
    LOG_INFO("removing {}: the newest {} of its kind are kept", asides[i].second, kAsideKept);
    std::error_code error;
    fs::remove_all(PathOf(dir, asides[i].second), error);
    if (error) LOG_WARN("cannot remove {}: {}", asides[i].second, error.message());
  }
}

// --- talking to the others ---

struct Answer {
  std::string url;
  absl::StatusOr<ClusterView> view;
};

std::vector<Answer> AskAll(const std::set<std::string>& urls, NodeId about,
                           absl::Duration timeout) {
  std::vector<std::pair<std::string, std::future<absl::StatusOr<ClusterView>>>> asked;
  for (const std::string& url : urls) {
    asked.emplace_back(url, std::async(std::launch::async, AskPeer, url, about, timeout));
  }
  std::vector<Answer> answers;
  for (auto& [url, view] : asked) answers.push_back({url, view.get()});
  return answers;
}

// OK: done, or certainly overtaken; the next view tells. Unavailable: not done, or nobody knows.
absl::Status AskFor(const std::string& url, uint64_t cluster_id, NodeId teller,
                    const raft::MemberChange& change, absl::Duration timeout) {
  PeerTransport::Options options;
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = CreatePeerChannel(options, url);
  if (!channel.ok()) return channel.status();
  const auto stub = raft::v1::PeerMembers::NewStub(*channel);
  grpc::ClientContext context;
  context.set_deadline(GrpcDeadline(timeout));
  raft::v1::ChangeMembersRequest request;
  request.set_cluster_id(cluster_id);
  request.set_to(teller.value);
  request.set_kind(static_cast<uint32_t>(change.kind));
  request.set_id(change.id.value);
  request.mutable_peer_urls()->Assign(change.peer_urls.begin(), change.peer_urls.end());
  request.set_replaces(change.replaces.value);
  raft::v1::ChangeMembersReply reply;
  const grpc::Status status = stub->ChangeMembers(&context, request, &reply);
  if (!status.ok()) return absl::UnavailableError(base::Printable(status.error_message(), 200));
  if (reply.code() == 0) return absl::OkStatus();
  if (reply.retry()) return absl::UnavailableError(reply.text());
  return absl::Status(static_cast<absl::StatusCode>(reply.code()), reply.text());
}

class Repair {
 public:
  Repair(const Config& config, const Identity& self, const RepairTimes& times)
      : config_(config), self_(self), times_(times), dir_(config.data_dir) {
    own_urls_ = ToStrings(config.initial_advertise_peer_urls);
    std::ranges::sort(own_urls_);
    AddUrls(self.bootstrap);
    for (const ClusterMember& member : config.initial_cluster) {
      if (member.name == config.name) continue;
      for (const Url& url : member.peer_urls) urls_.insert(url.ToString());
    }
  }

  absl::Status Run(const std::optional<storage::Damage>& damage);

 private:
  absl::Status Begin(const std::optional<storage::Damage>& damage);
  absl::Status AskUntilAccepted();
  absl::Status AskOnce();
  absl::Status MoveAside();
  absl::Status BeBorn();
  absl::Status ToDoByHand() const {
    return Refuse(
        "--repair=manual: nothing was changed. This member does not vote or acknowledge until it "
        "is replaced: run `holdfastctl member replace {:x}` against the others, then start it "
        "again",
        plan_.old_id.value);
  }

  void AddUrls(const raft::Membership& membership) {
    for (const auto& [id, urls] : membership.peer_urls) {
      if (id != self_.self && id != plan_.new_id) urls_.insert(urls.begin(), urls.end());
    }
    for (const std::string& own : own_urls_) urls_.erase(own);
  }

  const Config& config_;
  const Identity& self_;
  const RepairTimes times_;
  const std::string dir_;
  std::vector<std::string> own_urls_;
  std::set<std::string> urls_;  // of the others, as far as known
  RepairPlan plan_;
};

absl::Status Repair::Begin(const std::optional<storage::Damage>& damage) {
  absl::StatusOr<std::optional<RepairPlan>> found = ReadRepairPlan(dir_);
  if (!found.ok()) return found.status();
  if (found->has_value()) {
    plan_ = **std::move(found);
    LOG_INFO("going on with the repair of member {:x}, as {:x}", plan_.old_id.value,
             plan_.new_id.value);
    return absl::OkStatus();
  }
  if (urls_.empty()) {
    return Refuse(
        "{} and this member is its whole cluster: there is nobody to copy from, and nothing was "
        "changed. Restore the data directory from a copy; or, to read what can still be read, "
        "remove {}/{} and start again",
        damage.has_value() ? Describe(*damage) + "," : "its data is gone,", dir_, kMarkerFile);
  }
  if (absl::Status status = CheckNotTooOften(dir_); !status.ok()) return status;
  plan_.cluster_id = self_.cluster_id;
  plan_.old_id = self_.self;
  plan_.new_id = MemberChanger::NewId();
  return absl::OkStatus();
}

absl::Status Repair::AskOnce() {
  const std::vector<Answer> answers = AskAll(urls_, plan_.old_id, times_.ask);
  std::vector<std::string> said;
  const ClusterView* newest = nullptr;
  for (const Answer& answer : answers) {
    if (!answer.view.ok()) {
      said.push_back(fmt::format("{} ({})", answer.url, base::Message(answer.view.status())));
    } else if (answer.view->cluster_id != plan_.cluster_id) {
      said.push_back(fmt::format("{} (of cluster {:x})", answer.url, answer.view->cluster_id));
    } else if (!answer.view->linearizable) {
      said.push_back(fmt::format("{} (has no leader)", answer.url));
      AddUrls(answer.view->membership);
    } else if (newest == nullptr) {
      newest = &*answer.view;
    }
  }
  if (newest == nullptr) {
    return absl::UnavailableError(
        fmt::format("no quorum of the other members answers: tried {}", fmt::join(said, ", ")));
  }
  AddUrls(newest->membership);
  absl::StatusOr<RepairStep> step = NextStep(plan_, *newest, own_urls_);
  if (!step.ok()) return step.status();
  if (step->change.has_value() && config_.repair == RepairMode::kManual) {
    return ToDoByHand();
  }
  if (step->change.has_value()) {
    if (absl::Status status = WritePlan(dir_, step->plan); !status.ok()) return status;
  }
  plan_ = std::move(step->plan);
  if (!step->change.has_value()) {
    plan_.accepted = true;
    plan_.membership = newest->membership.Encode();
    plan_.aside = std::string(DataDir::kAsidePrefix) +
                  absl::FormatTime(kTimeFormat, absl::Now(), absl::UTCTimeZone());
    return WritePlan(dir_, plan_);
  }
  absl::Status refused = absl::UnavailableError("no member answers");
  for (const Answer& answer : answers) {
    if (!answer.view.ok() || answer.view->cluster_id != plan_.cluster_id) continue;
    refused =
        AskFor(answer.url, plan_.cluster_id, answer.view->teller, *step->change, times_.change);
    if (refused.ok()) break;
    if (!absl::IsUnavailable(refused)) break;
  }
  // Whatever the answer was, only the next view says what came of it.
  return absl::UnavailableError(refused.ok() ? "waiting to see the change"
                                             : std::string(base::Message(refused)));
}

absl::Status Repair::AskUntilAccepted() {
  const SteadyTime give_up = SteadyNow() + ToSteady(times_.give_up);
  SteadyTime next_log = SteadyNow();
  for (bool first = true; !plan_.accepted; first = false) {
    const absl::Status status = AskOnce();
    if (plan_.accepted) break;
    if (!absl::IsUnavailable(status)) return status;
    if (config_.repair == RepairMode::kManual) return ToDoByHand();
    const SteadyTime now = SteadyNow();
    if (now + ToSteady(times_.retry) > give_up) {
      return absl::UnavailableError(base::ToAbsl(fmt::format(
          "cannot be repaired now: {} (gave up after {}; the next start goes on). Nothing was "
          "moved. Start the other members first; if they have changed since, name them in "
          "--initial-cluster",
          base::Message(status), absl::FormatDuration(times_.give_up))));
    }
    if (!first && now >= next_log) {
      LOG_WARN("not yet repaired, asking again: {}", base::Message(status));
      next_log = now + ToSteady(kLogInterval);
    }
    // A change that was made shows at once.
    std::this_thread::sleep_for(first ? ToSteady(times_.retry / 10) : ToSteady(times_.retry));
  }
  LOG_INFO("the cluster has accepted member {:x} in the place of {:x}", plan_.new_id.value,
           plan_.old_id.value);
  return absl::OkStatus();
}

absl::Status Repair::MoveAside() {
  const std::string aside = PathOf(dir_, plan_.aside);
  std::error_code error;
  fs::create_directory(aside, error);
  if (error)
    return absl::InternalError(fmt::format("cannot create {}: {}", aside, error.message()));
  std::vector<std::string> names;
  for (fs::directory_iterator it(dir_, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) return absl::InternalError(fmt::format("cannot list {}: {}", dir_, error.message()));
  for (const std::string& name : names) {
    if (DataDir::StaysInPlace(name)) continue;
    std::string to = PathOf(aside, name);
    // It is there when an earlier try got past this step: then this is an empty beginning of the
    // new member, and whatever else it may be is not thrown away either.
    if (Exists(to) && fs::is_directory(PathOf(dir_, name), error) &&
        fs::is_empty(PathOf(dir_, name), error)) {
      fs::remove(PathOf(dir_, name), error);
      continue;
    }
    while (Exists(to)) to += "+";
    fs::rename(PathOf(dir_, name), to, error);
    if (error) {
      return absl::InternalError(
          fmt::format("cannot move {} to {}: {}", PathOf(dir_, name), to, error.message()));
    }
  }
  LOG_INFO("what was damaged lies in {}", aside);
  if (absl::Status status = DataDir::SyncDirectory(aside); !status.ok()) return status;
  return DataDir::SyncDirectory(dir_);
}

absl::Status Repair::BeBorn() {
  absl::StatusOr<std::unique_ptr<DataDir>> born =
      DataDir::Open(dir_, {.cluster_id = plan_.cluster_id,
                           .member_id = plan_.new_id,
                           .name = config_.name,
                           .bootstrap = plan_.membership});
  if (!born.ok()) return born.status();
  std::error_code error;
  fs::remove(PathOf(dir_, DataDir::kRepairFile), error);
  if (error) {
    return absl::InternalError(
        fmt::format("cannot remove {} in {}: {}", DataDir::kRepairFile, dir_, error.message()));
  }
  RemoveOldAsides(dir_);
  return DataDir::SyncDirectory(dir_);
}

absl::Status Repair::Run(const std::optional<storage::Damage>& damage) {
  {
    const absl::StatusOr<std::unique_ptr<DataDir>> held = DataDir::Hold(dir_);
    if (!held.ok()) return held.status();
    if (absl::Status status = Begin(damage); !status.ok()) return status;
    const absl::StatusOr<std::optional<DataDir::Owner>> owner = DataDir::ReadOwner(dir_);
    const bool born = owner.ok() && owner->has_value() && (*owner)->member_id == plan_.new_id;
    if (!born) {
      if (absl::Status status = AskUntilAccepted(); !status.ok()) return status;
      if (absl::Status status = MoveAside(); !status.ok()) return status;
    }
  }
  return BeBorn();
}

// Unavailable: no member with a quorum answers now.
absl::StatusOr<Identity> AskFormerIdentity(const std::set<std::string>& others,
                                           const std::set<std::string>& ours,
                                           absl::Duration timeout) {
  absl::Status status = absl::UnavailableError("no other member answers that has a quorum");
  for (const Answer& answer : AskAll(others, NodeId(), timeout)) {
    if (!answer.view.ok() || !answer.view->linearizable) continue;
    for (const auto& [id, urls] : answer.view->membership.peer_urls) {
      const bool at_ours = std::set<std::string>(urls.begin(), urls.end()) == ours;
      if (!at_ours || !answer.view->published.contains(id)) continue;
      return Identity{
          .cluster_id = answer.view->cluster_id, .self = id, .bootstrap = answer.view->membership};
    }
    status = Refuse("no member of cluster {:x} at {} has started before", answer.view->cluster_id,
                    fmt::join(ours, ","));
  }
  return status;
}

}  // namespace

absl::Status WriteDamageMarker(const std::string& data_dir, const storage::Damage& damage) {
  const Json json = {
      {"format", kFormat},
      {"time", absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone())},
      {"part", std::string(PartName(damage.part))},
      {"file", damage.file},
      {"first_byte", damage.first_byte},
      {"last_byte", damage.last_byte},
      {"first_index", damage.first_index.value},
      {"last_index", damage.last_index.value},
      {"what", damage.what}};
  // Texts come from anywhere: bytes that are no UTF-8 must not lose the marker.
  return DataDir::WriteFile(
      data_dir, kMarkerFile,
      json.dump(2, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace) + "\n");
}

std::optional<storage::Damage> ReadDamageMarker(const std::string& data_dir) {
  const std::string path = PathOf(data_dir, kMarkerFile);
  if (!Exists(path)) return std::nullopt;
  storage::Damage damage;
  const nlohmann::json json =
      nlohmann::json::parse(ReadFile(path).value_or(""), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    damage.file = data_dir;
    damage.what = fmt::format("{} is there, and cannot be read", path);
    return damage;
  }
  if (TextIn(json, "part") == PartName(storage::Damage::Part::kData)) {
    damage.part = storage::Damage::Part::kData;
  }
  damage.file = TextIn(json, "file");
  damage.first_byte = NumberIn(json, "first_byte");
  damage.last_byte = NumberIn(json, "last_byte");
  damage.first_index = Index(NumberIn(json, "first_index"));
  damage.last_index = Index(NumberIn(json, "last_index"));
  damage.what = TextIn(json, "what");
  return damage;
}

absl::StatusOr<std::optional<RepairPlan>> ReadRepairPlan(const std::string& data_dir) {
  const std::string path = PathOf(data_dir, DataDir::kRepairFile);
  if (!Exists(path)) return std::optional<RepairPlan>();
  std::optional<RepairPlan> plan = FromJson(ReadFile(path).value_or(""));
  if (plan.has_value()) return plan;
  return absl::DataLossError(fmt::format(
      "{} cannot be read: remove it, run `holdfastctl member list` against the others, remove the "
      "learner at this member's peer URLs if there is one, and start again",
      path));
}

absl::StatusOr<RepairStep> NextStep(const RepairPlan& plan, const ClusterView& view,
                                    const std::vector<std::string>& urls) {
  const raft::Membership& now = view.membership;
  RepairStep step{.plan = plan, .change = std::nullopt};
  if (now.Contains(plan.new_id)) return step;
  if (now.Removed(plan.new_id)) {
    return Refuse(
        "the new id {:x} that this member was to have has been removed from the cluster again: "
        "remove the data directory and add the member anew with `holdfastctl member add`",
        plan.new_id.value);
  }
  // Somebody was faster, by hand: a learner at our URLs that never started is us.
  std::set<std::string> ours(urls.begin(), urls.end());
  for (const auto& [id, peer_urls] : now.peer_urls) {
    const bool at_our_urls = std::set<std::string>(peer_urls.begin(), peer_urls.end()) == ours;
    if (!at_our_urls || id == plan.old_id || !now.learners.contains(id)) continue;
    if (view.published.contains(id)) continue;
    step.plan.new_id = id;
    return step;
  }
  if (now.joint()) return absl::UnavailableError("a membership change is under way");
  if (now.Contains(plan.old_id)) {
    const auto promotion = now.promotions.find(plan.old_id);
    step.plan.replaces = NodeId(0);
    if (now.IsVoter(plan.old_id)) {
      if (now.voters.size() == 1) {
        return Refuse("this member is the only voter of its cluster: nobody can replace it");
      }
      step.plan.kind = Kind::kReplace;
      step.plan.replaces = plan.old_id;
    } else if (promotion == now.promotions.end()) {
      step.plan.kind = Kind::kAddLearner;
    } else if (promotion->second) {
      // It was a replacement that has not got its vote yet: the next one takes its place.
      step.plan.kind = Kind::kReplace;
      step.plan.replaces = promotion->second;
    } else {
      step.plan.kind = Kind::kAdd;
    }
    if (*step.plan.kind != Kind::kReplace) {
      // A learner has promised nothing that counts: it leaves, and comes anew.
      step.change = raft::MemberChange{
          .kind = Kind::kRemove, .id = plan.old_id, .peer_urls = {}, .replaces = {}};
      return step;
    }
  } else if (!plan.kind.has_value() || *plan.kind == Kind::kReplace) {
    return Refuse(
        "member {:x} does not belong to cluster {:x} any more, so it cannot be replaced: remove "
        "the "
        "data directory and add the member anew with `holdfastctl member add`",
        plan.old_id.value, plan.cluster_id);
  }
  step.change = raft::MemberChange{.kind = *step.plan.kind,
                                   .id = plan.new_id,
                                   .peer_urls = urls,
                                   .replaces = step.plan.replaces};
  return step;
}

absl::StatusOr<Identity> FormerIdentity(const Config& config, const RepairTimes& times) {
  std::set<std::string> others, ours;
  for (const ClusterMember& member : config.initial_cluster) {
    if (member.name == config.name) continue;
    for (const Url& url : member.peer_urls) others.insert(url.ToString());
  }
  for (const Url& url : config.initial_advertise_peer_urls) ours.insert(url.ToString());
  // If this member led, the others are only just electing its successor.
  const SteadyTime give_up = SteadyNow() + ToSteady(times.give_up);
  for (;;) {
    absl::StatusOr<Identity> former = AskFormerIdentity(others, ours, times.ask);
    if (!absl::IsUnavailable(former.status())) return former;
    if (SteadyNow() + ToSteady(times.retry) > give_up) return former;
    std::this_thread::sleep_for(ToSteady(times.retry));
  }
}

absl::Status RepairMember(const Config& config, const Identity& self,
                          const std::optional<storage::Damage>& damage, const RepairTimes& times) {
  if (damage.has_value()) {
    LOG_ERROR(
        "this member's {} is damaged: {}. It does not vote or acknowledge on the strength of "
        "it, and is to be replaced by itself under a new id",
        PartName(damage->part), Describe(*damage));
  }
  return Repair(config, self, times).Run(damage);
}

}  // namespace holdfast::server
