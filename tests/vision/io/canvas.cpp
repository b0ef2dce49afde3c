#include "vision/io/canvas.h"

#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/test_data.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"
#include "vision/io/plot.h"

namespace vireo {
namespace {

int64_t count_pixels_unlike(const Canvas& canvas, Color color) {
  int64_t count = 0;
  for (int64_t y = 0; y < canvas.height(); ++y)
    for (int64_t x = 0; x < canvas.width(); ++x) count += canvas.pixel(x, y) != color;
  return count;
}

TEST(Canvas, WindowsGreyValues) {
  const at::Tensor image = at::tensor({-1000.f, -160.f, 40.f, 240.f, 3000.f}).view({1, 5});
  const Canvas canvas = Canvas::from_gray(image, -160, 240);
  EXPECT_EQ(canvas.pixel(0, 0), (Color{0, 0, 0}));
  EXPECT_EQ(canvas.pixel(1, 0), (Color{0, 0, 0}));
  EXPECT_EQ(canvas.pixel(2, 0), (Color{128, 128, 128}));
  EXPECT_EQ(canvas.pixel(3, 0), (Color{255, 255, 255}));
  EXPECT_EQ(canvas.pixel(4, 0), (Color{255, 255, 255}));
}

TEST(Canvas, WritesAPngThatReadsBackAsItIs) {
  const std::filesystem::path path = vireo::test::scratch_folder() / "new" / "picture.png";
  const at::Tensor image = at::randint(0, 256, {3, 7, 11});
  Canvas::from_rgb(image, 0, 255).write_png(path);
  const Volume read = read_image(path);
  EXPECT_TRUE(at::equal(read.values.squeeze(1), image.to(at::kFloat)));
}

TEST(Canvas, RefusesAFolderThatCannotBeWritten) {
  EXPECT_THROW(Canvas(4, 4).write_png("/proc/nowhere/picture.png"), DataError);
}

TEST(Canvas, DataUrlIsBase64OfThePng) {
  const std::string url = Canvas(1, 1).png_data_url();
  EXPECT_TRUE(url.starts_with("data:image/png;base64,iVBORw0KGgo")) << url;
  EXPECT_EQ((url.size() - std::string("data:image/png;base64,").size()) % 4, 0u);
}

TEST(Canvas, LabelsFillAndOutlineTheirArea) {
  Canvas canvas(40, 40, {0, 0, 0});
  const at::Tensor labels = at::zeros({20, 20}, at::kByte);
  labels.slice(0, 5, 15).slice(1, 5, 15).fill_(2);
  canvas.draw_labels(labels, {{0, 0, 0}, {255, 0, 0}, {0, 200, 100}}, 0.5, 1);
  EXPECT_EQ(canvas.pixel(2, 2), (Color{0, 0, 0}));
  EXPECT_GT(canvas.pixel(20, 10)[1], 170) << "the outline";
  EXPECT_NEAR(canvas.pixel(20, 20)[1], 100, 2) << "half of the fill";
}

TEST(Canvas, ClipsWhatLiesOutside) {
  Canvas canvas(20, 10);
  canvas.draw_text(-30, 5, "a long text that does not fit");
  canvas.draw_line(-100, -100, 200, 300, {0, 0, 0});
  canvas.draw_disc(19, 9, 8, {0, 0, 0});
  canvas.paste(Canvas(50, 50, {9, 9, 9}), -20, -20);
  EXPECT_EQ(canvas.pixel(0, 0), (Color{9, 9, 9}));
}

TEST(Canvas, DrawsTextAtItsAnchor) {
  Canvas left(100, 20), right(100, 20);
  left.draw_text(2, 15, "Liver");
  right.draw_text(98, 15, "Liver", 9, {0, 0, 0}, Canvas::Align::kRight);
  EXPECT_GT(count_pixels_unlike(left.cropped(0, 0, 50, 20), {255, 255, 255}), 30);
  EXPECT_EQ(count_pixels_unlike(left.cropped(60, 0, 40, 20), {255, 255, 255}), 0);
  EXPECT_EQ(count_pixels_unlike(right.cropped(0, 0, 40, 20), {255, 255, 255}), 0);
}

TEST(Canvas, ReducingKeepsTheMeanColour) {
  const Canvas canvas = Canvas::from_gray(at::arange(64).remainder(2).view({8, 8}), 0, 1);
  const Canvas small = canvas.resized(4, 4);
  EXPECT_NEAR(small.pixel(1, 1)[0], 128, 1);
}

TEST(Palette, DistinguishesManyLabels) {
  std::set<Color> colors;
  for (int64_t label = 0; label <= 60; ++label) colors.insert(label_color(label));
  EXPECT_EQ(colors.size(), 61u);
  EXPECT_EQ(label_color(0), (Color{0, 0, 0}));
}

TEST(Tile, PlacesPicturesInRows) {
  const Canvas sheet =
      tile({Canvas(10, 8, {1, 1, 1}), Canvas(10, 8, {2, 2, 2}), Canvas(6, 8, {3, 3, 3})}, 2, 4);
  EXPECT_EQ(sheet.width(), 24);
  EXPECT_EQ(sheet.height(), 20);
  EXPECT_EQ(sheet.pixel(14, 0), (Color{2, 2, 2}));
  EXPECT_EQ(sheet.pixel(5, 15), (Color{3, 3, 3}));
  EXPECT_EQ(sheet.pixel(0, 15), (Color{255, 255, 255})) << "smaller pictures are centred";
}

TEST(Plot, TicksAreRoundNumbers) {
  EXPECT_EQ(axis_ticks(0, 1, 5), (std::vector<double>{0, 0.2, 0.4, 0.6000000000000001, 0.8, 1}));
  EXPECT_EQ(axis_ticks(-3, 102, 4), (std::vector<double>{0, 50, 100}));
  EXPECT_EQ(tick_text(0.6000000000000001), "0.6");
}

TEST(Plot, DrawsItsSeriesInsideItsFrame) {
  Plot plot{"Loss", {"epoch", {}, {}, false}, {"loss", {}, {}, false}, {}};
  plot.series.push_back({"train", {0, 1, 2, 3}, {1, 0.5, std::nan(""), 0.2}, {200, 0, 0}, 2, true});
  const Canvas canvas = draw_plot(plot, 300, 200);
  int64_t red = 0;
  for (int64_t y = 30; y < 165; ++y)
    for (int64_t x = 30; x < 290; ++x) red += canvas.pixel(x, y)[0] > canvas.pixel(x, y)[1] + 100;
  EXPECT_GT(red, 100);
}

TEST(Plot, PutsALegendThatIsTooLongBelowTheTitle) {
  const auto red_rows = [](const std::vector<std::string>& names) {
    Plot plot{"Dice of every class", {"epoch", {}, {}, false}, {"", {}, {}, false}, {}};
    for (const std::string& name : names) plot.series.push_back({name, {}, {}, {200, 0, 0}, 2});
    const Canvas canvas = draw_plot(plot, 300, 200);
    int64_t beside = 0, below = 0;
    for (int64_t y = 0; y < 80; ++y)
      for (int64_t x = 0; x < 300; ++x)
        if (canvas.pixel(x, y)[0] > canvas.pixel(x, y)[1] + 100) ++(y < 24 ? beside : below);
    return std::pair(beside, below);
  };
  const auto [beside, nothing_below] = red_rows({"a", "b"});
  EXPECT_GT(beside, 0);
  EXPECT_EQ(nothing_below, 0);
  const auto [nothing_beside, below] =
      red_rows({"left kidney", "right kidney", "gall bladder", "stomach", "pancreas", "spleen"});
  EXPECT_EQ(nothing_beside, 0);
  EXPECT_GT(below, 0);
}

TEST(Plot, StandsEmptyAndConstantData) {
  Plot plot{"", {"", {}, {}, false}, {"", {}, {}, true}, {}};
  EXPECT_EQ(draw_plot(plot, 120, 90).width(), 120);
  plot.series.push_back({"a", {1, 1}, {1e-3, 1e-3}, {0, 0, 0}, 1, false});
  EXPECT_EQ(draw_plot(plot, 120, 90).height(), 90);
}

}  // namespace
}  // namespace vireo
