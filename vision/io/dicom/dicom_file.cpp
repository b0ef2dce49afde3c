#include "vision/io/dicom/dicom_file.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <set>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "vision/core/error.h"
#include "vision/io/dicom/dicom_dataset.h"
#include "vision/io/dicom/dicom_deflated.h"

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
  Places(const fs::path& path, DcmItem& whole, DcmItem* shared, DcmItem* own)
      : path_(path), places_{own, shared}, whole_(whole) {}

  /// A value of the functional group `sequence`, or of the data set itself.
  std::vector<double> numbers(const DcmTagKey& sequence, const DcmTagKey& tag) const {
    for (DcmItem* place : places_)
      if (DcmItem* group = first_item(place, sequence)) {
        std::vector<double> values = dicom_numbers(*group, tag);
        if (!values.empty()) return values;
      }
    return dicom_numbers(whole_, tag);
  }
  /// The same; throws DataError where a text stands that is no number.
  std::vector<double> sound_numbers(const DcmTagKey& sequence, const DcmTagKey& tag) const {
    for (DcmItem* place : places_)
      if (DcmItem* group = first_item(place, sequence)) {
        std::vector<double> values = sound_dicom_numbers(path_, *group, tag);
        if (!values.empty()) return values;
      }
    return sound_dicom_numbers(path_, whole_, tag);
  }
  std::string text(const DcmTagKey& sequence, const DcmTagKey& tag) const {
    for (DcmItem* place : places_)
      if (DcmItem* group = first_item(place, sequence)) {
        const std::string value = dicom_text(*group, tag);
        if (!value.empty()) return value;
      }
    return dicom_text(whole_, tag);
  }
  /// The first item of `inner` within the functional group `sequence`.
  DcmItem* inner_item(const DcmTagKey& sequence, const DcmTagKey& inner) const {
    for (DcmItem* place : places_)
      if (DcmItem* item = first_item(first_item(place, sequence), inner)) return item;
    return nullptr;
  }

 private:
  const fs::path& path_;
  std::array<DcmItem*, 2> places_;
  DcmItem& whole_;
};

std::string kind_of(const Places& at) {
  std::string kind;
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) kind += (kind.empty() ? "" : ", ") + std::string(name) + " " + value;
  };
  const auto add_values = [&](const char* name, const std::vector<double>& values) {
    std::string text;
    for (const double value : values) {
      char number[32];
      std::snprintf(number, sizeof number, "%s%.6g", text.empty() ? "" : "/", value);
      text += number;
    }
    add(name, text);
  };
  const auto add_numbers = [&](const char* name, const DcmTagKey& group, const DcmTagKey& tag) {
    add_values(name, at.numbers(group, tag));
  };
  const std::string frame_type = at.text(DCM_MRImageFrameTypeSequence, DCM_FrameType);
  add("type",
      frame_type.empty() ? at.text(DCM_CTImageFrameTypeSequence, DCM_FrameType) : frame_type);
  add("component", at.text(DCM_MRImageFrameTypeSequence, DCM_ComplexImageComponent));
  add("stack", at.text(DCM_FrameContentSequence, DCM_StackID));
  add_numbers("echo", DCM_MREchoSequence, DCM_EchoNumbers);
  const bool effective = !at.numbers(DCM_MREchoSequence, DCM_EffectiveEchoTime).empty();
  add_numbers("TE", DCM_MREchoSequence, effective ? DCM_EffectiveEchoTime : DCM_EchoTime);
  add_numbers("TI", DCM_MRModifierSequence, DCM_InversionTime);
  add_numbers("TI", DCM_MRModifierSequence, DCM_InversionTimes);
  add_numbers("time", DCM_FrameContentSequence, DCM_TemporalPositionIndex);
  add_numbers("time", DCM_FrameContentSequence, DCM_TemporalPositionIdentifier);
  add_numbers("b", DCM_MRDiffusionSequence, DCM_DiffusionBValue);
  if (DcmItem* direction =
          at.inner_item(DCM_MRDiffusionSequence, DCM_DiffusionGradientDirectionSequence))
    add_values("gradient", dicom_numbers(*direction, DCM_DiffusionGradientOrientation));
  else
    add_numbers("gradient", DCM_MRDiffusionSequence, DCM_DiffusionGradientOrientation);
  return kind;
}

