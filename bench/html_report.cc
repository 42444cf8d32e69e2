#include "bench/html_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string_view>

#include "bench/report.h"

namespace holdfast::bench {
namespace {

// Pixels of one plot, and of what lies around its area.
constexpr double kWidth = 640;
constexpr double kHeight = 300;
constexpr double kLeft = 64;
constexpr double kRight = 16;
constexpr double kTop = 14;
constexpr double kBottom = 40;
constexpr double kMaxNines = 5;  // 99.999 %
constexpr int kNineSteps = 100;  // points of a curve
constexpr int kTicks = 5;

// Colours that colour-blind people can tell apart (Okabe and Ito); past their end, dashes.
constexpr const char* kColors[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                   "#E69F00", "#56B4E9", "#000000"};
constexpr const char* kDashes[] = {"", " stroke-dasharray='7 4'", " stroke-dasharray='2 3'"};

constexpr const char* kStyle =
    "body{font:15px/1.45 system-ui,sans-serif;color:#1b1b1b;background:#fff;max-width:1360px;"
    "margin:24px auto;padding:0 16px}"
    "h1{font-size:24px}h2{font-size:19px;margin-top:36px;border-bottom:1px solid #ccc}"
    "pre{background:#f6f6f4;padding:10px;overflow-x:auto;font-size:12.5px;line-height:1.35}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "td,th{padding:5px 10px;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}"
    ".met{color:#00694d;font-weight:600}.missed{color:#b03a00;font-weight:600}"
    ".plots{display:flex;flex-wrap:wrap;gap:16px}figure{margin:8px 0}"
    "figcaption{font-size:13px;color:#444}svg{width:640px;max-width:100%;height:auto}"
    "svg text{font-size:11px;fill:#444}.grid{stroke:#e4e4e4}.axis{stroke:#888}"
    ".legend span{margin-right:16px;white-space:nowrap}.legend svg{width:26px;height:8px}";

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        // Control characters are not allowed in a document; a message of a server may hold some.
        out += uint8_t(c) < 0x20 && c != '\n' && c != '\t' ? '?' : c;
    }
  }
  return out;
}

const char* ColorOf(size_t curve) { return kColors[curve % std::size(kColors)]; }
const char* DashOf(size_t curve) {
  return kDashes[(curve / std::size(kColors)) % std::size(kDashes)];
}

struct Axis {
  double from = 0;
  double to = 1;  // > from
  std::vector<std::pair<double, std::string>> ticks = {};
};

// 1, 2 or 5 times a power of ten.
double RoundStep(double span) {
  const double raw = span / kTicks;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw) return factor * power;
  }
  return 10 * power;
}

Axis LinearAxis(double to) {
  Axis axis{.from = 0, .to = to > 0 ? to : 1};
  const double step = RoundStep(axis.to);
  for (int i = 0; double(i) * step <= axis.to * 1.0001; ++i) {
    axis.ticks.emplace_back(double(i) * step, ShortNumber(double(i) * step));
  }
  return axis;
}

// Of log10 of milliseconds.
Axis LatencyAxis(double least_ms, double greatest_ms) {
  Axis axis{.from = std::floor(std::log10(least_ms)), .to = std::ceil(std::log10(greatest_ms))};
  if (axis.to <= axis.from) axis.to = axis.from + 1;
  for (double power = axis.from; power <= axis.to; ++power) {
    axis.ticks.emplace_back(power, fmt::format("{:g} ms", std::pow(10, power)));
  }
  return axis;
}

Axis NinesAxis() {
  return {.from = 0,
          .to = kMaxNines,
          .ticks = {{0, "0"},
                    {std::log10(2), "50 %"},
                    {1, "90 %"},
                    {2, "99 %"},
                    {3, "99.9 %"},
                    {4, "99.99 %"},
                    {5, "99.999 %"}}};
}

struct Stroke {
  size_t curve = 0;
  std::vector<std::pair<double, double>> points = {};
};

