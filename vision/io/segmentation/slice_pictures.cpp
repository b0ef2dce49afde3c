#include "vision/io/segmentation/slice_pictures.h"

#include <string>

#include "vision/core/parallel_tasks.h"
#include "vision/image/geometry.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

// More than there are cores: each spends most of its time waiting for the disk to have the file.
constexpr int64_t kFilesAtOnce = 8;

fs::path slice_file(const fs::path& folder, const char* kind, int64_t z, int64_t count) {
  if (count == 1) return folder / (std::string(kind) + ".png");
  std::string number = std::to_string(z);
  if (number.size() < 4) number.insert(0, 4 - number.size(), '0');
  return folder / (std::string(kind) + "_" + number + ".png");
}

}  // namespace

void write_mask_pictures(const fs::path& folder, const at::Tensor& labels) {
  const int64_t count = labels.size(0);
  Geometry grid;
  grid.size_zyx = {1, labels.size(1), labels.size(2)};
  run_parallel(count, kFilesAtOnce, [&](int64_t z) {
    write_labels(slice_file(folder, "mask", z, count), labels.slice(0, z, z + 1), grid);
  });
}

void write_overlay_pictures(const fs::path& folder,
                            const at::Tensor& image,
                            const at::Tensor& labels,
                            const std::vector<SegmentDescription>& descriptions,
                            std::array<double, 2> window) {
  std::vector<Color> colors;
  for (const SegmentDescription& segment : descriptions) {
    const auto value = static_cast<size_t>(segment.value);
    while (colors.size() <= value)
      colors.push_back(label_color(static_cast<int64_t>(colors.size())));
    colors[value] = segment.color;
  }
  const int64_t count = labels.size(0);
  run_parallel(count, kFilesAtOnce, [&](int64_t z) {
    const at::Tensor slice = labels.select(0, z);
    if (!slice.ne(0).any().item<bool>()) return;
    const at::Tensor pixels = image.select(1, z);
    Canvas canvas = image.size(0) == 3 ? Canvas::from_rgb(pixels, window[0], window[1])
                                       : Canvas::from_gray(pixels[0], window[0], window[1]);
    canvas.draw_labels(slice, colors);
    canvas.write_png(slice_file(folder, "overlay", z, count));
  });
}

}  // namespace vireo
