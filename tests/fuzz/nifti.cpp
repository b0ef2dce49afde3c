#include "tests/fuzz/fuzz.h"
#include "vision/io/image_file.h"

// A .nii or, by its signature, a .nii.gz or a .hdr/.img pair.
void vireo::fuzz::one_input(std::string_view bytes) {
  constexpr size_t kHeader = 348;
  const bool pair = bytes.size() > kHeader && bytes.substr(kHeader - 4, 3) == "ni1";
  if (pair) write_bytes("a.img", bytes.substr(kHeader));
  const auto path = write_bytes(pair                            ? "a.hdr"
                                : bytes.starts_with("\x1f\x8b") ? "a.nii.gz"
                                                                : "a.nii",
                                bytes.substr(0, pair ? kHeader : bytes.size()));
  read_or_refuse([&] { read_image_header(path); });
  read_or_refuse([&] { look_at(read_image(path).values); });
  read_or_refuse([&] { look_at(read_labels(path).values); });
}
