#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vireo {

using Color = std::array<uint8_t, 3>;  ///< red, green, blue

/// The colour of label `index` (1, 2, ...), told apart by colour-blind readers too for the first
/// ten; further ones repeat these lighter and darker. Index 0, background, is black.
Color label_color(int64_t index);

/// A picture of 8-bit RGB pixels. Positions are (x, y) in pixels from the top left corner; what
/// lies outside is clipped. Copies are independent.
class Canvas {
 public:
  Canvas(int64_t width, int64_t height, Color background = {255, 255, 255});
  /// A grey picture of image [H, W], any real type: `low` and below is black, `high` and above
  /// white.
  static Canvas from_gray(const at::Tensor& image, double low, double high);
  /// A colour picture of image [3, H, W], red first: `low` to `high` becomes 0 to 255.
  static Canvas from_rgb(const at::Tensor& image, double low, double high);

  int64_t width() const { return width_; }
  int64_t height() const { return height_; }
  Color pixel(int64_t x, int64_t y) const;

  /// Smoothly resized: averaging when made smaller, cubic when made larger.
  Canvas resized(int64_t width, int64_t height) const;
  /// The part of the given size at (x, y), which must lie inside.
  Canvas cropped(int64_t x, int64_t y, int64_t width, int64_t height) const;

  /// Draws a label map [H, W] (integers) over the whole picture, whatever its own size: each
  /// label's area filled with `fill` opacity (0..1) and outlined by a line of `outline_px` (0:
  /// none). colors[v] is the colour of label v; values beyond the list take label_color. Label 0 is
  /// left out.
  void draw_labels(const at::Tensor& labels,
                   const std::vector<Color>& colors = {},
                   double fill = 0.25,
                   int outline_px = 1);

  enum class Align { kLeft, kCenter, kRight };
  /// A line of text, `height_px` from the baseline to the top of a capital; (x, y) is the
  /// baseline's start, middle or end. The font holds ASCII; other characters are drawn as their
  /// nearest.
  void draw_text(double x,
                 double y,
                 const std::string& text,
                 double height_px = 9,
                 Color color = {30, 30, 30},
                 Align align = Align::kLeft);
  /// The width that draw_text takes.
  static double text_width(const std::string& text, double height_px = 9);

  void draw_line(double x0, double y0, double x1, double y1, Color color, double width_px = 1);
  void draw_polyline(const std::vector<std::array<double, 2>>& points_xy,
                     Color color,
                     double width_px = 1);
  void draw_rectangle(double x, double y, double width, double height, Color color, bool filled);
  void draw_disc(double x, double y, double radius_px, Color color);
  void paste(const Canvas& picture, int64_t x, int64_t y);

  /// Text turned by 90 degrees counter-clockwise, for a vertical axis; (x, y) is its middle.
  void draw_vertical_text(
      double x, double y, const std::string& text, double height_px, Color color);

  void write_png(const std::filesystem::path& path) const;  ///< atomic; throws DataError
  std::string png() const;                                  ///< the bytes of a PNG file
  /// `data:image/png;base64,...`, for HTML.
  std::string png_data_url() const;

 private:
  int64_t width_, height_;
  std::vector<uint8_t> pixels_;  // row by row, red first
};

/// Pictures in rows of `columns`, each cell as large as the largest of them, `gap` pixels apart.
Canvas tile(const std::vector<Canvas>& pictures,
            int64_t columns,
            int64_t gap = 4,
            Color background = {255, 255, 255});

}  // namespace vireo
