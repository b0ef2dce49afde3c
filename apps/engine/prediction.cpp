#include "apps/engine/prediction.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "apps/engine/input_cases.h"
#include "apps/engine/label_statistics.h"
#include "apps/engine/native_grid.h"
#include "apps/engine/preview.h"
#include "models/inference.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"
#include "vision/core/sha256.h"
#include "vision/image/orientation.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHowToContinue = "run the same command with --continue to go on";

/// Adds the seconds since the last lap to one of the times.
class Stopwatch {
 public:
  void lap(double& seconds) {
    const auto now = std::chrono::steady_clock::now();
    seconds += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

std::string megabytes(int64_t bytes) {
  return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

// A scratch file seen as a tensor, so that what is large lies in memory only as far as there is
// room.
class MappedTensor {
 public:
  MappedTensor(const fs::path& folder, const std::string& name, at::IntArrayRef sizes)
      : path_(folder / (".vireo-tmp-" + name + ".probabilities")) {
    fs::remove(path_);
    values_ =
        at::from_file(path_.string(), true, c10::multiply_integers(sizes), at::kFloat).view(sizes);
  }
  ~MappedTensor() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  MappedTensor(const MappedTensor&) = delete;
  MappedTensor& operator=(const MappedTensor&) = delete;

  const at::Tensor& values() const { return values_; }

 private:
  fs::path path_;
  at::Tensor values_;
};

std::string output_extension(const fs::path& input) {
  if (is_picture(input)) return ".png";
  const std::string extension = image_extension(input);
  if (extension == ".nrrd" || extension == ".nhdr") return ".nrrd";
  if (extension == ".mha" || extension == ".mhd") return ".mha";
  return ".nii.gz";
}

// Class numbers to what label files hold.
at::Tensor label_values(const at::Tensor& classes, const std::vector<Label>& labels) {
  std::array<int32_t, 256> table{};
  int64_t largest = 0;
  for (size_t k = 0; k < labels.size() && k < table.size(); ++k) {
    table[k] = static_cast<int32_t>(labels[k].value);
    largest = std::max(largest, labels[k].value);
  }
  at::Tensor values = at::empty(classes.sizes(), largest <= 255 ? at::kByte : at::kInt);
  const uint8_t* from = classes.const_data_ptr<uint8_t>();
  const auto fill = [&](auto* to) {
    at::parallel_for(0, classes.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to[i] = table[from[i]];
    });
  };
  if (largest <= 255)
    fill(values.mutable_data_ptr<uint8_t>());
  else
    fill(values.mutable_data_ptr<int32_t>());
  return values;
}

nlohmann::json label_table(const std::vector<Label>& labels) {
  nlohmann::json list = nlohmann::json::array();
  for (const Label& label : labels)
    list.push_back({{"name", label.name}, {"value", label.value}, {"color_rgb", label.color_rgb}});
  return list;
}

class Prediction {
 public:
  Prediction(const std::vector<TrainedModel>& models, const PredictionOptions& options)
      : models_(models),
        options_(options),
        preparation_(common_preparation(models)),
        model_hashes_(hashes_of(options.model_files)),
        metadata_(describe_labels(options.also, preparation_.labels)),
        record_(options.output, description()),
        preview_(preparation_) {}

  PredictionSummary run() {
    InputCases inputs = find_cases(
        options_.input, static_cast<int64_t>(preparation_.channels.size()), options_.plain_names);
    for (const std::string& problem : inputs.problems) fail(problem);
    refuse_overwriting(inputs.cases);
    fs::create_directories(options_.output);
    remove_temporary_files(options_.output);
    if (options_.keep_done) record_.load_earlier();

    const InterruptGuard guard;
    const bool single = inputs.cases.size() == 1;
    if (!single) progress_.emplace("predict", static_cast<int64_t>(inputs.cases.size()));
    try {
      for (const InputCase& input : inputs.cases) {
        try {
          one_case(input);
          record_.save(false);
        } catch (const Interrupted&) {
          throw;
        } catch (const c10::Error& error) {
          fail(input.name + ": LibTorch: " + error.what_without_backtrace());
        } catch (const std::exception& error) {
          fail(input.name + ": " + error.what());
        }
        if (!single) progress_->advance();
      }
    } catch (const Interrupted&) {
      record_.save(true);
      throw;
    }
    progress_.reset();
    record_.save(true);
    if (options_.preview && summary_.predicted > 0) {
      for (const InputCase& input : kept_)
        if (preview_.has_room()) preview_kept(input);
      preview_.write(options_.output / "preview.png");
    }
    return summary_;
  }

 private:
  static const Preparation& common_preparation(const std::vector<TrainedModel>& models) {
    if (models.empty()) throw Error("prediction needs at least one model");
    const auto described = [](const Preparation& preparation) {
      nlohmann::json json = preparation.to_json();
      json.erase("dataset_name");
      return json;
    };
    const nlohmann::json first = described(models[0].preparation);
    for (size_t i = 1; i < models.size(); ++i) {
      const nlohmann::json other = described(models[i].preparation);
      if (other == first) continue;
      std::string fields;
      for (const auto& [key, value] : first.items())
        if (!other.contains(key) || other[key] != value)
          fields += (fields.empty() ? "" : ", ") + key;
      throw Error("model " + std::to_string(i + 1) +
                  " was trained on another preparation than the first one (" + fields +
                  " differ); only models of one data set can be averaged");
    }
    const auto classes = static_cast<int64_t>(models[0].preparation.labels.size());
    if (models[0].model->class_count() != classes)
      throw Error("the model has " + std::to_string(models[0].model->class_count()) +
                  " classes, its preparation " + std::to_string(classes) + " labels");
    return models[0].preparation;
  }

  static std::vector<std::string> hashes_of(const std::vector<fs::path>& files) {
    std::vector<std::string> hashes;
    for (const fs::path& file : files) hashes.push_back(sha256_of_file(file));
    return hashes;
  }

  nlohmann::json description() const {
    nlohmann::json models = nlohmann::json::array();
    for (size_t i = 0; i < model_hashes_.size(); ++i)
      models.push_back(
          {{"file", options_.model_files[i].filename().string()}, {"sha256", model_hashes_[i]}});
    const InferenceOptions& inference = options_.inference;
    nlohmann::json mirroring = "as trained";
    if (inference.mirroring) mirroring = *inference.mirroring;
    return {{"tool", "vireo"},
            {"version", options_.version},
            {"command", options_.command_line},
            {"device", inference.device.str()},
            {"threads", at::get_num_threads()},
            {"models", models},
            {"labels", label_table(preparation_.labels)},
            {"settings",
             {{"mirroring", mirroring},
              {"overlap", inference.overlap},
              {"precision", name_of(inference.precision)},
              {"probabilities", options_.probabilities},
              {"labels_json", options_.labels_json},
              {"dicom_seg", options_.also.dicom_seg},
              {"rtstruct", options_.also.rtstruct},
              {"seg_nrrd", options_.also.seg_nrrd},
              {"pictures", options_.also.pictures}}}};
  }

  // The model's own name and the hash of its weights; of several models, of the first.
  AlgorithmIdentity algorithm() const {
    const std::string& name = preparation_.dataset_name;
    return {name.empty() ? "segmentation" : name.substr(0, 64),
            options_.version,
            model_hashes_.empty() ? "" : model_hashes_[0],
            "Vireo " + options_.version};
  }

  void fail(const std::string& problem) {
    summary_.problems.push_back(problem);
    record_.add_problem(problem);
  }

  fs::path label_file(const InputCase& input) const {
    return options_.output / (input.name + output_extension(input.files[0]));
  }

  void refuse_overwriting(const std::vector<InputCase>& cases) const {
    for (const InputCase& input : cases)
      for (const fs::path& file : input.files)
        if (fs::weakly_canonical(file) == fs::weakly_canonical(label_file(input)))
          throw DataError(file,
                          "would be overwritten by its own labels; choose another output folder");
  }

  void one_case(const InputCase& input) {
    throw_if_interrupted(kHowToContinue);
    CaseRecord record;
    record.name = input.name;
    Stopwatch watch;
    for (const fs::path& file : input.files)
      record.inputs.push_back({file.filename().string(), sha256_of_file(file)});
    if (const CaseRecord* done = record_.done(input.name, record.inputs)) {
      record_.add(*done);
      kept_.push_back(input);
      ++summary_.kept;
      return;
    }
    check_memory(input);
    Volume image = read_case(input, options_.dicom);
    watch.lap(record.times.read);

    // The network sees the axes grow as in training; the files get them back as they were.
    const Geometry file_grid = image.geometry;
    const Reorientation turn = reorientation(file_grid, preparation_.orientation_xyz);
    image = reoriented(image, turn);
    PreparedCase prepared = prepare_case(input.name, image, std::nullopt, preparation_);
    watch.lap(record.times.prepare);
    const at::Tensor classes = segment(input, file_grid, turn, prepared, watch, record.times);
    prepared.image.reset();

    const fs::path output = label_file(input);
    const fs::path like = is_nifti(input.files[0]) ? input.files[0] : fs::path();
    const at::Tensor values =
        reoriented(label_values(classes, preparation_.labels), turn.inverse());
    write_labels(output, values, file_grid, like);
    if (options_.also.any()) {
      // Only pictures show the intensities; the others need the grid alone.
      Volume shown{{}, file_grid, image.full_scale};
      if (options_.also.pictures) shown.values = reoriented(image.values, turn.inverse());
      write_segmentation(
          options_.also, options_.output, input, shown, values, metadata_, algorithm());
    }
    if (options_.labels_json)
      write_text_atomically(options_.output / (input.name + ".labels.json"),
                            label_table(preparation_.labels).dump(2) + "\n");
    record.output = output.filename().string();
    record.output_sha256 = sha256_of_file(output);
    watch.lap(record.times.write);

    const auto& size = file_grid.size_zyx;
    const auto& spacing = file_grid.spacing_mm_zyx;
    record.size_xyz = {size[2], size[1], size[0]};
    record.spacing_mm_xyz = {spacing[2], spacing[1], spacing[0]};
    record.statistics = to_json(
        label_statistics(
            classes, image.values, image.geometry.voxel_volume_mm3(), preparation_.class_count()),
        preparation_.labels);
    if (options_.preview) preview_.add(input.name, image, classes, prepared.axis_order[0]);
    watch.lap(record.times.write);
    summary_.times += record.times;
    ++summary_.predicted;
    record_.add(std::move(record));
  }

  // Class numbers uint8 [Z, Y, X] on the file's grid, turned as the network saw it.
  at::Tensor segment(const InputCase& input,
                     const Geometry& file_grid,
                     const Reorientation& turn,
                     const PreparedCase& prepared,
                     Stopwatch& watch,
                     PredictionTimes& times) {
    const auto& order = prepared.axis_order;
    std::array<int64_t, 3> inverse{};
    for (int64_t i = 0; i < 3; ++i) inverse[order[i]] = i;
    const auto& native = file_grid.size_zyx;
    std::array<int64_t, 3> file_axis{}, target{};
    for (int i = 0; i < 3; ++i) {
      file_axis[i] = turn.order_zyx[order[i]];
      target[i] = native[file_axis[i]];
    }

    std::optional<MappedTensor> probabilities;
    NativeGrid::SliceSink keep;
    if (options_.probabilities) {
      probabilities.emplace(
          options_.output,
          input.name,
          at::IntArrayRef{preparation_.class_count(), native[0], native[1], native[2]});
      const at::Tensor in_prepared_order = probabilities->values().permute(
          {0, 1 + file_axis[0], 1 + file_axis[1], 1 + file_axis[2]});
      const bool backwards = turn.flipped_zyx[order[0]];
      std::vector<int64_t> flipped;
      for (int i = 1; i < 3; ++i)
        if (turn.flipped_zyx[order[i]]) flipped.push_back(i);
      keep = [=](int64_t slice, const at::Tensor& values) {
        in_prepared_order.select(1, backwards ? target[0] - 1 - slice : slice)
            .copy_(flipped.empty() ? values : values.flip(flipped));
      };
    }
    NativeGrid grid(prepared.geometry.size_zyx, target, keep);
    InferenceOptions inference = options_.inference;
    std::optional<Progress> slices;
    if (!progress_) slices.emplace("predict " + input.name, prepared.image.size(1));
    inference.progress = [&, last = int64_t{0}](int64_t done, int64_t) mutable {
      throw_if_interrupted(kHowToContinue);
      if (slices) slices->advance(done - last);
      last = done;
    };
    predict_probabilities(
        models_, prepared.image, inference, [&](int64_t first, const at::Tensor& values) {
          watch.lap(times.network);
          grid.add(first, values);
          watch.lap(times.resample);
        });
    at::Tensor classes = grid.labels().permute({inverse[0], inverse[1], inverse[2]}).contiguous();
    watch.lap(times.resample);
    if (probabilities) {
      const fs::path like = is_nifti(input.files[0]) ? input.files[0] : fs::path();
      write_image(options_.output / (input.name + "_probabilities.nii.gz"),
                  probabilities->values(),
                  file_grid,
                  like);
      watch.lap(times.write);
    }
    return classes;
  }

  // Adds a case of an earlier run to the picture.
  void preview_kept(const InputCase& input) {
    const Volume file = read_case(input, options_.dicom);
    const Reorientation turn = reorientation(file.geometry, preparation_.orientation_xyz);
    const Volume image = reoriented(file, turn);
    const at::Tensor values = reoriented(read_labels(label_file(input)).values[0], turn);
    at::Tensor classes = at::zeros_like(values, at::kByte);
    for (size_t k = 1; k < preparation_.labels.size(); ++k)
      classes.masked_fill_(values == preparation_.labels[k].value, static_cast<int64_t>(k));
    preview_.add(input.name, image, classes, slice_axis(image.geometry));
  }

  int slice_axis(const Geometry& geometry) const {
    return preparation_.slice_axis_by_spacing ? geometry.coarsest_axis()
                                              : preparation_.slice_axis_zyx;
  }

  void check_memory(const InputCase& input) const {
    if (options_.max_memory_bytes <= 0) return;
    ImageHeader header = read_case_header(input);
    header.geometry =
        reoriented(header.geometry, reorientation(header.geometry, preparation_.orientation_xyz));
    const int64_t voxels = header.geometry.voxel_count();
    double prepared = static_cast<double>(voxels);
    if (preparation_.spacing_mm) {
      Vector3 stored = header.geometry.spacing_mm_zyx, wanted = *preparation_.spacing_mm;
      const int axis = slice_axis(header.geometry);
      std::rotate(stored.begin(), stored.begin() + axis, stored.begin() + axis + 1);
      for (int i = 0; i < 3; ++i)
        if (wanted[i] > 0) prepared *= stored[i] / wanted[i];
    }
    const int64_t needed =
        prediction_memory_bytes(static_cast<int64_t>(preparation_.channels.size()),
                                voxels,
                                static_cast<int64_t>(prepared),
                                options_.inference.memory_bytes);
    if (needed > options_.max_memory_bytes)
      throw DataError(input.files[0],
                      "would need " + megabytes(needed) +
                          " of memory beside the program; --max-memory allows " +
                          megabytes(options_.max_memory_bytes));
  }

  const std::vector<TrainedModel>& models_;
  const PredictionOptions& options_;
  const Preparation& preparation_;
  const std::vector<std::string> model_hashes_;
  SegmentationMetadata metadata_;
  PredictionRecord record_;
  Preview preview_;
  std::vector<InputCase> kept_;
  PredictionSummary summary_;
  std::optional<Progress> progress_;
};

}  // namespace

PredictionSummary predict(const std::vector<TrainedModel>& models,
                          const PredictionOptions& options) {
  return Prediction(models, options).run();
}

int64_t prediction_memory_bytes(int64_t channels,
                                int64_t native_voxels,
                                int64_t prepared_voxels,
                                int64_t batch_bytes) {
  return 12 * channels * native_voxels + 12 * channels * prepared_voxels + 3 * native_voxels +
         batch_bytes;
}

}  // namespace vireo
