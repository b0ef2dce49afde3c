#include "kernels/bench/machine.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>

#include <ATen/Parallel.h>
#include <torch/version.h>
#include <unistd.h>

#include "kernels/cpu_isa.h"

namespace vireo {
namespace {

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

std::string processor_field(const std::string& name) {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(':');
    if (line.rfind(name, 0) == 0 && colon != std::string::npos)
      return colon + 2 < line.size() ? line.substr(colon + 2) : "";
  }
  return "";
}

std::vector<std::string> graphics_cards() {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& card :
       std::filesystem::directory_iterator("/proc/driver/nvidia/gpus", ignored)) {
    std::ifstream in(card.path() / "information");
    for (std::string line; std::getline(in, line);)
      if (line.rfind("Model:", 0) == 0)
        names.push_back(line.substr(std::min(line.size(), line.find_first_not_of(" \t", 6))));
  }
  return names;
}

Machine this_machine(c10::Device device) {
  Machine machine;
  machine.date = utc_now();
  machine.processor = processor_field("model name");
  machine.isa = name_of(cpu_isa());
  machine.cores = sysconf(_SC_NPROCESSORS_ONLN);
  machine.threads = at::get_num_threads();
  const auto cards = device.is_cpu() ? std::vector<std::string>{} : graphics_cards();
  machine.device = cards.empty() ? device.str() : cards[0];
  machine.torch = TORCH_VERSION;
  return machine;
}

std::string Machine::text() const {
  return (device == "cpu" ? "" : device + ", ") + processor + " (" + isa + "), " +
         std::to_string(threads) + " of " + std::to_string(cores) + " cores, LibTorch " + torch +
         ", " + date;
}

}  // namespace vireo
