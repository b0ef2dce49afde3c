#include "vision/io/segmentation/seg_nrrd.h"

#include <map>
#include <sstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/made_segments.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::map<std::string, std::string> fields_of(const fs::path& path) {
  const std::string text = read_text(path);
  std::istringstream header(text.substr(0, text.find("\n\n")));
  std::map<std::string, std::string> fields;
  std::string line;
  while (std::getline(header, line)) {
    const size_t mark = line.find(":=");
    const size_t colon = line.find(": ");
    if (mark != std::string::npos)
      fields[line.substr(0, mark)] = line.substr(mark + 2);
    else if (colon != std::string::npos)
      fields[line.substr(0, colon)] = line.substr(colon + 2);
  }
  return fields;
}

TEST(SegNrrd, ComesBackOnItsGrid) {
  const fs::path path = test::scratch_folder() / "case.seg.nrrd";
  std::vector<Geometry> grids = test::straight_grids(3, 11, 13);
  grids.push_back(test::oblique_grid(5, 13, 11));
  grids.push_back(test::reversed_grid(1, 16, 17));
  for (const Geometry& grid : grids) {
    const auto& size = grid.size_zyx;
    const at::Tensor labels = test::made_labels(size[0], size[1], size[2]);
    write_seg_nrrd(path, labels, grid, test::made_metadata().segments);
    const Volume back = read_labels(path);
    EXPECT_TRUE(at::equal(back.values[0].to(at::kInt), labels));
    EXPECT_EQ(difference(back.geometry, grid, 1e-9), "");
    EXPECT_EQ(fields_of(path)["type"], "unsigned char");
  }
}

TEST(SegNrrd, ListsEverySegmentAs3DSlicerReadsIt) {
  const fs::path path = test::scratch_folder() / "case.seg.nrrd";
  std::vector<SegmentDescription> segments = test::made_metadata().segments;
  segments[0].color = {255, 0, 51};
  at::Tensor labels = at::zeros({4, 12, 15}, at::kInt);
  labels.slice(0, 1, 3).slice(1, 2, 9).slice(2, 4, 5).fill_(1);
  write_seg_nrrd(path, labels, test::oblique_grid(4, 12, 15), segments);
  std::map<std::string, std::string> fields = fields_of(path);
  EXPECT_EQ(fields["space"], "left-posterior-superior");
  EXPECT_EQ(fields["sizes"], "15 12 4");
  EXPECT_EQ(fields["Segment0_ID"], "Segment_1");
  EXPECT_EQ(fields["Segment0_Name"], "liver");
  EXPECT_EQ(fields["Segment0_Color"], "1 0 0.2");
  EXPECT_EQ(fields["Segment0_LabelValue"], "1");
  EXPECT_EQ(fields["Segment0_Layer"], "0");
  EXPECT_EQ(fields["Segment0_Extent"], "4 4 2 8 1 2");
  EXPECT_EQ(fields["Segment2_Tags"],
            "TerminologyEntry:Segmentation category and type - 3D Slicer General Anatomy "
            "list~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~SCT^7771000^Left~"
            "Anatomic codes - DICOM master list~^^~^^|");
  EXPECT_EQ(fields["Segment2_Extent"], "0 -1 0 -1 0 -1") << "described, but not there";
  EXPECT_EQ(fields["Segmentation_ContainedRepresentationNames"], "Binary labelmap|");
}

TEST(SegNrrd, IsWrittenForAnEmptyLabelMapToo) {
  const fs::path path = test::scratch_folder() / "case.seg.nrrd";
  const at::Tensor labels = at::zeros({2, 3, 4}, at::kByte);
  write_seg_nrrd(path, labels, test::oblique_grid(2, 3, 4), test::made_metadata().segments);
  EXPECT_FALSE(read_labels(path).values.any().item<bool>());
  EXPECT_EQ(fields_of(path)["Segment3_Name"], "tumor");
}

TEST(SegNrrd, TakesTwoBytesForLargeValues) {
  const fs::path path = test::scratch_folder() / "case.seg.nrrd";
  at::Tensor labels = at::zeros({2, 3, 4}, at::kLong);
  labels[1][2][3] = 40000;
  write_seg_nrrd(path, labels, test::oblique_grid(2, 3, 4), {describe_segment(40000, "far away")});
  EXPECT_TRUE(at::equal(read_labels(path).values[0].to(at::kLong), labels));
  EXPECT_EQ(fields_of(path)["type"], "unsigned short");
}

TEST(SegNrrd, RefusesValuesThatNobodyDescribes) {
  const fs::path path = test::scratch_folder() / "case.seg.nrrd";
  try {
    write_seg_nrrd(path,
                   at::ones({2, 3, 4}, at::kInt),
                   test::oblique_grid(2, 3, 4),
                   {describe_segment(2, "liver")});
    FAIL() << "accepted";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("holds the value 1, which no segment describes"));
  }
  EXPECT_FALSE(fs::exists(path));
}

}  // namespace
}  // namespace vireo
