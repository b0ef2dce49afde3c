#include "apps/engine/layer_decay.h"

#include <cmath>
#include <cstdlib>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

namespace vireo {
namespace {

bool is_number(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

// Stage and layer of a name such as "backbone.layers.3.ln1.weight" or "encoder.stage2.1.x";
// {-1, 0} below all layers; nothing above them.
std::optional<std::pair<int, int>> place_of(const std::string& name) {
  std::istringstream stream(name);
  std::vector<std::string> parts;
  for (std::string part; std::getline(stream, part, '.');) parts.push_back(part);
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string& part = parts[i];
    if (part == "patch_embed" || part == "pos_embed" || part == "cls_token") return {{-1, 0}};
    if (i + 1 == parts.size() || !is_number(parts[i + 1])) continue;
    const int layer = std::atoi(parts[i + 1].c_str());
    if (part == "layers" || part == "blocks") return {{0, layer}};
    if (part.rfind("stage", 0) == 0 && is_number(part.substr(5)))
      return {{std::atoi(part.c_str() + 5), layer}};
  }
  return std::nullopt;
}

}  // namespace

std::map<std::string, double> layer_rates(const std::vector<std::string>& names, double decay) {
  std::set<std::pair<int, int>> places;
  for (const std::string& name : names)
    if (const auto place = place_of(name)) places.insert(*place);
  std::map<std::string, double> rates;
  for (const std::string& name : names) {
    const auto place = place_of(name);
    const auto above = place ? std::distance(places.find(*place), places.end()) : 0;
    rates[name] = std::pow(decay, static_cast<double>(above));
  }
  return rates;
}

}  // namespace vireo
