#include "tests/fuzz/fuzz.h"
#include "vision/io/image_file.h"

void vireo::fuzz::one_input(std::string_view bytes) {
  const auto path = write_bytes(bytes.starts_with("NRRD") ? "a.nrrd" : "a.mha", bytes);
  read_or_refuse([&] { read_image_header(path); });
  read_or_refuse([&] { look_at(read_image(path).values); });
}
