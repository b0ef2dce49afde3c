#include "datasets/npz.h"

#include "datasets/array_file.h"
#include "tests/fuzz/fuzz.h"

void vireo::fuzz::one_input(std::string_view bytes) {
  const auto path = write_bytes("a.npz", bytes);
  read_or_refuse([&] {
    const NpzFile file = NpzFile::open(path);
    for (const std::string& name : file.names()) read_or_refuse([&] { look_at(file.array(name)); });
  });
  read_or_refuse([&] { look_at(read_array_image(path).values); });
}
