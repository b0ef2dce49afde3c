#include "apps/engine/description.h"

#include <algorithm>
#include <sstream>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <itkVersion.h>
#include <opencv2/core/version.hpp>
#include <torch/version.h>
#include <unistd.h>

#include "kernels/bench/machine.h"
#include "kernels/cuda_loader.h"
#include "kernels/device_check.h"
#include "models/cost.h"
#include "models/registry.h"
#include "vision/core/config_table.h"

namespace vireo {
namespace {

// Which of the instruction sets that matter here the processor has.
std::vector<std::string> instruction_sets() {
  std::istringstream flags(processor_field("flags"));
  const std::vector<std::string> having{std::istream_iterator<std::string>(flags), {}};
  std::vector<std::string> found;
  const std::pair<const char*, const char*> wanted[] = {{"avx2", "AVX2"},
                                                        {"fma", "FMA"},
                                                        {"avx512f", "AVX-512"},
                                                        {"avx512_vnni", "AVX-512 VNNI"},
                                                        {"avx512_bf16", "AVX-512 bf16"},
                                                        {"amx_bf16", "AMX bf16"}};
  for (const auto& [flag, name] : wanted)
    if (std::find(having.begin(), having.end(), flag) != having.end()) found.emplace_back(name);
  return found;
}

Description cuda() {
  const auto cards = graphics_cards();
  if (load_cuda_kernels() && at::hasCUDA()) {
    const auto disagreements = disagreements_with_cpu(at::Device(at::kCUDA, 0));
    if (disagreements.empty()) return {{"usable", true}, {"devices", cards}};
    return {{"usable", false},
            {"devices", cards},
            {"why", "its operators do not give what the CPU's give"},
            {"disagreements", disagreements}};
  }
  std::string why = "this machine has no NVIDIA device";
#ifndef VIREO_CUDA
  if (!cards.empty())
    why = "this program was built without CUDA; build it where nvcc is found (./dev build)";
#else
  if (!cards.empty()) why = "LibTorch finds no usable driver for " + cards[0];
#endif
  return {{"usable", false}, {"why", why}};
}

// 12,345,678
std::string grouped(std::string digits) {
  const size_t start = digits[0] == '-' ? 1 : 0;
  for (size_t at = digits.size(); at > start + 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string rounded(double value, const char* unit) {
  std::ostringstream text;
  text.precision(4);
  text << value << unit;
  return text.str();
}

// What a person reads well: sizes in MiB or GiB, operations in billions. Names tell which is which.
std::string integer_text(const std::string& name, int64_t value) {
  const auto amount = static_cast<double>(value);
  if (name.ends_with("bytes"))
    return value < int64_t{1} << 30 ? rounded(amount / (1 << 20), " MiB")
                                    : rounded(amount / (1 << 30), " GiB");
  if (name == "flops" || name == "multiply_adds") return rounded(amount / 1e9, " G");
  return grouped(std::to_string(value));
}

bool is_scalar_list(const Description& value) {
  return value.is_array() && std::none_of(value.begin(), value.end(), [](const auto& one) {
           return one.is_structured();
         });
}

std::string scalar_text(const std::string& name, const Description& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_null()) return "-";
  if (value.is_number_float()) {
    std::ostringstream text;
    text.precision(7);
    text << value.get<double>() + 0.0;  // makes a negative zero a plain one
    return text.str();
  }
  if (value.is_number_integer()) return integer_text(name, value.get<int64_t>());
  return value.dump();
}

// One line for what has no structure below it.
std::string line_text(const std::string& name, const Description& value) {
  if (!value.is_array()) return scalar_text(name, value);
  std::string text;
  for (const auto& one : value) text += (text.empty() ? "" : ", ") + scalar_text("", one);
  return text.empty() ? "none" : text;
}

void write_lines(const Description& value, const std::string& indent, std::string& out) {
  const auto entry = [&](const std::string& name, const Description& one, size_t width) {
    if (one.is_string() && one.get_ref<const std::string&>().find('\n') != std::string::npos) {
      out += indent + name + "\n";
      std::istringstream lines(one.get<std::string>());
      for (std::string line; std::getline(lines, line);) out += indent + "  " + line + "\n";
    } else if (!one.is_structured() || is_scalar_list(one)) {
      out +=
          indent + name + std::string(width - name.size() + 2, ' ') + line_text(name, one) + "\n";
    } else {
      out += indent + name + "\n";
      write_lines(one, indent + "  ", out);
    }
  };
  if (value.is_object()) {
    size_t width = 0;
    for (const auto& [name, one] : value.items())
      if (!one.is_structured() || is_scalar_list(one)) width = std::max(width, name.size());
    for (const auto& [name, one] : value.items()) entry(name, one, std::max(width, name.size()));
    return;
  }
  for (const auto& one : value) {
    if (is_scalar_list(one) || !one.is_structured()) {
      out += indent + line_text("", one) + "\n";
      continue;
    }
    std::string row;
    for (const auto& [name, cell] : one.items())
      row += (row.empty() ? "" : "  ") + line_text(name, cell);
    out += indent + row + "\n";
  }
}

}  // namespace

Description describe_program(const std::string& version) {
  Description models = Description::object();
  for (const ModelEntry& entry : known_models()) models[entry.name] = entry.summary;
  const int64_t memory = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
  return {{"versions",
           {{"Vireo", version},
            {"LibTorch", TORCH_VERSION},
            {"ITK", ITK_VERSION_STRING},
            {"OpenCV", CV_VERSION},
            {"compiler", std::string("GCC ") + __VERSION__}}},
          {"processor",
           {{"name", processor_field("model name")},
            {"cores", sysconf(_SC_NPROCESSORS_ONLN)},
            {"threads used", at::get_num_threads()},
            {"memory_bytes", memory},
            {"instruction sets", instruction_sets()},
            {"used by LibTorch", at::get_cpu_capability()}}},
          {"CUDA", cuda()},
          {"models", models}};
}

Description describe_model(const ModelQuestion& question) {
  ConfigTable table =
      ConfigTable::from_text("name = \"" + question.name + "\"", "the command line");
  const ModelShape shape{question.channels > 0 ? question.channels : 1, question.classes};
  const std::shared_ptr<Model> model = create_model(table, shape);
  model->eval();
  const ModelCost cost =
      measure_cost(*model, {1, shape.input_channels, question.height, question.width}, true);
  return {{"model", question.name},
          {"input", {1, shape.input_channels, question.height, question.width}},
          {"classes", question.classes},
          {"parameters", cost.parameters},
          {"multiply_adds", cost.multiply_adds},
          {"flops", 2 * cost.multiply_adds},
          {"weight_bytes", 4 * (cost.parameters + cost.buffer_numbers)},
          {"inference_peak_bytes", cost.inference_peak_bytes},
          {"training_peak_bytes", cost.training_peak_bytes}};
}

std::string text_of(const Description& description) {
  std::string text;
  write_lines(description, "", text);
  return text;
}

}  // namespace vireo
