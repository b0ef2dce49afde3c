#include "kernels/cpu_isa.h"

#include <cstdlib>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace vireo {
namespace {

/// Whether the processor has tiles for bfloat16 and the system lets this process use them.
bool has_amx() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kOsxsave = 1u << 27, kBf16 = 1u << 22, kTile = 1u << 24;
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kOsxsave)) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kBf16) || !(d & kTile)) return false;
  constexpr unsigned kTileState = 3u << 17;  // the layout of tiles and their contents
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & kTileState) != kTileState) return false;
  // Linux hands out the contents' 8 KB of every thread to who asks for them.
  constexpr long kAskForState = 0x1023, kTileContents = 18;  // ARCH_REQ_XCOMP_PERM, its feature
  return syscall(SYS_arch_prctl, kAskForState, kTileContents) == 0;
#else
  return false;
#endif
}

#if defined(__x86_64__)
/// Conversions of float16. Clang 14's __builtin_cpu_supports() does not know them.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 29));
}
#endif

CpuIsa best() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  return avx512 ? (has_amx() ? CpuIsa::kAmx : CpuIsa::kAvx512)
         : avx2 ? CpuIsa::kAvx2
                : CpuIsa::kPortable;
#else
  return CpuIsa::kPortable;
#endif
}

CpuIsa chosen() {
  const CpuIsa most = best();
  const char* wish = std::getenv("VIREO_CPU_ISA");
  if (wish != nullptr)
    for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAmx})
      if (isa <= most && std::string_view(wish) == name_of(isa)) return isa;
  return most;
}

}  // namespace

CpuIsa cpu_isa() {
  static const CpuIsa isa = chosen();
  return isa;
}

const char* name_of(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return "portable";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAmx:
      return "amx";
  }
  return "";
}

}  // namespace vireo
