#include "apps/engine/scaling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "kernels/bench/aten_forms.h"
#include "kernels/bench/bench.h"
#include "kernels/bench/operator_in_use.h"
#include "kernels/process_memory.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"

namespace vireo {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kGiB = 1 << 30;

struct Point {
  int64_t side = 0;
  Timing timing;
  double seconds = 0;  ///< the fastest
  double area() const { return static_cast<double>(side) * static_cast<double>(side); }
};

/// One network in one form, from size to size.
struct Series {
  std::string name;
  bool attention = false;
  NetworkPasses passes;
  std::vector<Point> points;
  Json left_out = Json::array();
};

// While it lives, WKV is attention.
struct AttentionInUse {
  explicit AttentionInUse(at::DeviceType device)
      : bi_wkv("bi_wkv", attention_for_bi_wkv, device), wkv6("wkv6", attention_for_wkv6, device) {}
  OperatorInUse bi_wkv, wkv6;
};

/// Time grows at least with the area, at most with its square, and else as between the last points.
double foretold_seconds(const std::vector<Point>& points, double area) {
  const Point& last = points.back();
  double power = 1;
  if (points.size() > 1) {
    const Point& before = points[points.size() - 2];
    power = std::clamp(
        growth_exponent({before.area(), last.area()}, {before.seconds, last.seconds}), 1.0, 2.0);
  }
  return last.seconds * std::pow(area / last.area(), power);
}

std::string fixed(double value, int digits) {
  return number_cell(value, 0, digits).substr(1);
}

/// Why the next point must be left out, or nothing.
std::string obstacle(const Series& series, int64_t side, const ScalingQuestion& question) {
  if (!series.left_out.empty()) return "so was the size before";
  if (series.points.empty()) return "";
  const double area = static_cast<double>(side) * static_cast<double>(side);
  const double seconds = foretold_seconds(series.points, area);
  if (seconds > question.longest_pass)
    return "a pass would take about " + duration_text(seconds) + " (--max-seconds " +
           fixed(question.longest_pass, 0) + ")";
  const Point& last = series.points.back();
  if (!last.timing.peak_bytes) return "";
  const double bytes = static_cast<double>(*last.timing.peak_bytes) * area / last.area();
  if (bytes > static_cast<double>(question.most_memory))
    return "it would need about " + fixed(bytes / kGiB, 1) + " GiB (--max-memory " +
           fixed(static_cast<double>(question.most_memory) / kGiB, 1) + ")";
  return "";
}

/// Times all series that can be run at this size, in turns.
void measure_side(std::vector<Series>& all, int64_t side, const ScalingQuestion& question) {
  std::vector<Series*> chosen;
  std::vector<Contender> contenders;
  for (Series& series : all) {
    if (const std::string why = obstacle(series, side, question); !why.empty()) {
      series.left_out.push_back({{"side", side}, {"why", why}});
      continue;
    }
    chosen.push_back(&series);
    Contender contender{
        series.name,
        series.passes.pass({.batch = 1, .size_yx = {side, side}, .precision = question.precision})};
    if (series.attention)
      contender.during = [device = question.device.type()]() -> std::shared_ptr<void> {
        return std::make_shared<AttentionInUse>(device);
      };
    contenders.push_back(contender);
  }
  const std::vector<Timing> timings =
      time_in_turns(contenders,
                    {.seconds = question.seconds,
                     .cold_beyond = question.longest_pass,
                     .device = question.device,
                     .between = [] { throw_if_interrupted("nothing was written"); }});
  for (size_t i = 0; i < chosen.size(); ++i)
    chosen[i]->points.push_back({side, timings[i], spread_of(timings[i].seconds).min});
}

Json number_or_null(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

Json series_json(const Series& series) {
  Json points = Json::array();
  std::vector<double> areas, seconds, bytes;
  for (const Point& point : series.points) {
    const auto& peak = point.timing.peak_bytes;
    if (!points.empty()) {
      areas.push_back(point.area());
      seconds.push_back(point.seconds);
      bytes.push_back(peak ? static_cast<double>(*peak) : 0);
    }
    points.push_back({{"side", point.side},
                      {"pixels", point.side * point.side},
                      {"seconds", json_of(spread_of(point.timing.seconds))},
                      {"ns_per_pixel", point.seconds * 1e9 / point.area()},
                      {"peak_bytes", peak ? Json(*peak) : Json()}});
  }
  return {{"name", series.name},
          {"form", series.attention ? "attention" : "wkv"},
          {"time_exponent", number_or_null(growth_exponent(areas, seconds))},
          {"memory_exponent", number_or_null(growth_exponent(areas, bytes))},
          {"points", points},
          {"left_out", series.left_out}};
}

}  // namespace

double growth_exponent(const std::vector<double>& x, const std::vector<double>& y) {
  if (x.size() < 2) return std::numeric_limits<double>::quiet_NaN();
  const auto count = static_cast<double>(x.size());
  double mean_x = 0, mean_y = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    mean_x += std::log(x[i]) / count;
    mean_y += std::log(y[i]) / count;
  }
  double above = 0, below = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    above += (std::log(x[i]) - mean_x) * (std::log(y[i]) - mean_y);
    below += (std::log(x[i]) - mean_x) * (std::log(x[i]) - mean_x);
  }
  return above / below;
}

