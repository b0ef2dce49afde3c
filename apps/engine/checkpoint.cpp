#include "apps/engine/checkpoint.h"

#include <system_error>

#include <ATen/ATen.h>

#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/core/safetensors.h"
#include "vision/core/sha256.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "vireo-checkpoint";
constexpr const char* kAverage = "ema.";
constexpr const char* kOptimizer = "optimizer.";

// Over everything in the file but this entry itself, each part preceded by its length.
std::string digest(const std::map<std::string, at::Tensor>& tensors,
                   const std::map<std::string, std::string>& metadata) {
  Sha256 hash;
  const auto add = [&](const std::string& text) {
    const std::string length = std::to_string(text.size()) + ":";
    hash.update(length.data(), length.size());
    hash.update(text.data(), text.size());
  };
  for (const auto& [key, value] : metadata) {
    if (key == "sha256") continue;
    add(key);
    add(value);
  }
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor bytes = tensor.cpu().contiguous();
    add(name);
    add(std::string(c10::toString(bytes.scalar_type())) + c10::str(bytes.sizes()));
    hash.update(bytes.const_data_ptr(), bytes.nbytes());
  }
  return hash.hex_digest();
}

bool starts_with(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

}  // namespace

fs::path previous_checkpoint(const fs::path& path) {
  fs::path previous = path;
  return previous.replace_extension(".previous" + path.extension().string());
}

void write_checkpoint(const fs::path& path, const Checkpoint& checkpoint) {
  std::map<std::string, at::Tensor> tensors = checkpoint.model;
  for (const auto& [name, tensor] : checkpoint.average) tensors.emplace(kAverage + name, tensor);
  for (const auto& [name, tensor] : checkpoint.optimizer)
    tensors.emplace(kOptimizer + name, tensor);
  std::map<std::string, std::string> metadata = checkpoint.metadata;
  metadata["format"] = kFormat;
  metadata["format_version"] = std::to_string(kCheckpointVersion);
  metadata["sha256"] = digest(tensors, metadata);
  write_safetensors(path, tensors, metadata);
}

void write_checkpoint_keeping_previous(const fs::path& path, const Checkpoint& checkpoint) {
  if (fs::exists(path)) {
    // A second name for the present file, put in place by a rename; `path` itself is never absent.
    const fs::path previous = previous_checkpoint(path);
    const fs::path link = path.parent_path() / (".vireo-tmp-" + previous.filename().string());
    std::error_code failed;
    fs::remove(link, failed);
    fs::create_hard_link(path, link, failed);
    if (failed) fs::copy_file(path, link, fs::copy_options::overwrite_existing);
    fs::rename(link, previous);
  }
  write_checkpoint(path, checkpoint);
}

Checkpoint read_checkpoint(const fs::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  Checkpoint checkpoint;
  checkpoint.metadata = file.metadata();
  const auto entry = [&](const std::string& key) {
    const auto found = checkpoint.metadata.find(key);
    return found == checkpoint.metadata.end() ? std::string() : found->second;
  };
  if (entry("format") != kFormat)
    throw DataError(path,
                    "is a safetensors file, but not a Vireo checkpoint (its metadata has no "
                    "\"format\" = \"vireo-checkpoint\")");
  const std::string version = entry("format_version");
  if (version != std::to_string(kCheckpointVersion))
    throw DataError(path,
                    "is a checkpoint of format version " + version +
                        "; this program reads version " + std::to_string(kCheckpointVersion) +
                        ". Use the program that wrote it");
  const auto tensors = file.tensors();
  if (digest(tensors, checkpoint.metadata) != entry("sha256"))
    throw DataError(path,
                    "is damaged: its content does not have the SHA-256 that it states. Use another "
                    "copy");
  for (const auto& [name, tensor] : tensors) {
    if (starts_with(name, kAverage))
      checkpoint.average.emplace(name.substr(std::string(kAverage).size()), tensor);
    else if (starts_with(name, kOptimizer))
      checkpoint.optimizer.emplace(name.substr(std::string(kOptimizer).size()), tensor);
    else
      checkpoint.model.emplace(name, tensor);
  }
  return checkpoint;
}

Checkpoint read_checkpoint_or_previous(const fs::path& path) {
  const fs::path previous = previous_checkpoint(path);
  try {
    return read_checkpoint(path);
  } catch (const DataError& error) {
    if (!fs::exists(previous)) throw;
    log_warning(std::string(error.what()) + "; going on from " + previous.string());
  }
  return read_checkpoint(previous);
}

}  // namespace vireo
