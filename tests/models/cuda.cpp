// Whole networks on a GPU against the CPU. Skipped where there is no GPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/cuda_loader.h"
#include "models/inference.h"
#include "models/recorded_network.h"
#include "models/registry.h"
#include "tests/support/deviation.h"
#include "tests/support/test_data.h"

namespace vireo {
namespace {

std::map<std::string, at::Tensor> gradients_of(Model& model,
                                               const at::Tensor& image,
                                               at::Tensor& logits) {
  model.zero_grad();
  logits = model.forward(image);
  const at::Tensor weights = at::arange(logits.numel(), at::kFloat).mul(0.7).sin();
  (logits * weights.view(logits.sizes()).to(logits.device())).sum().backward();
  std::map<std::string, at::Tensor> gradients;
  for (const auto& item : model.named_parameters())
    if (item.value().grad().defined()) gradients[item.key()] = item.value().grad().cpu().clone();
  return gradients;
}

TEST(CudaNetworks, GiveTheCpusLogitsAndGradients) {
  if (!load_cuda_kernels() || !at::hasCUDA()) VIREO_SKIP("no NVIDIA GPU with its driver here");
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setAllowTF32CuBLAS(false);
  at::manual_seed(1);
  for (const std::string toml :
       {"name = \"rwkv_unet_t\"",
        "name = \"rwkv_unet_encoder_t\"",
        "name = \"vision_rwkv\"\nchannels = 64\ndepth = 3\nimage_size = 64",
        "name = \"vision_rwkv6\"\nchannels = 64\ndepth = 3\nheads = 4\nimage_size = 64"}) {
    auto table = ConfigTable::from_text(toml + std::string("\n"), "model.toml");
    const auto model = create_model(table, {3, 4});
    // Running statistics: a batch's own would make the comparison hang on rounding.
    model->eval();
    const at::Tensor image = at::randn({2, 3, 64, 64});
    at::Tensor expected, found;
    const auto on_cpu = gradients_of(*model, image, expected);
    model->to(at::kCUDA);
    const auto on_gpu = gradients_of(*model, image.to(at::kCUDA), found);
    EXPECT_LE(test::deviation(found.cpu(), expected), 1e-4) << toml;
    ASSERT_EQ(on_cpu.size(), on_gpu.size()) << toml;
    double size = 0;
    for (const auto& [name, gradient] : on_cpu)
      size = std::max(size, gradient.abs().max().item<double>());
    for (const auto& [name, gradient] : on_cpu)
      EXPECT_LE((on_gpu.at(name) - gradient).abs().max().item<double>(), 1e-3 * size)
          << toml << ", " << name;
  }
}

TEST(CudaNetworks, RepeatRecordedPassesForEachSizeOfImage) {
  if (!load_cuda_kernels() || !at::hasCUDA()) VIREO_SKIP("no NVIDIA GPU with its driver here");
  at::manual_seed(2);
  const at::NoGradGuard no_grad;
  for (const std::string toml :
       {"name = \"rwkv_unet_t\"",
        "name = \"vision_rwkv\"\nchannels = 64\ndepth = 3\nimage_size = 64",
        "name = \"vision_rwkv6\"\nchannels = 64\ndepth = 3\nheads = 4\nimage_size = 64"}) {
    auto table = ConfigTable::from_text(toml + std::string("\n"), "model.toml");
    const auto model = create_model(table, {3, 4});
    model->eval();
    model->to(at::kCUDA);
    for (const Arithmetic precision : {Arithmetic::kFloat32, Arithmetic::kBfloat16}) {
      const auto form =
          std::dynamic_pointer_cast<RecordedNetwork>(prepare_for_inference(model, precision));
      ASSERT_TRUE(form) << toml;
      for (int i = 0; i < 5; ++i)
        for (const int64_t side : {64, 96}) {
          const at::Tensor image = at::randn({2, 3, side, side}).to(at::kCUDA);
          EXPECT_LE(test::deviation(form->forward(image), model->forward(image)),
                    precision == Arithmetic::kFloat32 ? 1e-4 : 5e-2)
              << toml << ", call " << i << ", side " << side;
        }
      EXPECT_EQ(form->pass().repeated(), 2 * (5 - RecordedPass::kPlainCalls)) << toml;
    }
  }
}

}  // namespace
}  // namespace vireo
