#include <memory>

#include <ATen/ATen.h>

#include "kernels/bench/aten_forms.h"
#include "kernels/bench/bench.h"
#include "models/eager_networks.h"
#include "models/inference.h"
#include "vision/losses/cross_entropy_dice.h"

// RWKV-UNet-T at 224x224, three channels and nine classes, beside the same network in plain
// LibTorch (eager_networks.h) with its Bi-WKV made of ATen operations, or left out.
namespace vireo {
namespace {

constexpr int64_t kClasses = 9, kSide = 224;

std::shared_ptr<RwkvUnet> network(at::Device device) {
  at::manual_seed(1);
  RwkvUnetConfig config = RwkvUnetConfig::preset('T');
  config.in_channels = 3;
  config.classes = kClasses;
  config.drop_path = config.ccm_drop_path = 0;
  const auto model = std::make_shared<RwkvUnet>(config);
  model->to(device);
  model->eval();
  return model;
}

at::Tensor images(int64_t batch, at::Device device) {
  return at::randn({batch, 3, kSide, kSide}, device);
}

template <typename Network>
std::function<void()> inference(const std::shared_ptr<Network>& network,
                                int64_t batch,
                                at::Device device) {
  return [network, x = images(batch, device)] {
    const at::NoGradGuard no_grad;
    network->forward(x);
  };
}

/// Forward, loss and backward.
template <typename Network>
std::function<void()> training(const std::shared_ptr<Network>& network,
                               const std::vector<at::Tensor>& parameters,
                               int64_t batch,
                               at::Device device) {
  const at::Tensor truth =
      at::randint(kClasses, {batch, kSide, kSide}, at::device(device).dtype(at::kByte));
  return [=, x = images(batch, device)] {
    for (const at::Tensor& parameter : parameters) parameter.mutable_grad() = at::Tensor();
    cross_entropy_dice(network->forward(x), truth, {}).total.backward();
  };
}

struct Form {
  const char* name;
  eager::Wkv wkv;
  bool once;  ///< a pass takes seconds and gigabytes
};
constexpr Form kForms[] = {
    {"plain LibTorch, Bi-WKV left out", bi_wkv_left_out, false},
    {"plain LibTorch, Bi-WKV by token", eager::exact_token_scan, false},
    {"plain LibTorch, by token, one maximum", bi_wkv_by_token, false},
    {"plain LibTorch, Bi-WKV quadratic", bi_wkv_quadratic, true},
};

std::string case_name(const char* what, int64_t batch, const char* precision) {
  return std::string("RWKV-UNet-T ") + what + ", " + shape_text({batch, 3, kSide, kSide}) + ", " +
         precision;
}

void measure_inference(Bench& bench, int64_t batch, Arithmetic precision) {
  const at::Device device = bench.device();
  BenchCase c;
  c.name = case_name("forward", batch, name_of(precision));
  if (!bench.wants(c.name)) return;
  c.images = batch;
  const auto model = network(device);
  const auto ours = prepare_for_inference(model, precision);
  c.ours = {"", inference(ours, batch, device)};
  if (precision == Arithmetic::kFloat32)
    c.others.push_back({"the trained network", inference(model, batch, device)});
  for (const Form& form : kForms) {
    if (form.once && batch > 1) continue;
    const auto eager = std::make_shared<eager::Unet>(*model, form.wkv);
    const at::NoGradGuard no_grad;
    const at::Tensor x = at::randn({1, 3, 64, 64}, device);
    if (form.wkv != bi_wkv_left_out && precision == Arithmetic::kFloat32)
      check_same(form.name, ours->forward(x), eager->forward(x));
    c.others.push_back({form.name, inference(eager, batch, device)});
  }
  bench.measure(c);
}

void measure_training(Bench& bench, int64_t batch) {
  const at::Device device = bench.device();
  BenchCase c;
  c.name = case_name("forward and backward", batch, "fp32");
  if (!bench.wants(c.name)) return;
  c.images = batch;
  const auto model = network(device);
  model->train();
  c.ours = {"", training(model, model->parameters(), batch, device)};
  for (const Form& form : kForms) {
    if (form.once) continue;
    const auto eager = std::make_shared<eager::Unet>(*model, form.wkv, /*training=*/true);
    c.others.push_back({form.name, training(eager, eager->parameters(), batch, device)});
  }
  bench.measure(c);
}

void measure_all(Bench& bench) {
  for (const int64_t batch : {1, 8}) {
    measure_inference(bench, batch, Arithmetic::kFloat32);
    if (!bench.device().is_cpu()) continue;
    measure_inference(bench, batch, Arithmetic::kBfloat16);
    measure_inference(bench, batch, Arithmetic::kInt8);
  }
  for (const int64_t batch : {1, 4}) measure_training(bench, batch);
}

}  // namespace
}  // namespace vireo

int main(int argc, char** argv) {
  return vireo::bench_main(argc, argv, "rwkv_unet", vireo::measure_all);
}
