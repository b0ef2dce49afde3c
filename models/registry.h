#pragma once

#include <memory>
#include <string>
#include <vector>

#include <torch/nn/module.h>

#include "kernels/packed/packed_linear.h"
#include "vision/core/config_table.h"

namespace vireo {

/// A whole network: an image batch [B, C, H, W] in, logits [B, K, H, W] (or [B, K]) out.
class Model : public torch::nn::Module {
 public:
  virtual at::Tensor forward(const at::Tensor& image) = 0;
  virtual int64_t input_channels() const = 0;
  virtual int64_t class_count() const = 0;
  /// A classifier gives logits [B, K], all others [B, K, H, W].
  virtual bool classifies() const { return false; }
  /// Names (or prefixes ending in '*') that published weight files hold though the network never
  /// uses them.
  virtual bool is_known_unused(const std::string& state_name) const { return state_name.empty(); }
  /// This network, of float32 on the CPU, as inference.h describes; null: there is none.
  virtual std::shared_ptr<Model> inference_form(Arithmetic) const { return nullptr; }
};

/// Input channels and classes come from the data set unless the configuration fixes them.
struct ModelShape {
  int64_t input_channels = 0;
  int64_t class_count = 0;
};

/// Builds the network that a [model] table describes (`name` = "rwkv_unet_t", ... or the family's
/// name with a free configuration). Throws UsageError "unknown model NAME" listing the known ones,
/// and ConfigError for wrong keys. The table is finished (unknown keys refused) by this call.
std::shared_ptr<Model> create_model(ConfigTable& table, const ModelShape& shape);

struct ModelEntry {
  std::string name;
  std::string summary;
};
const std::vector<ModelEntry>& known_models();

}  // namespace vireo
