// The operator's file: taken when it changes, refused with a reason when it is wrong, and what was
// in force stays.
#include "client/override_file.h"

#include <sys/stat.h>
#include <utime.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/strings.h"
#include "client/last_good.h"
#include "tests/client/cache_fixture.h"

namespace holdfast::internal {
namespace {

using test::WriteFile;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kPrefix[] = "/config/";

std::string ErrorOf(std::string_view text) {
  const auto parsed = ParseOverride(text, kPrefix);
  return std::string(base::Message(parsed.status()));
}

class OverrideTest : public testing::Test {
 protected:
  absl::StatusOr<std::optional<Override>> Poll() { return file_.Poll(); }
  // So long ago that its time stamp tells it from any other state.
  void WriteOld(std::string_view text, int seconds_ago) {
    WriteFile(path_, text);
    const time_t then = time(nullptr) - seconds_ago;
    const utimbuf times = {.actime = then, .modtime = then};
    ASSERT_EQ(utime(path_.c_str(), &times), 0);
  }

  void Remove() { ASSERT_EQ(unlink(path_.c_str()), 0); }

  test::TempDir dir_;
  const std::string path_ = OverridePath(dir_.path(), kPrefix);
  OverrideFile file_{path_, kPrefix};
};

TEST(ParseOverride, TakesPutsAndDeletes) {
  const auto parsed = ParseOverride(R"({
    "note": "INC-1: edge-7 off",
    "put": {"/config/b": "2", "/config/a": ""},
    "put_base64": {"/config/c": "AP8="},
    "delete": ["/config/7", "/config/6"]})",
                                    kPrefix);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->present);
  EXPECT_EQ(parsed->note, "INC-1: edge-7 off");
  ASSERT_EQ(parsed->put.size(), 3U);
  EXPECT_EQ(parsed->put[0].key, "/config/a");
  EXPECT_EQ(parsed->put[1].value, "2");
  EXPECT_EQ(parsed->put[2].value, std::string("\0\xff", 2));
  EXPECT_THAT(parsed->deleted, ElementsAre("/config/6", "/config/7"));
  // What is written is read back the same.
  const auto text = FormatOverride(*parsed);
  ASSERT_TRUE(text.ok());
  const auto again = ParseOverride(*text, kPrefix);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->put[2].value, parsed->put[2].value);
  EXPECT_EQ(again->deleted, parsed->deleted);
  EXPECT_EQ(again->note, parsed->note);
  EXPECT_TRUE(ParseOverride("{}", kPrefix)->put.empty());
}

TEST(ParseOverride, SaysWhereAndWhatToDo) {
  EXPECT_THAT(ErrorOf("{\n\"put\": {\n\"/config/a\": \"1\",,}}"),
              AllOf(HasSubstr("line 3"), HasSubstr("not JSON")));
  EXPECT_THAT(ErrorOf("{\n\"put\": {\n\"/auth/a\": \"1\"}}"),
              AllOf(HasSubstr("line 3"), HasSubstr("/auth/a"), HasSubstr("its own prefix")));
  EXPECT_THAT(ErrorOf("{\"delete\": [\"/auth/a\"]}"), HasSubstr("does not begin with"));
  EXPECT_THAT(ErrorOf("{\n\n\"remove\": []}"), AllOf(HasSubstr("line 3"), HasSubstr("unknown")));
  EXPECT_THAT(ErrorOf("{\"put\": {\"/config/a\": 1}}"), HasSubstr("has to be a text"));
  EXPECT_THAT(ErrorOf("{\"put\": [\"/config/a\"]}"), HasSubstr("has to be an object"));
  EXPECT_THAT(ErrorOf("{\"put_base64\": {\"/config/a\": \"?\"}}"), HasSubstr("not base64"));
  EXPECT_THAT(ErrorOf("{\"delete\": \"/config/a\"}"), HasSubstr("a list of keys"));
  EXPECT_THAT(ErrorOf("{\"delete\": [1]}"), HasSubstr("a list of keys"));
  EXPECT_THAT(ErrorOf("{\"note\": 7}"), HasSubstr("has to be a text"));
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("one JSON object"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("line 1"));
  EXPECT_THAT(ErrorOf("{} {}"), HasSubstr("not JSON"));
}

// A hand that is in a hurry writes a line twice; the parser would take the last, silently.
TEST(ParseOverride, NothingTwice) {
  EXPECT_THAT(ErrorOf("{\"put\": {\"/config/a\": \"1\",\n\"/config/a\": \"2\"}}"),
              AllOf(HasSubstr("line 2"), HasSubstr("twice")));
  EXPECT_THAT(ErrorOf("{\"put\": {}, \"put\": {}}"), HasSubstr("twice"));
  EXPECT_THAT(ErrorOf("{\"put\": {\"/config/a\": \"1\"}, \"delete\": [\"/config/a\"]}"),
              HasSubstr("twice"));
}

