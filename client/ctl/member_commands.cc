#include "client/ctl/member_commands.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/strings.h"
#include "client/ctl/member_admin.h"
#include "client/ctl/output.h"

namespace holdfast::ctl {
namespace {

using Kind = MemberRequest::Kind;
using etcdserverpb::Member;

ExitCode Fail(const absl::Status& status, Io io) {
  io.err << "holdfastctl: " << base::Message(status) << "\n";
  if (!absl::IsAborted(status)) return ExitCodeOf(status);
  io.err << "holdfastctl: the outcome is unknown: it may have been done. `holdfastctl member list` "
            "shows the members\n";
  return kMaybeCommitted;
}

ExitCode UsageError(const absl::Status& status, Io io) {
  io.err << "holdfastctl: " << base::Message(status) << "\n";
  return kUsage;
}

const Member* Find(const std::vector<Member>& members, uint64_t id) {
  const auto it = std::find_if(members.begin(), members.end(),
                               [id](const Member& member) { return member.id() == id; });
  return it == members.end() ? nullptr : &*it;
}

// --initial-cluster for `member`, called `name`. One that is to be replaced is left out, and so is
// a second member at the same address. A member without a name of its own gets its id as one: the
// names do not count for a member that joins.
std::string InitialCluster(const MemberAnswer& answer, const Member& member,
                           const std::string& name, uint64_t replaced) {
  std::vector<std::string> parts;
  std::set<std::string> urls, names = {name};
  for (const std::string& url : member.peerurls()) {
    urls.insert(url);
    parts.push_back(fmt::format("{}={}", name, url));
  }
  for (const Member& other : answer.members) {
    if (other.id() == member.id() || other.id() == replaced) continue;
    const bool own_name = !other.name().empty() && names.insert(other.name()).second;
    const std::string called = own_name ? other.name() : fmt::format("{:x}", other.id());
    for (const std::string& url : other.peerurls()) {
      if (urls.insert(url).second) parts.push_back(fmt::format("{}={}", called, url));
    }
  }
  return fmt::format("{}", fmt::join(parts, ","));
}

// As `etcdctl member add` prints it, with our prefix: holdfastd reads these variables as they are.
void PrintHowToStart(const MemberAnswer& answer, const std::string& name, uint64_t replaced,
                     Io io) {
  const Member& member = answer.member;
  io.out << fmt::format(
      "\nHOLDFAST_NAME=\"{}\"\nHOLDFAST_INITIAL_CLUSTER=\"{}\"\n"
      "HOLDFAST_INITIAL_ADVERTISE_PEER_URLS=\"{}\"\nHOLDFAST_INITIAL_CLUSTER_STATE=\"existing\"\n",
      name, InitialCluster(answer, member, name, replaced),
      fmt::join(member.peerurls().begin(), member.peerurls().end(), ","));
  io.out << std::flush;
  io.err << "holdfastctl: start holdfastd with these, as variables or as flags "
            "(--initial-cluster-state=existing ...), with an empty --data-dir\n";
}

// Sends one request; prints the answer in JSON, or one line of text.
absl::StatusOr<MemberAnswer> Run(const Common& common, const MemberRequest& request,
                                 std::string_view done, Io io) {
  auto answer = ChangeMembers(common.endpoints, common.timeout, request);
  if (!answer.ok()) return answer;
  if (common.json) {
    io.out << MemberAnswerJson(*answer) << std::flush;
  } else {
    const uint64_t id =
        answer->member.id() != 0 && request.kind == Kind::kAdd ? answer->member.id() : request.id;
    io.out << fmt::format("Member {:16x} {} cluster {:16x}\n", id, done,
                          answer->header.cluster_id())
           << std::flush;
  }
  return answer;
}

// Of a command that names one member.
ExitCode RunOnMember(const Common& common, Kind kind, const std::string& id,
                     const std::vector<std::string>& peer_urls, std::string_view done, Io io) {
  const auto parsed = ParseMemberId(id);
  if (!parsed.ok()) return UsageError(parsed.status(), io);
  const auto answer = Run(common, {.kind = kind, .id = *parsed, .peer_urls = peer_urls}, done, io);
  return answer.ok() ? kOk : Fail(answer.status(), io);
}

}  // namespace

absl::StatusOr<uint64_t> ParseMemberId(std::string_view text) {
  std::string_view digits = text;
  if (digits.starts_with("0x")) digits.remove_prefix(2);
  uint64_t id = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), id, /*base=*/16);
  if (error == std::errc() && end == digits.data() + digits.size() && id != 0) return id;
  return absl::InvalidArgumentError(base::ToAbsl(
      fmt::format("'{}' is no member id: write it in hexadecimal, as `holdfastctl member list` "
                  "shows it",
                  base::Printable(text))));
}

