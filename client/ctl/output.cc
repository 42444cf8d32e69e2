#include "client/ctl/output.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "base/strings.h"

namespace holdfast::ctl {
namespace {

using nlohmann::json;

std::string Base64(const std::string& bytes) { return absl::Base64Escape(bytes); }

// nlohmann throws on text that is not UTF-8; what a server says is not ours to trust.
std::string Line(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

json ToJson(const Freshness& fresh) {
  const absl::Duration age = fresh.MaxAge();
  json out = {{"proof", ToString(fresh.proof())},
              {"source", ToString(fresh.source())},
              {"revision", fresh.revision()}};
  out["age_seconds"] =
      age == absl::InfiniteDuration() ? json(nullptr) : json(absl::ToDoubleSeconds(age));
  return out;
}

json ToJson(const Entry& entry, bool keys_only) {
  json out = {{"key", Base64(entry.key)},
              {"create_revision", entry.create_revision},
              {"mod_revision", entry.mod_revision},
              {"version", entry.version}};
  if (!keys_only) out["value"] = Base64(entry.value);
  if (entry.lease != 0) out["lease"] = entry.lease;
  return out;
}

json ToJson(const RangeResult& range, bool keys_only) {
  json out = {{"count", range.count}, {"kvs", json::array()}};
  for (const Entry& entry : range.entries) out["kvs"].push_back(ToJson(entry, keys_only));
  if (range.more) out["more"] = true;
  return out;
}

json HeaderOf(const Token& token) {
  return {{"cluster_id", token.cluster_id}, {"revision", token.revision}};
}

const std::vector<Op>& OpsThatRan(const Txn& txn, const TxnResult& result) {
  return result.succeeded ? txn.then_ops() : txn.else_ops();
}

std::string AgeText(const Freshness& fresh) {
  const absl::Duration age = fresh.MaxAge();
  if (age == absl::InfiniteDuration()) return "unknown";
  return fmt::format("{:.3f}s", absl::ToDoubleSeconds(age));
}

std::string RoleOf(const etcdserverpb::StatusResponse& status) {
  if (status.islearner()) return "learner";
  if (status.leader() == 0) return "no leader";
  return status.leader() == status.header().member_id() ? "leader" : "follower";
}

std::string RoleOf(const etcdserverpb::Member& member,
                   const std::map<uint64_t, std::string>& roles) {
  const auto it = roles.find(member.id());
  if (it != roles.end()) return it->second;
  return member.islearner() ? "learner" : "voter";
}

json ToJson(const etcdserverpb::Member& m) {
  json item = {{"ID", m.id()}, {"name", m.name()}, {"isLearner", m.islearner()}};
  item["peerURLs"] = std::vector<std::string>(m.peerurls().begin(), m.peerurls().end());
  item["clientURLs"] = std::vector<std::string>(m.clienturls().begin(), m.clienturls().end());
  return item;
}

std::string Joined(const auto& texts) {
  std::string out;
  for (const std::string& text : texts) {
    if (!out.empty()) out += ",";
    out += text;
  }
  return out;
}

}  // namespace

std::string FreshnessText(const Freshness& fresh) {
  return fmt::format("rev={} age={} proof={} source={}", fresh.revision(), AgeText(fresh),
                     ToString(fresh.proof()), ToString(fresh.source()));
}

std::string ColumnsText(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) line += fmt::format("{:<{}}  ", row[i], widths[i]);
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string EntryJson(const Entry& entry) { return Line(ToJson(entry, false)); }

std::string EntriesText(const RangeResult& range, const GetStyle& style) {
  if (style.count_only) return fmt::format("{}\n", range.count);
  std::string out;
  for (const Entry& entry : range.entries) {
    if (!style.values_only) out += entry.key + "\n";
    if (!style.keys_only) out += entry.value + "\n";
  }
  return out;
}

std::string GetJson(const RangeResult& range, const Freshness& fresh, const GetStyle& style) {
  json out = ToJson(range, style.keys_only);
  out["header"] = {{"revision", fresh.revision()}};
  out["freshness"] = ToJson(fresh);
  return Line(out);
}

std::string PutJson(const WriteResult& result) {
  return Line({{"header", HeaderOf(result.token)}, {"token", result.token.Serialize()}});
}

std::string DeleteJson(const WriteResult& result) {
  return Line({{"header", HeaderOf(result.token)},
               {"token", result.token.Serialize()},
               {"deleted", result.deleted}});
}

std::string TxnText(const Txn& txn, const TxnResult& result) {
  std::string out = result.succeeded ? "SUCCESS\n" : "FAILURE\n";
  const std::vector<Op>& ops = OpsThatRan(txn, result);
  for (size_t i = 0; i < std::min(ops.size(), result.results.size()); ++i) {
    out += "\n";
    switch (ops[i].kind()) {
      case Op::Kind::kPut:
        out += "OK\n";
        break;
      case Op::Kind::kDelete:
        out += fmt::format("{}\n", result.results[i].deleted);
        break;
      case Op::Kind::kGet:
        out += EntriesText(result.results[i].range, {});
        break;
    }
  }
  return out;
}

std::string TxnJson(const Txn& txn, const TxnResult& result) {
  json responses = json::array();
  const std::vector<Op>& ops = OpsThatRan(txn, result);
  for (size_t i = 0; i < std::min(ops.size(), result.results.size()); ++i) {
    switch (ops[i].kind()) {
      case Op::Kind::kPut:
        responses.push_back({{"put", json::object()}});
        break;
      case Op::Kind::kDelete:
        responses.push_back({{"delete", {{"deleted", result.results[i].deleted}}}});
        break;
      case Op::Kind::kGet:
        responses.push_back({{"range", ToJson(result.results[i].range, false)}});
        break;
    }
  }
  return Line({{"header", HeaderOf(result.token)},
               {"succeeded", result.succeeded},
               {"responses", responses},
               {"freshness", ToJson(result.fresh)}});
}

std::string StatusText(const std::vector<EndpointStatus>& all) {
  std::vector<std::vector<std::string>> rows = {{"ENDPOINT", "ID", "VERSION", "ROLE", "LEADER",
                                                 "TERM", "INDEX", "APPLIED", "REVISION", "DB SIZE",
                                                 "AGE", "ERRORS"}};
  for (const EndpointStatus& one : all) {
    if (!one.status.ok()) {
      rows.push_back({one.endpoint, "-", "-", "unreachable", "-", "-", "-", "-", "-", "-", "-",
                      std::string(base::Message(one.status.status()))});
      continue;
    }
    const etcdserverpb::StatusResponse& s = *one.status;
    rows.push_back({one.endpoint, fmt::format("{:x}", s.header().member_id()), s.version(),
                    RoleOf(s), s.leader() == 0 ? "-" : fmt::format("{:x}", s.leader()),
                    fmt::format("{}", s.raftterm()), fmt::format("{}", s.raftindex()),
                    fmt::format("{}", s.raftappliedindex()),
                    fmt::format("{}", s.header().revision()), fmt::format("{}", s.dbsize()),
                    one.fresh.has_value() ? AgeText(*one.fresh) : "no answer", Joined(s.errors())});
  }
  return ColumnsText(rows);
}

std::string StatusJson(const std::vector<EndpointStatus>& all) {
  json out = json::array();
  for (const EndpointStatus& one : all) {
    json item = {{"endpoint", one.endpoint}};
    if (!one.status.ok()) {
      item["error"] = std::string(base::Message(one.status.status()));
      out.push_back(item);
      continue;
    }
    const etcdserverpb::StatusResponse& s = *one.status;
    item["member_id"] = s.header().member_id();
    item["cluster_id"] = s.header().cluster_id();
    item["revision"] = s.header().revision();
    item["version"] = s.version();
    item["role"] = RoleOf(s);
    item["leader"] = s.leader();
    item["raft_term"] = s.raftterm();
    item["raft_index"] = s.raftindex();
    item["raft_applied_index"] = s.raftappliedindex();
    item["db_size"] = s.dbsize();
    item["errors"] = json::array();
    for (const std::string& error : s.errors()) item["errors"].push_back(error);
    item["freshness"] = one.fresh.has_value() ? ToJson(*one.fresh) : json(nullptr);
    out.push_back(item);
  }
  return Line(out);
}

std::string MembersText(const MemberList& members, const std::map<uint64_t, std::string>& roles) {
  std::string out;
  for (const etcdserverpb::Member& m : members.response.members()) {
    out += fmt::format("{:x}, {}, {}, {}, {}, {}, {}\n", m.id(),
                       m.name().empty() ? "unstarted" : "started", m.name(), Joined(m.peerurls()),
                       Joined(m.clienturls()), m.islearner(), RoleOf(m, roles));
  }
  return out;
}

std::string MembersJson(const MemberList& members, const std::map<uint64_t, std::string>& roles) {
  json list = json::array();
  for (const etcdserverpb::Member& m : members.response.members()) {
    json item = ToJson(m);
    item["role"] = RoleOf(m, roles);
    list.push_back(item);
  }
  return Line({{"members", list}, {"linearizable", members.linearizable}});
}

std::string MemberAnswerJson(const MemberAnswer& answer) {
  json out = {{"header",
               {{"cluster_id", answer.header.cluster_id()},
                {"member_id", answer.header.member_id()},
                {"raft_term", answer.header.raft_term()}}},
              {"members", json::array()}};
  if (answer.member.id() != 0) out["member"] = ToJson(answer.member);
  for (const etcdserverpb::Member& m : answer.members) out["members"].push_back(ToJson(m));
  return Line(out);
}

}  // namespace holdfast::ctl
