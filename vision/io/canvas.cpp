#include "vision/io/canvas.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <string_view>

#include <ATen/TensorOperators.h>
#include <ATen/ops/_unique.h>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

constexpr int kFont = cv::FONT_HERSHEY_DUPLEX;
constexpr double kFontCapitalPx = 21;  // of a Hershey capital at scale 1
constexpr int kTextSupersampling = 4;
constexpr int kSubpixelBits = 4;  // of line ends

cv::Scalar scalar(Color color) {
  return cv::Scalar(color[0], color[1], color[2]);
}

cv::Point subpixel(double x, double y) {
  constexpr double kScale = 1 << kSubpixelBits;
  return {static_cast<int>(std::lround(x * kScale)), static_cast<int>(std::lround(y * kScale))};
}

int thickness(double width_px) {
  return std::max(1, static_cast<int>(std::lround(width_px)));
}

cv::Mat view(std::vector<uint8_t>& pixels, int64_t width, int64_t height) {
  return {static_cast<int>(height), static_cast<int>(width), CV_8UC3, pixels.data()};
}

cv::Mat view(const std::vector<uint8_t>& pixels, int64_t width, int64_t height) {
  return {static_cast<int>(height),
          static_cast<int>(width),
          CV_8UC3,
          const_cast<uint8_t*>(pixels.data())};
}

// The Hershey fonts hold ASCII alone.
std::string as_ascii(const std::string& text) {
  static const std::vector<std::pair<std::string_view, std::string_view>> nearest{{"\u00b1", "+/-"},
                                                                                  {"\u00d7", "x"},
                                                                                  {"\u2013", "-"},
                                                                                  {"\u2014", "-"},
                                                                                  {"\u2212", "-"},
                                                                                  {"\u00b7", "."},
                                                                                  {"\u00b5", "u"},
                                                                                  {"\u2026", "..."},
                                                                                  {"\u00b2", "2"},
                                                                                  {"\u00b3", "3"},
                                                                                  {"\u2264", "<="},
                                                                                  {"\u2265", ">="},
                                                                                  {"\u00e4", "a"},
                                                                                  {"\u00f6", "o"},
                                                                                  {"\u00fc", "u"},
                                                                                  {"\u00e9", "e"},
                                                                                  {"\u00df", "ss"}};
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) {
      result += byte < 0x20 ? ' ' : text[i];
      ++i;
      continue;
    }
    size_t length = 1;
    while (i + length < text.size() &&
           (static_cast<unsigned char>(text[i + length]) & 0xc0) == 0x80)
      ++length;
    const std::string_view letter(text.data() + i, length);
    const auto found = std::find_if(
        nearest.begin(), nearest.end(), [&](const auto& pair) { return pair.first == letter; });
    result += found == nearest.end() ? "?" : found->second;
    i += length;
  }
  return result;
}

// A text's coverage (0..255), its baseline's start in it, and its advance, all in canvas pixels.
struct TextMask {
  cv::Mat coverage;
  int left = 0, baseline = 0;
  double advance = 0;
};

TextMask render_text(const std::string& text, double height_px) {
  const std::string ascii = as_ascii(text);
  const double scale = height_px * kTextSupersampling / kFontCapitalPx;
  const int stroke =
      std::max(1, static_cast<int>(std::lround(height_px * kTextSupersampling / 11)));
  int descent = 0;
  const cv::Size size = cv::getTextSize(ascii, kFont, scale, stroke, &descent);
  constexpr int kMargin = 2 * kTextSupersampling;
  const auto padded = [](int length) {
    return (length + 2 * kMargin + kTextSupersampling - 1) / kTextSupersampling *
           kTextSupersampling;
  };
  const int ascent =
      (size.height + kMargin + kTextSupersampling - 1) / kTextSupersampling * kTextSupersampling;
  cv::Mat fine(ascent + padded(descent), padded(size.width), CV_8U, cv::Scalar(0));
  cv::putText(fine, ascii, {kMargin, ascent}, kFont, scale, cv::Scalar(255), stroke, cv::LINE_AA);
  TextMask mask;
  cv::resize(fine,
             mask.coverage,
             {fine.cols / kTextSupersampling, fine.rows / kTextSupersampling},
             0,
             0,
             cv::INTER_AREA);
  mask.left = kMargin / kTextSupersampling;
  mask.baseline = ascent / kTextSupersampling;
  mask.advance = static_cast<double>(size.width) / kTextSupersampling;
  return mask;
}