ExitCode AddMember(const Common& common, const std::string& name,
                   const std::vector<std::string>& peer_urls, bool learner, Io io) {
  const auto answer =
      Run(common, {.kind = Kind::kAdd, .peer_urls = peer_urls, .learner = learner}, "added to", io);
  if (!answer.ok()) return Fail(answer.status(), io);
  if (!common.json) PrintHowToStart(*answer, name, 0, io);
  return kOk;
}

ExitCode RemoveMember(const Common& common, const std::string& id, Io io) {
  return RunOnMember(common, Kind::kRemove, id, {}, "removed from", io);
}

ExitCode PromoteMember(const Common& common, const std::string& id, Io io) {
  return RunOnMember(common, Kind::kPromote, id, {}, "promoted in", io);
}

ExitCode UpdateMember(const Common& common, const std::string& id,
                      const std::vector<std::string>& peer_urls, Io io) {
  return RunOnMember(common, Kind::kUpdate, id, peer_urls, "updated in", io);
}

ExitCode DemoteMember(const Common& common, const std::string& id, Io io) {
  return RunOnMember(common, Kind::kDemote, id, {}, "demoted in", io);
}

ExitCode ReplaceMember(const Common& common, const std::string& id,
                       const std::vector<std::string>& peer_urls, Io io) {
  const auto old = ParseMemberId(id);
  if (!old.ok()) return UsageError(old.status(), io);
  const MemberRequest request = {.kind = Kind::kReplace, .id = *old, .peer_urls = peer_urls};
  const auto answer = ChangeMembers(common.endpoints, common.timeout, request);
  if (!answer.ok()) return Fail(answer.status(), io);
  if (common.json) {
    io.out << MemberAnswerJson(*answer) << std::flush;
    return kOk;
  }
  io.out << fmt::format("Member {:16x} replaces {:16x} in cluster {:16x}\n", answer->member.id(),
                        *old, answer->header.cluster_id());
  const Member* const replaced = Find(answer->members, *old);
  const std::string name = replaced != nullptr && !replaced->name().empty()
                               ? replaced->name()
                               : fmt::format("{:x}", answer->member.id());
  PrintHowToStart(*answer, name, *old, io);
  io.err << fmt::format(
      "holdfastctl: {:x} leaves by itself as soon as the new member has caught up\n", *old);
  return kOk;
}

ExitCode MoveLeaderTo(const Common& common, const std::string& id, Io io) {
  const auto to = ParseMemberId(id);
  if (!to.ok()) return UsageError(to.status(), io);
  const auto from = MoveLeader(common.endpoints, common.timeout, *to);
  if (!from.ok()) return Fail(from.status(), io);
  if (common.json) {
    io.out << nlohmann::json{{"from", *from}, {"to", *to}}.dump() << "\n" << std::flush;
  } else {
    io.out << fmt::format("Leadership transferred from {:x} to {:x}\n", *from, *to) << std::flush;
  }
  return kOk;
}

}  // namespace holdfast::ctl
