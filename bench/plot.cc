#include "bench/plot.h"

#include <cairo-svg.h>
#include <cairo.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <string_view>

#include "base/check.h"
#include "base/strings.h"

namespace holdfast::bench {
namespace {

constexpr double kLeft = 76;
constexpr double kRight = 24;
constexpr double kTitleHeight = 62;
constexpr double kShadeLabels = 34;  // above the first panel
constexpr double kPanelHeight = 150;
constexpr double kPanelHead = 24;  // title of a panel, beside its legend
constexpr double kLegendRow = 17;
constexpr double kPanelGap = 16;
constexpr double kAxisHeight = 38;
constexpr double kFooterHeight = 12;
constexpr double kPngScale = 2;  // sharp on dense screens
constexpr int kYTicks = 6;
constexpr int kXTicks = 12;
constexpr const char* kFont = "DejaVu Sans";

struct Rgb {
  double r, g, b;
};

constexpr Rgb Hex(int rgb) {
  return {((rgb >> 16) & 255) / 255.0, ((rgb >> 8) & 255) / 255.0, (rgb & 255) / 255.0};
}

constexpr Rgb kInk = Hex(0x24292f);
constexpr Rgb kFaint = Hex(0x6e7781);
constexpr Rgb kGrid = Hex(0xe4e7eb);
constexpr Rgb kFrame = Hex(0xafb8c1);
constexpr Rgb kCalmShade = Hex(0xf3f6f9);
constexpr Rgb kFaultShade = Hex(0xfbe9dd);

// Okabe and Ito, "Color Universal Design"; the grey is ours.
Rgb ColorOf(PlotColor color) {
  switch (color) {
    case PlotColor::kBlue:
      return Hex(0x0072b2);
    case PlotColor::kOrange:
      return Hex(0xe69f00);
    case PlotColor::kGreen:
      return Hex(0x009e73);
    case PlotColor::kPurple:
      return Hex(0xcc79a7);
    case PlotColor::kRed:
      return Hex(0xd55e00);
    case PlotColor::kSky:
      return Hex(0x56b4e9);
    case PlotColor::kGray:
      return Hex(0x8c959f);
    case PlotColor::kBlack:
      break;
  }
  return kInk;
}

enum class Align { kLeft, kCenter, kRight };

// cairo in the terms of this file. Owns nothing.
class Pen {
 public:
  explicit Pen(cairo_t* cr) : cr_(cr) {}

  void Color(Rgb color, double alpha = 1) {
    cairo_set_source_rgba(cr_, color.r, color.g, color.b, alpha);
  }
  void Font(double size, bool bold = false) {
    cairo_select_font_face(cr_, kFont, CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr_, size);
  }
  double Width(const std::string& text) {
    cairo_text_extents_t extents;
    cairo_text_extents(cr_, text.c_str(), &extents);
    return extents.x_advance;
  }
  void Text(double x, double y, const std::string& text, Align align = Align::kLeft) {
    const double shift = align == Align::kLeft ? 0 : align == Align::kCenter ? 0.5 : 1;
    cairo_move_to(cr_, x - shift * Width(text), y);
    cairo_show_text(cr_, text.c_str());
  }
  void UprightText(double x, double y, const std::string& text) {
    cairo_save(cr_);
    cairo_translate(cr_, x, y);
    cairo_rotate(cr_, -std::acos(-1.0) / 2);
    Text(0, 0, text, Align::kCenter);
    cairo_restore(cr_);
  }
  void Box(double x, double y, double width, double height) {
    cairo_rectangle(cr_, x, y, width, height);
    cairo_fill(cr_);
  }
  void Frame(double x, double y, double width, double height) {
    cairo_rectangle(cr_, x, y, width, height);
    cairo_stroke(cr_);
  }
  void Stroke(double width, PlotDash dash) {
    static constexpr double kDashes[] = {7, 4};
    static constexpr double kDots[] = {2, 3};
    cairo_set_line_width(cr_, width);
    cairo_set_line_join(cr_, CAIRO_LINE_JOIN_ROUND);
    if (dash == PlotDash::kSolid) cairo_set_dash(cr_, nullptr, 0, 0);
    if (dash == PlotDash::kDashed) cairo_set_dash(cr_, kDashes, 2, 0);
    if (dash == PlotDash::kDotted) cairo_set_dash(cr_, kDots, 2, 0);
  }
  void Line(double x1, double y1, double x2, double y2) {
    cairo_move_to(cr_, x1, y1);
    cairo_line_to(cr_, x2, y2);
    cairo_stroke(cr_);
  }
  cairo_t* raw() { return cr_; }

