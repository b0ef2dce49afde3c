#include "apps/engine/prediction.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "apps/engine/folder_lock.h"
#include "apps/engine/input_cases.h"
#include "apps/engine/label_statistics.h"
#include "apps/engine/native_grid.h"
#include "apps/engine/prediction_memory.h"
#include "apps/engine/preview.h"
#include "apps/engine/probability_file.h"
#include "datasets/exif_orientation.h"
#include "datasets/prepared_slices.h"
#include "kernels/kept_memory.h"
#include "kernels/process_memory.h"
#include "models/inference.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/json_text.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"
#include "vision/core/sha256.h"
#include "vision/image/orientation.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHowToContinue = "run the same command with --continue to go on";
constexpr const char* kProbabilityEnding = "_probabilities.nii.gz";
// Of the free memory, what a case may take where no limit is given.
constexpr double kShareOfFree = 0.9;
// An estimate is told when it is so much larger than the last one told.
constexpr double kToldAgain = 1.25;

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

std::string output_extension(const InputCase& input) {
  if (input.series) return ".nii.gz";
  if (is_picture(input.files[0])) return ".png";
  const std::string extension = image_extension(input.files[0]);
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
        record_(options.output, input_folder(options), description()),
        preview_(preparation_) {}

  PredictionSummary run() {
    InputCases inputs = find_cases(
        options_.input, static_cast<int64_t>(preparation_.channels.size()), options_.plain_names);
    for (const std::string& problem : inputs.problems) fail(problem);
    refuse_overwriting(inputs.cases);
    tell_of_turned_pictures(inputs.cases);
    const FolderLock lock(options_.output, "writing to");
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
          fail(input, std::string("LibTorch: ") + error.what_without_backtrace());
        } catch (const std::exception& error) {
          fail(input, error.what());
        }
        if (!single) progress_->advance();
      }
    } catch (const Interrupted&) {
      save_record();
      throw;
    }
    progress_.reset();
    save_record();
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
    nlohmann::json segments;
    if (!options_.also.metadata_file.empty())
      segments = sha256_of_file(options_.also.metadata_file);
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
              {"pictures", options_.also.pictures},
              {"deflate", options_.also.deflate},
              {"segments", segments},
              {"allow",
               {{"duplicates", options_.dicom.duplicates},
                {"resample-gaps", options_.dicom.gaps},
                {"tilt", options_.dicom.tilt}}}}}};
  }

  // The model's own name and the hash of its weights; of several models, of the first.
  AlgorithmIdentity algorithm() const {
    const std::string& name = preparation_.dataset_name;
    return {name.empty() ? "segmentation" : name.substr(0, 64),
            options_.version,
            model_hashes_.empty() ? "" : model_hashes_[0],
            "Vireo " + options_.version};
  }

  // Where inputs lie: files are told without it.
  static fs::path input_folder(const PredictionOptions& options) {
    return fs::is_directory(options.input) ? options.input : options.input.parent_path();
  }

  void fail(const std::string& problem) {
    summary_.problems.push_back(problem);
    record_.add_problem(problem);
  }

  void fail(const InputCase& input, const std::string& what) {
    const std::string name = input.name + ": ";
    fail(what.starts_with(name) ? what : name + what);
  }

  // What cannot be saved, where the disk is full, is one more problem.
  void save_record() {
    record_.set_warnings(warnings_.warnings());
    try {
      record_.save(true);
    } catch (const DataError& error) {
      summary_.problems.push_back(error.what());
    }
  }

  fs::path label_file(const InputCase& input) const {
    return options_.output / (input.name + output_extension(input));
  }

  // Where results go beside inputs, images that are no results must stay, taken as inputs or not.
  void refuse_overwriting(const std::vector<InputCase>& cases) const {
    const fs::path folder = fs::weakly_canonical(options_.output);
    if (!fs::is_directory(folder) || folder != fs::weakly_canonical(input_folder(options_))) return;
    const auto earlier = PredictionRecord::earlier_outputs(folder);
    for (const InputCase& input : cases) {
      const fs::path labels = label_file(input);
      const bool is_input =
          std::any_of(input.files.begin(), input.files.end(), [&](const fs::path& file) {
            return fs::weakly_canonical(file) == fs::weakly_canonical(labels);
          });
      const bool ours =
          std::find(earlier.begin(), earlier.end(), labels.filename()) != earlier.end();
      if (is_input || (fs::exists(labels) && !ours))
        throw DataError(labels,
                        "would be overwritten by the labels of " + input.name +
                            "; choose another output folder");
    }
  }

  void one_case(const InputCase& input) {
    throw_if_interrupted(kHowToContinue);
    check_outputs(options_.also, input);
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
    const ImageHeader header = read_case_header(input, options_.dicom);
    const MemoryPlan plan = memory_plan(input, header);
    record.memory_estimate_bytes = plan.estimate.total();
    const Volume image = read_case(input, options_.dicom);
    watch.lap(record.times.read);

    int slice_axis = 0;
    at::Tensor classes;
    {
      // The network sees the axes grow as in training; the files get them back as they were.
      const PreparedSlices slices(input.name, image, turn_of(input, image.geometry), preparation_);
      watch.lap(record.times.prepare);
      slice_axis = slices.axes().order_zyx[0];
      classes = segment(input, image.geometry, slices, plan.batch, watch, record.times);
    }
    record.statistics = to_json(
        label_statistics(
            classes, image.values, image.geometry.voxel_volume_mm3(), preparation_.class_count()),
        preparation_.labels);
    watch.lap(record.times.statistics);

    const fs::path output = label_file(input);
    const at::Tensor values = label_values(classes, preparation_.labels);
    write_labels(output, values, image.geometry, header_source(input));
    if (options_.also.any())
      record.also = write_segmentation(
          options_.also, options_.output, input, image, values, metadata_, algorithm());
    if (options_.labels_json) {
      record.also.push_back(input.name + ".labels.json");
      write_text_atomically(options_.output / record.also.back(),
                            json_document(label_table(preparation_.labels)));
    }
    if (options_.probabilities) record.also.push_back(input.name + kProbabilityEnding);
    record.output = output.filename().string();
    record.output_sha256 = sha256_of_file(output);
    watch.lap(record.times.write);

    const auto& size = image.geometry.size_zyx;
    const auto& spacing = image.geometry.spacing_mm_zyx;
    record.size_xyz = {size[2], size[1], size[0]};
    record.spacing_mm_xyz = {spacing[2], spacing[1], spacing[0]};
    if (options_.preview) preview_.add(input.name, image, classes, slice_axis);
    watch.lap(record.times.statistics);
    summary_.times += record.times;
    ++summary_.predicted;
    record_.add(std::move(record));
  }

  // Class numbers uint8 [Z, Y, X] on the file's grid.
  at::Tensor segment(const InputCase& input,
                     const Geometry& file_grid,
                     const PreparedSlices& slices,
                     int64_t batch,
                     Stopwatch& watch,
                     PredictionTimes& times) {
    const KeptMemory kept;
    std::optional<ProbabilityFile> probabilities;
    NativeGrid::SliceSink keep;
    if (options_.probabilities) {
      probabilities.emplace(options_.output / (input.name + kProbabilityEnding),
                            preparation_.class_count(),
                            file_grid);
      keep = [&](int64_t, const at::Tensor& values) {
        watch.lap(times.resample);
        probabilities->add(values);
        watch.lap(times.write);
      };
    }
    NativeGrid grid(slices.geometry().size_zyx, slices.stored_size(), keep);
    InferenceOptions inference = options_.inference;
    inference.batch = batch;
    std::optional<Progress> bar;
    if (!progress_) bar.emplace("predict " + input.name, slices.geometry().size_zyx[0]);
    inference.progress = [&, last = int64_t{0}](int64_t done, int64_t) mutable {
      throw_if_interrupted(kHowToContinue);
      if (bar) bar->advance(done - last);
      last = done;
    };
    const SliceSource source{
        slices.channels(), slices.geometry().size_zyx, [&](int64_t first, int64_t count) {
          watch.lap(times.network);
          at::Tensor values = slices.read(first, count);
          watch.lap(times.prepare);
          return values;
        }};
    predict_probabilities(models_, source, inference, [&](int64_t first, const at::Tensor& values) {
      watch.lap(times.network);
      grid.add(first, values);
      watch.lap(times.resample);
    });
    if (bar) bar->finish();
    const Reorientation& axes = slices.axes();
    at::Tensor classes = grid.labels();
    if (!axes.is_identity()) {
      const auto& size = file_grid.size_zyx;
      classes = at::empty({size[0], size[1], size[2]}, at::kByte);
      for (int64_t i = 0; i < grid.labels().size(0); ++i)
        put_slice(classes, axes, i, grid.labels()[i]);
    }
    watch.lap(times.resample);
    if (probabilities) {
      probabilities->write(axes, header_source(input));
      watch.lap(times.write);
    }
    return classes;
  }

  // Adds a case of an earlier run to the picture.
  void preview_kept(const InputCase& input) {
    const Volume image = read_case(input, options_.dicom);
    const at::Tensor values = read_compact_image(label_file(input)).values[0];
    at::Tensor classes = at::zeros(values.sizes(), at::kByte);
    for (int64_t z = 0; z < values.size(0); ++z)
      for (size_t k = 1; k < preparation_.labels.size(); ++k)
        classes[z].masked_fill_(values[z] == preparation_.labels[k].value, static_cast<int64_t>(k));
    const Reorientation turn = turn_of(input, image.geometry);
    const int axis = prepared_axes(preparation_, reoriented(image.geometry, turn))[0];
    preview_.add(input.name, image, classes, turn.order_zyx[axis]);
  }

  static void tell_of_turned_pictures(const std::vector<InputCase>& cases) {
    const auto turned = std::count_if(cases.begin(), cases.end(), [](const InputCase& input) {
      return exif_orientation_of(input) != 1;
    });
    if (turned > 0)
      log_info(std::to_string(turned) +
               " picture(s) are shown to the network upright, as their EXIF orientation says; what "
               "is written lies on their pixels as stored");
  }

  // How the network sees an image: its axes as in training, a photograph upright.
  Reorientation turn_of(const InputCase& input, const Geometry& grid) const {
    const Reorientation turn = reorientation(grid, preparation_.orientation_xyz);
    return turn.is_identity() ? upright(exif_orientation_of(input)) : turn;
  }

  static int exif_orientation_of(const InputCase& input) {
    const bool one_picture = input.files.size() == 1 && !input.series && is_picture(input.files[0]);
    return one_picture ? exif_orientation(input.files[0]) : 1;
  }

  // The file whose header the outputs take over.
  static fs::path header_source(const InputCase& input) {
    return !input.series && is_nifti(input.files[0]) ? input.files[0] : fs::path();
  }

  // Tells what the case will take, or refuses it.
  MemoryPlan memory_plan(const InputCase& input, const ImageHeader& header) {
    const Geometry turned = reoriented(header.geometry, turn_of(input, header.geometry));
    PredictionShape shape;
    shape.stored_size = turned.permuted(prepared_axes(preparation_, turned)).size_zyx;
    shape.prepared_size = prepared_geometry(preparation_, turned).size_zyx;
    shape.channels = static_cast<int64_t>(preparation_.channels.size());
    shape.class_count = preparation_.class_count();
    for (const Label& label : preparation_.labels) shape.wide_labels |= label.value > 255;
    shape.probabilities = options_.probabilities;
    shape.segments = options_.also.dicom_seg || options_.also.rtstruct || options_.also.seg_nrrd;
    const int64_t program = resident_memory_bytes();
    const auto room = static_cast<double>(available_memory_bytes());
    const int64_t allowed = options_.max_memory_bytes > 0
                                ? options_.max_memory_bytes
                                : program + static_cast<int64_t>(kShareOfFree * room);
    const MemoryPlan plan =
        plan_memory(models_, header.memory, shape, options_.inference, program, allowed);
    const std::string needed = plan.estimate.text();
    const std::string limit =
        (options_.max_memory_bytes > 0 ? "--max-memory allows " : "90 % of what is free allow ") +
        memory_text(allowed);
    if (plan.estimate.total() > allowed)
      throw DataError(input.files[0],
                      "would need " + needed + " of memory even slice by slice; " + limit +
                          ". Free memory or allow more, " +
                          (options_.probabilities ? "leave --probabilities out, " : "") +
                          "store the image as 16-bit integers, crop it, or use another machine");
    if (static_cast<double>(plan.estimate.total()) >
        kToldAgain * static_cast<double>(told_bytes_)) {
      told_bytes_ = plan.estimate.total();
      log_info(input.name + ": needs up to " + needed + " of memory; " + limit);
    }
    return plan;
  }

  const WarningsKept warnings_;
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
  int64_t told_bytes_ = 0;  // the largest estimate so far
};

}  // namespace

PredictionSummary predict(const std::vector<TrainedModel>& models,
                          const PredictionOptions& options) {
  return Prediction(models, options).run();
}

}  // namespace vireo
