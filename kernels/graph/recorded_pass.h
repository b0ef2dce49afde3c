#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/graph/graph_stream.h"

namespace vireo {

/// A function of tensors that a GPU is asked for again and again: recorded after its first calls,
/// one recording for each kind of inputs (sizes, strides, types), then repeated without launching
/// its operations one by one.
///
/// Every recording is tried beside the function itself, from the same state and with the same
/// random numbers, before it is relied on. Where it does not give the same, or the function cannot
/// be recorded, that is said once and the function is called from then on.
class RecordedPass {
 public:
  using Tensors = std::vector<at::Tensor>;
  /// Must not read tensors back to the CPU, nor depend on anything but its inputs, tensors that
  /// stay where they are, and the device's random numbers.
  using Function = std::function<Tensors(const Tensors& inputs)>;

  /// `state`: the tensors that the function changes in place. `stream` null: the function is called
  /// each time. `complain` is given the reason where recording is given up.
  RecordedPass(Function function,
               Tensors state,
               std::unique_ptr<GraphStream> stream,
               std::function<void(const std::string&)> complain);

  /// The function's results. The next call with inputs of the same kind may overwrite them.
  Tensors operator()(const Tensors& inputs);

  /// Calls that were answered by repeating a recording.
  int64_t repeated() const { return repeated_; }

  /// Calls before a kind of inputs is recorded: libraries choose their algorithms in them.
  static constexpr int64_t kPlainCalls = 2;
  /// Kinds of inputs that are recorded; each keeps the memory of a pass.
  static constexpr size_t kMostRecordings = 4;

 private:
  struct Kind {
    int64_t calls = 0;
    Tensors inputs, outputs;
    std::unique_ptr<Recording> recording;
  };

  Tensors call(const Tensors& inputs);
  Tensors record(Kind& kind, const Tensors& inputs);
  void give_up(const std::string& why);

  Function function_;
  Tensors state_;
  std::unique_ptr<GraphStream> stream_;
  std::function<void(const std::string&)> complain_;
  std::map<std::string, Kind> kinds_;
  int64_t repeated_ = 0;
};

}  // namespace vireo
