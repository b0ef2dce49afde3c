#include "apps/engine/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include "apps/engine/checkpoint.h"
#include "apps/engine/device.h"
#include "apps/engine/folder_lock.h"
#include "apps/engine/layer_decay.h"
#include "apps/engine/training_pass.h"
#include "apps/engine/training_state.h"
#include "datasets/random.h"
#include "models/weights/state_dict.h"
#include "vision/core/atomic_file.h"
#include "vision/core/autocast.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

json number_or_null(double value) {
  return std::isfinite(value) ? json(value) : json(nullptr);
}

Model& moved(Model& model, at::Device device) {
  model.to(device);
  return model;
}

class Trainer {
 public:
  Trainer(Task& task,
          const std::shared_ptr<Model>& model,
          const TrainingConfig& config,
          const ValidationConfig& validation,
          const TrainingRun& run)
      : task_(task),
        model_(model),
        config_(config),
        validation_(validation),
        run_(run),
        device_(choose_device(config.device)),
        parameters_(moved(*model, device_)),
        optimizer_(parameters_, config.optimizer),
        average_(parameters_, config.ema_decay),
        good_buffers_(parameters_.buffers.clone()),
        pass_(
            model,
            parameters_,
            [&](const at::Tensor& output, const Batch& batch) {
              return task_.loss(output, batch) / static_cast<double>(config_.accumulate);
            },
            config.autocast == "bf16",
            graph_stream_of(device_)),
        steps_per_epoch_(std::max<int64_t>(
            1, (task.batches_per_epoch() + config.accumulate - 1) / config.accumulate)) {}

  TrainingResult run() {
    if (device_.is_cpu()) keep_freed_memory();
    if (config_.layer_decay < 1)
      parameters_.set_rates(layer_rates(parameters_.trained_names(), config_.layer_decay));
    if (fs::exists(latest()) || fs::exists(previous_checkpoint(latest()))) resume();
    write_text_atomically(run_.folder / "config.toml", run_.config_toml);
    rewrite_metrics(metrics(), state_.history);
    begin_ = Clock::now();
    const InterruptGuard guard;
    std::optional<BatchLoader> batches;
    if (!over())
      batches.emplace([this](int64_t i) { return task_.training_batch(i); },
                      state_.iteration * config_.accumulate,
                      config_.epochs * steps_per_epoch_ * config_.accumulate,
                      choose_batch_threads(config_.threads, device_),
                      config_.ahead);
    while (!over()) {
      train_epoch(*batches);
      finish_epoch();
    }
    return {state_.epoch,
            state_.best_epoch > 0 ? state_.best_score : std::numeric_limits<double>::quiet_NaN(),
            state_.seconds,
            state_.seconds > 0 ? state_.waiting_seconds / state_.seconds : 0,
            state_.finished};
  }

 private:
  fs::path latest() const { return latest_checkpoint(run_.folder); }
  fs::path metrics() const { return run_.folder / "metrics.jsonl"; }

  // Time counts from the run's first process on.
  double seconds() const { return state_.seconds + seconds_since(begin_); }

  double time_share() const {
    if (config_.max_minutes <= 0) return 0;
    // What the last validation took is kept free for the next.
    const double budget = std::max(config_.max_minutes * 60 - validation_seconds_, 1e-3);
    return std::min(1.0, seconds() / budget);
  }

  bool over() {
    if (config_.max_minutes > 0 && time_share() >= 1 && state_.epoch > 0)
      state_.finished = "the time budget is used up";
    else if (state_.epoch >= config_.epochs)
      state_.finished = "all epochs are done";
    else if (config_.patience > 0 && state_.best_epoch > 0 &&
             state_.epoch - state_.best_epoch >= config_.patience)
      state_.finished = "no better score for " + std::to_string(config_.patience) + " epochs";
    else
      state_.finished.clear();
    return !state_.finished.empty();
  }

