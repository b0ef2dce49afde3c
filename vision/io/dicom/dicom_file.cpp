#include "vision/io/dicom/dicom_file.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "vision/core/error.h"
#include "vision/io/dicom/dicom_dataset.h"
#include "vision/io/dicom/dicom_deflated.h"
#include "vision/io/dicom/dicom_folder.h"
#include "vision/io/dicom/dicom_frames.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMostBytesPerByte = 2048;  // of a compressed image, beyond what is always allowed
constexpr int64_t kAlwaysAllowedBytes = int64_t{64} << 20;
constexpr Uint32 kLongestValueKept = 4096;
constexpr Uint32 kLongestUid = 64;
constexpr int64_t kMostFrames = 1 << 20;

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
  file.slice_thickness_mm = slice_thickness_mm(path, item);

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
  file.frames = read_dicom_frames(path, item, frames);
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
  // Its value may be declared beyond the file's end.
  DcmElement* element = nullptr;
  if (format.getDataset()->findAndGetElement(DCM_SeriesInstanceUID, element).good() &&
      element->getLengthField() > kLongestUid)
    return std::nullopt;
  const std::string uid = dicom_text(*format.getDataset(), DCM_SeriesInstanceUID);
  // Cut off within the UID, it ends in anything.
  if (status.bad() && (uid.empty() || uid.find_first_not_of("0123456789.") != std::string::npos))
    return std::nullopt;
  return uid;
}

}  // namespace vireo
