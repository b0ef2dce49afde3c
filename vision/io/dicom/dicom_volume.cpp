#include "vision/io/dicom/dicom_volume.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

#include <ATen/Functions.h>

#include "vision/core/error.h"
#include "vision/core/parallel_tasks.h"

namespace vireo {
namespace {

using Problem = DicomSeries::Problem;

// By how much mending may make a volume larger than its slices are.
constexpr double kMostGrowth = 16;

bool mends(const DicomAllowances& allowed, Problem::Kind kind) {
  return (kind == Problem::Kind::kDuplicates && allowed.duplicates) ||
         (kind == Problem::Kind::kGaps && allowed.gaps) ||
         (kind == Problem::Kind::kTilt && allowed.tilt);
}

const char* option_for(Problem::Kind kind) {
  switch (kind) {
    case Problem::Kind::kDuplicates:
      return " (--allow duplicates keeps the first of them)";
    case Problem::Kind::kGaps:
      return " (--allow resample-gaps fills in between, linearly)";
    case Problem::Kind::kTilt:
      return " (--allow tilt shifts the slices to a straight stack)";
    case Problem::Kind::kOther:
      break;
  }
  return "";
}

void refuse_what_remains(const DicomSeries& series, const DicomAllowances& allowed) {
  std::string text;
  for (const Problem& problem : series.problems)
    if (!mends(allowed, problem.kind)) text += "\n  " + problem.text + option_for(problem.kind);
  if (!text.empty())
    throw DataError(series.first_file().path.parent_path(),
                    "series " + series.name + " is no regular volume:" + text);
}

// Values [slices, C, Y, X], every file decoded once; `compact`: int16 where that holds them all.
at::Tensor read_slices(const DicomSeries& series, bool compact) {
  const std::vector<DicomSlice>& slices = series.slices;
  const DicomFile& first = series.first_file();
  at::Tensor values =
      at::empty({static_cast<int64_t>(slices.size()), first.channels(), first.rows, first.columns},
                compact ? at::kShort : at::kFloat);
  std::vector<std::vector<size_t>> wanted(series.files.size());
  for (size_t i = 0; i < slices.size(); ++i) wanted[slices[i].file].push_back(i);
  std::atomic<bool> fits{true};
  run_parallel(static_cast<int64_t>(wanted.size()), 0, [&](int64_t file) {
    if (wanted[static_cast<size_t>(file)].empty() || !fits) return;
    const DicomPixels pixels(series.files[static_cast<size_t>(file)]);
    for (const size_t i : wanted[static_cast<size_t>(file)]) {
      const at::Tensor frame = pixels.frame(static_cast<int64_t>(slices[i].frame));
      at::Tensor slice = values.select(0, static_cast<int64_t>(i));
      slice.copy_(compact ? frame.clamp(-32768, 32767) : frame);
      if (compact && !at::equal(slice.to(at::kFloat), frame)) fits = false;
    }
  });
  if (fits) return values;
  values.reset();
  return read_slices(series, false);
}

// Whether the header promises whole numbers that int16 holds.
bool promises_int16(const DicomSeries& series) {
  return std::all_of(series.slices.begin(), series.slices.end(), [&](const DicomSlice& slice) {
    const DicomFile& file = series.files[slice.file];
    const DicomFrame& frame = file.frames[slice.frame];
    if (file.bits_allocated > 16 || file.has_modality_lut || file.channels() > 1) return false;
    const double count = std::ldexp(1.0, file.bits_stored);
    const double low = file.is_signed ? -count / 2 : 0, high = low + count - 1;
    const auto fits = [&](double stored) {
      const double value = stored * frame.slope + frame.intercept;
      return value >= -32768 && value <= 32767;
    };
    return frame.slope == std::trunc(frame.slope) &&
           frame.intercept == std::trunc(frame.intercept) && fits(low) && fits(high);
  });
}

// What decoding takes, of as many files as there are threads: a file's pixels as stored, twice, and
// one frame of them as numbers.
int64_t decoding_bytes(const DicomSeries& series) {
  int64_t largest = 0;
  for (const DicomFile& file : series.files) {
    const int64_t per_pixel = std::max(file.samples, file.channels());
    const int64_t values = file.rows * file.columns * per_pixel;
    const int64_t stored =
        values * static_cast<int64_t>(file.frames.size()) * file.bits_allocated / 8;
    // Colours are converted by way of some copies; lookup tables by way of 8 bytes a pixel.
    const int64_t as_numbers = per_pixel > 1 ? 24 : 16;
    largest = std::max(largest, 2 * stored + values * as_numbers);
  }
  const auto threads = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  return largest * std::min(threads, static_cast<int64_t>(series.files.size()));
}

DicomSeries without_duplicates(const DicomSeries& series) {
  DicomSeries single = series;
  single.slices = slices_read(series);
  if (single.slices.size() == series.slices.size())
    throw DataError(series.first_file().path.parent_path(),
                    "series " + series.name + " has slices at one place that cannot be told apart");
  arrange_slices(single);
  return single;
}

Vector3 axis_of(const Geometry& grid, int axis) {
  return {grid.direction_lps_from_zyx[0][axis],
          grid.direction_lps_from_zyx[1][axis],
          grid.direction_lps_from_zyx[2][axis]};
}

// Moves a slice [C, Y, X] by (dy, dx) pixels on a larger one, linearly; `outside` beyond its edges.
at::Tensor shifted(
    const at::Tensor& slice, double dy, double dx, int64_t height, int64_t width, float outside) {
  const auto whole_y = static_cast<int64_t>(std::floor(dy)),
             whole_x = static_cast<int64_t>(std::floor(dx));
  const double share_y = dy - static_cast<double>(whole_y),
               share_x = dx - static_cast<double>(whole_x);
  at::Tensor result = at::zeros({slice.size(0), height, width}, at::kFloat);
  const auto add = [&](int64_t y, int64_t x, double weight) {
    if (weight == 0) return;
    const int64_t y0 = std::max<int64_t>(0, y), y1 = std::min(height, y + slice.size(1));
    const int64_t x0 = std::max<int64_t>(0, x), x1 = std::min(width, x + slice.size(2));
    if (y0 >= y1 || x0 >= x1) return;
    result.narrow(1, y0, y1 - y0)
        .narrow(2, x0, x1 - x0)
        .add_((slice.narrow(1, y0 - y, y1 - y0).narrow(2, x0 - x, x1 - x0) - outside) * weight);
  };
  add(whole_y, whole_x, (1 - share_y) * (1 - share_x));
  add(whole_y, whole_x + 1, (1 - share_y) * share_x);
  add(whole_y + 1, whole_x, share_y * (1 - share_x));
  add(whole_y + 1, whole_x + 1, share_y * share_x);
  return result.add_(outside);
}

// An even, straight grid for slices that lie otherwise.
struct Straight {
  std::vector<double> dy, dx;  // of every slice, in pixels
  double low_y = 0, low_x = 0;
  Geometry grid;
};

Straight straight_grid(const DicomSeries& series) {
  const std::vector<DicomSlice>& slices = series.slices;
  Straight plan;
  plan.grid = series.geometry;
  Geometry& grid = plan.grid;
  const Vector3 x = axis_of(grid, 2), y = axis_of(grid, 1);
  const auto position_of = [&](const DicomSlice& slice) {
    return *series.frame(slice).position_lps_mm;
  };
  const Vector3 first = position_of(slices[0]);
  for (const DicomSlice& slice : slices) {
    const Vector3 position = position_of(slice);
    double along_x = 0, along_y = 0;
    for (int i = 0; i < 3; ++i) {
      along_x += (position[i] - first[i]) * x[i];
      along_y += (position[i] - first[i]) * y[i];
    }
    plan.dx.push_back(along_x / grid.spacing_mm_zyx[2]);
    plan.dy.push_back(along_y / grid.spacing_mm_zyx[1]);
  }
  // Shifts of rounding's size are none.
  const auto straighten = [](std::vector<double>& shifts) {
    const auto [low, high] = std::minmax_element(shifts.begin(), shifts.end());
    if (*high - *low <= 0.1) std::fill(shifts.begin(), shifts.end(), 0.0);
  };
  straighten(plan.dx);
  straighten(plan.dy);
  plan.low_y = *std::min_element(plan.dy.begin(), plan.dy.end());
  plan.low_x = *std::min_element(plan.dx.begin(), plan.dx.end());
  const auto extra = [](const std::vector<double>& shifts, double low) {
    return std::ceil(*std::max_element(shifts.begin(), shifts.end()) - low);
  };
  const double length = slices.back().along_normal_mm - slices.front().along_normal_mm;
  const double mended[] = {std::floor(length / grid.spacing_mm_zyx[0] + 1e-3) + 1,
                           static_cast<double>(grid.size_zyx[1]) + extra(plan.dy, plan.low_y),
                           static_cast<double>(grid.size_zyx[2]) + extra(plan.dx, plan.low_x)};
  if (!(mended[0] * mended[1] * mended[2] <= kMostGrowth * static_cast<double>(grid.voxel_count())))
    throw DataError(series.first_file().path.parent_path(),
                    "series " + series.name +
                        " lies so scattered that a volume would have more than " +
                        std::to_string(static_cast<int>(kMostGrowth)) +
                        " times its pixels; give the slices that belong together");
  for (int i = 0; i < 3; ++i) {
    grid.size_zyx[i] = static_cast<int64_t>(mended[i]);
    grid.origin_lps_mm[i] = first[i] + plan.low_y * grid.spacing_mm_zyx[1] * y[i] +
                            plan.low_x * grid.spacing_mm_zyx[2] * x[i];
  }
  return plan;
}

// On that grid: slices are first shifted in their planes, then blended between.
Volume straightened(const DicomSeries& series) {
  const std::vector<DicomSlice>& slices = series.slices;
  const Straight plan = straight_grid(series);
  const auto [depth, height, width] = plan.grid.size_zyx;
  const double step = plan.grid.spacing_mm_zyx[0], start = slices.front().along_normal_mm;
  const at::Tensor stored = read_slices(series, false);
  const auto outside = stored.min().item<float>();
  Volume volume;
  volume.geometry = plan.grid;
  volume.values = at::empty({stored.size(1), depth, height, width}, at::kFloat);
  size_t below = 0;
  for (int64_t z = 0; z < depth; ++z) {
    const double place = start + step * static_cast<double>(z);
    while (below + 2 < slices.size() && slices[below + 1].along_normal_mm <= place) ++below;
    const double gap = slices[below + 1].along_normal_mm - slices[below].along_normal_mm;
    const double share = std::clamp((place - slices[below].along_normal_mm) / gap, 0.0, 1.0);
    const auto moved = [&, rows = height, columns = width](size_t i) {
      return shifted(stored.select(0, static_cast<int64_t>(i)),
                     plan.dy[i] - plan.low_y,
                     plan.dx[i] - plan.low_x,
                     rows,
                     columns,
                     outside);
    };
    at::Tensor slice = share < 1 ? moved(below) : moved(below + 1);
    if (share > 0 && share < 1) slice = slice * (1 - share) + moved(below + 1) * share;
    volume.values.select(1, z).copy_(slice);
  }
  return volume;
}

// The series as it is read, once it is one that can be.
DicomSeries mended(const DicomSeries& series, const DicomAllowances& allowed) {
  refuse_what_remains(series, allowed);
  const auto has_duplicates = [](const Problem& problem) {
    return problem.kind == Problem::Kind::kDuplicates;
  };
  if (std::none_of(series.problems.begin(), series.problems.end(), has_duplicates)) return series;
  return mended(without_duplicates(series), allowed);
}

}  // namespace

DicomAllowances DicomAllowances::from_names(const std::vector<std::string>& names) {
  DicomAllowances allowed;
  for (const std::string& name : names)
    if (name == "duplicates")
      allowed.duplicates = true;
    else if (name == "resample-gaps")
      allowed.gaps = true;
    else if (name == "tilt")
      allowed.tilt = true;
    else
      throw UsageError("--allow " + name + ": expected duplicates, resample-gaps or tilt");
  return allowed;
}

Volume read_dicom_series(const DicomSeries& given, const DicomAllowances& allowed, bool compact) {
  const DicomSeries series = mended(given, allowed);
  if (!series.problems.empty()) return straightened(series);
  Volume volume;
  volume.values = read_slices(series, compact).permute({1, 0, 2, 3}).contiguous();
  volume.geometry = series.geometry;
  const DicomFile& file = series.first_file();
  const DicomFrame& frame = file.frames[series.slices[0].frame];
  if (!frame.position_lps_mm && frame.slope == 1 && frame.intercept == 0)
    volume.full_scale = std::ldexp(1.0, file.bits_stored) - 1;
  return volume;
}

ImageHeader read_series_header(const DicomSeries& given, const DicomAllowances& allowed) {
  const DicomSeries series = mended(given, allowed);
  const int64_t channels = series.first_file().channels(), decoding = decoding_bytes(series);
  const int64_t stored = series.geometry.voxel_count() * channels;
  if (!series.problems.empty()) {
    const Geometry grid = straight_grid(series).grid;
    return {grid, channels, {4 * grid.voxel_count() * channels, 4 * stored + decoding}};
  }
  const int64_t held = stored * (promises_int16(series) ? 2 : 4);
  // Colours lie pixel by pixel at first.
  return {series.geometry, channels, {held, decoding + (channels > 1 ? held : 0)}};
}

}  // namespace vireo
