#include <algorithm>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <ATen/Functions.h>
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcrleerg.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/made_dicom.h"
#include "tests/support/test_data.h"
#include "vision/io/dicom/dicom_scan.h"
#include "vision/io/dicom/dicom_volume.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// All slices of a stack as the frames of one file, in the order given, every frame with its own
// slope.
void write_frames(const fs::path& path,
                  const std::vector<test::MadeSlice>& slices,
                  const std::vector<int>& order,
                  const std::vector<std::string>& slopes,
                  E_TransferSyntax syntax) {
  test::write_slice(path, slices[0]);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  format.loadAllDataIntoMemory();
  DcmDataset& item = *format.getDataset();
  item.findAndDeleteElement(DCM_ImagePositionPatient);
  test::put(item, DCM_NumberOfFrames, std::to_string(order.size()));
  auto* groups = new DcmSequenceOfItems(DCM_PerFrameFunctionalGroupsSequence);
  item.insert(groups);
  std::vector<Uint16> words;
  for (const int z : order) {
    const test::MadeSlice& slice = slices[static_cast<size_t>(z)];
    words.insert(words.end(), slice.pixels.begin(), slice.pixels.end());
    auto* group = new DcmItem;
    groups->append(group);
    DcmItem *place = nullptr, *values = nullptr;
    group->findOrCreateSequenceItem(DCM_PlanePositionSequence, place, 0);
    const Vector3& p = slice.position_lps_mm;
    test::put(*place, DCM_ImagePositionPatient, test::decimals({p[0], p[1], p[2]}));
    group->findOrCreateSequenceItem(DCM_PixelValueTransformationSequence, values, 0);
    test::put(*values, DCM_RescaleSlope, slopes[static_cast<size_t>(z)]);
    test::put(*values, DCM_RescaleIntercept, "-3");
  }
  item.putAndInsertUint16Array(DCM_PixelData, words.data(), words.size());
  if (syntax == EXS_RLELossless) DcmRLEEncoderRegistration::registerCodecs();
  ASSERT_TRUE(item.chooseRepresentation(syntax, nullptr).good());
  ASSERT_TRUE(format.saveFile(path.c_str(), syntax).good());
}

TEST(DicomFrames, PutsFramesOfOneFileAtTheirPlacesEachByItsOwnSlope) {
  const fs::path path = test::scratch_folder() / "frames.dcm";
  for (const E_TransferSyntax syntax :
       {EXS_LittleEndianExplicit, EXS_BigEndianExplicit, EXS_RLELossless}) {
    write_frames(path,
                 test::slices_of(test::plain_grid()),
                 {3, 0, 4, 1, 2},
                 {"0.5", "1", "1.5", "2", "2.5"},
                 syntax);
    for (const bool compact : {false, true}) {
      const Volume volume = read_dicom_series(scan_dicom(path).series.at(0), {}, compact);
      EXPECT_EQ(difference(volume.geometry, test::plain_grid()), "");
      const at::Tensor stored = at::arange(120, at::kFloat).view({5, 4, 6});
      const at::Tensor slopes = at::tensor({0.5f, 1.f, 1.5f, 2.f, 2.5f}).view({5, 1, 1});
      EXPECT_TRUE(at::equal(volume.values[0], stored * slopes - 3));
    }
  }
}

TEST(DicomFrames, TakesASingleFramesThicknessFromItsFunctionalGroups) {
  const fs::path path = test::scratch_folder() / "frame.dcm";
  write_frames(
      path, test::slices_of(test::plain_grid()), {2}, {"1", "1", "1"}, EXS_LittleEndianExplicit);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  DcmItem *groups = nullptr, *measures = nullptr;
  format.getDataset()->findAndGetSequenceItem(DCM_PerFrameFunctionalGroupsSequence, groups, 0);
  groups->findOrCreateSequenceItem(DCM_PixelMeasuresSequence, measures, 0);
  test::put(*measures, DCM_SliceThickness, "5");
  format.loadAllDataIntoMemory();
  ASSERT_TRUE(format.saveFile(path.c_str(), EXS_LittleEndianExplicit).good());
  const Volume volume = read_dicom_series(scan_dicom(path).series.at(0));
  EXPECT_DOUBLE_EQ(volume.geometry.spacing_mm_zyx[0], 5);
}

