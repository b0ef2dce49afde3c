#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <thread>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "datasets/array_file.h"
#include "datasets/case_scan.h"
#include "datasets/fingerprint.h"
#include "datasets/source.h"
#include "tests/datasets/small_sets.h"
#include "tests/support/made_arrays.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

using test::write_hdf5;

DataConfig config_of(const fs::path& folder, const std::string& more) {
  return DataConfig::from_table(
      ConfigTable::from_text("folder = \"" + folder.string() + "\"\n" + more, "test"),
      folder / "run");
}

const std::string kThreeLabels = "labels = [\"background\", \"aorta\", \"liver\"]\n";

TEST(ArraySources, PutSlicesTogetherInNumericalOrderAndScoreTheVolumes) {
  const fs::path folder = test::scratch_folder();
  // Written 11 before 2, as names sort; values tell the order.
  for (const int slice : {11, 2, 0})
    test::write_npz(folder / ("train_npz/case0005_slice" + std::to_string(slice) + ".npz"),
                    at::full({3, 4}, slice, at::kFloat),
                    at::full({3, 4}, slice % 3, at::kByte));
  write_hdf5(
      folder / "test_vol_h5/case0001.npy.h5", at::rand({5, 3, 4}), at::zeros({5, 3, 4}, at::kByte));
  const DatasetSource source = read_source(config_of(folder, kThreeLabels));
  EXPECT_EQ(source.format, "arrays");
  EXPECT_TRUE(source.problems.empty());
  ASSERT_EQ(source.cases.size(), 2u);
  EXPECT_EQ(source.cases[0].name, "case0001");
  ASSERT_EQ(source.folds.size(), 1u);
  EXPECT_THAT(source.folds[0].train, ElementsAre("case0005"));
  EXPECT_THAT(source.folds[0].val, ElementsAre("case0001"));
  const RawCase raw = read_case(source.cases[1]);
  EXPECT_TRUE(
      at::equal(raw.image.values[0].select(1, 0).select(1, 0), at::tensor({0.f, 2.f, 11.f})));
  EXPECT_TRUE(
      at::equal(raw.labels.values[0].select(1, 0).select(1, 0), at::tensor({0, 2, 2}, at::kInt)));
  EXPECT_EQ(read_case(source.cases[0]).image.geometry.size_zyx[0], 5);
}

TEST(ArraySources, TakeTheWholeVolumeBesideItsSlicesAndListsOfSlices) {
  const fs::path folder = test::scratch_folder();
  for (int slice = 1; slice <= 2; ++slice)
    write_hdf5(
        folder / ("ACDC_training_slices/patient001_frame01_slice_" + std::to_string(slice) + ".h5"),
        at::rand({3, 4}),
        at::zeros({3, 4}, at::kByte));
  for (const char* name : {"patient001_frame01", "patient002_frame12"})
    write_hdf5(folder / "ACDC_training_volumes" / (std::string(name) + ".h5"),
               at::rand({2, 3, 4}),
               at::zeros({2, 3, 4}, at::kByte));
  write_text_atomically(folder / "train_slices.list",
                        "patient001_frame01_slice_1\npatient001_frame01_slice_2\n");
  write_text_atomically(folder / "val.list", "patient002_frame12\n");
  const DatasetSource source = read_source(config_of(
      folder, kThreeLabels + "train_list = \"train_slices.list\"\nval_list = \"val.list\"\n"));
  EXPECT_TRUE(source.problems.empty());
  ASSERT_EQ(source.cases.size(), 2u);
  EXPECT_EQ(source.cases[0].images.size(), 1u);
  EXPECT_THAT(source.folds.at(0).train, ElementsAre("patient001_frame01"));
  EXPECT_THAT(source.folds.at(0).val, ElementsAre("patient002_frame12"));
}

