#include "vision/io/segmentation/dicom_seg.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <memory>
#include <set>

#include <ATen/ATen.h>
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmfg/fgderimg.h>
#include <dcmtk/dcmfg/fgplanpo.h>
#include <dcmtk/dcmfg/fgseg.h>
#include <dcmtk/dcmseg/segdoc.h>
#include <dcmtk/dcmseg/segment.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/made_segments.h"
#include "tests/support/made_source.h"
#include "tests/support/test_data.h"
#include "vision/core/error.h"
#include "vision/io/segmentation/source_planes.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const AlgorithmIdentity kAlgorithm{"rwkv_unet_t", "3", std::string(64, 'a'), "0.1.0"};

std::unique_ptr<DcmSegmentation> load(const fs::path& path) {
  DcmSegmentation* document = nullptr;
  const OFCondition status = DcmSegmentation::loadFile(path.c_str(), document);
  EXPECT_TRUE(status.good()) << status.text();
  return std::unique_ptr<DcmSegmentation>(document);
}

template <typename Group>
Group& group(DcmSegmentation& document, size_t frame, DcmFGTypes::E_FGType type) {
  return *dynamic_cast<Group*>(
      document.getFunctionalGroups().get(static_cast<Uint32>(frame), type));
}

std::string label_of(DcmSegmentation& document, size_t number) {
  OFString label;
  document.getSegment(number)->getSegmentLabel(label);
  return label.c_str();
}

// The bits of all frames as bool [frames, Y, X], from the pixel data themselves: DCMTK 3.6.7's
// dcmseg misplaces the bits of frames whose pixels are no multiple of 8.
at::Tensor masks_of(const fs::path& path, const Geometry& grid) {
  DcmFileFormat file;
  EXPECT_TRUE(file.loadFile(path.c_str()).good());
  Sint32 frames = 0;
  EXPECT_TRUE(file.getDataset()->findAndGetSint32(DCM_NumberOfFrames, frames).good());
  const Uint8* bytes = nullptr;
  unsigned long count = 0;
  EXPECT_TRUE(file.getDataset()->findAndGetUint8Array(DCM_PixelData, bytes, &count).good());
  at::Tensor masks = at::empty({frames, grid.size_zyx[1], grid.size_zyx[2]}, at::kBool);
  const auto bits = static_cast<size_t>(masks.numel());
  EXPECT_EQ(count, (bits + 15) / 16 * 2);
  for (size_t i = 0; i < bits; ++i)
    masks.mutable_data_ptr<bool>()[i] = (bytes[i / 8] >> i % 8 & 1) != 0;
  return masks;
}

std::vector<double> numbers(DcmItem& within, const DcmTagKey& sequence, const DcmTagKey& tag) {
  DcmItem* item = nullptr;
  EXPECT_TRUE(within.findAndGetSequenceItem(sequence, item).good());
  std::vector<double> values;
  double value = 0;
  while (item->findAndGetFloat64(tag, value, values.size()).good()) values.push_back(value);
  return values;
}

