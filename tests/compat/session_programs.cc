// The verbs of a session that start programs, speak HTTP, or stop and start members.
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <sstream>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "session.h"

namespace holdfast::compat {
namespace {

constexpr absl::Duration kReadTimeout = absl::Seconds(10);
constexpr absl::Duration kProgramTimeout = absl::Seconds(40);
constexpr absl::Duration kEndTimeout = absl::Seconds(20);
constexpr absl::Duration kPoll = absl::Milliseconds(25);

Outcome Broken(std::string text) { return {"BROKEN: " + std::move(text), true}; }

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

std::string StripFinalNewline(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

// What it took is of no interest, whoever says so.
std::string WithoutTimes(const std::string& text) {
  static const std::regex* const took =
      new std::regex("(took[\"]? ?[=:] ?[\"]?|in |Took |took: )[0-9][0-9.]*(µs|ms|s|ns|m[0-9.]+s)");
  return std::regex_replace(text, *took, "$1<time>");
}

std::vector<std::string> CtlWords(const std::string& line, const std::string& endpoints) {
  std::vector<std::string> argv = {"etcdctl", "--endpoints=" + endpoints};
  for (std::string& word : SplitCommand(line)) argv.push_back(std::move(word));
  return argv;
}

std::string Unescaped(const std::string& text) {
  const std::vector<std::string> words = SplitCommand("\"" + text + "\"");
  return words.empty() ? "" : words[0];
}

struct HttpRequestLine {
  std::string method, path, headers, body;
};

// "POST [+Header:value] PATH BODY"
HttpRequestLine ParseHttp(std::string rest) {
  HttpRequestLine line;
  line.method = Pop(&rest);
  while (rest.starts_with('+')) {
    std::string header = Pop(&rest).substr(1);
    header.replace(header.find(':'), 1, ": ");
    line.headers += header + "\r\n";
  }
  line.path = Pop(&rest);
  line.body = rest;
  return line;
}

}  // namespace

// --- programs ---

Outcome Session::Ended(const std::string& command, Program& program, absl::Duration timeout) {
  last_text_ = program.ReadAll(timeout);
  const int code = program.Wait();
  const bool killed = last_text_.ends_with("(killed: it did not end)");
  return {
      fmt::format("{}\nexit {}", WithoutTimes(masks_.Text(StripFinalNewline(last_text_))), code),
      killed};
}

Outcome Session::Ctl(const std::string& rest) {
  std::string line = rest, input;
  std::string endpoints = variables_["eps"];
  if (line.starts_with('@')) endpoints = cluster_.endpoint(Who(Pop(&line).substr(1)));
  if (const size_t at = line.find("<<<"); at != std::string::npos) {
    input = Unescaped(line.substr(std::min(line.size(), at + 4)));
    line.resize(at);
  }
  Program program(CtlWords(line, endpoints), directory_);
  program.Type(input);
  program.CloseInput();
  return Ended(line, program, kProgramTimeout);
}

Outcome Session::CtlProto(const std::string& rest) {
  std::string line = rest;
  const auto* const type =
      google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName("etcdserverpb." +
                                                                                Pop(&line));
  if (type == nullptr) return Broken("no such message");
  Program program(CtlWords(line + " -w protobuf", variables_["eps"]), directory_);
  program.CloseInput();
  const std::string bytes = program.ReadAll(kProgramTimeout);
  last_message_.reset(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
  if (!last_message_->ParseFromString(bytes)) return {"no " + type->name() + ": " + bytes, false};
  return {masks_.Print(*last_message_), false};
}

Outcome Session::RunProgram(const std::string& rest) {
  std::string line = rest;
  const std::string name = Pop(&line);
  if (Pop(&line) != "ctl") return Broken("run NAME ctl ARGS");
  std::string endpoints = variables_["eps"];
  if (line.starts_with('@')) endpoints = cluster_.endpoint(Who(Pop(&line).substr(1)));
  programs_[name] = std::make_unique<Program>(CtlWords(line, endpoints), directory_);
  return {};
}

Outcome Session::LineOf(const std::string& rest) {
  std::string text = rest;
  const auto program = programs_.find(Pop(&text));
  if (program == programs_.end()) return Broken("no such program");
  std::vector<std::string> lines;
  for (int left = PopCount(&text); left > 0; --left) {
    std::string line;
    if (!program->second->ReadLine(kReadTimeout, &line)) {
      lines.emplace_back("(no more lines)");
      return {absl::StrJoin(lines, "\n"), true};
    }
    last_text_ = line;
    lines.push_back(masks_.Text(line));
  }
  return {absl::StrJoin(lines, "\n"), false};
}

Outcome Session::TypeInto(const std::string& rest) {
  std::string text = rest;
  const auto program = programs_.find(Pop(&text));
  if (program == programs_.end()) return Broken("no such program");
  program->second->Type(Unescaped(text));
  return {};
}

Outcome Session::StopProgram(const std::string& rest) {
  std::string text = rest;
  const auto program = programs_.find(Pop(&text));
  if (program == programs_.end()) return Broken("no such program");
  program->second->Signal(text == "TERM" ? SIGTERM : SIGINT);
  return Ended("", *program->second, kEndTimeout);
}

Outcome Session::Binary(const std::string& rest) {
  const size_t colons = rest.find(" :: ");
  if (colons == std::string::npos) return Broken("binary ARGS :: REGEX");
  std::vector<std::string> argv = {target_.binary()};
  for (std::string& word : SplitCommand(rest.substr(0, colons))) argv.push_back(std::move(word));
  Program program(argv, directory_);
  program.CloseInput();
  const std::string text = program.ReadAll(kEndTimeout);
  const std::regex wanted(rest.substr(colons + 4));
  std::vector<std::string> lines;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (std::regex_search(line.begin(), line.end(), wanted)) lines.emplace_back(line);
  }
  lines.push_back(fmt::format("exit {}", program.Wait()));
  return {masks_.Text(absl::StrJoin(lines, "\n")), false};
}

// --- HTTP ---

Outcome Session::Http(const std::string& rest) {
  const HttpRequestLine line = ParseHttp(rest);
  HttpCall call(cluster_.client_port(0), line.method, line.path, line.headers, line.body);
  if (!call.ReadHead(kReadTimeout)) return {"no HTTP answer", false};
  last_text_ = call.ReadBody(kReadTimeout);
  return {fmt::format("{} {}\n{}", call.code(), call.content_type(),
                      masks_.Text(StripFinalNewline(last_text_))),
          false};
}

Outcome Session::HttpStart(const std::string& rest) {
  std::string text = rest;
  const std::string name = Pop(&text);
  const HttpRequestLine line = ParseHttp(text);
  auto call = std::make_unique<HttpCall>(cluster_.client_port(0), line.method, line.path,
                                         line.headers, line.body);
  if (!call->ReadHead(kReadTimeout)) return {"no HTTP answer", false};
  Outcome outcome{fmt::format("{} {}", call->code(), call->content_type()), false};
  https_[name] = std::move(call);
  return outcome;
}

Outcome Session::HttpLine(const std::string& rest) {
  std::string text = rest;
  const auto call = https_.find(Pop(&text));
  if (call == https_.end()) return Broken("no such HTTP call");
  std::vector<std::string> lines;
  for (int left = PopCount(&text); left > 0; --left) {
    if (!call->second->ReadLine(kReadTimeout, &last_text_)) {
      lines.emplace_back("(no more lines)");
      return {absl::StrJoin(lines, "\n"), true};
    }
    lines.push_back(masks_.Text(last_text_));
  }
  return {absl::StrJoin(lines, "\n"), false};
}

Outcome Session::HttpClose(const std::string& rest) {
  return https_.erase(rest) == 1 ? Outcome{} : Broken("no such HTTP call");
}

Outcome Session::Metrics(const std::string& rest) {
  HttpCall call(cluster_.client_port(0), "GET", "/metrics", "", "");
  if (!call.ReadHead(kReadTimeout)) return {"no HTTP answer", false};
  const std::string body = "\n" + call.ReadBody(kReadTimeout);
  std::vector<std::string> lines;
  for (const absl::string_view view : absl::StrSplit(rest, ' ', absl::SkipEmpty())) {
    const std::string name(view);
    const std::string type = "\n# TYPE " + name + " ";
    const size_t at = body.find(type);
    const size_t begin = at + type.size();
    const bool has_value = body.find("\n" + name + " ") != std::string::npos ||
                           body.find("\n" + name + "{") != std::string::npos ||
                           body.find("\n" + name + "_bucket{") != std::string::npos;
    lines.push_back(fmt::format(
        "{} {}{}", name,
        at == std::string::npos ? "is missing" : body.substr(begin, body.find('\n', begin) - begin),
        has_value ? "" : ", no value"));
  }
  return {fmt::format("{}\n{}", call.code(), absl::StrJoin(lines, "\n")), false};
}

// --- members ---

Outcome Session::Log(const std::string& rest) {
  std::ostringstream text;
  text << std::ifstream(cluster_.log_file(0)).rdbuf();
  return {text.str().find(rest) == std::string::npos ? "not logged" : "logged", false};
}

Outcome Session::Term(const std::string& rest) {
  const int i = atoi(rest.c_str());
  const absl::Status status = cluster_.Stop(i, kEndTimeout);
  if (!status.ok()) return Broken(status.ToString());
  return {"stopped", false};
}

Outcome Session::Kill(const std::string& rest) {
  const absl::Status status = cluster_.Kill(Who(rest));
  return status.ok() ? Outcome{} : Broken(status.ToString());
}

Outcome Session::Restart(const std::string& rest) {
  std::string text = rest;
  const int i = atoi(Pop(&text).c_str());
  const std::vector<std::string> flags = absl::StrSplit(text, ' ', absl::SkipEmpty());
  const absl::Status status = cluster_.Restart(i, flags);
  return status.ok() ? Outcome{} : Broken(status.ToString());
}

Outcome Session::Elected(const std::string& rest) {
  return target_.MakeReady() ? Outcome{"elected", false}
                             : Broken("no leader, or it does not serve");
}

Outcome Session::NewMember(const std::string& rest) {
  const auto i = cluster_.NewMember();
  if (!i.ok()) return Broken(i.status().ToString());
  variables_["new"] = fmt::format("{}", *i);
  variables_[fmt::format("ep{}", *i)] = cluster_.endpoint(*i);
  variables_["epnew"] = cluster_.endpoint(*i);
  variables_["peernew"] = cluster_.peer_url(*i);
  masks_.Know(cluster_.endpoint(*i), "<client-new>");
  masks_.Know(cluster_.peer_url(*i), "<peer-new>");
  return {};
}

Outcome Session::Exited(const std::string& rest) {
  const int i = atoi(rest.c_str());
  const absl::Time give_up = absl::Now() + kEndTimeout;
  while (cluster_.Running(i)) {
    if (absl::Now() > give_up) return Broken("it still runs");
    absl::SleepFor(kPoll);
  }
  cluster_.Retire(i);  // or it would be started again for the next case
  return {"it has ended", false};
}

}  // namespace holdfast::compat
