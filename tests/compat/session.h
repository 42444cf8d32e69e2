// Runs the steps of one case against one cluster and says, masked, what came back.
//
// A step is a verb and the rest of the line:
//
//   KV.Range [@WHO] [+key=value ...] TEXT   a unary or server-streaming call; TEXT is protobuf's
//   text merged KV.RangeStream ...               all messages of a stream merged into one start S
//   Watch.Watch ... [TEXT]          a call named S that stays open; a unary or
//                                           server-streaming one is half-closed at once
//   send S TEXT · half S · cancel S         one more request; no more requests; the client gives up
//   read S [N] · end S                      the next N messages; all that is left and the status
//   events S N                              watch responses until N events came: where a server
//   cuts
//                                           them is its own affair, a revision cut in two is not
//   pending S                               "pending" unless something came
//   ctl [@WHO] ARGS [<<< INPUT]             etcdctl, to its end
//   ctlproto TYPE ARGS                      the same with -w protobuf: the message that it printed
//   run P ctl ARGS · line P [N] · type P TEXT · stop P [SIGNAL]     one that stays
//   http METHOD PATH [BODY] · hstart H METHOD PATH [BODY] · hline H [N] · hclose H
//   metrics NAME ...                        the type of each in GET /metrics
//   snapshot                                the shape of Maintenance.Snapshot's stream
//   save VAR PATH | save VAR /REGEX/        from the last message, or from the last text as it came
//   same A B                                "same" or "different"
//   until REGEX :: STEP                     again and again until its output contains that
//   binary ARGS :: REGEX                    the server's program to its end: the lines that match
//   log TEXT                                whether the first member has logged that
//   term I · kill I · restart I [FLAGS] · elected · newmember · exited I
//
// WHO is a member: its number, `leader` or `follower`. {name} is replaced: {k} the case's own
// prefix of keys, {K} the end of that prefix, {lease} a lease id of its own, {R} the revision at
// its start, {eps} and {epN} endpoints, {peerN} peer URLs, {mN} {mleader} {mfollower} member ids,
// {tmp} a directory, and what was saved; {R+1} and {lease:x} (hexadecimal) work. {b64(text)},
// {rep(x,N)} and {times(N,text with #)} make long ones.
//
// A step is `broken` if it could not be carried out: it never counts as an equal answer.
// Threads: one at a time.
#pragma once

#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/local_cluster.h"
#include "case_file.h"
#include "grpc_call.h"
#include "http_call.h"
#include "masks.h"
#include "program.h"

namespace holdfast::compat {

struct Outcome {
  std::string text;
  bool broken = false;
};

// A cluster and the connections to it, shared by the cases of a group.
class Target {
 public:
  // `binary`: the server. Waits until every member has published its name.
  static absl::StatusOr<std::unique_ptr<Target>> Start(const std::string& binary,
                                                       const Group& group);
  bench::LocalCluster& cluster() { return *cluster_; }
  const std::string& binary() const { return binary_; }
  std::shared_ptr<grpc::Channel> channel(int member);
  // Restarts members that a case left down; false if they do not come back.
  bool MakeReady();
  // Makes the first member the leader, so that both servers' members have the same roles.
  bool LeadFromFirst();

 private:
  std::string binary_;
  std::unique_ptr<bench::LocalCluster> cluster_;
  std::map<int, std::shared_ptr<grpc::Channel>> channels_;
};

class Session {
 public:
  // `number` tells the case apart from the others; `directory` is empty and exists.
  Session(Target& target, const Case& one, int number, std::string directory);
  ~Session();
  Outcome Run(const Step& step);

 private:
  using Verb = Outcome (Session::*)(const std::string& rest);
  struct Call {  // a parsed "Service.Method @who +key=value TEXT"
    std::string method, text;
    int member = 0;
    Metadata metadata;
  };

  Outcome Do(const std::string& text);
  std::string Expand(const std::string& text);
  std::string Variable(const std::string& name);
  int Who(const std::string& who);
  Call ParseCall(const std::string& text);
  absl::StatusOr<std::unique_ptr<GrpcCall>> Open(const Call& call);
  GrpcCall* FindCall(const std::string& name);
  std::string Show(GrpcCall::Answer answer);  // remembers the message
  Outcome Ended(const std::string& command, Program& program, absl::Duration timeout);

  Outcome OneCall(const std::string& text);
  Outcome Merged(const std::string& rest);
  Outcome StartCall(const std::string& rest);
  Outcome SendOn(const std::string& rest);
  Outcome HalfClose(const std::string& rest);
  Outcome CancelCall(const std::string& rest);
  Outcome ReadFrom(const std::string& rest);
  Outcome EndOf(const std::string& rest);
  Outcome Events(const std::string& rest);
  Outcome Pending(const std::string& rest);
  Outcome Ctl(const std::string& rest);
  Outcome CtlProto(const std::string& rest);
  Outcome RunProgram(const std::string& rest);
  Outcome LineOf(const std::string& rest);
  Outcome TypeInto(const std::string& rest);
  Outcome StopProgram(const std::string& rest);
  Outcome Http(const std::string& rest);
  Outcome HttpStart(const std::string& rest);
  Outcome HttpLine(const std::string& rest);
  Outcome HttpClose(const std::string& rest);
  Outcome Metrics(const std::string& rest);
  Outcome Snapshot(const std::string& rest);
  Outcome Save(const std::string& rest);
  Outcome Same(const std::string& rest);
  Outcome Until(const std::string& rest);
  Outcome Binary(const std::string& rest);
  Outcome Log(const std::string& rest);
  Outcome Term(const std::string& rest);
  Outcome Kill(const std::string& rest);
  Outcome Restart(const std::string& rest);
  Outcome Elected(const std::string& rest);
  Outcome NewMember(const std::string& rest);
  Outcome Exited(const std::string& rest);

  Target& target_;
  bench::LocalCluster& cluster_;
  const std::string directory_;
  Masks masks_;
  std::map<std::string, std::string> variables_;
  std::map<std::string, std::unique_ptr<GrpcCall>> calls_;
  std::map<std::string, std::unique_ptr<Program>> programs_;
  std::map<std::string, std::unique_ptr<HttpCall>> https_;
  std::unique_ptr<google::protobuf::Message> last_message_;
  std::string last_text_;  // as it came
};

}  // namespace holdfast::compat
