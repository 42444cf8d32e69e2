// Figures: files that programs accept, the same ones for the same run.
#include "bench/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace holdfast::bench {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string Contents(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Plot SomePlot() {
  Plot plot;
  plot.title = "Something happened";
  plot.subtitle = "and was survived";
  plot.x_label = "seconds";
  plot.x_max = 30;
  plot.shades = {{.from = 0, .to = 10, .label = "all well", .fault = false},
                 {.from = 10, .to = 20, .label = "gone", .fault = true},
                 {.from = 20, .to = 30, .label = "back", .fault = false}};
  plot.marks = {{12.5, "killed"}};
  PlotPanel panel;
  panel.title = "Served";
  panel.y_label = "%";
  panel.y_max = 105;
  panel.limits = {{50, "half"}};
  for (int i = 0; i < 12; ++i) {
    PlotLine line;
    line.name = "a class of services with a long name " + std::to_string(i);
    line.color = PlotColor(i % 8);
    line.dash = PlotDash(i % 3);
    for (int x = 0; x < 300; ++x) line.points.push_back({x * 0.1, 50 + 40 * std::sin(x * 0.1 + i)});
    panel.lines.push_back(std::move(line));
  }
  plot.panels = {panel, panel};
  return plot;
}

class DrillPlotTest : public testing::Test {
 protected:
  DrillPlotTest() {
    dir_ = testing::TempDir() + "drill-plot-" + std::to_string(getpid());
    std::filesystem::create_directories(dir_);
  }
  ~DrillPlotTest() override { std::filesystem::remove_all(dir_); }
  std::string dir_;
};

TEST_F(DrillPlotTest, WritesAnSvgAndAPng) {
  ASSERT_TRUE(WritePlot(SomePlot(), dir_ + "/a").ok());
  const std::string svg = Contents(dir_ + "/a.svg");
  EXPECT_THAT(svg, StartsWith("<?xml"));
  EXPECT_THAT(svg, HasSubstr("width=\"900"));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  const std::string png = Contents(dir_ + "/a.png");
  EXPECT_THAT(png, StartsWith("\x89PNG\r\n\x1a\n"));
  // Twice the width, big endian, behind the signature, the chunk's length and its name.
  ASSERT_GT(png.size(), 24u);
  EXPECT_EQ(png.substr(16, 4), std::string("\x00\x00\x07\x08", 4));
  EXPECT_NE(png.find("IEND"), std::string::npos);
}

TEST_F(DrillPlotTest, TheSameRunGivesTheSameFile) {
  ASSERT_TRUE(WritePlot(SomePlot(), dir_ + "/a").ok());
  ASSERT_TRUE(WritePlot(SomePlot(), dir_ + "/b").ok());
  // Not EXPECT_EQ: it would print both.
  EXPECT_TRUE(Contents(dir_ + "/a.svg") == Contents(dir_ + "/b.svg"));
  EXPECT_TRUE(Contents(dir_ + "/a.png") == Contents(dir_ + "/b.png"));
}

TEST_F(DrillPlotTest, TakesLinesWithoutPointsAndWithHoles) {
  Plot plot = SomePlot();
  plot.panels[0].lines[0].points.clear();
  plot.panels[0].lines[1].points = {{0, 1}, {0.1, 2}, {29, 1000}};
  plot.panels.push_back({});
  EXPECT_TRUE(WritePlot(plot, dir_ + "/a").ok());
}

TEST_F(DrillPlotTest, SaysWhichFileCannotBeWritten) {
  const absl::Status status = WritePlot(SomePlot(), dir_ + "/no/such/dir/a");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no/such/dir/a.svg"));
}

TEST(TickStepTest, IsRoundAndNotTooSmall) {
  EXPECT_DOUBLE_EQ(TickStep(100, 5), 20);
  EXPECT_DOUBLE_EQ(TickStep(105, 5), 50);
  EXPECT_DOUBLE_EQ(TickStep(72, 12), 10);
  EXPECT_DOUBLE_EQ(TickStep(1, 5), 0.2);
  EXPECT_DOUBLE_EQ(TickStep(0.03, 3), 0.01);
  EXPECT_DOUBLE_EQ(TickStep(1e6, 5), 200'000);
}

}  // namespace
}  // namespace holdfast::bench