// The label map that a file holds, each pixel put where the file's own attributes place it, by
// segments' names.
at::Tensor read_back(const fs::path& path,
                     const Geometry& grid,
                     const SegmentationMetadata& metadata) {
  const std::unique_ptr<DcmSegmentation> document = load(path);
  DcmFileFormat file;
  EXPECT_TRUE(file.loadFile(path.c_str()).good());
  DcmItem* shared = nullptr;
  file.getDataset()->findAndGetSequenceItem(DCM_SharedFunctionalGroupsSequence, shared);
  const auto axes = numbers(*shared, DCM_PlaneOrientationSequence, DCM_ImageOrientationPatient);
  const auto spacing = numbers(*shared, DCM_PixelMeasuresSequence, DCM_PixelSpacing);
  const auto& size = grid.size_zyx;
  at::Tensor labels = at::zeros({size[0], size[1], size[2]}, at::kInt);
  const at::Tensor masks = masks_of(path, grid);
  for (int64_t i = 0; i < masks.size(0); ++i) {
    Vector3 corner{};
    EXPECT_TRUE(
        group<FGPlanePosPatient>(*document, static_cast<size_t>(i), DcmFGTypes::EFG_PLANEPOSPATIENT)
            .getImagePositionPatient(corner[0], corner[1], corner[2])
            .good());
    Uint16 number = 0;
    group<FGSegmentation>(*document, static_cast<size_t>(i), DcmFGTypes::EFG_SEGMENTATION)
        .getReferencedSegmentNumber(number);
    const std::string name = label_of(*document, number);
    const auto segment = std::find_if(metadata.segments.begin(),
                                      metadata.segments.end(),
                                      [&](const auto& each) { return each.name == name; });
    EXPECT_NE(segment, metadata.segments.end()) << name;
    EXPECT_TRUE(masks[i].any().item<bool>()) << "an empty frame";
    const auto mask = masks.accessor<bool, 3>()[i];
    for (int64_t y = 0; y < size[1]; ++y)
      for (int64_t x = 0; x < size[2]; ++x) {
        if (!mask[y][x]) continue;
        Vector3 place = corner;
        for (size_t k = 0; k < 3; ++k)
          place[k] += axes[k] * spacing[1] * static_cast<double>(x) +
                      axes[3 + k] * spacing[0] * static_cast<double>(y);
        const Vector3 index = grid.voxel_from_lps(place);
        std::array<int64_t, 3> voxel{};
        for (size_t k = 0; k < 3; ++k) {
          voxel[k] = std::lround(index[k]);
          EXPECT_NEAR(index[k], static_cast<double>(voxel[k]), 1e-6);
        }
        int32_t& label = labels.accessor<int32_t, 3>()[voxel[0]][voxel[1]][voxel[2]];
        EXPECT_EQ(label, 0) << "segments overlap";
        label = static_cast<int32_t>(segment->value);
      }
  }
  return labels;
}

TEST(DicomSeg, LiesInItsPlaceInAll48Orientations) {
  const fs::path folder = test::scratch_folder();
  const SegmentationMetadata metadata = test::made_metadata();
  const at::Tensor labels = test::made_labels(3, 11, 13);
  int count = 0;
  for (const Geometry& grid : test::straight_grids(3, 11, 13)) {
    const DicomSeries source = test::made_source(folder / std::to_string(count), grid);
    const fs::path path = folder / (std::to_string(count++) + ".dcm");
    ASSERT_TRUE(write_dicom_seg(path, labels, grid, source, metadata, kAlgorithm));
    EXPECT_TRUE(at::equal(read_back(path, grid, metadata), labels)) << grid.orientation_xyz();
    EXPECT_EQ(test::dicom_errors(path), "");
  }
  EXPECT_EQ(count, 48);
}

TEST(DicomSeg, ComesBackVoxelForVoxelOnTheSourcesGrid) {
  const fs::path folder = test::scratch_folder();
  const SegmentationMetadata metadata = test::made_metadata();
  int count = 0;
  for (const Geometry& grid : {test::oblique_grid(5, 13, 11),
                               test::reversed_grid(4, 12, 17),
                               test::oblique_grid(1, 16, 16),
                               test::oblique_grid(2, 31, 10)}) {
    const auto& size = grid.size_zyx;
    const at::Tensor labels = test::made_labels(size[0], size[1], size[2]);
    const DicomSeries source = test::made_source(folder / std::to_string(count), grid);
    const fs::path path = folder / (std::to_string(count++) + ".dcm");
    ASSERT_TRUE(write_dicom_seg(path, labels, grid, source, metadata, kAlgorithm));
    EXPECT_TRUE(at::equal(read_back(path, grid, metadata), labels)) << path;
    EXPECT_EQ(test::dicom_errors(path), "");
    // Deflated, the same voxels in fewer bytes.
    const fs::path small = folder / "small.dcm";
    ASSERT_TRUE(write_dicom_seg(small, labels, grid, source, metadata, kAlgorithm, {true}));
    EXPECT_TRUE(at::equal(read_back(small, grid, metadata), labels));
    EXPECT_LT(fs::file_size(small), fs::file_size(path));
  }
}

