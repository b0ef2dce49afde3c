#include "vision/io/dicom/dicom_file.h"

#include <cmath>
#include <fstream>
#include <limits>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "vision/core/error.h"
#include "vision/io/dicom/dicom_dataset.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMostBytesPerByte = 2048;  // of a compressed image, beyond what is always allowed
constexpr int64_t kAlwaysAllowedBytes = int64_t{64} << 20;
constexpr Uint32 kLongestValueKept = 4096;
constexpr int64_t kMostFrames = 1 << 20;

DcmItem* first_item(DcmItem* within, const DcmTagKey& sequence) {
  DcmItem* item = nullptr;
  if (within == nullptr || within->findAndGetSequenceItem(sequence, item).bad()) return nullptr;
  return item;
}

std::optional<Vector3> vector_from(const std::vector<double>& values, size_t first) {
  if (values.size() < first + 3) return std::nullopt;
  return Vector3{values[first], values[first + 1], values[first + 2]};
}

std::optional<std::array<Vector3, 2>> axes_from(const std::vector<double>& values) {
  std::optional<Vector3> x = vector_from(values, 0), y = vector_from(values, 3);
  if (!x || !y) return std::nullopt;
  double dot = 0;
  for (Vector3* axis : {&*x, &*y}) {
    const double length = std::hypot((*axis)[0], (*axis)[1], (*axis)[2]);
    if (!(std::abs(length - 1) < 1e-2)) return std::nullopt;
    for (double& component : *axis) component /= length;
  }
  for (int i = 0; i < 3; ++i) dot += (*x)[i] * (*y)[i];
  if (std::abs(dot) > 1e-2) return std::nullopt;
  for (int i = 0; i < 3; ++i) (*y)[i] -= dot * (*x)[i];
  const double length = std::hypot((*y)[0], (*y)[1], (*y)[2]);
  for (double& component : *y) component /= length;
  return std::array<Vector3, 2>{*x, *y};
}

// Where a frame's attributes are found: its own functional groups, the shared ones, the data set.
class Places {
 public:
  Places(DcmItem& whole, DcmItem* shared, DcmItem* own) : places_{own, shared}, whole_(whole) {}

  /// A value of the functional group `sequence`, or of the data set itself.
  std::vector<double> numbers(const DcmTagKey& sequence, const DcmTagKey& tag) const {
    for (DcmItem* place : places_)
      if (DcmItem* group = first_item(place, sequence)) {
        std::vector<double> values = dicom_numbers(*group, tag);
        if (!values.empty()) return values;
      }
    return dicom_numbers(whole_, tag);
  }
  std::string text(const DcmTagKey& sequence, const DcmTagKey& tag) const {
    for (DcmItem* place : places_)
      if (DcmItem* group = first_item(place, sequence)) {
        const std::string value = dicom_text(*group, tag);
        if (!value.empty()) return value;
      }
    return dicom_text(whole_, tag);
  }

 private:
  std::array<DcmItem*, 2> places_;
  DcmItem& whole_;
};

std::string kind_of(const Places& at) {
  std::string kind;
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) kind += (kind.empty() ? "" : ", ") + std::string(name) + " " + value;
  };
  const auto add_numbers = [&](const char* name, const DcmTagKey& group, const DcmTagKey& tag) {
    std::string text;
    for (const double value : at.numbers(group, tag)) {
      char number[32];
      std::snprintf(number, sizeof number, "%s%.6g", text.empty() ? "" : "/", value);
      text += number;
    }
    add(name, text);
  };
  const std::string frame_type = at.text(DCM_MRImageFrameTypeSequence, DCM_FrameType);
  add("type",
      frame_type.empty() ? at.text(DCM_CTImageFrameTypeSequence, DCM_FrameType) : frame_type);
  add("stack", at.text(DCM_FrameContentSequence, DCM_StackID));
  add_numbers("echo", DCM_MREchoSequence, DCM_EchoNumbers);
  const bool effective = !at.numbers(DCM_MREchoSequence, DCM_EffectiveEchoTime).empty();
  add_numbers("TE", DCM_MREchoSequence, effective ? DCM_EffectiveEchoTime : DCM_EchoTime);
  add_numbers("TI", DCM_MRModifierSequence, DCM_InversionTime);
  add_numbers("time", DCM_FrameContentSequence, DCM_TemporalPositionIndex);
  add_numbers("time", DCM_FrameContentSequence, DCM_TemporalPositionIdentifier);
  add_numbers("b", DCM_MRDiffusionSequence, DCM_DiffusionBValue);
  add_numbers("gradient", DCM_MRDiffusionSequence, DCM_DiffusionGradientOrientation);
  return kind;
}