TEST(ArraySources, ReadTheRealSlicesAndVolumes) {
  VIREO_REQUIRE_REAL_DATA(folder, "acdc_h5");
  const DatasetSource source = read_source(
      config_of(folder, "labels = [\"background\", \"right\", \"myocardium\", \"left\"]\n"));
  EXPECT_TRUE(source.problems.empty());
  ASSERT_EQ(source.folds.size(), 1u);
  EXPECT_EQ(source.folds[0].train.size(), 8u);
  EXPECT_EQ(source.folds[0].val.size(), 4u);
  const RawCase raw = read_case(source.cases[0]);
  EXPECT_EQ(raw.image.geometry.size_zyx, raw.labels.geometry.size_zyx);
  EXPECT_LE(raw.labels.values.max().item<int64_t>(), 3);
}

TEST(ArraySources, NameTheCaseOfEveryPublishedSliceName) {
  for (const auto& [stem, name, slice] : {std::tuple{"case0005_slice012", "case0005", 12},
                                          {"patient001_frame01_slice_1", "patient001_frame01", 1},
                                          {"case_001_sliceED_3", "case_001_ED", 3},
                                          {"case0001", "case0001", -1},
                                          {"slices", "slices", -1}}) {
    EXPECT_EQ(source::slice_name(stem).case_name, name);
    EXPECT_EQ(source::slice_name(stem).slice, slice);
  }
}

// An array file of so many slices; of one slice [Y, X], as slices are kept.
void write_volume(const fs::path& path, int64_t slices) {
  at::Tensor labels = at::zeros({slices, 3, 4}, at::kByte);
  labels.narrow(1, 1, 1) = 1;
  const at::Tensor image = at::rand({slices, 3, 4});
  const bool one = slices == 1;
  if (path.extension() == ".npz")
    test::write_npz(path, one ? image[0] : image, one ? labels[0] : labels);
  else
    write_hdf5(path, one ? image[0] : image, one ? labels[0] : labels);
}

std::vector<std::string> names_of(const std::vector<SourceCase>& cases) {
  std::vector<std::string> names;
  for (const SourceCase& one : cases) names.push_back(one.name);
  return names;
}

std::string problems_of(const DatasetSource& source) {
  std::string text;
  for (const Problem& problem : source.problems)
    text += problem.path.lexically_relative(source.folder).string() + ": " + problem.reason + "\n";
  return text;
}

TEST(ArraySources, TakeTheTestPartBesideTheValidationPart) {
  const fs::path folder = test::scratch_folder();
  for (const char* slice : {"train/case_001_sliceED_0",
                            "train/case_001_sliceED_1",
                            "train/case_001_sliceES_0",
                            "valid/case_004_sliceED_0"})
    write_volume(folder / (std::string(slice) + ".npz"), 1);
  write_volume(folder / "test/case_005_volume_ED.npz", 2);
  const DatasetSource source = read_source(config_of(folder, kThreeLabels));
  EXPECT_EQ(problems_of(source), "");
  EXPECT_THAT(names_of(source.cases), ElementsAre("case_001_ED", "case_001_ES", "case_004_ED"));
  EXPECT_THAT(names_of(source.test_cases), ElementsAre("case_005_volume_ED"));
  EXPECT_THAT(source.folds.at(0).val, ElementsAre("case_004_ED"));
  EXPECT_THAT(source.notes, Contains(HasSubstr("the 1 cases of the test part are not prepared")));

  // TransUNet's lists, which hold out the test part; a wrong name is that of its own list.
  test::write_text(folder / "lists/train.txt", "case_001_sliceED_0\ncase_001_sliceED_1\n");
  test::write_text(folder / "lists/test.txt", "case_005_volume_ED\ncase_006_volume_ED\n");
  const DatasetSource listed = read_source(config_of(
      folder, kThreeLabels + "train_list = \"lists/train.txt\"\nval_list = \"lists/test.txt\"\n"));
  EXPECT_THAT(names_of(listed.cases), ElementsAre("case_001_ED", "case_005_volume_ED"));
  EXPECT_THAT(listed.folds.at(0).val, ElementsAre("case_005_volume_ED", "case_006_volume_ED"));
  EXPECT_EQ(problems_of(listed),
            "lists/test.txt: lists the case \"case_006_volume_ED\", which does not exist\n");

  // Without a validation part the test part is held out.
  fs::remove_all(folder / "valid");
  const DatasetSource two = read_source(config_of(folder, kThreeLabels));
  EXPECT_THAT(two.folds.at(0).val, ElementsAre("case_005_volume_ED"));
  EXPECT_THAT(two.notes, Contains(HasSubstr("the 1 cases of the test part are held out")));
}

