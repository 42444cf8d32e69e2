#include "client/wire.h"

#include <optional>
#include <utility>

#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include "base/check.h"
#include "base/strings.h"

namespace holdfast {

std::string PrefixEnd(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty()) {
    const auto last = static_cast<unsigned char>(end.back());
    if (last < 0xff) {
      end.back() = static_cast<char>(last + 1);
      return end;
    }
    end.pop_back();
  }
  return std::string(1, '\0');
}

RangeQuery RangeQuery::Key(std::string_view key) {
  RangeQuery query;
  query.key = key;
  return query;
}

RangeQuery RangeQuery::Prefix(std::string_view prefix) {
  RangeQuery query;
  // No key is empty, so "\0" is the first that there can be.
  query.key = prefix.empty() ? std::string(1, '\0') : std::string(prefix);
  query.range_end = PrefixEnd(prefix);
  return query;
}

Compare Compare::Number::Make(Relation relation, int64_t n) const {
  Compare compare;
  compare.key_ = key_;
  compare.target_ = target_;
  compare.relation_ = relation;
  compare.number_ = n;
  return compare;
}

Compare Compare::Bytes::Make(Relation relation, std::string_view v) const {
  Compare compare;
  compare.key_ = key_;
  compare.target_ = Target::kValue;
  compare.relation_ = relation;
  compare.value_ = v;
  return compare;
}

Op Op::Range(RangeQuery query) {
  Op op;
  op.query_ = std::move(query);
  return op;
}

Op Op::Put(std::string_view key, std::string_view value) {
  Op op;
  op.kind_ = Kind::kPut;
  op.query_.key = key;
  op.value_ = value;
  return op;
}

Op Op::Delete(std::string_view key) {
  Op op;
  op.kind_ = Kind::kDelete;
  op.query_ = RangeQuery::Key(key);
  return op;
}

Op Op::DeletePrefix(std::string_view prefix) {
  Op op;
  op.kind_ = Kind::kDelete;
  op.query_ = RangeQuery::Prefix(prefix);
  return op;
}

Txn& Txn::If(std::vector<Compare> compares) {
  compares_.insert(compares_.end(), compares.begin(), compares.end());
  return *this;
}

Txn& Txn::Then(std::vector<Op> ops) {
  then_.insert(then_.end(), ops.begin(), ops.end());
  return *this;
}

Txn& Txn::Else(std::vector<Op> ops) {
  else_.insert(else_.end(), ops.begin(), ops.end());
  return *this;
}

bool Txn::writes() const {
  for (const auto* ops : {&then_, &else_}) {
    for (const Op& op : *ops) {
      if (op.kind() != Op::Kind::kGet) return true;
    }
  }
  return false;
}

namespace internal {
namespace {

constexpr int64_t kPageMax = 10'000;

etcdserverpb::Compare ToMessage(const Compare& compare) {
  etcdserverpb::Compare out;
  out.set_key(compare.key());
  switch (compare.relation()) {
    case Compare::Relation::kEqual:
      out.set_result(etcdserverpb::Compare::EQUAL);
      break;
    case Compare::Relation::kGreater:
      out.set_result(etcdserverpb::Compare::GREATER);
      break;
    case Compare::Relation::kLess:
      out.set_result(etcdserverpb::Compare::LESS);
      break;
    case Compare::Relation::kNotEqual:
      out.set_result(etcdserverpb::Compare::NOT_EQUAL);
      break;
  }
  switch (compare.target()) {
    case Compare::Target::kVersion:
      out.set_target(etcdserverpb::Compare::VERSION);
      out.set_version(compare.number());
      break;
    case Compare::Target::kCreateRevision:
      out.set_target(etcdserverpb::Compare::CREATE);
      out.set_create_revision(compare.number());
      break;
    case Compare::Target::kModRevision:
      out.set_target(etcdserverpb::Compare::MOD);
      out.set_mod_revision(compare.number());
      break;
    case Compare::Target::kLease:
      out.set_target(etcdserverpb::Compare::LEASE);
      out.set_lease(compare.number());
      break;
    case Compare::Target::kValue:
      out.set_target(etcdserverpb::Compare::VALUE);
      out.set_value(compare.value());
      break;
  }
  return out;
}

void AddOp(const Op& op, etcdserverpb::RequestOp* out) {
  switch (op.kind()) {
    case Op::Kind::kGet:
      *out->mutable_request_range() = ToRequest(op.query());
      break;
    case Op::Kind::kPut:
      out->mutable_request_put()->set_key(op.query().key);
      out->mutable_request_put()->set_value(op.value());
      break;
    case Op::Kind::kDelete:
      out->mutable_request_delete_range()->set_key(op.query().key);
      out->mutable_request_delete_range()->set_range_end(op.query().range_end);
      break;
  }
}

// Of a field of bytes: its number and length.
constexpr size_t kHeadMax = 5 + 10;

// A field of bytes. An empty one is left out, as its default.
void AppendBytes(int field, std::string_view bytes, std::string* out) {
  using google::protobuf::internal::WireFormatLite;
  using google::protobuf::io::CodedOutputStream;
  if (bytes.empty()) return;
  uint8_t head[kHeadMax];
  uint8_t* end = CodedOutputStream::WriteVarint32ToArray(
      WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED), head);
  end = CodedOutputStream::WriteVarint64ToArray(bytes.size(), end);
  out->append(reinterpret_cast<const char*>(head), static_cast<size_t>(end - head));
  out->append(bytes);
}

absl::Status CheckQuery(const RangeQuery& query) {
  if (const absl::Status key = CheckKey(query.key); !key.ok()) return key;
  if (query.limit < 1 || query.limit > kPageMax) {
    return absl::InvalidArgumentError(base::ToAbsl(fmt::format(
        "RangeQuery.limit is {}; it must be from 1 to {}: fetch more than that in pages, or Scan()",
        query.limit, kPageMax)));
  }
  return absl::OkStatus();
}

}  // namespace

