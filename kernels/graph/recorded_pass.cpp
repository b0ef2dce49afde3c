#include "kernels/graph/recorded_pass.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <sstream>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/Generator.h>
#include <ATen/core/grad_mode.h>

namespace vireo {
namespace {

using Tensors = RecordedPass::Tensors;

// Sums whose order is left to the device differ by rounding, which bfloat16 makes visible.
constexpr double kSame = 2e-2;

std::string kind_of(const Tensors& inputs) {
  std::ostringstream text;
  for (const at::Tensor& x : inputs) text << x.scalar_type() << x.sizes() << x.strides() << ' ';
  return text.str();
}

Tensors clones(const Tensors& tensors) {
  const at::NoGradGuard no_grad;
  Tensors copies;
  for (const at::Tensor& x : tensors) copies.push_back(x.detach().clone());
  return copies;
}

void copy(const Tensors& from, const Tensors& to) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < to.size(); ++i) to[i].detach().copy_(from[i]);
}

bool finite(const Tensors& tensors) {
  for (const at::Tensor& x : tensors)
    if (!x.isfinite().all().item<bool>()) return false;
  return true;
}

/// How far apart two lists are, as the largest share of a tensor's norm.
double apart(const Tensors& found, const Tensors& expected) {
  double most = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const at::Tensor a = found[i].detach().to(at::kDouble),
                     b = expected[i].detach().to(at::kDouble);
    const double difference = (a - b).norm().item<double>();
    if (difference == 0) continue;
    const double share = difference / std::max(b.norm().item<double>(), 1e-30);
    most = std::isfinite(share) ? std::max(most, share) : std::numeric_limits<double>::infinity();
  }
  return most;
}

/// The state of a device's random numbers, put back on demand.
class RandomState {
 public:
  explicit RandomState(at::Device device)
      : generator_(at::globalContext().defaultGenerator(device)) {
    const std::lock_guard lock(generator_.mutex());
    state_ = generator_.get_state();
  }
  void put_back() {
    const std::lock_guard lock(generator_.mutex());
    generator_.set_state(state_);
  }

 private:
  at::Generator generator_;
  at::Tensor state_;
};

}  // namespace

RecordedPass::RecordedPass(Function function,
                           Tensors state,
                           std::unique_ptr<GraphStream> stream,
                           std::function<void(const std::string&)> complain)
    : function_(std::move(function)),
      state_(std::move(state)),
      stream_(std::move(stream)),
      complain_(std::move(complain)) {}

RecordedPass::Tensors RecordedPass::operator()(const Tensors& inputs) {
  if (!stream_) return function_(inputs);
  const auto [found, added] = kinds_.try_emplace(kind_of(inputs));
  Kind& kind = found->second;
  if (kind.recording) {
    copy(inputs, kind.inputs);
    kind.recording->repeat();
    ++repeated_;
    return kind.outputs;
  }
  if (++kind.calls <= kPlainCalls) return call(inputs);
  size_t recordings = 0;
  for (const auto& [name, other] : kinds_) recordings += other.recording != nullptr;
  return recordings < kMostRecordings ? record(kind, inputs) : call(inputs);
}

RecordedPass::Tensors RecordedPass::call(const Tensors& inputs) {
  Tensors outputs;
  stream_->run([&] { outputs = function_(inputs); });
  return outputs;
}

RecordedPass::Tensors RecordedPass::record(Kind& kind, const Tensors& inputs) {
  const Tensors before = clones(state_);
  RandomState random(inputs.at(0).device());
  const Tensors expected = call(inputs);
  const Tensors after = clones(state_);
  // What is not finite cannot be compared: another time.
  if (!finite(expected) || !finite(after)) return expected;

  std::string why;
  try {
    kind.inputs = clones(inputs);
    kind.recording = stream_->record([&] { kind.outputs = function_(kind.inputs); });
    copy(before, state_);
    random.put_back();
    kind.recording->repeat();
    const double most = std::max(apart(kind.outputs, expected), apart(state_, after));
    if (most <= kSame) {
      ++repeated_;
      return kind.outputs;
    }
    std::ostringstream text;
    text << "repeated, it gave something else (off by " << most << " of a tensor's norm)";
    why = text.str();
  } catch (const std::exception& error) {
    why = error.what();
    why = why.substr(0, why.find('\n'));
  }
  copy(after, state_);
  give_up(why);
  return expected;
}

void RecordedPass::give_up(const std::string& why) {
  kinds_.clear();
  stream_.reset();
  complain_(why);
}

}  // namespace vireo
