#pragma once

#include <memory>
#include <string>

#include "models/registry.h"

namespace vireo {

/// "fp32", "bf16" or "int8". Throws UsageError for any other.
Arithmetic precision_named(const std::string& name);
const char* name_of(Arithmetic precision);

/// The network in the form that answers fastest: on the CPU its BatchNorms folded, its weights
/// packed for the processor, maps channels-last throughout, and what is between two products kept
/// in the processor's cache. Same answers to about 1e-5 of their size in kFloat32;
/// `models/README.md` says what the other precisions cost. The trained network stays as it is; the
/// form is for evaluation without gradients and does not follow later changes of the weights. On a
/// GPU its pass is recorded (recorded_network.h), in float32 or bfloat16. A network without such a
/// form is returned itself for kFloat32; where a precision is not to be had UsageError says so.
std::shared_ptr<Model> prepare_for_inference(const std::shared_ptr<Model>& model,
                                             Arithmetic precision = Arithmetic::kFloat32);

}  // namespace vireo