// Seconds since midnight, of a time (HHMMSS.F), or since the year 0, counting 31 days a month, of a
// date with one: enough to order by. NaN: it is none.
double seconds_of(const std::string& text, bool with_date) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const size_t start = with_date ? 8 : 0;
  if (digits < start + 2) return NAN;
  const auto number = [&](size_t at, size_t count) {
    return at + count <= digits ? std::stod(text.substr(at, count)) : 0.0;
  };
  double seconds = number(start, 2) * 3600 + number(start + 2, 2) * 60 + number(start + 4, 2);
  if (digits < text.size() && text[digits] == '.') {
    const std::string behind = text.substr(digits + 1, 6);
    const size_t count = std::min(behind.find_first_not_of("0123456789"), behind.size());
    if (count > 0) seconds += std::stod("0." + behind.substr(0, count));
  }
  if (with_date) seconds += 86400 * (31 * (12 * number(0, 4) + number(4, 2)) + number(6, 2));
  return seconds;
}

std::vector<double> moments_of(const Places& at) {
  std::vector<double> moments(kDimensions, NAN);
  const auto set = [&](FrameMoment moment, const std::vector<double>& values) {
    if (!values.empty()) moments[moment] = values[0];
  };
  set(kTriggerTime, at.numbers(DCM_CardiacSynchronizationSequence, DCM_TriggerTime));
  set(kTriggerDelay,
      at.numbers(DCM_CardiacSynchronizationSequence, DCM_NominalCardiacTriggerDelayTime));
  set(kReferenceTime, at.numbers(DCM_FrameContentSequence, DCM_FrameReferenceTime));
  set(kAcquisitionNumber, at.numbers(DCM_FrameContentSequence, DCM_FrameAcquisitionNumber));
  if (std::isnan(moments[kAcquisitionNumber]))
    set(kAcquisitionNumber, at.numbers(DCM_FrameContentSequence, DCM_AcquisitionNumber));
  double& time = moments[kAcquisitionTime];
  time = seconds_of(at.text(DCM_FrameContentSequence, DCM_FrameAcquisitionDateTime), true);
  if (std::isnan(time))
    time = seconds_of(at.text(DCM_FrameContentSequence, DCM_AcquisitionDateTime), true);
  const std::string clock = at.text(DCM_FrameContentSequence, DCM_AcquisitionTime);
  if (std::isnan(time))
    time = seconds_of(at.text(DCM_FrameContentSequence, DCM_AcquisitionDate) + clock, true);
  if (std::isnan(time)) time = seconds_of(clock, false);
  const auto dimensions = at.numbers(DCM_FrameContentSequence, DCM_DimensionIndexValues);
  moments.insert(moments.end(), dimensions.begin(), dimensions.end());
  const bool told =
      std::any_of(moments.begin(), moments.end(), [](double value) { return !std::isnan(value); });
  return told ? moments : std::vector<double>{};
}

// What an attribute holds instead of what was expected.
std::string unplaced_by(const DcmTagKey& tag, const std::string& found, const char* expected) {
  if (found.empty()) return dicom_tag_name(tag) + " is missing";
  return dicom_tag_name(tag) + " is \"" + found + "\"; " + expected + " expected";
}

