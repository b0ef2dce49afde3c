#include "datasets/splits.h"

#include <algorithm>
#include <bit>
#include <map>
#include <numeric>
#include <random>

#include <nlohmann/json.hpp>

#include "vision/core/error.h"

namespace vireo {
namespace {

// The shuffle of NumPy's RandomState: from the end, swapping with an index drawn by rejection.
void shuffle(std::vector<size_t>& items, uint32_t seed) {
  std::mt19937 generator(seed);
  for (size_t i = items.size(); i-- > 1;) {
    const auto mask = static_cast<uint32_t>(std::bit_ceil(i + 1) - 1);
    uint32_t j = 0;
    do j = static_cast<uint32_t>(generator()) & mask;
    while (j > i);
    std::swap(items[i], items[j]);
  }
}

}  // namespace

std::vector<Fold> make_folds(std::vector<std::string> case_names, int64_t count, uint32_t seed) {
  std::sort(case_names.begin(), case_names.end());
  const size_t cases = case_names.size();
  if (cases <= 1) return {Fold{case_names, case_names}};
  const size_t folds = std::min(cases, static_cast<size_t>(std::max<int64_t>(2, count)));

  std::vector<size_t> order(cases);
  std::iota(order.begin(), order.end(), size_t{0});
  shuffle(order, seed);
  std::vector<size_t> fold_of(cases);
  size_t begin = 0;
  for (size_t f = 0; f < folds; ++f) {
    const size_t size = cases / folds + (f < cases % folds ? 1 : 0);
    for (size_t i = begin; i < begin + size; ++i) fold_of[order[i]] = f;
    begin += size;
  }

  std::vector<Fold> result(folds);
  for (size_t f = 0; f < folds; ++f)
    for (size_t i = 0; i < cases; ++i)
      (fold_of[i] == f ? result[f].val : result[f].train).push_back(case_names[i]);
  return result;
}

std::vector<Fold> make_grouped_folds(std::vector<std::string> case_names,
                                     const std::function<std::string(const std::string&)>& group_of,
                                     int64_t count,
                                     uint32_t seed) {
  std::sort(case_names.begin(), case_names.end());
  std::map<std::string, std::vector<std::string>> groups;
  for (const std::string& name : case_names) groups[group_of(name)].push_back(name);
  if (groups.size() == case_names.size() || groups.size() < 2)
    return make_folds(std::move(case_names), count, seed);

  std::vector<std::string> names;
  for (const auto& [group, members] : groups) names.push_back(group);
  std::vector<Fold> folds = make_folds(names, count, seed);
  for (Fold& fold : folds)
    for (auto* list : {&fold.train, &fold.val}) {
      std::vector<std::string> members;
      for (const std::string& group : *list)
        members.insert(members.end(), groups[group].begin(), groups[group].end());
      *list = std::move(members);
    }
  return folds;
}

nlohmann::json to_json(const std::vector<Fold>& folds) {
  nlohmann::json json = nlohmann::json::array();
  for (const Fold& fold : folds) json.push_back({{"train", fold.train}, {"val", fold.val}});
  return json;
}

std::vector<Fold> folds_from_json(const nlohmann::json& json, const std::string& source) {
  if (!json.is_array() || json.empty())
    throw DataError(source, "a list of folds was expected, each with \"train\" and \"val\"");
  std::vector<Fold> folds;
  for (size_t f = 0; f < json.size(); ++f) {
    Fold fold;
    for (const auto& [name, list] : {std::pair{"train", &fold.train}, {"val", &fold.val}}) {
      try {
        *list = json[f].at(name).get<std::vector<std::string>>();
      } catch (const nlohmann::json::exception&) {
        throw DataError(
            source,
            "fold " + std::to_string(f) + ": field \"" + name + "\" is not a list of case names");
      }
    }
    folds.push_back(std::move(fold));
  }
  return folds;
}

}  // namespace vireo
