#pragma once

namespace vireo {

/// The instruction sets that the CPU kernels are compiled for.
enum class CpuIsa { kPortable, kAvx2, kAvx512 };

/// The best one that this processor runs, or the one that the environment variable VIREO_CPU_ISA
/// names (portable, avx2, avx512) when the processor runs it. Decided once per process.
CpuIsa cpu_isa();

/// "portable", "avx2" or "avx512".
const char* name_of(CpuIsa isa);

}  // namespace vireo
