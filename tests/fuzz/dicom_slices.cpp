#include <cstring>

#include <ATen/Functions.h>

#include "tests/fuzz/fuzz.h"
#include "vision/io/dicom/dicom_series.h"

namespace vireo::fuzz {
namespace {

// Numbers one after the other; 0 behind the end.
class Numbers {
 public:
  explicit Numbers(std::string_view bytes) : bytes_(bytes) {}
  bool at_end() const { return bytes_.empty(); }
  template <typename T>
  T next() {
    T value{};
    std::memcpy(&value, bytes_.data(), std::min(sizeof value, bytes_.size()));
    bytes_.remove_prefix(std::min(sizeof value, bytes_.size()));
    return value;
  }

 private:
  std::string_view bytes_;
};

}  // namespace

// Slices at any places, on axes along those of the world.
void one_input(std::string_view bytes) {
  Numbers numbers(bytes);
  DicomFile file;
  file.path = scratch() / "a.dcm";
  file.rows = file.columns = 4;
  while (!numbers.at_end() && file.frames.size() < 64) {
    DicomFrame frame;
    frame.index = static_cast<int64_t>(file.frames.size());
    frame.axes_lps_xy = {{Vector3{1, 0, 0}, Vector3{0, 1, 0}}};
    frame.spacing_mm_yx = {1, 1};
    frame.position_lps_mm = Vector3{0, numbers.next<float>(), numbers.next<float>()};
    file.frames.push_back(frame);
  }
  if (file.frames.empty()) return;
  DicomSeries series;
  for (size_t i = 0; i < file.frames.size(); ++i) series.slices.push_back({0, i, 0});
  series.files = {file};
  arrange_slices(series);
}

}  // namespace vireo::fuzz
