#include "door_cases.h"

#include <fmt/format.h>

#include "kv_test_util.h"
#include "server/etcd_errors.h"
#include "server/kv_validate.h"

namespace holdfast::server::testing {
namespace {

using v1::ExchangeRequest;

ExchangeRequest Request(const std::string& text) { return Parse<ExchangeRequest>(text); }

// One record of DoorState(), as answers show it.
std::string Kv(const std::string& key, int create, int mod, int version, const std::string& value) {
  const std::string tail = value.empty() ? "" : fmt::format(" value: \"{}\"", value);
  return fmt::format("key: \"{}\" create_revision: {} mod_revision: {} version: {}{}", key, create,
                     mod, version, tail);
}
std::string Kvs(const std::string& kv) { return "kvs { " + kv + " } "; }
const std::string kA1 = Kv("a/1", 2, 4, 2, "uno");
const std::string kA3 = Kv("a/3", 5, 5, 1, "three");
const std::string kA4 = Kv("a/4", 8, 8, 1, "four");
const std::string kB = Kv("b", 7, 7, 1, "bee") + " lease: 7";

DoorCase Get(const std::string& name, const std::string& request, const std::string& response) {
  return {.name = name,
          .request = Request("range { " + request + " }"),
          .response = "range { " + response + " }",
          .revision = kDoorRevision};
}
DoorCase ReadTxn(const std::string& name, const std::string& request, const std::string& response) {
  return {.name = name,
          .request = Request("txn { " + request + " }"),
          .response = "txn { " + response + " }",
          .revision = kDoorRevision};
}
DoorCase Refused(const std::string& name, const std::string& request, const absl::Status& status) {
  return {.name = name, .request = Request(request), .status = status};
}
DoorCase Write(int64_t revision, const std::string& name, const std::string& request,
               const std::string& response) {
  return {.name = name, .request = Request(request), .response = response, .revision = revision};
}

std::string Repeat(int times, const std::string& text) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

// `depth` transactions, one in the other.
std::string Nested(int depth) {
  return depth == 0 ? "request_range { key: 'a/1' serializable: true }"
                    : "request_txn { success { " + Nested(depth - 1) + " } }";
}

}  // namespace

std::vector<ExchangeRequest> DoorState() {
  return {
      Request("put { key: 'a/1' value: 'one' }"), Request("put { key: 'a/2' value: 'two' }"),
      Request("put { key: 'a/1' value: 'uno' }"), Request("put { key: 'a/3' value: 'three' }"),
      Request("delete_range { key: 'a/2' }"),     Request("put { key: 'b' value: 'bee' lease: 7 }"),
      Request("put { key: 'a/4' value: 'four' }")};
}

std::vector<DoorCase> ReadCases() {
  const std::string a = "key: 'a/' range_end: 'a0'";
  const std::string all_of_a = Kvs(kA1) + Kvs(kA3) + Kvs(kA4);
  return {
      Get("one key", "key: 'a/1'", Kvs(kA1) + "count: 1"),
      Get("one key, serializable", "key: 'a/1' serializable: true", Kvs(kA1) + "count: 1"),
      Get("a lease is shown", "key: 'b'", Kvs(kB) + "count: 1"),
      Get("no such key", "key: 'x'", ""),
      Get("a deleted key", "key: 'a/2'", ""),
      Get("a range end that is the key", "key: 'a/1' range_end: 'a/1'", ""),
      Get("a range end before the key", "key: 'b' range_end: 'a'", ""),
      Get("prefix", a, all_of_a + "count: 3"),
      Get("prefix, serializable", a + " serializable: true", all_of_a + "count: 3"),
      Get("from a key on", "key: 'a/4' range_end: '\\000'", Kvs(kA4) + Kvs(kB) + "count: 2"),
      Get("everything", "key: '\\000' range_end: '\\000'", all_of_a + Kvs(kB) + "count: 4"),
      Get("limit", a + " limit: 2", Kvs(kA1) + Kvs(kA3) + "more: true count: 3"),
      Get("limit of exactly all", a + " limit: 3", all_of_a + "count: 3"),
      Get("limit of one key", "key: 'a/1' limit: 1", Kvs(kA1) + "count: 1"),
      Get("a negative limit is none", a + " limit: -1", all_of_a + "count: 3"),
      Get("descending", a + " sort_order: DESCEND", Kvs(kA4) + Kvs(kA3) + Kvs(kA1) + "count: 3"),
      Get("by value", a + " sort_target: VALUE sort_order: ASCEND",
          Kvs(kA4) + Kvs(kA3) + Kvs(kA1) + "count: 3"),
      Get("a target without an order means ascending", a + " sort_target: VERSION",
          Kvs(kA3) + Kvs(kA4) + Kvs(kA1) + "count: 3"),
      Get("newest by mod revision, limited", a + " sort_target: MOD sort_order: DESCEND limit: 1",
          Kvs(kA4) + "more: true count: 3"),
      Get("oldest by create revision", a + " sort_target: CREATE sort_order: ASCEND limit: 1",
          Kvs(kA1) + "more: true count: 3"),
      Get("at a revision", a + " revision: 5",
          Kvs(kA1) + Kvs(Kv("a/2", 3, 3, 1, "two")) + Kvs(kA3) + "count: 3"),
      Get("one key at a revision", "key: 'a/1' revision: 3",
          Kvs(Kv("a/1", 2, 2, 1, "one")) + "count: 1"),
      Get("a deleted key at a revision before", "key: 'a/2' revision: 5",
          Kvs(Kv("a/2", 3, 3, 1, "two")) + "count: 1"),
      Get("at the newest revision", "key: 'a/1' revision: 8", Kvs(kA1) + "count: 1"),
      Get("count only", a + " count_only: true", "count: 3"),
      Get("count only of one key", "key: 'a/1' count_only: true", "count: 1"),
      Get("count only of no key", "key: 'x' count_only: true", ""),
      Get("keys only", a + " keys_only: true limit: 1",
          Kvs(Kv("a/1", 2, 4, 2, "")) + "more: true count: 3"),
      Get("one key, keys only", "key: 'a/1' keys_only: true",
          Kvs(Kv("a/1", 2, 4, 2, "")) + "count: 1"),
      Get("from a mod revision on", a + " min_mod_revision: 5", Kvs(kA3) + Kvs(kA4) + "count: 3"),
      Get("up to a mod revision", a + " max_mod_revision: 4", Kvs(kA1) + "count: 3"),
      Get("of one key: not below a mod revision", "key: 'a/1' min_mod_revision: 5", "count: 1"),
      Get("from a create revision on", a + " min_create_revision: 6", Kvs(kA4) + "count: 3"),
      Get("up to a create revision", a + " max_create_revision: 5 limit: 1",
          Kvs(kA1) + "more: true count: 3"),
      ReadTxn("an empty transaction", "", "succeeded: true"),
      ReadTxn("a compare alone", "compare { key: 'a/1' target: VALUE value: 'x' }", ""),
      ReadTxn("a read-only transaction",
              "compare { key: 'a/1' target: MOD mod_revision: 4 } "
              "success { request_range { key: 'a/3' } } success { request_range { key: 'x' } }",
              "succeeded: true responses { response_range { header { revision: 8 } " + Kvs(kA3) +
                  "count: 1 } } responses { response_range { header { revision: 8 } } }"),
      ReadTxn("a serializable one", "success { request_range { key: 'a/3' serializable: true } }",
              "succeeded: true responses { response_range { header { revision: 8 } " + Kvs(kA3) +
                  "count: 1 } }"),
      ReadTxn("one that looks at a range",
              "compare { key: 'a/' range_end: 'a0' target: VERSION result: GREATER version: 0 } "
              "success { request_range { key: 'a/' range_end: 'a0' count_only: true } }",
              "succeeded: true responses { response_range { header { revision: 8 } count: 3 } }"),
      ReadTxn("a nested one",
              "compare { key: 'x' target: CREATE create_revision: 0 } "
              "success { request_txn { compare { key: 'a/1' target: VERSION version: 9 } "
              "failure { request_range { key: 'a/4' keys_only: true } } } }",
              "succeeded: true responses { response_txn { header {} responses { "
              "response_range { header { revision: 8 } " +
                  Kvs(Kv("a/4", 8, 8, 1, "")) + "count: 1 } } } }"),
      {.name = "not below a revision that is there",
       .request = Request("range { key: 'a/1' serializable: true } min_revision: 8"),
       .response = "range { " + Kvs(kA1) + "count: 1 }",
       .revision = kDoorRevision},
  };
}

std::vector<DoorCase> RefusalCases() {
  const std::string branch = "success { request_put { key: 'n' } } ";
  std::vector<DoorCase> cases = {
      Refused("put without a key", "put { value: 'x' }", ErrEmptyKey()),
      Refused("put of a value that is to be ignored",
              "put { key: 'a/1' value: 'x' ignore_value: true }", ErrValueProvided()),
      Refused("put with a lease that is to be ignored",
              "put { key: 'a/1' lease: 7 ignore_lease: true }", ErrLeaseProvided()),
      Refused("put that keeps the value of no key", "put { key: 'n' ignore_value: true }",
              ErrKeyNotFound()),
      Refused("put that keeps the lease of no key",
              "put { key: 'n' value: '1' ignore_lease: true }", ErrKeyNotFound()),
      Refused("put under no lease", "put { key: 'n' lease: 99 }", ErrLeaseNotFound()),
      Refused("range without a key", "range {}", ErrEmptyKey()),
      Refused("range without a key but with an end", "range { range_end: 'z' }", ErrEmptyKey()),
      Refused("unknown sort order", "range { key: 'a' sort_order: 7 }", ErrInvalidSortOption()),
      Refused("unknown sort target", "range { key: 'a' sort_target: 9 }", ErrInvalidSortOption()),
      Refused("a compacted revision", "range { key: 'a/1' revision: 2 }", ErrCompacted()),
      Refused("a compacted revision, serializable",
              "range { key: 'a/1' revision: 2 serializable: true }", ErrCompacted()),
      Refused("a compacted revision of a range", "range { key: 'a/' range_end: 'a0' revision: 2 }",
              ErrCompacted()),
      Refused("a future revision", "range { key: 'a/1' revision: 9 }", ErrFutureRev()),
      Refused("a future revision of a range",
              "range { key: 'a/' range_end: 'a0' revision: 9 serializable: true }", ErrFutureRev()),
      Refused("delete without a key", "delete_range {}", ErrEmptyKey()),
      Refused("an operation that is none", "txn { success {} }", ErrKeyNotFound()),
      Refused("... in the branch not taken", "txn { failure {} }", ErrKeyNotFound()),
      Refused("... nested", "txn { success { request_txn { failure {} } } }", ErrKeyNotFound()),
      Refused("too many compares",
              "txn { " + Repeat(5, "compare { key: 'a' target: VERSION } ") + "}", ErrTooManyOps()),
      Refused("too many operations", "txn { " + Repeat(5, branch) + "}", ErrTooManyOps()),
      Refused("too many operations in the branch not taken",
              "txn { " + Repeat(5, "failure { request_range { key: 'a' } } ") + "}",
              ErrTooManyOps()),
      Refused("too many operations on two levels",
              "txn { " + Repeat(2, branch) + "success { request_txn { " +
                  Repeat(2, "success { request_range { key: 'a' } } ") + "} } }",
              ErrTooManyOps()),
      Refused("a key put twice", "txn { " + Repeat(2, branch) + "}", ErrDuplicateKey()),
      Refused("a key put and deleted",
              "txn { " + branch + "success { request_delete_range { key: 'm' range_end: 'o' } } }",
              ErrDuplicateKey()),
      Refused("a key put twice on two levels",
              "txn { " + branch + "success { request_txn { " + branch + "} } }", ErrDuplicateKey()),
      Refused("a compare without a key", "txn { compare { target: VERSION } }", ErrEmptyKey()),
      Refused("an unknown compare target", "txn { compare { key: 'a' target: 9 } }",
              absl::InvalidArgumentError("holdfast: unknown compare target 9: use VERSION, CREATE, "
                                         "MOD, VALUE or LEASE")),
      Refused("an unknown compare result", "txn { compare { key: 'a' result: 9 } }",
              absl::InvalidArgumentError("holdfast: unknown compare result 9: use EQUAL, GREATER, "
                                         "LESS or NOT_EQUAL")),
      Refused("a put within, without a key", "txn { success { request_put { value: 'x' } } }",
              ErrEmptyKey()),
      Refused("a put within, of a value to be ignored",
              "txn { success { request_put { key: 'n' value: 'x' ignore_value: true } } }",
              ErrValueProvided()),
      Refused("a put within, with a lease to be ignored",
              "txn { success { request_put { key: 'n' lease: 7 ignore_lease: true } } }",
              ErrLeaseProvided()),
      Refused("a range within, of an unknown order",
              "txn { success { request_range { key: 'n' sort_order: 7 } } }",
              ErrInvalidSortOption()),
      Refused("a delete within, without a key", "txn { success { request_delete_range {} } }",
              ErrEmptyKey()),
      Refused("too deep", "txn { success { " + Nested(kMaxTxnDepth) + " } }", ErrTooManyOps()),
      Refused("reads a compacted revision within",
              "txn { success { request_range { key: 'a/1' revision: 2 } } }", ErrCompacted()),
      Refused("reads a future revision within",
              "txn { success { request_range { key: 'a/1' revision: 9 } } }", ErrFutureRev()),
      Refused("writes, and reads a compacted revision: nothing is written",
              "txn { " + branch + "success { request_range { key: 'a/1' revision: 2 } } }",
              ErrCompacted()),
      Refused("writes, and reads a future revision: nothing is written",
              "txn { " + branch + "success { request_range { key: 'a/1' revision: 90 } } }",
              ErrFutureRev()),
      Refused("writes under no lease: nothing is written",
              "txn { " + branch + "success { request_put { key: 'n2' lease: 99 } } }",
              ErrLeaseNotFound()),
      Refused("keeps the value of no key: nothing is written",
              "txn { " + branch + "success { request_put { key: 'n2' ignore_value: true } } }",
              ErrKeyNotFound()),
      Refused("a revision that is not there yet", "range { key: 'a/1' } min_revision: 9",
              absl::FailedPreconditionError("holdfast: this member is at revision 8, below "
                                            "holdfast-min-revision 9: ask another member")),
      Refused("a revision that is not there yet, of a serializable range",
              "range { key: 'a/' range_end: 'b' serializable: true } min_revision: 1000",
              absl::FailedPreconditionError("holdfast: this member is at revision 8, below "
                                            "holdfast-min-revision 1000: ask another member")),
      Refused("a revision that is not there yet, of a read-only transaction",
              "txn { success { request_range { key: 'a/1' } } } min_revision: 9",
              absl::FailedPreconditionError("holdfast: this member is at revision 8, below "
                                            "holdfast-min-revision 9: ask another member")),
      Refused("of unknown age", "range { key: 'a/1' serializable: true } max_age_ms: 100",
              absl::FailedPreconditionError(
                  "holdfast: answer would be of unknown age, older than holdfast-max-age-ms 100: "
                  "ask another member, or allow a larger age")),
      Refused("of unknown age, and none allowed",
              "range { key: 'a/1' serializable: true } max_age_ms: 0",
              absl::FailedPreconditionError(
                  "holdfast: answer would be of unknown age, older than holdfast-max-age-ms 0: "
                  "ask another member, or allow a larger age")),
  };
  return cases;
}

std::vector<DoorCase> WriteCases() {
  // Of a record that a write replaced or removed.
  const auto old = [](const std::string& kv) { return "{ " + kv + " }"; };
  return {
      Write(9, "put", "put { key: 'p' value: '1' }", "put {}"),
      Write(10, "put, and what was before: nothing", "put { key: 'q' value: '1' prev_kv: true }",
            "put {}"),
      Write(11, "put, and what was before", "put { key: 'q' value: '2' prev_kv: true }",
            "put { prev_kv " + old(Kv("q", 10, 10, 1, "1")) + " }"),
      Write(12, "put of no value", "put { key: 'r' }", "put {}"),
      Write(13, "put that keeps the value",
            "put { key: 'q' ignore_value: true lease: 7 prev_kv: true }",
            "put { prev_kv " + old(Kv("q", 10, 11, 2, "2")) + " }"),
      Write(14, "put that keeps the lease",
            "put { key: 'q' value: '3' ignore_lease: true prev_kv: true }",
            "put { prev_kv " + old(Kv("q", 10, 13, 3, "2") + " lease: 7") + " }"),
      Write(15, "put that ends the lease", "put { key: 'q' value: '4' prev_kv: true }",
            "put { prev_kv " + old(Kv("q", 10, 14, 4, "3") + " lease: 7") + " }"),
      Write(15, "delete of nothing", "delete_range { key: 'x' }", "delete_range {}"),
      Write(15, "delete of an empty range", "delete_range { key: 'x' range_end: 'a' }",
            "delete_range {}"),
      Write(16, "delete", "delete_range { key: 'r' }", "delete_range { deleted: 1 }"),
      Write(17, "delete of a range, and what was before",
            "delete_range { key: 'p' range_end: 'r' prev_kv: true }",
            "delete_range { deleted: 2 prev_kvs " + old(Kv("p", 9, 9, 1, "1")) + " prev_kvs " +
                old(Kv("q", 10, 15, 5, "4")) + " }"),
      Write(18, "a transaction that compares and puts",
            "txn { compare { key: 't' target: CREATE create_revision: 0 } "
            "success { request_put { key: 't' value: 'x' } } }",
            "txn { succeeded: true responses { response_put { header { revision: 18 } } } }"),
      Write(18, "... and does not put",
            "txn { compare { key: 't' target: CREATE create_revision: 0 } "
            "success { request_put { key: 't' value: 'x' } } "
            "failure { request_range { key: 't' } } }",
            "txn { responses { response_range { header { revision: 18 } " +
                Kvs(Kv("t", 18, 18, 1, "x")) + "count: 1 } } }"),
      Write(19, "every kind of compare",
            "txn { compare { key: 't' target: VALUE result: LESS value: 'y' } "
            "compare { key: 't' target: MOD result: GREATER mod_revision: 17 } "
            "compare { key: 't' target: LEASE lease: 0 } "
            "compare { key: 't' target: VERSION result: NOT_EQUAL version: 2 } "
            "success { request_put { key: 't' value: 'z' prev_kv: true } } }",
            "txn { succeeded: true responses { response_put { header { revision: 19 } prev_kv " +
                old(Kv("t", 18, 18, 1, "x")) + " } } }"),
      Write(20, "a read sees the write before it",
            "txn { success { request_put { key: 'u' value: '1' } } "
            "success { request_range { key: 'u' } } "
            "success { request_delete_range { key: 't' prev_kv: true } } "
            "success { request_range { key: 't' } } }",
            "txn { succeeded: true responses { response_put { header { revision: 20 } } } "
            "responses { response_range { header { revision: 20 } " +
                Kvs(Kv("u", 20, 20, 1, "1")) +
                "count: 1 } } responses { response_delete_range { header { revision: 20 } deleted: "
                "1 prev_kvs " +
                old(Kv("t", 18, 19, 2, "z")) +
                " } } responses { response_range { header { revision: 20 } } } }"),
      Write(21, "nested",
            "txn { success { request_txn { compare { key: 'u' target: VERSION version: 1 } "
            "success { request_put { key: 'u' value: '2' } } "
            "failure { request_put { key: 'v' value: '2' } } } } }",
            "txn { succeeded: true responses { response_txn { header {} succeeded: "
            "true responses { response_put { header { revision: 21 } } } } } }"),
      Write(21, "a write that nothing came of",
            "txn { success { request_delete_range { key: 'x' } } }",
            "txn { succeeded: true responses { response_delete_range { header { revision: 21 } } } "
            "}"),
      Write(22, "terms of reads mean nothing to a write",
            "put { key: 'w' } max_age_ms: 0 min_revision: 1000", "put {}"),
      Write(23, "a write that wants a leader, and has one", "put { key: 'w' } require_leader: true",
            "put {}"),
  };
}

}  // namespace holdfast::server::testing
