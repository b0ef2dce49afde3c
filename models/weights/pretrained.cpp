#include "models/weights/pretrained.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "models/weights/pickle_import.h"
#include "models/weights/state_dict.h"
#include "vision/blocks/position_embedding.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

using State = std::map<std::string, at::Tensor>;

const std::string kEncoder = "encoder.";

bool of_the_head(const std::string& name) {
  for (const char* part : {"head.", "fc.", "classifier.", "final_conv."})
    if (name.rfind(part, 0) == 0) return true;
  return false;
}

int64_t side_of(const at::Tensor& positions) {
  const auto side = std::lround(std::sqrt(static_cast<double>(positions.size(1))));
  return side * side == positions.size(1) ? side : 0;
}

bool are_positions(const std::string& name, const at::Tensor& from, const at::Tensor& to) {
  return name.ends_with("pos_embed") && from.dim() == 3 && to.dim() == 3 && from.size(0) == 1 &&
         to.size(0) == 1 && from.size(2) == to.size(2) && side_of(from) > 0 && side_of(to) > 0;
}

bool reads_the_image(const std::string& name) {
  return name.ends_with("stage0.0.conv.conv.weight") ||
         name.ends_with("patch_embed.projection.weight");
}

bool depends_on_channels(const std::string& name) {
  return reads_the_image(name) || name.starts_with("stage0.0.") ||
         name.starts_with(kEncoder + "stage0.0.");
}

/// Numbers of input channels.
struct ChannelChange {
  int64_t from = 0, to = 0;
};

ChannelChange channel_change(const State& state, const State& targets) {
  for (const auto& [name, target] : targets) {
    const auto found = state.find(name);
    if (reads_the_image(name) && found != state.end() && found->second.dim() == 4)
      return {found->second.size(1), target.size(1)};
  }
  return {};
}

/// `stored` for another number of input channels; undefined where more differs than that.
at::Tensor with_channels(const std::string& name,
                         const at::Tensor& stored,
                         const at::Tensor& start,
                         ChannelChange change) {
  if (!depends_on_channels(name) || stored.dim() != start.dim()) return {};
  for (int64_t d = 0; d < start.dim(); ++d) {
    const bool follows = d < 2 && stored.size(d) == change.from && start.size(d) == change.to;
    if (stored.size(d) != start.size(d) && !follows) return {};
  }
  at::Tensor result = start.clone();
  const int64_t rows = std::min(stored.size(0), start.size(0));
  const at::Tensor from = stored.narrow(0, 0, rows), to = result.narrow(0, 0, rows);
  if (reads_the_image(name)) {
    to.copy_(from.to(at::kDouble).sum(1, /*keepdim=*/true) / change.to);
  } else if (start.dim() == 1) {
    to.copy_(from);
  } else {
    const int64_t columns = std::min(stored.size(1), start.size(1));
    to.zero_();
    to.narrow(1, 0, columns).copy_(from.narrow(1, 0, columns));
  }
  return result;
}

/// Removes wrappers' prefixes from the names, and puts an encoder's own below `encoder.` where the
/// model has it there.
State named_for(const Model& model, const State& targets, State state, PretrainedReport& report) {
  const auto belongs = [&](const std::string& name) {
    return targets.contains(name) || model.is_known_unused(name);
  };
  ImportedWeights weights{std::move(state), {}};
  strip_wrapper_prefixes(
      weights, [&](const std::string& name) { return belongs(name) || belongs(kEncoder + name); });
  report.notes = weights.notes;
  const auto& found = weights.tensors;
  const auto some = [&](const auto& holds) {
    return std::any_of(
        found.begin(), found.end(), [&](const auto& item) { return holds(item.first); });
  };
  if (some([](const std::string& name) { return name.starts_with(kEncoder); }) ||
      !some([&](const std::string& name) { return targets.contains(kEncoder + name); }))
    return weights.tensors;
  State below;
  for (const auto& [name, tensor] : found) below[kEncoder + name] = tensor;
  report.notes.push_back("put its names below \"" + kEncoder + "\"");
  return below;
}

