// How holdfastctl shows what it got: etcdctl's text, or one line of JSON.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "client/ctl/admin.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/member_admin.h"
#include "holdfast/client.h"

namespace holdfast::ctl {

struct GetStyle {
  bool keys_only = false;
  bool values_only = false;
  bool count_only = false;
};

// All end with a newline. Keys and values are printed byte for byte in text, as base64 in JSON.
std::string EntriesText(const RangeResult& range, const GetStyle& style);
std::string GetJson(const RangeResult& range, const Freshness& fresh, const GetStyle& style);
std::string PutJson(const WriteResult& result);
std::string DeleteJson(const WriteResult& result);
std::string TxnText(const Txn& txn, const TxnResult& result);
std::string TxnJson(const Txn& txn, const TxnResult& result);
std::string StatusText(const std::vector<EndpointStatus>& all);
std::string StatusJson(const std::vector<EndpointStatus>& all);
// etcdctl's columns, and behind them the role. `roles` may lack a member.
std::string MembersText(const MemberList& members, const std::map<uint64_t, std::string>& roles);
std::string MembersJson(const MemberList& members, const std::map<uint64_t, std::string>& roles);
std::string MemberAnswerJson(const MemberAnswer& answer);

// One record, as in GetJson's kvs, on a line of its own.
std::string EntryJson(const Entry& entry);

// Rows of equally many cells, the first the heading: columns as wide as their widest cell.
std::string ColumnsText(const std::vector<std::vector<std::string>>& rows);

// "rev=5 age=0.003s proof=proven source=leader".
std::string FreshnessText(const Freshness& fresh);

}  // namespace holdfast::ctl
