#include "datasets/picture_source.h"
#include "tests/fuzz/fuzz.h"

void vireo::fuzz::one_input(std::string_view bytes) {
  write_bytes("labels.csv", bytes);
  write_bytes("a.png", "");
  PictureDataConfig config;
  config.folder = scratch();
  config.format = PictureDataConfig::Format::kCsv;
  for (const bool several : {false, true}) {
    config.multi_label = several;
    read_or_refuse([&] { read_picture_source(config); });
  }
}
