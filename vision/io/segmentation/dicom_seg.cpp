#include "vision/io/segmentation/dicom_seg.h"

#include <map>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/segmentation/dicom_color.h"
#include "vision/io/segmentation/dicom_output.h"
#include "vision/io/segmentation/label_segments.h"
#include "vision/io/segmentation/source_planes.h"

// The object is put together here, attribute by attribute: DCMTK 3.6.7's own dcmseg misplaces the
// bits of frames whose pixels are no multiple of 8, and refuses UTF-8 names, frame numbers of
// multi-frame sources and images without a frame of reference.
namespace vireo {
namespace {

namespace fs = std::filesystem;

const CodedConcept kSegmentation{"113076", "DCM", "Segmentation"};
const CodedConcept kSourceImage{"121322", "DCM", "Source image for image processing operation"};
const CodedConcept kArtificialIntelligence{"123110", "DCM", "Artificial Intelligence"};

// Frames of one bit per pixel, the first in the lowest bit, one after the other without padding.
class BitFrames {
 public:
  explicit BitFrames(size_t bits) : bytes_((bits + 15) / 16 * 2, 0) {}

  void append(const int32_t* labels, size_t count, int64_t value) {
    for (size_t i = 0; i < count; ++i, ++bit_)
      if (labels[i] == value) bytes_[bit_ / 8] |= static_cast<Uint8>(1U << bit_ % 8);
  }
  const std::vector<Uint8>& bytes() const { return bytes_; }

