// Figures of what happened over time: panels above each other with one common time axis, phases
// shaded behind them.
//
// One drawing, two files: SVG for documents and PNG for everything else, both by cairo. Lines are
// told apart by colour and by dash, in a palette that colour-blind people can tell apart
// (Okabe and Ito); the background is light.
// Threads: functions without state.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace holdfast::bench {

struct PlotPoint {
  double x = 0;
  double y = 0;
};

enum class PlotColor { kBlue, kOrange, kGreen, kPurple, kRed, kSky, kBlack, kGray };
enum class PlotDash { kSolid, kDashed, kDotted };

struct PlotLine {
  std::string name = {};  // in the legend; empty: not there
  PlotColor color = PlotColor::kBlue;
  PlotDash dash = PlotDash::kSolid;
  double width = 2;
  std::vector<PlotPoint> points = {};  // x ascending
  // A gap of more than so much in x ends the stroke; the line goes on behind it.
  double gap = 1.0;
};

// A horizontal line with its meaning written on it: a bound, a goal.
struct PlotLimit {
  double y = 0;
  std::string label = {};
};

struct PlotPanel {
  std::string title = {};
  std::string y_label = {};
  std::vector<PlotLine> lines = {};
  std::vector<PlotLimit> limits = {};
  double y_max = std::numeric_limits<double>::quiet_NaN();  // NaN: what the lines need
  double height = 1;                                        // relative to the other panels
};

struct PlotShade {
  double from = 0;
  double to = 0;
  std::string label = {};
  bool fault = false;  // darker
};

struct PlotMark {
  double x = 0;
  std::string label = {};
};

struct Plot {
  std::string title = {};
  std::string subtitle = {};
  std::string x_label = {};
  // The axis begins at x_min, which is labelled 0: what came before is not shown.
  double x_min = 0;
  double x_max = 1;  // > x_min
  std::vector<PlotShade> shades = {};
  std::vector<PlotMark> marks = {};
  std::vector<PlotPanel> panels = {};  // not empty
  std::string footer = {};             // small print: machine, factor, how it was made
};

inline constexpr int kPlotWidth = 900;  // pixels, as it is meant to be shown

// Writes `base`.svg and `base`.png. Unavailable: a file cannot be written.
// REQUIRES: x_max > x_min, at least one panel.
absl::Status WritePlot(const Plot& plot, const std::string& base);

// Round distances between ticks: 1, 2 or 5 times a power of ten, at most `ticks` of them in `span`.
// REQUIRES: span > 0, ticks > 0.
double TickStep(double span, int ticks);

}  // namespace holdfast::bench