void refuse_without_match(const State& state, const State& targets, const std::string& source) {
  const auto some = [](const State& names) {
    std::string text;
    size_t listed = 0;
    for (const auto& [name, tensor] : names) {
      if (listed == 4) return text + ", ...";
      text += (listed++ > 0 ? ", " : "") + name;
    }
    return text.empty() ? "nothing" : text;
  };
  for (const auto& [name, tensor] : state)
    if (targets.contains(name)) return;
  throw Error(source + ": none of its " + std::to_string(state.size()) +
              " tensors belongs to this model: found " + some(state) + "; expected " +
              some(targets) + ". Give weights of such a network, or of its encoder");
}

/// Part of the report: up to four names, or what more of them have in common.
std::string summarised(const std::vector<std::string>& names) {
  std::map<std::string, std::string> groups;
  for (const std::string& name : names) {
    const std::string key = names.size() <= 4 ? name : name.substr(0, name.find('.'));
    const auto [group, is_new] = groups.emplace(key, name);
    if (is_new) continue;
    std::string& common = group->second;
    const auto differ = std::mismatch(common.begin(), common.end(), name.begin(), name.end());
    common.erase(differ.first, common.end());
    common.erase(common.rfind('.') + 1);
  }
  std::string text;
  for (const auto& [key, group] : groups)
    text += (text.empty() ? "" : ", ") + group + (group.ends_with('.') ? "*" : "");
  return text;
}

}  // namespace

std::string PretrainedReport::text() const {
  std::string line = std::to_string(loaded.size()) + " tensors loaded";
  const auto add = [&](const std::vector<std::string>& names, const std::string& what) {
    if (!names.empty())
      line += "; " + std::to_string(names.size()) + " " + what + " (" + summarised(names) + ")";
  };
  add(adapted, "adapted to other input channels");
  add(resized, "resized");
  add(at_start, "left at their start");
  add(left_out, "of the file's head left out");
  if (!unused.empty())
    line += "; " + std::to_string(unused.size()) + " of the file are of no use to this network";
  for (const std::string& note : notes) line += "; " + note;
  return line;
}

PretrainedReport load_pretrained(Model& model, State state, const std::string& source) {
  PretrainedReport report;
  const State targets = state_of(model);
  state = named_for(model, targets, std::move(state), report);
  refuse_without_match(state, targets, source);

  const bool encoder_alone = std::all_of(state.begin(), state.end(), [](const auto& item) {
    return item.first.starts_with(kEncoder);
  });
  const ChannelChange change = channel_change(state, targets);
  for (const auto& [name, target] : targets) {
    const auto found = state.find(name);
    at::Tensor adapted;
    if (found != state.end() && found->second.sizes() == target.sizes()) {
      report.loaded.push_back(name);
    } else if (of_the_head(name) || (encoder_alone && !name.starts_with(kEncoder))) {
      report.at_start.push_back(name);
      if (found != state.end()) report.left_out.push_back(name);
      state[name] = target;
    } else if (found == state.end()) {
      continue;  // an error, with all others
    } else if (are_positions(name, found->second, target)) {
      report.resized.push_back(name);
      const int64_t from = side_of(found->second), to = side_of(target);
      found->second = resize_positions(found->second.to(at::kFloat), from, from, to, to);
    } else if (adapted = with_channels(name, found->second, target, change); adapted.defined()) {
      report.adapted.push_back(name);
      found->second = adapted;
    }
  }
  // A head of other names than this model's belongs to the old task as well.
  for (auto entry = state.begin(); entry != state.end();) {
    const bool old_head = of_the_head(entry->first) && !targets.contains(entry->first);
    if (old_head) report.left_out.push_back(entry->first);
    entry = old_head ? state.erase(entry) : std::next(entry);
  }
  for (const std::string& name : load_state(model, state, source).accepted_unused) {
    const bool classifier =
        name.starts_with(kEncoder + "head.") || name.starts_with(kEncoder + "norm.");
    (classifier ? report.left_out : report.unused).push_back(name);
  }
  return report;
}

}  // namespace vireo
