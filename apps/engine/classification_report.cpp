#include "apps/engine/classification_report.h"

#include <algorithm>
#include <cmath>

#include "apps/engine/html_page.h"
#include "vision/io/plot.h"

namespace vireo {
namespace {

constexpr size_t kDrawnClasses = 10;   // curves that can still be told apart
constexpr size_t kMatrixClasses = 30;  // a larger matrix becomes a list of confusions
constexpr size_t kConfusions = 40;
constexpr int64_t kPlotWidth = 520, kPlotHeight = 400;

std::string interval_text(double low, double high, int digits) {
  return std::isnan(low) ? "–" : number(low, digits) + " – " + number(high, digits);
}

std::string tiles(const ClassificationResults& r) {
  const auto tile_of = [](const std::string& value, const std::string& name) {
    return "<div class=figure><b>" + value + "</b><span>" + escaped(name) + "</span></div>\n";
  };
  const bool multi = r.samples.multi_label();
  const auto scored = [&](const char* name, double OverallScores::*field) {
    return tile_of(
        number(r.scores.overall.*field, 3),
        std::string(name) + ", 95 % interval " +
            interval_text(r.intervals.low.overall.*field, r.intervals.high.overall.*field, 3));
  };
  std::string html = "<div class=tiles>\n";
  html += scored(multi ? "label accuracy" : "top-1 accuracy", &OverallScores::top1);
  html += scored("macro AUROC", &OverallScores::macro_auroc);
  html += scored("balanced accuracy", &OverallScores::balanced_accuracy);
  html += scored("expected calibration error", &OverallScores::ece);
  html += tile_of(std::to_string(r.samples.count()),
                  "pictures, " + std::to_string(r.class_names.size()) + " classes");
  html += tile_of(number(r.pictures_per_second, 1) + " <small>/ s</small>",
                  "pictures; peak memory " + std::to_string(r.peak_memory_bytes >> 20) + " MiB");
  return html + "</div>\n";
}

std::string overall_table(const ClassificationResults& r) {
  std::string html =
      "<div class=scroll><table><thead><tr><th>Score</th><th>Value</th><th>95 % interval</th>" +
      std::string(r.temperature ? "<th>At temperature " + number(*r.temperature, 3) + "</th>"
                                : "") +
      "</tr></thead><tbody>\n";
  for (const auto& field : overall_fields(r.samples.multi_label())) {
    const auto member = field.value;
    html += "<tr><td>" + escaped(field.title) + "</td><td>" + number(r.scores.overall.*member, 4) +
            "</td><td>" +
            interval_text(r.intervals.low.overall.*member, r.intervals.high.overall.*member, 4) +
            "</td>";
    if (r.temperature) {
      const bool changes = member == &OverallScores::ece || member == &OverallScores::mce ||
                           member == &OverallScores::brier || member == &OverallScores::log_loss;
      html += "<td>" + (changes ? number(r.at_temperature.*member, 4) : "") + "</td>";
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n<p class=legend>Intervals: percentile bootstrap of " +
         std::to_string(r.bootstrap_resamples) + " resamples, by " +
         (r.samples.groups.empty() ? "picture" : "patient") +
         (r.temperature ? "; the temperature was fitted on the validation part" : "") + ".</p>\n";
}

std::string class_table(const ClassificationResults& r) {
  std::string html = "<div class=scroll><table><thead><tr><th>Class</th>";
  for (const auto& field : class_fields()) {
    std::string title = field.title;
    if (field.value == &OneClassScores::sensitivity_at_specificity)
      title = "Sensitivity at " + number(100 * r.options.specificity, 0) + " % specificity";
    html += "<th>" + escaped(title) + "</th>";
  }
  html += "<th>Pictures</th></tr></thead><tbody>\n";
  for (size_t k = 0; k < r.class_names.size(); ++k) {
    html +=
        "<tr><td><i class=chip style='background:" + hex(label_color(static_cast<int64_t>(k) + 1)) +
        "'></i>" + escaped(r.class_names[k]) + "</td>";
    for (const auto& field : class_fields())
      html += "<td>" + number(r.scores.classes[k].*field.value, 3) + "<small>" +
              interval_text(r.intervals.low.classes[k].*field.value,
                            r.intervals.high.classes[k].*field.value,
                            3) +
              "</small></td>";
    html += "<td>" + number(r.scores.classes[k].support, 0) + "</td></tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string matrix_table(const ClassificationResults& r, const std::vector<int64_t>& matrix) {
  const size_t classes = r.class_names.size();
  std::string html =
      "<p class=legend>Truth by row, prediction by column; shaded by the share of the row.</p>\n"
      "<div class=scroll><table><thead><tr><th></th>";
  for (const std::string& name : r.class_names) html += "<th>" + escaped(name) + "</th>";
  html += "</tr></thead><tbody>\n";
  for (size_t t = 0; t < classes; ++t) {
    html += "<tr><td>" + escaped(r.class_names[t]) + "</td>";
    int64_t row = 0;
    for (size_t p = 0; p < classes; ++p) row += matrix[t * classes + p];
    for (size_t p = 0; p < classes; ++p) {
      const int64_t count = matrix[t * classes + p];
      const double share = row > 0 ? static_cast<double>(count) / static_cast<double>(row) : 0;
      const Color right{static_cast<uint8_t>(255 - 105 * share),
                        static_cast<uint8_t>(255 - 50 * share),
                        static_cast<uint8_t>(255 - 85 * share)};
      const Color wrong{static_cast<uint8_t>(255 - 20 * share),
                        static_cast<uint8_t>(255 - 120 * share),
                        static_cast<uint8_t>(255 - 140 * share)};
      html += "<td style='background:" + hex(t == p ? right : wrong) + "'>" +
              std::to_string(count) + "<small>" + number(100 * share, 1) + " %</small></td>";
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string confusion_list(const ClassificationResults& r, const std::vector<int64_t>& matrix) {
  const size_t classes = r.class_names.size();
  std::vector<size_t> cells;
  for (size_t i = 0; i < matrix.size(); ++i)
    if (matrix[i] > 0 && i / classes != i % classes) cells.push_back(i);
  const size_t shown = std::min(kConfusions, cells.size());
  std::partial_sort(
      cells.begin(),
      cells.begin() + static_cast<std::ptrdiff_t>(shown),
      cells.end(),
      [&](size_t a, size_t b) { return matrix[a] != matrix[b] ? matrix[a] > matrix[b] : a < b; });
  std::string html =
      "<p class=legend>The most frequent confusions; the whole matrix is in results.json.</p>\n"
      "<div class=scroll><table><thead><tr><th>Truth</th><th>Prediction</th><th>Pictures</th>"
      "</tr></thead><tbody>\n";
  for (size_t i = 0; i < shown; ++i)
    html += "<tr><td>" + escaped(r.class_names[cells[i] / classes]) + "</td><td>" +
            escaped(r.class_names[cells[i] % classes]) + "</td><td>" +
            std::to_string(matrix[cells[i]]) + "</td></tr>\n";
  return html + "</tbody></table></div>\n";
}

PlotSeries series_of(const std::string& name, const std::vector<CurvePoint>& points, Color color) {
  PlotSeries series;
  series.name = name;
  series.color = color;
  for (const CurvePoint& point : points) {
    series.x.push_back(point.x);
    series.y.push_back(point.y);
  }
  return series;
}

PlotSeries diagonal() {
  PlotSeries line;
  line.x = line.y = {0, 1};
  line.color = {190, 195, 202};
  line.width_px = 1;
  return line;
}

Plot unit_plot(const std::string& title, const std::string& x, const std::string& y) {
  Plot plot;
  plot.title = title;
  plot.x.label = x;
  plot.y.label = y;
  plot.x.low = plot.y.low = 0;
  plot.x.high = plot.y.high = 1;
  return plot;
}

std::string image_of(const Plot& plot) {
  return "<img style='width:100%' alt='" + escaped(plot.title) + "' src='" +
         draw_plot(plot, kPlotWidth, kPlotHeight).png_data_url() + "'>\n";
}

std::string plots(const ClassificationResults& r, const ClassificationScorer& scorer) {
  Plot roc = unit_plot("ROC", "1 - specificity", "sensitivity");
  Plot recall = unit_plot("Precision and recall", "recall", "precision");
  roc.series.push_back(diagonal());
  const size_t classes = r.class_names.size();
  const bool named = classes <= 4;
  // Of two classes one curve says it all.
  const size_t first = classes == 2 && !r.samples.multi_label() ? 1 : 0;
  for (size_t k = first; k < std::min(classes, kDrawnClasses); ++k) {
    const auto label = static_cast<int64_t>(k);
    const std::string name = named ? r.class_names[k] : "";
    roc.series.push_back(series_of(name, scorer.roc(label), label_color(label + 1)));
    recall.series.push_back(
        series_of(name, scorer.precision_recall(label), label_color(label + 1)));
  }
  Plot reliability = unit_plot("Reliability", "confidence", "accuracy");
  reliability.series.push_back(diagonal());
  PlotSeries bins;
  bins.color = label_color(1);
  bins.dots = true;
  for (const ReliabilityBin& bin : scorer.reliability()) {
    if (bin.count == 0) continue;
    bins.x.push_back(bin.confidence);
    bins.y.push_back(bin.accuracy);
  }
  reliability.series.push_back(bins);
  Plot histogram;
  histogram.title = "Confidence";
  histogram.x.label = "confidence";
  histogram.y.label = "share of pictures";
  histogram.x.low = histogram.y.low = 0;
  histogram.x.high = 1;
  PlotSeries shares;
  shares.color = label_color(1);
  const auto all_bins = scorer.reliability();
  double total = 0;
  for (const ReliabilityBin& bin : all_bins) total += bin.count;
  for (size_t b = 0; b < all_bins.size(); ++b)
    for (const size_t end : {b, b + 1}) {
      shares.x.push_back(static_cast<double>(end) / static_cast<double>(all_bins.size()));
      shares.y.push_back(all_bins[b].count / total);
    }
  histogram.series.push_back(shares);
  std::string html = "<div class=plots>\n" + image_of(roc) + image_of(recall) +
                     image_of(reliability) + image_of(histogram) + "</div>\n";
  if (classes > kDrawnClasses)
    html += "<p class=legend>Curves of the first " + std::to_string(kDrawnClasses) + " of " +
            std::to_string(classes) + " classes.</p>\n";
  return html;
}

std::string pictures(const std::vector<WrongPicture>& wrong) {
  if (wrong.empty()) return "";
  std::string html =
      "<h2>The most wrong pictures</h2>\n<div class=pictures style='grid-template-columns: "
      "repeat(auto-fill, minmax(200px, 1fr))'>\n";
  for (const WrongPicture& one : wrong)
    html += "<figure><img alt='' src='" + one.picture.png_data_url() + "'><figcaption><b>" +
            escaped(one.predicted) + "</b> is really " + escaped(one.truth) + ", held " +
            number(100 * one.probability, 1) + " % likely<br>" + escaped(one.name) +
            "</figcaption></figure>\n";
  return html + "</div>\n";
}

}  // namespace

std::vector<int64_t> most_wrong(const ClassificationScorer& scorer, size_t count) {
  const ClassifiedSamples& samples = scorer.samples();
  if (samples.multi_label()) return {};
  std::vector<int64_t> wrong;
  for (int64_t i = 0; i < samples.count(); ++i)
    if (!samples.holds(i, scorer.predicted(i))) wrong.push_back(i);
  const auto of_truth = [&](int64_t i) {
    return samples.probabilities[static_cast<size_t>(i * samples.class_count) +
                                 static_cast<size_t>(samples.truth[static_cast<size_t>(i)])];
  };
  std::stable_sort(
      wrong.begin(), wrong.end(), [&](int64_t a, int64_t b) { return of_truth(a) < of_truth(b); });
  if (wrong.size() > count) wrong.resize(count);
  return wrong;
}

std::string to_html(const ClassificationResults& r, const std::vector<WrongPicture>& wrong) {
  const ClassificationScorer scorer(r.samples, r.options);
  std::string html = page_begin("Classification scores");
  html += "<h1>Classification scores</h1>\n<p class=sub>" + escaped(r.model) + " on " +
          escaped(r.data) + ", part " + escaped(r.part) + "</p>\n" + tiles(r);
  html += "<h2>Scores</h2>\n" + overall_table(r);
  html += "<h2>Classes</h2>\n" + class_table(r);
  if (!r.samples.multi_label()) {
    const std::vector<int64_t> matrix = scorer.confusion();
    html += "<h2>Confusion</h2>\n" + (r.class_names.size() <= kMatrixClasses
                                          ? matrix_table(r, matrix)
                                          : confusion_list(r, matrix));
  }
  html += "<h2>Curves</h2>\n" + plots(r, scorer) + pictures(wrong) + "<h2>Definitions</h2>\n<dl>\n";
  for (const auto& field : overall_fields(r.samples.multi_label()))
    html += "<dt>" + escaped(field.title) + "</dt><dd>" + escaped(field.definition) + "</dd>\n";
  for (const auto& field : class_fields())
    html += "<dt>" + escaped(field.title) + "</dt><dd>" + escaped(field.definition) + "</dd>\n";
  html +=
      "</dl>\n<footer>Made by Vireo. All numbers are in results.json, results.csv and "
      "predictions.csv beside this page.</footer>\n";
  return html + page_end();
}

}  // namespace vireo