DicomFrame frame_of(const Places& at, int64_t index) {
  DicomFrame frame;
  frame.index = index;
  frame.position_lps_mm =
      vector_from(at.sound_numbers(DCM_PlanePositionSequence, DCM_ImagePositionPatient), 0);
  frame.axes_lps_xy =
      axes_from(at.sound_numbers(DCM_PlaneOrientationSequence, DCM_ImageOrientationPatient));
  std::vector<double> spacing = at.sound_numbers(DCM_PixelMeasuresSequence, DCM_PixelSpacing);
  if (spacing.size() != 2)
    spacing = at.sound_numbers(DCM_PixelMeasuresSequence, DCM_ImagerPixelSpacing);
  if (spacing.size() == 2 && spacing[0] > 0 && spacing[1] > 0)
    frame.spacing_mm_yx = {spacing[0], spacing[1]};
  if (!frame.position_lps_mm)
    frame.unplaced = unplaced_by(DCM_ImagePositionPatient,
                                 at.text(DCM_PlanePositionSequence, DCM_ImagePositionPatient),
                                 "three numbers were");
  else if (!frame.axes_lps_xy)
    frame.unplaced = unplaced_by(DCM_ImageOrientationPatient,
                                 at.text(DCM_PlaneOrientationSequence, DCM_ImageOrientationPatient),
                                 "two unit vectors at right angles were");
  else if (!frame.spacing_mm_yx)
    frame.unplaced = unplaced_by(DCM_PixelSpacing,
                                 at.text(DCM_PixelMeasuresSequence, DCM_PixelSpacing),
                                 "two positive numbers were");
  const auto slope = at.sound_numbers(DCM_PixelValueTransformationSequence, DCM_RescaleSlope);
  const auto intercept =
      at.sound_numbers(DCM_PixelValueTransformationSequence, DCM_RescaleIntercept);
  // A slope of zero would wipe the image out; writers leave it where they mean "none".
  if (!slope.empty() && slope[0] != 0) frame.slope = slope[0];
  if (!intercept.empty()) frame.intercept = intercept[0];
  frame.kind = kind_of(at);
  frame.moments = moments_of(at);
  return frame;
}

// Nuclear medicine tells the place of a reconstructed stack in the item of its one detector.
void place_by_detector(const fs::path& path, DcmItem& item, DicomFrame& frame) {
  DcmSequenceOfItems* detectors = nullptr;
  if (frame.position_lps_mm || dicom_text(item, DCM_ImageType).find("RECON") == std::string::npos ||
      item.findAndGetSequence(DCM_DetectorInformationSequence, detectors).bad() ||
      detectors->card() != 1)
    return;
  const DicomFrame told = frame_of(Places(path, *detectors->getItem(0), nullptr, nullptr), 0);
  if (!told.position_lps_mm || !told.axes_lps_xy) return;
  frame.position_lps_mm = told.position_lps_mm;
  frame.axes_lps_xy = told.axes_lps_xy;
  frame.unplaced = frame.spacing_mm_yx ? "" : told.unplaced;
}

// What the frames of a multi-frame image run over (FrameIncrementPointer).
std::vector<DcmTagKey> frame_increments(DcmItem& item) {
  std::vector<DcmTagKey> tags;
  DcmElement* element = nullptr;
  if (item.findAndGetElement(DCM_FrameIncrementPointer, element).bad() || element == nullptr)
    return tags;
  DcmTagKey tag;
  auto* pointers = dynamic_cast<DcmAttributeTag*>(element);
  for (unsigned long i = 0; pointers != nullptr && i < pointers->getVM(); ++i)
    if (pointers->getTagVal(tag, i).good()) tags.push_back(tag);
  return tags;
}

