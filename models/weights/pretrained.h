#pragma once

#include <map>
#include <string>
#include <vector>

#include "models/registry.h"

namespace vireo {

/// What became of every tensor of the model and of the file, by name.
struct PretrainedReport {
  std::vector<std::string> loaded;    ///< of the model, as the file has them
  std::vector<std::string> adapted;   ///< of the model, for another number of input channels
  std::vector<std::string> resized;   ///< of the model: position embeddings, for another grid
  std::vector<std::string> at_start;  ///< of the model, with nothing in the file for them
  std::vector<std::string> left_out;  ///< of the file: its head
  std::vector<std::string> unused;    ///< of the file, known and used by no network of this kind
  std::vector<std::string> notes;     ///< on prefixes of the file's names

  /// One line without an end.
  std::string text() const;
};

/// Copies the weights of a network that was trained for something else:
/// - Other classes: the head's tensors (`head.`, `fc.`, `classifier.`, `final_conv.`) are left out
///   where they are of another shape or missing.
/// - An encoder alone, into a network that has one below `encoder.`: its names with or without that
///   prefix. All of the encoder must be there; its classifier is left out and the rest of the
///   network stays at its start.
/// - Another image size: a position embedding [1, T, C] of another square grid is resized
///   bicubically.
/// - n input channels instead of c: each of the n gets the mean of the first convolution's weights
///   over the c, times c / n. Nothing tells which of the old channels a new one resembles, and the
///   answer to n equal channels is that to c equal ones, so that the layers behind see numbers of
///   the size they were trained on. The stem of RWKV-UNet is as wide as its image has channels: of
///   its units the first min(c, n) are copied; more than c start as they are, with zero weights
///   towards all that was copied, so that they change nothing until they have learnt something.
/// Prefixes of wrappers are removed as strip_wrapper_prefixes does. All else must fit: throws Error
/// naming `source` and everything that does not; the model is then unchanged.
PretrainedReport load_pretrained(Model& model,
                                 std::map<std::string, at::Tensor> state,
                                 const std::string& source);

}  // namespace vireo
