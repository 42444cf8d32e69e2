// CRC32C, big endian numbers, printable texts, ids, CHECK.
#include <gtest/gtest.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/ids.h"
#include "base/strings.h"

namespace holdfast::base {
namespace {

TEST(Crc32c, KnownVectors) {
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(""), 0u);
  // RFC 3720, B.4.
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  std::string ascending;
  for (char c = 0; c < 32; ++c) ascending.push_back(c);
  EXPECT_EQ(Crc32c(ascending), 0x46DD794Eu);
}

TEST(Crc32c, ExtendsFromAnyCut) {
  const std::string text = "a record of some length, cut anywhere";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_EQ(ExtendCrc32c(Crc32c(text.substr(0, cut)), text.substr(cut)), Crc32c(text));
  }
}

TEST(Crc32c, EveryFlippedBitShows) {
  std::string text = "0123456789abcdef";
  const uint32_t good = Crc32c(text);
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_NE(Crc32c(text), good);
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
  }
}

TEST(BigEndian, RoundTripsAndSortsLikeNumbers) {
  std::string previous;
  for (const uint64_t value : {uint64_t{0}, uint64_t{1}, uint64_t{255}, uint64_t{256},
                               uint64_t{1} << 32, UINT64_MAX - 1, UINT64_MAX}) {
    std::string bytes;
    AppendBigEndian64(bytes, value);
    ASSERT_EQ(bytes.size(), 8u);
    EXPECT_EQ(ReadBigEndian64(bytes + "tail"), value);
    EXPECT_LT(previous, bytes);
    previous = bytes;
  }
  std::string bytes;
  AppendBigEndian32(bytes, 0x01020304);
  EXPECT_EQ(bytes, "\x01\x02\x03\x04");
  EXPECT_EQ(ReadBigEndian32(bytes), 0x01020304u);
}

TEST(BigEndian, ShortInputStopsTheProcess) {
  EXPECT_DEATH(ReadBigEndian64("1234567"), "CHECK");
  EXPECT_DEATH(ReadBigEndian32("123"), "CHECK");
}

TEST(Printable, EscapesAndCuts) {
  EXPECT_EQ(Printable("plain text"), "plain text");
  EXPECT_EQ(Printable(std::string_view("a\0\x7f\\\xff", 5)), "a\\x00\\x7f\\x5c\\xff");
  EXPECT_EQ(Printable("abcdef", 3), "abc...");
  EXPECT_EQ(Printable("abc", 3), "abc");
}

TEST(Strings, BridgesKeepEveryByte) {
  const std::string text("a\0b", 3);
  EXPECT_EQ(ToStd(ToAbsl(text)), text);
  EXPECT_EQ(Message(absl::NotFoundError("gone")), "gone");
}

TEST(Ids, CompareCountAndHaveAZeroThatIsFalse) {
  const Term one(1);
  EXPECT_LT(one, Term(2));
  EXPECT_EQ(one + 2, Term(3));
  EXPECT_EQ(Term(3) - 2, one);
  EXPECT_FALSE(Term());
  EXPECT_TRUE(one);
  Index i(7);
  EXPECT_EQ(++i, Index(8));
  static_assert(!std::is_convertible_v<Term, Index>);
  static_assert(!std::is_convertible_v<uint64_t, NodeId>);
}

TEST(Check, StopsTheProcessWithPlaceTextAndReason) {
  CHECK(true);
  CHECK_OK(absl::OkStatus());
  EXPECT_DEATH(CHECK(1 + 1 == 3), "base_codec_test.cc:.*1 \\+ 1 == 3");
  EXPECT_DEATH(CHECK_MSG(false, "because"), "because");
  EXPECT_DEATH(CHECK_OK(absl::DataLossError("rotten")), "rotten");
}

}  // namespace
}  // namespace holdfast::base
