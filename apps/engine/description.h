#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

// What `vireo info` tells, as JSON; text_of() turns it into lines for a person.
namespace vireo {

using Description = nlohmann::ordered_json;

/// Versions, devices (CUDA: or why not), instruction sets, threads, memory and known models.
Description describe_program(const std::string& version);

struct ModelQuestion {
  std::string name;
  int64_t height = 224, width = 224;
  int64_t channels = 0;  ///< 0: the model's usual number, 1
  int64_t classes = 2;
};
/// Parameters, multiply-adds and activation memory. Throws UsageError for an unknown name.
Description describe_model(const ModelQuestion& question);

/// A checkpoint, another safetensors file, a golden file: metadata and tensors. Throws DataError.
Description describe_safetensors(const std::filesystem::path& path);

/// An image's grid, orientation, stored type, header codes and range of values. Throws DataError.
Description describe_image(const std::filesystem::path& path);

/// The DICOM series of a file, or of a folder and those below it: size, spacing, orientation and
/// what keeps one from being a regular volume. Throws DataError when there is none.
Description describe_dicom(const std::filesystem::path& path);

/// What a folder is (data set of a known layout, prepared cache, run, predictions, DICOM, images)
/// and what it holds. Throws DataError.
Description describe_folder(const std::filesystem::path& path);

/// One line per fact, nested ones indented, short lists on one line.
std::string text_of(const Description& description);

}  // namespace vireo
