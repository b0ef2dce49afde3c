#include "kernels/kept_memory.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace vireo {
namespace {

constexpr int64_t kMiB = 1 << 20;

at::Tensor block(int64_t mebibytes) {
  return at::empty({mebibytes * kMiB}, at::kByte);
}

TEST(KeptMemory, ServesABlockOfTheSameSizeAgain) {
  const KeptMemory kept;
  const int64_t reused = kept_memory_counts().reused;
  void* first = block(64).data_ptr();
  EXPECT_EQ(kept_memory_counts().kept, 64 * kMiB);
  const at::Tensor again = block(60);  // within an eighth
  EXPECT_EQ(again.data_ptr(), first);
  EXPECT_EQ(kept_memory_counts().reused, reused + 1);
  EXPECT_EQ(kept_memory_counts().kept, 0);
  const at::Tensor smaller = block(40), larger = block(100);
  EXPECT_NE(smaller.data_ptr(), first);
  EXPECT_EQ(at::zeros({64 * kMiB}, at::kByte).max().item<int64_t>(), 0);
}

TEST(KeptMemory, TakesNoMoreThanWasOnceInUse) {
  const KeptMemory kept;
  { const at::Tensor a = block(200), b = block(100); }
  const int64_t most = kept_memory_counts().most_in_use;
  for (const int64_t size : {40, 90, 150, 230, 60, 120}) {
    const at::Tensor one = block(size);
    const KeptMemoryCounts now = kept_memory_counts();
    EXPECT_EQ(now.in_use, size * kMiB);
    EXPECT_LE(now.in_use + now.kept, most);
    EXPECT_EQ(now.most_in_use, most);
  }
}

TEST(KeptMemory, GivesAllBackAtItsEndAndLetsTensorsOutliveIt) {
  at::Tensor survivor;
  {
    const KeptMemory outer;
    {
      const KeptMemory inner;
      { const at::Tensor both[] = {block(64), block(80)}; }
      survivor = block(80).fill_(7);
    }
    EXPECT_EQ(kept_memory_counts().kept, 64 * kMiB);
  }
  EXPECT_EQ(kept_memory_counts().kept, 0);
  EXPECT_EQ(survivor.min().item<int64_t>(), 7);
  EXPECT_EQ(kept_memory_counts().in_use, 80 * kMiB);
  survivor.reset();
  EXPECT_EQ(kept_memory_counts().in_use, 0);
  EXPECT_EQ(kept_memory_counts().kept, 0);
  block(64);
  EXPECT_EQ(kept_memory_counts().kept, 0) << "none lives: the C library's";
}

TEST(KeptMemory, ServesThreadsAndGrowingTensors) {
  const KeptMemory kept;
  at::Tensor growing = at::ones({40 * kMiB}, at::kByte);
  growing.resize_({90 * kMiB});
  EXPECT_EQ(growing.narrow(0, 0, 40 * kMiB).min().item<int64_t>(), 1);
  at::parallel_for(0, 64, 1, [](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const at::Tensor one = block(32 + i % 7).fill_(i);
      EXPECT_EQ(one[0].item<int64_t>(), i);
      EXPECT_EQ(one[-1].item<int64_t>(), i);
    }
  });
}

}  // namespace
}  // namespace vireo