 private:
  std::vector<Uint8> bytes_;
  size_t bit_ = 0;
};

void put_algorithm(DcmItem& item, const std::string& name, const AlgorithmIdentity& algorithm) {
  DcmItem& identity = new_item(item, DCM_SegmentationAlgorithmIdentificationSequence);
  put_code(identity, DCM_AlgorithmFamilyCodeSequence, kArtificialIntelligence);
  put_text(identity, DCM_AlgorithmName, name);
  put_text(identity, DCM_AlgorithmVersion, algorithm.version);
  put_text(identity, DCM_AlgorithmSource, "Vireo");
  if (!algorithm.weights_sha256.empty())
    put_text(identity, DCM_AlgorithmParameters, "weights_sha256=" + algorithm.weights_sha256);
}

void put_segment(DcmItem& dataset,
                 const SegmentDescription& segment,
                 Uint16 number,
                 const AlgorithmIdentity& algorithm) {
  DcmItem& item = new_item(dataset, DCM_SegmentSequence);
  item.putAndInsertUint16(DCM_SegmentNumber, number);
  put_text(item, DCM_SegmentLabel, segment.name);
  if (!segment.text.empty()) put_text(item, DCM_SegmentDescription, segment.text);
  put_text(item, DCM_SegmentAlgorithmType, to_string(segment.algorithm));
  if (segment.algorithm != SegmentDescription::Algorithm::kManual) {
    const std::string& name =
        segment.algorithm_name.empty() ? algorithm.name : segment.algorithm_name;
    put_text(item, DCM_SegmentAlgorithmName, name);
    put_algorithm(item, name, algorithm);
  }
  put_code(item, DCM_SegmentedPropertyCategoryCodeSequence, segment.category);
  DcmItem& type = put_code(item, DCM_SegmentedPropertyTypeCodeSequence, segment.type);
  if (!segment.type_modifier.empty())
    put_code(type, DCM_SegmentedPropertyTypeModifierCodeSequence, segment.type_modifier);
  if (!segment.region.empty()) {
    DcmItem& region = put_code(item, DCM_AnatomicRegionSequence, segment.region);
    if (!segment.region_modifier.empty())
      put_code(region, DCM_AnatomicRegionModifierSequence, segment.region_modifier);
  }
  const std::array<uint16_t, 3> lab = dicom_lab(segment.color);
  item.putAndInsertUint16Array(DCM_RecommendedDisplayCIELabValue, lab.data(), lab.size());
  const bool tracked = !segment.tracking_uid.empty();
  put_text(item, DCM_TrackingID, tracked ? segment.tracking_id : segment.name);
  put_text(item, DCM_TrackingUID, tracked ? segment.tracking_uid : new_dicom_uid());
}

void put_dimension(DcmItem& dataset,
                   const std::string& organization,
                   const DcmTagKey& attribute,
                   const DcmTagKey& group,
                   const char* name) {
  DcmItem& index = new_item(dataset, DCM_DimensionIndexSequence);
  put_text(index, DCM_DimensionOrganizationUID, organization);
  index.putAndInsertTagKey(DCM_DimensionIndexPointer, attribute);
  index.putAndInsertTagKey(DCM_FunctionalGroupPointer, group);
  put_text(index, DCM_DimensionDescriptionLabel, name);
}

// What all frames share: orientation and spacing, where there is a place in the patient.
void put_shared_groups(DcmItem& dataset, const Geometry& grid, bool placed) {
  DcmItem& shared = new_item(dataset, DCM_SharedFunctionalGroupsSequence);
  if (!placed) return;
  const auto& d = grid.direction_lps_from_zyx;
  std::string cosines;
  for (const size_t axis : {2, 1})
    for (const auto& row : d) cosines += (cosines.empty() ? "" : "\\") + decimal_string(row[axis]);
  put_text(new_item(shared, DCM_PlaneOrientationSequence), DCM_ImageOrientationPatient, cosines);
  const auto& spacing = grid.spacing_mm_zyx;
  DcmItem& measures = new_item(shared, DCM_PixelMeasuresSequence);
  put_text(
      measures, DCM_PixelSpacing, decimal_string(spacing[1]) + "\\" + decimal_string(spacing[2]));
  put_text(measures, DCM_SliceThickness, decimal_string(spacing[0]));
  put_text(measures, DCM_SpacingBetweenSlices, decimal_string(spacing[0]));
}

struct SegFrame {
  const LabelSegment* segment;
  Uint16 number;
  int64_t z;
};

// Segment by segment, each from its first slice to its last.
std::vector<SegFrame> frames_of(const std::vector<const LabelSegment*>& segments) {
  std::vector<SegFrame> frames;
  Uint16 number = 0;
  for (const LabelSegment* segment : segments) {
    ++number;
    for (const int64_t z : segment->slices) frames.push_back({segment, number, z});
  }
  return frames;
}

void put_frames(DcmItem& dataset,
                const std::vector<SegFrame>& frames,
                const Geometry& grid,
                const DicomSeries& source,
                bool placed) {
  const std::vector<std::vector<DicomSlice>> sources = sources_of_planes(source, grid);
  std::map<int64_t, Uint32> rank_of_plane;
  for (const SegFrame& frame : frames) rank_of_plane[frame.z] = 0;
  Uint32 rank = 0;
  for (auto& [z, of_plane] : rank_of_plane) of_plane = ++rank;
  for (const SegFrame& frame : frames) {
    DcmItem& item = new_item(dataset, DCM_PerFrameFunctionalGroupsSequence);
    const Uint32 indices[] = {frame.number, rank_of_plane[frame.z]};
    new_item(item, DCM_FrameContentSequence)
        .putAndInsertUint32Array(DCM_DimensionIndexValues, indices, placed ? 2 : 1);
    if (placed) {
      std::string position;
      for (const double part : grid.lps_from_voxel({static_cast<double>(frame.z), 0, 0}))
        position += (position.empty() ? "" : "\\") + decimal_string(part);
      put_text(new_item(item, DCM_PlanePositionSequence), DCM_ImagePositionPatient, position);
    }
    DcmItem& derivation = new_item(item, DCM_DerivationImageSequence);
    put_image_references(derivation,
                         DCM_SourceImageSequence,
                         source,
                         sources[static_cast<size_t>(frame.z)],
                         &kSourceImage);
    put_code(derivation, DCM_DerivationCodeSequence, kSegmentation);
    new_item(item, DCM_SegmentIdentificationSequence)
        .putAndInsertUint16(DCM_ReferencedSegmentNumber, frame.number);
  }
}

void put_pixels(DcmItem& dataset,
                const std::vector<SegFrame>& frames,
                const Geometry& grid,
                const LabelSegments& found) {
  const auto put = [&](const DcmTagKey& tag, Uint16 value) {
    dataset.putAndInsertUint16(tag, value);
  };
  put(DCM_SamplesPerPixel, 1);
  put_text(dataset, DCM_PhotometricInterpretation, "MONOCHROME2");
  put_text(dataset, DCM_NumberOfFrames, std::to_string(frames.size()));
  put(DCM_Rows, static_cast<Uint16>(grid.size_zyx[1]));
  put(DCM_Columns, static_cast<Uint16>(grid.size_zyx[2]));
  put(DCM_BitsAllocated, 1);
  put(DCM_BitsStored, 1);
  put(DCM_HighBit, 0);
  put(DCM_PixelRepresentation, 0);
  const auto pixels = static_cast<size_t>(grid.size_zyx[1] * grid.size_zyx[2]);
  BitFrames bits(pixels * frames.size());
  for (const SegFrame& frame : frames)
    bits.append(
        found.slice(frame.z).const_data_ptr<int32_t>(), pixels, frame.segment->description.value);
  dataset.putAndInsertUint8Array(DCM_PixelData, bits.bytes().data(), bits.bytes().size());
}

// All images that were read, whether or not a label lies in them.
void put_series_references(DcmItem& dataset, const DicomSeries& source) {
  std::map<std::string, DcmItem*> series;
  for (const DicomFile* file : files_read(source)) {
    DcmItem*& item = series[file->series_uid];
    if (item == nullptr) {
      item = &new_item(dataset, DCM_ReferencedSeriesSequence);
      put_text(*item, DCM_SeriesInstanceUID, file->series_uid);
    }
    put_instance(new_item(*item, DCM_ReferencedInstanceSequence), *file);
  }
}

// A segmentation of lossily compressed images says so.
void put_lossy_compression(DcmItem& header, SourceAttributes& attributes, DcmItem& into) {
  OFString lossy;
  header.findAndGetOFString(DCM_LossyImageCompression, lossy);
  put_text(into, DCM_LossyImageCompression, lossy == "01" ? "01" : "00");
  if (lossy != "01") return;
  for (const DcmTagKey& tag : {DCM_LossyImageCompressionRatio, DCM_LossyImageCompressionMethod})
    attributes.copy(tag, IfUnsound::kLeaveOut, into);
}

}  // namespace

void check_dicom_seg_source(const DicomSeries& source) {
  load_source_header(source);
}

bool write_dicom_seg(const fs::path& path,
                     const at::Tensor& labels,
                     const Geometry& grid,
                     const DicomSeries& source,
                     const SegmentationMetadata& metadata,
                     const AlgorithmIdentity& algorithm,
                     const DicomSegOptions& options) {
  const LabelSegments found = find_segments(path, labels, grid, metadata.segments);
  if (found.present().empty()) {
    remove_file(path);
    return false;
  }
  if (grid.size_zyx[1] > 65535 || grid.size_zyx[2] > 65535)
    throw DataError(path, "cannot be written: DICOM allows at most 65535 rows and columns");
  const std::unique_ptr<DcmFileFormat> header = load_source_header(source);
  const bool placed = lies_in_patient(source);
  const std::vector<SegFrame> frames = frames_of(found.present());
  constexpr int64_t kMostBits = (int64_t{1} << 35) - 64;  // DICOM counts bytes with 32 bits
  if (grid.size_zyx[1] * grid.size_zyx[2] > kMostBits / static_cast<int64_t>(frames.size()))
    throw DataError(path,
                    "cannot be written: " + std::to_string(frames.size()) +
                        " frames are more than one DICOM object can hold; write fewer segments");
  DcmFileFormat file;
  DcmDataset& dataset = *file.getDataset();
  const bool ascii = is_ascii(metadata, {algorithm.name, algorithm.version});
  SourceAttributes attributes(source.first_file().path, *header->getDataset());
  copy_patient_and_study(source, attributes, ascii, dataset);
  put_object(UID_SegmentationStorage, "SEG", metadata, algorithm.software_version, dataset);

  const DicomTime now = dicom_time_now();
  put_text(dataset, DCM_ImageType, "DERIVED\\PRIMARY");
  put_text(dataset, DCM_ContentDate, now.date);
  put_text(dataset, DCM_ContentTime, now.time);
  put_text(dataset, DCM_ContentLabel, metadata.content_label);
  put_text(dataset, DCM_ContentDescription, metadata.content_description);
  put_text(dataset, DCM_ContentCreatorName, metadata.content_creator_name);
  put_lossy_compression(*header->getDataset(), attributes, dataset);
  put_text(dataset, DCM_SegmentationType, "BINARY");
  put_text(dataset, DCM_SegmentsOverlap, "NO");
  Uint16 number = 0;
  for (const LabelSegment* segment : found.present())
    put_segment(dataset, segment->description, ++number, algorithm);
  const std::string organization = new_dicom_uid();
  put_text(new_item(dataset, DCM_DimensionOrganizationSequence),
           DCM_DimensionOrganizationUID,
           organization);
  put_dimension(dataset,
                organization,
                DCM_ReferencedSegmentNumber,
                DCM_SegmentIdentificationSequence,
                "Segment");
  if (placed)
    put_dimension(
        dataset, organization, DCM_ImagePositionPatient, DCM_PlanePositionSequence, "Position");
  if (!placed) {
    put_text(dataset, DCM_PatientOrientation, "");
    attributes.copy(DCM_PatientOrientation, IfUnsound::kLeaveOut, dataset);
  }
  put_series_references(dataset, source);
  put_shared_groups(dataset, grid, placed);
  put_frames(dataset, frames, grid, source, placed);
  put_pixels(dataset, frames, grid, found);
  save_atomically(
      path, file, options.deflate ? EXS_DeflatedLittleEndianExplicit : EXS_LittleEndianExplicit);
  return true;
}

}  // namespace vireo
