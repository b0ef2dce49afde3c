// The CUDA sources, compiled as C++ and run on the CPU thread by thread (cuda_on_cpu/), against the
// operators of the CPU, which the other tests hold to their definitions.
#include <array>
#include <cmath>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/library.h>

#include "tests/kernels/cuda_on_cpu/guarded_memory.h"
#include "tests/kernels/cuda_on_cpu/machine.h"
#include "tests/kernels/device_cases.h"

namespace vireo {
namespace {

using cuda_on_cpu::device;
using cuda_on_cpu::GuardedMemory;
using cuda_on_cpu::Order;
using cuda_on_cpu::Place;
using test::DeviceCase;
using test::kDeviceTypes;
using test::Results;

/// While it lives, operators on CPU tensors are those of the CUDA sources.
class CudaSources {
 public:
  CudaSources() : library_(torch::Library::IMPL, "vireo", c10::DispatchKey::CPU, __FILE__, 0) {
    for (const char* op : {"bi_wkv",
                           "bi_wkv_backward",
                           "bi_wkv_published",
                           "channel_norm",
                           "channel_norm_backward",
                           "gate",
                           "gate_backward",
                           "q_shift",
                           "q_shift_mix",
                           "q_shift_mix_backward",
                           "wkv6",
                           "wkv6_backward"})
      library_.impl(op, torch::CppFunction::makeFromBoxedFunction<&run>());
  }

 private:
  static void run(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CUDA), stack);
  }

  torch::Library library_;
};

class CudaOnCpu : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
#if !defined(__SANITIZE_ADDRESS__)
    static GuardedMemory memory;
    c10::SetAllocator(c10::kCPU, &memory, /*priority=*/1);
#endif
  }
  void SetUp() override {
    device() = {};
  }
  void TearDown() override {
    EXPECT_EQ(GuardedMemory::overrun, 0) << "tensors were written beyond";
  }

  static void expect_as_on_the_cpu(const DeviceCase& one) {
    SCOPED_TRACE(one.name);
    const Results cpu = test::results_of(one, at::kCPU);
    const CudaSources sources;
    const auto results_in = [&](Order order) {
      device().order = order;
      return test::results_of(one, at::kCPU);
    };
    const Results forward = results_in(Order::kForward);
    test::expect_as_on_the_cpu(one, cpu, forward, results_in(Order::kBackward));
    test::expect_as_on_the_cpu(one, cpu, forward, results_in(Order::kShuffled));
  }
};

using CudaSourcesOnCpu = CudaOnCpu;

// ---- Bi-WKV ----

// Rows on either side of one block, one CTA, clusters of two to sixteen, and beyond.
TEST_F(CudaSourcesOnCpu, ComputeBiWkvForRowsOfAnyLength) {
  for (const at::ScalarType type : kDeviceTypes)
    for (const int64_t tokens : {1, 16, 17, 196, 256, 257, 513, 1000, 2049, 4096, 4097})
      expect_as_on_the_cpu(test::bi_wkv_case(type, tokens > 300 ? 1 : 2, tokens, 33));
  for (const int64_t tokens : {3, 300, 5000})
    for (const int64_t channels : {1, 32, 64})
      expect_as_on_the_cpu(test::bi_wkv_case(at::kFloat, 2, tokens, channels));
}

TEST_F(CudaSourcesOnCpu, HoldRowsInClustersOnlyWhereThereIsRoom) {
  const DeviceCase one = test::bi_wkv_case(at::kFloat, 1, 2049, 33);
  const auto clusters = [&](int major, unsigned room) {
    device() = {};
    device().major = major;
    device().cluster_room = room;
    expect_as_on_the_cpu(one);
    return device().cluster_launches;
  };
  EXPECT_GT(clusters(9, 16), 0);
  EXPECT_EQ(clusters(9, 8), 0);
  EXPECT_EQ(clusters(8, 0), 0);
  expect_as_on_the_cpu(test::bi_wkv_case(at::kBFloat16, 2, 300, 40));
}

TEST_F(CudaSourcesOnCpu, ComputeBiWkvWithStrongDecays) {
  for (const int64_t tokens : {20, 300, 5000})
    expect_as_on_the_cpu(test::strong_bi_wkv_case(tokens));
}

