#include "datasets/source.h"
#include "tests/fuzz/fuzz.h"

// A folder of every layout that a dataset.json describes.
void vireo::fuzz::one_input(std::string_view bytes) {
  static const bool made = [] {
    for (const char* file : {"imagesTr/a_0000.nii.gz", "imagesTr/a.nii.gz", "labelsTr/a.nii.gz"})
      write_bytes(file, "");
    return true;
  }();
  static_cast<void>(made);
  write_bytes("dataset.json", bytes);
  DataConfig config;
  config.folder = scratch();
  read_or_refuse([&] { read_source(config); });
}
