#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "apps/engine/evaluation.h"
#include "vision/image/volume.h"

// What `vireo evaluate` finds on disk.
namespace vireo {

struct LabelDeclaration {
  std::vector<ScoredClass> classes;  ///< without background
  std::optional<int64_t> ignore_value;
};

/// Reads "labels" of an nnU-Net dataset.json (numbers, or lists for regions; "ignore" is left out),
/// or takes `text` as names: "liver,spleen" for the values 1, 2, ... or "liver=1,kidneys=2+3".
/// Throws DataError or UsageError.
LabelDeclaration declared_labels(const std::string& text);

struct CasePair {
  std::string name;
  std::filesystem::path prediction, truth;
  std::filesystem::path image;  ///< empty when there is none
};

/// Pairs by name without extension: two files, or every label file in `truths` with the one of the
/// same name in `predictions`. `only` (may be empty) names the cases wanted. Images are found in
/// `images` (may be empty) as CASE or CASE_0000. Throws DataError that lists every case without a
/// prediction.
std::vector<CasePair> pair_cases(const std::filesystem::path& predictions,
                                 const std::filesystem::path& truths,
                                 const std::filesystem::path& images,
                                 const std::vector<std::string>& only);

/// The labels of a pair on one grid. A file that holds nothing but 0 and 255 is read as a mask of 0
/// and 1 where 1 is a label and 255 is none; and the other way round.
struct PairedLabels {
  Volume prediction, truth;  ///< integers [1, Z, Y, X]
};

/// Reads a pair. `declared`: the label values that may occur beside 0; empty: any. Throws DataError
/// when the grids differ, saying how, or when a file holds a label that is not declared.
PairedLabels read_pair(const CasePair& pair, const std::vector<int64_t>& declared);

/// The values other than 0 that a label map holds, ascending.
std::vector<int64_t> values_in(const at::Tensor& labels);

}  // namespace vireo
