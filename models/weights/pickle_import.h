#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vireo {

struct ImportedWeights {
  std::map<std::string, at::Tensor> tensors;
  std::vector<std::string> notes;  ///< which part of the file was taken, what was left out
};

/// Reads the state dictionary of a file that torch.save wrote (PyTorch 1.6 or later). Nothing of
/// the file is executed: see pickle_reader.h.
///
/// The dictionary is the one under `entry` ("a.b" for one inside another), or, when `entry` is
/// empty, the file itself or the first of its entries state_dict, model_state_dict, model, net,
/// network, weights that leads to one.
///
/// Sizes are held against the file's before memory is taken. Throws DataError for older formats,
/// TorchScript files, pickled modules, and dictionaries of anything but tensors.
ImportedWeights read_pickled_weights(const std::filesystem::path& path,
                                     const std::string& entry = "");

/// Removes from the names what wrappers put there: `_orig_mod.` anywhere, `module.` in front of all
/// names, and `backbone.` in front of all names when `is_known` knows every name without it and not
/// with it. Adds what was done to `notes`. Throws Error when two names become one.
void strip_wrapper_prefixes(ImportedWeights& weights,
                            const std::function<bool(const std::string&)>& is_known);

}  // namespace vireo
