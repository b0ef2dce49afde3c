#include "models/weights/pretrained.h"

#include <cmath>

#include <ATen/ATen.h>

#include "models/weights/state_dict.h"
#include "vision/blocks/position_embedding.h"

namespace vireo {
namespace {

bool of_the_head(const std::string& name) {
  for (const char* part : {"head.", "fc.", "classifier.", "final_conv."})
    if (name.rfind(part, 0) == 0) return true;
  return false;
}

int64_t side_of(const at::Tensor& positions) {
  const auto side = std::lround(std::sqrt(static_cast<double>(positions.size(1))));
  return side * side == positions.size(1) ? side : 0;
}

bool are_positions(const std::string& name, const at::Tensor& from, const at::Tensor& to) {
  return name.ends_with("pos_embed") && from.dim() == 3 && to.dim() == 3 && from.size(0) == 1 &&
         to.size(0) == 1 && from.size(2) == to.size(2) && side_of(from) > 0 && side_of(to) > 0;
}

}  // namespace

PretrainedReport load_pretrained(Model& model,
                                 std::map<std::string, at::Tensor> state,
                                 const std::string& source) {
  PretrainedReport report;
  for (const auto& [name, target] : state_of(model)) {
    const auto found = state.find(name);
    const bool fits = found != state.end() && found->second.sizes() == target.sizes();
    if (fits) continue;
    if (of_the_head(name)) {
      report.dropped.push_back(name);
      state[name] = target;
    } else if (found != state.end() && are_positions(name, found->second, target)) {
      report.resized.push_back(name);
      const int64_t from = side_of(found->second), to = side_of(target);
      found->second = resize_positions(found->second.to(at::kFloat), from, from, to, to);
    }
  }
  // A head of other names than this model's belongs to the old task as well.
  const auto known = state_of(model);
  for (auto entry = state.begin(); entry != state.end();) {
    const bool old_head = of_the_head(entry->first) && !known.contains(entry->first);
    if (old_head) report.dropped.push_back(entry->first);
    entry = old_head ? state.erase(entry) : std::next(entry);
  }
  load_state(model, state, source);
  return report;
}

}  // namespace vireo
