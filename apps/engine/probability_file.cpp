#include "apps/engine/probability_file.h"

#include <vector>

#include <ATen/ATen.h>

#include "apps/engine/prediction_memory.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo {

namespace fs = std::filesystem;

void put_slice(const at::Tensor& whole,
               const Reorientation& axes,
               int64_t index,
               const at::Tensor& slice) {
  const auto& order = axes.order_zyx;
  const at::Tensor turned = whole.permute({order[0], order[1], order[2]});
  std::vector<int64_t> flipped;
  for (int64_t i = 1; i < 3; ++i)
    if (axes.flipped_zyx[static_cast<size_t>(i)]) flipped.push_back(i - 1);
  turned.select(0, axes.flipped_zyx[0] ? turned.size(0) - 1 - index : index)
      .copy_(flipped.empty() ? slice : slice.flip(flipped));
}

ProbabilityFile::ProbabilityFile(const fs::path& output, int64_t class_count, const Geometry& grid)
    : output_(output),
      scratch_(output.parent_path() / (".vireo-tmp-" + output.filename().string() + ".scratch")),
      class_count_(class_count),
      grid_(grid) {
  const int64_t bytes = 4 * class_count * grid.voxel_count();
  std::error_code unknown;
  const fs::space_info space = fs::space(output.parent_path(), unknown);
  if (!unknown && space.available < static_cast<uintmax_t>(bytes))
    throw DataError(output,
                    "needs " + memory_text(bytes) +
                        " of scratch space for the probabilities, and " +
                        memory_text(static_cast<int64_t>(space.available)) +
                        " are free; choose a folder on another disk, or leave --probabilities out");
  file_ = std::fopen(scratch_.c_str(), "w+b");
  if (file_ == nullptr) throw DataError(scratch_, "cannot be created");
}

ProbabilityFile::~ProbabilityFile() {
  if (file_ != nullptr) std::fclose(file_);
  std::error_code ignored;
  fs::remove(scratch_, ignored);
}

void ProbabilityFile::move(bool to_file, void* values, size_t bytes) {
  const size_t done =
      to_file ? std::fwrite(values, 1, bytes, file_) : std::fread(values, 1, bytes, file_);
  if (done != bytes)
    throw DataError(scratch_, "cannot be used as scratch space; is the disk full?");
}

void ProbabilityFile::add(const at::Tensor& slice) {
  const at::Tensor values = slice.to(at::kFloat).contiguous();
  move(true, values.data_ptr(), values.nbytes());
}

void ProbabilityFile::write(const Reorientation& axes, const fs::path& like) {
  const auto& size = grid_.size_zyx;
  const auto extent = [&](int axis) { return size[static_cast<size_t>(axes.order_zyx[axis])]; };
  at::Tensor slice = at::empty({extent(1), extent(2)}, at::kFloat);
  at::Tensor whole = at::empty({size[0], size[1], size[2]}, at::kFloat);
  const auto channel = [&](int64_t k) {
    for (int64_t i = 0; i < extent(0); ++i) {
      const auto place = static_cast<off_t>((i * class_count_ + k) * slice.numel() * 4);
      if (::fseeko(file_, place, SEEK_SET) != 0) throw DataError(scratch_, "cannot be read");
      move(false, slice.data_ptr(), slice.nbytes());
      put_slice(whole, axes, i, slice);
    }
    return whole;
  };
  write_channels(output_, class_count_, channel, grid_, like);
}

}  // namespace vireo
