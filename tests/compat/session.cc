#include "session.h"

#include <fmt/format.h>
#include <openssl/sha.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast::compat {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr absl::Duration kCallTimeout = absl::Seconds(20);
constexpr absl::Duration kStreamLife = absl::Seconds(120);
constexpr absl::Duration kReadTimeout = absl::Seconds(10);
constexpr absl::Duration kProgramTimeout = absl::Seconds(40);
constexpr absl::Duration kUntilTimeout = absl::Seconds(30);
constexpr absl::Duration kPoll = absl::Milliseconds(25);
// Long enough that an answer which is there has come, on a machine that is not starved.
constexpr absl::Duration kPendingFor = absl::Milliseconds(100);

Outcome Broken(std::string text) { return {"BROKEN: " + std::move(text), true}; }

// Takes the first word off.
std::string Pop(std::string* rest) {
  const size_t end = rest->find(' ');
  std::string word = rest->substr(0, end);
  *rest = end == std::string::npos ? "" : rest->substr(rest->find_first_not_of(' ', end));
  return word;
}

int PopCount(std::string* rest) {
  const std::string word = Pop(rest);
  return word.empty() ? 1 : std::max(1, atoi(word.c_str()));
}

// "{name(ARGUMENT)}" wherever it stands.
template <class F>
std::string ReplaceFunction(std::string text, const std::string& name, F function) {
  const std::string begin = "{" + name + "(";
  for (size_t at = 0; (at = text.find(begin, at)) != std::string::npos;) {
    const size_t end = text.find(")}", at);
    if (end == std::string::npos) break;
    const std::string value = function(text.substr(at + begin.size(), end - at - begin.size()));
    text.replace(at, end + 2 - at, value);
    at += value.size();
  }
  return text;
}

std::string Repeated(const std::string& argument, bool numbered) {
  const size_t comma = argument.find(',');
  if (comma == std::string::npos) return "";
  const std::string& number = numbered ? argument.substr(0, comma) : argument.substr(comma + 1);
  const std::string& piece = numbered ? argument.substr(comma + 1) : argument.substr(0, comma);
  std::string all;
  for (int i = 0; i < atoi(number.c_str()); ++i) {
    std::string one = piece;
    for (size_t at; numbered && (at = one.find('#')) != std::string::npos;) {
      one.replace(at, 1, fmt::format("{}", i));
    }
    all += one;
    if (numbered) all += ' ';
  }
  return all;
}

