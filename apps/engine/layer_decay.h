#pragma once

#include <map>
#include <string>
#include <vector>

namespace vireo {

/// Factors of the learning rate that fall by `decay` from layer to layer, from 1 at the output down
/// to the input. Layers are told by the parameters' names: `patch_embed`, `pos_embed` and the like
/// are the lowest; then `layers.N` or `blocks.N`, or `stageS.N`, in their order; all else (norms at
/// the end, the head) is the top.
std::map<std::string, double> layer_rates(const std::vector<std::string>& names, double decay);

}  // namespace vireo
