#include "datasets/picture_reader.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "vision/core/error.h"
#include "vision/io/image_file.h"
#include "vision/io/picture_file.h"

namespace vireo {
namespace {

constexpr double kLow = 0.005, kHigh = 0.995;

// The value below which a share of the pixels lies.
float value_at(const at::Tensor& sorted, double share) {
  const auto last = static_cast<double>(sorted.numel() - 1);
  return sorted.const_data_ptr<float>()[static_cast<int64_t>(std::lround(share * last))];
}

at::Tensor stretched(const std::filesystem::path& path, const at::Tensor& picture) {
  const at::Tensor sorted = std::get<0>(picture.flatten().sort());
  if (!std::isfinite(sorted[0].item<float>()) || !std::isfinite(sorted[-1].item<float>()))
    throw DataError(path, "holds values that are no finite numbers");
  const float low = value_at(sorted, kLow), high = value_at(sorted, kHigh);
  const double scale = high > low ? 255.0 / (static_cast<double>(high) - low) : 0;
  return ((picture - low) * scale).round().clamp(0, 255).to(at::kByte);
}

}  // namespace

bool is_named_as_image(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  return !path.filename().string().starts_with(".") &&
         (!image_extension(path).empty() || extension == ".dcm" || extension == ".DCM");
}

at::Tensor read_classified_picture(const std::filesystem::path& path,
                                   int64_t slice,
                                   const std::string& depth) {
  at::Tensor picture;  // float32 [H, W, C]
  bool eight_bit = false, sixteen_bit = false;
  if (is_picture(path)) {
    if (slice > 0) throw DataError(path, "is a picture and has no slice " + std::to_string(slice));
    const io::StoredImage stored = io::read_upright_picture(path);
    eight_bit = stored.type == io::StoredType::kUint8;
    sixteen_bit = stored.type == io::StoredType::kUint16;
    const auto& size = stored.geometry.size_zyx;
    if (eight_bit)
      return at::from_blob(stored.bytes.get(), {size[1], size[2], stored.components}, at::kByte)
          .clone();
    picture = io::to_image(stored).values.select(1, 0).permute({1, 2, 0}).contiguous();
  } else {
    const at::Tensor values = read_image(path).values;  // [C, Z, Y, X]
    const int64_t slices = values.size(1);
    if (slice < 0 && slices > 1)
      throw DataError(
          path,
          "holds " + std::to_string(slices) + " slices; name one in the table's column \"slice\"");
    if (slice >= slices)
      throw DataError(path,
                      "has no slice " + std::to_string(slice) + ": there are " +
                          std::to_string(slices) + ", counted from 0");
    picture = values.select(1, std::max<int64_t>(slice, 0)).permute({1, 2, 0}).contiguous();
  }
  if (picture.size(2) != 1 && picture.size(2) != 3)
    throw DataError(path,
                    "has " + std::to_string(picture.size(2)) +
                        " channels; grey (1) and colour (3) are classified");
  if (depth == "full_scale" && !sixteen_bit)
    throw DataError(path, "holds values without a full scale; set data.depth = \"stretch\"");
  if (sixteen_bit && depth != "stretch") return (picture / 257).round().to(at::kByte);
  return stretched(path, picture);
}

}  // namespace vireo
