#include "apps/engine/input_cases.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/made_dicom.h"
#include "tests/support/test_data.h"
#include "vision/core/error.h"
#include "vision/core/log.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class FindCases : public ::testing::Test {
 protected:
  fs::path folder_ = test::scratch_folder();

  void put(const std::vector<std::string>& names) {
    for (const auto& name : names) std::ofstream(folder_ / name) << "x";
  }
  // "name=file,file"
  static std::vector<std::string> texts(const InputCases& found) {
    std::vector<std::string> lines;
    for (const InputCase& one : found.cases) {
      std::string line = one.name + "=";
      for (const fs::path& file : one.files)
        line += (line.back() == '=' ? "" : ",") + file.filename().string();
      lines.push_back(line);
    }
    return lines;
  }
  static std::string message(const fs::path& input, int64_t channels) {
    try {
      find_cases(input, channels);
    } catch (const DataError& error) {
      return error.what();
    }
    return "accepted";
  }
};

TEST_F(FindCases, GroupsChannelsNamedAsInNnunet) {
  put({"b_0000.nii.gz", "b_0001.nii.gz", "a_0001.nii.gz", "a_0000.nii.gz", "notes.txt"});
  const InputCases found = find_cases(folder_, 2);
  EXPECT_THAT(texts(found),
              ElementsAre("a=a_0000.nii.gz,a_0001.nii.gz", "b=b_0000.nii.gz,b_0001.nii.gz"));
  EXPECT_THAT(found.problems, IsEmpty());
}

TEST_F(FindCases, TakesPlainNamesAsCases) {
  put({"liver 1.nii.gz", "x.y.nrrd", "photo.PNG", "scan.mha", ".hidden.png"});
  EXPECT_THAT(
      texts(find_cases(folder_, 1)),
      ElementsAre("liver 1=liver 1.nii.gz", "photo=photo.PNG", "scan=scan.mha", "x.y=x.y.nrrd"));
}

TEST_F(FindCases, TakesNumberedPicturesWithoutAFirstChannelAsCases) {
  put({"img_0001.png", "img_0002.png", "case_0000.nii"});
  EXPECT_THAT(texts(find_cases(folder_, 1)),
              ElementsAre("case=case_0000.nii", "img_0001=img_0001.png", "img_0002=img_0002.png"));
}

TEST_F(FindCases, ListsMissingAndSuperfluousChannels) {
  put({"a_0000.png",
       "b_0000.png",
       "b_0001.png",
       "b_0002.png",
       "c_0000.png",
       "c_0001.png",
       "d_0001.png"});
  const InputCases found = find_cases(folder_, 2);
  EXPECT_THAT(texts(found), ElementsAre("c=c_0000.png,c_0001.png"));
  EXPECT_THAT(found.problems,
              ElementsAre(HasSubstr("a: channel a_0001 is missing; the model takes 2"),
                          HasSubstr("b: channel b_0002 is one too many"),
                          HasSubstr("d: channel d_0000 is missing")));
  EXPECT_THAT(find_cases(folder_, 1).problems,
              ElementsAre(HasSubstr("--plain-names"), HasSubstr("--plain-names")));
  EXPECT_EQ(find_cases(folder_, 1, true).cases.size(), 7u);
}

TEST_F(FindCases, RefusesTwoFilesOfOneName) {
  put({"a.png", "a.jpg", "b_0000.nii", "b_0000.nii.gz"});
  const InputCases found = find_cases(folder_, 1);
  EXPECT_THAT(texts(found), ElementsAre("a=a.jpg"));
  EXPECT_THAT(found.problems,
              ElementsAre(HasSubstr("two files hold b_0000"), HasSubstr("two cases of one name")));
}

TEST_F(FindCases, FindsTheOtherChannelsOfOneFile) {
  put({"a_0000.nii", "a_0001.nii", "b_0000.nii"});
  EXPECT_THAT(texts(find_cases(folder_ / "a_0000.nii", 2)), ElementsAre("a=a_0000.nii,a_0001.nii"));
  EXPECT_THAT(texts(find_cases(folder_ / "a_0000.nii", 1)), ElementsAre("a=a_0000.nii"));
  EXPECT_THAT(texts(find_cases(folder_ / "a_0001.nii", 1)), ElementsAre("a_0001=a_0001.nii"));
}