// The slice of every frame, from its number; where frames also run over windows, gates or times,
// these become their kind. Empty, and why, where frames are no slices.
std::vector<double> slices_by_increments(DcmItem& item,
                                         std::vector<DicomFrame>& frames,
                                         std::string& why) {
  static const std::map<DcmTagKey, const char*> kKinds = {{DCM_EnergyWindowVector, "energy window"},
                                                          {DCM_DetectorVector, "detector"},
                                                          {DCM_PhaseVector, "phase"},
                                                          {DCM_RRIntervalVector, "RR interval"},
                                                          {DCM_TimeSlotVector, "time slot"},
                                                          {DCM_TimeSliceVector, "time slice"}};
  std::vector<double> slices;
  std::vector<std::string> kinds(frames.size());
  const std::vector<DcmTagKey> increments = frame_increments(item);
  for (const DcmTagKey& tag : increments) {
    const std::vector<double> numbers = dicom_numbers(item, tag);
    const bool counted = numbers.size() == frames.size();
    const bool constant =
        counted && std::all_of(numbers.begin(), numbers.end(), [&](double number) {
          return number == numbers[0];
        });
    const auto kind = kKinds.find(tag);
    if (tag == DCM_SliceVector && counted) {
      slices = numbers;
    } else if (kind != kKinds.end() && counted) {
      for (size_t i = 0; i < frames.size() && !constant; ++i) {
        char text[64];
        std::snprintf(
            text, sizeof text, "%s%s %.0f", kinds[i].empty() ? "" : ", ", kind->second, numbers[i]);
        kinds[i] += text;
      }
    } else if (!constant) {
      why = "its frames run over " + dicom_tag_name(tag) + " (FrameIncrementPointer)" +
            (tag == DCM_SliceVector || kind != kKinds.end()
                 ? ", which holds " + std::to_string(numbers.size()) + " numbers for " +
                       std::to_string(frames.size()) + " frames"
                 : ", which are no slices");
      return {};
    }
  }
  // Without a pointer, frames are slices in their own order.
  if (increments.empty())
    for (size_t i = 0; i < frames.size(); ++i) slices.push_back(static_cast<double>(i));
  if (slices.empty()) {
    why = "its frames run over no slices (FrameIncrementPointer lacks SliceVector)";
    return {};
  }
  // The position is that of the first frame.
  if (slices[0] != *std::min_element(slices.begin(), slices.end())) {
    why =
        "its first frame is not its first slice (SliceVector), so it is not told which lies at "
        "ImagePositionPatient";
    return {};
  }
  for (size_t i = 0; i < frames.size(); ++i)
    if (!kinds[i].empty()) frames[i].kind += (frames[i].kind.empty() ? "" : ", ") + kinds[i];
  for (size_t i = slices.size(); i-- > 0;) slices[i] -= slices[0];
  return slices;
}

// A multi-frame image without functional groups may tell its frames' places by offsets along the
// normal (RTDOSE) or even steps (NM). Else the frames lie nowhere: they are moments in time.
void place_plain_frames(const fs::path& path, DcmItem& item, std::vector<DicomFrame>& frames) {
  const std::vector<double> step = sound_dicom_numbers(path, item, DCM_SpacingBetweenSlices);
  std::vector<double> offsets = sound_dicom_numbers(path, item, DCM_GridFrameOffsetVector);
  const DicomFrame first = frames[0];
  const bool lies = first.position_lps_mm && first.axes_lps_xy;
  std::string why = first.unplaced;
  if (offsets.size() == frames.size()) {
    for (size_t i = offsets.size(); i-- > 0;) offsets[i] -= offsets[0];
  } else {
    offsets.clear();
    if (lies && step.empty())
      why = unplaced_by(
          DCM_SpacingBetweenSlices, dicom_text(item, DCM_SpacingBetweenSlices), "a number was");
    else if (lies)
      offsets = slices_by_increments(item, frames, why);
    for (double& offset : offsets) offset *= step[0];
  }
  if (!lies || offsets.empty()) {
    for (DicomFrame& frame : frames) {
      frame.position_lps_mm.reset();
      frame.unplaced = why;
    }
    return;
  }
  const auto& [x, y] = *first.axes_lps_xy;
  const Vector3 normal{
      x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]};
  for (size_t i = 0; i < frames.size(); ++i)
    for (int axis = 0; axis < 3; ++axis)
      (*frames[i].position_lps_mm)[axis] += normal[axis] * offsets[i];
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
      file.frames.push_back(frame_of(Places(file.path, item, shared, dynamic_cast<DcmItem*>(own)),
                                     static_cast<int64_t>(file.frames.size())));
    return;
  }
  DicomFrame first = frame_of(Places(file.path, item, shared, nullptr), 0);
  place_by_detector(file.path, item, first);
  file.frames.assign(static_cast<size_t>(count), first);
  for (int64_t i = 0; i < count; ++i) file.frames[static_cast<size_t>(i)].index = i;
  if (count > 1) place_plain_frames(file.path, item, file.frames);
}

