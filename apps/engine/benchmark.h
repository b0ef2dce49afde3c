#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "kernels/bench/timing.h"
#include "models/registry.h"

// What `vireo bench` measures: whole networks, side by side.
namespace vireo {

struct BenchNetwork {
  std::string name;  ///< as it was asked for
  std::shared_ptr<Model> model;
  std::array<int64_t, 2> size_yx{224, 224};  ///< of the images that it is made for
};

/// `what` is the name of a known model, a configuration (.toml; its [model], and the size of its
/// windows or pictures) or a checkpoint (.safetensors; with its weights). Channels and classes of 0
/// are those that are fixed there, else 3 and 9, or for a classifier 1000. Throws UsageError for
/// other names, and for channels or classes beside a checkpoint; ConfigError and DataError where
/// the file does.
BenchNetwork open_bench_network(const std::string& what, int64_t channels, int64_t classes);

/// One thing that a network is timed at.
struct BenchSetting {
  int64_t batch = 1;
  std::array<int64_t, 2> size_yx{224, 224};
  /// "fp32", "bf16" or "int8": of the inference form (inference.h). Training, and bf16 on CUDA, is
  /// under LibTorch's autocast.
  std::string precision = "fp32";
  bool trains = false;  ///< forward, loss, backward and AdamW; else forward alone
};

/// The passes of one network; moves it to the device.
class NetworkPasses {
 public:
  NetworkPasses(const BenchNetwork& network, at::Device device);
  ~NetworkPasses();

  /// Shares the network, and for training its optimiser, with all others of these passes. Throws
  /// UsageError for a precision that there is not.
  std::function<void()> pass(const BenchSetting& setting) const;

 private:
  std::function<void()> inference(const BenchSetting& setting, const at::Tensor& images) const;
  std::function<void()> training_step(const BenchSetting& setting, const at::Tensor& images) const;

  struct State;
  std::shared_ptr<State> state_;
};

struct BenchQuestion {
  std::vector<BenchNetwork> networks;
  std::vector<int64_t> batches{1};
  std::vector<std::string> precisions{"fp32"};
  std::array<int64_t, 2> size_yx{0, 0};  ///< 0: each network's own
  bool trains = false;
  double seconds = 3;  ///< for each setting
  at::Device device = at::kCPU;
};

/// Times every network at every setting, all in turns:
/// {"machine": {...}, "pass", "seconds_each", "networks": [{"name", "parameters", "classes",
///  "image": [C, H, W], "multiply_adds", "settings": [{"batch", "precision", "seconds": {"runs",
///  "min", "low_quartile", "median", "high_quartile", "max"}, "ms_per_image", "images_per_second",
///  "multiply_adds_per_second", "peak_bytes"}]}]}
/// "seconds" are those of a pass; "multiply_adds" those of one image's forward pass; the peak is
/// beyond program, weights and images (and, training, gradients and moments). Can be interrupted.
nlohmann::ordered_json bench_networks(const BenchQuestion& question);

/// The same for a person; "version" is told where the report has it.
std::string bench_text(const nlohmann::ordered_json& report);

/// The first line of such a text: on what, by what and when it was measured.
std::string measured_on(const nlohmann::ordered_json& report);

}  // namespace vireo