std::string FieldText(const Message& message, const FieldDescriptor& field) {
  const auto& r = *message.GetReflection();
  const bool repeated = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return repeated ? r.GetRepeatedString(message, &field, 0) : r.GetString(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return fmt::format("{}", r.GetInt64(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return fmt::format("{}", r.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_UINT32:
      return fmt::format("{}", r.GetUInt32(message, &field));
    default:
      return "";
  }
}

// "kvs.mod_revision": of a repeated field, the first.
bool FieldAt(const Message& message, const std::string& path, std::string* text) {
  const Message* at = &message;
  const std::vector<std::string> names = absl::StrSplit(path, '.');
  for (size_t i = 0; i < names.size(); ++i) {
    const FieldDescriptor* const field = at->GetDescriptor()->FindFieldByName(names[i]);
    if (field == nullptr) return false;
    const auto& r = *at->GetReflection();
    if (field->is_repeated() && r.FieldSize(*at, field) == 0) return false;
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      *text = FieldText(*at, *field);
      return i + 1 == names.size();
    }
    at = field->is_repeated() ? &r.GetRepeatedMessage(*at, field, 0) : &r.GetMessage(*at, field);
  }
  return false;
}

}  // namespace

Session::Session(Target& target, const Case& one, int number, std::string directory)
    : target_(target), cluster_(target.cluster()), directory_(std::move(directory)) {
  variables_["k"] = one.name + "/";
  variables_["K"] = one.name + "0";  // the byte after '/'
  variables_["lease"] = fmt::format("{}", 1'000'000 + number * 100);
  variables_["tmp"] = directory_;
  variables_["eps"] = absl::StrJoin(cluster_.Endpoints(), ",");
  masks_.Know(directory_, "<tmp>");

  auto stub = etcdserverpb::Cluster::NewStub(target_.channel(0));
  grpc::ClientContext list_context, status_context, range_context;
  etcdserverpb::MemberListResponse list;
  stub->MemberList(&list_context, {}, &list);
  masks_.KnowId(list.header().cluster_id(), "<cluster>");
  etcdserverpb::StatusResponse status;
  etcdserverpb::Maintenance::NewStub(target_.channel(0))->Status(&status_context, {}, &status);
  for (int i = 0; i < cluster_.size(); ++i) {
    variables_[fmt::format("ep{}", i)] = cluster_.endpoint(i);
    variables_[fmt::format("port{}", i)] = fmt::format("{}", cluster_.client_port(i));
    variables_[fmt::format("peer{}", i)] = cluster_.peer_url(i);
    std::string role = "new";
    for (const etcdserverpb::Member& member : list.members()) {
      if (member.peerurls_size() == 0 || member.peerurls(0) != cluster_.peer_url(i)) continue;
      role = member.id() == status.leader() ? "leader" : "follower";
      masks_.KnowId(member.id(), "<" + role + ">");
      variables_[fmt::format("m{}", i)] = fmt::format("{}", member.id());
      variables_["m" + role] = fmt::format("{}", member.id());
      masks_.Know(member.name(), "<name>");
    }
    masks_.Know(cluster_.endpoint(i), "<client-" + role + ">");
    masks_.Know(cluster_.peer_url(i), "<peer-" + role + ">");
    masks_.Know(cluster_.data_dir(i), "<data-" + role + ">");
  }
  etcdserverpb::RangeRequest any;
  any.set_key("k");
  etcdserverpb::RangeResponse now;
  etcdserverpb::KV::NewStub(target_.channel(0))->Range(&range_context, any, &now);
  masks_.SetBaseRevision(now.header().revision());
  variables_["R"] = fmt::format("{}", now.header().revision());
}

Session::~Session() = default;

Outcome Session::Run(const Step& step) {
  Outcome outcome = Do(step.text);
  for (const Mask& mask : step.masks) {
    outcome.text = std::regex_replace(outcome.text, std::regex(mask.regex), mask.text);
  }
  if (step.sorted) {
    std::vector<std::string> lines = absl::StrSplit(outcome.text, '\n');
    std::ranges::sort(lines);
    outcome.text = absl::StrJoin(lines, "\n");
  }
  return outcome;
}

Outcome Session::Do(const std::string& text) {
  static const std::map<std::string, Verb>* const verbs = new std::map<std::string, Verb>{
      {"merged", &Session::Merged},       {"start", &Session::StartCall},
      {"send", &Session::SendOn},         {"half", &Session::HalfClose},
      {"cancel", &Session::CancelCall},   {"read", &Session::ReadFrom},
      {"end", &Session::EndOf},           {"events", &Session::Events},
      {"pending", &Session::Pending},     {"ctl", &Session::Ctl},
      {"ctlproto", &Session::CtlProto},   {"run", &Session::RunProgram},
      {"line", &Session::LineOf},         {"type", &Session::TypeInto},
      {"stop", &Session::StopProgram},    {"http", &Session::Http},
      {"hstart", &Session::HttpStart},    {"hline", &Session::HttpLine},
      {"hclose", &Session::HttpClose},    {"metrics", &Session::Metrics},
      {"snapshot", &Session::Snapshot},   {"save", &Session::Save},
      {"same", &Session::Same},           {"until", &Session::Until},
      {"binary", &Session::Binary},       {"log", &Session::Log},
      {"term", &Session::Term},           {"kill", &Session::Kill},
      {"restart", &Session::Restart},     {"elected", &Session::Elected},
      {"newmember", &Session::NewMember}, {"exited", &Session::Exited}};
  std::string rest = text;
  const std::string verb = Pop(&rest);
  if (const auto found = verbs->find(verb); found != verbs->end()) {
    return (this->*found->second)(verb == "until" ? rest : Expand(rest));
  }
  if (verb.find('.') != std::string::npos) return OneCall(Expand(text));
  return Broken("no such verb: " + verb);
}

// --- placeholders ---

std::string Session::Variable(const std::string& name) {
  if (name == "mleader" || name == "mfollower") {
    const int member = Who(name.substr(1));
    return variables_[fmt::format("m{}", member)];
  }
  const auto found = variables_.find(name);
  return found == variables_.end() ? "" : found->second;
}

std::string Session::Expand(const std::string& text) {
  static const std::regex* const kPlaceholder =
      new std::regex("\\{([A-Za-z_][A-Za-z0-9_]*)([+-][0-9]+)?(:x)?\\}");
  std::string out;
  auto from = text.cbegin();
  for (std::smatch match; std::regex_search(from, text.cend(), match, *kPlaceholder);) {
    out.append(from, match[0].first);
    std::string value = Variable(match[1]);
    if (!match[2].str().empty() || !match[3].str().empty()) {
      const uint64_t number = strtoull(value.c_str(), nullptr, 10) +
                              uint64_t(strtoll(match[2].str().c_str(), nullptr, 10));
      value =
          match[3].str().empty() ? fmt::format("{}", int64_t(number)) : fmt::format("{:x}", number);
    }
    out += value.empty() ? match[0].str() : value;
    from = match[0].second;
  }
  out.append(from, text.cend());
  out = ReplaceFunction(out, "rep", [](const std::string& a) { return Repeated(a, false); });
  out = ReplaceFunction(out, "times", [](const std::string& a) { return Repeated(a, true); });
  return ReplaceFunction(out, "b64", [](const std::string& a) { return absl::Base64Escape(a); });
}

int Session::Who(const std::string& who) {
  if (who != "leader" && who != "follower") return atoi(who.c_str());
  if (!cluster_.WaitForLeader(kUntilTimeout).ok()) return 0;
  const auto leader = cluster_.Leader();
  if (!leader.ok()) return 0;
  return who == "leader" ? *leader : (*leader == 0 ? 1 : 0);
}

// --- gRPC ---

Session::Call Session::ParseCall(const std::string& text) {
  Call call;
  call.text = text;
  call.method = Pop(&call.text);
  while (call.text.starts_with('@') || call.text.starts_with('+')) {
    const std::string option = Pop(&call.text);
    if (option[0] == '@') {
      call.member = Who(option.substr(1));
    } else {
      const size_t equal = option.find('=');
      call.metadata.emplace_back(option.substr(1, equal - 1), option.substr(equal + 1));
    }
  }
  return call;
}

absl::StatusOr<std::unique_ptr<GrpcCall>> Session::Open(const Call& call) {
  auto opened =
      GrpcCall::Start(target_.channel(call.member), call.method, call.metadata, kStreamLife);
  if (opened.ok() && !(*opened)->Send(call.text)) {
    return absl::InvalidArgumentError("this is no request: " + call.text);
  }
  if (opened.ok()) (*opened)->HalfClose();
  return opened;
}

std::string Session::Show(GrpcCall::Answer answer) {
  if (answer.kind == GrpcCall::Answer::Kind::kTimeout) return "(no answer)";
  if (answer.kind == GrpcCall::Answer::Kind::kEnd) {
    last_text_ = answer.status.error_message();
    return fmt::format("{} {}", CodeName(answer.status.error_code()), masks_.Text(last_text_));
  }
  last_message_ = std::move(answer.message);
  return masks_.Print(*last_message_);
}

Outcome Session::OneCall(const std::string& text) {
  auto call = Open(ParseCall(text));
  if (!call.ok()) return Broken(call.status().ToString());
  std::vector<std::string> lines;
  while (true) {
    GrpcCall::Answer answer = (*call)->Read(kCallTimeout);
    if (answer.kind == GrpcCall::Answer::Kind::kTimeout) return Broken("no answer");
    const bool message = answer.ok();
    const bool failed = !message && !answer.status.ok();
    if (message || failed) lines.push_back(Show(std::move(answer)));
    if (!message) return {absl::StrJoin(lines, "\n"), false};
  }
}

Outcome Session::Merged(const std::string& rest) {
  auto call = Open(ParseCall(rest));
  if (!call.ok()) return Broken(call.status().ToString());
  std::unique_ptr<Message> whole;
  while (true) {
    GrpcCall::Answer answer = (*call)->Read(kCallTimeout);
    if (answer.kind == GrpcCall::Answer::Kind::kTimeout) return Broken("no answer");
    if (!answer.ok()) {
      if (!answer.status.ok() || whole == nullptr) return {Show(std::move(answer)), false};
      last_message_ = std::move(whole);
      return {masks_.Print(*last_message_), false};
    }
    if (whole == nullptr) {
      whole = std::move(answer.message);
    } else {
      whole->MergeFrom(*answer.message);
    }
  }
}

Outcome Session::StartCall(const std::string& rest) {
  std::string text = rest;
  const std::string name = Pop(&text);
  const Call call = ParseCall(text);
  const bool two_way = call.method == "Watch.Watch" || call.method == "Lease.LeaseKeepAlive";
  absl::StatusOr<std::unique_ptr<GrpcCall>> opened =
      two_way
          ? GrpcCall::Start(target_.channel(call.member), call.method, call.metadata, kStreamLife)
          : Open(call);
  if (!opened.ok()) return Broken(opened.status().ToString());
  if (two_way && !call.text.empty() && !(*opened)->Send(call.text)) {
    return Broken("this is no request: " + call.text);
  }
  calls_[name] = *std::move(opened);
  return {};
}

GrpcCall* Session::FindCall(const std::string& name) {
  const auto found = calls_.find(name);
  return found == calls_.end() ? nullptr : found->second.get();
}

Outcome Session::SendOn(const std::string& rest) {
  std::string text = rest;
  GrpcCall* const call = FindCall(Pop(&text));
  if (call == nullptr) return Broken("no such call");
  return call->Send(text) ? Outcome{} : Broken("this is no request: " + text);
}

Outcome Session::HalfClose(const std::string& rest) {
  GrpcCall* const call = FindCall(rest);
  if (call == nullptr) return Broken("no such call");
  call->HalfClose();
  return {};
}

Outcome Session::CancelCall(const std::string& rest) {
  GrpcCall* const call = FindCall(rest);
  if (call == nullptr) return Broken("no such call");
  call->Cancel();
  return {};
}

Outcome Session::ReadFrom(const std::string& rest) {
  std::string text = rest;
  GrpcCall* const call = FindCall(Pop(&text));
  if (call == nullptr) return Broken("no such call");
  std::vector<std::string> lines;
  for (int left = PopCount(&text); left > 0; --left) {
    GrpcCall::Answer answer = call->Read(kReadTimeout);
    const auto kind = answer.kind;
    lines.push_back(Show(std::move(answer)));
    if (kind != GrpcCall::Answer::Kind::kMessage) {
      const bool broken = kind == GrpcCall::Answer::Kind::kTimeout;
      return {absl::StrJoin(lines, "\n"), broken};
    }
  }
  return {absl::StrJoin(lines, "\n"), false};
}

Outcome Session::EndOf(const std::string& rest) {
  GrpcCall* const call = FindCall(rest);
  if (call == nullptr) return Broken("no such call");
  std::vector<std::string> lines;
  while (true) {
    GrpcCall::Answer answer = call->Read(kReadTimeout);
    const auto kind = answer.kind;
    lines.push_back(Show(std::move(answer)));
    if (kind != GrpcCall::Answer::Kind::kMessage) {
      const bool broken = kind == GrpcCall::Answer::Kind::kTimeout;
      return {absl::StrJoin(lines, "\n"), broken};
    }
  }
}

Outcome Session::Events(const std::string& rest) {
  std::string text = rest;
  GrpcCall* const call = FindCall(Pop(&text));
  if (call == nullptr) return Broken("no such call");
  const int wanted = PopCount(&text);
  std::vector<std::string> lines;
  int64_t last_revision = 0;
  bool was_fragment = false;
  while (int(lines.size()) < wanted) {
    GrpcCall::Answer answer = call->Read(kReadTimeout);
    const auto* const response =
        dynamic_cast<const etcdserverpb::WatchResponse*>(answer.message.get());
    if (response == nullptr || response->events().empty()) {
      const bool timeout = answer.kind == GrpcCall::Answer::Kind::kTimeout;
      lines.push_back(Show(std::move(answer)));
      return {absl::StrJoin(lines, "\n"), timeout};
    }
    if (response->events(0).kv().mod_revision() == last_revision && !was_fragment) {
      lines.emplace_back("a revision in two responses");
    }
    if (response->header().revision() < response->events().rbegin()->kv().mod_revision()) {
      lines.emplace_back("a header older than its events");
    }
    for (const auto& event : response->events()) {
      lines.push_back(fmt::format("watch_id {} {}", response->watch_id(), masks_.Print(event)));
    }
    last_revision = response->events().rbegin()->kv().mod_revision();
    was_fragment = response->fragment();
  }
  return {absl::StrJoin(lines, "\n"), false};
}

Outcome Session::Pending(const std::string& rest) {
  GrpcCall* const call = FindCall(rest);
  if (call == nullptr) return Broken("no such call");
  GrpcCall::Answer answer = call->Read(kPendingFor);
  if (answer.kind == GrpcCall::Answer::Kind::kTimeout) return {"pending", false};
  return {"not pending: " + Show(std::move(answer)), false};
}

// How a snapshot looks on the wire; what it holds is the store's own.
Outcome Session::Snapshot(const std::string& rest) {
  auto call = Open({.method = "Maintenance.Snapshot", .text = "", .member = 0, .metadata = {}});
  if (!call.ok()) return Broken(call.status().ToString());
  std::string bytes, last;
  uint64_t first_remaining = 0, remaining = 0, messages = 0;
  bool falls = true;
  while (true) {
    GrpcCall::Answer answer = (*call)->Read(kCallTimeout);
    if (answer.kind == GrpcCall::Answer::Kind::kTimeout) return Broken("no answer");
    if (!answer.ok()) {
      if (!answer.status.ok()) return {Show(std::move(answer)), false};
      break;
    }
    const auto& part = dynamic_cast<const etcdserverpb::SnapshotResponse&>(*answer.message);
    bytes += last;
    last = part.blob();
    if (messages == 0) first_remaining = part.remaining_bytes() + last.size();
    if (messages > 0 && part.remaining_bytes() > remaining) falls = false;
    remaining = part.remaining_bytes();
    ++messages;
  }
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  const bool right = last == std::string(reinterpret_cast<char*>(digest), sizeof(digest));
  return {fmt::format("size % 512 = {}, announced {}, remaining falls {} to {}, last message {} "
                      "bytes, is the SHA-256 {}, several messages {}",
                      bytes.size() % 512, first_remaining == bytes.size() ? "exactly" : "wrongly",
                      falls, remaining, last.size(), right, messages > 1),
          false};
}

// --- values ---

Outcome Session::Save(const std::string& rest) {
  std::string path = rest;
  const std::string name = Pop(&path);
  std::string value;
  if (path.starts_with('/')) {
    std::smatch match;
    const std::regex regex(path.substr(1, path.size() - 2));
    if (!std::regex_search(last_text_, match, regex)) return Broken("not in the text: " + path);
    value = match[1];
  } else if (last_message_ == nullptr || !FieldAt(*last_message_, path, &value)) {
    return Broken("no such field: " + path);
  }
  variables_[name] = value;
  // What a server made up by itself: an id, or a name with one in it.
  if (value.size() > 10) masks_.Know(value, "<" + name + ">");
  return {};
}

Outcome Session::Same(const std::string& rest) {
  std::string other = rest;
  const std::string one = Pop(&other);
  return {one == other ? "same" : "different", false};
}

Outcome Session::Until(const std::string& rest) {
  const size_t colons = rest.find(" :: ");
  if (colons == std::string::npos) return Broken("until REGEX :: STEP");
  const std::regex wanted(rest.substr(0, colons));
  const absl::Time give_up = absl::Now() + kUntilTimeout;
  while (true) {
    Outcome outcome = Do(rest.substr(colons + 4));
    if (std::regex_search(outcome.text, wanted)) return outcome;
    if (absl::Now() > give_up) return Broken("never came: " + outcome.text);
    absl::SleepFor(kPoll);
  }
}

}  // namespace holdfast::compat