TEST_F(FindCases, TakesAPictureForAllItsColours) {
  put({"im_0000.png", "jm_0000.png", "jm_0001.png"});
  const InputCases found = find_cases(folder_, 3);
  EXPECT_THAT(texts(found), ElementsAre("im=im_0000.png"));
  EXPECT_THAT(found.problems, ElementsAre(HasSubstr("channel jm_0002 is missing")));
}

TEST_F(FindCases, TakesAPairOfFilesOnce) {
  put({"q.hdr.gz", "q.img.gz", "r.hdr", "r.img"});
  EXPECT_THAT(texts(find_cases(folder_, 1)), ElementsAre("q=q.hdr.gz", "r=r.hdr"));
}

TEST_F(FindCases, TakesSeriesAndVolumesAndLeavesPicturesOut) {
  put({"volume.nii", "logo.png"});
  fs::create_directory(folder_ / "study");
  Geometry grid;
  grid.size_zyx = {3, 4, 5};
  for (const test::MadeSlice& slice : test::slices_of(grid))
    test::write_slice(folder_ / "study" / (std::to_string(slice.instance) + ".dcm"), slice);
  const InputCases found = find_cases(folder_, 1);
  ASSERT_EQ(found.cases.size(), 2u);
  EXPECT_EQ(found.cases[0].name, "study");
  EXPECT_TRUE(found.cases[0].series);
  EXPECT_EQ(found.cases[1].name, "volume");
}

TEST_F(FindCases, KnowsDicomByItsContentWhateverItsName) {
  Geometry grid;
  grid.size_zyx = {3, 4, 5};
  for (const char* extension : {".img", ".nii"}) {
    const fs::path study = folder_ / extension;
    fs::create_directory(study);
    for (const test::MadeSlice& slice : test::slices_of(grid))
      test::write_slice(study / (std::to_string(slice.instance) + extension), slice);
    const InputCases found = find_cases(study, 1);
    ASSERT_EQ(found.cases.size(), 1u);
    EXPECT_TRUE(found.cases[0].series);
    EXPECT_EQ(found.cases[0].files.size(), 3u);
    EXPECT_TRUE(find_cases(study / (std::string("2") + extension), 1).cases.at(0).series);
  }
}

TEST_F(FindCases, LeavesMasksBesideTheirPicturesOut) {
  put({"benign (1).png",
       "benign (1)_mask.png",
       "benign (1)_mask_1.png",
       "other_mask.png",
       "b.nii"});
  const WarningsKept kept;
  EXPECT_THAT(texts(find_cases(folder_, 1)),
              ElementsAre("b=b.nii", "benign (1)=benign (1).png", "other_mask=other_mask.png"));
  EXPECT_THAT(kept.warnings(), ElementsAre(HasSubstr("benign (1)_mask.png and 1 more: named as")));
  EXPECT_THAT(texts(find_cases(folder_ / "benign (1)_mask.png", 1)),
              ElementsAre("benign (1)_mask=benign (1)_mask.png"));
}

TEST_F(FindCases, SaysWhyThereIsNothing) {
  EXPECT_THAT(message(folder_ / "gone.nii.gz", 1),
              HasSubstr("gone.nii.gz: no such file or folder"));
  EXPECT_THAT(message(folder_, 1), HasSubstr("holds no image files"));
  fs::create_directory(folder_ / "imagesTs");
  EXPECT_THAT(message(folder_, 1), HasSubstr("did you mean its imagesTs?"));
  put({"table.csv"});
  EXPECT_THAT(message(folder_ / "table.csv", 1), HasSubstr("not an image that Vireo reads"));
}

TEST_F(FindCases, SaysWhyADicomFileIsNoImage) {
  const fs::path broken = folder_ / "scan.dcm";
  std::ofstream(broken) << std::string(128, '\0') << "DICM and then nothing that is read";
  EXPECT_THAT(message(broken, 1), AllOf(HasSubstr("scan.dcm: "), Not(HasSubstr("not an image"))));
  EXPECT_THAT(message(folder_, 1), HasSubstr("holds no image that can be read; left out: "));
  EXPECT_THAT(message(folder_, 1), HasSubstr("scan.dcm: "));
}

}  // namespace
}  // namespace vireo
