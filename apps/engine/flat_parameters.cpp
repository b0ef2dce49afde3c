#include "apps/engine/flat_parameters.h"

#include <cmath>
#include <tuple>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

constexpr int64_t kGrain = 1 << 15;

at::Tensor part(const at::Tensor& flat, int64_t offset, const std::vector<int64_t>& sizes) {
  return flat.narrow(0, offset, c10::multiply_integers(sizes)).view(sizes);
}

}  // namespace

FlatParameters::FlatParameters(Model& model) {
  const at::NoGradGuard no_grad;
  std::vector<std::pair<std::string, at::Tensor>> trainable, statistics;
  for (const bool with_decay : {true, false})
    for (const auto& item : model.named_parameters()) {
      if ((item.value().dim() >= 2) != with_decay) continue;
      if (item.value().requires_grad())
        trainable.emplace_back(item.key(), item.value());
      else
        statistics.emplace_back(item.key(), item.value());
    }
  for (const auto& item : model.named_buffers()) {
    if (item.value().is_floating_point())
      statistics.emplace_back(item.key(), item.value());
    else
      others_.emplace(item.key(), item.value());
  }
  if (trainable.empty()) throw Error("the model has nothing to train");

  const auto flatten = [&](std::vector<std::pair<std::string, at::Tensor>>& list, bool buffers) {
    int64_t count = 0;
    for (const auto& [name, tensor] : list) {
      if (tensor.scalar_type() != at::kFloat)
        throw Error("training needs float32 weights; " + name + " is not");
      places_.push_back({name, buffers, count, tensor.sizes().vec()});
      count += tensor.numel();
      if (!buffers && tensor.dim() >= 2) decayed = count;
    }
    return at::zeros({count}, trainable[0].second.options().requires_grad(false));
  };
  values = flatten(trainable, false);
  buffers = flatten(statistics, true);
  gradients = at::zeros_like(values);

  size_t i = 0;
  for (auto* list : {&trainable, &statistics})
    for (auto& [name, tensor] : *list) {
      const Place& place = places_[i++];
      at::Tensor view = part(place.is_buffer ? buffers : values, place.offset, place.sizes);
      view.copy_(tensor);
      tensor.set_data(view);
      if (!place.is_buffer) tensor.mutable_grad() = part(gradients, place.offset, place.sizes);
    }
}

std::vector<at::Tensor> FlatParameters::changed_by_passes() const {
  std::vector<at::Tensor> changed{gradients, buffers};
  for (const auto& [name, tensor] : others_) changed.push_back(tensor);
  return changed;
}

std::vector<std::string> FlatParameters::trained_names() const {
  std::vector<std::string> names;
  for (const Place& place : places_)
    if (!place.is_buffer) names.push_back(place.name);
  return names;
}

void FlatParameters::set_rates(const std::map<std::string, double>& rate_of) {
  rates = at::ones_like(values);
  for (const Place& place : places_)
    if (!place.is_buffer) part(rates, place.offset, place.sizes).fill_(rate_of.at(place.name));
}

std::map<std::string, at::Tensor> FlatParameters::named(const at::Tensor& from_values,
                                                        const at::Tensor& from_buffers) const {
  std::map<std::string, at::Tensor> state = others_;
  for (const Place& place : places_)
    state.emplace(place.name,
                  part(place.is_buffer ? from_buffers : from_values, place.offset, place.sizes));
  return state;
}

void FlatParameters::gather(const std::map<std::string, at::Tensor>& state,
                            at::Tensor& to_values,
                            at::Tensor& to_buffers) const {
  const at::NoGradGuard no_grad;
  for (const Place& place : places_)
    part(place.is_buffer ? to_buffers : to_values, place.offset, place.sizes)
        .copy_(state.at(place.name));
}

AdamW::AdamW(const FlatParameters& parameters, const Settings& settings)
    : first_moment(at::zeros_like(parameters.values)),
      second_moment(at::zeros_like(parameters.values)),
      settings_(settings) {}

void AdamW::step_fused(FlatParameters& parameters, double learning_rate, double gradient_scale) {
  const at::NoGradGuard no_grad;
  ++steps;
  const auto scalar = [&](double x) { return at::full({}, x, parameters.values.options()); };
  const at::Tensor step = scalar(static_cast<double>(steps)), divisor = scalar(1 / gradient_scale);
  const int64_t count = parameters.values.numel(), decayed = parameters.decayed;
  for (const auto& [first, size, decay] :
       {std::tuple(int64_t{0}, decayed, settings_.weight_decay), {decayed, count - decayed, 0.0}}) {
    if (size == 0) continue;
    const auto part = [first = first, size = size](const at::Tensor& whole) {
      return std::vector<at::Tensor>{whole.narrow(0, first, size)};
    };
    at::_fused_adamw_(part(parameters.values),
                      part(parameters.gradients),
                      part(first_moment),
                      part(second_moment),
                      {},
                      {step},
                      learning_rate,
                      settings_.beta1,
                      settings_.beta2,
                      decay,
                      settings_.epsilon,
                      /*amsgrad=*/false,
                      /*maximize=*/false,
                      divisor);
  }
}