 private:
  cairo_t* const cr_;
};

// "12", "0.5", "1.5k", "2M": short, and no digits that mean nothing.
std::string TickText(double value) {
  if (value >= 1e6) return fmt::format("{:.4g}M", value / 1e6);
  if (value >= 10'000) return fmt::format("{:.4g}k", value / 1e3);
  return fmt::format("{:.4g}", value);
}

double TopOf(const PlotPanel& panel) {
  if (!std::isnan(panel.y_max)) return panel.y_max;
  double top = 0;
  for (const PlotLine& line : panel.lines) {
    for (const PlotPoint& point : line.points) top = std::max(top, point.y);
  }
  for (const PlotLimit& limit : panel.limits) top = std::max(top, limit.y);
  return top > 0 ? top * 1.08 : 1;
}

// Where the legend's entries go: rows below the panel's title, filled from the left.
struct LegendEntry {
  const PlotLine* line;
  double x;
  int row;
};
struct Legend {
  std::vector<LegendEntry> entries;
  int rows = 0;
};

Legend LayOut(Pen& pen, const PlotPanel& panel) {
  constexpr double kSample = 26;  // the stroke shown
  constexpr double kBehind = 18;
  Legend legend;
  pen.Font(11.5, true);
  const double beside_title = kLeft + pen.Width(panel.title) + 22;
  pen.Font(11);
  double x = beside_title;
  int row = 0;
  for (const PlotLine& line : panel.lines) {
    if (line.name.empty()) continue;
    const double width = kSample + 6 + pen.Width(line.name);
    if (x + width > kPlotWidth - kRight && x > kLeft) {
      x = kLeft;
      ++row;
    }
    legend.entries.push_back({&line, x, row});
    x += width + kBehind;
  }
  legend.rows = row;
  return legend;
}

double HeadHeight(const Legend& legend) { return kPanelHead + legend.rows * kLegendRow; }

class Painter {
 public:
  Painter(cairo_t* cr, const Plot& plot) : pen_(cr), plot_(plot) {
    for (const PlotPanel& panel : plot.panels) legends_.push_back(LayOut(pen_, panel));
  }

  double Height() const {
    double height = kTitleHeight + kShadeLabels + kAxisHeight + kFooterHeight;
    for (size_t i = 0; i < plot_.panels.size(); ++i) {
      height += HeadHeight(legends_[i]) + kPanelHeight * plot_.panels[i].height + kPanelGap;
    }
    return std::ceil(height);
  }

  void Paint() {
    pen_.Color({1, 1, 1});
    pen_.Box(0, 0, kPlotWidth, Height());
    pen_.Color(kInk);
    pen_.Font(18, true);
    pen_.Text(kLeft, 30, plot_.title);
    pen_.Font(12);
    pen_.Color(kFaint);
    pen_.Text(kLeft, 50, plot_.subtitle);
    double y = kTitleHeight;
    ShadeLabels(y);
    y += kShadeLabels;
    for (size_t i = 0; i < plot_.panels.size(); ++i) {
      const PlotPanel& panel = plot_.panels[i];
      Head(panel, legends_[i], y);
      y += HeadHeight(legends_[i]);
      Panel(panel, y, kPanelHeight * panel.height);
      y += kPanelHeight * panel.height + kPanelGap;
    }
    Axis(y - kPanelGap);
    pen_.Font(10);
    pen_.Color(kFaint);
    pen_.Text(kLeft, Height() - 10, plot_.footer);
  }

 private:
  double X(double x) const {
    return kLeft + (kPlotWidth - kLeft - kRight) *
                       std::clamp((x - plot_.x_min) / (plot_.x_max - plot_.x_min), 0.0, 1.0);
  }

  // Labels that do not fit beside each other take turns in two rows.
  void ShadeLabels(double y) {
    pen_.Font(11);
    double free_from[2] = {0, 0};
    for (const PlotShade& shade : plot_.shades) {
      if (shade.label.empty()) continue;
      const double width = pen_.Width(shade.label);
      const double middle = (X(shade.from) + X(shade.to)) / 2;
      const double x = std::clamp(middle - width / 2, kLeft, kPlotWidth - kRight - width);
      const int row = x >= free_from[1] + 8 ? 1 : 0;
      pen_.Color(shade.fault ? ColorOf(PlotColor::kRed) : kFaint);
      pen_.Text(x, y + 10 + 15 * row, shade.label);
      free_from[row] = x + width;
    }
  }

  void Head(const PlotPanel& panel, const Legend& legend, double y) {
    pen_.Font(11.5, true);
    pen_.Color(kInk);
    pen_.Text(kLeft, y + 15, panel.title);
    pen_.Font(11);
    for (const LegendEntry& entry : legend.entries) {
      const double base = y + 15 + entry.row * kLegendRow;
      pen_.Color(ColorOf(entry.line->color));
      pen_.Stroke(entry.line->width + 0.5, entry.line->dash);
      pen_.Line(entry.x, base - 4, entry.x + 26, base - 4);
      pen_.Color(kInk);
      pen_.Text(entry.x + 32, base, entry.line->name);
    }
  }

  void Panel(const PlotPanel& panel, double y, double height) {
    const double width = kPlotWidth - kLeft - kRight;
    for (const PlotShade& shade : plot_.shades) {
      pen_.Color(shade.fault ? kFaultShade : kCalmShade);
      pen_.Box(X(shade.from), y, X(shade.to) - X(shade.from), height);
    }
    const double top = TopOf(panel);
    const auto at = [&](double value) {
      return y + height * (1 - std::clamp(value / top, 0.0, 1.0));
    };
    pen_.Stroke(1, PlotDash::kSolid);
    const double step = TickStep(top, kYTicks);
    for (double value = 0; value <= top * 1.0001; value += step) {
      pen_.Color(kGrid);
      pen_.Line(kLeft, at(value), kLeft + width, at(value));
      pen_.Color(kInk);
      pen_.Font(11);
      pen_.Text(kLeft - 7, at(value) + 4, TickText(value), Align::kRight);
    }
    pen_.Color(kFaint);
    pen_.Font(11);
    pen_.UprightText(22, y + height / 2, panel.y_label);
    cairo_save(pen_.raw());
    cairo_rectangle(pen_.raw(), kLeft, y - 2, width, height + 4);
    cairo_clip(pen_.raw());
    for (const PlotLimit& limit : panel.limits) Limit(limit, at(limit.y), y);
    for (const PlotLine& line : panel.lines) Curve(line, at);
    for (const PlotMark& mark : plot_.marks) Mark(mark, y, height, &panel == &plot_.panels[0]);
    cairo_restore(pen_.raw());
    pen_.Color(kFrame);
    pen_.Stroke(1, PlotDash::kSolid);
    pen_.Frame(kLeft, y, width, height);
  }

  void Limit(const PlotLimit& limit, double y, double top) {
    pen_.Color(kInk, 0.7);
    pen_.Stroke(1, PlotDash::kDashed);
    pen_.Line(kLeft, y, kPlotWidth - kRight, y);
    pen_.Font(10.5);
    pen_.Text(kLeft + 6, y - top < 16 ? y + 13 : y - 4, limit.label);
  }

  template <class At>
  void Curve(const PlotLine& line, const At& at) {
    pen_.Color(ColorOf(line.color));
    pen_.Stroke(line.width, line.dash);
    cairo_t* const cr = pen_.raw();
    const std::vector<PlotPoint>& points = line.points;
    double last = -std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < points.size(); ++i) {
      const PlotPoint& point = points[i];
      if (point.x < plot_.x_min) continue;
      // The middle of a level stretch adds nothing but bytes.
      const bool level = i > 0 && i + 1 < points.size() && points[i - 1].y == point.y &&
                         points[i + 1].y == point.y && points[i + 1].x - point.x <= line.gap;
      if (point.x - last > line.gap) {
        cairo_move_to(cr, X(point.x), at(point.y));
      } else if (!level) {
        cairo_line_to(cr, X(point.x), at(point.y));
      }
      last = point.x;
    }
    cairo_stroke(cr);
  }

  void Mark(const PlotMark& mark, double y, double height, bool labelled) {
    pen_.Color(kInk, 0.55);
    pen_.Stroke(1, PlotDash::kDotted);
    pen_.Line(X(mark.x), y, X(mark.x), y + height);
    if (!labelled || mark.label.empty()) return;
    pen_.Font(10);
    const bool right = X(mark.x) + pen_.Width(mark.label) + 8 > kPlotWidth - kRight;
    pen_.Text(X(mark.x) + (right ? -4 : 4), y + height - 6, mark.label,
              right ? Align::kRight : Align::kLeft);
  }

  void Axis(double y) {
    const double span = plot_.x_max - plot_.x_min;
    const double step = TickStep(span, kXTicks);
    pen_.Stroke(1, PlotDash::kSolid);
    pen_.Font(11);
    for (double x = 0; x <= span * 1.0001; x += step) {
      const double at = X(plot_.x_min + x);
      pen_.Color(kFrame);
      pen_.Line(at, y, at, y + 4);
      pen_.Color(kInk);
      pen_.Text(at, y + 17, TickText(x), Align::kCenter);
    }
    pen_.Color(kFaint);
    pen_.Text((kLeft + kPlotWidth - kRight) / 2, y + 34, plot_.x_label, Align::kCenter);
  }

  Pen pen_;
  const Plot& plot_;
  std::vector<Legend> legends_;
};

using Surface = std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)>;
using Context = std::unique_ptr<cairo_t, decltype(&cairo_destroy)>;

double HeightOf(const Plot& plot) {
  const Surface scratch(cairo_image_surface_create(CAIRO_FORMAT_RGB24, 1, 1),
                        cairo_surface_destroy);
  const Context cr(cairo_create(scratch.get()), cairo_destroy);
  return Painter(cr.get(), plot).Height();
}

absl::Status Written(cairo_status_t status, const std::string& file) {
  if (status == CAIRO_STATUS_SUCCESS) return absl::OkStatus();
  return absl::UnavailableError(
      fmt::format("{} cannot be written: {}", file, cairo_status_to_string(status)));
}

cairo_status_t Append(void* text, const unsigned char* data, unsigned int length) {
  static_cast<std::string*>(text)->append(reinterpret_cast<const char*>(data), length);
  return CAIRO_STATUS_SUCCESS;
}

// cairo numbers all surfaces of a process, and tells positions to a millionth of a pixel: the same
// figure is to be the same file, and a small one.
std::string Tidied(const std::string& svg) {
  constexpr std::string_view kId = "<g id=\"surface";
  constexpr size_t kDigits = 2;
  std::string tidy;
  tidy.reserve(svg.size());
  size_t behind_point = 0;  // digits since the last point, which is counted too; 0: in no fraction
  for (size_t i = 0; i < svg.size(); ++i) {
    const char c = svg[i];
    if (std::string_view(svg).substr(i).starts_with(kId)) {
      i = svg.find('>', i);
      tidy += "<g id=\"figure\">";
      continue;
    }
    if (c == '.') {
      behind_point = 1;
    } else if (c < '0' || c > '9') {
      behind_point = 0;
    } else if (behind_point > 0 && behind_point++ > kDigits) {
      continue;
    }
    tidy += c;
  }
  return tidy;
}

absl::Status WriteSvg(const Plot& plot, double height, const std::string& file) {
  std::string svg;
  const Surface surface(cairo_svg_surface_create_for_stream(Append, &svg, kPlotWidth, height),
                        cairo_surface_destroy);
  {
    const Context cr(cairo_create(surface.get()), cairo_destroy);
    Painter(cr.get(), plot).Paint();
  }
  cairo_surface_finish(surface.get());
  if (cairo_surface_status(surface.get()) != CAIRO_STATUS_SUCCESS) {
    return Written(cairo_surface_status(surface.get()), file);
  }
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out << Tidied(svg);
  out.close();
  return Written(out ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_WRITE_ERROR, file);
}

absl::Status WritePng(const Plot& plot, double height, const std::string& file) {
  const Surface surface(cairo_image_surface_create(CAIRO_FORMAT_RGB24, int(kPlotWidth * kPngScale),
                                                   int(height * kPngScale)),
                        cairo_surface_destroy);
  const Context cr(cairo_create(surface.get()), cairo_destroy);
  cairo_scale(cr.get(), kPngScale, kPngScale);
  Painter(cr.get(), plot).Paint();
  return Written(cairo_surface_write_to_png(surface.get(), file.c_str()), file);
}

}  // namespace

double TickStep(double span, int ticks) {
  CHECK(span > 0);
  CHECK(ticks > 0);
  const double least = span / ticks;
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= least * 0.9999) return factor * power;
  }
  return 10 * power;
}

absl::Status WritePlot(const Plot& plot, const std::string& base) {
  CHECK(plot.x_max > plot.x_min);
  CHECK(!plot.panels.empty());
  const double height = HeightOf(plot);
  if (absl::Status status = WriteSvg(plot, height, base + ".svg"); !status.ok()) return status;
  return WritePng(plot, height, base + ".png");
}

}  // namespace holdfast::bench