TEST(DicomSeg, NumbersThePresentSegmentsAndDescribesThem) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(3, 14, 12);
  const DicomSeries source = test::made_source(folder / "source", grid);
  SegmentationMetadata metadata = test::made_metadata();
  metadata.segments[0].region = {"818983003", "SCT", "Abdomen"};
  metadata.segments[0].color = {255, 0, 0};
  metadata.segments[2].tracking_id = "lesion of visit 1";
  metadata.segments[2].tracking_uid = "1.2.3";
  const fs::path path = folder / "seg.dcm";
  ASSERT_TRUE(
      write_dicom_seg(path, test::made_labels(3, 14, 12), grid, source, metadata, kAlgorithm));
  EXPECT_EQ(test::dicom_errors(path), "");
  const std::unique_ptr<DcmSegmentation> document = load(path);
  ASSERT_EQ(document->getNumberOfSegments(), 3U);
  EXPECT_EQ(label_of(*document, 1), "liver");
  EXPECT_EQ(label_of(*document, 2), "left kidney");
  EXPECT_EQ(label_of(*document, 3), "tumor");
  DcmSegment& liver = *document->getSegment(1);
  DcmSegment& kidney = *document->getSegment(2);
  OFString text;
  liver.getSegmentedPropertyTypeCode().getCodeValue(text);
  EXPECT_EQ(text, "10200004");
  liver.getGeneralAnatomyCode().getAnatomicRegion().getCodeMeaning(text);
  EXPECT_EQ(text, "Abdomen");
  kidney.getSegmentedPropertyTypeModifierCode().at(0)->getCodeMeaning(text);
  EXPECT_EQ(text, "Left");
  kidney.getTrackingUID(text);
  EXPECT_EQ(text, "1.2.3");
  liver.getTrackingUID(text);
  EXPECT_THAT(text.c_str(), ::testing::StartsWith("2.25."));
  AlgorithmIdentificationMacro& algorithm = liver.getSegmentationAlgorithmIdentification();
  algorithm.getAlgorithmName(text);
  EXPECT_EQ(text, "rwkv_unet_t");
  algorithm.getAlgorithmVersion(text);
  EXPECT_EQ(text, "3");
  algorithm.getAlgorithmParameters(text);
  EXPECT_EQ(text, ("weights_sha256=" + kAlgorithm.weights_sha256).c_str());
  Uint16 l = 0, a = 0, b = 0;
  liver.getRecommendedDisplayCIELabValue(l, a, b);
  EXPECT_NEAR(l / 655.35, 54.29, 0.01);
}

TEST(DicomSeg, RefersToEveryImageAndEachFrameToItsOwn) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(4, 12, 12);
  const DicomSeries source = test::made_source(folder / "source", grid);
  at::Tensor labels = at::zeros({4, 12, 12}, at::kInt);
  labels[2].slice(0, 3, 6).fill_(1);
  const fs::path path = folder / "seg.dcm";
  ASSERT_TRUE(write_dicom_seg(path, labels, grid, source, test::made_metadata(), kAlgorithm));
  EXPECT_EQ(test::dicom_errors(path), "");
  const std::unique_ptr<DcmSegmentation> document = load(path);
  ASSERT_EQ(document->getNumberOfFrames(), 1U);
  auto& derivation = group<FGDerivationImage>(*document, 0, DcmFGTypes::EFG_DERIVATIONIMAGE);
  const auto& images = derivation.getDerivationImageItems().at(0)->getSourceImageItems();
  ASSERT_EQ(images.size(), 1U);
  OFString uid;
  images.at(0)->getImageSOPInstanceReference().getReferencedSOPInstanceUID(uid);
  EXPECT_EQ(uid, source.files[source.slices[2].file].sop_instance_uid.c_str());

  std::set<std::string> referred, all;
  for (auto* item : document->getCommonInstanceReference().getReferencedSeriesItems())
    for (auto* instance : item->getReferencedInstanceItems()) {
      instance->getReferencedSOPInstanceUID(uid);
      referred.insert(uid.c_str());
    }
  for (const DicomFile& file : source.files) all.insert(file.sop_instance_uid);
  EXPECT_EQ(referred, all);
  document->getFrameOfReference().getFrameOfReferenceUID(uid);
  EXPECT_EQ(uid, source.first_file().frame_of_reference_uid.c_str());
  document->getStudy().getStudyInstanceUID(uid);
  EXPECT_EQ(uid, source.first_file().study_uid.c_str());
  document->getPatient().getPatientID(uid);
  EXPECT_EQ(uid, "made-1");
}

