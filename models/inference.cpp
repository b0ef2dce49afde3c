#include "models/inference.h"

#include "models/recorded_network.h"
#include "vision/core/error.h"

namespace vireo {

Arithmetic precision_named(const std::string& name) {
  for (const Arithmetic precision :
       {Arithmetic::kFloat32, Arithmetic::kBfloat16, Arithmetic::kInt8})
    if (name == name_of(precision)) return precision;
  throw UsageError("unknown precision " + name + "; known are fp32, bf16, int8");
}

const char* name_of(Arithmetic precision) {
  switch (precision) {
    case Arithmetic::kFloat32:
      return "fp32";
    case Arithmetic::kBfloat16:
      return "bf16";
    case Arithmetic::kInt8:
      return "int8";
  }
  return "";
}

std::shared_ptr<Model> prepare_for_inference(const std::shared_ptr<Model>& model,
                                             Arithmetic precision) {
  const auto parameters = model->parameters();
  const at::Device device = parameters.empty() ? at::kCPU : parameters.front().device();
  const bool in_float = parameters.empty() || parameters.front().scalar_type() == at::kFloat;
  std::shared_ptr<Model> form;
  if (device.is_cpu() && in_float) form = model->inference_form(precision);
  if (device.is_cuda() && precision != Arithmetic::kInt8)
    form = std::make_shared<RecordedNetwork>(
        model, precision == Arithmetic::kBfloat16, graph_stream_of(device));
  if (form) {
    form->eval();
    return form;
  }
  if (precision == Arithmetic::kFloat32) return model;
  throw UsageError(std::string("precision ") + name_of(precision) +
                   (device.is_cpu() ? " is not known to this network" : " is for the CPU alone") +
                   "; use fp32");
}

}  // namespace vireo
