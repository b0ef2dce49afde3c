#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <c10/core/Device.h>

namespace vireo {

/// The value of the first "name : value" line of /proc/cpuinfo; empty when there is none.
std::string processor_field(const std::string& name);

/// Names of the NVIDIA devices of this machine, whether usable or not.
std::vector<std::string> graphics_cards();

/// What measured times depend on, beside the program.
struct Machine {
  std::string date;       ///< now, UTC, as 2026-11-21T18:00:00Z
  std::string processor;  ///< its name
  std::string isa;        ///< the instruction set that the kernels use: portable, avx2 or avx512
  int64_t cores = 0, threads = 0;
  std::string device;  ///< "cpu", or the name of the NVIDIA device
  std::string torch;   ///< LibTorch's version

  /// One line for a person.
  std::string text() const;
};
Machine this_machine(c10::Device device);

}  // namespace vireo