TEST(DicomSeg, NamesTheFramesOfMultiFrameSources) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(4, 12, 12);
  const DicomSeries source = test::made_source(folder / "source", grid, {.multi_frame = true});
  at::Tensor labels = at::zeros({4, 12, 12}, at::kInt);
  labels[1].slice(0, 3, 6).fill_(1);
  const fs::path path = folder / "seg.dcm";
  ASSERT_TRUE(write_dicom_seg(path, labels, grid, source, test::made_metadata(), kAlgorithm));
  EXPECT_EQ(test::dicom_errors(path), "");
  const std::unique_ptr<DcmSegmentation> document = load(path);
  auto& derivation = group<FGDerivationImage>(*document, 0, DcmFGTypes::EFG_DERIVATIONIMAGE);
  OFVector<Uint16> frames;
  derivation.getDerivationImageItems()
      .at(0)
      ->getSourceImageItems()
      .at(0)
      ->getImageSOPInstanceReference()
      .getReferencedFrameNumber(frames);
  ASSERT_EQ(frames.size(), 1U);
  EXPECT_EQ(frames[0], 3) << "the file's frames lie in reversed order";
}

TEST(DicomSeg, RefersToTheNeighboursInAGap) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(5, 12, 12);
  DicomSeries source = test::made_source(folder / "source", grid);
  const std::string below = source.files[source.slices[1].file].sop_instance_uid;
  const std::string above = source.files[source.slices[3].file].sop_instance_uid;
  source.slices.erase(source.slices.begin() + 2);
  const auto sources = sources_of_planes(source, grid);
  ASSERT_EQ(sources[2].size(), 2U);
  EXPECT_EQ(source.files[sources[2][0].file].sop_instance_uid, below);
  EXPECT_EQ(source.files[sources[2][1].file].sop_instance_uid, above);
  for (const size_t z : {0, 1, 3, 4}) EXPECT_EQ(sources[z].size(), 1U) << z;
}

TEST(DicomSeg, SegmentsPicturesWithoutAPlace) {
  const fs::path folder = test::scratch_folder();
  Geometry grid;
  grid.size_zyx = {1, 15, 13};
  const DicomSeries source = test::made_source(folder / "source", grid, {.placed = false});
  const at::Tensor labels = test::made_labels(1, 15, 13);
  const fs::path path = folder / "seg.dcm";
  ASSERT_TRUE(write_dicom_seg(path, labels, grid, source, test::made_metadata(), kAlgorithm));
  EXPECT_EQ(test::dicom_errors(path), "");
  const std::unique_ptr<DcmSegmentation> document = load(path);
  EXPECT_EQ(document->getNumberOfFrames(), 3U);
}

TEST(DicomSeg, IsNotWrittenForAnEmptyLabelMap) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(2, 12, 12);
  const DicomSeries source = test::made_source(folder / "source", grid);
  const fs::path path = folder / "seg.dcm";
  std::ofstream(path) << "of an earlier run";
  EXPECT_FALSE(write_dicom_seg(
      path, at::zeros({2, 12, 12}, at::kByte), grid, source, test::made_metadata(), kAlgorithm));
  EXPECT_FALSE(fs::exists(path));
}

TEST(DicomSeg, KeepsNamesInOtherScripts) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(2, 12, 12);
  // "Müller^Jörg" in Latin-1; a name of 30 Cyrillic letters. (dciodvfy counts bytes, of which it
  // allows 64; DICOM counts characters.)
  const DicomSeries source =
      test::made_source(folder / "source", grid, {.patient_name = "M\xfcller^J\xf6rg"});
  SegmentationMetadata metadata = test::made_metadata();
  metadata.segments[0].name.clear();
  for (int i = 0; i < 30; ++i) metadata.segments[0].name += "\xd0\xbb";
  const at::Tensor labels = test::made_labels(2, 12, 12);
  const fs::path path = folder / "seg.dcm";
  ASSERT_TRUE(write_dicom_seg(path, labels, grid, source, metadata, kAlgorithm));
  EXPECT_EQ(test::dicom_errors(path), "");
  EXPECT_TRUE(at::equal(read_back(path, grid, metadata), labels));
  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile(path.c_str()).good());
  OFString text;
  file.getDataset()->findAndGetOFString(DCM_SpecificCharacterSet, text);
  EXPECT_EQ(text, "ISO_IR 192");
  file.getDataset()->findAndGetOFString(DCM_PatientName, text);
  EXPECT_EQ(text, "M\xc3\xbcller^J\xc3\xb6rg");
}