void AdamW::step(FlatParameters& parameters, double learning_rate, double gradient_scale) {
  if (!parameters.values.is_cpu() && !parameters.rates.defined())
    return step_fused(parameters, learning_rate, gradient_scale);
  const at::NoGradGuard no_grad;
  ++steps;
  const double n = static_cast<double>(steps);
  const double rate = learning_rate / (1 - std::pow(settings_.beta1, n));
  const double root_correction = 1 / std::sqrt(1 - std::pow(settings_.beta2, n));
  const double keep = 1 - learning_rate * settings_.weight_decay;

  if (!parameters.values.is_cpu()) {
    const at::Tensor gradient = parameters.gradients * gradient_scale;
    at::Tensor decayed = parameters.values.narrow(0, 0, parameters.decayed);
    decayed.mul_(1 - parameters.rates.narrow(0, 0, parameters.decayed) * (1 - keep));
    first_moment.lerp_(gradient, 1 - settings_.beta1);
    second_moment.mul_(settings_.beta2).addcmul_(gradient, gradient, 1 - settings_.beta2);
    const at::Tensor scale = second_moment.sqrt().mul_(root_correction).add_(settings_.epsilon);
    parameters.values.addcdiv_(first_moment * parameters.rates, scale, -rate);
    return;
  }

  float* value = parameters.values.mutable_data_ptr<float>();
  const float* gradient = parameters.gradients.const_data_ptr<float>();
  float* first = first_moment.mutable_data_ptr<float>();
  float* second = second_moment.mutable_data_ptr<float>();
  const auto scale = static_cast<float>(gradient_scale), step_rate = static_cast<float>(rate);
  const auto b1 = static_cast<float>(settings_.beta1), b2 = static_cast<float>(settings_.beta2);
  const auto correction = static_cast<float>(root_correction);
  const auto epsilon = static_cast<float>(settings_.epsilon);
  const auto update = [&](int64_t from, int64_t to, auto kept_at, auto rate_at) {
    at::parallel_for(from, to, kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        const float g = gradient[i] * scale;
        first[i] = b1 * first[i] + (1 - b1) * g;
        second[i] = b2 * second[i] + (1 - b2) * g * g;
        value[i] = kept_at(i) * value[i] -
                   rate_at(i) * first[i] / (correction * std::sqrt(second[i]) + epsilon);
      }
    });
  };
  const auto undecayed = [](int64_t) { return 1.f; };
  const int64_t decayed = parameters.decayed, count = parameters.values.numel();
  if (parameters.rates.defined()) {
    const float* rates = parameters.rates.const_data_ptr<float>();
    const auto lost = static_cast<float>(1 - keep);
    const auto rate_at = [=](int64_t i) { return rates[i] * step_rate; };
    update(
        0, decayed, [=](int64_t i) { return 1 - rates[i] * lost; }, rate_at);
    update(decayed, count, undecayed, rate_at);
  } else {
    const auto rate_at = [=](int64_t) { return step_rate; };
    const auto kept = static_cast<float>(keep);
    update(
        0, decayed, [=](int64_t) { return kept; }, rate_at);
    update(decayed, count, undecayed, rate_at);
  }
}

WeightAverage::WeightAverage(const FlatParameters& parameters, double decay)
    : values(decay > 0 ? parameters.values.clone() : parameters.values),
      buffers(decay > 0 ? parameters.buffers.clone() : parameters.buffers),
      decay_(decay) {}

void WeightAverage::update(const FlatParameters& parameters) {
  if (!enabled()) return;
  const at::NoGradGuard no_grad;
  ++updates;
  const double n = static_cast<double>(updates);
  const double decay = std::min(decay_, (1 + n) / (10 + n));
  values.lerp_(parameters.values, 1 - decay);
  buffers.lerp_(parameters.buffers, 1 - decay);
}

AverageInPlace::AverageInPlace(FlatParameters& parameters, const WeightAverage& average)
    : parameters_(parameters) {
  if (!average.enabled()) return;
  const at::NoGradGuard no_grad;
  values_ = parameters.values.clone();
  buffers_ = parameters.buffers.clone();
  parameters.values.copy_(average.values);
  parameters.buffers.copy_(average.buffers);
}

AverageInPlace::~AverageInPlace() {
  if (!values_.defined()) return;
  const at::NoGradGuard no_grad;
  parameters_.values.copy_(values_);
  parameters_.buffers.copy_(buffers_);
}

}  // namespace vireo