// The slices of three volumes at one place as the frames of one file, shuffled; `change` makes a
// frame of the k-th.
void write_copies_as_frames(const fs::path& path,
                            const std::function<void(DcmItem& groups, int k)>& change) {
  std::vector<test::MadeSlice> slices;
  std::vector<int> order;
  for (int k = 0; k < 3; ++k)
    for (const auto& slice : test::slices_of(test::plain_grid(), static_cast<int16_t>(1000 * k))) {
      order.push_back(static_cast<int>(slices.size()));
      slices.push_back(slice);
    }
  std::mt19937 random(7);
  std::shuffle(order.begin(), order.end(), random);
  write_frames(path, slices, order, std::vector<std::string>(15, "1"), EXS_LittleEndianExplicit);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  format.loadAllDataIntoMemory();
  DcmDataset& item = *format.getDataset();
  for (size_t i = 0; i < order.size(); ++i) {
    DcmItem *groups = nullptr, *content = nullptr;
    item.findAndGetSequenceItem(DCM_PerFrameFunctionalGroupsSequence, groups, static_cast<long>(i));
    groups->findOrCreateSequenceItem(DCM_FrameContentSequence, content, 0);
    content->putAndInsertUint32(DCM_InStackPositionNumber, static_cast<Uint32>(order[i] % 5 + 1));
    change(*groups, order[i] / 5);
  }
  format.saveFile(path.c_str(), EXS_LittleEndianExplicit);
}

