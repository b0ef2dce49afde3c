#pragma once

#include <string>
#include <vector>

#include "apps/engine/classification_results.h"
#include "vision/io/canvas.h"

namespace vireo {

/// A picture that the classifier was most wrong about.
struct WrongPicture {
  std::string name, truth, predicted;
  double probability = 0;  ///< that it gave to the truth
  Canvas picture{1, 1};
};

/// The samples of which the truth was held least likely, worst first; none that are right.
std::vector<int64_t> most_wrong(const ClassificationScorer& scorer, size_t count);

/// One HTML page that needs nothing but itself: scores with intervals, confusion matrix, ROC,
/// precision-recall and reliability plots, the most wrong pictures, definitions.
std::string to_html(const ClassificationResults& results, const std::vector<WrongPicture>& wrong);

}  // namespace vireo
