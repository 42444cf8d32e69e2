// The keys of an encoded command, found without decoding it.
#include "server/command_keys.h"

#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "holdfast/command.pb.h"
#include "kv_test_util.h"

namespace holdfast::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> KeysOf(const std::string& encoded) {
  std::vector<std::string_view> keys;
  AppendCommandKeys(encoded, &keys);
  return {keys.begin(), keys.end()};
}

std::vector<std::string> KeysOfText(const std::string& text) {
  return KeysOf(testing::Parse<command::v1::Command>(text).SerializeAsString());
}

TEST(CommandKeys, ArePutsAndDeletesOfOneKey) {
  EXPECT_THAT(KeysOfText(R"(origin: 7 sequence: 300 put { key: "k" value: "v" lease: -1 }
                            session { session: 5 sequence: 1 lowest_unacknowledged: 1 })"),
              ElementsAre("k"));
  EXPECT_THAT(KeysOfText(R"(delete_range { key: "d" prev_kv: true })"), ElementsAre("d"));
  EXPECT_THAT(KeysOfText(R"(delete_range { key: "d" range_end: "e" })"), IsEmpty());
  EXPECT_THAT(KeysOfText(R"(lease_grant { id: 1 ttl_s: 2 })"), IsEmpty());
}

TEST(CommandKeys, AreThoseOfATransaction) {
  EXPECT_THAT(KeysOfText(R"(txn {
                compare { key: "c" target: VERSION version: 1 }
                compare { key: "range" range_end: "rangf" }
                success { request_put { key: "p" value: "v" } }
                success { request_range { key: "r" } }
                failure { request_delete_range { key: "d" } }
                failure { request_delete_range { key: "x" range_end: "y" } } })"),
              ElementsAre("c", "p", "d"));
}

TEST(CommandKeys, OfBytesThatAreNoCommandAreAHintAtMost) {
  const std::string encoded = testing::Parse<command::v1::Command>(
                                  R"(origin: 7 txn { success { request_put { key: "key" } } })")
                                  .SerializeAsString();
  for (size_t cut = 0; cut < encoded.size(); ++cut) KeysOf(encoded.substr(0, cut));
  base::Rng rng(1);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = encoded;
    for (uint64_t n = 1 + rng.Below(4); n > 0; --n) {
      bytes[rng.Below(bytes.size())] = static_cast<char>(rng.Next());
    }
    KeysOf(bytes);
  }
}

}  // namespace
}  // namespace holdfast::server