TEST(ArraySources, ReadSsl4misFoldersAndLists) {
  const fs::path folder = test::scratch_folder();
  for (const char* patient : {"patient001", "patient002", "patient003"})
    for (const char* frame : {"_frame01", "_frame12"}) {
      const std::string name = std::string(patient) + frame;
      write_volume(folder / "data" / (name + ".h5"), 2);
      for (int slice = 1; slice <= 2; ++slice)
        write_volume(folder / "data/slices" / (name + "_slice_" + std::to_string(slice) + ".h5"),
                     1);
    }
  const DatasetSource alone = read_source(config_of(folder / "data", kThreeLabels));
  EXPECT_EQ(alone.format, "arrays");
  EXPECT_EQ(alone.cases.size(), 6u);
  EXPECT_TRUE(alone.folds.empty());

  test::write_text(folder / "train_slices.list",
                   "patient001_frame01_slice_1\npatient001_frame01_slice_2\n"
                   "patient001_frame12_slice_1\npatient001_frame12_slice_2\n");
  test::write_text(folder / "val.list", "patient002_frame01\npatient002_frame12\n");
  test::write_text(folder / "test.list", "patient003_frame01\npatient003_frame12\n");
  const DatasetSource source = read_source(config_of(folder, kThreeLabels));
  EXPECT_EQ(problems_of(source), "");
  EXPECT_THAT(source.folds.at(0).train, ElementsAre("patient001_frame01", "patient001_frame12"));
  EXPECT_THAT(source.folds.at(0).val, ElementsAre("patient002_frame01", "patient002_frame12"));
  EXPECT_THAT(names_of(source.test_cases), ElementsAre("patient003_frame01", "patient003_frame12"));
  EXPECT_EQ(source.cases[0].images.size(), 1u) << "the volume, not its slices";

  const fs::path other = folder / "other";
  test::write_text(other / "readme.txt", "");
  EXPECT_THAT(test::message_of(
                  [&] { read_source(config_of(other, kThreeLabels + "format = \"arrays\"\n")); }),
              HasSubstr("holds no .npz or .h5 files in folders that are known: train_npz/ and"));
}

TEST(ArraySources, KeepPatientsWholeInSeededFolds) {
  const fs::path folder = test::scratch_folder();
  for (int patient = 1; patient <= 7; ++patient)
    for (const char* frame : {"_frame01", "_frame09"})
      write_volume(folder / "ACDC_training_volumes" /
                       ("patient00" + std::to_string(patient) + frame + ".h5"),
                   2);
  const DataConfig config = config_of(folder, kThreeLabels);
  const DatasetSource source = read_source(config);
  EXPECT_THAT(source.notes,
              Contains(HasSubstr("folds keep patients whole: 14 cases of 7 patients")));
  for (const Fold& fold : folds_of(config, source)) {
    std::set<std::string> train;
    for (const auto& name : fold.train) train.insert(name.substr(0, 10));
    for (const auto& name : fold.val) EXPECT_FALSE(train.contains(name.substr(0, 10))) << name;
  }
  for (const auto& [name, patient] : {std::pair{"patient001_frame12", "patient001"},
                                      {"case_001_ED", "case_001"},
                                      {"case_005_volume_ES", "case_005"},
                                      {"case0005", "case0005"},
                                      {"video_frame01", "video_frame01"},
                                      {"patient001_frame", "patient001_frame"}})
    EXPECT_EQ(source::patient_of(name), patient);
}

