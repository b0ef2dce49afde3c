#pragma once

#include <string>
#include <vector>

#include "apps/engine/evaluation.h"
#include "vision/io/canvas.h"

namespace vireo {

/// A case shown in the report: the same slice with the truth and with the prediction drawn over it.
struct ReportPicture {
  std::string case_name;
  std::string caption;  ///< for example "slice 12 of 28"
  double mean_dice = 0;
  bool is_worst = false;  ///< of the worst cases; else of the best
  Canvas truth{1, 1}, prediction{1, 1};
};

struct ReportText {
  std::string title;
  std::string predictions, truths;  ///< where they lie
};

/// One HTML page that needs nothing but itself: per-class table with intervals, box and strip
/// plots, pictures, every case, definitions. The colour of class k is label_color of its first
/// value.
std::string to_html(const Summary& summary,
                    const ReportText& text,
                    const std::vector<ReportPicture>& pictures);

}  // namespace vireo
