#include "apps/engine/training_state.h"

#include <array>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"

namespace vireo {

namespace fs = std::filesystem;
using nlohmann::json;

std::string TrainingState::to_text() const {
  return json{{"iteration", iteration},
              {"epoch", epoch},
              {"seconds", seconds},
              {"waiting_seconds", waiting_seconds},
              {"best_score", best_score},
              {"best_epoch", best_epoch},
              {"learning_rate", learning_rate},
              {"finished", finished},
              {"loss_sum", loss_sum},
              {"norm_sum", norm_sum},
              {"epoch_seconds", epoch_seconds},
              {"good_steps", good_steps},
              {"skipped_steps", skipped_steps},
              {"history", history}}
      .dump();
}

TrainingState TrainingState::from_text(const std::string& text, const fs::path& source) {
  TrainingState s;
  try {
    const json j = parse_json(text, source);
    whole_numbers(j.at("iteration")).get_to(s.iteration);
    whole_numbers(j.at("epoch")).get_to(s.epoch);
    j.at("seconds").get_to(s.seconds);
    j.at("waiting_seconds").get_to(s.waiting_seconds);
    // JSON has no NaN: it is stored as null.
    s.best_score = j.at("best_score").is_null() ? std::numeric_limits<double>::quiet_NaN()
                                                : j.at("best_score").get<double>();
    whole_numbers(j.at("best_epoch")).get_to(s.best_epoch);
    j.at("learning_rate").get_to(s.learning_rate);
    j.at("finished").get_to(s.finished);
    j.at("loss_sum").get_to(s.loss_sum);
    j.at("norm_sum").get_to(s.norm_sum);
    j.at("epoch_seconds").get_to(s.epoch_seconds);
    whole_numbers(j.at("good_steps")).get_to(s.good_steps);
    whole_numbers(j.at("skipped_steps")).get_to(s.skipped_steps);
    s.history = j.at("history");
  } catch (const json::exception& error) {
    throw DataError(source, std::string("has a broken training state: ") + error.what());
  }
  return s;
}

void append_metrics(const fs::path& file, const json& record) {
  std::ofstream out(file, std::ios::app);
  out << record.dump() << "\n" << std::flush;
  if (!out) throw DataError(file, "cannot be written");
}

void rewrite_metrics(const fs::path& file, const json& history) {
  std::string lines;
  for (const json& record : history) lines += record.dump() + "\n";
  write_text_atomically(file, lines);
}

std::string config_difference(const std::string& before, const std::string& now) {
  static const std::array<const char*, 9> kFree{"epochs",
                                                "max_minutes",
                                                "patience",
                                                "device",
                                                "threads",
                                                "ahead",
                                                "checkpoint_minutes",
                                                "bad_steps",
                                                "whole_cases"};
  const auto settings = [](const std::string& text) {
    std::set<std::string> lines;
    std::istringstream in(text);
    std::string table;
    for (std::string line; std::getline(in, line);) {
      if (!line.empty() && line[0] == '[') table = line;
      const std::string key = line.substr(0, line.find(' '));
      bool is_free = line.empty() || line[0] == '[';
      for (const char* name : kFree) is_free = is_free || key == name;
      if (!is_free) lines.insert(table + " " + line);
    }
    return lines;
  };
  const auto old_lines = settings(before), new_lines = settings(now);
  std::string result;
  for (const auto& line : old_lines)
    if (new_lines.count(line) == 0) result += "\n  - " + line;
  for (const auto& line : new_lines)
    if (old_lines.count(line) == 0) result += "\n  + " + line;
  return result;
}

}  // namespace vireo
