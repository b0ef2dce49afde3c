#pragma once

#include <c10/core/DeviceType.h>

namespace vireo {

/// While it lives, operators for which that is known to be safe run in bfloat16, if `on`.
class Autocast {
 public:
  Autocast(bool on, at::DeviceType device);
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  bool on_;
  at::DeviceType device_;
};

}  // namespace vireo
