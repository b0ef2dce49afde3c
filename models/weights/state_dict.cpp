#include "models/weights/state_dict.h"

#include <ATen/core/grad_mode.h>
#include <c10/util/StringUtil.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

constexpr size_t kListed = 1000;  // lines of one kind in a message

struct Problems {
  std::string title;
  std::vector<std::string> lines;

  std::string text() const {
    if (lines.empty()) return "";
    std::string text = "\n  " + title + " (" + std::to_string(lines.size()) + "):";
    for (size_t i = 0; i < lines.size() && i < kListed; ++i) text += "\n    " + lines[i];
    if (lines.size() > kListed)
      text += "\n    ... and " + std::to_string(lines.size() - kListed) + " more";
    return text;
  }
};

}  // namespace

std::map<std::string, at::Tensor> state_of(const Model& model) {
  std::map<std::string, at::Tensor> state;
  for (const auto& item : model.named_parameters()) state[item.key()] = item.value().detach();
  for (const auto& item : model.named_buffers()) state[item.key()] = item.value().detach();
  return state;
}

LoadReport load_state(Model& model,
                      const std::map<std::string, at::Tensor>& state,
                      const std::string& source) {
  const auto targets = state_of(model);
  LoadReport report;
  Problems unknown{"unknown, in the file alone", {}};
  Problems missing{"missing, in the model alone", {}};
  Problems mismatched{"of another shape or type", {}};
  for (const auto& [name, tensor] : state) {
    const auto target = targets.find(name);
    if (target == targets.end()) {
      if (model.is_known_unused(name))
        report.accepted_unused.push_back(name);
      else
        unknown.lines.push_back(c10::str(name, " ", tensor.sizes()));
      continue;
    }
    if (tensor.sizes() != target->second.sizes())
      mismatched.lines.push_back(
          c10::str(name, ": found ", tensor.sizes(), ", expected ", target->second.sizes()));
    else if (tensor.is_floating_point() != target->second.is_floating_point())
      mismatched.lines.push_back(c10::str(
          name, ": found ", tensor.scalar_type(), ", expected ", target->second.scalar_type()));
  }
  for (const auto& [name, target] : targets)
    if (!state.contains(name)) missing.lines.push_back(c10::str(name, " ", target.sizes()));

  const std::string text = unknown.text() + missing.text() + mismatched.text();
  if (!text.empty())
    throw Error(source + ": the weights do not fit the model of " + std::to_string(targets.size()) +
                " tensors" + text);
  const at::NoGradGuard no_grad;
  for (const auto& [name, target] : targets) at::Tensor(target).copy_(state.at(name));
  return report;
}

}  // namespace vireo