TEST(ArraySources, WarnOfSlicesThatAreMissingWithinACase) {
  const fs::path folder = test::scratch_folder();
  for (const char* name : {"case0001_slice000",
                           "case0001_slice001",
                           "case0005_slice002",
                           "case0005_slice003",
                           "case0005_slice005"})
    write_volume(folder / "train_npz" / (std::string(name) + ".npz"), 1);
  const WarningsKept kept;
  read_source(config_of(folder, kThreeLabels));
  EXPECT_THAT(
      kept.warnings(),
      ElementsAre(HasSubstr("slices are missing within 1 case: case0005 (none between 3 and "
                            "5); the slices on both sides")));
}

TEST(ArraySources, NameTheSliceThatIsWrong) {
  const fs::path folder = test::scratch_folder();
  const auto slice = [&](int number) {
    return folder / ("train_npz/case0005_slice00" + std::to_string(number) + ".npz");
  };
  const auto broken = [&](const at::Tensor& image, const at::Tensor& labels) {
    for (int i = 0; i < 4; ++i) write_volume(slice(i), 1);
    test::write_npz(slice(2), image, labels);
    DatasetSource source = read_source(config_of(folder, kThreeLabels));
    check_dataset(config_of(folder, kThreeLabels), {scan_case(source.cases[0], {})}, source);
    return problems_of(source);
  };
  const at::Tensor image = at::rand({3, 4}), labels = at::ones({3, 4}, at::kByte);
  EXPECT_EQ(broken(at::full({3, 4}, NAN), labels),
            "train_npz/case0005_slice002.npz: holds NaN or infinite values (12 voxels)\n");
  EXPECT_THAT(broken(image, labels * 9),
              StartsWith("train_npz/case0005_slice002.npz: holds label values that are not "
                         "declared: 9 (12 voxels); declared are"));
  EXPECT_THAT(broken(image, at::full({3, 4}, 0.5f)),
              StartsWith("train_npz/case0005_slice002.npz: its labels are no whole numbers"));
  EXPECT_THAT(broken(at::rand({3, 5}), labels),
              StartsWith("train_npz/case0005_slice002.npz: has the size [1, 1, 3, 5]; its case's"));
}

TEST(ArraySources, TellWhatIsWrongWithAFileOnce) {
  const fs::path folder = test::scratch_folder();
  for (const char* name : {"patient001_frame01.h5", "patient002_frame01.h5"})
    write_volume(folder / "ACDC_training_volumes" / name, 2);
  fs::resize_file(folder / "ACDC_training_volumes/patient002_frame01.h5", 600);
  const DatasetSource source = read_source(config_of(folder, kThreeLabels));
  const CaseScan scan = scan_case(source.cases[1], {});
  ASSERT_EQ(scan.problems.size(), 1u);
  EXPECT_EQ(scan.problems[0].reason, "is no sound HDF5 file");
}

TEST(ArraySources, TakeTheChallengesTestingPart) {
  const fs::path folder = test::scratch_folder();
  Geometry grid;
  grid.size_zyx = {2, 3, 4};
  const auto frame = [&](const fs::path& patient, const char* name, bool labelled) {
    test::write_text(patient / "Info.cfg", "ED: 1\n");
    write_image(patient / (std::string(name) + ".nii.gz"), at::rand({1, 2, 3, 4}), grid);
    if (labelled)
      write_labels(
          patient / (std::string(name) + "_gt.nii.gz"), at::ones({2, 3, 4}, at::kInt), grid);
  };
  frame(folder / "training/patient001", "patient001_frame01", true);
  frame(folder / "training/patient002", "patient002_frame01", true);
  frame(folder / "testing/patient101", "patient101_frame01", true);
  frame(folder / "testing/patient102", "patient102_frame01", false);
  const DatasetSource source = read_source(config_of(folder, ""));
  EXPECT_EQ(source.format, "acdc");
  EXPECT_EQ(problems_of(source), "");
  EXPECT_THAT(names_of(source.cases), ElementsAre("patient001_frame01", "patient002_frame01"));
  EXPECT_THAT(names_of(source.test_cases), ElementsAre("patient101_frame01"));
  EXPECT_THAT(source.notes, Contains(HasSubstr("1 scans in testing/ have no labels")));
}

