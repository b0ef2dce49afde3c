#include "datasets/prepare_pictures.h"

#include <array>
#include <chrono>
#include <cmath>
#include <functional>

#include <ATen/ATen.h>
#include <sys/stat.h>

#include "datasets/picture_reader.h"
#include "datasets/picture_shards.h"
#include "datasets/picture_source.h"
#include "datasets/picture_transforms.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/log.h"
#include "vision/core/parallel_tasks.h"
#include "vision/core/progress.h"
#include "vision/core/safetensors.h"
#include "vision/core/sha256.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

// Raised whenever the same files and configuration would give another cache.
constexpr const char* kRecipeVersion = "vireo.prepare_pictures 1";
constexpr int64_t kChunk = 512;  // pictures decoded at a time
constexpr size_t kListed = 20;   // broken files named on the terminal

std::string stamp(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return path.string() + " absent\n";
  return path.string() + " " + std::to_string(status.st_size) + " " +
         std::to_string(status.st_mtim.tv_sec) + "." + std::to_string(status.st_mtim.tv_nsec) +
         "\n";
}

std::string inputs_of(const PictureDataConfig& config, const PictureSource& source) {
  Sha256 hash;
  const auto add = [&](const std::string& text) { hash.update(text.data(), text.size()); };
  add(std::string(kRecipeVersion) + "\n" + config.recipe() + "\n");
  for (const fs::path& path : source.descriptions) add(stamp(path));
  if (source.arrays.empty())
    for (const PictureItem& item : source.set.items) add(stamp(source.folder / item.name));
  return hash.hex_digest();
}

std::string listed(const std::vector<Problem>& problems, size_t limit) {
  std::string text;
  for (size_t i = 0; i < problems.size() && i < limit; ++i)
    text += "\n  " + problems[i].path.string() + ": " + problems[i].reason;
  if (problems.size() > limit)
    text += "\n  ... and " + std::to_string(problems.size() - limit) + " more";
  return text;
}

at::Tensor reduced(const at::Tensor& picture, int64_t short_side) {
  const int64_t h = picture.size(0), w = picture.size(1), side = std::min(h, w);
  if (short_side == 0 || side <= short_side) return picture;
  const auto scaled = [&](int64_t extent) {
    return std::max<int64_t>(1, (extent * short_side + side / 2) / side);
  };
  return resized_picture(picture, scaled(h), scaled(w));
}

// Keeps the items of which keep[i] is set.
void keep_only(const std::vector<bool>& keep, PictureSet& set, std::vector<int64_t>& slices) {
  std::vector<PictureItem> items;
  std::vector<uint8_t> labels;
  std::vector<int64_t> kept_slices;
  const size_t classes = set.class_names.size();
  for (size_t i = 0; i < keep.size(); ++i) {
    if (!keep[i]) continue;
    items.push_back(set.items[i]);
    kept_slices.push_back(slices[i]);
    if (set.multi_label)
      for (size_t k = 0; k < classes; ++k) labels.push_back(set.labels[i * classes + k]);
  }
  set.items = std::move(items);
  set.labels = std::move(labels);
  slices = std::move(kept_slices);
}

// Sums of the values of training pictures, from which their mean and deviation follow. A grey
// picture counts in all three channels.
struct Moments {
  std::array<double, 3> sum{}, squares{};
  double count = 0;

  void add(const at::Tensor& picture) {
    const int64_t pixels = picture.size(0) * picture.size(1);
    const auto channels = static_cast<size_t>(picture.size(2));
    const uint8_t* values = picture.const_data_ptr<uint8_t>();
    std::array<uint64_t, 3> sums{}, square_sums{};
    for (int64_t i = 0; i < pixels; ++i)
      for (size_t c = 0; c < channels; ++c) {
        const uint64_t value = *values++;
        sums[c] += value;
        square_sums[c] += value * value;
      }
    for (size_t c = 0; c < 3; ++c) {
      sum[c] += static_cast<double>(sums[channels == 1 ? 0 : c]);
      squares[c] += static_cast<double>(square_sums[channels == 1 ? 0 : c]);
    }
    count += static_cast<double>(pixels);
  }

  void finish(PictureSet& set) const {
    for (size_t c = 0; c < static_cast<size_t>(set.channels); ++c) {
      const double mean = count > 0 ? sum[c] / count / 255 : 0.5;
      const double variance = count > 0 ? squares[c] / count / (255.0 * 255) - mean * mean : 1;
      set.mean.push_back(mean);
      set.sd.push_back(variance > 1e-10 ? std::sqrt(variance) : 1);
    }
  }
};

class Preparer {
 public:
  Preparer(const PictureDataConfig& config, PictureSource& source)
      : config_(config), source_(source), set_(source.set) {}

