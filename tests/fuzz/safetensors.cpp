#include "vision/core/safetensors.h"

#include "tests/fuzz/fuzz.h"

void vireo::fuzz::one_input(std::string_view bytes) {
  const auto path = write_bytes("a.safetensors", bytes);
  read_or_refuse([&] {
    for (const auto& [name, tensor] : SafetensorsFile::open(path).tensors()) look_at(tensor);
  });
}