TEST_F(CudaSourcesOnCpu, ComputeThePublishedBiWkv) {
  for (const at::ScalarType type : kDeviceTypes)
    for (const auto& [tokens, channels] : {std::pair<int64_t, int64_t>{1, 1}, {50, 65}}) {
      DeviceCase one = test::bi_wkv_case(type, 3, tokens, channels);
      one.name += ", published";
      one.op = [](const test::Tensors& in) {
        return test::Tensors{bi_wkv(
            in[0].detach(), in[1].detach(), in[2].detach(), in[3].detach(), WkvForm::kPublished)};
      };
      expect_as_on_the_cpu(one);
    }
}

// ---- The other operators ----

TEST_F(CudaSourcesOnCpu, ShiftAndMix) {
  for (const at::ScalarType type : kDeviceTypes)
    for (const auto& [height, width] : {std::pair<int64_t, int64_t>{1, 1}, {7, 5}, {11, 12}})
      for (const QShift& shift : {QShift{}, QShift{2, 0.2, 0, false}, QShift{1, 0.25, 16, true}}) {
        expect_as_on_the_cpu(test::shift_case(type, height, width, 48, shift));
        expect_as_on_the_cpu(test::shift_mix_case(type, height, width, 48, shift, 3));
      }
  for (const int mixes : {1, 2, 4, 5})
    expect_as_on_the_cpu(test::shift_mix_case(at::kFloat, 6, 4, 32, {}, mixes));
  expect_as_on_the_cpu(test::shift_mix_case(at::kFloat, 8, 8, 1, {}, 2));
  expect_as_on_the_cpu(test::shift_mix_case(at::kFloat, 5, 13, 65, {}, 2));
}

TEST_F(CudaSourcesOnCpu, NormaliseAndGateTokens) {
  for (const at::ScalarType type : kDeviceTypes)
    for (const auto& [tokens, channels] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {70, 33}, {33, 192}, {5, 3000}, {3, 9000}})
      for (const DeviceCase& one : test::norm_cases(type, tokens, channels))
        expect_as_on_the_cpu(one);
}

TEST_F(CudaSourcesOnCpu, NormaliseMapsOfEitherLayout) {
  for (const at::ScalarType type : kDeviceTypes)
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast})
      for (const auto& shape : std::vector<std::vector<int64_t>>{
               {1, 6, 1, 1}, {2, 7, 3, 5}, {3, 40, 8, 8}, {1, 33, 9, 11}})
        expect_as_on_the_cpu(test::map_norm_case(type, shape, format));
}

TEST_F(CudaSourcesOnCpu, ComputeWkv6ByChunks) {
  for (const bool causal : {false, true})
    for (const at::ScalarType type : kDeviceTypes) {
      for (const int64_t tokens : {1, 16, 20, 50})
        expect_as_on_the_cpu(test::wkv6_case(type, causal, 2, tokens, 2, 16));
      expect_as_on_the_cpu(test::wkv6_case(type, causal, 1, 20, 3, 7));
    }
  for (const int64_t head : {1, 32, 64, 128}) {
    expect_as_on_the_cpu(test::wkv6_case(at::kFloat, false, 1, 18, 2, head));
    expect_as_on_the_cpu(test::wkv6_case(at::kDouble, false, 1, 18, 1, head));
  }
}

TEST_F(CudaSourcesOnCpu, ComputeWkv6OnTensorCores) {
  for (const bool causal : {false, true})
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
      for (const int64_t tokens : {1, 16, 37})
        expect_as_on_the_cpu(test::wkv6_case(type, causal, 1, tokens, 2, 32));
      // Two stretches, of 9 chunks and of 8 and a part.
      expect_as_on_the_cpu(test::wkv6_case(type, causal, 1, 17 * 16 + 3, 1, 32));
      for (const int64_t head : {48, 64, 80, 96, 128})
        expect_as_on_the_cpu(test::wkv6_case(type, causal, 1, 20, 1, head));
    }
}

// ---- Inputs of any kind ----

/// A case of every operator.
std::vector<DeviceCase> one_of_each(at::ScalarType type) {
  std::vector<DeviceCase> all = test::norm_cases(type, 11, 40);
  all.push_back(test::bi_wkv_case(type, 2, 40, 33));
  all.push_back(test::wkv6_case(type, false, 2, 20, 2, 32));
  all.push_back(test::wkv6_case(type, true, 2, 20, 2, 12));
  all.push_back(test::shift_case(type, 5, 4, 36, {}));
  all.push_back(test::shift_mix_case(type, 5, 4, 36, {}, 3));
  all.push_back(test::map_norm_case(type, {2, 20, 5, 4}, at::MemoryFormat::Contiguous));
  return all;
}