  // Decodes everything once, but for items that are `done`; `take` receives the sound pictures in
  // their order. Returns whether each item is sound.
  std::vector<bool> run(const std::function<bool(int64_t item)>& done,
                        const std::function<void(int64_t item, const at::Tensor& picture)>& take) {
    std::vector<bool> sound(set_.items.size(), true);
    std::vector<int64_t> open;
    for (size_t i = 0; i < set_.items.size(); ++i)
      if (!done(static_cast<int64_t>(i))) open.push_back(static_cast<int64_t>(i));
    const auto count = static_cast<int64_t>(open.size());
    Progress progress("prepare", static_cast<int64_t>(set_.items.size()));
    progress.advance(static_cast<int64_t>(set_.items.size()) - count);
    for (int64_t begin = 0; begin < count; begin += kChunk) {
      const int64_t size = std::min(kChunk, count - begin);
      std::vector<at::Tensor> pictures(static_cast<size_t>(size));
      std::vector<std::string> reasons(pictures.size());
      for (size_t i = 0; i < pictures.size() && !source_.arrays.empty(); ++i)
        pictures[i] = next_row(open[static_cast<size_t>(begin) + i]);
      run_parallel(size, config_.workers, [&](int64_t i) {
        const auto at = static_cast<size_t>(i);
        try {
          if (!pictures[at].defined()) pictures[at] = decode(open[static_cast<size_t>(begin) + at]);
          pictures[at] = reduced(pictures[at], config_.short_side);
        } catch (const DataError& error) {
          reasons[at] = error.what();
        }
        progress.advance();
      });
      for (size_t i = 0; i < pictures.size(); ++i) {
        const auto item = static_cast<size_t>(open[static_cast<size_t>(begin) + i]);
        if (pictures[i].defined()) {
          take(static_cast<int64_t>(item), pictures[i]);
          continue;
        }
        sound[item] = false;
        const fs::path path = source_.folder / set_.items[item].name;
        const std::string prefix = path.string() + ": ";
        std::string reason = reasons[i];
        if (reason.starts_with(prefix)) reason.erase(0, prefix.size());
        source_.problems.push_back({path, reason, set_.items[item].name});
      }
    }
    progress.finish();
    return sound;
  }

 private:
  at::Tensor decode(int64_t item) const {
    const auto i = static_cast<size_t>(item);
    return read_classified_picture(
        source_.folder / set_.items[i].name, source_.slices[i], config_.depth);
  }

  // An archive's picture [H, W, C]; items are asked for in their order.
  at::Tensor next_row(int64_t item) {
    while (item >= array_begin_ + source_.arrays[array_].shape()[0]) {
      array_begin_ += source_.arrays[array_].shape()[0];
      next_item_ = array_begin_;
      ++array_;
    }
    source_.arrays[array_].skip(item - next_item_);
    next_item_ = item + 1;
    const at::Tensor row = source_.arrays[array_].next(1)[0];
    return row.dim() == 2 ? row.unsqueeze(2) : row;
  }

  const PictureDataConfig& config_;
  PictureSource& source_;
  PictureSet& set_;
  size_t array_ = 0;         // which of the archive's parts is being read
  int64_t array_begin_ = 0;  // its first item
  int64_t next_item_ = 0;
};

void judge_problems(const PictureDataConfig& config, const PictureSource& source) {
  const auto& problems = source.problems;
  const bool of_the_set = std::any_of(
      problems.begin(), problems.end(), [](const Problem& p) { return p.case_name.empty(); });
  if (!problems.empty() && (of_the_set || !config.skip_broken || source.set.items.empty()))
    throw DataError(
        source.folder,
        "has " + std::to_string(problems.size()) + " problem(s):" + listed(problems, kListed));
  if (source.set.items.empty()) throw DataError(source.folder, "holds no picture");
  if (!problems.empty())
    log_warning(std::to_string(problems.size()) +
                " picture(s) are left out:" + listed(problems, kListed));
}

}  // namespace

PrepareReport prepare_pictures(const PictureDataConfig& config, const PrepareOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  PictureSource source = read_picture_source(config);
  PictureSet& set = source.set;
  const std::string inputs = inputs_of(config, source);
  PrepareReport report;
  if (!options.force && is_picture_cache(config.cache, inputs)) {
    const PictureSet kept = open_picture_cache(config.cache, read_classified_picture);
    report.already_done = true;
    report.cases = report.kept = static_cast<int64_t>(kept.items.size());
    report.folds = kept.fold_count();
    return report;
  }
  // From here on the folder is no cache until its manifest is back.
  fs::create_directories(config.cache);
  fs::remove(config.cache / "cache.json");
  remove_temporary_files(config.cache);

  PictureStorage storage;
  storage.decoded = config.decoded || !source.arrays.empty();
  storage.depth = config.depth;
  if (!storage.decoded) storage.folder = fs::absolute(source.folder);
  set.channels = config.channels > 0 ? config.channels : 1;
  Moments moments;
  const auto count_in = [&](int64_t item, const at::Tensor& picture) {
    if (config.channels == 0) set.channels = std::max(set.channels, picture.size(2));
    if (set.items[static_cast<size_t>(item)].part == Part::kTrain) moments.add(picture);
  };
  const auto item_count = static_cast<int64_t>(set.items.size());
  PictureShards shards(config.cache, inputs, item_count, options.shard_bytes);
  if (storage.decoded && !options.force)
    report.kept = shards.take_over(count_in);
  else
    shards.clear();
  const InterruptGuard guard;
  const auto done = [&](int64_t item) { return shards.holds(item); };
  const auto take = [&](int64_t item, const at::Tensor& picture) {
    const at::Tensor wanted =
        config.channels > 0 ? with_channels(picture, config.channels) : picture.contiguous();
    count_in(item, wanted);
    if (storage.decoded) shards.add(item, wanted);
  };
  const std::vector<bool> sound = Preparer(config, source).run(done, take);
  shards.finish();
  for (int64_t item = 0; item < item_count && storage.decoded; ++item)
    if (sound[static_cast<size_t>(item)]) shards.locate(item, storage);
  keep_only(sound, set, source.slices);
  judge_problems(config, source);
  storage.slices = source.slices;
  moments.finish(set);
  if (!source.has_splits)
    split_by_patient(set, config.folds, static_cast<uint32_t>(config.split_seed));
  if (!source.problems.empty())
    write_text_atomically(config.cache / "broken.txt",
                          listed(source.problems, source.problems.size()).substr(1) + "\n");
  write_picture_cache(config.cache, set, storage, inputs);
  report.cases = static_cast<int64_t>(set.items.size());
  report.folds = set.fold_count();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return report;
}

}  // namespace vireo
