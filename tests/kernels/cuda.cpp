// The operators on a GPU against the same operators on the CPU, which the other tests hold to their
// definitions. Skipped where there is no GPU.
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/cuda_loader.h"
#include "tests/kernels/device_cases.h"
#include "tests/support/test_data.h"

namespace vireo {
namespace {

using test::kDeviceTypes;

#define REQUIRE_GPU() \
  if (!load_cuda_kernels() || !at::hasCUDA()) VIREO_SKIP("no NVIDIA GPU with its driver here")

void expect_as_on_the_cpu(const test::DeviceCase& one) {
  test::expect_as_on_the_cpu(one,
                             test::results_of(one, at::kCPU),
                             test::results_of(one, at::kCUDA),
                             test::results_of(one, at::kCUDA));
}

// Row lengths on either side of one block, one CTA, two to sixteen CTAs of a cluster, and beyond.
TEST(CudaKernels, ComputeBiWkvForRowsOfAnyLength) {
  REQUIRE_GPU();
  at::manual_seed(1);
  for (const at::ScalarType type : kDeviceTypes)
    for (const int64_t tokens : {1, 16, 17, 196, 256, 257, 512, 513, 1000, 2049, 4096, 4097, 9001})
      for (const int64_t channels : {1, 33, 64})
        expect_as_on_the_cpu(test::bi_wkv_case(type, tokens > 1000 ? 1 : 3, tokens, channels));
}

TEST(CudaKernels, ComputeBiWkvWithStrongDecays) {
  REQUIRE_GPU();
  at::manual_seed(2);
  for (const int64_t tokens : {20, 300, 5000})
    expect_as_on_the_cpu(test::strong_bi_wkv_case(tokens));
}

TEST(CudaKernels, ComputeWkv6ForRowsOfAnyLength) {
  REQUIRE_GPU();
  at::manual_seed(3);
  for (const at::ScalarType type : kDeviceTypes)
    for (const bool causal : {false, true})
      for (const int64_t tokens : {1, 16, 20, 196, 1000, 3001})
        for (const int64_t head : {16, 48, 64, 128})
          expect_as_on_the_cpu(test::wkv6_case(type, causal, 2, tokens, 2, head));
}

TEST(CudaKernels, ShiftAndMix) {
  REQUIRE_GPU();
  at::manual_seed(4);
  for (const at::ScalarType type : kDeviceTypes)
    for (const auto& [height, width] : {std::pair<int64_t, int64_t>{1, 1}, {7, 5}, {32, 33}})
      for (const QShift& shift : {QShift{}, QShift{2, 0.2, 0, false}, QShift{1, 0.25, 16, true}}) {
        expect_as_on_the_cpu(test::shift_case(type, height, width, 48, shift));
        for (const int mixes : {1, 3, 5})
          expect_as_on_the_cpu(test::shift_mix_case(type, height, width, 48, shift, mixes));
      }
}

TEST(CudaKernels, NormaliseAndGateTokens) {
  REQUIRE_GPU();
  at::manual_seed(5);
  for (const at::ScalarType type : kDeviceTypes)
    for (const auto& [tokens, channels] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {70, 33}, {196, 192}, {50, 3000}, {9, 9000}})
      for (const test::DeviceCase& one : test::norm_cases(type, tokens, channels))
        expect_as_on_the_cpu(one);
}

TEST(CudaKernels, NormaliseMapsOfEitherLayout) {
  REQUIRE_GPU();
  at::manual_seed(6);
  for (const at::ScalarType type : kDeviceTypes)
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast})
      for (const auto& shape : std::vector<std::vector<int64_t>>{
               {1, 6, 1, 1}, {2, 7, 3, 5}, {3, 96, 28, 28}, {1, 40, 33, 31}})
        expect_as_on_the_cpu(test::map_norm_case(type, shape, format));
}

}  // namespace
}  // namespace vireo