TEST_F(CudaSourcesOnCpu, TakeInputsWithGapsAndAtOddAddresses) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (DeviceCase one : one_of_each(type)) {
      const test::Tensors inputs = one.inputs;
      for (at::Tensor& x : one.inputs) x = at::stack({x + 1, x}, -1).select(-1, 1);
      expect_as_on_the_cpu(one);
      for (size_t i = 0; i < inputs.size(); ++i)
        one.inputs[i] = at::cat({at::zeros({1}, inputs[i].options()), inputs[i].flatten()})
                            .narrow(0, 1, inputs[i].numel())
                            .view(inputs[i].sizes());
      expect_as_on_the_cpu(one);
    }
}

TEST_F(CudaSourcesOnCpu, TakeEmptyInputs) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (DeviceCase one : one_of_each(type)) {
      for (at::Tensor& x : one.inputs)
        if (x.dim() > 2) x = x.narrow(0, 0, 0);
      expect_as_on_the_cpu(one);
    }
}

// float64 of large heads does not fit on a GPU of compute capability 8.6.
TEST_F(CudaSourcesOnCpu, SayWhenAGpuHasTooLittleSharedMemory) {
  const DeviceCase one = test::wkv6_case(at::kDouble, false, 1, 18, 1, 128);
  const CudaSources sources;
  device().major = 8;
  EXPECT_NO_THROW(test::results_of(one, at::kCPU));
  device().minor = 6;
  try {
    test::results_of(one, at::kCPU);
    FAIL() << "nothing was refused";
  } catch (const c10::Error& error) {
    EXPECT_NE(
        std::string(error.what()).find("bytes of shared memory per block, this GPU has 101376"),
        std::string::npos)
        << error.what();
  }
}

// ---- What runs them ----

class CudaMachine : public ::testing::Test {
 protected:
  void SetUp() override { device() = {}; }

  /// What the machine says of a kernel.
  static std::string complaint(const cuda_on_cpu::Launch& launch,
                               const std::function<void()>& thread) {
    for (const Order order : {Order::kForward, Order::kBackward, Order::kShuffled}) {
      device().order = order;
      try {
        cuda_on_cpu::run(launch, {}, thread);
      } catch (const std::runtime_error& error) {
        return error.what();
      }
    }
    return "";
  }
};

using cuda_on_cpu::thread_index;
using ::testing::HasSubstr;

void sync(const Place& place = Place::current()) {
  cuda_on_cpu::meet_block(place);
}

TEST_F(CudaMachine, RefusesBarriersThatSomeThreadsDoNotReach) {
  const auto all = [] { sync(); };
  const auto one_leaves = [] {
    if (thread_index.x != 5) sync();
  };
  const auto elsewhere = [] {
    if (thread_index.x < 32) sync();
    if (thread_index.x >= 32) sync();
  };
  const auto some_wait_for_the_warp = [] {
    if (thread_index.x % 2 == 0) sync();
    cuda_on_cpu::meet_warp<int>(
        0, [](int*) {}, Place::current());
  };
  EXPECT_EQ(complaint({3, 64}, all), "");
  EXPECT_THAT(complaint({3, 64}, one_leaves),
              AnyOf(HasSubstr("ends while others of its block wait"),
                    HasSubstr("for threads of its block that have ended")));
  EXPECT_THAT(complaint({3, 64}, elsewhere), HasSubstr("others of its block at"));
  EXPECT_THAT(complaint({3, 64}, some_wait_for_the_warp), HasSubstr("no thread can go on"));
}

TEST_F(CudaMachine, ShowsMissingBarriersByTheOrderOfThreads) {
  // Every thread reads what its neighbour wrote.
  const auto result = [](Order order, bool barrier) {
    device().order = order;
    std::array<float, 64> read{};
    cuda_on_cpu::run({1, 64}, {}, [&] {
      static const char tag = 0;
      auto* x = static_cast<float*>(cuda_on_cpu::block_memory(&tag, 64 * sizeof(float)));
      const unsigned i = thread_index.x;
      x[i] = static_cast<float>(i);
      if (barrier) sync();
      read[i] = x[(i + 1) % 64];
    });
    return read;
  };
  EXPECT_EQ(result(Order::kForward, true), result(Order::kBackward, true));
  EXPECT_EQ(result(Order::kForward, true), result(Order::kShuffled, true));
  EXPECT_TRUE(std::isnan(result(Order::kForward, false)[0]));
  EXPECT_TRUE(std::isnan(result(Order::kBackward, false)[63]));
}