  void resume() {
    const Checkpoint checkpoint = read_checkpoint_or_previous(latest());
    const auto text = [&](const char* key) {
      const auto found = checkpoint.metadata.find(key);
      return found == checkpoint.metadata.end() ? std::string() : found->second;
    };
    const std::string changes = config_difference(text("config"), run_.config_toml);
    if (!changes.empty())
      throw Error(run_.folder.string() +
                  " holds a run of another configuration (- then, + now):" + changes +
                  "\nGive --restart to start anew in this folder, --output for another one, or the "
                  "old settings to go on");
    const std::string data = text("data_digest");
    if (!data.empty() && data != task_.data_digest())
      throw Error(
          run_.folder.string() +
          " holds a run on other data: cases, their files or the fold have changed since, so "
          "that what was trained on may now be validated with. Give --restart to start anew "
          "in this folder, or --output for another one");
    load_state(*model_, checkpoint.model, latest().string());
    good_buffers_.copy_(parameters_.buffers);
    if (average_.enabled())
      parameters_.gather(checkpoint.average, average_.values, average_.buffers);
    optimizer_.first_moment.copy_(checkpoint.optimizer.at("first_moment"));
    optimizer_.second_moment.copy_(checkpoint.optimizer.at("second_moment"));
    optimizer_.steps = checkpoint.optimizer.at("steps").item<int64_t>();
    average_.updates = optimizer_.steps;
    state_ = TrainingState::from_text(text("training_state"), latest());
    log_info("going on after epoch " + std::to_string(state_.epoch) + ", iteration " +
             std::to_string(state_.iteration));
  }

  std::map<std::string, std::string> metadata() const {
    auto entries = task_.checkpoint_metadata();
    entries["config"] = run_.config_toml;
    entries["data_digest"] = task_.data_digest();
    entries["model"] = run_.model_toml;
    entries["model_shape"] = json{{"input_channels", task_.model_shape().input_channels},
                                  {"class_count", task_.model_shape().class_count}}
                                 .dump();
    entries["epoch"] = std::to_string(state_.epoch);
    entries["iteration"] = std::to_string(state_.iteration);
    entries["best_score"] = number_or_null(state_.best_score).dump();
    entries["history"] = state_.history.dump();
    // All randomness follows from these two.
    entries["random_state"] = json{{"seed", config_.seed}, {"iteration", state_.iteration}}.dump();
    return entries;
  }

  void save_latest() {
    state_.seconds = seconds();
    state_.epoch_seconds += seconds_since(epoch_begin_);
    begin_ = epoch_begin_ = saved_ = Clock::now();
    Checkpoint checkpoint;
    checkpoint.model = parameters_.named(parameters_.values, parameters_.buffers);
    if (average_.enabled())
      checkpoint.average = parameters_.named(average_.values, average_.buffers);
    checkpoint.optimizer = {{"first_moment", optimizer_.first_moment},
                            {"second_moment", optimizer_.second_moment},
                            {"steps", at::full({1}, optimizer_.steps, at::kLong)}};
    checkpoint.metadata = metadata();
    checkpoint.metadata["training_state"] = state_.to_text();
    write_checkpoint_keeping_previous(latest(), checkpoint);
  }

  void save_best() const {
    Checkpoint checkpoint;
    checkpoint.model = parameters_.named(average_.values, average_.buffers);
    checkpoint.metadata = metadata();
    write_checkpoint(best_checkpoint(run_.folder), checkpoint);
  }

  [[noreturn]] void stop() {
    save_latest();
    throw Interrupted("stopped at epoch " + std::to_string(state_.epoch + 1) + ", iteration " +
                      std::to_string(state_.iteration) + "; the state is saved in " +
                      latest().string() + ". Give the same command again to go on");
  }

  Batch on_device(Batch batch) const {
    if (!device_.is_cpu()) {
      batch.image = batch.image.to(device_, batch.image.scalar_type(), true);
      batch.target = batch.target.to(device_, batch.target.scalar_type(), true);
    }
    if (config_.channels_last) batch.image = batch.image.contiguous(at::MemoryFormat::ChannelsLast);
    return batch;
  }

