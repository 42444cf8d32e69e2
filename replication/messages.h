// What members say to each other, in the Raft paper's words. server/peer_codec.h puts it on the
// wire; the core only sees these.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "storage/log_store.h"

namespace holdfast::raft {

using storage::Entry;
using storage::EntryRef;
using storage::EntryType;

enum class MessageType : uint8_t {
  kAppend = 1,          // AppendEntries: prev_index, prev_term, entries, commit
  kAppendReply = 2,     // match_index; or reject with hint_index, hint_term
  kHeartbeat = 3,       // round, commit (already capped to what the receiver has). round 0: only
                        // spreads the commit index, wants no reply
  kHeartbeatReply = 4,  // round, echoed
  kVote = 5,            // RequestVote: prev_index/prev_term are the candidate's last entry;
                        // pre_vote: for a term not yet taken; forced: a leadership transfer
  kVoteReply = 6,       // reject or not; pre_vote echoed
  kReadIndex = 7,       // follower -> leader: read_id
  kReadIndexReply = 8,  // leader -> follower: read_id, read_index
  kPropose = 9,         // follower -> leader: propose_id, payloads
  kProposeReply = 10,   // leader -> follower, only as a refusal: propose_id certainly not appended
  kProbe = 11,          // Freshness L1: nonce, boot; urgent: do not wait for the next tick
  kConfirm = 12,        // Freshness L3: nonce, boot, read_index
  kTimeoutNow = 13,     // thesis 3.10
  kSnapshot = 14,       // never on the wire: the driver's word that a snapshot arrived
                        // (prev_index, prev_term: its mark; payloads: {membership, directory})
};

struct Message {
  MessageType type = MessageType::kHeartbeat;
  NodeId from;
  NodeId to;
  // Of the sender, except for a pre-vote request and a granted pre-vote reply: the term asked for.
  Term term;
  Index prev_index;
  Term prev_term;
  Index commit;
  std::vector<EntryRef> entries;
  bool reject = false;
  Index hint_index;
  Term hint_term;
  Index match_index;
  uint64_t round = 0;
  uint64_t read_id = 0;
  Index read_index;
  uint64_t nonce = 0;
  uint64_t boot = 0;
  bool urgent = false;
  bool pre_vote = false;
  bool forced = false;
  uint64_t propose_id = 0;
  std::vector<std::string> payloads;
};

}  // namespace holdfast::raft
