#include "kernels/bench/bench.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/bench/plain_copy.h"
#include "kernels/cuda_loader.h"
#include "kernels/process_memory.h"

namespace vireo {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kBenchHelp = R"(Options
  --only TEXT      measure the cases whose names hold TEXT
  --list           print the cases' names and measure nothing
  --seconds S      to be spent on each contender (default 0.5)
  --threads N      processor threads (default: all cores)
  --device DEVICE  cpu (default) or cuda
  --json FILE      put the numbers into FILE, in place of those that this program put there before
  --table FILE     print the table of such a file (--only: of those programs) and measure nothing
)";

constexpr const char* kTableHeader =
    R"(Medians of runs in turns; +-: half the distance of the quartiles; peak: memory beyond program, weights and inputs.
"copy", the limit, moves the bytes that the operator must at least read and write, over as much memory, by as many threads:
per element Bi-WKV 12 forward and 20 backward, WKV6 20 and 36, Q-Shift with three mixes 16 and 20, depthwise 8 and 12;
half of that in bfloat16. GB/s are those bytes over the time; "% limit": the copy's time as a share of ours; "x ours": how many
times as long as ours a form takes, within rounds.
)";

constexpr int kNameWidth = 58;

std::string line(const std::string& name, const Json& form, const Json& bench_case) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  const Json& seconds = form.at("seconds");
  const double median = seconds.at("median");
  const double quartiles =
      seconds.at("high_quartile").get<double>() - seconds.at("low_quartile").get<double>();
  const double elements = bench_case.value("elements", kNone);
  const double images = bench_case.value("images", kNone);
  const double bytes = bench_case.value("least_bytes", kNone);
  const Json& peak = form.at("peak_bytes");
  std::string text = name;
  text.resize(std::max<size_t>(kNameWidth, text.size()), ' ');
  text += number_cell(median * 1e3, 9, 3) + number_cell(50 * quartiles / median, 4, 0) + "%";
  text += number_cell(seconds.at("min").get<double>() * 1e3, 9, 3);
  text += number_cell(median * 1e9 / elements, 8, 3) + number_cell(images / median, 8, 1);
  text += number_cell(bytes / median / 1e9, 7, 1);
  text += number_cell(100 * form.value("share_of_copy", kNone), 7, 0);
  text += number_cell(peak.is_null() ? kNone : peak.get<double>() / (1 << 20), 8, 1);
  return text + number_cell(form.value("times_ours", kNone), 7, 2) + "\n";
}

std::string header_line() {
  std::string text(kNameWidth, ' ');
  text +=
      text_cell("ms", 9) + text_cell("+-", 5) + text_cell("least ms", 9) + text_cell("ns/elem", 8);
  text += text_cell("images/s", 8) + text_cell("GB/s", 7) + text_cell("% limit", 7);
  return text + text_cell("peak MiB", 8) + text_cell("x ours", 7) + "\n";
}

std::string case_lines(const Json& bench_case) {
  std::string text;
  for (const Json& form : bench_case.at("forms"))
    text += line(text.empty() ? bench_case.at("name").get<std::string>()
                              : "    " + form.at("form").get<std::string>(),
                 form,
                 bench_case);
  return text;
}

Json read_results(const std::string& path) {
  std::ifstream in(path);
  TORCH_CHECK(in.good(), path, ": cannot be read");
  return Json::parse(in);
}

// What other programs wrote stays; readers see the old file or the new one.
void put_results(const std::string& path, const char* program, const Json& results) {
  Json all =
      std::filesystem::exists(path) ? read_results(path) : Json{{"programs", Json::object()}};
  all["programs"][program] = results;
  const std::string temporary = path + ".tmp";
  {
    std::ofstream out(temporary);
    out << all.dump(1) << "\n" << std::flush;
    TORCH_CHECK(out.good(), temporary, ": cannot be written");
  }
  std::filesystem::rename(temporary, path);
}

struct BenchArguments {
  Bench::Options bench;
  std::string json, table;
  bool help = false;
};

BenchArguments parse(int argc, char** argv) {
  BenchArguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const auto value = [&] {
      TORCH_CHECK(i + 1 < argc, option, ": a value is missing; see --help");
      return std::string(argv[++i]);
    };
    if (option == "--only") {
      arguments.bench.only = value();
    } else if (option == "--list") {
      arguments.bench.list = true;
    } else if (option == "--seconds") {
      arguments.bench.seconds = std::stod(value());
    } else if (option == "--threads") {
      at::set_num_threads(std::stoi(value()));
    } else if (option == "--device") {
      const at::Device device(value());
      arguments.bench.device = device.is_cuda() ? at::Device(at::kCUDA, 0) : device;
    } else if (option == "--json") {
      arguments.json = value();
    } else if (option == "--table") {
      arguments.table = value();
    } else if (option == "--help" || option == "-h") {
      arguments.help = true;
    } else {
      TORCH_CHECK(false, option, ": unknown option; see --help");
    }
  }
  return arguments;
}

