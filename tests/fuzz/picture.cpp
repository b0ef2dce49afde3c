#include "tests/fuzz/fuzz.h"
#include "vision/io/image_file.h"
#include "vision/io/picture_file.h"

void vireo::fuzz::one_input(std::string_view bytes) {
  const char* name = bytes.starts_with("\xff\xd8")                        ? "a.jpg"
                     : bytes.starts_with("II") || bytes.starts_with("MM") ? "a.tif"
                     : bytes.starts_with("BM")                            ? "a.bmp"
                                                                          : "a.png";
  const auto path = write_bytes(name, bytes);
  read_or_refuse([&] { look_at(read_image(path).values); });
  read_or_refuse([&] { io::read_upright_picture(path); });
}