DicomFrame frame_of(const Places& at, int64_t index) {
  DicomFrame frame;
  frame.index = index;
  frame.position_lps_mm =
      vector_from(at.numbers(DCM_PlanePositionSequence, DCM_ImagePositionPatient), 0);
  frame.axes_lps_xy =
      axes_from(at.numbers(DCM_PlaneOrientationSequence, DCM_ImageOrientationPatient));
  std::vector<double> spacing = at.numbers(DCM_PixelMeasuresSequence, DCM_PixelSpacing);
  if (spacing.size() != 2) spacing = at.numbers(DCM_PixelMeasuresSequence, DCM_ImagerPixelSpacing);
  if (spacing.size() == 2 && spacing[0] > 0 && spacing[1] > 0)
    frame.spacing_mm_yx = {spacing[0], spacing[1]};
  const auto slope = at.numbers(DCM_PixelValueTransformationSequence, DCM_RescaleSlope);
  const auto intercept = at.numbers(DCM_PixelValueTransformationSequence, DCM_RescaleIntercept);
  // A slope of zero would wipe the image out; writers leave it where they mean "none".
  if (!slope.empty() && slope[0] != 0 && std::isfinite(slope[0])) frame.slope = slope[0];
  if (!intercept.empty() && std::isfinite(intercept[0])) frame.intercept = intercept[0];
  frame.kind = kind_of(at);
  return frame;
}

// A multi-frame image without functional groups may tell its frames' places by offsets along the
// normal (RTDOSE) or even steps (NM). Else the frames lie nowhere: they are moments in time.
void place_plain_frames(DcmItem& item, std::vector<DicomFrame>& frames) {
  const std::vector<double> offsets = dicom_numbers(item, DCM_GridFrameOffsetVector);
  const std::vector<double> step = dicom_numbers(item, DCM_SpacingBetweenSlices);
  const bool has_offsets = offsets.size() == frames.size();
  const DicomFrame first = frames[0];
  if (!first.position_lps_mm || !first.axes_lps_xy || (!has_offsets && step.empty())) {
    if (frames.size() > 1)
      for (DicomFrame& frame : frames) frame.position_lps_mm.reset();
    return;
  }
  const auto& [x, y] = *first.axes_lps_xy;
  const Vector3 normal{
      x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]};
  for (size_t i = 0; i < frames.size(); ++i)
    for (int axis = 0; axis < 3; ++axis)
      (*frames[i].position_lps_mm)[axis] +=
          normal[axis] * (has_offsets ? offsets[i] - offsets[0] : step[0] * static_cast<double>(i));
}

// Places beyond these are no places, and what is computed from them overflows.
void check_places(const DicomFile& file) {
  constexpr double kMostMm = 1e6, kLeastSpacingMm = 1e-6;
  for (const DicomFrame& frame : file.frames) {
    if (frame.position_lps_mm)
      for (const double value : *frame.position_lps_mm)
        if (!(std::abs(value) <= kMostMm))
          throw DataError(file.path,
                          "frame " + std::to_string(frame.index + 1) +
                              " lies more than a kilometre away (ImagePositionPatient)");
    if (frame.spacing_mm_yx)
      for (const double value : *frame.spacing_mm_yx)
        if (!(value >= kLeastSpacingMm && value <= kMostMm))
          throw DataError(file.path, "PixelSpacing is no distance between pixels");
  }
}

