#include "datasets/picture_source.h"
#include "datasets/source.h"
#include "tests/fuzz/fuzz.h"

// One text as a list of cases, and as a list of pictures with classes.
void vireo::fuzz::one_input(std::string_view bytes) {
  const auto list = write_bytes("train.txt", bytes);
  write_bytes("a.png", "");
  read_or_refuse([&] { source::read_list(list); });
  PictureDataConfig config;
  config.folder = scratch();
  config.format = PictureDataConfig::Format::kLists;
  read_or_refuse([&] { read_picture_source(config); });
}
