#include "bench/html_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <fstream>
#include <set>
#include <sstream>

namespace holdfast::bench {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr int64_t kSecond = 1'000'000'000;

RunResult SomeRun() {
  RunResult result{.stats = RunStats({.start_ns = 0, .begin_ns = 0, .end_ns = 3 * kSecond})};
  for (int i = 0; i < 300; ++i) {
    result.stats.Record(OpKind::kPut, i * 10'000'000, i * 10'000'000 + 1'000'000 + i, {});
  }
  return result;
}

HtmlReport SomeReport() {
  HtmlReport report{.title = "a <title> & \"more\"", .head = "cpu <x> & 'y'\x01"};
  report.notes = {"a < b"};
  report.goals = {
      {.name = "one", .title = "puts <unary>", .goal = 3, .verdict = GoalVerdict::kMissed}};
  HtmlSection section{.title = "put", .text = "p50 < 1 ms"};
  section.curves = {CurveOf("holdfast & co", SomeRun()), CurveOf("etcd", SomeRun())};
  AddRun(SomeRun(), section.curves[0]);
  HtmlSection bare{.title = "empty"};
  bare.curves = {HtmlCurve{.name = "nothing measured"}};
  report.sections = {section, bare};
  return report;
}

// "" if every element that is opened is closed in its turn, and all characters are escaped.
std::string Malformation(const std::string& html) {
  static const std::set<std::string> empty = {"meta"};
  std::vector<std::string> open;
  for (size_t i = 0; i < html.size();) {
    if (html[i] == '&') {
      const size_t end = html.find(';', i);
      if (end == std::string::npos || end - i > 6) return "a bare & at " + html.substr(i, 20);
    }
    if (html[i] == '>') return "a bare > before " + html.substr(i, 20);
    if (html[i] != '<') {
      ++i;
      continue;
    }
    const size_t end = html.find('>', i);
    if (end == std::string::npos) return "no end of " + html.substr(i, 20);
    const std::string tag = html.substr(i + 1, end - i - 1);
    if (tag.find('<') != std::string::npos) return "a bare < in " + tag;
    i = end + 1;
    if (tag[0] == '!' || tag.back() == '/') continue;
    size_t letters = tag[0] == '/' ? 1 : 0;
    const size_t begin = letters;
    while (letters < tag.size() && std::isalnum(uint8_t(tag[letters]))) ++letters;
    const std::string name = tag.substr(begin, letters - begin);
    if (begin == 0) {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return "an end of " + name + " out of turn";
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "no end of " + open.back();
}

TEST(HtmlReportTest, IsWellFormedWhateverTheTextsHold) {
  EXPECT_EQ(Malformation(HtmlOf(SomeReport())), "");
  EXPECT_EQ(Malformation(HtmlOf({})), "");
}

TEST(HtmlReportTest, LoadsNothing) {
  const std::string html = HtmlOf(SomeReport());
  for (const char* load : {"http:", "https:", "//", "src=", "href=", "url(", "@import", "<script",
                           "<link", "<img", "<iframe"}) {
    EXPECT_THAT(html, Not(HasSubstr(load)));
  }
}

TEST(HtmlReportTest, HasThePlotsTheGoalsAndTheTexts) {
  const std::string html = HtmlOf(SomeReport());
  EXPECT_THAT(html, HasSubstr("puts &lt;unary&gt;"));
  EXPECT_THAT(html, HasSubstr("<td class='missed'>MISSED</td>"));
  EXPECT_THAT(html, HasSubstr("holdfast &amp; co"));
  EXPECT_THAT(html, HasSubstr("p50 &lt; 1 ms"));
  EXPECT_THAT(html, HasSubstr("99.9 %"));
  size_t lines = 0;
  for (size_t at = html.find("<polyline"); at != std::string::npos;
       at = html.find("<polyline", at + 1)) {
    ++lines;
  }
  // Latency: a line for each curve; throughput and p99 over time: one for each of the three runs.
  EXPECT_EQ(lines, 2u + 3u + 3u);
  for (const char* bad : {"nan", "inf", "-inf"}) {
    EXPECT_THAT(html, Not(HasSubstr(std::string(bad) + ","))) << "a point that is no number";
  }
}

TEST(HtmlReportTest, IsWrittenOrTellsWhichFileCannotBe) {
  const std::string file = testing::TempDir() + "/bench_report.html";
  ASSERT_TRUE(WriteHtml(SomeReport(), file).ok());
  std::stringstream written;
  written << std::ifstream(file).rdbuf();
  EXPECT_EQ(written.str(), HtmlOf(SomeReport()));
  const absl::Status status = WriteHtml(SomeReport(), "/nonexistent/report.html");
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/report.html"));
}

}  // namespace
}  // namespace holdfast::bench
