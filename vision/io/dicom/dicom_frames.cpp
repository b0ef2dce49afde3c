#include "vision/io/dicom/dicom_frames.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "vision/core/error.h"
#include "vision/io/dicom/dicom_dataset.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

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
void check_place(const fs::path& path, const DicomFrame& frame) {
  constexpr double kMostMm = 1e6, kLeastSpacingMm = 1e-6;
  if (frame.position_lps_mm)
    for (const double value : *frame.position_lps_mm)
      if (!(std::abs(value) <= kMostMm))
        throw DataError(path,
                        "frame " + std::to_string(frame.index + 1) +
                            " lies more than a kilometre away (ImagePositionPatient)");
  if (frame.spacing_mm_yx)
    for (const double value : *frame.spacing_mm_yx)
      if (!(value >= kLeastSpacingMm && value <= kMostMm))
        throw DataError(path, "PixelSpacing is no distance between pixels");
}

// Of functional groups, as many as there are frames.
std::vector<DicomFrame> frames_of_groups(const fs::path& path,
                                         DcmItem& item,
                                         DcmSequenceOfItems& groups,
                                         int64_t count) {
  if (static_cast<int64_t>(groups.card()) != count)
    throw DataError(path,
                    "declares " + std::to_string(count) + " frame(s) but describes " +
                        std::to_string(groups.card()) + " (PerFrameFunctionalGroupsSequence)");
  DcmItem* shared = first_item(&item, DCM_SharedFunctionalGroupsSequence);
  std::vector<DicomFrame> frames;
  // By the list's own order: to ask for the i-th counts through those before it.
  DcmObject* own = nullptr;
  while ((own = groups.nextInContainer(own)) != nullptr)
    frames.push_back(frame_of(Places(path, item, shared, dynamic_cast<DcmItem*>(own)),
                              static_cast<int64_t>(frames.size())));
  return frames;
}

std::vector<DicomFrame> plain_frames(const fs::path& path, DcmItem& item, int64_t count) {
  DcmItem* shared = first_item(&item, DCM_SharedFunctionalGroupsSequence);
  DicomFrame first = frame_of(Places(path, item, shared, nullptr), 0);
  place_by_detector(path, item, first);
  std::vector<DicomFrame> frames(static_cast<size_t>(count), first);
  for (int64_t i = 0; i < count; ++i) frames[static_cast<size_t>(i)].index = i;
  if (count > 1) place_plain_frames(path, item, frames);
  return frames;
}

}  // namespace

std::vector<DicomFrame> read_dicom_frames(const fs::path& path, DcmItem& item, int64_t count) {
  DcmSequenceOfItems* groups = nullptr;
  const bool per_frame =
      item.findAndGetSequence(DCM_PerFrameFunctionalGroupsSequence, groups).good();
  std::vector<DicomFrame> frames =
      per_frame ? frames_of_groups(path, item, *groups, count) : plain_frames(path, item, count);
  for (const DicomFrame& frame : frames) check_place(path, frame);
  return frames;
}

double slice_thickness_mm(const fs::path& path, DcmItem& item) {
  const Places first_frame(path,
                           item,
                           first_item(&item, DCM_SharedFunctionalGroupsSequence),
                           first_item(&item, DCM_PerFrameFunctionalGroupsSequence));
  for (const DcmTagKey& tag : {DCM_SpacingBetweenSlices, DCM_SliceThickness}) {
    const std::vector<double> values = first_frame.numbers(DCM_PixelMeasuresSequence, tag);
    if (!values.empty() && std::isfinite(values[0]) && values[0] != 0) return std::abs(values[0]);
  }
  return 0;
}

}  // namespace vireo
