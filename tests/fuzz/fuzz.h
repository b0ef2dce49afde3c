#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>

// What the fuzz targets share. A target defines one_input(); libFuzzer calls it with bytes.
namespace vireo::fuzz {

/// Defined by each target.
void one_input(std::string_view bytes);

/// A folder of this process alone, below TMPDIR.
const std::filesystem::path& scratch();

/// Writes scratch()/name, and folders on the way.
std::filesystem::path write_bytes(const std::string& name, std::string_view bytes);

/// Runs `read`. It may succeed or refuse with one of Vireo's errors, a DataError naming a path in
/// scratch(); any other exception leaves one_input() and is a finding.
void read_or_refuse(const std::function<void()>& read);

/// Looks at every byte.
void look_at(const at::Tensor& values);

/// A ZIP archive of stored files: the checksums that a fuzzer cannot guess are right.
std::string zip_of(const std::vector<std::pair<std::string, std::string>>& files);

}  // namespace vireo::fuzz
