#include "apps/engine/preview.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include <ATen/ATen.h>

#include "apps/engine/slice_picture.h"

namespace vireo {
namespace {

constexpr int64_t kSidePixels = 220, kSlicesPerCase = 4, kGap = 6, kTitle = 22;
constexpr Color kBackground{18, 18, 20}, kText{225, 225, 225};

std::vector<int64_t> labelled_per_slice(const at::Tensor& classes, int axis) {
  std::vector<int64_t> counts;
  for (int64_t i = 0; i < classes.size(axis); ++i)
    counts.push_back(at::count_nonzero(classes.select(axis, i)).item<int64_t>());
  return counts;
}

// Whether an axis runs towards the patient's right, front or feet.
bool runs_backwards(const Geometry& grid, int axis) {
  double along = 0;
  for (const auto& row : grid.direction_lps_from_zyx) {
    const double part = row[static_cast<size_t>(axis)];
    if (std::abs(part) > std::abs(along)) along = part;
  }
  return along < 0;
}

// A slice whose longer side is kSidePixels.
Canvas slice_picture(const at::Tensor& image,
                     const at::Tensor& labels,
                     const Geometry& geometry,
                     const PictureSlice& slice,
                     const std::vector<Color>& colors) {
  const auto drawn = [&](int64_t width) {
    return draw_slice(image, labels, geometry, slice, width, 0.25, colors);
  };
  Canvas picture = drawn(kSidePixels);
  if (picture.height() > kSidePixels)
    picture = drawn(std::max<int64_t>(1, kSidePixels * kSidePixels / picture.height()));
  return picture;
}

Canvas legend(const Preparation& preparation, const std::vector<Color>& colors, int64_t width) {
  constexpr int64_t kLine = 20;
  Canvas picture(width, kLine * static_cast<int64_t>(preparation.labels.size()), kBackground);
  int64_t x = 4, y = 0;
  for (size_t k = 1; k < preparation.labels.size(); ++k) {
    const std::string& name = preparation.labels[k].name;
    const auto needed = static_cast<int64_t>(26 + Canvas::text_width(name) + 16);
    if (x > 4 && x + needed > width) {
      x = 4;
      y += kLine;
    }
    picture.draw_rectangle(
        static_cast<double>(x), static_cast<double>(y + 3), 14, 14, colors[k], true);
    picture.draw_text(static_cast<double>(x + 20), static_cast<double>(y + 15), name, 9, kText);
    x += needed;
  }
  return picture.cropped(0, 0, width, std::min(y + kLine, picture.height()));
}

}  // namespace

std::vector<int64_t> telling_slices(const std::vector<int64_t>& labelled, int64_t count) {
  const auto size = static_cast<int64_t>(labelled.size());
  int64_t first = 0, last = size - 1;
  const auto holds = [](int64_t pixels) { return pixels > 0; };
  const auto found = std::find_if(labelled.begin(), labelled.end(), holds);
  std::set<int64_t> slices;
  if (found != labelled.end()) {
    first = found - labelled.begin();
    last = labelled.rend() - std::find_if(labelled.rbegin(), labelled.rend(), holds) - 1;
  }
  for (int64_t i = 0; i < count; ++i)
    slices.insert(first + (2 * i + 1) * (last - first + 1) / (2 * count));
  if (found != labelled.end()) {
    // The fullest slice takes the place of the nearest one.
    const int64_t fullest = std::max_element(labelled.begin(), labelled.end()) - labelled.begin();
    const auto nearest = std::min_element(slices.begin(), slices.end(), [&](int64_t a, int64_t b) {
      return std::abs(a - fullest) < std::abs(b - fullest);
    });
    slices.erase(nearest);
    slices.insert(fullest);
  }
  return {slices.begin(), slices.end()};
}

Preview::Preview(const Preparation& preparation, int64_t max_cases)
    : preparation_(preparation), max_cases_(max_cases) {
  for (size_t k = 0; k < preparation.labels.size(); ++k) {
    const Color given = preparation.labels[k].color_rgb;
    colors_.push_back(given == Color{0, 0, 0} ? label_color(static_cast<int64_t>(k)) : given);
  }
}

void Preview::add(const std::string& name,
                  const Volume& image,
                  const at::Tensor& classes,
                  int slice_axis_zyx) {
  ++cases_;
  if (!has_room()) return;
  std::vector<int64_t> labelled = labelled_per_slice(classes, slice_axis_zyx);
  const bool backwards = runs_backwards(image.geometry, slice_axis_zyx);
  if (backwards) std::reverse(labelled.begin(), labelled.end());
  const auto slices = telling_slices(labelled, kSlicesPerCase);
  std::vector<Canvas> pictures;
  for (const int64_t index : slices) {
    const int64_t last = static_cast<int64_t>(labelled.size()) - 1;
    const PictureSlice slice{slice_axis_zyx, backwards ? last - index : index};
    // A single slice is shown without its labels, too.
    if (slices.size() == 1)
      pictures.push_back(slice_picture(image.values, {}, image.geometry, slice, colors_));
    pictures.push_back(slice_picture(image.values, classes, image.geometry, slice, colors_));
  }
  const Canvas row = tile(pictures, static_cast<int64_t>(pictures.size()), kGap, kBackground);
  Canvas titled(row.width(), row.height() + kTitle, kBackground);
  titled.draw_text(4, kTitle - 6, name, 9, kText);
  titled.paste(row, 0, kTitle);
  rows_.emplace(name, std::move(titled));
}

Canvas Preview::picture() const {
  std::vector<Canvas> rows;
  int64_t widest = 1;
  for (const auto& [name, row] : rows_) {
    rows.push_back(row);
    widest = std::max(widest, row.width());
  }
  if (rows.empty()) rows.emplace_back(kSidePixels, 1, kBackground);
  // Rows of one or two pictures stand beside each other.
  const int64_t columns = std::max<int64_t>(1, (kSlicesPerCase * (kSidePixels + kGap)) / widest);
  const Canvas body = tile(rows, columns, kGap, kBackground);
  const Canvas key = legend(preparation_, colors_, body.width());
  const bool more = cases_ > static_cast<int64_t>(rows_.size());
  Canvas whole(body.width(), body.height() + key.height() + (more ? kTitle : 0), kBackground);
  whole.paste(body, 0, 0);
  whole.paste(key, 0, body.height());
  if (more)
    whole.draw_text(4,
                    static_cast<double>(whole.height() - 6),
                    std::to_string(rows_.size()) + " of " + std::to_string(cases_) + " cases",
                    9,
                    kText);
  return whole;
}

}  // namespace vireo
