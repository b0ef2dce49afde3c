#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/test_data.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr const char* kSmall = " --cases 3 --test-cases 1 --size 6 24 24";

test::CommandResult phantom(const fs::path& folder, const std::string& options) {
  return test::run_command(test::program().string() + " phantom " + folder.string() + options);
}

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(PhantomVerb, WritesAnNnUNetFolder) {
  const fs::path folder = test::scratch_folder() / "data";
  const auto result = phantom(folder, kSmall);
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const auto json = nlohmann::json::parse(content(folder / "dataset.json"));
  EXPECT_EQ(json["channel_names"]["0"], "CT");
  EXPECT_EQ(json["labels"]["background"], 0);
  EXPECT_EQ(json["labels"]["liver"], 1);
  EXPECT_EQ(json["numTraining"], 3);
  EXPECT_EQ(json["file_ending"], ".nii.gz");
  for (const char* file : {"imagesTr/phantom_001_0000.nii.gz",
                           "imagesTr/phantom_003_0000.nii.gz",
                           "labelsTr/phantom_002.nii.gz",
                           "imagesTs/phantom_004_0000.nii.gz",
                           "labelsTs/phantom_004.nii.gz",
                           "preview.png"})
    EXPECT_TRUE(fs::exists(folder / file)) << file;
}

TEST(PhantomVerb, ImageAndLabelsShareOneGridOnDisk) {
  const fs::path folder = test::scratch_folder() / "data";
  ASSERT_EQ(phantom(folder, kSmall).exit_code, 0);
  for (const char* name : {"phantom_001", "phantom_002", "phantom_003"}) {
    const Volume image = read_image(folder / "imagesTr" / (std::string(name) + "_0000.nii.gz"));
    const Volume labels = read_labels(folder / "labelsTr" / (std::string(name) + ".nii.gz"));
    EXPECT_EQ(difference(image.geometry, labels.geometry, 1e-4), "");
  }
}

TEST(PhantomVerb, SameSeedGivesTheSameBytesOnAnyThreadCount) {
  const fs::path scratch = test::scratch_folder();
  ASSERT_EQ(phantom(scratch / "a", kSmall).exit_code, 0);
  ASSERT_EQ(test::run_command("OMP_NUM_THREADS=1 " + test::program().string() + " phantom " +
                              (scratch / "b").string() + kSmall)
                .exit_code,
            0);
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(scratch / "a")) {
    if (!entry.is_regular_file()) continue;
    const fs::path relative = fs::relative(entry.path(), scratch / "a");
    EXPECT_EQ(content(entry.path()), content(scratch / "b" / relative)) << relative;
    ++files;
  }
  EXPECT_EQ(files, 10);
}

TEST(PhantomVerb, LeavesADataSetThatIsThereAlone) {
  const fs::path folder = test::scratch_folder() / "data";
  ASSERT_EQ(phantom(folder, kSmall).exit_code, 0);
  const auto written = fs::last_write_time(folder / "imagesTr/phantom_001_0000.nii.gz");
  const auto again = phantom(folder, kSmall);
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_THAT(again.errors, HasSubstr("nothing to do"));
  EXPECT_EQ(fs::last_write_time(folder / "imagesTr/phantom_001_0000.nii.gz"), written);
}

TEST(PhantomVerb, RefusesAFolderThatHoldsSomethingElse) {
  const fs::path folder = test::scratch_folder() / "data";
  fs::create_directories(folder);
  std::ofstream(folder / "thesis.txt") << "precious";
  const auto refused = phantom(folder, kSmall);
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.errors, HasSubstr("is not empty"));
  EXPECT_THAT(refused.errors, HasSubstr("--overwrite"));
  EXPECT_EQ(phantom(folder, std::string(kSmall) + " --overwrite").exit_code, 0);
  EXPECT_TRUE(fs::exists(folder / "thesis.txt"));
}

TEST(PhantomVerb, OverwritingLeavesNoCaseOfALargerSet) {
  const fs::path folder = test::scratch_folder() / "data";
  ASSERT_EQ(phantom(folder, kSmall).exit_code, 0);
  ASSERT_EQ(phantom(folder, " --cases 1 --test-cases 0 --size 6 24 24 --overwrite").exit_code, 0);
  EXPECT_FALSE(fs::exists(folder / "imagesTr/phantom_003_0000.nii.gz"));
  EXPECT_FALSE(fs::exists(folder / "imagesTs"));
}

TEST(PhantomVerb, WritesATableOfPicturesWithPatientsAndParts) {
  const fs::path folder = test::scratch_folder() / "pictures";
  ASSERT_EQ(phantom(folder, " --pictures 40 --seed 3").exit_code, 0);
  std::istringstream lines(content(folder / "labels.csv"));
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(line, "path,label,patient_id,split");
  int64_t count = 0;
  for (; std::getline(lines, line); ++count)
    EXPECT_TRUE(fs::exists(folder / line.substr(0, line.find(',')))) << line;
  EXPECT_EQ(count, 40);
  EXPECT_THAT(content(folder / "labels.csv"),
              ::testing::AllOf(HasSubstr(",train\n"), HasSubstr(",val\n"), HasSubstr(",test\n")));
  EXPECT_TRUE(fs::exists(folder / "preview.png"));
  EXPECT_THAT(phantom(folder, " --pictures 40 --seed 3").errors, HasSubstr("nothing to do"));
  EXPECT_THAT(phantom(folder, " --pictures 20").errors, HasSubstr("--overwrite"));
  ASSERT_EQ(phantom(folder, " --pictures 20 --overwrite").exit_code, 0);
  EXPECT_FALSE(fs::exists(folder / "images/picture_00040.png"));
  EXPECT_EQ(phantom("/tmp/never", " --pictures 20 --cases 2").exit_code, 2);
}

TEST(PhantomVerb, HelpShowsAnExampleAndBadUseExitsWithTwo) {
  const auto help = test::run_command(test::program().string() + " phantom --help");
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, HasSubstr("Example"));
  EXPECT_EQ(phantom("/tmp/never", " --cases 0").exit_code, 2);
  EXPECT_EQ(phantom("/tmp/never", " --size 3 4").exit_code, 2);
}

}  // namespace
}  // namespace vireo
