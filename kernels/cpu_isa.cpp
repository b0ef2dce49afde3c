#include "kernels/cpu_isa.h"

#include <cstdlib>
#include <string_view>

namespace vireo {
namespace {

CpuIsa best() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  return avx512 ? CpuIsa::kAvx512 : avx2 ? CpuIsa::kAvx2 : CpuIsa::kPortable;
#else
  return CpuIsa::kPortable;
#endif
}

CpuIsa chosen() {
  const CpuIsa most = best();
  const char* wish = std::getenv("VIREO_CPU_ISA");
  if (wish != nullptr)
    for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512})
      if (isa <= most && std::string_view(wish) == name_of(isa)) return isa;
  return most;
}

}  // namespace

CpuIsa cpu_isa() {
  static const CpuIsa isa = chosen();
  return isa;
}

const char* name_of(CpuIsa isa) {
  return isa == CpuIsa::kAvx512 ? "avx512" : isa == CpuIsa::kAvx2 ? "avx2" : "portable";
}

}  // namespace vireo
