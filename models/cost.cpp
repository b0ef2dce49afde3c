#include "models/cost.h"

#include <algorithm>
#include <string_view>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/record_function.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

namespace vireo {
namespace {

/// Follows the tensor memory that this thread's operations allocate and free.
class MemoryMeter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device) override {
    current_ += bytes;
    peak_ = std::max(peak_, current_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const { return peak_; }

 private:
  int64_t current_ = 0, peak_ = 0;
};

thread_local int64_t multiply_adds = 0;

int64_t convolution_multiply_adds(c10::ArrayRef<const c10::IValue> inputs) {
  const at::Tensor image = inputs[0].toTensor(), weight = inputs[1].toTensor();
  const auto stride = inputs[3].toIntVector(), padding = inputs[4].toIntVector();
  const auto dilation = inputs[5].toIntVector();
  const int64_t per_output = weight.numel() / weight.size(0);
  int64_t outputs = image.size(0) * weight.size(0);
  for (size_t i = 0; i < stride.size(); ++i) {
    const auto axis = static_cast<int64_t>(i) + 2;
    const int64_t covered = dilation[i] * (weight.size(axis) - 1) + 1;
    outputs *= (image.size(axis) + 2 * padding[i] - covered) / stride[i] + 1;
  }
  return outputs * per_output;
}

/// Multiply-adds of one operator call, from its inputs.
void count(const at::RecordFunction& call) {
  const std::string_view name = call.name();
  const auto inputs = call.inputs();
  const auto tensor = [&](size_t i) { return inputs[i].toTensor(); };
  if (name == "aten::convolution") {
    multiply_adds += convolution_multiply_adds(inputs);
  } else if (name == "aten::mm" || name == "aten::bmm") {
    multiply_adds += tensor(0).numel() * tensor(1).size(-1);
  } else if (name == "aten::addmm" || name == "aten::baddbmm") {
    multiply_adds += tensor(1).numel() * tensor(2).size(-1);
  } else if (name == "vireo::bi_wkv") {
    multiply_adds += tensor(2).numel() * kWkvMultiplyAdds;
  } else if (name == "vireo::wkv6") {
    const int64_t directions = inputs[5].toBool() ? 1 : 2;
    multiply_adds += tensor(1).numel() * tensor(4).size(1) * 2 * directions;
  }
}

/// Counts while it lives.
class CallCounter {
 public:
  CallCounter() {
    multiply_adds = 0;
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(
            [](const at::RecordFunction& call) -> std::unique_ptr<at::ObserverContext> {
              count(call);
              return nullptr;
            })
            .needsInputs(true)
            .scopes({at::RecordScope::FUNCTION}));
  }
  ~CallCounter() { at::removeCallback(handle_); }
  CallCounter(const CallCounter&) = delete;
  CallCounter& operator=(const CallCounter&) = delete;

 private:
  at::CallbackHandle handle_;
};

/// Puts a model's mode, buffers and gradients back.
class Restore {
 public:
  explicit Restore(Model& model) : model_(model), was_training_(model.is_training()) {
    for (const auto& buffer : model.buffers()) buffers_.push_back(buffer.clone());
    for (const auto& parameter : model.parameters()) gradients_.push_back(parameter.grad());
    for (auto& parameter : model.parameters()) parameter.mutable_grad() = at::Tensor();
  }
  ~Restore() {
    const at::NoGradGuard no_grad;
    model_.train(was_training_);
    const auto buffers = model_.buffers();
    for (size_t i = 0; i < buffers.size(); ++i) at::Tensor(buffers[i]).copy_(buffers_[i]);
    auto parameters = model_.parameters();
    for (size_t i = 0; i < parameters.size(); ++i) parameters[i].mutable_grad() = gradients_[i];
  }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

 private:
  Model& model_;
  bool was_training_;
  std::vector<at::Tensor> buffers_, gradients_;
};

template <typename Pass>
int64_t peak_of(Pass pass) {
  const auto meter = std::make_shared<MemoryMeter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  pass();
  return meter->peak();
}

}  // namespace

ModelCost measure_cost(Model& model, const std::vector<int64_t>& shape, bool training) {
  ModelCost cost;
  for (const auto& parameter : model.parameters()) cost.parameters += parameter.numel();
  for (const auto& buffer : model.buffers()) cost.buffer_numbers += buffer.numel();
  const Restore restore(model);
  const auto parameters = model.parameters();  // none in an inference form, which is for float32
  const at::Tensor image =
      at::zeros(shape,
                parameters.empty() ? at::TensorOptions(at::kFloat)
                                   : parameters.front().options().requires_grad(false));

  model.eval();
  {
    const at::NoGradGuard no_grad;
    const CallCounter counter;
    cost.inference_peak_bytes = peak_of([&] { model.forward(image); });
    cost.multiply_adds = multiply_adds;
  }
  if (training) {
    model.train();
    cost.training_peak_bytes = peak_of([&] { model.forward(image).sum().backward(); });
  }
  return cost;
}

}  // namespace vireo