TEST(DicomFrames, TellsFramesOfOneFileApartByDirectionTimeAndDimension) {
  const fs::path path = test::scratch_folder() / "frames.dcm";
  const auto expect_apart = [&](const auto& change) {
    write_copies_as_frames(path, change);
    const DicomScan scan = scan_dicom(path);
    ASSERT_THAT(scan.series, SizeIs(3));
    for (const DicomSeries& series : scan.series) {
      ASSERT_EQ(test::refusal(series), "");
      const at::Tensor values = read_dicom_series(series).values.flatten();
      EXPECT_TRUE(at::equal(values, values[0] + at::arange(120, at::kFloat)));
    }
  };
  expect_apart([](DcmItem& groups, int k) {
    DcmItem *diffusion = nullptr, *direction = nullptr;
    groups.findOrCreateSequenceItem(DCM_MRDiffusionSequence, diffusion, 0);
    diffusion->findOrCreateSequenceItem(DCM_DiffusionGradientDirectionSequence, direction, 0);
    const Float64 axes[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
    direction->putAndInsertFloat64Array(DCM_DiffusionGradientOrientation, axes[k], 3);
  });
  expect_apart([](DcmItem& groups, int k) {
    DcmItem* heart = nullptr;
    groups.findOrCreateSequenceItem(DCM_CardiacSynchronizationSequence, heart, 0);
    heart->putAndInsertFloat64(DCM_NominalCardiacTriggerDelayTime, 100 * k);
  });
  expect_apart([](DcmItem& groups, int k) {
    DcmItem* content = nullptr;
    groups.findOrCreateSequenceItem(DCM_FrameContentSequence, content, 0);
    Uint32 place = 0;
    content->findAndGetUint32(DCM_InStackPositionNumber, place);
    const Uint32 indices[] = {static_cast<Uint32>(k + 1), place};
    auto* values = new DcmUnsignedLong(DcmTag(DCM_DimensionIndexValues));
    values->putUint32Array(indices, 2);
    content->insert(values, true);
  });
  expect_apart([](DcmItem& groups, int k) {
    DcmItem* type = nullptr;
    groups.findOrCreateSequenceItem(DCM_MRImageFrameTypeSequence, type, 0);
    const char* components[] = {"MAGNITUDE", "PHASE", "REAL"};
    test::put(*type, DCM_ComplexImageComponent, components[k]);
  });
  // By their order in the file alone they are not.
  write_copies_as_frames(path, [](DcmItem&, int) {});
  EXPECT_THAT(test::refusal(scan_dicom(path).series.at(0)),
              HasSubstr("3 slices lie at each of 5 places, and neither times"));
}

// A stack as the frames of a file without functional groups, twice over.
void write_plain_frames(const fs::path& path, const std::function<void(DcmItem&)>& change) {
  test::MadeSlice slice = test::slices_of(test::plain_grid())[0];
  slice.modality = "NM";
  slice.image_type = "ORIGINAL\\PRIMARY\\RECON GATED TOMO";
  std::vector<Uint16> words(240);
  std::iota(words.begin(), words.end(), static_cast<Uint16>(0));
  slice.change = [&](DcmItem& item) {
    test::put(item, DCM_SOPClassUID, UID_NuclearMedicineImageStorage);
    test::put(item, DCM_NumberOfFrames, "10");
    test::put(item, DCM_SpacingBetweenSlices, "2.5");
    item.putAndInsertUint16Array(DCM_PixelData, words.data(), words.size());
    change(item);
  };
  test::write_slice(path, slice);
}

void put_vector(DcmItem& item, const DcmTagKey& tag, const std::vector<Uint16>& values) {
  item.putAndInsertUint16Array(tag, values.data(), values.size());
}

void put_pointers(DcmItem& item, std::initializer_list<DcmTagKey> tags) {
  auto* pointers = new DcmAttributeTag(DcmTag(DCM_FrameIncrementPointer));
  unsigned long i = 0;
  for (const DcmTagKey& tag : tags) pointers->putTagVal(tag, i++);
  item.insert(pointers, true);
}

TEST(DicomFrames, KeepsGatesOfOneFileApart) {
  const fs::path path = test::scratch_folder() / "gates.dcm";
  write_plain_frames(path, [](DcmItem& item) {
    put_pointers(item, {DCM_EnergyWindowVector, DCM_TimeSlotVector, DCM_SliceVector});
    put_vector(item, DCM_EnergyWindowVector, std::vector<Uint16>(10, 1));
    put_vector(item, DCM_TimeSlotVector, {1, 2, 1, 2, 1, 2, 1, 2, 1, 2});
    put_vector(item, DCM_SliceVector, {1, 1, 2, 2, 3, 3, 4, 4, 5, 5});
  });
  const DicomScan scan = scan_dicom(path);
  ASSERT_THAT(scan.series, SizeIs(2));
  for (const DicomSeries& series : scan.series) {
    const Volume volume = read_dicom_series(series);
    EXPECT_EQ(difference(volume.geometry, test::plain_grid()), "");
    const at::Tensor firsts = volume.values[0].select(1, 0).select(1, 0);
    EXPECT_TRUE(at::equal(firsts - firsts[0], at::arange(5, at::kFloat) * 48));
  }
  EXPECT_EQ(scan.series[0].files[0].frames[1].kind, "time slot 2");
}

TEST(DicomFrames, RefusesFramesThatAreMomentsOrViewsAsAVolume) {
  const fs::path path = test::scratch_folder() / "frames.dcm";
  const auto refused = [&](const auto& change) {
    write_plain_frames(path, change);
    return test::refusal(scan_dicom(path).series.at(0));
  };
  EXPECT_THAT(refused([](DcmItem& item) {
                put_pointers(item, {DCM_FrameTime});
                test::put(item, DCM_FrameTime, "40");
              }),
              HasSubstr("its frames run over FrameTime (0018,1063) (FrameIncrementPointer)"));
  EXPECT_THAT(refused([](DcmItem& item) {
                put_pointers(item, {DCM_SliceVector});
                put_vector(item, DCM_SliceVector, {1, 2, 3});
              }),
              HasSubstr("which holds 3 numbers for 10 frames"));
  EXPECT_THAT(refused([](DcmItem& item) {
                put_pointers(item, {DCM_SliceVector});
                put_vector(item, DCM_SliceVector, {2, 1, 3, 4, 5, 6, 7, 8, 9, 10});
              }),
              HasSubstr("its first frame is not its first slice (SliceVector)"));
  EXPECT_THAT(refused([](DcmItem& item) {
                put_pointers(item, {DCM_TimeSlotVector});
                put_vector(item, DCM_TimeSlotVector, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
              }),
              HasSubstr("FrameIncrementPointer lacks SliceVector"));
  EXPECT_THAT(refused([](DcmItem& item) { item.findAndDeleteElement(DCM_SpacingBetweenSlices); }),
              HasSubstr("SpacingBetweenSlices (0018,0088) is missing"));
}

TEST(DicomFrames, FindsThePlaceOfAReconstructionInItsDetector) {
  const fs::path path = test::scratch_folder() / "frames.dcm";
  write_plain_frames(path, [](DcmItem& item) {
    put_pointers(item, {DCM_SliceVector});
    put_vector(item, DCM_SliceVector, {1, 4, 3, 2, 5, 6, 7, 8, 9, 10});
    DcmItem* detector = nullptr;
    item.findOrCreateSequenceItem(DCM_DetectorInformationSequence, detector, 0);
    for (const DcmTagKey& tag : {DCM_ImagePositionPatient, DCM_ImageOrientationPatient})
      detector->insert(item.remove(tag), true);
  });
  const Volume volume = read_dicom_series(scan_dicom(path).series.at(0));
  Geometry grid = test::plain_grid();
  grid.size_zyx[0] = 10;
  EXPECT_EQ(difference(volume.geometry, grid), "");
  const at::Tensor firsts = volume.values[0].select(1, 0).select(1, 0);
  EXPECT_TRUE(at::equal(firsts.narrow(0, 0, 5), at::tensor({0.f, 72.f, 48.f, 24.f, 96.f})));
}

}  // namespace
}  // namespace vireo
