#include "datasets/array_file.h"
#include "datasets/npz.h"
#include "tests/fuzz/fuzz.h"

// The bytes as an array within a sound archive.
void vireo::fuzz::one_input(std::string_view bytes) {
  const std::string array(bytes);
  const auto path = write_bytes("a.npz", zip_of({{"image.npy", array}, {"label.npy", array}}));
  read_or_refuse([&] { look_at(NpzFile::open(path).array("image")); });
  read_or_refuse([&] { look_at(read_array_image(path).values); });
  read_or_refuse([&] { look_at(read_array_labels(path).values); });
}
