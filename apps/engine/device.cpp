#include "apps/engine/device.h"

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include <ATen/Context.h>

#include "kernels/cuda_loader.h"
#include "kernels/device_check.h"
#include "vision/core/error.h"
#include "vision/core/log.h"

namespace vireo {

at::Device choose_device(const std::string& device) {
  if (device == "cpu") return at::kCPU;
  if (load_cuda_kernels() && at::hasCUDA()) {
    const at::Device gpu(at::kCUDA, 0);
    static const std::vector<std::string> disagreements = disagreements_with_cpu(gpu);
    if (disagreements.empty()) return gpu;
    const std::string what = "on this GPU the operators do not give what they give on the CPU (" +
                             std::to_string(disagreements.size()) +
                             " checks failed; the first: " + disagreements[0] + ")";
    if (device == "cuda") throw Error(what + "; use --device cpu, and report this");
    log_warning(what + "; the CPU is used");
    return at::kCPU;
  }
  if (device == "cuda")
    throw Error(
        "the device \"cuda\" was asked for, but there is none that is usable; see `vireo info`");
  return at::kCPU;
}

int64_t choose_batch_threads(int64_t asked, at::Device device) {
  if (asked >= 0) return asked;
  const auto cores = static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  return device.is_cuda() ? std::clamp<int64_t>(cores - 1, 1, 12)
                          : std::clamp<int64_t>(cores / 4, 1, 4);
}

}  // namespace vireo
