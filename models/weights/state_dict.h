#pragma once

#include <map>
#include <string>
#include <vector>

#include "models/registry.h"

namespace vireo {

struct LoadReport {
  std::vector<std::string> accepted_unused;  ///< names that the model knows and never uses
};

/// Copies `state` (parameters and buffers by their registered names, any floating type) into
/// `model`. Throws Error, naming `source` and listing every name at once that is unknown, missing,
/// of the wrong shape or not of the right kind of number; the model is then unchanged.
LoadReport load_state(Model& model,
                      const std::map<std::string, at::Tensor>& state,
                      const std::string& source);

/// All parameters and buffers by name, detached; they share the model's memory.
std::map<std::string, at::Tensor> state_of(const Model& model);

}  // namespace vireo
