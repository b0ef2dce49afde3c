#include "vision/io/dicom/dicom_series.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

namespace vireo {
namespace {

using Problem = DicomSeries::Problem;

// How far a slice may lie from its even place, as a share of the step, and how far the stack may
// lean, in pixels, before it is no regular grid.
constexpr double kEvenStep = 0.02;
constexpr double kStraightPixels = 0.1;
// Slices nearer than this share of the usual step lie at one place.
constexpr double kSamePlace = 0.01;
constexpr double kLeastStepMm = 1e-4;

double dot(const Vector3& a, const Vector3& b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

Vector3 cross(const Vector3& a, const Vector3& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

// Slices no further apart lie at one place, where `step_mm` is the usual step.
double same_place_mm(double step_mm) {
  return std::max(kLeastStepMm, kSamePlace * step_mm);
}

// Of an even number the lower, since missing slices only make steps longer.
double lower_median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::vector<double> steps_of(const DicomSeries& series) {
  std::vector<double> steps;
  for (size_t i = 1; i < series.slices.size(); ++i)
    steps.push_back(series.slices[i].along_normal_mm - series.slices[i - 1].along_normal_mm);
  return steps;
}

// The step between slices that lie at different places.
double usual_step(const DicomSeries& series) {
  std::vector<double> apart;
  for (const double step : steps_of(series))
    if (step > kLeastStepMm) apart.push_back(step);
  return apart.empty() ? 0 : lower_median(std::move(apart));
}

bool find_duplicates(DicomSeries& series, double step) {
  std::vector<std::string> pairs;
  for (size_t i = 1; i < series.slices.size(); ++i)
    if (series.slices[i].along_normal_mm - series.slices[i - 1].along_normal_mm <=
        same_place_mm(step))
      pairs.push_back(slice_text(series, series.slices[i - 1]) + " and " +
                      series.files[series.slices[i].file].path.filename().string());
  if (pairs.empty()) return false;
  const bool all = pairs.size() + 1 == series.slices.size();
  series.problems.push_back(
      {all ? Problem::Kind::kOther : Problem::Kind::kDuplicates,
       (all ? "all slices lie at one place, so they are no volume: " : "slices at one place: ") +
           listed(pairs)});
  return true;
}

bool find_gaps(DicomSeries& series, double step) {
  const auto& slices = series.slices;
  const double first = slices.front().along_normal_mm;
  const double even =
      (slices.back().along_normal_mm - first) / static_cast<double>(slices.size() - 1);
  double worst = 0;
  for (size_t i = 0; i < slices.size(); ++i)
    worst = std::max(worst,
                     std::abs(slices[i].along_normal_mm - first - even * static_cast<double>(i)));
  if (worst <= std::max(0.005, kEvenStep * even)) return false;
  std::vector<std::string> jumps;
  bool whole = true;
  for (size_t i = 1; i < slices.size(); ++i) {
    const double gap = slices[i].along_normal_mm - slices[i - 1].along_normal_mm;
    if (std::abs(gap - step) <= std::max(0.005, kEvenStep * step)) continue;
    whole = whole && gap > step && std::abs(gap / step - std::round(gap / step)) < 2 * kEvenStep;
    char text[64];
    std::snprintf(text, sizeof text, "%.3f mm after ", gap);
    jumps.push_back(text + slice_text(series, slices[i - 1]));
  }
  const std::vector<double> steps = steps_of(series);
  const auto [least, most] = std::minmax_element(steps.begin(), steps.end());
  char usual[96];
  std::snprintf(
      usual, sizeof usual, "steps of %.3f to %.3f mm, mostly %.3f mm; ", *least, *most, step);
  series.problems.push_back({Problem::Kind::kGaps,
                             (whole ? "slices are missing: " : "slices are unevenly spaced: ") +
                                 std::string(usual) + listed(jumps)});
  return true;
}

// Leaning: how far slices are shifted in their planes against the first.
void find_tilt(DicomSeries& series) {
  const Geometry& grid = series.geometry;
  const double pixel = std::min(grid.spacing_mm_zyx[1], grid.spacing_mm_zyx[2]);
  const Vector3 first = *series.frame(series.slices.front()).position_lps_mm;
  Vector3 normal, x, y;
  for (int i = 0; i < 3; ++i) {
    normal[i] = grid.direction_lps_from_zyx[i][0];
    y[i] = grid.direction_lps_from_zyx[i][1];
    x[i] = grid.direction_lps_from_zyx[i][2];
  }
  const auto shift_of = [&](const DicomSlice& slice) {
    const Vector3& position = *series.frame(slice).position_lps_mm;
    const Vector3 way{position[0] - first[0], position[1] - first[1], position[2] - first[2]};
    return std::array<double, 2>{dot(way, x), dot(way, y)};
  };
  double largest = 0;
  for (const DicomSlice& slice : series.slices)
    largest = std::max(largest, std::hypot(shift_of(slice)[0], shift_of(slice)[1]));
  if (largest <= kStraightPixels * pixel) return;
  const double length =
      series.slices.back().along_normal_mm - series.slices.front().along_normal_mm;
  const auto last = shift_of(series.slices.back());
  double bend = 0;
  for (const DicomSlice& slice : series.slices) {
    const double share = (slice.along_normal_mm - series.slices.front().along_normal_mm) / length;
    bend = std::max(
        bend,
        std::hypot(shift_of(slice)[0] - share * last[0], shift_of(slice)[1] - share * last[1]));
  }
  char text[128];
  if (bend <= kStraightPixels * pixel) {
    constexpr double kDegrees = 180 / 3.14159265358979323846;
    std::snprintf(text,
                  sizeof text,
                  "the stack leans by %.2f degrees (gantry tilt): %.1f mm over %.1f mm",
                  std::atan2(std::hypot(last[0], last[1]), length) * kDegrees,
                  std::hypot(last[0], last[1]),
                  length);
  } else {
    std::snprintf(text,
                  sizeof text,
                  "slices are shifted in their planes by up to %.1f mm, unevenly",
                  largest);
  }
  series.problems.push_back({Problem::Kind::kTilt, text});
}

}  // namespace

std::string slice_text(const DicomSeries& series, const DicomSlice& slice) {
  const DicomFile& file = series.files[slice.file];
  char place[32];
  std::snprintf(place, sizeof place, " at %.3f mm", slice.along_normal_mm);
  std::string text = file.path.filename().string();
  if (file.frames.size() > 1) text += " frame " + std::to_string(slice.frame + 1);
  return text + place;
}

std::string listed(const std::vector<std::string>& items) {
  constexpr size_t kShown = 8;
  std::string text;
  for (size_t i = 0; i < std::min(items.size(), kShown); ++i) text += (i ? ", " : "") + items[i];
  if (items.size() > kShown) text += " and " + std::to_string(items.size() - kShown) + " more";
  return text;
}

void arrange_slices(DicomSeries& series) {
  series.problems.clear();
  const DicomFile& file = series.first_file();
  const DicomFrame& frame = series.frame(series.slices[0]);
  if (file.image_type.find("MOSAIC") != std::string::npos)
    series.problems.push_back(
        {Problem::Kind::kOther,
         "a mosaic: slices tiled in one picture. Convert it, for example with "
         "dcm2niix"});
  for (const DicomSlice& slice : series.slices)
    if (const DicomFile& longer = series.files[slice.file]; longer.surplus_bytes > 0) {
      series.problems.push_back(
          {Problem::Kind::kOther,
           longer.path.filename().string() + " holds " + std::to_string(longer.surplus_bytes) +
               " bytes of pixels more than Rows, Columns, frames and bits declare, so these may be "
               "wrong"});
      break;
    }
  Geometry& grid = series.geometry;
  grid.size_zyx = {static_cast<int64_t>(series.slices.size()), file.rows, file.columns};
  if (frame.spacing_mm_yx) {
    grid.spacing_mm_zyx[1] = (*frame.spacing_mm_yx)[0];
    grid.spacing_mm_zyx[2] = (*frame.spacing_mm_yx)[1];
  }
  if (!frame.position_lps_mm || !frame.axes_lps_xy) {
    if (series.slices.size() > 1)
      series.problems.push_back({Problem::Kind::kOther,
                                 std::to_string(series.slices.size()) +
                                     " frames without a place in space (" + frame.unplaced +
                                     "): a film or a set of pictures, no volume"});
    return;
  }
  if (!frame.spacing_mm_yx)
    series.problems.push_back(
        {Problem::Kind::kOther, "the size of its pixels is not known: " + frame.unplaced});
  const auto& [x, y] = *frame.axes_lps_xy;
  const Vector3 normal = cross(x, y);
  for (int i = 0; i < 3; ++i) grid.direction_lps_from_zyx[i] = {normal[i], y[i], x[i]};
  for (DicomSlice& slice : series.slices)
    slice.along_normal_mm = dot(*series.frame(slice).position_lps_mm, normal);
  const auto order = [&](const DicomSlice& a, const DicomSlice& b) {
    const DicomFile &f = series.files[a.file], &g = series.files[b.file];
    if (std::abs(a.along_normal_mm - b.along_normal_mm) > 1e-6)
      return a.along_normal_mm < b.along_normal_mm;
    return std::tie(f.instance_number, f.path, a.frame) <
           std::tie(g.instance_number, g.path, b.frame);
  };
  std::sort(series.slices.begin(), series.slices.end(), order);
  grid.origin_lps_mm = *series.frame(series.slices[0]).position_lps_mm;
  if (series.slices.size() == 1) {
    if (file.slice_thickness_mm > 0) grid.spacing_mm_zyx[0] = file.slice_thickness_mm;
    return;
  }
  const double step = usual_step(series);
  // Beside duplicates, gaps cannot be told: they are looked for once the duplicates are gone.
  const bool duplicates = find_duplicates(series, step);
  if (step <= 0) return;
  const double length =
      series.slices.back().along_normal_mm - series.slices.front().along_normal_mm;
  const bool even = !duplicates && !find_gaps(series, step);
  grid.spacing_mm_zyx[0] = even ? length / static_cast<double>(series.slices.size() - 1) : step;
  find_tilt(series);
}

std::vector<DicomSlice> slices_read(const DicomSeries& series) {
  const bool duplicates =
      std::any_of(series.problems.begin(), series.problems.end(), [](const Problem& problem) {
        return problem.kind == Problem::Kind::kDuplicates;
      });
  if (!duplicates) return series.slices;
  const double near = same_place_mm(series.geometry.spacing_mm_zyx[0]);
  std::vector<DicomSlice> slices;
  for (const DicomSlice& slice : series.slices)
    if (slices.empty() || slice.along_normal_mm - slices.back().along_normal_mm > near)
      slices.push_back(slice);
  return slices;
}

}  // namespace vireo
