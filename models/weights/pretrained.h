#pragma once

#include <map>
#include <string>
#include <vector>

#include "models/registry.h"

namespace vireo {

struct PretrainedReport {
  std::vector<std::string> dropped;  ///< of the head, made for other classes: it starts anew
  std::vector<std::string> resized;  ///< position embeddings, for another grid
};

/// Copies the weights of a network that was trained for other classes or another image size: the
/// head's tensors (`head.`, `fc.`, `classifier.`, `final_conv.`) are left out where they are of
/// another shape or missing, a position embedding [1, T, C] of another square grid is resized
/// bicubically, and all else must fit. Throws Error, naming `source` and everything that does not.
PretrainedReport load_pretrained(Model& model,
                                 std::map<std::string, at::Tensor> state,
                                 const std::string& source);

}  // namespace vireo
