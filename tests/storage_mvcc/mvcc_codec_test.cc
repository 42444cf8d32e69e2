#include "storage/mvcc_codec.h"

#include <array>
#include <string>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "tests/storage_mvcc/mvcc_test_util.h"

namespace holdfast::storage::mvcc {
namespace {

std::string Encode(const Record& record) {
  std::array<char, kRecordHeaderBytesMax> header;
  std::string out(header.data(), EncodeRecordHeader(record, header.data()));
  return out.append(record.value);
}

TEST(MvccCodec, RecordsComeBackAsTheyWent) {
  const int64_t kNumbers[] = {0, 1, 127, 128, INT64_MAX, -1, INT64_MIN};
  for (int64_t number : kNumbers) {
    Record in;
    in.live = true;
    in.mod = {number, UINT32_MAX};
    in.create_revision = number;
    in.version = number;
    in.lease = number;
    in.value = "value";
    const std::string bytes = Encode(in);
    Record out;
    ASSERT_TRUE(DecodeRecord(bytes, &out));
    EXPECT_TRUE(out.live);
    EXPECT_EQ(out.mod, in.mod);
    EXPECT_EQ(out.create_revision, number);
    EXPECT_EQ(out.version, number);
    EXPECT_EQ(out.lease, number);
    EXPECT_EQ(out.value, "value");
  }
}

TEST(MvccCodec, ATombstoneKeepsItsPlaceInTheHistoryAlone) {
  Record in;
  in.mod = {7, 3};
  Record out;
  ASSERT_TRUE(DecodeRecord(Encode(in), &out));
  EXPECT_FALSE(out.live);
  EXPECT_EQ(out.mod, (ModRevision{7, 3}));
}

TEST(MvccCodec, EveryCutOfARecordsHeaderIsRefused) {
  Record in;
  in.live = true;
  in.mod = {1000, 200};
  in.create_revision = 900;
  in.version = 300;
  in.lease = 1 << 20;
  const std::string bytes = Encode(in);
  for (size_t size = 0; size < bytes.size(); ++size) {
    Record out;
    EXPECT_FALSE(DecodeRecord(std::string_view(bytes).substr(0, size), &out)) << size;
  }
}

TEST(MvccCodec, RandomBytesNeverLeadADecoderAstray) {
  base::Rng rng(TestSeed());
  for (int i = 0; i < 20000; ++i) {
    std::string bytes(rng.Below(40), '\0');
    for (char& c : bytes) c = static_cast<char>(rng.Next());
    if (!bytes.empty() && rng.OneIn(2)) bytes[0] = rng.OneIn(2) ? 'L' : 'T';
    const std::string exact(bytes);
    Record record;
    if (DecodeRecord(exact, &record)) {
      EXPECT_LE(record.value.size(), exact.size());
    }
    HistoryEntry entry;
    if (DecodeHistoryEntry(exact, &entry)) {
      EXPECT_LE(entry.key.size() + entry.record.size() + entry.previous.size(), exact.size());
    }
  }
}

TEST(MvccCodec, HistoryKeysSortAsRevisionsDo) {
  const ModRevision kRising[] = {{0, 0},
                                 {1, 0},
                                 {1, 1},
                                 {1, 256},
                                 {2, 0},
                                 {255, 9},
                                 {256, 0},
                                 {int64_t{1} << 40, 0},
                                 {INT64_MAX, UINT32_MAX}};
  HistoryKey last{};
  for (const ModRevision& mod : kRising) {
    const HistoryKey key = EncodeHistoryKey(mod);
    if (mod != kRising[0]) {
      EXPECT_LT(AsView(last), AsView(key));
    }
    ModRevision out;
    ASSERT_TRUE(DecodeHistoryKey(AsView(key), &out));
    EXPECT_EQ(out, mod);
    last = key;
  }
  ModRevision out;
  EXPECT_FALSE(DecodeHistoryKey("short", &out));
}

TEST(MvccCodec, AppliedStatesComeBackAsTheyWent) {
  const AppliedState in{Index(1), Term(UINT64_MAX), INT64_MAX, 4};
  AppliedState out;
  ASSERT_TRUE(DecodeAppliedState(EncodeAppliedState(in), &out));
  EXPECT_EQ(out, in);
  EXPECT_FALSE(DecodeAppliedState("", &out));
  EXPECT_FALSE(DecodeAppliedState(EncodeAppliedState(in) + "x", &out));
}

}  // namespace
}  // namespace holdfast::storage::mvcc