int run_bench(int argc, char** argv, const char* name, void (*measure_all)(Bench&)) {
  const BenchArguments arguments = parse(argc, argv);
  if (arguments.help) {
    std::cout << kBenchHelp;
    return 0;
  }
  if (!arguments.table.empty()) {
    std::cout << bench_table(read_results(arguments.table), arguments.bench.only);
    return 0;
  }
  const at::Device device = arguments.bench.device;
  TORCH_CHECK(device.is_cpu() || (load_cuda_kernels() && at::hasCUDA()),
              "--device cuda: there is no usable CUDA device");
  keep_freed_memory();
  Bench bench(arguments.bench);
  measure_all(bench);
  if (arguments.bench.list || bench.cases().empty()) return 0;
  const Json results = {{"machine", json_of(this_machine(device))}, {"cases", bench.cases()}};
  if (arguments.json.empty())
    std::cout << bench_table({{"programs", {{name, results}}}});
  else
    put_results(arguments.json, name, results);
  return 0;
}

}  // namespace

nlohmann::ordered_json json_of(const Spread& spread) {
  return {{"runs", spread.count},
          {"min", spread.min},
          {"low_quartile", spread.low_quartile},
          {"median", spread.median},
          {"high_quartile", spread.high_quartile},
          {"max", spread.max}};
}

nlohmann::ordered_json json_of(const Machine& machine) {
  return {{"date", machine.date},
          {"processor", machine.processor},
          {"instruction_set", machine.isa},
          {"cores", machine.cores},
          {"threads", machine.threads},
          {"device", machine.device},
          {"libtorch", machine.torch},
          {"text", machine.text()}};
}

bool Bench::wants(const std::string& name) const {
  return name.find(options_.only) != std::string::npos;
}

void Bench::measure(const BenchCase& bench_case) {
  if (!wants(bench_case.name)) return;
  if (options_.list) {
    std::cout << bench_case.name << "\n";
    return;
  }
  std::vector<Contender> contenders{bench_case.ours};
  contenders[0].name = "ours";
  const bool has_limit = bench_case.least_bytes > 0;
  if (has_limit) contenders.push_back({"copy", PlainCopy(bench_case.least_bytes, options_.device)});
  contenders.insert(contenders.end(), bench_case.others.begin(), bench_case.others.end());

  const std::vector<Timing> timings =
      time_in_turns(contenders, {.seconds = options_.seconds, .device = options_.device});
  Json forms = Json::array();
  for (size_t i = 0; i < contenders.size(); ++i) {
    const Timing& timing = timings[i];
    Json form = {{"form", contenders[i].name},
                 {"seconds", json_of(spread_of(timing.seconds))},
                 {"peak_bytes", timing.peak_bytes ? Json(*timing.peak_bytes) : Json()}};
    if (i > 0) form["times_ours"] = times_as_long(timing, timings[0]);
    if (i == 0 && has_limit) form["share_of_copy"] = times_as_long(timings[1], timing);
    forms.push_back(form);
  }
  Json record = {{"name", bench_case.name}};
  if (bench_case.elements > 0) record["elements"] = bench_case.elements;
  if (bench_case.images > 0) record["images"] = bench_case.images;
  if (has_limit) record["least_bytes"] = bench_case.least_bytes;
  record["forms"] = forms;
  std::cerr << case_lines(record) << std::flush;
  cases_.push_back(record);
}

std::string bench_table(const Json& results, const std::string& only) {
  std::string text = kTableHeader + ("\n" + header_line());
  for (const auto& [program, part] : results.at("programs").items()) {
    if (program.find(only) == std::string::npos) continue;
    text += "-- " + program + ": " + part.at("machine").at("text").get<std::string>() + "\n";
    for (const Json& bench_case : part.at("cases")) text += case_lines(bench_case);
  }
  return text;
}

std::string text_cell(const std::string& text, int width) {
  const auto missing = width - static_cast<int>(text.size());
  return std::string(static_cast<size_t>(std::max(0, missing)) + 1, ' ') + text;
}

std::string number_cell(double value, int width, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text_cell(std::isnan(value) ? "-" : text, width);
}

std::string shape_text(const std::vector<int64_t>& sizes) {
  std::string text;
  for (const int64_t size : sizes) text += (text.empty() ? "" : "x") + std::to_string(size);
  return text;
}

void check_same(const char* what, const at::Tensor& one, const at::Tensor& other) {
  TORCH_CHECK(at::allclose(one, other, 1e-4, 1e-4), what, ": the compared forms differ");
}

std::function<void()> backward_pass(const std::vector<at::Tensor>& outputs,
                                    const std::vector<at::Tensor>& leaves,
                                    const std::vector<at::Tensor>& gradients) {
  return [=] { torch::autograd::grad(outputs, leaves, gradients, /*retain_graph=*/true); };
}

int bench_main(int argc, char** argv, const char* name, void (*measure_all)(Bench&)) {
  try {
    return run_bench(argc, argv, name, measure_all);
  } catch (const c10::Error& error) {
    std::cerr << "bench: " << error.what_without_backtrace() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "bench: " << error.what() << "\n";
  }
  return 1;
}

}  // namespace vireo
