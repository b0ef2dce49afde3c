#include "tests/fuzz/fuzz.h"
#include "vision/io/segmentation/dcmqi_metadata.h"

void vireo::fuzz::one_input(std::string_view bytes) {
  const auto path = write_bytes("segments.json", bytes);
  read_or_refuse([&] { read_dcmqi_metadata(path); });
}