Json bench_scaling(const ScalingQuestion& asked) {
  const InterruptGuard guard;
  ScalingQuestion question = asked;
  if (question.most_memory == 0) question.most_memory = available_memory(question.device) / 10 * 9;
  std::vector<Series> all;
  for (const BenchNetwork& network : question.networks) {
    const NetworkPasses passes(network, question.device);
    for (const bool attention : {false, true})
      all.push_back({network.name, attention, passes, {}, Json::array()});
  }
  for (const int64_t side : question.sides) {
    log_info("scaling: " + std::to_string(side) + "x" + std::to_string(side));
    measure_side(all, side, question);
  }
  Json series = Json::array();
  for (const Series& one : all) series.push_back(series_json(one));
  return {{"machine", json_of(this_machine(question.device))},
          {"precision", question.precision},
          {"longest_pass", question.longest_pass},
          {"most_memory", question.most_memory},
          {"series", series}};
}

std::string scaling_text(const Json& report) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  const auto number = [](const Json& value) {
    return value.is_null() ? kNone : value.get<double>();
  };
  std::string text = measured_on(report) + "forward pass of one image, " +
                     report.at("precision").get<std::string>() +
                     "; attention: the same network with scaled_dot_product_attention of the same "
                     "width in place of WKV\n";
  for (const Json& series : report.at("series")) {
    text += "\n" + series.at("name").get<std::string>() +
            (series.at("form") == "attention" ? ", attention in place of WKV" : "") +
            ": time grows as area^" + fixed(number(series.at("time_exponent")), 2) +
            ", memory as area^" + fixed(number(series.at("memory_exponent")), 2) + "\n";
    for (const char* column : {"side", "runs", "ms", "+- %", "least ms", "ns/pixel", "peak MiB"})
      text += text_cell(column, 10);
    text += "\n";
    for (const Json& point : series.at("points")) {
      const Json& seconds = point.at("seconds");
      const double median = number(seconds.at("median"));
      text += number_cell(number(point.at("side")), 10, 0);
      text += number_cell(number(seconds.at("runs")), 10, 0) + number_cell(median * 1e3, 10, 2);
      text += number_cell(
          (number(seconds.at("high_quartile")) - number(seconds.at("low_quartile"))) * 50 / median,
          10,
          1);
      text += number_cell(number(seconds.at("min")) * 1e3, 10, 2);
      text += number_cell(number(point.at("ns_per_pixel")), 10, 1);
      text += number_cell(number(point.at("peak_bytes")) / (1 << 20), 10, 1) + "\n";
    }
    for (const Json& point : series.at("left_out"))
      text += number_cell(number(point.at("side")), 10, 0) +
              "  left out: " + point.at("why").get<std::string>() + "\n";
  }
  return text;
}

}  // namespace vireo
