#include <memory>

#include <ATen/ATen.h>
#include <torch/optim/adamw.h>

#include "kernels/bench/aten_forms.h"
#include "kernels/bench/bench.h"
#include "kernels/bench/operator_in_use.h"
#include "models/rwkv_unet.h"
#include "vision/losses/cross_entropy_dice.h"

// RWKV-UNet-T at 224x224, three channels and nine classes, beside the same network with its Bi-WKV
// made of plain ATen operations, or left out.
namespace vireo {
namespace {

constexpr int64_t kClasses = 9, kSide = 224;

std::shared_ptr<RwkvUnet> network(at::Device device) {
  at::manual_seed(1);
  RwkvUnetConfig config = RwkvUnetConfig::preset('T');
  config.in_channels = 3;
  config.classes = kClasses;
  const auto model = std::make_shared<RwkvUnet>(config);
  model->to(device);
  return model;
}

std::function<void()> inference(int64_t batch, at::Device device) {
  const auto model = network(device);
  model->eval();
  const at::Tensor images = at::randn({batch, 3, kSide, kSide}, device);
  return [=] {
    const at::NoGradGuard no_grad;
    model->forward(images);
  };
}

/// Forward, loss, backward and update.
std::function<void()> training_step(int64_t batch, at::Device device) {
  const auto model = network(device);
  const auto optimizer =
      std::make_shared<torch::optim::AdamW>(model->parameters(), torch::optim::AdamWOptions(1e-4));
  const at::Tensor images = at::randn({batch, 3, kSide, kSide}, device);
  const at::Tensor truth =
      at::randint(kClasses, {batch, kSide, kSide}, at::device(device).dtype(at::kByte));
  return [=] {
    optimizer->zero_grad();
    cross_entropy_dice(model->forward(images), truth, {}).total.backward();
    optimizer->step();
  };
}

void measure_all(Bench& bench) {
  const at::Device device = bench.device();
  for (const bool trains : {false, true})
    for (const int64_t batch : {1, 8}) {
      BenchCase c;
      c.name = std::string("RWKV-UNet-T ") + (trains ? "training step, " : "forward, ") +
               shape_text({batch, 3, kSide, kSide}) + ", float32";
      if (!bench.wants(c.name)) continue;
      c.images = batch;
      const auto run = trains ? training_step(batch, device) : inference(batch, device);
      c.ours = {"", run};
      const auto beside = [&](const char* name, decltype(bi_wkv_by_token)* form) {
        c.others.push_back({name, run, [=]() -> std::shared_ptr<void> {
                              return std::make_shared<OperatorInUse>("bi_wkv", form, device.type());
                            }});
      };
      beside("Bi-WKV left out", bi_wkv_left_out);
      beside("Bi-WKV in ATen, by token", bi_wkv_by_token);
      // One pass of it takes seconds.
      if (!trains && batch == 1) beside("Bi-WKV in ATen, quadratic", bi_wkv_quadratic);
      bench.measure(c);
    }
}

}  // namespace
}  // namespace vireo

int main(int argc, char** argv) {
  return vireo::bench_main(argc, argv, "rwkv_unet", vireo::measure_all);
}