void read_frames(DcmItem& item, int64_t count, DicomFile& file) {
  DcmItem* shared = first_item(&item, DCM_SharedFunctionalGroupsSequence);
  DcmSequenceOfItems* groups = nullptr;
  const bool per_frame =
      item.findAndGetSequence(DCM_PerFrameFunctionalGroupsSequence, groups).good();
  if (per_frame && static_cast<int64_t>(groups->card()) != count)
    throw DataError(file.path,
                    "declares " + std::to_string(count) + " frame(s) but describes " +
                        std::to_string(groups->card()) + " (PerFrameFunctionalGroupsSequence)");
  if (per_frame) {
    // By the list's own order: to ask for the i-th counts through those before it.
    DcmObject* own = nullptr;
    while ((own = groups->nextInContainer(own)) != nullptr)
      file.frames.push_back(frame_of(Places(item, shared, dynamic_cast<DcmItem*>(own)),
                                     static_cast<int64_t>(file.frames.size())));
    return;
  }
  file.frames.assign(static_cast<size_t>(count), frame_of(Places(item, shared, nullptr), 0));
  for (int64_t i = 0; i < count; ++i) file.frames[static_cast<size_t>(i)].index = i;
  if (count > 1) place_plain_frames(item, file.frames);
}

// Refuses what the file's own bytes cannot hold, before anything of that size is made.
void check_pixels(DcmItem& item, const DicomFile& file, int64_t frames, uint64_t file_bytes) {
  const auto limit = std::numeric_limits<int32_t>::max();
  if (file.rows < 1 || file.columns < 1 || file.rows > 65535 || file.columns > 65535)
    throw DataError(file.path,
                    "declares an image of " + std::to_string(file.columns) + " x " +
                        std::to_string(file.rows) + " pixels (Columns, Rows)");
  const int bits = file.bits_allocated;
  if (bits != 1 && bits != 8 && bits != 16 && bits != 32 && bits != 64)
    throw DataError(file.path,
                    "BitsAllocated is " + std::to_string(bits) +
                        "; 1, 8, 16, 32 or 64 "
                        "was expected");
  if (file.bits_stored < 1 || file.bits_stored > bits)
    throw DataError(file.path,
                    "BitsStored is " + std::to_string(file.bits_stored) + ", BitsAllocated " +
                        std::to_string(bits));
  if (file.samples != 1 && file.samples != 3 && file.samples != 4)
    throw DataError(
        file.path,
        "SamplesPerPixel is " + std::to_string(file.samples) + "; 1, 3 or 4 was expected");
  const auto pixels = static_cast<double>(file.rows) * static_cast<double>(file.columns) *
                      static_cast<double>(frames);
  const double bytes = pixels * file.samples * bits / 8;
  if (pixels > static_cast<double>(limit) * 64 ||
      bytes > static_cast<double>(kAlwaysAllowedBytes) +
                  static_cast<double>(kMostBytesPerByte) * static_cast<double>(file_bytes))
    throw DataError(file.path,
                    "declares " + std::to_string(static_cast<int64_t>(bytes)) +
                        " bytes of pixels; a file of " + std::to_string(file_bytes) +
                        " bytes cannot hold them");
  DcmElement* element = nullptr;
  for (const DcmTagKey& tag : {DCM_PixelData, DCM_FloatPixelData, DCM_DoubleFloatPixelData})
    if (item.findAndGetElement(tag, element).good()) break;
  if (element == nullptr)
    throw DataError(file.path, "holds no pixels (no PixelData element): it is no image");
  const DcmXfer syntax(file.transfer_syntax_uid.c_str());
  if (syntax.isEncapsulated()) return;
  // Of two neighbours' colours, one is stored.
  const double stored = file.photometric == "YBR_FULL_422" ? bytes * 2 / 3 : bytes;
  const double found = element->getLengthField();
  if (found + 0.5 < std::floor(stored))
    throw DataError(file.path,
                    "is cut off or mis-declared: its pixels take " +
                        std::to_string(static_cast<int64_t>(found)) + " bytes, " +
                        std::to_string(static_cast<int64_t>(stored)) +
                        " were expected from Rows, Columns, frames and bits");
}

}  // namespace

bool DicomFile::is_localizer() const {
  return image_type.find("LOCALIZER") != std::string::npos ||
         image_type.find("SCOUT") != std::string::npos;
}