void blend(cv::Mat picture, const cv::Mat& coverage, int x, int y, Color color) {
  const cv::Rect area =
      cv::Rect(x, y, coverage.cols, coverage.rows) & cv::Rect(0, 0, picture.cols, picture.rows);
  for (int row = area.y; row < area.y + area.height; ++row) {
    auto* pixels = picture.ptr<cv::Vec3b>(row);
    const auto* weights = coverage.ptr<uint8_t>(row - y);
    for (int column = area.x; column < area.x + area.width; ++column) {
      const int weight = weights[column - x];
      for (int c = 0; c < 3; ++c)
        pixels[column][c] = static_cast<uint8_t>(
            (pixels[column][c] * (255 - weight) + color[static_cast<size_t>(c)] * weight + 127) /
            255);
    }
  }
}

at::Tensor to_bytes(const at::Tensor& image, double low, double high) {
  const double range = high > low ? high - low : 1;
  const at::Tensor scaled = (image.to(at::kDouble) - low) / range * 255;
  return scaled.nan_to_num(0).clamp(0, 255).round().to(at::kByte).contiguous();
}

constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k)
      group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k)
      text += i + k <= bytes.size() ? kBase64[group >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

}  // namespace

Color label_color(int64_t index) {
  // Okabe and Ito's colours, blue made lighter to show on dark scans, then three of Tol's.
  static constexpr std::array<Color, 10> kColors{{{230, 159, 0},
                                                  {86, 180, 233},
                                                  {0, 178, 130},
                                                  {240, 228, 66},
                                                  {213, 94, 0},
                                                  {204, 121, 167},
                                                  {60, 110, 220},
                                                  {221, 221, 221},
                                                  {153, 153, 51},
                                                  {170, 68, 153}}};
  if (index <= 0) return {0, 0, 0};
  const Color base = kColors[static_cast<size_t>(index - 1) % kColors.size()];
  const int64_t round = (index - 1) / static_cast<int64_t>(kColors.size());
  if (round == 0) return base;
  // Alternately towards white and black, by a share that never repeats.
  const double share = 0.55 * std::fmod(0.618 * static_cast<double>((round + 1) / 2), 1.0) + 0.1;
  Color color{};
  for (size_t c = 0; c < 3; ++c)
    color[c] = static_cast<uint8_t>(
        std::lround(base[c] * (1 - share) + (round % 2 == 1 ? 255 * share : 0)));
  return color;
}

Canvas::Canvas(int64_t width, int64_t height, Color background)
    : width_(std::max<int64_t>(1, width)),
      height_(std::max<int64_t>(1, height)),
      pixels_(static_cast<size_t>(width_ * height_ * 3)) {
  view(pixels_, width_, height_).setTo(scalar(background));
}

Canvas Canvas::from_gray(const at::Tensor& image, double low, double high) {
  TORCH_CHECK(image.dim() == 2, "Canvas::from_gray: [H, W], not ", image.sizes());
  return from_rgb(image.unsqueeze(0).expand({3, image.size(0), image.size(1)}), low, high);
}

