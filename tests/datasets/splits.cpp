#include "datasets/splits.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "vision/core/error.h"

namespace vireo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> names(int count) {
  std::vector<std::string> result;
  for (int i = 0; i < count; ++i) {
    std::string number = std::to_string(i);
    result.push_back("case_" + std::string(3 - number.size(), '0') + number);
  }
  return result;
}

TEST(Splits, AreThoseOfScikitLearnWithTheSameSeed) {
  // Held-out indices of KFold(5, shuffle=True, random_state=12345) on 12 items.
  const auto folds = make_folds(names(12), 5, 12345);
  ASSERT_EQ(folds.size(), 5U);
  EXPECT_THAT(folds[0].val, ElementsAre("case_000", "case_003", "case_008"));
  EXPECT_THAT(folds[1].val, ElementsAre("case_007", "case_010", "case_011"));
  EXPECT_THAT(folds[2].val, ElementsAre("case_006", "case_009"));
  EXPECT_THAT(folds[3].val, ElementsAre("case_001", "case_004"));
  EXPECT_THAT(folds[4].val, ElementsAre("case_002", "case_005"));
}

TEST(Splits, HoldEveryCaseOutExactlyOnce) {
  const auto folds = make_folds(names(23), 5, 1);
  std::multiset<std::string> held_out;
  for (const Fold& fold : folds) {
    EXPECT_EQ(fold.train.size() + fold.val.size(), 23U);
    held_out.insert(fold.val.begin(), fold.val.end());
    for (const auto& name : fold.val)
      EXPECT_EQ(std::count(fold.train.begin(), fold.train.end(), name), 0);
  }
  const auto all = names(23);
  EXPECT_EQ(held_out, std::multiset<std::string>(all.begin(), all.end()));
}

TEST(Splits, KeepGroupsWholeAndHoldEachOutOnce) {
  std::vector<std::string> scans;
  for (const auto& patient : names(12))
    for (const char* frame : {"_frame01", "_frame09"}) scans.push_back(patient + frame);
  const auto patient_of = [](const std::string& scan) { return scan.substr(0, scan.rfind('_')); };
  const auto folds = make_grouped_folds(scans, patient_of, 5, 12345);
  ASSERT_EQ(folds.size(), 5U);
  // Whole patients, in the folds of the patients' names.
  EXPECT_THAT(
      folds[3].val,
      ElementsAre("case_001_frame01", "case_001_frame09", "case_004_frame01", "case_004_frame09"));
  std::multiset<std::string> held_out;
  for (const Fold& fold : folds) {
    EXPECT_EQ(fold.train.size() + fold.val.size(), 24U);
    std::set<std::string> train, val;
    for (const auto& name : fold.train) train.insert(patient_of(name));
    for (const auto& name : fold.val) val.insert(patient_of(name));
    for (const auto& patient : val) EXPECT_FALSE(train.contains(patient)) << patient;
    held_out.insert(fold.val.begin(), fold.val.end());
  }
  EXPECT_EQ(held_out, std::multiset<std::string>(scans.begin(), scans.end()));

  const auto itself = [](const std::string& name) { return name; };
  EXPECT_EQ(to_json(make_grouped_folds(names(12), itself, 5, 12345)),
            to_json(make_folds(names(12), 5, 12345)));
  const auto all_one = [](const std::string&) { return std::string("one"); };
  EXPECT_EQ(to_json(make_grouped_folds(names(4), all_one, 5, 1)),
            to_json(make_folds(names(4), 5, 1)));
}

TEST(Splits, DoNotDependOnTheOrderOfTheNames) {
  auto reversed = names(9);
  std::reverse(reversed.begin(), reversed.end());
  EXPECT_EQ(to_json(make_folds(reversed, 3, 7)), to_json(make_folds(names(9), 3, 7)));
}

TEST(Splits, UseFewerFoldsForFewCases) {
  EXPECT_EQ(make_folds(names(3), 5, 1).size(), 3U);
  EXPECT_EQ(make_folds(names(1), 5, 1).size(), 1U);
  EXPECT_THAT(make_folds(names(1), 5, 1)[0].val, ElementsAre("case_000"));
}

TEST(Splits, SurviveTheirFile) {
  const auto folds = make_folds(names(7), 3, 3);
  EXPECT_EQ(to_json(folds_from_json(to_json(folds), "splits_final.json")), to_json(folds));
  try {
    folds_from_json(nlohmann::json::parse(R"([{"train": ["a"], "val": "b"}])"),
                    "splits_final.json");
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("splits_final.json: fold 0: field \"val\" is not a list"));
  }
}

}  // namespace
}  // namespace vireo