TEST(DicomSeg, DoesNotReferToDuplicatesThatWereDropped) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(4, 12, 12);
  const DicomSeries source = test::made_source_with_duplicate(folder / "source", grid);
  ASSERT_TRUE(std::any_of(
      source.problems.begin(), source.problems.end(), [](const DicomSeries::Problem& problem) {
        return problem.kind == DicomSeries::Problem::Kind::kDuplicates;
      }));
  EXPECT_EQ(files_read(source).size(), 4U);
  for (const auto& slices : sources_of_planes(source, grid)) EXPECT_EQ(slices.size(), 1U);
  const fs::path path = folder / "seg.dcm";
  ASSERT_TRUE(write_dicom_seg(
      path, test::made_labels(4, 12, 12), grid, source, test::made_metadata(), kAlgorithm));
  EXPECT_EQ(test::dicom_errors(path), "");
  std::ifstream in(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  EXPECT_THAT(bytes, HasSubstr(source.files[0].sop_instance_uid));
  EXPECT_THAT(bytes, ::testing::Not(HasSubstr(test::kDuplicateUid)));
}

TEST(DicomSeg, RefusesSourcesThatCannotBeReferredTo) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(2, 12, 12);
  DicomSeries source = test::made_source(folder / "source", grid);
  const auto refusal = [&]() -> std::string {
    try {
      write_dicom_seg(folder / "seg.dcm",
                      test::made_labels(2, 12, 12),
                      grid,
                      source,
                      test::made_metadata(),
                      kAlgorithm);
    } catch (const DataError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(refusal(), "accepted");
  const std::string uid = source.files[1].sop_instance_uid;
  source.files[1].sop_instance_uid.clear();
  EXPECT_THAT(refusal(), HasSubstr(source.files[1].path.string() + ": has no SOPInstanceUID"));
  EXPECT_THROW(check_dicom_seg_source(source), DataError);
  source.files[1].sop_instance_uid = uid;
  EXPECT_NO_THROW(check_dicom_seg_source(source));
  const fs::path first = source.first_file().path;
  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile(first.c_str()).good());
  ASSERT_TRUE(file.getDataset()->findAndDeleteElement(DCM_StudyInstanceUID).good());
  ASSERT_TRUE(file.saveFile(first.c_str()).good());
  EXPECT_THAT(refusal(), HasSubstr(first.string() + ": has no StudyInstanceUID"));
  fs::remove(first);
  EXPECT_THAT(refusal(), HasSubstr(first.string() + ": cannot be read again"));
}

std::string refusal(const fs::path& folder,
                    const at::Tensor& labels,
                    const SegmentationMetadata& metadata) {
  const Geometry grid = test::oblique_grid(2, 12, 12);
  const DicomSeries source = test::made_source(folder / "source", grid);
  try {
    write_dicom_seg(folder / "seg.dcm", labels, grid, source, metadata, kAlgorithm);
  } catch (const Error& error) {
    EXPECT_FALSE(fs::exists(folder / "seg.dcm"));
    return error.what();
  }
  return "accepted";
}

TEST(DicomSeg, RefusesWhatItCannotHold) {
  const fs::path folder = test::scratch_folder();
  const SegmentationMetadata sound = test::made_metadata();
  const at::Tensor labels = at::ones({2, 12, 12}, at::kInt);
  EXPECT_THAT(refusal(folder, labels * 3, sound),
              HasSubstr("holds the value 3, which no segment describes"));
  EXPECT_THAT(refusal(folder, labels.slice(1, 1), sound), HasSubstr("shape [2, 12, 12]"));
  EXPECT_THAT(refusal(folder, labels.to(at::kFloat), sound), HasSubstr("must be integers"));
  SegmentationMetadata twice = sound;
  twice.segments.push_back(sound.segments[0]);
  EXPECT_THAT(refusal(folder, labels, twice), HasSubstr("described twice"));
}

TEST(DicomSeg, PassesDciodvfy) {
  if (!test::has_dciodvfy())
    VIREO_SKIP(
        "no dciodvfy: the files of these tests were not validated; apt-get install "
        "dicom3tools");
  const fs::path path = test::scratch_folder() / "broken.dcm";
  std::ofstream(path) << "no DICOM";
  EXPECT_NE(test::dicom_errors(path), "") << "the validator finds nothing";
}

}  // namespace
}  // namespace vireo
