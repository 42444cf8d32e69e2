// What clients say of themselves: bounded, forgotten in time, counted.
#include "server/client_table.h"

#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kv_test_util.h"

namespace holdfast::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Parse;

v1::ReportRequest Of(const std::string& id, const std::string& rest = "") {
  return Parse<v1::ReportRequest>(fmt::format("client_id: '{}' {}", id, rest));
}

std::vector<std::string> Ids(ClientTable& table) {
  v1::ClientsResponse response;
  table.Fill(&response);
  std::vector<std::string> ids;
  for (const auto& client : response.clients()) ids.push_back(client.report().client_id());
  return ids;
}

TEST(ClientTable, TellsWhoWasHeardAndHowLongAgoTheLastOneFirst) {
  base::FakeClock clock;
  ClientTable table({.clock = &clock});
  ASSERT_TRUE(
      table.Take(Of("a", "name: 'edge' prefixes { prefix: '/c/' link: 'live' }"), "p:1").ok());
  clock.Advance(absl::Seconds(10));
  ASSERT_TRUE(table.Take(Of("b"), "p:2").ok());
  EXPECT_THAT(Ids(table), ElementsAre("b", "a"));
  v1::ClientsResponse response;
  table.Fill(&response);
  EXPECT_EQ(response.clients(1).peer(), "p:1");
  EXPECT_EQ(response.clients(1).report().name(), "edge");
  EXPECT_GE(response.clients(1).heard_ms_ago(), 10'000u);
  EXPECT_LT(response.clients(1).heard_ms_ago(), 10'100u);
  ASSERT_TRUE(table.Take(Of("a"), "p:1").ok());
  EXPECT_THAT(Ids(table), ElementsAre("a", "b"));
}

TEST(ClientTable, ForgetsWhoLeavesAndWhoIsNotHeard) {
  base::FakeClock clock;
  ClientTable table({.clock = &clock});
  ASSERT_TRUE(table.Take(Of("a"), "").ok());
  ASSERT_TRUE(table.Take(Of("b"), "").ok());
  ASSERT_TRUE(table.Take(Of("b", "leaving: true"), "").ok());
  EXPECT_THAT(Ids(table), ElementsAre("a"));
  clock.Advance(absl::Seconds(100));
  ASSERT_TRUE(table.Take(Of("c"), "").ok());
  clock.Advance(absl::Seconds(21));
  EXPECT_THAT(Ids(table), ElementsAre("c"));
}

TEST(ClientTable, TheOldestGoWhenThereAreTooManyOrTheyAreTooLarge) {
  ClientTable few({.clients = 3});
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(few.Take(Of(fmt::format("{}", i)), "").ok());
  EXPECT_THAT(Ids(few), ElementsAre("4", "3", "2"));
  ClientTable small({.bytes = 1000});
  for (int i = 0; i < 9; ++i) {
    ASSERT_TRUE(small.Take(Of(fmt::format("{}", i), "name: 'a name of some length'"), "").ok());
  }
  EXPECT_THAT(Ids(small), ElementsAre("8", "7", "6"));
  // What is replaced is not counted any more.
  for (int i = 0; i < 9; ++i) ASSERT_TRUE(small.Take(Of("6"), "").ok());
  EXPECT_THAT(Ids(small), ElementsAre("6", "8", "7"));
}

TEST(ClientTable, RefusesNonsenseAndCutsWhatIsTooLong) {
  ClientTable table({});
  EXPECT_THAT(std::string(table.Take(Of(""), "").message()), HasSubstr("1 to 64 printable"));
  EXPECT_FALSE(table.Take(Of("a b"), "").ok());
  EXPECT_FALSE(table.Take(Of(std::string(65, 'x')), "").ok());
  v1::ReportRequest many = Of("a");
  for (int i = 0; i < 65; ++i) many.add_prefixes();
  EXPECT_FALSE(table.Take(many, "").ok());
  v1::ReportRequest longs = Of("a");
  longs.set_name(std::string(10'000, '\xc3'));
  longs.add_prefixes()->set_refused_why(std::string(10'000, 'y'));
  ASSERT_TRUE(table.Take(longs, "").ok());
  v1::ClientsResponse response;
  table.Fill(&response);
  EXPECT_EQ(response.clients(0).report().name(), std::string(256, '?'));
  EXPECT_EQ(response.clients(0).report().prefixes(0).refused_why().size(), 256u);
}

TEST(ClientTable, CountsPrefixesByLinkAndEachRefusalOnce) {
  ClientTable table({});
  const std::string refused = "prefixes { prefix: '/c/' link: 'live' refused_revision: 7 }";
  ASSERT_TRUE(table.Take(Of("a", refused), "").ok());
  ASSERT_TRUE(table.Take(Of("a", refused), "").ok());
  ASSERT_TRUE(table.Take(Of("b", refused + "prefixes { prefix: '/d/' link: 'odd' }"), "").ok());
  EXPECT_EQ(table.refusals(), 2u);
  ASSERT_TRUE(table.Take(Of("a", "prefixes { prefix: '/c/' link: 'live' }"), "").ok());
  ASSERT_TRUE(
      table.Take(Of("a", "prefixes { prefix: '/c/' link: 'stale' refused_revision: 8 }"), "").ok());
  EXPECT_EQ(table.refusals(), 3u);
  EXPECT_THAT(table.CountByLink(), ElementsAre(0, 1, 0, 1, 0, 0, 1));
  EXPECT_EQ(table.clients(), 2u);
}

}  // namespace
}  // namespace holdfast::server