Canvas Canvas::from_rgb(const at::Tensor& image, double low, double high) {
  TORCH_CHECK(
      image.dim() == 3 && image.size(0) == 3, "Canvas::from_rgb: [3, H, W], not ", image.sizes());
  Canvas canvas(image.size(2), image.size(1));
  const at::Tensor bytes = to_bytes(image.permute({1, 2, 0}), low, high);
  std::copy_n(bytes.const_data_ptr<uint8_t>(), bytes.numel(), canvas.pixels_.data());
  return canvas;
}

Color Canvas::pixel(int64_t x, int64_t y) const {
  const uint8_t* first = pixels_.data() + (y * width_ + x) * 3;
  return {first[0], first[1], first[2]};
}

Canvas Canvas::resized(int64_t width, int64_t height) const {
  Canvas result(width, height);
  const bool smaller = result.width_ <= width_ && result.height_ <= height_;
  cv::Mat target = view(result.pixels_, result.width_, result.height_);
  cv::resize(view(pixels_, width_, height_),
             target,
             target.size(),
             0,
             0,
             smaller ? cv::INTER_AREA : cv::INTER_CUBIC);
  return result;
}

Canvas Canvas::cropped(int64_t x, int64_t y, int64_t width, int64_t height) const {
  Canvas result(width, height);
  const cv::Rect area(static_cast<int>(x),
                      static_cast<int>(y),
                      static_cast<int>(result.width_),
                      static_cast<int>(result.height_));
  view(pixels_, width_, height_)(area).copyTo(view(result.pixels_, result.width_, result.height_));
  return result;
}

void Canvas::draw_labels(const at::Tensor& labels,
                         const std::vector<Color>& colors,
                         double fill,
                         int outline_px) {
  TORCH_CHECK(labels.dim() == 2, "Canvas::draw_labels: [H, W], not ", labels.sizes());
  cv::Mat picture = view(pixels_, width_, height_);
  const at::Tensor present = std::get<0>(at::_unique(labels.to(at::kLong)));
  for (int64_t i = 0; i < present.numel(); ++i) {
    const auto value = present[i].item<int64_t>();
    if (value <= 0) continue;
    const Color color = value < static_cast<int64_t>(colors.size())
                            ? colors[static_cast<size_t>(value)]
                            : label_color(value);
    at::Tensor mask = labels.eq(value).to(at::kByte).mul_(255).contiguous();
    const cv::Mat coarse(static_cast<int>(mask.size(0)),
                         static_cast<int>(mask.size(1)),
                         CV_8U,
                         mask.data_ptr<uint8_t>());
    cv::Mat fine;
    cv::resize(coarse, fine, picture.size(), 0, 0, cv::INTER_LINEAR);
    cv::threshold(fine, fine, 127, 255, cv::THRESH_BINARY);
    std::vector<std::vector<cv::Point>> outlines;
    cv::findContours(fine, outlines, cv::RETR_CCOMP, cv::CHAIN_APPROX_NONE);
    blend(picture, fine * std::clamp(fill, 0.0, 1.0), 0, 0, color);
    if (outline_px > 0)
      cv::drawContours(picture, outlines, -1, scalar(color), outline_px, cv::LINE_AA);
  }
}

void Canvas::draw_text(
    double x, double y, const std::string& text, double height_px, Color color, Align align) {
  const TextMask mask = render_text(text, height_px);
  if (align == Align::kCenter) x -= mask.advance / 2;
  if (align == Align::kRight) x -= mask.advance;
  blend(view(pixels_, width_, height_),
        mask.coverage,
        static_cast<int>(std::lround(x)) - mask.left,
        static_cast<int>(std::lround(y)) - mask.baseline,
        color);
}

double Canvas::text_width(const std::string& text, double height_px) {
  return render_text(text, height_px).advance;
}

void Canvas::draw_vertical_text(
    double x, double y, const std::string& text, double height_px, Color color) {
  const TextMask mask = render_text(text, height_px);
  cv::Mat turned;
  cv::rotate(mask.coverage, turned, cv::ROTATE_90_COUNTERCLOCKWISE);
  blend(view(pixels_, width_, height_),
        turned,
        static_cast<int>(std::lround(x)) - turned.cols / 2,
        static_cast<int>(std::lround(y)) - turned.rows / 2,
        color);
}

