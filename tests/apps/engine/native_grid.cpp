#include "apps/engine/native_grid.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace vireo {
namespace {

using Size = std::array<int64_t, 3>;

at::Tensor random_probabilities(int64_t depth, int64_t classes, int64_t height, int64_t width) {
  return at::softmax(at::randn({depth, classes, height, width}) * 3, 1);
}

void add_in_slabs(NativeGrid& grid, const at::Tensor& probabilities, int64_t slab) {
  for (int64_t first = 0; first < probabilities.size(0); first += slab)
    grid.add(first, probabilities.narrow(0, first, std::min(slab, probabilities.size(0) - first)));
}

// The same by LibTorch's trilinear interpolation of the whole: [K, D, H, W].
at::Tensor reference(const at::Tensor& probabilities, const Size& size) {
  return at::upsample_trilinear3d(
      probabilities.transpose(0, 1).contiguous().unsqueeze(0), size, false)[0];
}

TEST(NativeGrid, TakesTheMostProbableClassOnTheSameGrid) {
  const at::Tensor probabilities = random_probabilities(7, 4, 9, 11);
  NativeGrid grid({7, 9, 11}, {7, 9, 11});
  add_in_slabs(grid, probabilities, 3);
  EXPECT_TRUE(at::equal(grid.labels(), probabilities.argmax(1).to(at::kByte)));
}

TEST(NativeGrid, EqualsTrilinearInterpolationOfTheWhole) {
  for (const Size& size : {Size{13, 20, 25}, Size{4, 5, 6}, Size{7, 9, 11}, Size{1, 30, 4}}) {
    const at::Tensor probabilities = random_probabilities(7, 3, 9, 11);
    const at::Tensor expected = reference(probabilities, size);
    for (const int64_t slab : {1, 2, 7}) {
      at::Tensor given = at::zeros({3, size[0], size[1], size[2]});
      int64_t next = 0;
      NativeGrid grid({7, 9, 11}, size, [&](int64_t slice, const at::Tensor& values) {
        EXPECT_EQ(slice, next++);
        given.select(1, slice).copy_(values);
      });
      add_in_slabs(grid, probabilities, slab);
      EXPECT_EQ(next, size[0]);
      EXPECT_LT((given - expected).abs().max().item<float>(), 1e-5);
      EXPECT_TRUE(at::equal(grid.labels(), given.argmax(0).to(at::kByte)));

      NativeGrid labels_only({7, 9, 11}, size);
      add_in_slabs(labels_only, probabilities, slab);
      EXPECT_TRUE(at::equal(labels_only.labels(), grid.labels()));
    }
  }
}

TEST(NativeGrid, ReadsSlabsInAnyMemoryFormat) {
  const at::Tensor probabilities = random_probabilities(4, 3, 8, 8);
  NativeGrid plain({4, 8, 8}, {5, 9, 7}), strided({4, 8, 8}, {5, 9, 7});
  plain.add(0, probabilities);
  strided.add(0, probabilities.contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_TRUE(at::equal(plain.labels(), strided.labels()));
}

TEST(NativeGrid, RefusesToAnswerBeforeTheLastSlice) {
  NativeGrid grid({4, 8, 8}, {8, 8, 8});
  grid.add(0, random_probabilities(2, 2, 8, 8));
  EXPECT_THROW(grid.labels(), c10::Error);
  EXPECT_THROW(grid.add(3, random_probabilities(1, 2, 8, 8)), c10::Error);
}

}  // namespace
}  // namespace vireo