  // Returns the loss, or nothing where it or the gradient was not finite and no step was made.
  std::optional<double> step(BatchLoader& batches, double rate) {
    at::manual_seed(
        Random{config_.seed, 0xD20BULL, static_cast<uint64_t>(state_.iteration)}.bits() >> 1);
    parameters_.gradients.zero_();
    at::Tensor total;
    for (int64_t i = 0; i < config_.accumulate; ++i) {
      const at::Tensor loss = pass_(on_device(batches.next()));
      total = total.defined() ? total + loss : loss;
    }
    // Read back together: each waits for the device.
    const at::Tensor numbers =
        at::stack({total.to(at::kDouble), parameters_.gradients.norm().to(at::kDouble)}).cpu();
    const double loss = numbers[0].item<double>(), norm = numbers[1].item<double>();
    if (!std::isfinite(loss) || !std::isfinite(norm)) {
      // The forward pass may have spoilt the batch statistics.
      parameters_.buffers.copy_(good_buffers_);
      return std::nullopt;
    }
    const double clip = config_.gradient_clip;
    optimizer_.step(parameters_, rate, clip > 0 && norm > clip ? clip / norm : 1.0);
    average_.update(parameters_);
    good_buffers_.copy_(parameters_.buffers);
    state_.norm_sum += norm;
    return loss;
  }

  std::string time_left() const {
    const double left_by_count =
        steps_done_ > 0
            ? seconds_since(counting_since_) / static_cast<double>(steps_done_) *
                  static_cast<double>(config_.epochs * steps_per_epoch_ - state_.iteration)
            : std::numeric_limits<double>::infinity();
    const double left_by_clock = config_.max_minutes > 0
                                     ? std::max(0.0, config_.max_minutes * 60 - seconds())
                                     : std::numeric_limits<double>::infinity();
    const double left = std::min(left_by_count, left_by_clock);
    return std::isfinite(left) ? duration_text(left) : "?";
  }

  void train_epoch(BatchLoader& batches) {
    epoch_begin_ = Clock::now();
    if (steps_done_ == 0) counting_since_ = saved_ = epoch_begin_;
    const int64_t end = (state_.epoch + 1) * steps_per_epoch_;
    bar_.emplace("epoch " + std::to_string(state_.epoch + 1) + "/" + std::to_string(config_.epochs),
                 end - state_.iteration);
    model_->train();
    while (state_.iteration < end && time_share() < 1) {
      state_.learning_rate =
          config_.schedule.rate({state_.iteration, steps_per_epoch_, config_.epochs, time_share()});
      const double waited_before = batches.seconds_waited();
      const std::optional<double> loss = step(batches, state_.learning_rate);
      state_.waiting_seconds += batches.seconds_waited() - waited_before;
      ++state_.iteration;
      ++steps_done_;
      if (loss) {
        bad_in_a_row_ = 0;
        ++state_.good_steps;
        state_.loss_sum += *loss;
      } else {
        ++state_.skipped_steps;
        if (++bad_in_a_row_ >= config_.bad_steps) give_up();
      }
      bar_->message(progress_text());
      bar_->advance();
      if (interrupted()) stop();
      if (seconds_since(saved_) > config_.checkpoint_minutes * 60) save_latest();
    }
  }

  double mean_loss() const {
    return state_.good_steps > 0 ? state_.loss_sum / static_cast<double>(state_.good_steps)
                                 : std::numeric_limits<double>::quiet_NaN();
  }

  std::string progress_text() const {
    char text[128];
    std::snprintf(text, sizeof text, "loss %.4f  lr %.2e", mean_loss(), state_.learning_rate);
    return text + (last_validation_.empty() ? "" : "  " + last_validation_) + "  run ends in " +
           time_left();
  }

  [[noreturn]] void give_up() {
    char rate[32];
    std::snprintf(rate, sizeof rate, "%g", config_.schedule.base_rate);
    throw Error("the loss or its gradient was not a finite number in " +
                std::to_string(bad_in_a_row_) + " steps in a row (epoch " +
                std::to_string(state_.epoch + 1) + "). Lower train.learning_rate (now " + rate +
                "), " + (config_.gradient_clip > 0 ? "lower" : "set") + " train.gradient_clip" +
                (config_.autocast == "off" ? "" : ", set train.autocast = \"off\"") +
                ", or look for extreme values in the images");
  }

  Validation validate() {
    const Clock::time_point start = Clock::now();
    const at::NoGradGuard no_grad;
    const AverageInPlace average(parameters_, average_);
    model_->eval();
    task_.begin_validation();
    const int64_t count = task_.validation_batches();
    BatchLoader batches([this](int64_t i) { return task_.validation_batch(i); },
                        0,
                        count,
                        choose_batch_threads(config_.threads, device_),
                        config_.ahead);
    for (int64_t i = 0; i < count && !interrupted(); ++i) {
      const Batch batch = on_device(batches.next());
      const Autocast autocast(config_.autocast == "bf16", device_.type());
      task_.add_validation(model_->forward(batch.image), batch);
    }
    validation_seconds_ = seconds_since(start);
    return task_.end_validation();
  }

