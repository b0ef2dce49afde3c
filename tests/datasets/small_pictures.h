#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <ATen/Functions.h>
#include <gtest/gtest.h>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "datasets/prepare_dataset.h"
#include "datasets/prepared_cache.h"
#include "datasets/source.h"
#include "vision/core/log.h"

// Pictures with masks, made where a test wants them.
namespace vireo::test {

inline constexpr int kHeight = 16, kWidth = 24;

/// A rectangle, elsewhere for every number.
inline cv::Mat box(int number, int value = 255) {
  cv::Mat mask = cv::Mat::zeros(kHeight, kWidth, CV_8U);
  mask(cv::Rect(1 + number % 7, 2 + number % 5, 8, 6)) = value;
  return mask;
}

inline at::Tensor classes_of(const cv::Mat& mask) {
  return at::from_blob(mask.data, {1, mask.rows, mask.cols}, at::kByte).clone();
}

inline void write(const std::filesystem::path& path, const cv::Mat& picture) {
  std::filesystem::create_directories(path.parent_path());
  ASSERT_TRUE(cv::imwrite(path.string(), picture));
}

inline cv::Mat photograph(int number) {
  cv::Mat picture(kHeight, kWidth, CV_8UC3, cv::Scalar(number, 90, 200));
  cv::circle(picture, {8, 8}, 4, cv::Scalar(20, 160, number), -1);
  return picture;
}

inline DataConfig config_of(const std::filesystem::path& folder, const std::string& more = "") {
  return DataConfig::from_table(
      ConfigTable::from_text("folder = \"" + folder.string() + "\"\n" + more, "test"),
      folder.string() + "_run");
}

inline const std::string kTwo = "labels = [\"background\", \"lesion\"]\n";

inline std::vector<std::string> names(const std::vector<SourceCase>& cases) {
  std::vector<std::string> result;
  for (const SourceCase& one : cases) result.push_back(one.name);
  return result;
}

/// Prepared class numbers of every case.
inline std::map<std::string, at::Tensor> prepared(const DataConfig& config) {
  set_log_quiet(true);
  prepare_dataset(config);
  const PreparedCache cache = PreparedCache::open(config.cache);
  std::map<std::string, at::Tensor> labels;
  for (const std::string& name : cache.case_names()) labels[name] = cache.load(name).labels;
  return labels;
}

inline bool is_box(const at::Tensor& labels, int number) {
  return at::equal(labels, classes_of(box(number, 1)));
}

}  // namespace vireo::test
