#include "describe.h"

#include <fmt/format.h>

#include "base/strings.h"

namespace holdfast::raft::test {
namespace {

constexpr size_t kMaxPayloadShown = 24;

std::string Ids(const std::set<NodeId>& ids) {
  std::string out;
  for (const NodeId id : ids) out += fmt::format(" {}", id.value);
  return out;
}

std::string At(Index index, Term term) { return fmt::format("{}@{}", index.value, term.value); }

std::string DescribeAppend(const Message& m) {
  std::string out = fmt::format("prev={}", At(m.prev_index, m.prev_term));
  if (!m.entries.empty()) out += fmt::format(" entries=[{}]", DescribeEntries(m.entries));
  return out + fmt::format(" commit={}", m.commit.value);
}

std::string DescribeAppendReply(const Message& m) {
  if (!m.reject) return fmt::format("match={}", m.match_index.value);
  return fmt::format("refused prev={} hint={}", m.prev_index.value, At(m.hint_index, m.hint_term));
}

std::string DescribeVote(const Message& m) {
  return fmt::format("last={}{}", At(m.prev_index, m.prev_term), m.forced ? " forced" : "");
}

std::string DescribePropose(const Message& m) {
  std::string out = fmt::format("id={}", m.propose_id);
  for (const std::string& payload : m.payloads) out += fmt::format(" \"{}\"", payload);
  return out;
}

// What follows the type and the term.
std::string Details(const Message& m) {
  switch (m.type) {
    case MessageType::kAppend:
      return DescribeAppend(m);
    case MessageType::kAppendReply:
      return DescribeAppendReply(m);
    case MessageType::kHeartbeat:
      return fmt::format("round={} commit={}", m.round, m.commit.value);
    case MessageType::kHeartbeatReply:
      return fmt::format("round={}", m.round);
    case MessageType::kVote:
      return DescribeVote(m);
    case MessageType::kVoteReply:
      return m.reject ? "refused" : "granted";
    case MessageType::kReadIndex:
      return fmt::format("id={}", m.read_id);
    case MessageType::kReadIndexReply:
      return fmt::format("id={} index={}", m.read_id, m.read_index.value);
    case MessageType::kPropose:
      return DescribePropose(m);
    case MessageType::kProposeReply:
      return fmt::format("id={} refused", m.propose_id);
    case MessageType::kProbe:
      return fmt::format("nonce={}{}", m.nonce, m.urgent ? " urgent" : "");
    case MessageType::kConfirm:
      return fmt::format("nonce={} index={}", m.nonce, m.read_index.value);
    case MessageType::kTimeoutNow:
      return "";
    case MessageType::kSnapshot:
      return fmt::format("at={}", At(m.prev_index, m.prev_term));
  }
  return "";
}

std::string NameOf(const Message& m) {
  const bool vote = m.type == MessageType::kVote || m.type == MessageType::kVoteReply;
  return fmt::format("{}{}", vote && m.pre_vote ? "pre-" : "", TypeName(m.type));
}

}  // namespace

std::string DescribeMembers(const Membership& members) {
  std::string out = "voters" + Ids(members.voters);
  if (members.joint()) out += ", outgoing" + Ids(members.voters_outgoing);
  if (!members.learners.empty()) out += ", learners" + Ids(members.learners);
  if (!members.learners_next.empty()) out += ", learners next" + Ids(members.learners_next);
  for (const auto& [id, replaces] : members.promotions) {
    out += fmt::format(", promote {}", id.value);
    if (replaces) out += fmt::format(" for {}", replaces.value);
  }
  if (!members.removed.empty()) {
    out += ", removed";
    for (const NodeId id : members.removed) out += fmt::format(" {}", id.value);
  }
  return out;
}

std::string DescribeEntry(const Entry& entry) {
  const std::string at = At(entry.index, entry.term);
  switch (entry.type) {
    case EntryType::kEmpty:
      return at + " empty";
    case EntryType::kConfig: {
      const auto members = Membership::Decode(entry.payload);
      return fmt::format("{} members({})", at, members.ok() ? DescribeMembers(*members) : "?");
    }
    case EntryType::kNormal:
      break;
  }
  if (entry.payload.empty()) return at;
  if (entry.payload.size() > kMaxPayloadShown) {
    return fmt::format("{} ({} bytes)", at, entry.payload.size());
  }
  return fmt::format("{} \"{}\"", at, base::Printable(entry.payload));
}

std::string DescribeEntries(const std::vector<EntryRef>& entries) {
  std::string out;
  for (const EntryRef& entry : entries) {
    if (!out.empty()) out += ", ";
    out += DescribeEntry(*entry);
  }
  return out;
}

std::string_view TypeName(MessageType type) {
  switch (type) {
    case MessageType::kAppend:
      return "append";
    case MessageType::kAppendReply:
      return "append-reply";
    case MessageType::kHeartbeat:
      return "heartbeat";
    case MessageType::kHeartbeatReply:
      return "heartbeat-reply";
    case MessageType::kVote:
      return "vote";
    case MessageType::kVoteReply:
      return "vote-reply";
    case MessageType::kReadIndex:
      return "read-index";
    case MessageType::kReadIndexReply:
      return "read-index-reply";
    case MessageType::kPropose:
      return "propose";
    case MessageType::kProposeReply:
      return "propose-reply";
    case MessageType::kProbe:
      return "probe";
    case MessageType::kConfirm:
      return "confirm";
    case MessageType::kTimeoutNow:
      return "timeout-now";
    case MessageType::kSnapshot:
      return "snapshot";
  }
  return "unknown";
}

std::string DescribeMessage(const Message& m) {
  const std::string details = Details(m);
  return fmt::format("{} term={}{}{}", NameOf(m), m.term.value, details.empty() ? "" : " ",
                     details);
}

std::string DescribeArrival(const Message& m) {
  if (m.type != MessageType::kAppend) return DescribeMessage(m);
  std::string out =
      fmt::format("append term={} prev={}", m.term.value, At(m.prev_index, m.prev_term));
  if (!m.entries.empty()) {
    out += fmt::format(" to {}", At(m.entries.back()->index, m.entries.back()->term));
  }
  return out + fmt::format(" commit={}", m.commit.value);
}

std::string DescribeBatch(const AppendBatch& batch) {
  std::string out = fmt::format("#{}", batch.seq);
  if (batch.log.reset) {
    out += fmt::format(" reset to {}", At(batch.log.reset->index, batch.log.reset->term));
  }
  if (batch.log.hard_state) {
    const storage::HardState& state = *batch.log.hard_state;
    out += fmt::format(" term={} vote={} commit={}", state.term.value, state.vote.value,
                       state.commit.value);
  }
  if (!batch.log.entries.empty()) {
    out += fmt::format(" entries=[{}]", DescribeEntries(batch.log.entries));
  }
  return out;
}

std::string_view StateName(ProgressState state) {
  switch (state) {
    case ProgressState::kProbe:
      return "probe";
    case ProgressState::kReplicate:
      return "replicate";
    case ProgressState::kSnapshot:
      return "snapshot";
  }
  return "unknown";
}

std::string DescribeProgress(const Progress& p) {
  std::string out = fmt::format("{} match={} next={}", StateName(p.state), p.match_index.value,
                                p.next_index.value);
  if (!p.inflight.empty()) out += fmt::format(" in-flight={}", p.inflight.size());
  if (p.state == ProgressState::kProbe && p.probe_sent) out += " waits";
  if (!p.recent_active) out += " inactive";
  return out;
}

std::string CodeName(const absl::Status& status) { return absl::StatusCodeToString(status.code()); }

}  // namespace holdfast::raft::test