  void finish_epoch() {
    const bool last = state_.epoch + 1 >= config_.epochs || time_share() >= 1;
    Validation validation;
    validation.score = std::numeric_limits<double>::quiet_NaN();
    const bool validated = task_.validation_batches() > 0 &&
                           (last || (state_.epoch + 1) % validation_.every_epochs == 0);
    if (validated) validation = validate();
    if (interrupted()) stop();

    ++state_.epoch;
    const bool better = validated && std::isfinite(validation.score) &&
                        (state_.best_epoch == 0 || validation.score > state_.best_score);
    if (better) {
      state_.best_epoch = state_.epoch;
      state_.best_score = validation.score;
    }
    const bool keep = better || !validation_.select_best || task_.validation_batches() == 0 ||
                      (last && state_.best_epoch == 0);
    last_validation_ = validation.text.empty() ? last_validation_ : validation.text;
    bar_->message(progress_text());
    bar_.reset();
    record(validation, better);
    if (keep) save_best();
    save_latest();
    if (run_.epoch_done) run_.epoch_done(state_.history);
  }

  void record(const Validation& validation, bool better) {
    json entry{{"epoch", state_.epoch},
               {"iteration", state_.iteration},
               {"loss", number_or_null(mean_loss())},
               {"learning_rate", state_.learning_rate},
               {"gradient_norm",
                number_or_null(state_.norm_sum /
                               static_cast<double>(std::max<int64_t>(1, state_.good_steps)))},
               {"skipped_steps", state_.skipped_steps},
               {"seconds", state_.epoch_seconds + seconds_since(epoch_begin_)},
               {"best", better}};
    for (const auto& [key, value] : validation.values) entry[key] = number_or_null(value);
    if (state_.skipped_steps > 0)
      log_warning(std::to_string(state_.skipped_steps) + " of " +
                  std::to_string(state_.skipped_steps + state_.good_steps) +
                  " steps were skipped: loss or gradient not finite");
    append_metrics(metrics(), entry);
    state_.history.push_back(std::move(entry));
    state_.loss_sum = state_.norm_sum = 0;
    state_.good_steps = state_.skipped_steps = 0;
    state_.epoch_seconds = 0;
    epoch_begin_ = Clock::now();
  }

  Task& task_;
  std::shared_ptr<Model> model_;
  const TrainingConfig& config_;
  const ValidationConfig& validation_;
  const TrainingRun& run_;
  at::Device device_;
  FlatParameters parameters_;
  AdamW optimizer_;
  WeightAverage average_;
  at::Tensor good_buffers_;
  TrainingPass pass_;
  int64_t steps_per_epoch_;

  TrainingState state_;
  std::optional<Progress> bar_;
  std::string last_validation_;
  Clock::time_point begin_ = Clock::now(), epoch_begin_ = begin_, saved_ = begin_,
                    counting_since_ = begin_;
  double validation_seconds_ = 0;
  int64_t steps_done_ = 0, bad_in_a_row_ = 0;
};

}  // namespace

fs::path best_checkpoint(const fs::path& run_folder) {
  return run_folder / "checkpoint_best.safetensors";
}

fs::path latest_checkpoint(const fs::path& run_folder) {
  return run_folder / "checkpoint_latest.safetensors";
}

TrainingResult train(Task& task,
                     const std::shared_ptr<Model>& model,
                     const TrainingConfig& config,
                     const ValidationConfig& validation,
                     const TrainingRun& run) {
  const FolderLock lock(run.folder, "training in");
  remove_temporary_files(run.folder);
  if (run.restart)
    for (const fs::path& file : {best_checkpoint(run.folder),
                                 latest_checkpoint(run.folder),
                                 previous_checkpoint(latest_checkpoint(run.folder))})
      fs::remove(file);
  at::globalContext().setDeterministicAlgorithms(config.deterministic, /*warn_only=*/true);
  Trainer trainer(task, model, config, validation, run);
  return trainer.run();
}

}  // namespace vireo