#if !defined(__SANITIZE_ADDRESS__)
TEST_F(CudaMachine, FindsWritesBeyondSharedMemory) {
  cuda_on_cpu::Launch launch{1, 32};
  launch.shared_bytes = 32;
  EXPECT_THAT(
      complaint(launch, [] { static_cast<char*>(cuda_on_cpu::block_memory(nullptr, 0))[32] = 1; }),
      HasSubstr("beyond what it has of shared memory"));
}
#endif

TEST_F(CudaMachine, RefusesLaunchesThatNoGpuTakes) {
  const auto nothing = [] {};
  EXPECT_THAT(complaint({1, {64, 17}}, nothing), HasSubstr("a block of 1088 threads"));
  EXPECT_THAT(complaint({0, 32}, nothing), HasSubstr("a grid of 0"));
  EXPECT_THAT(complaint({{1, 65536}, 32}, nothing), HasSubstr("a grid of 1 x 65536"));
  EXPECT_THAT(complaint({1, 32, 50000}, nothing), HasSubstr("50000 bytes of shared memory"));
  EXPECT_THAT(complaint({16, 32, 0, 16}, nothing), HasSubstr("a cluster of 16"));
  EXPECT_THAT(complaint({12, 32, 0, 8}, nothing), HasSubstr("a cluster of 8"));
  EXPECT_THAT(complaint({1, 32},
                        [] {
                          static const char tag = 0;
                          cuda_on_cpu::block_memory(&tag, 50000);
                        }),
              HasSubstr("50000 bytes of shared memory"));
  device().major = 8;
  EXPECT_THAT(complaint({8, 32, 0, 8}, nothing), HasSubstr("before compute capability 9.0"));
}

TEST_F(CudaMachine, RefusesMemoryOfBlocksThatHaveEnded) {
  const auto read = [](bool wait) {
    return [wait] {
      static const char tag = 0;
      auto* mine = static_cast<float*>(cuda_on_cpu::block_memory(&tag, sizeof(float)));
      *mine = 1;
      cuda_on_cpu::meet_cluster(Place::current());
      cuda_on_cpu::memory_of_rank(mine, 1 - cuda_on_cpu::rank_in_cluster());
      if (wait) cuda_on_cpu::meet_cluster(Place::current());
    };
  };
  EXPECT_EQ(complaint({2, 1, 0, 2}, read(true)), "");
  EXPECT_THAT(complaint({2, 1, 0, 2}, read(false)), HasSubstr("of a block that has ended"));
}

TEST_F(CudaMachine, ShowsMissingBarriersOfClusters) {
  // Every block counts up what it has, twice, and reads what the other one has in between.
  const auto result = [](Order order, bool barrier) {
    device().order = order;
    std::array<int, 2> read{};
    cuda_on_cpu::run({2, 64, 0, 2}, {}, [&] {
      static const char tag = 0;
      auto* mine = static_cast<int*>(cuda_on_cpu::block_memory(&tag, sizeof(int)));
      const unsigned rank = cuda_on_cpu::rank_in_cluster();
      for (int round = 0; round < 2; ++round) {
        sync();
        if (thread_index.x == 0) *mine = round;
        cuda_on_cpu::meet_cluster(Place::current());
        if (round == 0 && thread_index.x == 0)
          read[rank] = *static_cast<int*>(cuda_on_cpu::memory_of_rank(mine, 1 - rank));
        if (barrier) cuda_on_cpu::meet_cluster(Place::current());
      }
    });
    return read;
  };
  for (const Order order : {Order::kForward, Order::kBackward, Order::kShuffled})
    EXPECT_EQ(result(order, true), (std::array<int, 2>{0, 0}));
  EXPECT_EQ(result(Order::kForward, false), (std::array<int, 2>{1, 0}));
  EXPECT_EQ(result(Order::kBackward, false), (std::array<int, 2>{0, 1}));
}

}  // namespace
}  // namespace vireo
