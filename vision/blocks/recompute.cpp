#include "vision/blocks/recompute.h"

#include <memory>
#include <mutex>

#include <ATen/Context.h>
#include <ATen/ThreadLocalState.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace vireo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Part = std::function<at::Tensor(const at::Tensor&)>;

/// What a second run needs to be the same as the first.
struct Setting {
  Part part;
  at::ThreadLocalState state;  ///< gradient mode and autocast of the caller
  at::Generator generator;
  at::Tensor generator_state;
};

at::Tensor state_of(at::Generator generator) {
  const std::lock_guard lock(generator.mutex());
  return generator.get_state();
}

void set_state(at::Generator generator, const at::Tensor& state) {
  const std::lock_guard lock(generator.mutex());
  generator.set_state(state);
}

struct RecomputedFunction : torch::autograd::Function<RecomputedFunction> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const std::shared_ptr<Setting>& setting) {
    context->save_for_backward({x});
    context->saved_data["setting"] =
        c10::IValue::make_capsule(c10::make_intrusive<Holder>(setting));
    return setting->part(x);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto capsule = context->saved_data["setting"].toCapsule();
    const Setting& setting = *static_cast<const Holder&>(*capsule).setting;
    const at::Tensor x = context->get_saved_variables()[0].detach().requires_grad_();
    const at::Tensor now = state_of(setting.generator);
    set_state(setting.generator, setting.generator_state);
    at::Tensor y;
    {
      const at::ThreadLocalStateGuard as_then(setting.state);
      y = setting.part(x);
    }
    set_state(setting.generator, now);
    torch::autograd::backward({y}, {gradients[0]});
    return {x.grad(), at::Tensor()};
  }

 private:
  struct Holder : torch::CustomClassHolder {
    explicit Holder(std::shared_ptr<Setting> given) : setting(std::move(given)) {}
    std::shared_ptr<Setting> setting;
  };
};

}  // namespace

at::Tensor recomputed(const Part& part, const at::Tensor& x) {
  if (!at::GradMode::is_enabled() || !x.requires_grad()) return part(x);
  auto setting = std::make_shared<Setting>();
  setting->part = part;
  setting->generator = at::globalContext().defaultGenerator(x.device());
  setting->generator_state = state_of(setting->generator);
  return RecomputedFunction::apply(x, setting);
}

}  // namespace vireo
