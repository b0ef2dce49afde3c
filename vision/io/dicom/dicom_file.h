#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vision/image/geometry.h"

// One DICOM file: what its header says of its images, and their pixels. By DCMTK; JPEG 2000 by
// OpenJPEG.
namespace vireo {

/// One 2-D image: the whole of a single-frame file, or a frame of a multi-frame one, whose
/// functional groups are resolved here. Attributes by the names of DICOM PS3.3.
struct DicomFrame {
  int64_t index = 0;                       ///< from 0, within the file
  std::optional<Vector3> position_lps_mm;  ///< centre of the first pixel
  /// Unit vectors along which the column index x and the row index y grow.
  std::optional<std::array<Vector3, 2>> axes_lps_xy;
  std::optional<std::array<double, 2>> spacing_mm_yx;
  double slope = 1, intercept = 0;
  /// What keeps frames apart that lie at one place: echo, time point, b-value, phase, ...
  std::string kind;
  /// What orders frames of one kind at one place, by FrameMoment; NaN where it is not told, empty
  /// where nothing is.
  std::vector<double> moments;
  /// Why position, axes or spacing are not known: the attribute and what it holds. Empty: they are.
  std::string unplaced;
};

/// Trigger time, reference time, acquisition time, ..., then DimensionIndexValues one by one.
enum FrameMoment {
  kTriggerTime,
  kTriggerDelay,
  kReferenceTime,
  kAcquisitionTime,
  kAcquisitionNumber,
  kDimensions
};

struct DicomFile {
  std::filesystem::path path;
  std::string sop_class_uid, sop_instance_uid, series_uid, study_uid, frame_of_reference_uid;
  std::string transfer_syntax_uid;
  std::string patient_id, modality;
  std::string series_description;  ///< UTF-8
  std::string image_type;          ///< values joined by '\'
  int64_t series_number = 0, instance_number = 0;
  double slice_thickness_mm = 0;  ///< 0: not told

  int64_t rows = 0, columns = 0;
  int samples = 1;          ///< per pixel, as stored
  std::string photometric;  ///< PhotometricInterpretation
  int bits_allocated = 0, bits_stored = 0;
  bool is_signed = false;
  bool has_modality_lut = false;
  /// Of pixels, beyond those that the header declares; trailing zeros and less than a row count as
  /// none.
  int64_t surplus_bytes = 0;
  std::vector<DicomFrame> frames;

  /// A scout view, which is no slice of a volume.
  bool is_localizer() const;
  /// A slice of a scanner (CT, MR, PT), which has a place in the patient, not a picture.
  bool is_tomographic() const;
  /// MONOCHROME1 whose values are turned round. Those of CT and PT stay: they have a unit, and how
  /// a viewer shows them does not change what they mean.
  bool is_inverted() const;
  /// 1 for grey, 3 for colour and palettes.
  int channels() const { return photometric == "PALETTE COLOR" || samples >= 3 ? 3 : 1; }
};

/// Reads everything but the pixels. Throws DataError naming the file when it is not DICOM, is cut
/// off or holds no image, when it declares more pixels than its bytes can hold, or when a place, a
/// spacing, a rescaling or the number of frames is written as no number.
DicomFile read_dicom_header(const std::filesystem::path& path);

/// The SeriesInstanceUID of a file that read_dicom_header() refuses: nothing where the file breaks
/// off before it, empty where it has none or is no image.
std::optional<std::string> series_uid_of_broken(const std::filesystem::path& path);

/// A file's pixels, read and unpacked once, and held as they are stored. Copies share them.
class DicomPixels {
 public:
  /// Throws DataError when they are cut off or cannot be decoded.
  explicit DicomPixels(const DicomFile& file);

  /// A frame as float32 [channels, Y, X], in the units of the file: rescaled by the frame's slope
  /// and intercept, or by the modality lookup table. MONOCHROME1 is turned round within the stored
  /// range, so that large is bright, but for CT and PT (DicomFile::is_inverted()) and behind a
  /// lookup table. Padding (PixelPaddingValue) keeps its stored value. Palettes and YBR become
  /// R, G, B.
  at::Tensor frame(int64_t index) const;

 private:
  struct Stored;
  std::shared_ptr<const Stored> stored_;
};

/// All frames of a file, [frames, channels, Y, X]. Throws as DicomPixels.
at::Tensor read_dicom_pixels(const DicomFile& file);

}  // namespace vireo