std::vector<fs::path> dicom_files(const fs::path& path) {
  if (!fs::exists(path)) throw DataError(path, "no such file or folder");
  if (!fs::is_directory(path)) return {path};
  std::vector<fs::path> files;
  for (const auto& entry :
       fs::recursive_directory_iterator(path, fs::directory_options::skip_permission_denied))
    if (entry.is_regular_file() && !entry.path().filename().string().starts_with(".") &&
        entry.path().filename() != "DICOMDIR" && is_dicom(entry.path()))
      files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

bool is_dicom(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  unsigned char bytes[132] = {};
  in.read(reinterpret_cast<char*>(bytes), sizeof bytes);
  const auto count = in.gcount();
  if (count == 132 && std::equal(bytes + 128, bytes + 132, "DICM")) return true;
  if (count < 8) return false;
  // The first element of a file without a prefix: group 2 or 8, a small element number, and a value
  // representation in capitals or (implicit) a short length.
  const auto starts = [&](int group, int element) {
    const bool known = (group == 2 && element <= 0x0016) || (group == 8 && element <= 0x0018);
    const bool explicit_type = std::isupper(bytes[4]) && std::isupper(bytes[5]);
    return known && (explicit_type || (bytes[6] == 0 && bytes[7] == 0));
  };
  return starts(bytes[0] | bytes[1] << 8, bytes[2] | bytes[3] << 8) ||
         starts(bytes[1] | bytes[0] << 8, bytes[3] | bytes[2] << 8);
}

DicomFile read_dicom_header(const fs::path& path) {
  std::error_code failed;
  const uint64_t file_bytes = fs::file_size(path, failed);
  if (failed) throw DataError(path, "cannot be read: " + failed.message());
  DcmFileFormat format;
  load_dicom(path, kLongestValueKept, format);
  DcmDataset& item = *format.getDataset();

  DicomFile file;
  file.path = path;
  file.transfer_syntax_uid = dicom_text(*format.getMetaInfo(), DCM_TransferSyntaxUID);
  if (file.transfer_syntax_uid.empty())
    file.transfer_syntax_uid = DcmXfer(item.getOriginalXfer()).getXferID();
  file.sop_class_uid = dicom_text(item, DCM_SOPClassUID);
  file.sop_instance_uid = dicom_text(item, DCM_SOPInstanceUID);
  file.series_uid = dicom_text(item, DCM_SeriesInstanceUID);
  file.study_uid = dicom_text(item, DCM_StudyInstanceUID);
  file.frame_of_reference_uid = dicom_text(item, DCM_FrameOfReferenceUID);
  file.modality = dicom_text(item, DCM_Modality);
  file.series_description = dicom_text(item, DCM_SeriesDescription);
  file.image_type = dicom_text(item, DCM_ImageType);
  file.series_number = dicom_integer(item, DCM_SeriesNumber, 0);
  file.instance_number = dicom_integer(item, DCM_InstanceNumber, 0);
  const auto thickness = dicom_numbers(item, DCM_SliceThickness);
  const auto step = dicom_numbers(item, DCM_SpacingBetweenSlices);
  for (const auto& values : {step, thickness})
    if (file.slice_thickness_mm <= 0 && !values.empty() && std::isfinite(values[0]))
      file.slice_thickness_mm = std::abs(values[0]);

  if (!item.tagExists(DCM_Rows) || !item.tagExists(DCM_Columns))
    throw DataError(path,
                    "is no image" + (file.modality.empty() ? "" : " (" + file.modality + ")") +
                        ": it has no Rows and Columns");
  file.rows = dicom_integer(item, DCM_Rows, 0);
  file.columns = dicom_integer(item, DCM_Columns, 0);
  file.samples = static_cast<int>(dicom_integer(item, DCM_SamplesPerPixel, 1));
  file.photometric = dicom_text(item, DCM_PhotometricInterpretation);
  file.bits_allocated = static_cast<int>(dicom_integer(item, DCM_BitsAllocated, 0));
  file.bits_stored = static_cast<int>(dicom_integer(item, DCM_BitsStored, file.bits_allocated));
  file.is_signed = dicom_integer(item, DCM_PixelRepresentation, 0) == 1;
  file.has_modality_lut = item.tagExists(DCM_ModalityLUTSequence);
  if (const auto padding = dicom_numbers(item, DCM_PixelPaddingValue); !padding.empty())
    file.padding_value = padding[0];
  const int64_t frames = dicom_integer(item, DCM_NumberOfFrames, 1);
  // Every frame is described by some bytes, compressed ones too.
  if (frames < 1 || frames > kMostFrames || static_cast<uint64_t>(frames) > file_bytes)
    throw DataError(path, "NumberOfFrames is " + std::to_string(frames));
  check_pixels(item, file, frames, file_bytes);
  read_frames(item, frames, file);
  check_places(file);
  return file;
}

}  // namespace vireo
