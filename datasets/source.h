#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "datasets/data_config.h"
#include "datasets/mask_file.h"
#include "datasets/splits.h"

// What a data set looks like on disk, before any image is read.
namespace vireo {

struct Problem {
  std::filesystem::path path;
  std::string reason;
  std::string case_name;  ///< empty: of the set as a whole
};

struct SourceCase {
  std::string name;
  /// One per channel, or one with all channels; of array files (array_file.h) one per slice, or one
  /// with all slices.
  std::vector<std::filesystem::path> images;
  std::filesystem::path labels;                        ///< of array files the first: they hold both
  std::vector<std::filesystem::path> more_masks = {};  ///< further parts of the truth
  MaskRule rule = {};                                  ///< how masks are read

  /// labels and more_masks.
  std::vector<std::filesystem::path> mask_files() const;
};

struct DatasetSource {
  std::filesystem::path folder;
  std::string format;  ///< one of DataConfig::format_names() but "auto"
  std::string name;
  std::vector<std::string> channel_names;  ///< empty: the folder does not say
  std::vector<Label> labels;               ///< background first
  bool values_assumed = false;  ///< label values were not given: 0, 1, ... or, for two, 0 and 255
  std::optional<int64_t> ignore_value;
  std::vector<SourceCase> cases;  ///< in alphabetical order
  std::vector<Fold> folds;        ///< empty: the data set does not say
  /// The part that a published set keeps for the very end, where it has one beside a validation
  /// part: it is not prepared.
  std::vector<SourceCase> test_cases;
  /// Files that describe the set: dataset.json, lists.
  std::vector<std::filesystem::path> descriptions;
  /// What the user is told: the layout and how it was recognised, what is left out.
  std::vector<std::string> notes;
  /// What is wrong with the set, so far: missing partners, wrong names.
  std::vector<Problem> problems;
};

/// Recognises a data set's layout (layouts.h) and lists its cases:
///
/// - nnunet: dataset.json (channel_names, labels, file_ending, numTraining),
///   imagesTr/CASE_0000.nii.gz (channel 0) ..., labelsTr/CASE.nii.gz;
/// - msd, Medical Segmentation Decathlon: dataset.json (modality, labels, training),
///   imagesTr/CASE.nii.gz with channels in the fourth dimension, labelsTr/CASE.nii.gz;
/// - arrays: train_npz/CASE_slice000.npz, test_vol_h5/CASE.npy.h5 (Synapse as TransUNet keeps it),
///   ACDC_training_slices/CASE_slice_1.h5, ACDC_training_volumes/CASE.h5, train_slices/ with
///   val_volumes/ and test_volumes/, train/ with valid/ and test/, or data/slices/ with data/ (as
///   SSL4MIS keeps ACDC) of such files: arrays "image" and "label"; slices are put together to
///   cases;
/// - acdc, as given out: patient001/Info.cfg, patient001_frame01.nii.gz,
///   patient001_frame01_gt.nii.gz, or such patients in training/ and testing/;
/// - isic: ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg with
///   ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png, and as 2016 and 2017 named
///   them; superpixels, attributes and tables are passed over;
/// - kvasir: images/ and masks/ with kavsir_bboxes.json or Kvasir-SEG's names;
/// - cvc: Original/ and Ground Truth/, also below PNG/ or TIF/;
/// - busi: benign/, malignant/ and normal/ with "benign (1).png", "benign (1)_mask.png",
///   "benign (1)_mask_1.png": several masks of a picture are united;
/// - glas: train_1.bmp with train_1_anno.bmp, testA_1.bmp, testB_1.bmp: objects are numbered;
/// - pairs: pictures and masks in two folders (images/ and masks/, labels/, gt/, ...), in train/,
///   val/ and test/ with two such folders each, or side by side; names as MaskNames pairs them,
///   also masks/CASE/*; classes are named in the configuration.
///
/// Folds are those of the configuration's lists, of splits_final.json, of train.txt and val.txt, of
/// train_slices.list, val.list and test.list, or of the layout's own parts, in this order. Hidden
/// files are passed over; paths and, unless allow_links, symbolic links that lead out of the folder
/// are refused. Throws DataError for a folder or description that cannot be understood at all; what
/// is wrong with single cases is collected in `problems`.
DatasetSource read_source(const DataConfig& config);

/// The folds of the source, else seeded ones of its cases, which keep ACDC's patients whole.
std::vector<Fold> folds_of(const DataConfig& config, const DatasetSource& source);

namespace source {

// For the readers of the single layouts.
void read_nnunet(const DataConfig& config, DatasetSource& source);
void read_msd(const DataConfig& config, DatasetSource& source);
void read_pairs(const DataConfig& config, DatasetSource& source);
void read_arrays(const DataConfig& config, DatasetSource& source);
void read_acdc(const DataConfig& config, DatasetSource& source);
void read_isic(const DataConfig& config, DatasetSource& source);
void read_kvasir(const DataConfig& config, DatasetSource& source);
void read_cvc(const DataConfig& config, DatasetSource& source);
void read_busi(const DataConfig& config, DatasetSource& source);
void read_glas(const DataConfig& config, DatasetSource& source);

/// "case0005_slice012" is slice 12 of case0005, "case_001_sliceED_3" slice 3 of case_001_ED; what
/// is no slice is a case of its own (-1).
struct SliceName {
  std::string case_name;
  int64_t slice = -1;
};
SliceName slice_name(const std::string& stem);

/// The patient of a case that is named as ACDC's are: "patient001" of "patient001_frame12",
/// "case_001" of "case_001_ED" and "case_001_volume_ED"; else the case's own name.
std::string patient_of(const std::string& case_name);

/// Warns of cases whose slices have a gap in their numbers, in one line.
void warn_of_missing_slices(const DatasetSource& source);

/// `relative` below `folder`. Throws DataError (path `origin`, then `where`: a line or field) when
/// it is absolute or leads out.
std::filesystem::path inside(const std::filesystem::path& folder,
                             const std::string& relative,
                             const std::filesystem::path& origin,
                             const std::string& where = "");

/// Visible image files in a folder, in alphabetical order.
std::vector<std::filesystem::path> image_files(const std::filesystem::path& folder);

/// Classes from the configuration's names and values, or `usual` where it gives none.
void labels_from_config(const DataConfig& config,
                        DatasetSource& source,
                        const std::vector<std::string>& usual = {});

/// Case names of a list file, one per line; an extension is allowed. Slices of one case name it
/// once.
std::vector<std::string> read_list(const std::filesystem::path& path);

}  // namespace source
}  // namespace vireo
