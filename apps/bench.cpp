#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>

#include "apps/engine/benchmark.h"
#include "apps/engine/device.h"
#include "apps/engine/scaling.h"
#include "apps/verbs.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/json_text.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"
#ifdef VIREO_WITH_IO
#include "apps/engine/scaling_plot.h"
#endif

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kBenchFooter = R"(Examples
  vireo bench rwkv_unet_t --batch 1 8 --precision fp32,bf16,int8
  vireo bench vision_rwkv_t vision_rwkv6_t --size 512 384 --seconds 10
  vireo bench configs/segmentation/phantom/rwkv_unet_t.toml --training --batch 4
  vireo bench checkpoint_best.safetensors --output speed.json
  vireo bench rwkv_unet_t --scaling --plot scaling.png

All settings run in turns, so that what slows the machine down for a while falls on all of them; a
time is the mean of as many passes as take a hundredth of a second. Measured is what `vireo predict`
runs, the network prepared for inference; training in bf16, and bf16 on CUDA, is LibTorch's autocast.
--scaling times one image from 256x256 to 4096x4096, beside the same network with attention in place
of WKV. Interrupted with Ctrl-C it writes nothing.)";

struct BenchArguments {
  std::vector<std::string> models;
  std::vector<int64_t> size, batches{1}, sides{256, 512, 1024, 2048, 4096};
  std::vector<std::string> precisions{"fp32"};
  int64_t channels = 0, classes = 0;
  int threads = 0;
  std::string device = "auto", output, plot;
  bool trains = false, scaling = false, quiet = false;
  double seconds = 3, longest_pass = 60, most_memory_gib = 0;
};

void keep_report(const nlohmann::ordered_json& report, const std::string& output) {
  if (output.empty()) return;
  write_text_atomically(output, json_document(report));
  log_info("numbers as JSON: " + output);
}

void run_scaling(const BenchArguments& arguments, std::vector<BenchNetwork> networks) {
  ScalingQuestion question;
  question.networks = std::move(networks);
  question.sides = arguments.sides;
  question.precision = arguments.precisions[0];
  question.seconds = arguments.seconds;
  question.longest_pass = arguments.longest_pass;
  question.most_memory = static_cast<int64_t>(arguments.most_memory_gib * (1 << 30));
  question.device = choose_device(arguments.device);
  auto report = bench_scaling(question);
  report["version"] = VIREO_VERSION;
  std::cout << scaling_text(report);
  keep_report(report, arguments.output);
#ifdef VIREO_WITH_IO
  if (arguments.plot.empty()) return;
  draw_scaling(report, arguments.plot);
  log_info("plot: " + arguments.plot);
#endif
}

void check_bench(const BenchArguments& arguments) {
  if (!arguments.plot.empty() && !arguments.scaling)
    throw UsageError("--plot draws what --scaling measures; give both or neither");
  if (!arguments.plot.empty() && fs::path(arguments.plot).extension() != ".png")
    throw UsageError("--plot " + arguments.plot + ": expected a name that ends in .png");
  if (arguments.scaling && arguments.precisions.size() > 1)
    throw UsageError("--scaling takes one precision at a time; run it twice");
  for (size_t i = 1; i < arguments.sides.size(); ++i)
    if (arguments.sides[i] <= arguments.sides[i - 1])
      throw UsageError("--sides: expected increasing numbers, found " +
                       std::to_string(arguments.sides[i]) + " behind " +
                       std::to_string(arguments.sides[i - 1]));
#ifndef VIREO_WITH_IO
  if (!arguments.plot.empty())
    throw UsageError("--plot: this program was built without what writes pictures; use --output");
#endif
}

void run_bench_verb(const BenchArguments& arguments) {
  set_log_quiet(arguments.quiet);
  check_bench(arguments);
  if (arguments.threads > 0) at::set_num_threads(arguments.threads);
  std::vector<BenchNetwork> networks;
  for (const std::string& model : arguments.models)
    networks.push_back(open_bench_network(model, arguments.channels, arguments.classes));
  keep_freed_memory();
  const InterruptGuard guard;
  if (arguments.scaling) return run_scaling(arguments, std::move(networks));

  BenchQuestion question;
  question.networks = std::move(networks);
  question.batches = arguments.batches;
  question.precisions = arguments.precisions;
  if (!arguments.size.empty()) question.size_yx = {arguments.size.front(), arguments.size.back()};
  question.trains = arguments.trains;
  question.seconds = arguments.seconds;
  question.device = choose_device(arguments.device);
  const auto count = static_cast<double>(question.networks.size() * question.batches.size() *
                                         question.precisions.size());
  log_info("measuring for about " + duration_text(count * arguments.seconds));
  auto report = bench_networks(question);
  report["version"] = VIREO_VERSION;
  std::cout << bench_text(report);
  keep_report(report, arguments.output);
}

}  // namespace

void add_bench(CLI::App& app) {
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* verb = app.add_subcommand("bench", "Measure how fast networks are and what they need");
  verb->add_option("MODEL",
                   arguments->models,
                   "Models of `vireo info`, configurations (.toml) or checkpoints (.safetensors)")
      ->required();
  verb->add_option("--size",
                   arguments->size,
                   "Height and width, or one number for both (default: "
                   "those that MODEL is made for)")
      ->expected(1, 2)
      ->check(CLI::Range(1, 65536));
  verb->add_option("--batch", arguments->batches, "Images per pass; several are compared")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  verb->add_option("--precision", arguments->precisions, "fp32, bf16, int8 or several")
      ->delimiter(',')
      ->check(CLI::IsMember({"fp32", "bf16", "int8"}))
      ->capture_default_str();
  verb->add_option("--channels", arguments->channels, "Of the images (default 3)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--classes", arguments->classes, "Default 9; of a classifier 1000")
      ->check(CLI::PositiveNumber);
  auto* training = verb->add_flag(
      "--training", arguments->trains, "Forward, loss, backward and optimiser; else forward");
  verb->add_option("--seconds", arguments->seconds, "To be spent on each setting")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--threads", arguments->threads, "Processor threads (default: all cores)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--device", arguments->device, "Where the network runs")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  auto* scaling =
      verb->add_flag("--scaling", arguments->scaling, "How time and memory grow with the image")
          ->excludes(training)
          ->excludes("--size")
          ->excludes("--batch");
  verb->add_option("--sides", arguments->sides, "Of --scaling's square images")
      ->check(CLI::Range(1, 65536))
      ->needs(scaling)
      ->capture_default_str();
  verb->add_option("--max-seconds",
                   arguments->longest_pass,
                   "--scaling leaves out sizes at which a pass would take longer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--max-memory",
                   arguments->most_memory_gib,
                   "--scaling leaves out sizes that would need more, GiB (default: 0.9 of what is "
                   "free)")
      ->check(CLI::PositiveNumber);
  verb->add_option("-o,--output", arguments->output, "The numbers as JSON")->type_name("FILE.json");
  verb->add_option("--plot", arguments->plot, "--scaling as a picture")->type_name("FILE.png");
  verb->add_flag("-q,--quiet", arguments->quiet, "Print warnings and errors only");
  verb->footer(kBenchFooter);
  verb->callback([arguments] { run_bench_verb(*arguments); });
}

}  // namespace vireo