Entry ToEntry(mvccpb::KeyValue& kv) {
  Entry entry;
  entry.key = std::move(*kv.mutable_key());
  entry.value = std::move(*kv.mutable_value());
  entry.create_revision = static_cast<uint64_t>(kv.create_revision());
  entry.mod_revision = static_cast<uint64_t>(kv.mod_revision());
  entry.version = static_cast<uint64_t>(kv.version());
  entry.lease = kv.lease();
  return entry;
}

etcdserverpb::RangeRequest ToRequest(const RangeQuery& query) {
  etcdserverpb::RangeRequest request;
  request.set_key(query.key);
  request.set_range_end(query.range_end);
  if (!query.count_only && !query.range_end.empty()) request.set_limit(query.limit);
  request.set_revision(static_cast<int64_t>(query.revision));
  request.set_keys_only(query.keys_only);
  request.set_count_only(query.count_only);
  return request;
}

std::string EncodeGet(std::string_view key) {
  std::string out;
  out.reserve(key.size() + kHeadMax);
  AppendBytes(etcdserverpb::RangeRequest::kKeyFieldNumber, key, &out);
  return out;
}

std::string EncodePut(std::string_view key, std::string_view value) {
  std::string out;
  out.reserve(key.size() + value.size() + 2 * kHeadMax);
  AppendBytes(etcdserverpb::PutRequest::kKeyFieldNumber, key, &out);
  AppendBytes(etcdserverpb::PutRequest::kValueFieldNumber, value, &out);
  return out;
}

etcdserverpb::TxnRequest ToRequest(const Txn& txn) {
  etcdserverpb::TxnRequest request;
  for (const Compare& compare : txn.compares()) *request.add_compare() = ToMessage(compare);
  for (const Op& op : txn.then_ops()) AddOp(op, request.add_success());
  for (const Op& op : txn.else_ops()) AddOp(op, request.add_failure());
  return request;
}

RangeResult FromResponse(etcdserverpb::RangeResponse& response) {
  RangeResult result;
  result.entries.reserve(static_cast<size_t>(response.kvs_size()));
  for (auto& kv : *response.mutable_kvs()) result.entries.push_back(ToEntry(kv));
  result.more = response.more();
  result.count = response.count();
  return result;
}

std::vector<OpResult> FromResponse(etcdserverpb::TxnResponse& response) {
  std::vector<OpResult> results;
  for (auto& op : *response.mutable_responses()) {
    OpResult& result = results.emplace_back();
    if (op.has_response_range()) result.range = FromResponse(*op.mutable_response_range());
    if (op.has_response_delete_range()) result.deleted = op.response_delete_range().deleted();
  }
  return results;
}

std::vector<Rung> RungsOf(const ReadOptions& options) {
  std::vector<Rung> rungs;
  switch (options.level()) {
    case ReadOptions::Level::kLinearizable:
      rungs.push_back({});
      break;
    case ReadOptions::Level::kBounded:
      rungs.push_back({.linearizable = false, .max_age = options.max_age()});
      break;
    case ReadOptions::Level::kLocal:
      break;
    case ReadOptions::Level::kAtLeast:
      rungs.push_back({.linearizable = false, .min_revision = options.token().revision});
      rungs.push_back({.linearizable = true, .min_revision = options.token().revision});
      break;
  }
  if (options.or_stale().has_value()) {
    rungs.push_back({.linearizable = false, .max_age = *options.or_stale()});
  }
  return rungs;
}

absl::Status CheckKey(std::string_view key) {
  if (!key.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError("the key is empty; a key has at least one byte");
}

absl::Status Check(const RangeQuery& query, const ReadOptions& options) {
  if (const absl::Status status = CheckQuery(query); !status.ok()) return status;
  bool finite_bound = false;
  const bool bounded = options.level() == ReadOptions::Level::kBounded;
  for (const std::optional<absl::Duration> bound :
       {bounded ? std::optional(options.max_age()) : std::nullopt, options.or_stale()}) {
    if (!bound.has_value()) continue;
    if (*bound < absl::ZeroDuration()) {
      return absl::InvalidArgumentError("a bound on the age must not be negative");
    }
    finite_bound = finite_bound || *bound != absl::InfiniteDuration();
  }
  if (query.revision != 0 && finite_bound) {
    return absl::InvalidArgumentError(
        "a read at a given revision is a read of the past, so no bound on its age can hold; leave "
        "out the revision or the bound");
  }
  if (options.max_entries() < 1) {
    return absl::InvalidArgumentError("MaxEntries must be at least 1");
  }
  return absl::OkStatus();
}

absl::Status Check(const Txn& txn) {
  for (const Compare& compare : txn.compares()) {
    if (const absl::Status status = CheckKey(compare.key()); !status.ok()) return status;
  }
  for (const auto* ops : {&txn.then_ops(), &txn.else_ops()}) {
    for (const Op& op : *ops) {
      if (const absl::Status status = CheckQuery(op.query()); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace internal
}  // namespace holdfast