std::string PlotSvg(const Axis& x, const Axis& y, const std::vector<Stroke>& strokes,
                    const std::string& label) {
  const auto at_x = [&x](double value) {
    return kLeft + (value - x.from) / (x.to - x.from) * (kWidth - kLeft - kRight);
  };
  const auto at_y = [&y](double value) {
    return kHeight - kBottom - (value - y.from) / (y.to - y.from) * (kHeight - kTop - kBottom);
  };
  std::string svg = fmt::format("<svg viewBox='0 0 {} {}' role='img' aria-label='{}'>", kWidth,
                                kHeight, Escaped(label));
  for (const auto& [value, text] : x.ticks) {
    svg += fmt::format("<line class='grid' x1='{0:.1f}' x2='{0:.1f}' y1='{1}' y2='{2}'/>",
                       at_x(value), kTop, kHeight - kBottom);
    svg += fmt::format("<text x='{:.1f}' y='{}' text-anchor='middle'>{}</text>", at_x(value),
                       kHeight - kBottom + 16, Escaped(text));
  }
  for (const auto& [value, text] : y.ticks) {
    svg += fmt::format("<line class='grid' x1='{1}' x2='{2}' y1='{0:.1f}' y2='{0:.1f}'/>",
                       at_y(value), kLeft, kWidth - kRight);
    svg += fmt::format("<text x='{}' y='{:.1f}' text-anchor='end'>{}</text>", kLeft - 6,
                       at_y(value) + 4, Escaped(text));
  }
  svg += fmt::format("<path class='axis' fill='none' d='M{0} {1}V{2}H{3}'/>", kLeft, kTop,
                     kHeight - kBottom, kWidth - kRight);
  for (const Stroke& stroke : strokes) {
    if (stroke.points.empty()) continue;
    std::string points;
    for (const auto& [px, py] : stroke.points) {
      points += fmt::format("{:.1f},{:.1f} ", at_x(px), at_y(std::clamp(py, y.from, y.to)));
    }
    points.pop_back();
    svg += fmt::format("<polyline fill='none' stroke='{}' stroke-width='1.8'{} points='{}'/>",
                       ColorOf(stroke.curve), DashOf(stroke.curve), points);
  }
  return svg + "</svg>";
}

std::string Figure(const std::string& svg, const std::string& caption) {
  return fmt::format("<figure>{}<figcaption>{}</figcaption></figure>\n", svg, Escaped(caption));
}

std::string LatencyFigure(const HtmlSection& section) {
  std::vector<Stroke> strokes;
  double least = 1e18;
  double greatest = 0;
  for (size_t i = 0; i < section.curves.size(); ++i) {
    const LatencyHistogram& latency = section.curves[i].latency;
    if (latency.count() == 0) continue;
    Stroke stroke{.curve = i};
    // Beyond it a quantile is the maximum, said again.
    const double last = std::min(kMaxNines, std::log10(double(latency.count())));
    for (int step = 0; step <= kNineSteps; ++step) {
      const double nines = last * step / kNineSteps;
      const double ms = std::max(1e-6, double(latency.QuantileNs(1 - std::pow(10, -nines))) * 1e-6);
      least = std::min(least, ms);
      greatest = std::max(greatest, ms);
      stroke.points.emplace_back(nines, std::log10(ms));
    }
    strokes.push_back(std::move(stroke));
  }
  if (strokes.empty()) return "";
  return Figure(
      PlotSvg(NinesAxis(), LatencyAxis(least, greatest), strokes, "latency by percentile"),
      "Latency by percentile, both scales logarithmic; all runs of a line merged.");
}

std::string SeriesFigure(const HtmlSection& section,
                         const std::function<double(const TimeSeries::Point&)>& value, bool latency,
                         const std::string& caption) {
  std::vector<Stroke> strokes;
  double seconds = 0;
  double least = 1e18;
  double greatest = 0;
  for (size_t i = 0; i < section.curves.size(); ++i) {
    for (const auto& run : section.curves[i].series) {
      Stroke stroke{.curve = i};
      for (const TimeSeries::Point& point : run) {
        double y = value(point);
        if (latency && y <= 0) continue;  // a second without an answer has no latency
        least = std::min(least, y);
        greatest = std::max(greatest, y);
        if (latency) y = std::log10(y);
        const double middle = point.at_seconds + point.seconds / 2;
        seconds = std::max(seconds, point.at_seconds + point.seconds);
        stroke.points.emplace_back(middle, y);
      }
      strokes.push_back(std::move(stroke));
    }
  }
  if (strokes.empty() || greatest <= 0) return "";
  return Figure(PlotSvg(LinearAxis(seconds),
                        latency ? LatencyAxis(least, greatest) : LinearAxis(greatest * 1.05),
                        strokes, caption),
                caption);
}