TEST(ParseOverride, NoTextEverBreaksIt) {
  const std::string sound = R"({"note":"n","put":{"/config/a":"1"},"delete":["/config/b"]})";
  for (size_t length = 0; length < sound.size(); ++length) {
    EXPECT_FALSE(ParseOverride(sound.substr(0, length), kPrefix).ok()) << length;
  }
  for (size_t bit = 0; bit < 8 * sound.size(); ++bit) {
    std::string flipped = sound;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const auto parsed = ParseOverride(flipped, kPrefix);
    if (!parsed.ok()) {
      EXPECT_FALSE(base::Message(parsed.status()).empty());
    }
  }
  EXPECT_FALSE(ParseOverride(std::string(100'000, '['), kPrefix).ok());
}

TEST_F(OverrideTest, ComesChangesAndGoes) {
  EXPECT_EQ(Poll()->has_value(), false);
  WriteFile(path_, R"({"put": {"/config/a": "1"}})");
  auto polled = Poll();
  ASSERT_TRUE(polled.ok() && polled->has_value()) << polled.status();
  EXPECT_EQ((**polled).put.at(0).value, "1");
  EXPECT_FALSE(Poll()->has_value());
  // In the same instant, and as long: the time stamps may be the same.
  WriteFile(path_, R"({"put": {"/config/a": "2"}})");
  EXPECT_EQ((**Poll()).put.at(0).value, "2");
  Remove();
  polled = Poll();
  ASSERT_TRUE(polled.ok() && polled->has_value());
  EXPECT_FALSE((**polled).present);
  EXPECT_FALSE(Poll()->has_value());
}

TEST_F(OverrideTest, ABadOneIsToldOnceAndWhatWasInForceStays) {
  WriteOld(R"({"put": {"/config/a": "1"}})", 100);
  ASSERT_TRUE(Poll()->has_value());
  WriteOld("{", 90);
  auto polled = Poll();
  EXPECT_TRUE(absl::IsInvalidArgument(polled.status()));
  EXPECT_THAT(std::string(base::Message(polled.status())), HasSubstr(path_));
  polled = Poll();
  EXPECT_TRUE(polled.ok() && !polled->has_value());
  WriteOld("{{", 80);
  EXPECT_FALSE(Poll().ok()) << "another trouble";
  // Back to what is in force: nothing changes.
  WriteOld(R"({"put": {"/config/a": "1"}})", 70);
  polled = Poll();
  EXPECT_TRUE(polled.ok() && !polled->has_value());
  WriteOld("{", 60);
  EXPECT_FALSE(Poll().ok()) << "told again after it was well";
  Remove();
  polled = Poll();
  ASSERT_TRUE(polled.ok() && polled->has_value());
  EXPECT_FALSE((**polled).present) << "what was in force goes with the file";
}

TEST_F(OverrideTest, OfStrangersOrForAllToWriteIsNotUsed) {
  WriteOld("{}", 100);
  ASSERT_EQ(chmod(path_.c_str(), 0666), 0);
  auto polled = Poll();
  EXPECT_TRUE(absl::IsFailedPrecondition(polled.status()));
  EXPECT_THAT(std::string(base::Message(polled.status())), HasSubstr("chmod o-w"));
  ASSERT_EQ(chmod(path_.c_str(), 0664), 0);
  EXPECT_TRUE(Poll()->has_value()) << "a changed mode is seen";
  if (geteuid() != 0) return;
  ASSERT_EQ(chown(path_.c_str(), 1234, 1234), 0);
  polled = Poll();
  EXPECT_TRUE(absl::IsFailedPrecondition(polled.status()));
  EXPECT_THAT(std::string(base::Message(polled.status())), HasSubstr("user 1234"));
}

TEST_F(OverrideTest, WhatIsNoFileOrTooLargeIsNotUsed) {
  ASSERT_EQ(mkdir(path_.c_str(), 0700), 0);
  EXPECT_TRUE(absl::IsFailedPrecondition(Poll().status()));
  ASSERT_EQ(rmdir(path_.c_str()), 0);
  EXPECT_TRUE(Poll().ok());
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsFailedPrecondition(Poll().status()));
  Remove();
  WriteFile(path_, std::string(kOverrideBytesMax + 1, ' '));
  EXPECT_TRUE(absl::IsInvalidArgument(Poll().status()));
}

TEST_F(OverrideTest, IsReadThroughTheLastGoodCopiesDirectory) {
  auto last_good = LastGood::Open({.dir = dir_.path(), .prefix = kPrefix});
  ASSERT_TRUE(last_good.ok());
  WriteFile(path_, R"({"delete": ["/config/a"]})");
  const auto polled = (*last_good)->PollOverride();
  ASSERT_TRUE(polled.ok() && polled->has_value());
  EXPECT_THAT((**polled).deleted, ElementsAre("/config/a"));
}

}  // namespace
}  // namespace holdfast::internal
