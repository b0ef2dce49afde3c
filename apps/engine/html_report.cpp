#include "apps/engine/html_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "apps/engine/html_page.h"
#include "vision/io/plot.h"

namespace vireo {
namespace {

Color class_color(const ScoredClass& scored) {
  return label_color(scored.values.front());
}

std::string chip(const ScoredClass& scored) {
  return "<i class=chip style='background:" + hex(class_color(scored)) + "'></i>";
}

std::string interval_text(const MetricSummary& of, int digits) {
  if (std::isnan(of.interval.low)) return "–";
  return number(of.interval.low, digits) + " – " + number(of.interval.high, digits);
}

const Metric& metric_named(const std::vector<Metric>& metrics, const std::string& key) {
  return *std::find_if(
      metrics.begin(), metrics.end(), [&](const Metric& m) { return m.key == key; });
}

std::string tiles(const Summary& summary) {
  const auto tile_of = [](const std::string& value, const std::string& name) {
    return "<div class=figure><b>" + value + "</b><span>" + name + "</span></div>\n";
  };
  const auto& whole = summary.foreground;
  std::string html = "<div class=tiles>\n";
  html += tile_of(number(whole.at("Dice").mean, 3),
                  "mean Dice, 95 % interval " + interval_text(whole.at("Dice"), 3));
  if (summary.options.protocol == Protocol::kTransUnet)
    html +=
        tile_of(number(whole.at("HD95_voxels").mean, 2) + " <small>voxels</small>", "mean HD95");
  else
    html += tile_of(number(whole.at("HD95").mean, 2) + " <small>mm</small>", "mean HD95");
  html += tile_of(number(whole.at("ASSD").mean, 2) + " <small>mm</small>", "mean ASSD");
  html += tile_of(number(whole.at("NSD").mean, 3),
                  "mean NSD at " + tick_text(summary.options.nsd_tolerance_mm) + " mm");
  html += tile_of(std::to_string(summary.cases.size()),
                  summary.classes.size() == 1
                      ? "cases, 1 class"
                      : "cases, " + std::to_string(summary.classes.size()) + " classes");
  return html + "</div>\n";
}

std::string class_table(const Summary& summary, const std::vector<Metric>& metrics) {
  std::vector<std::string> keys{
      "Dice", "IoU", "Precision", "Recall", "HD95", "ASSD", "NSD", "VolumeError"};
  if (summary.options.protocol == Protocol::kTransUnet)
    keys.insert(keys.begin() + 5, "HD95_voxels");
  std::string html = "<div class=scroll><table><thead><tr><th>Class</th>";
  for (const std::string& key : keys)
    html += "<th>" + escaped(metric_named(metrics, key).title) + "</th>";
  html += "<th>Cases</th></tr></thead><tbody>\n";
  const auto row = [&](const std::string& name,
                       const std::map<std::string, MetricSummary>& of,
                       size_t cases,
                       const char* kind) {
    std::string text = std::string("<tr") + kind + "><td>" + name + "</td>";
    for (const std::string& key : keys) {
      const int digits = std::min(3, metric_named(metrics, key).digits);
      const MetricSummary& value = of.at(key);
      text += "<td>" + number(value.mean, digits) + "<small>" + interval_text(value, digits) +
              "</small></td>";
    }
    return text + "<td>" + std::to_string(cases) + "</td></tr>\n";
  };
  for (size_t k = 0; k < summary.classes.size(); ++k)
    html += row(chip(summary.classes[k]) + escaped(summary.classes[k].name),
                summary.of_class[k],
                static_cast<size_t>(summary.of_class[k].at("Dice").count),
                "");
  if (summary.classes.size() > 1)
    html += row("Mean of classes", summary.foreground, summary.cases.size(), " class=mean");
  return html +
         "</tbody></table></div>\n<p class=legend>Means over cases; below them the 95 % interval, "
         "a percentile bootstrap over cases. The mean of classes is the mean of the rows.</p>\n";
}

std::string svg_text(
    double x, double y, const std::string& text, const char* anchor, const char* fill) {
  return "<text x='" + number(x, 1) + "' y='" + number(y, 1) + "' text-anchor='" + anchor +
         "' fill='" + fill + "'>" + escaped(text) + "</text>\n";
}

std::string svg_line(
    double x0, double y0, double x1, double y1, const std::string& stroke, double width) {
  return "<line x1='" + number(x0, 1) + "' y1='" + number(y0, 1) + "' x2='" + number(x1, 1) +
         "' y2='" + number(y1, 1) + "' stroke='" + stroke + "' stroke-width='" + number(width, 1) +
         "'/>\n";
}

// For each class a box (quartiles, median, whiskers to the furthest value within 1.5 box lengths)
// and every case as a dot.
std::string strip_plot(const Summary& summary, const Metric& metric) {
  constexpr double kWidth = 520, kRow = 38, kTop = 42, kBottom = 34, kRight = 22;
  size_t longest = 4;
  for (const ScoredClass& scored : summary.classes) longest = std::max(longest, scored.name.size());
  const double left = 22 + 6.6 * static_cast<double>(std::min<size_t>(longest, 22));
  const double height = kTop + kBottom + kRow * static_cast<double>(summary.classes.size());

  std::vector<std::vector<double>> values(summary.classes.size());
  double low = INFINITY, high = -INFINITY;
  for (size_t k = 0; k < values.size(); ++k)
    for (const CaseScores& scores : summary.cases) {
      const double value = metric.value(scores.classes[k]);
      if (std::isnan(value)) continue;
      values[k].push_back(value);
      low = std::min(low, value);
      high = std::max(high, value);
    }
  if (low > high) low = 0, high = 1;
  const bool share = metric.key == "Dice" || metric.key == "NSD";
  if (share) high = 1;
  if (!share && low >= 0) low = 0;
  if (high - low < 1e-9) {
    low -= share ? 0.1 : (low > 0 || metric.key == "VolumeError" ? 0.5 : 0);
    high += share ? 0 : 0.5;
  }
  const std::vector<double> ticks = axis_ticks(low, high, 5);
  if (ticks.size() > 1) low = std::min(low, ticks[0] - (ticks[0] > low ? ticks[1] - ticks[0] : 0));
  const auto x = [&](double value) {
    return left + (value - low) / (high - low) * (kWidth - left - kRight);
  };

  std::string svg = "<svg viewBox='0 0 " + number(kWidth, 0) + " " + number(height, 0) +
                    "' font-size='12' font-family='inherit' role='img' aria-label='" +
                    escaped(metric.title) + " per class'>\n";
  svg += "<text x='16' y='24' font-weight='600' fill='#1f2430' font-size='13'>" +
         escaped(metric.title) + "</text>\n";
  for (const double tick : axis_ticks(low, high, 5)) {
    svg += svg_line(x(tick), kTop, x(tick), height - kBottom, "#e9edf2", 1);
    svg += svg_text(x(tick), height - kBottom + 18, tick_text(tick), "middle", "#5b6472");
  }
  for (size_t k = 0; k < values.size(); ++k) {
    const double middle = kTop + kRow * (static_cast<double>(k) + 0.5);
    const std::string color = hex(class_color(summary.classes[k]));
    std::string name = summary.classes[k].name;
    if (name.size() > 22) name.resize(21), name += "…";
    svg += svg_text(left - 10, middle + 4, name, "end", "#1f2430");
    if (values[k].empty()) continue;
    const double q1 = percentile(values[k], 25), q2 = percentile(values[k], 50),
                 q3 = percentile(values[k], 75);
    double reach_low = q1, reach_high = q3;
    for (const double value : values[k]) {
      if (value >= q1 - 1.5 * (q3 - q1)) reach_low = std::min(reach_low, value);
      if (value <= q3 + 1.5 * (q3 - q1)) reach_high = std::max(reach_high, value);
    }
    svg += svg_line(x(reach_low), middle, x(reach_high), middle, "#98a1ae", 1);
    svg += "<rect x='" + number(x(q1), 1) + "' y='" + number(middle - 9, 1) + "' width='" +
           number(std::max(1.0, x(q3) - x(q1)), 1) + "' height='18' rx='3' fill='" + color +
           "' fill-opacity='0.28' stroke='" + color + "'/>\n";
    for (size_t i = 0; i < values[k].size(); ++i) {
      const double shake = static_cast<double>(i * 7 % 11) - 5;
      svg += "<circle cx='" + number(x(values[k][i]), 1) + "' cy='" + number(middle + shake, 1) +
             "' r='2.4' fill='#1f2430' fill-opacity='0.55'/>\n";
    }
    svg += svg_line(x(q2), middle - 9, x(q2), middle + 9, "#1f2430", 2);
  }
  return svg + "</svg>\n";
}

std::string picture_section(const Summary& summary, const std::vector<ReportPicture>& pictures) {
  if (pictures.empty()) return "";
  std::string html =
      "<h2>Worst and best cases</h2>\n<p class=legend>Left the truth, right the prediction. ";
  for (const ScoredClass& scored : summary.classes)
    html += "<span>" + chip(scored) + escaped(scored.name) + "</span>";
  html += "</p>\n<div class=pictures>\n";
  for (const ReportPicture& picture : pictures)
    html +=
        "<figure><div><img alt='truth' src='" + picture.truth.png_data_url() +
        "'><img alt='prediction' src='" + picture.prediction.png_data_url() +
        "'></div><figcaption>" +
        (picture.is_worst ? "<span class='tag low'>worst</span>" : "<span class=tag>best</span>") +
        "<b>" + escaped(picture.case_name) + "</b> · mean Dice " + number(picture.mean_dice, 3) +
        " · " + escaped(picture.caption) + "</figcaption></figure>\n";
  return html + "</div>\n";
}

// From red (0) over pale (0.8) to green (1).
std::string heat(double dice) {
  if (std::isnan(dice)) return "";
  const double bad = std::clamp((0.85 - dice) / 0.5, 0.0, 1.0),
               good = std::clamp((dice - 0.85) / 0.15, 0.0, 1.0);
  const Color color{static_cast<uint8_t>(255 - 35 * good),
                    static_cast<uint8_t>(255 - 55 * bad - 8 * good),
                    static_cast<uint8_t>(255 - 65 * bad - 28 * good)};
  return " style='background:" + hex(color) + "'";
}

std::string case_table(const Summary& summary) {
  std::string html = "<div class=scroll><table><thead><tr><th>Case</th><th>Mean Dice</th>";
  for (const ScoredClass& scored : summary.classes) html += "<th>" + escaped(scored.name) + "</th>";
  html += "<th>Worst HD95 (mm)</th></tr></thead><tbody>\n";
  for (const CaseScores& scores : summary.cases) {
    html +=
        "<tr><td>" + escaped(scores.name) + "</td><td>" + number(scores.mean_dice(), 3) + "</td>";
    double worst = NAN;
    for (const ClassScores& of_class : scores.classes) {
      html += "<td" + heat(of_class.dice) + ">" + number(of_class.dice, 3) + "</td>";
      worst = std::isnan(worst) ? of_class.hd95_mm : std::fmax(worst, of_class.hd95_mm);
    }
    html += "<td>" + number(worst, 2) + "</td></tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

}  // namespace

std::string to_html(const Summary& summary,
                    const ReportText& text,
                    const std::vector<ReportPicture>& pictures) {
  const std::vector<Metric> metrics = reported_metrics(summary.options);
  const bool strict = summary.options.protocol == Protocol::kStrict;
  std::string html = page_begin(text.title);
  html += "<h1>" + escaped(text.title) + "</h1>\n<p class=sub>" + escaped(text.predictions) +
          " against " + escaped(text.truths) + " · protocol " + (strict ? "strict" : "transunet") +
          "</p>\n";
  html += tiles(summary);
  html += "<h2>Classes</h2>\n" + class_table(summary, metrics);
  html += "<h2>Spread over cases</h2>\n<div class=plots>\n";
  for (const char* key : {"Dice", "HD95", "NSD", "VolumeError"})
    html += strip_plot(summary, metric_named(metrics, key));
  html += "</div>\n" + picture_section(summary, pictures);
  html += "<h2>Cases</h2>\n<p class=legend>Dice of each class.</p>\n" + case_table(summary);
  html +=
      "<h2>Definitions</h2>\n<dl>\n<dt>Empty classes</dt><dd>" +
      std::string(
          strict ? "A class that is empty in the prediction and in the truth is not counted for "
                   "that case. Empty in one of them: Dice, IoU and NSD are 0, distances the "
                   "image's diagonal."
                 : "The literature's convention: truth empty and prediction not gives Dice 1, HD95 "
                   "0; otherwise, both empty included, Dice 0, HD95 0. Other metrics follow the "
                   "strict protocol.") +
      "</dd>\n";
  html +=
      "<dt>Units</dt><dd>Distances and volumes follow the files' spacing. Pictures (PNG, JPEG, "
      "TIFF, "
      "BMP) hold none: there 1 mm is one pixel.</dd>\n";
  for (const Metric& metric : metrics)
    if (metric.digits > 0)
      html += "<dt>" + escaped(metric.title) + "</dt><dd>" + escaped(metric.definition) + "</dd>\n";
  html +=
      "</dl>\n<footer>Made by Vireo. Box: quartiles and median; whiskers: furthest case within 1.5 "
      "box "
      "lengths; dots: cases. All numbers are in summary.json and results.csv beside this "
      "page.</footer>\n";
  return html + page_end();
}

}  // namespace vireo