// Whether all behind the declared pixels is zero, and less than a frame: padding.
bool ends_in_zeros(DcmElement& pixels, uint64_t declared_bytes, double frame_bytes) {
  const uint64_t found = pixels.getLengthField();
  if (static_cast<double>(found - declared_bytes) >= frame_bytes) return false;
  std::vector<char> tail(found - declared_bytes);
  return pixels
             .getPartialValue(
                 tail.data(), static_cast<Uint32>(declared_bytes), static_cast<Uint32>(tail.size()))
             .good() &&
         std::all_of(tail.begin(), tail.end(), [](char byte) { return byte == 0; });
}

bool has_dicom_extension(const fs::path& path) {
  const std::string extension = dicom_extension(path);
  return extension == ".dcm" || extension == ".ima" || extension == ".dicom";
}

// A file that ends within the zeros before DICOM's prefix.
bool ends_before_prefix(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  char bytes[132] = {};
  in.read(bytes, sizeof bytes);
  return in.gcount() < 132 &&
         std::all_of(bytes, bytes + in.gcount(), [](char byte) { return byte == 0; });
}

// Refuses what the file's own bytes cannot hold, before anything of that size is made.
void check_pixels(DcmItem& item, DicomFile& file, int64_t frames, uint64_t file_bytes) {
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
  // Floats and shared colours have demands of their own, which are told when they are read.
  const bool comparable = syntax.getXfer() != EXS_Unknown && element->getTag() == DCM_PixelData &&
                          (stored == bytes || (file.samples == 3 && file.columns % 2 == 0));
  const double row = static_cast<double>(file.columns) * file.samples * bits / 8;
  if (comparable && found - stored >= std::max(2.0, row) &&
      !ends_in_zeros(
          *element, static_cast<uint64_t>(std::ceil(stored)), stored / static_cast<double>(frames)))
    file.surplus_bytes = static_cast<int64_t>(found - stored);
}

}  // namespace

bool DicomFile::is_localizer() const {
  return image_type.find("LOCALIZER") != std::string::npos ||
         image_type.find("SCOUT") != std::string::npos;
}

bool DicomFile::is_tomographic() const {
  if (channels() > 1) return false;
  for (const char* uid : {UID_CTImageStorage,
                          UID_MRImageStorage,
                          UID_PositronEmissionTomographyImageStorage,
                          UID_EnhancedCTImageStorage,
                          UID_EnhancedMRImageStorage,
                          UID_EnhancedPETImageStorage})
    if (sop_class_uid == uid) return true;
  return sop_class_uid.empty() && (modality == "CT" || modality == "MR" || modality == "PT");
}

bool DicomFile::is_inverted() const {
  return photometric == "MONOCHROME1" && modality != "CT" && modality != "PT";
}

