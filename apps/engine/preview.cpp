#include "apps/engine/preview.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string>

#include <ATen/ATen.h>

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

// The middle 99 % of the values of some slices.
std::array<double, 2> grey_window(const at::Tensor& values) {
  at::Tensor flat = values.flatten();
  if (flat.numel() > 1 << 18)
    flat = flat.slice(0, 0, flat.numel(), (flat.numel() + (1 << 18) - 1) >> 18);
  const at::Tensor sorted = std::get<0>(flat.contiguous().sort());
  const int64_t last = sorted.numel() - 1;
  const double low = sorted[last / 200].item<double>();
  const double high = sorted[last - last / 200].item<double>();
  return {low, high > low ? high : low + 1};
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

DisplayTurn display_turn(const Geometry& geometry, int slice_axis_zyx) {
  const std::string xyz = geometry.orientation_xyz();
  const auto grows_to = [&](int axis_zyx) { return xyz[2 - axis_zyx]; };
  const auto along = [](char code, const char* either) {
    return code == either[0] || code == either[1];
  };
  DisplayTurn turn;
  turn.row_axis_zyx = slice_axis_zyx == 0 ? 1 : 0;
  turn.column_axis_zyx = slice_axis_zyx == 2 ? 1 : 2;
  // Left-right runs horizontally; where the slice is sagittal, front-back does.
  const char slice = grows_to(slice_axis_zyx);
  const char* horizontal = along(slice, "LR") ? "AP" : "LR";
  if (along(grows_to(turn.row_axis_zyx), horizontal)) {
    turn.transpose = true;
    std::swap(turn.row_axis_zyx, turn.column_axis_zyx);
  }
  const char down = grows_to(turn.row_axis_zyx), right = grows_to(turn.column_axis_zyx);
  turn.flip_rows = down == 'A' || down == 'S';
  turn.flip_columns = right == 'R' || right == 'A';
  return turn;
}

Canvas display_slice(const at::Tensor& image,
                     const at::Tensor& labels,
                     const Geometry& geometry,
                     int slice_axis_zyx,
                     double low,
                     double high,
                     bool colored,
                     const std::vector<Color>& colors,
                     int64_t side_px) {
  const DisplayTurn turn = display_turn(geometry, slice_axis_zyx);
  const auto turned = [&](at::Tensor values) {
    if (turn.transpose) values = values.transpose(-2, -1);
    if (turn.flip_rows) values = values.flip(-2);
    if (turn.flip_columns) values = values.flip(-1);
    return values.contiguous();
  };
  const at::Tensor shown = turned(image);
  Canvas picture = colored && shown.size(0) == 3 ? Canvas::from_rgb(shown, low, high)
                                                 : Canvas::from_gray(shown[0], low, high);
  const double height_mm =
      static_cast<double>(shown.size(-2)) * geometry.spacing_mm_zyx[turn.row_axis_zyx];
  const double width_mm =
      static_cast<double>(shown.size(-1)) * geometry.spacing_mm_zyx[turn.column_axis_zyx];
  const double scale = static_cast<double>(side_px) / std::max(height_mm, width_mm);
  picture = picture.resized(std::max<int64_t>(1, std::llround(width_mm * scale)),
                            std::max<int64_t>(1, std::llround(height_mm * scale)));
  picture.draw_labels(turned(labels), colors);
  return picture;
}

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
  const bool colored = image.values.size(0) == 3 && image.full_scale > 0;
  const auto slices = telling_slices(labelled_per_slice(classes, slice_axis_zyx), kSlicesPerCase);
  std::vector<at::Tensor> shown;
  for (const int64_t slice : slices)
    shown.push_back(image.values.select(1 + slice_axis_zyx, slice));

  std::array<double, 2> window{0, image.full_scale};
  if (!preparation_.channels.empty() &&
      preparation_.channels[0].kind == ChannelNormalization::Kind::kCt)
    window = {preparation_.channels[0].lower, preparation_.channels[0].upper};
  else if (!colored)
    window = grey_window(at::stack(shown).select(1, 0));

  std::vector<Canvas> pictures;
  for (size_t i = 0; i < slices.size(); ++i) {
    const at::Tensor labels = classes.select(slice_axis_zyx, slices[i]);
    const auto draw = [&](const at::Tensor& over) {
      pictures.push_back(display_slice(shown[i],
                                       over,
                                       image.geometry,
                                       slice_axis_zyx,
                                       window[0],
                                       window[1],
                                       colored,
                                       colors_,
                                       kSidePixels));
    };
    // A single slice is shown without its labels, too.
    if (slices.size() == 1) draw(at::zeros_like(labels));
    draw(labels);
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
