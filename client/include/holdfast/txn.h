// Transactions: compare, then one of two lists of operations, all at one revision.
//
//   Txn txn = Txn().If({Compare::ModRevision("/config/a").Equal(entry.mod_revision)})
//                  .Then({Op::Put("/config/a", bytes)})
//                  .Else({Op::Get("/config/a")});
//
// The server takes at most 128 compares, and 128 operations per list, and refuses two puts of one
// key.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/types.h"

namespace holdfast {

// One condition on one key. A key that does not exist has version, revisions and lease 0, and no
// value: every compare of its value is false.
class Compare {
 public:
  enum class Target { kVersion, kCreateRevision, kModRevision, kValue, kLease };
  enum class Relation { kEqual, kGreater, kLess, kNotEqual };

  // A key's number that still lacks its relation.
  class Number {
   public:
    Compare Equal(int64_t n) const { return Make(Relation::kEqual, n); }
    Compare NotEqual(int64_t n) const { return Make(Relation::kNotEqual, n); }
    Compare Greater(int64_t n) const { return Make(Relation::kGreater, n); }
    Compare Less(int64_t n) const { return Make(Relation::kLess, n); }

   private:
    friend class Compare;
    Number(std::string_view key, Target target) : key_(key), target_(target) {}
    Compare Make(Relation relation, int64_t n) const;
    std::string key_;
    Target target_;
  };
  // A key's value that still lacks its relation; bytes are compared as unsigned.
  class Bytes {
   public:
    Compare Equal(std::string_view v) const { return Make(Relation::kEqual, v); }
    Compare NotEqual(std::string_view v) const { return Make(Relation::kNotEqual, v); }
    Compare Greater(std::string_view v) const { return Make(Relation::kGreater, v); }
    Compare Less(std::string_view v) const { return Make(Relation::kLess, v); }

   private:
    friend class Compare;
    explicit Bytes(std::string_view key) : key_(key) {}
    Compare Make(Relation relation, std::string_view v) const;
    std::string key_;
  };

  static Bytes Value(std::string_view key) { return Bytes(key); }
  static Number Version(std::string_view key) { return {key, Target::kVersion}; }
  static Number CreateRevision(std::string_view key) { return {key, Target::kCreateRevision}; }
  static Number ModRevision(std::string_view key) { return {key, Target::kModRevision}; }
  static Number Lease(std::string_view key) { return {key, Target::kLease}; }

  const std::string& key() const { return key_; }
  Target target() const { return target_; }
  Relation relation() const { return relation_; }
  int64_t number() const { return number_; }
  const std::string& value() const { return value_; }

 private:
  std::string key_;
  Target target_ = Target::kVersion;
  Relation relation_ = Relation::kEqual;
  int64_t number_ = 0;
  std::string value_;  // of Target::kValue
};

// One operation of a transaction. Reads see the writes that stand before them.
class Op {
 public:
  enum class Kind { kGet, kPut, kDelete };

  static Op Get(std::string_view key) { return Range(RangeQuery::Key(key)); }
  static Op Range(RangeQuery query);
  static Op Put(std::string_view key, std::string_view value);
  static Op Delete(std::string_view key);
  static Op DeletePrefix(std::string_view prefix);

  Kind kind() const { return kind_; }
  const RangeQuery& query() const { return query_; }   // kDelete uses key and range_end only
  const std::string& value() const { return value_; }  // of kPut

 private:
  Kind kind_ = Kind::kGet;
  RangeQuery query_;
  std::string value_;
};

class Txn {
 public:
  // All compares must hold for Then; none at all holds. Each method adds to what was given before.
  Txn& If(std::vector<Compare> compares);
  Txn& Then(std::vector<Op> ops);
  Txn& Else(std::vector<Op> ops);

  const std::vector<Compare>& compares() const { return compares_; }
  const std::vector<Op>& then_ops() const { return then_; }
  const std::vector<Op>& else_ops() const { return else_; }
  // Whether either list changes anything. One that does not is retried like a read.
  bool writes() const;

 private:
  std::vector<Compare> compares_;
  std::vector<Op> then_;
  std::vector<Op> else_;
};

// In the order of the operations.
struct OpResult {
  RangeResult range;    // of a get
  int64_t deleted = 0;  // of a delete
};

struct TxnResult {
  bool succeeded = false;  // Then ran; false: Else ran
  std::vector<OpResult> results;
  Token token;
  // Of the gets: a transaction is linearizable. Counted from before the first try, which may be the
  // one that took effect.
  Freshness fresh;
  int attempts = 1;
  bool deduplicated = false;  // as WriteResult's
};

}  // namespace holdfast
