#include "apps/engine/prediction_record.h"

#include <chrono>
#include <cstdio>
#include <ctime>
#include <utility>

#include "kernels/process_memory.h"
#include "vision/core/atomic_file.h"
#include "vision/core/json_text.h"
#include "vision/core/log.h"
#include "vision/core/sha256.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr double kSaveEverySeconds = 5;

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

Json hashes_to_json(const std::vector<FileHash>& hashes) {
  Json list = Json::array();
  for (const FileHash& one : hashes) list.push_back({{"file", one.file}, {"sha256", one.sha256}});
  return list;
}

Json case_to_json(const CaseRecord& one) {
  return {{"name", one.name},
          {"inputs", hashes_to_json(one.inputs)},
          {"output", one.output},
          {"output_sha256", one.output_sha256},
          {"also", one.also},
          {"size_xyz", one.size_xyz},
          {"spacing_mm_xyz", one.spacing_mm_xyz},
          {"memory_estimate_bytes", one.memory_estimate_bytes},
          {"seconds", one.times.to_json()}};
}

CaseRecord case_from_json(const nlohmann::json& json) {
  CaseRecord one;
  one.name = json.at("name");
  for (const auto& input : json.at("inputs"))
    one.inputs.push_back({input.at("file"), input.at("sha256")});
  one.output = json.at("output");
  one.output_sha256 = json.at("output_sha256");
  one.also = json.at("also");
  one.size_xyz = json.at("size_xyz");
  one.spacing_mm_xyz = json.at("spacing_mm_xyz");
  one.memory_estimate_bytes = json.at("memory_estimate_bytes");
  const auto& seconds = json.at("seconds");
  one.times = {seconds.at("read"),
               seconds.at("prepare"),
               seconds.at("network"),
               seconds.at("resample"),
               seconds.at("statistics"),
               seconds.at("write")};
  return one;
}

bool equal(const std::vector<FileHash>& a, const std::vector<FileHash>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i].sha256 != b[i].sha256) return false;
  return true;
}

}  // namespace

PredictionTimes& PredictionTimes::operator+=(const PredictionTimes& other) {
  read += other.read;
  prepare += other.prepare;
  network += other.network;
  resample += other.resample;
  statistics += other.statistics;
  write += other.write;
  return *this;
}

nlohmann::json PredictionTimes::to_json() const {
  return {{"read", read},
          {"prepare", prepare},
          {"network", network},
          {"resample", resample},
          {"statistics", statistics},
          {"write", write},
          {"total", total()}};
}

std::string PredictionTimes::table(int64_t cases) const {
  std::string text;
  const auto line = [&](const char* name, double seconds) {
    char row[96];
    std::snprintf(row,
                  sizeof row,
                  "  %-10s %9.2f s %5.1f %% %9.3f s per case\n",
                  name,
                  seconds,
                  total() > 0 ? 100 * seconds / total() : 0.0,
                  cases > 0 ? seconds / static_cast<double>(cases) : 0.0);
    text += row;
  };
  line("read", read);
  line("prepare", prepare);
  line("network", network);
  line("resample", resample);
  line("statistics", statistics);
  line("write", write);
  line("total", total());
  char outside[64];
  std::snprintf(outside,
                sizeof outside,
                "  outside the network %.1f %%",
                total() > 0 ? 100 * (1 - network / total()) : 0.0);
  return text + outside;
}

PredictionRecord::PredictionRecord(fs::path folder, fs::path input_folder, nlohmann::json run)
    : folder_(std::move(folder)),
      input_folder_(std::move(input_folder)),
      run_(std::move(run)),
      started_(now_seconds()) {
  run_["started"] = utc_now();
  last_saved_ = started_;
}

void PredictionRecord::load_earlier() {
  try {
    const auto manifest = parse_json(read_text(folder_ / "manifest.json"), folder_);
    const auto statistics = parse_json(read_text(folder_ / "statistics.json"), folder_);
    if (manifest.at("settings") != run_.at("settings") ||
        manifest.at("models") != run_.at("models")) {
      log_info(
          "the earlier run into this folder had other models or settings: all cases are redone");
      return;
    }
    for (const auto& json : manifest.at("cases")) {
      CaseRecord one = case_from_json(json);
      one.statistics = statistics.at("cases").at(one.name);
      earlier_[one.name] = std::move(one);
    }
  } catch (const std::exception&) {
    earlier_.clear();
  }
}

const CaseRecord* PredictionRecord::done(const std::string& name,
                                         const std::vector<FileHash>& inputs) const {
  const auto at = earlier_.find(name);
  if (at == earlier_.end() || !equal(at->second.inputs, inputs)) return nullptr;
  const fs::path output = folder_ / at->second.output;
  if (!fs::exists(output) || sha256_of_file(output) != at->second.output_sha256) return nullptr;
  for (const std::string& file : at->second.also)
    if (!fs::exists(folder_ / file)) return nullptr;
  return &at->second;
}

void PredictionRecord::add(CaseRecord one) {
  const std::string name = one.name;
  cases_[name] = std::move(one);
}

void PredictionRecord::add_problem(const std::string& line) {
  problems_.push_back(without_folders(line));
}

void PredictionRecord::set_warnings(const std::vector<std::string>& lines) {
  warnings_.clear();
  for (const std::string& line : lines) warnings_.push_back(without_folders(line));
}

std::string PredictionRecord::without_folders(std::string line) const {
  for (const fs::path& folder : {input_folder_, folder_}) {
    const std::string prefix = (folder / "").string();
    for (size_t at = 0; prefix.size() > 1 && (at = line.find(prefix, at)) != std::string::npos;)
      line.erase(at, prefix.size());
  }
  return line;
}

std::vector<std::string> PredictionRecord::earlier_outputs(const fs::path& folder) {
  std::vector<std::string> names;
  try {
    const nlohmann::json manifest = parse_json(read_text(folder / "manifest.json"), folder);
    for (const auto& one : manifest.at("cases")) names.push_back(one.at("output"));
  } catch (const std::exception&) {
    names.clear();  // no manifest of ours
  }
  return names;
}

void PredictionRecord::save(bool now) {
  if (!now && now_seconds() - last_saved_ < kSaveEverySeconds) return;
  Json manifest = run_;
  Json statistics = {{"units",
                      {{"volume_ml", "millilitres"},
                       {"mean_intensity", "the input's own values"},
                       {"sd_intensity", "the input's own values"}}},
                     {"cases", Json::object()}};
  PredictionTimes times;
  Json cases = Json::array();
  std::map<std::string, CaseRecord> all = cases_;
  for (const auto& [name, one] : earlier_)
    if (fs::exists(folder_ / one.output)) all.emplace(name, one);
  for (const auto& [name, one] : all) {
    cases.push_back(case_to_json(one));
    statistics["cases"][name] = one.statistics;
    times += one.times;
  }
  manifest["written"] = utc_now();
  manifest["wall_seconds"] = now_seconds() - started_;
  manifest["seconds"] = times.to_json();
  manifest["peak_memory_bytes"] = peak_memory_bytes();
  manifest["problems"] = problems_;
  manifest["warnings"] = warnings_;
  manifest["cases"] = std::move(cases);
  // The statistics first: a manifest never names a case that they lack.
  write_text_atomically(folder_ / "statistics.json", json_document(statistics));
  write_text_atomically(folder_ / "manifest.json", json_document(manifest));
  last_saved_ = now_seconds();
}

}  // namespace vireo
