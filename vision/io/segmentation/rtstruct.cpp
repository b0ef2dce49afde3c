#include "vision/io/segmentation/rtstruct.h"

#include <cstdio>

#include "vision/core/error.h"
#include "vision/io/segmentation/dicom_output.h"
#include "vision/io/segmentation/label_segments.h"
#include "vision/io/segmentation/outline.h"
#include "vision/io/segmentation/source_planes.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

// With 5 decimals, of which zeros at the end are left out.
void append_millimetres(std::string& text, double value) {
  char number[64];
  std::snprintf(number, sizeof number, "%.5f", value);
  std::string digits = number;
  digits.erase(digits.find_last_not_of('0') + 1);
  if (digits.back() == '.') digits.pop_back();
  if (digits == "-0") digits = "0";
  if (!text.empty()) text += '\\';
  text += digits;
}

// The frame of reference, the study, the series, and all images of it that were read.
void put_references(DcmItem& dataset, const DicomSeries& source) {
  const DicomFile& first = source.first_file();
  DcmItem& frame = new_item(dataset, DCM_ReferencedFrameOfReferenceSequence);
  put_text(frame, DCM_FrameOfReferenceUID, first.frame_of_reference_uid);
  DcmItem& study = new_item(frame, DCM_RTReferencedStudySequence);
  put_text(study, DCM_ReferencedSOPClassUID, UID_RETIRED_DetachedStudyManagementSOPClass);
  put_text(study, DCM_ReferencedSOPInstanceUID, first.study_uid);
  DcmItem& series = new_item(study, DCM_RTReferencedSeriesSequence);
  put_text(series, DCM_SeriesInstanceUID, first.series_uid);
  for (const DicomFile* file : files_read(source))
    put_instance(new_item(series, DCM_ContourImageSequence), *file);
}

void put_region(DcmItem& dataset,
                const SegmentDescription& segment,
                const std::string& number,
                const std::string& frame_of_reference) {
  DcmItem& region = new_item(dataset, DCM_StructureSetROISequence);
  put_text(region, DCM_ROINumber, number);
  put_text(region, DCM_ReferencedFrameOfReferenceUID, frame_of_reference);
  put_text(region, DCM_ROIName, segment.name);
  if (!segment.text.empty()) put_text(region, DCM_ROIDescription, segment.text);
  put_text(region, DCM_ROIGenerationAlgorithm, to_string(segment.algorithm));

  DcmItem& observation = new_item(dataset, DCM_RTROIObservationsSequence);
  put_text(observation, DCM_ObservationNumber, number);
  put_text(observation, DCM_ReferencedROINumber, number);
  put_code(observation, DCM_RTROIIdentificationCodeSequence, segment.type);
  put_text(observation, DCM_RTROIInterpretedType, "");
  put_text(observation, DCM_ROIInterpreter, "");
}

void put_contours(DcmItem& dataset,
                  const LabelSegments& found,
                  const LabelSegment& segment,
                  const std::string& number,
                  const Geometry& grid,
                  const DicomSeries& source,
                  const std::vector<std::vector<DicomSlice>>& sources) {
  const Color& color = segment.description.color;
  DcmItem& region = new_item(dataset, DCM_ROIContourSequence);
  put_text(
      region,
      DCM_ROIDisplayColor,
      std::to_string(color[0]) + "\\" + std::to_string(color[1]) + "\\" + std::to_string(color[2]));
  put_text(region, DCM_ReferencedROINumber, number);
  const int64_t height = grid.size_zyx[1], width = grid.size_zyx[2];
  for (const int64_t z : segment.slices) {
    const at::Tensor slice = found.slice(z);
    for (const PixelPolygon& polygon :
         outlines(slice.const_data_ptr<int32_t>(), height, width, segment.description.value)) {
      DcmItem& contour = new_item(region, DCM_ContourSequence);
      put_image_references(
          contour, DCM_ContourImageSequence, source, sources[static_cast<size_t>(z)]);
      put_text(contour, DCM_ContourGeometricType, "CLOSED_PLANAR");
      put_text(contour, DCM_NumberOfContourPoints, std::to_string(polygon.size()));
      std::string points;
      for (const auto& [x, y] : polygon)
        for (const double part : grid.lps_from_voxel({static_cast<double>(z), y, x}))
          append_millimetres(points, part);
      put_text(contour, DCM_ContourData, points);
    }
  }
}

std::unique_ptr<DcmFileFormat> load_placed_source(const DicomSeries& source) {
  if (!lies_in_patient(source))
    throw DataError(source.first_file().path,
                    "gives no place in the patient (position, orientation and frame of reference), "
                    "so that contours in millimetres cannot be written; ask for another format");
  return load_source_header(source);
}

}  // namespace

void check_rtstruct_source(const DicomSeries& source) {
  load_placed_source(source);
}

bool write_rtstruct(const fs::path& path,
                    const at::Tensor& labels,
                    const Geometry& grid,
                    const DicomSeries& source,
                    const SegmentationMetadata& metadata,
                    const std::string& software_version) {
  const LabelSegments found = find_segments(path, labels, grid, metadata.segments);
  if (found.present().empty()) {
    remove_file(path);
    return false;
  }
  const std::unique_ptr<DcmFileFormat> header = load_placed_source(source);
  const std::vector<std::vector<DicomSlice>> sources = sources_of_planes(source, grid);
  DcmFileFormat file;
  DcmDataset& dataset = *file.getDataset();
  SourceAttributes attributes(source.first_file().path, *header->getDataset());
  copy_patient_and_study(source, attributes, is_ascii(metadata, {}), dataset);
  put_object(UID_RTStructureSetStorage, "RTSTRUCT", metadata, software_version, dataset);
  put_text(dataset, DCM_OperatorsName, "");
  put_text(dataset, DCM_ApprovalStatus, "UNAPPROVED");
  const DicomTime now = dicom_time_now();
  put_text(dataset, DCM_StructureSetLabel, metadata.content_label);
  put_text(dataset, DCM_StructureSetDate, now.date);
  put_text(dataset, DCM_StructureSetTime, now.time);
  put_references(dataset, source);
  int64_t count = 0;
  for (const LabelSegment* segment : found.present()) {
    const std::string number = std::to_string(++count);
    put_region(dataset, segment->description, number, source.first_file().frame_of_reference_uid);
    put_contours(dataset, found, *segment, number, grid, source, sources);
  }
  save_atomically(path, file, EXS_LittleEndianImplicit);
  return true;
}

}  // namespace vireo