TEST(ArraySources, ReadTheChallengesOwnFoldersOfPatients) {
  const fs::path folder = test::scratch_folder();
  for (const char* name : {"patient001_4d", "patient001_frame01", "patient001_frame12"}) {
    fs::create_directories(folder / "patient001");
    Geometry grid;
    grid.size_zyx = {2, 3, 4};
    write_image(
        folder / "patient001" / (std::string(name) + ".nii.gz"), at::rand({1, 2, 3, 4}), grid);
    if (std::string(name) == "patient001_frame01")
      write_labels(
          folder / "patient001/patient001_frame01_gt.nii.gz", at::ones({2, 3, 4}, at::kInt), grid);
  }
  write_text_atomically(folder / "patient001/Info.cfg", "ED: 1\nES: 12\n");
  const DatasetSource source = read_source(config_of(folder, ""));
  EXPECT_EQ(source.format, "acdc");
  ASSERT_EQ(source.cases.size(), 1u);
  EXPECT_EQ(source.labels[3].name, "left ventricle");
  ASSERT_EQ(source.problems.size(), 1u);
  EXPECT_THAT(source.problems[0].reason, HasSubstr("patient001_frame12_gt.nii.gz"));
}

TEST(ArrayFile, SaysWhatIsMissingOrWrong) {
  const fs::path path = test::scratch_folder() / "a.h5";
  const auto message = [&](auto read) {
    try {
      read(path);
    } catch (const DataError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  write_hdf5(path, at::rand({3, 4}), {});
  EXPECT_THAT(message(read_array_labels), HasSubstr("holds image; an array \"label\""));
  write_hdf5(path, at::rand({2, 3, 4, 5}), at::rand({3, 4}));
  EXPECT_THAT(message(read_array_image), HasSubstr("4 dimensions"));
  EXPECT_THAT(message(read_array_labels), HasSubstr("no whole numbers"));
  write_text_atomically(path, "no archive");
  EXPECT_THAT(message(read_array_image), HasSubstr("no sound HDF5 file"));
}

// An HDF5 file whose "image" is what `make` puts there.
template <typename Make>
fs::path hdf5_with(const Make& make) {
  const fs::path path = test::scratch_folder() / "made.h5";
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  make(file);
  H5Fclose(file);
  return path;
}

// A data set [4, 4] of 32-bit floating point with these properties, which nothing is written to.
void put_empty(hid_t file, hid_t properties, bool extendable = false) {
  const hsize_t sizes[] = {4, 4}, most[] = {H5S_UNLIMITED, H5S_UNLIMITED};
  const hid_t space = H5Screate_simple(2, sizes, extendable ? most : nullptr);
  const hid_t array =
      H5Dcreate2(file, "image", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, properties, H5P_DEFAULT);
  ASSERT_GE(array, 0);
  H5Dclose(array);
  H5Sclose(space);
  H5Pclose(properties);
}

TEST(ArrayFile, KeepsOutOfOtherFiles) {
  const fs::path other = test::scratch_folder() / "other.h5", raw = test::scratch_folder() / "raw";
  write_hdf5(other, at::rand({4, 4}), at::zeros({4, 4}, at::kByte));
  test::write_text(raw, std::string(64, '\1'));
  const auto refusal = [](const fs::path& path) {
    return test::message_of([&] { read_array_image(path); });
  };
  const std::string link = "made.h5: its array \"image\" is a link, which can lead out of the data";
  EXPECT_THAT(refusal(hdf5_with([&](hid_t file) {
                H5Lcreate_external(other.c_str(), "image", file, "image", H5P_DEFAULT, H5P_DEFAULT);
              })),
              AllOf(HasSubstr(link), HasSubstr("Copy the values into the file")));
  EXPECT_THAT(refusal(hdf5_with([&](hid_t file) {
                test::put_array(file, "inner", at::rand({4, 4}));
                H5Lcreate_soft("/inner", file, "image", H5P_DEFAULT, H5P_DEFAULT);
              })),
              HasSubstr(link));
  EXPECT_THAT(refusal(hdf5_with([&](hid_t file) {
                const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
                H5Pset_external(properties, raw.c_str(), 0, 64);
                put_empty(file, properties);
              })),
              HasSubstr("keeps its values in another file (external storage)"));
  EXPECT_THAT(refusal(hdf5_with([&](hid_t file) {
                const hsize_t sizes[] = {4, 4};
                const hid_t space = H5Screate_simple(2, sizes, nullptr);
                const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
                H5Pset_virtual(properties, space, other.c_str(), "image", space);
                H5Sclose(space);
                put_empty(file, properties);
              })),
              HasSubstr("is made of other files' values (a virtual data set)"));
}

TEST(ArrayFile, RefusesChunksThatTheFileCannotHold) {
  const fs::path path = hdf5_with([](hid_t file) {
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk[] = {16384, 16384};
    H5Pset_chunk(properties, 2, chunk);
    H5Pset_deflate(properties, 6);
    put_empty(file, properties, /*extendable=*/true);
  });
  EXPECT_THAT(test::message_of([&] { read_array_image(path); }),
              HasSubstr("its array \"image\" declares a size that the file cannot hold"));
}

// What a filter that this program lacks leaves behind: its number.
size_t pass_on(unsigned, size_t, const unsigned*, size_t bytes, size_t*, void**) {
  return bytes;
}

TEST(ArrayFile, NamesTheFilterThatIsNotRead) {
  const H5Z_class2_t filter = {H5Z_CLASS_T_VERS, 32000, 1, 1, "lzf", nullptr, nullptr, pass_on};
  ASSERT_GE(H5Zregister(&filter), 0);
  const fs::path path = hdf5_with([](hid_t file) {
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk[] = {4, 4};
    H5Pset_chunk(properties, 2, chunk);
    H5Pset_filter(properties, 32000, H5Z_FLAG_OPTIONAL, 0, nullptr);
    put_empty(file, properties);
  });
  H5Zunregister(32000);
  EXPECT_THAT(test::message_of([&] { read_array_image(path); }),
              AllOf(HasSubstr("is packed with the filter lzf (32000), which is not read here"),
                    HasSubstr("compression=\"gzip\"")));
}

TEST(ArrayFile, LeavesNothingToPrintAtTheProgramsEnd) {
  const fs::path path = test::scratch_folder() / "cut.h5";
  write_hdf5(path, at::rand({8, 30, 40}), {});
  fs::resize_file(path, 2000);
  const auto end_after_reading = [&] {
    std::thread reader([&] { test::message_of([&] { read_array_image(path); }); });
    reader.join();
    std::exit(0);
  };
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(end_after_reading(), ::testing::ExitedWithCode(0), Not(HasSubstr("HDF5")));
}

TEST(ArrayFile, ReadsTruthValuesOfHdf5) {
  const fs::path path = hdf5_with([](hid_t file) {
    // As h5py writes numpy.bool_.
    const hid_t type = H5Tenum_create(H5T_NATIVE_INT8);
    int8_t value = 0;
    H5Tenum_insert(type, "FALSE", &value);
    H5Tenum_insert(type, "TRUE", &(value = 1));
    const hsize_t sizes[] = {1, 2};
    const int8_t values[] = {0, 1};
    const hid_t space = H5Screate_simple(2, sizes, nullptr);
    const hid_t array =
        H5Dcreate2(file, "label", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(array, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    H5Dclose(array);
    H5Sclose(space);
    H5Tclose(type);
  });
  EXPECT_TRUE(at::equal(read_array_labels(path).values.flatten(), at::tensor({0, 1}, at::kInt)));
}

}  // namespace
}  // namespace vireo
