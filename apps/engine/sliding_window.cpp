#include "apps/engine/sliding_window.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

// Where a model's own figure is not known: more than RWKV-UNet takes in any of its sizes.
constexpr int64_t kActivationBytesPerPixel = 1536;

struct Window {
  int64_t height, width;
};

// The size that slices are brought to before they are cut into windows.
Window window_of(const TrainedModel& trained, int64_t height, int64_t width) {
  const auto [window_y, window_x] = trained.window_yx;
  return {window_y > 0 ? window_y : height, window_x > 0 ? window_x : width};
}

void check(const std::vector<TrainedModel>& models, const SliceSource& image) {
  if (models.empty()) throw Error("prediction needs at least one model");
  for (const TrainedModel& trained : models) {
    const int64_t expected = trained.model->input_channels();
    const int64_t given = image.channels * (2 * trained.neighbours + 1);
    if (given != expected)
      throw Error("the image has " + std::to_string(image.channels) + " channel(s), " +
                  std::to_string(given) + " with neighbouring slices; the model takes " +
                  std::to_string(expected));
    if (trained.model->class_count() != models[0].model->class_count())
      throw Error("models to be averaged have " + std::to_string(models[0].model->class_count()) +
                  " and " + std::to_string(trained.model->class_count()) + " classes");
  }
}

// Slices first..first+count-1 of a volume of which some are at hand.
struct Slab {
  at::Tensor values;  // [C, slices at hand, H, W]
  int64_t begin = 0;  // the first at hand
  int64_t first = 0, count = 0, depth = 0;

  // With their neighbours as channels: [count, (2n+1)*C, H, W].
  at::Tensor with_neighbours(int64_t neighbours) const {
    std::vector<at::Tensor> offsets;
    for (int64_t offset = -neighbours; offset <= neighbours; ++offset) {
      const at::Tensor index =
          (at::arange(first, first + count, at::kLong) + offset).clamp(0, depth - 1) - begin;
      offsets.push_back(values.index_select(1, index).transpose(0, 1));
    }
    return at::cat(offsets, 1);
  }
};

Slab read_slab(const std::vector<TrainedModel>& models,
               const SliceSource& image,
               int64_t first,
               int64_t count) {
  int64_t neighbours = 0;
  for (const TrainedModel& trained : models) neighbours = std::max(neighbours, trained.neighbours);
  const int64_t depth = image.size[0];
  const int64_t begin = std::max<int64_t>(first - neighbours, 0);
  const int64_t end = std::min(first + count + neighbours, depth);
  return {image.read(begin, end - begin), begin, first, count, depth};
}

// Axes of [N, C, H, W] to flip, one list per mirrored copy; the first is the image itself.
std::vector<std::vector<int64_t>> mirrored_copies(const TrainedModel& trained,
                                                  const std::optional<bool>& mirroring) {
  std::array<bool, 2> axes = trained.mirrored_yx;
  if (mirroring && !*mirroring) axes = {false, false};
  if (mirroring && *mirroring && !axes[0] && !axes[1]) axes = {true, true};
  std::vector<std::vector<int64_t>> copies{{}};
  if (axes[0]) copies.push_back({2});
  if (axes[1]) copies.push_back({3});
  if (axes[0] && axes[1]) copies.push_back({2, 3});
  return copies;
}

at::Tensor window_probabilities(const TrainedModel& trained,
                                const at::Tensor& input,
                                const std::vector<std::vector<int64_t>>& copies) {
  at::Tensor sum;
  for (const auto& axes : copies) {
    at::Tensor given = axes.empty() ? input : input.flip(axes);
    const at::Tensor logits =
        trained.model->forward(given.contiguous(at::MemoryFormat::ChannelsLast));
    at::Tensor probabilities = at::softmax(logits.to(at::kFloat), 1);
    if (!axes.empty()) probabilities = probabilities.flip(axes);
    if (sum.defined())
      sum.add_(probabilities);
    else
      sum = std::move(probabilities);
  }
  return copies.size() > 1 ? sum.div_(static_cast<double>(copies.size())) : sum;
}

// Probabilities [count, K, H, W] of one model.
at::Tensor slab_probabilities(const TrainedModel& trained,
                              const Slab& slab,
                              const InferenceOptions& options) {
  const int64_t count = slab.count, height = slab.values.size(2), width = slab.values.size(3);
  const Window window = window_of(trained, height, width);
  const auto copies = mirrored_copies(trained, options.mirroring);
  at::Tensor slices = slab.with_neighbours(trained.neighbours).to(options.device);

  // The image stays in the middle of its padding.
  const int64_t pad_y = std::max<int64_t>(window.height - height, 0);
  const int64_t pad_x = std::max<int64_t>(window.width - width, 0);
  const int64_t top = pad_y / 2, left = pad_x / 2;
  if (pad_y > 0 || pad_x > 0)
    slices = at::constant_pad_nd(slices, {left, pad_x - left, top, pad_y - top}, 0);

  const auto starts_y = window_starts(slices.size(2), window.height, options.overlap);
  const auto starts_x = window_starts(slices.size(3), window.width, options.overlap);
  at::Tensor result;
  if (starts_y.size() == 1 && starts_x.size() == 1) {
    result = window_probabilities(trained, slices, copies);
  } else {
    const at::Tensor importance =
        gaussian_importance(window.height, window.width).to(options.device);
    at::Tensor weights = at::zeros({slices.size(2), slices.size(3)}, slices.options());
    for (const int64_t y : starts_y) {
      for (const int64_t x : starts_x) {
        const auto part = [&](const at::Tensor& whole) {
          return whole.narrow(-2, y, window.height).narrow(-1, x, window.width);
        };
        const at::Tensor probabilities = window_probabilities(trained, part(slices), copies);
        if (!result.defined())
          result = at::zeros({count, probabilities.size(1), slices.size(2), slices.size(3)},
                             probabilities.options());
        part(result).addcmul_(probabilities, importance);
        part(weights).add_(importance);
      }
    }
    result.div_(weights);
  }
  return result.narrow(2, top, height).narrow(3, left, width);
}

}  // namespace

