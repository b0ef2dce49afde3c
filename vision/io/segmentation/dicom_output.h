#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "vision/io/dicom/dicom_series.h"
#include "vision/io/segmentation/dcmqi_metadata.h"
#include "vision/io/segmentation/source_attributes.h"

// What DICOM objects that are made for a series have in common.
namespace vireo {

/// A new UID below 2.25: a random UUID as a decimal number.
std::string new_dicom_uid();

/// A number as DICOM's decimal string: the shortest that gives it back, at most 16 characters.
std::string decimal_string(double value);

struct DicomTime {
  std::string date, time;  ///< YYYYMMDD, HHMMSS; local time
};
DicomTime dicom_time_now();

/// Everything before the pixels of the series' first file. Throws DataError when it cannot be read,
/// or when a file of the series lacks a UID by which an object would refer to it.
std::unique_ptr<DcmFileFormat> load_source_header(const DicomSeries& source);

/// Copies the attributes of the patient, the study and (where lies_in_patient) the frame of
/// reference, in UTF-8 and valid as SourceAttributes makes them; who the patient is and which study
/// and frame of reference these are is kept as it stands. `ascii`: all other text of the object is.
void copy_patient_and_study(const DicomSeries& source,
                            SourceAttributes& attributes,
                            bool ascii,
                            DcmItem& into);

/// Attributes of the object, its series and the equipment: class, descriptions, numbers, new UIDs.
void put_object(const char* sop_class_uid,
                const std::string& modality,
                const SegmentationMetadata& metadata,
                const std::string& software_version,
                DcmItem& into);

/// A text of any representation, as it is.
void put_text(DcmItem& item, const DcmTagKey& tag, const std::string& text);

/// A new item at the end of a sequence.
DcmItem& new_item(DcmItem& within, const DcmTagKey& sequence);

/// A new item of a code sequence.
DcmItem& put_code(DcmItem& item, const DcmTagKey& sequence, const CodedConcept& code);

/// The class and the UID of a source image.
void put_instance(DcmItem& item, const DicomFile& file);

/// Items of a sequence, each a reference to a source image, with the frame number where its file
/// holds several and with the purpose where one is given.
void put_image_references(DcmItem& item,
                          const DcmTagKey& sequence,
                          const DicomSeries& source,
                          const std::vector<DicomSlice>& slices,
                          const CodedConcept* purpose = nullptr);

bool is_ascii(const std::string& text);

/// Whether every text that goes into the object is ASCII.
bool is_ascii(const SegmentationMetadata& metadata, const std::vector<std::string>& texts);

void save_atomically(const std::filesystem::path& path,
                     DcmFileFormat& file,
                     E_TransferSyntax syntax);

/// Removes a file, if it is there.
void remove_file(const std::filesystem::path& path);

}  // namespace vireo
