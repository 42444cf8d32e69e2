// How a trace words what cores say and do. An entry is index@term: 3@1 is entry 3 of term 1.
#pragma once

#include <string>
#include <vector>

#include "replication/raft_core.h"

namespace holdfast::raft::test {

std::string DescribeMembers(const Membership& members);
std::string DescribeEntry(const Entry& entry);
// "" for none.
std::string DescribeEntries(const std::vector<EntryRef>& entries);
// All that matters of it, when it is sent.
std::string DescribeMessage(const Message& m);
// Enough to know it again, when it arrives.
std::string DescribeArrival(const Message& m);
// append, vote-reply ...: also how a script names types.
std::string_view TypeName(MessageType type);
// "#3 term=1 vote=2 commit=0 entries=[...]".
std::string DescribeBatch(const AppendBatch& batch);
std::string_view StateName(ProgressState state);
std::string DescribeProgress(const Progress& progress);
// OK, UNAVAILABLE ...
std::string CodeName(const absl::Status& status);

}  // namespace holdfast::raft::test
