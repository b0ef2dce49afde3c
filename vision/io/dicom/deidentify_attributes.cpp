#include "vision/io/dicom/deidentify_attributes.h"

#include <set>
#include <string>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

// Values of these types say nothing of a person: numbers, coded words, pixels and tables.
bool is_harmless_type(DcmEVR type) {
  static const std::set<DcmEVR> harmless = {EVR_DS,        EVR_IS, EVR_FL, EVR_FD, EVR_SS, EVR_US,
                                            EVR_SL,        EVR_UL, EVR_CS, EVR_AT, EVR_OB, EVR_OW,
                                            EVR_OF,        EVR_OD, EVR_OL, EVR_SV, EVR_UV, EVR_ox,
                                            EVR_PixelData, EVR_px, EVR_xs, EVR_lt, EVR_up};
  return harmless.contains(type);
}

// Numbers written as text hold nothing else.
bool is_harmless_value(DcmElement& element) {
  if (element.ident() != EVR_DS && element.ident() != EVR_IS) return true;
  OFString text;
  if (element.getOFStringArray(text).bad()) return false;
  return std::string(text.c_str(), text.length())
             .find_first_not_of(std::string("0123456789+-.,eE\\ \0", 19)) == std::string::npos;
}

// Groups that describe acquisition, geometry, pixels, segments and parametric maps. Within them,
// harmless types are kept and sequences are gone through.
bool is_technical(const DcmTagKey& tag) {
  static const std::set<Uint16> groups = {
      0x0018, 0x0020, 0x0022, 0x0028, 0x0048, 0x0054, 0x0062, 0x0070, 0x5200, 0x7fe0};
  // Of group 0040 real world values and their units; the rest is about requests and visits.
  return groups.contains(tag.getGroup()) || tag == DCM_MeasurementUnitsCodeSequence ||
         (tag.getGroup() == 0x0040 && tag.getElement() >= 0x9096 && tag.getElement() <= 0x9225);
}

// What of those groups names a device or a person, or is a drawing (PS3.15 Table E.1-1).
bool is_identifying(const DcmTagKey& tag) {
  return tag == DCM_UDISequence || tag == DCM_TransducerIdentificationSequence ||
         tag == DCM_RETIRED_ModifyingDeviceID || tag == DCM_GraphicAnnotationSequence ||
         tag == DCM_ContentCreatorIdentificationCodeSequence;
}

// Attributes outside those groups, or of text, that are kept.
bool is_listed(const DcmTagKey& tag) {
  static const std::set<DcmTagKey> listed = {DCM_SpecificCharacterSet,
                                             DCM_ImageType,
                                             DCM_FrameType,
                                             DCM_Modality,
                                             DCM_ConversionType,
                                             DCM_PresentationIntentType,
                                             DCM_PresentationLUTShape,
                                             DCM_Manufacturer,
                                             DCM_ManufacturerModelName,
                                             DCM_CodeValue,
                                             DCM_LongCodeValue,
                                             DCM_CodingSchemeDesignator,
                                             DCM_CodingSchemeVersion,
                                             DCM_CodeMeaning,
                                             DCM_PixelPresentation,
                                             DCM_VolumetricProperties,
                                             DCM_VolumeBasedCalculationTechnique,
                                             DCM_ComplexImageComponent,
                                             DCM_AcquisitionContrast,
                                             DCM_RecommendedDisplayFrameRate,
                                             DCM_ConvolutionKernel,
                                             DCM_LossyImageCompressionMethod,
                                             DCM_StackID,
                                             DCM_DimensionDescriptionLabel,
                                             DCM_DimensionOrganizationType,
                                             DCM_Units,
                                             DCM_SegmentLabel,
                                             DCM_SegmentAlgorithmName,
                                             DCM_LUTExplanation,
                                             DCM_RescaleType,
                                             DCM_SequenceName,
                                             DCM_SequenceVariant};
  return listed.contains(tag);
}

// Sequences outside the technical groups whose items are worth keeping, cleaned.
bool is_listed_sequence(const DcmTagKey& tag) {
  static const std::set<DcmTagKey> listed = {DCM_DerivationImageSequence,
                                             DCM_SourceImageSequence,
                                             DCM_ReferencedImageSequence,
                                             DCM_ReferencedSeriesSequence,
                                             DCM_ReferencedInstanceSequence,
                                             DCM_PurposeOfReferenceCodeSequence,
                                             DCM_DerivationCodeSequence,
                                             DCM_AnatomicRegionSequence,
                                             DCM_PrimaryAnatomicStructureSequence};
  return listed.contains(tag);
}

// Type 2 in modules of images.
bool is_required(const DcmTagKey& tag) {
  static const std::set<DcmTagKey> required = {DCM_StudyDate,
                                               DCM_StudyTime,
                                               DCM_AcquisitionDate,
                                               DCM_AcquisitionTime,
                                               DCM_ContentDate,
                                               DCM_ContentTime,
                                               DCM_AccessionNumber,
                                               DCM_ReferringPhysicianName,
                                               DCM_OperatorsName,
                                               DCM_PatientBirthDate,
                                               DCM_PatientSex,
                                               DCM_StudyID,
                                               DCM_PositionReferenceIndicator,
                                               DCM_ContrastBolusAgent,
                                               DCM_FilterType,
                                               DCM_AcquisitionContextSequence,
                                               DCM_ContentDescription,
                                               DCM_ContentCreatorName};
  return required.contains(tag);
}

bool is_date(DcmEVR type) {
  return type == EVR_DA || type == EVR_DT || type == EVR_TM;
}

}  // namespace

AttributeFate attribute_fate(DcmElement& element, bool at_top, bool shift_dates) {
  if (!dcmDataDict.isDictionaryLoaded())
    throw Error(
        "DCMTK's dictionary of DICOM attributes was not found, by which identifying ones are told "
        "from others: set DCMDICTPATH to its dicom.dic");
  const DcmTag tag(element.getTag().getXTag());  // as the dictionary knows it
  const DcmEVR type = element.ident();
  const AttributeFate gone = is_required(tag) ? AttributeFate::kEmptied : AttributeFate::kRemoved;
  if ((tag.getGroup() & 1) != 0 || tag.error().bad() || is_identifying(tag)) return gone;
  if (tag.getGroup() == 0x7fe0 && !at_top) return gone;  // an icon's pixels
  if (is_listed(tag)) return AttributeFate::kKept;
  if (type == EVR_SQ)
    return is_technical(tag) || is_listed_sequence(tag) ? AttributeFate::kKept : gone;
  if (type == EVR_UI)
    return is_technical(tag) || tag.getGroup() == 0x0008 ? AttributeFate::kNewUid : gone;
  if (is_date(type))
    return shift_dates && tag.getGroup() == 0x0008 && tag.getElement() < 0x0040
               ? AttributeFate::kShifted
               : gone;
  // A file may claim any type for an attribute: both have to be harmless.
  return is_technical(tag) && is_harmless_type(type) && is_harmless_type(tag.getEVR()) &&
                 is_harmless_value(element)
             ? AttributeFate::kKept
             : gone;
}

}  // namespace vireo