std::vector<fs::path> dicom_files(const fs::path& path, std::vector<LeftOutFile>* left_out) {
  std::error_code failed;
  const fs::file_status status = fs::status(path, failed);
  if (status.type() == fs::file_type::not_found) throw DataError(path, "no such file or folder");
  if (failed) throw DataError(path, "cannot be read: " + failed.message());
  if (!fs::is_directory(status)) return {path};
  std::vector<fs::path> files, others;
  const auto leave_out = [&](const fs::path& which, const std::string& reason) {
    if (left_out != nullptr) left_out->push_back({which, reason});
  };
  std::vector<fs::path> folders{path};
  while (!folders.empty()) {
    const fs::path folder = folders.back();
    folders.pop_back();
    fs::directory_iterator entry(folder, failed);
    if (failed) leave_out(folder, "cannot be listed: " + failed.message());
    for (; !failed && entry != fs::directory_iterator(); entry.increment(failed)) {
      const fs::path& at = entry->path();
      if (at.filename().string().starts_with(".") && !fs::is_directory(entry->symlink_status()))
        continue;
      std::error_code broken;
      const fs::file_type type = entry->status(broken).type();
      if (type == fs::file_type::directory && entry->is_symlink(broken))
        leave_out(at, "is a link to a folder, which is not followed; give that folder itself");
      else if (type == fs::file_type::directory)
        folders.push_back(at);
      else if (type == fs::file_type::not_found)
        leave_out(at, "is a link to nothing");
      else if (type == fs::file_type::none || type == fs::file_type::unknown)
        leave_out(at, "cannot be read: " + broken.message());
      else if (type == fs::file_type::regular && at.filename() != "DICOMDIR")
        (is_dicom(at) ? files : others).push_back(at);
    }
  }
  std::sort(files.begin(), files.end());
  std::sort(others.begin(), others.end());
  std::set<fs::path> dicom_folders;
  for (const fs::path& file : files) dicom_folders.insert(file.parent_path());
  for (const fs::path& other : others) {
    const bool beside = dicom_folders.contains(other.parent_path());
    const bool named = has_dicom_extension(other);
    if (!std::ifstream(other, std::ios::binary)) {
      if (beside || named) leave_out(other, "cannot be opened");
    } else if (named || (beside && dicom_extension(other).empty() && ends_before_prefix(other))) {
      std::error_code ignored;
      const uintmax_t size = fs::file_size(other, ignored);
      leave_out(other,
                size == 0 ? "is empty (0 bytes)"
                          : "is not DICOM: no DICM prefix and no data element at its start");
    }
  }
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
  file.patient_id = dicom_text(item, DCM_PatientID);
  file.modality = dicom_text(item, DCM_Modality);
  file.series_description = dicom_utf8_text(item, DCM_SeriesDescription);
  file.image_type = dicom_text(item, DCM_ImageType);
  file.series_number = dicom_integer(item, DCM_SeriesNumber, 0);
  file.instance_number = dicom_integer(item, DCM_InstanceNumber, 0);
  const Places first_frame(path,
                           item,
                           first_item(&item, DCM_SharedFunctionalGroupsSequence),
                           first_item(&item, DCM_PerFrameFunctionalGroupsSequence));
  const auto thickness = first_frame.numbers(DCM_PixelMeasuresSequence, DCM_SliceThickness);
  const auto step = first_frame.numbers(DCM_PixelMeasuresSequence, DCM_SpacingBetweenSlices);
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
  sound_dicom_numbers(path, item, DCM_NumberOfFrames);
  const int64_t frames = dicom_integer(item, DCM_NumberOfFrames, 1);
  // Every frame is described by some bytes, compressed ones too.
  if (frames < 1 || frames > kMostFrames || static_cast<uint64_t>(frames) > file_bytes)
    throw DataError(path, "NumberOfFrames is " + std::to_string(frames));
  check_pixels(item, file, frames, file_bytes);
  read_frames(item, frames, file);
  check_places(file);
  return file;
}

std::optional<std::string> series_uid_of_broken(const fs::path& path) {
  set_up_dcmtk();
  if (!is_dicom(path)) return std::nullopt;
  try {
    check_deflated_lengths(path);
  } catch (const DataError&) {
    return std::nullopt;
  }
  // What was parsed before it broke stays.
  DcmFileFormat format;
  const OFCondition status = format.loadFileUntilTag(path.c_str(),
                                                     EXS_Unknown,
                                                     EGL_noChange,
                                                     kLongestValueKept,
                                                     ERM_autoDetect,
                                                     DCM_BitsAllocated);
  // Reports and plans are no slices, whatever they lack.
  if (status.good() && !format.getDataset()->tagExists(DCM_Rows)) return "";
  const std::string uid = dicom_text(*format.getDataset(), DCM_SeriesInstanceUID);
  // Cut off within the UID, it ends in anything.
  if (status.bad() && (uid.empty() || uid.find_first_not_of("0123456789.") != std::string::npos))
    return std::nullopt;
  return uid;
}

std::string dicom_extension(const fs::path& path) {
  std::string extension = path.extension().string();
  if (extension.find_first_not_of("0123456789", 1) == std::string::npos) return "";
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension;
}

}  // namespace vireo