std::string Legend(const HtmlSection& section) {
  std::string html = "<p class='legend'>";
  for (size_t i = 0; i < section.curves.size(); ++i) {
    html += fmt::format(
        "<span><svg viewBox='0 0 26 8'><path fill='none' stroke-width='3' stroke='{}'{} "
        "d='M0 4H26'/></svg> {}</span> ",
        ColorOf(i), DashOf(i), Escaped(section.curves[i].name));
  }
  return html + "</p>\n";
}

std::string SectionHtml(const HtmlSection& section) {
  std::string html = fmt::format("<h2>{}</h2>\n", Escaped(section.title));
  if (!section.curves.empty()) {
    html += Legend(section);
    html += "<div class='plots'>\n" + LatencyFigure(section);
    html += SeriesFigure(
        section, [](const TimeSeries::Point& point) { return double(point.ok) / point.seconds; },
        /*latency=*/false, "Successes a second, over the seconds of a run; a line for each run.");
    html += SeriesFigure(
        section, [](const TimeSeries::Point& point) { return point.p99_ms; }, /*latency=*/true,
        "p99 of each second of a run; a line for each run.");
    html += "</div>\n";
  }
  if (!section.text.empty()) html += fmt::format("<pre>{}</pre>\n", Escaped(section.text));
  return html;
}

std::string GoalsHtml(const std::vector<GoalRow>& rows) {
  std::string html =
      "<h2>Goals</h2>\n<table><tr><th></th><th>Holdfast</th><th>etcd</th><th>ratio (of runs)</th>"
      "<th>goal</th><th></th><th>load generator's CPU, us/op</th></tr>\n";
  for (const GoalRow& row : rows) {
    const GoalCells cells = CellsOf(row);
    const char* style = row.verdict == GoalVerdict::kMet      ? " class='met'"
                        : row.verdict == GoalVerdict::kMissed ? " class='missed'"
                                                              : "";
    html += "<tr>";
    for (const std::string* cell :
         {&cells.title, &cells.holdfast, &cells.etcd, &cells.ratio, &cells.goal}) {
      html += fmt::format("<td>{}</td>", Escaped(*cell));
    }
    html += fmt::format("<td{}>{}</td><td>{}</td></tr>\n", style, Escaped(cells.verdict),
                        Escaped(cells.bench_cpu));
  }
  return html + fmt::format("</table>\n<p>{}</p>\n", Escaped(GoalsSummary(rows)));
}

}  // namespace

HtmlCurve CurveOf(const std::string& name, const RunResult& result) {
  HtmlCurve curve{.name = name};
  AddRun(result, curve);
  return curve;
}

void AddRun(const RunResult& result, HtmlCurve& curve) {
  curve.latency.Merge(result.stats.AllLatencies());
  curve.series.push_back(result.stats.series().Points());
}

std::string HtmlOf(const HtmlReport& report) {
  const std::string title = Escaped(report.title);
  std::string html = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>{}</title>\n"
      "<style>{}</style></head>\n<body>\n<h1>{}</h1>\n<pre>{}</pre>\n",
      title, kStyle, title, Escaped(report.head));
  if (!report.notes.empty()) {
    html += "<ul>\n";
    for (const std::string& note : report.notes) {
      html += fmt::format("<li>{}</li>\n", Escaped(note));
    }
    html += "</ul>\n";
  }
  if (!report.goals.empty()) html += GoalsHtml(report.goals);
  for (const HtmlSection& section : report.sections) html += SectionHtml(section);
  return html + "</body></html>\n";
}

absl::Status WriteHtml(const HtmlReport& report, const std::string& file) {
  const std::string html = HtmlOf(report);
  std::FILE* out = std::fopen(file.c_str(), "w");
  bool ok = out != nullptr && std::fwrite(html.data(), 1, html.size(), out) == html.size();
  if (out != nullptr) ok = std::fclose(out) == 0 && ok;
  if (ok) return absl::OkStatus();
  return absl::UnavailableError(fmt::format("cannot write {}; name another file by --html", file));
}

}  // namespace holdfast::bench
