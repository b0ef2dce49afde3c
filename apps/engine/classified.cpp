#include "apps/engine/classified.h"

#include <algorithm>

#include <ATen/ATen.h>

namespace vireo {

void append_logits(const at::Tensor& output, std::vector<double>& logits) {
  const at::Tensor values = output.detach().to(at::kCPU, at::kDouble).contiguous();
  const double* data = values.const_data_ptr<double>();
  logits.insert(logits.end(), data, data + values.numel());
}

ClassifiedSamples truth_of(const PictureSet& set, const std::vector<int64_t>& items) {
  ClassifiedSamples samples;
  samples.class_count = set.class_count();
  const bool known = std::all_of(items.begin(), items.end(), [&](int64_t item) {
    return set.items[static_cast<size_t>(item)].patient >= 0;
  });
  for (const int64_t item : items) {
    const PictureItem& one = set.items[static_cast<size_t>(item)];
    if (known) samples.groups.push_back(one.patient);
    if (!set.multi_label) samples.truth.push_back(one.label);
    for (int64_t k = 0; k < set.class_count() && set.multi_label; ++k)
      samples.labels.push_back(set.holds(item, k));
  }
  return samples;
}

}  // namespace vireo