std::vector<int64_t> window_starts(int64_t size, int64_t window, double overlap) {
  if (size <= window) return {0};
  const double stride = std::max(1.0, static_cast<double>(window) * (1.0 - overlap));
  const auto steps = static_cast<int64_t>(std::ceil(static_cast<double>(size - window) / stride));
  std::vector<int64_t> starts;
  for (int64_t i = 0; i <= steps; ++i)
    starts.push_back((2 * i * (size - window) + steps) / (2 * steps));
  return starts;
}

at::Tensor gaussian_importance(int64_t height, int64_t width) {
  const auto along = [](int64_t size) {
    const double sigma = static_cast<double>(size) / 8.0;
    const at::Tensor distance =
        at::arange(size, at::kDouble) - (static_cast<double>(size) - 1.0) / 2.0;
    return at::exp(distance.square() / (-2.0 * sigma * sigma));
  };
  at::Tensor map = (along(height).unsqueeze(1) * along(width)).to(at::kFloat);
  map.div_(map.max());
  const at::Tensor smallest = map.masked_select(map > 0).min();
  return at::where(map > 0, map, smallest);
}

int64_t slice_memory_bytes(const std::vector<TrainedModel>& models, int64_t height, int64_t width) {
  int64_t activations = 0, probabilities = 0, input = 0;
  for (const TrainedModel& trained : models) {
    const Window window = window_of(trained, height, width);
    const int64_t classes = trained.model->class_count();
    const int64_t per_pixel = trained.activation_bytes_per_pixel > 0
                                  ? trained.activation_bytes_per_pixel
                                  : kActivationBytesPerPixel;
    activations = std::max(activations, window.height * window.width * (per_pixel + 12 * classes));
    // The slice's own sum, that over models, and what the sink makes of them.
    const int64_t area = std::max(height, window.height) * std::max(width, window.width);
    probabilities = std::max(probabilities, 3 * 4 * classes * area);
    // Read, gathered, and padded or mirrored.
    input = std::max(input, 3 * 4 * trained.model->input_channels() * area);
  }
  return activations + probabilities + input;
}

int64_t slices_at_once(const InferenceOptions& options,
                       int64_t bytes_per_slice,
                       int64_t height,
                       int64_t width) {
  constexpr int64_t kMostPixels = int64_t{1} << 22;
  if (options.batch > 0) return options.batch;
  return std::min(options.memory_bytes / bytes_per_slice,
                  std::max<int64_t>(1, kMostPixels / std::max<int64_t>(1, height * width)));
}

int64_t batch_size(const std::vector<TrainedModel>& models,
                   const std::array<int64_t, 3>& size,
                   const InferenceOptions& options) {
  const int64_t slices = size[0];
  const int64_t fitting =
      slices_at_once(options, slice_memory_bytes(models, size[1], size[2]), size[1], size[2]);
  return std::clamp<int64_t>(fitting, 1, std::max<int64_t>(slices, 1));
}

SliceSource slices_of(const at::Tensor& image) {
  TORCH_CHECK(image.dim() == 4 && image.scalar_type() == at::kFloat,
              "a prepared image is float32 [C, D, H, W]");
  return {image.size(0),
          {image.size(1), image.size(2), image.size(3)},
          [image](int64_t first, int64_t count) { return image.narrow(1, first, count); }};
}

void predict_probabilities(const std::vector<TrainedModel>& models,
                           const SliceSource& image,
                           const InferenceOptions& options,
                           const ProbabilitySink& sink) {
  check(models, image);
  const int64_t slices = image.size[0], batch = batch_size(models, image.size, options);
  for (int64_t first = 0; first < slices; first += batch) {
    const int64_t count = std::min(batch, slices - first);
    const Slab slab = read_slab(models, image, first, count);
    at::Tensor sum;
    {
      const c10::InferenceMode inference;
      for (const TrainedModel& trained : models) {
        at::Tensor probabilities = slab_probabilities(trained, slab, options);
        if (sum.defined())
          sum.add_(probabilities);
        else
          sum = std::move(probabilities);
      }
      if (models.size() > 1) sum.div_(static_cast<double>(models.size()));
    }
    sink(first, sum);
    if (options.progress) options.progress(first + count, slices);
  }
}

at::Tensor predict_labels(const std::vector<TrainedModel>& models,
                          const at::Tensor& image,
                          const InferenceOptions& options) {
  at::Tensor labels = at::empty({image.size(1), image.size(2), image.size(3)}, at::kByte);
  predict_probabilities(
      models, slices_of(image), options, [&](int64_t first, const at::Tensor& probabilities) {
        labels.narrow(0, first, probabilities.size(0)).copy_(probabilities.argmax(1));
      });
  return labels;
}

}  // namespace vireo