void Canvas::draw_line(double x0, double y0, double x1, double y1, Color color, double width_px) {
  draw_polyline({{x0, y0}, {x1, y1}}, color, width_px);
}

void Canvas::draw_polyline(const std::vector<std::array<double, 2>>& points_xy,
                           Color color,
                           double width_px) {
  std::vector<cv::Point> points;
  for (const auto& [x, y] : points_xy) points.push_back(subpixel(x, y));
  if (points.size() < 2) return;
  cv::polylines(view(pixels_, width_, height_),
                points,
                false,
                scalar(color),
                thickness(width_px),
                cv::LINE_AA,
                kSubpixelBits);
}

void Canvas::draw_rectangle(
    double x, double y, double width, double height, Color color, bool filled) {
  const cv::Rect area(static_cast<int>(std::lround(x)),
                      static_cast<int>(std::lround(y)),
                      static_cast<int>(std::lround(width)),
                      static_cast<int>(std::lround(height)));
  cv::rectangle(view(pixels_, width_, height_), area, scalar(color), filled ? cv::FILLED : 1);
}

void Canvas::draw_disc(double x, double y, double radius_px, Color color) {
  constexpr double kScale = 1 << kSubpixelBits;
  cv::circle(view(pixels_, width_, height_),
             subpixel(x, y),
             static_cast<int>(std::lround(radius_px * kScale)),
             scalar(color),
             cv::FILLED,
             cv::LINE_AA,
             kSubpixelBits);
}

void Canvas::paste(const Canvas& picture, int64_t x, int64_t y) {
  const int64_t left = std::max<int64_t>(0, x), right = std::min(width_, x + picture.width_);
  if (left >= right) return;
  for (int64_t row = std::max<int64_t>(0, y); row < std::min(height_, y + picture.height_); ++row)
    std::copy_n(picture.pixels_.data() + ((row - y) * picture.width_ + left - x) * 3,
                (right - left) * 3,
                pixels_.data() + (row * width_ + left) * 3);
}

std::string Canvas::png() const {
  cv::Mat reversed;
  cv::cvtColor(view(pixels_, width_, height_), reversed, cv::COLOR_RGB2BGR);
  std::vector<uint8_t> bytes;
  try {
    cv::imencode(".png", reversed, bytes, {cv::IMWRITE_PNG_COMPRESSION, 7});
  } catch (const cv::Exception& error) {
    throw Error(std::string("a picture cannot be encoded as PNG: ") + error.what());
  }
  return {bytes.begin(), bytes.end()};
}

void Canvas::write_png(const std::filesystem::path& path) const {
  write_text_atomically(path, png());
}

std::string Canvas::png_data_url() const {
  return "data:image/png;base64," + base64(png());
}

Canvas tile(const std::vector<Canvas>& pictures, int64_t columns, int64_t gap, Color background) {
  int64_t width = 1, height = 1;
  for (const Canvas& picture : pictures) {
    width = std::max(width, picture.width());
    height = std::max(height, picture.height());
  }
  const auto count = static_cast<int64_t>(pictures.size());
  columns = std::clamp<int64_t>(columns, 1, std::max<int64_t>(1, count));
  const int64_t rows = std::max<int64_t>(1, (count + columns - 1) / columns);
  Canvas sheet(columns * (width + gap) - gap, rows * (height + gap) - gap, background);
  for (int64_t i = 0; i < count; ++i) {
    const Canvas& picture = pictures[static_cast<size_t>(i)];
    sheet.paste(picture,
                i % columns * (width + gap) + (width - picture.width()) / 2,
                i / columns * (height + gap) + (height - picture.height()) / 2);
  }
  return sheet;
}

}  // namespace vireo
