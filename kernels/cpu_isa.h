#pragma once

namespace vireo {

/// The instruction sets that the CPU kernels are compiled for. kAmx is kAvx512 with products of
/// bfloat16 on tiles (AMX-BF16).
enum class CpuIsa { kPortable, kAvx2, kAvx512, kAmx };

/// The best one that this processor runs, or the one that the environment variable VIREO_CPU_ISA
/// names (portable, avx2, avx512, amx) when the processor runs it. Decided once per process.
CpuIsa cpu_isa();

/// "portable", "avx2", "avx512" or "amx".
const char* name_of(CpuIsa isa);

}  // namespace vireo
