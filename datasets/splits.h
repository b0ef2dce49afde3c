#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace vireo {

/// One way to part a data set, by case.
struct Fold {
  std::vector<std::string> train;
  std::vector<std::string> val;
};

/// Seeded k-fold cross-validation by case: the same folds that scikit-learn's KFold(k,
/// shuffle=True, random_state=seed) makes of the sorted names, and therefore nnU-Net's with seed
/// 12345. With fewer cases than `count`, one fold per case; with a single case, it both trains and
/// validates.
std::vector<Fold> make_folds(std::vector<std::string> case_names, int64_t count, uint32_t seed);

/// The same by groups that must not be parted, as the scans of a patient; `group_of` names a
/// case's. Where every case is a group of its own, or all cases are one group, the folds of
/// make_folds.
std::vector<Fold> make_grouped_folds(std::vector<std::string> case_names,
                                     const std::function<std::string(const std::string&)>& group_of,
                                     int64_t count,
                                     uint32_t seed);

/// splits_final.json: [{"train": [names], "val": [names]}, ...].
nlohmann::json to_json(const std::vector<Fold>& folds);
/// Throws DataError naming `source`, the fold and the field.
std::vector<Fold> folds_from_json(const nlohmann::json& json, const std::string& source);

}  // namespace vireo
