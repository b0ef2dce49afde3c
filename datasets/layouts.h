#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "datasets/data_config.h"
#include "datasets/source.h"

namespace vireo::source {

/// What speaks for a layout.
struct Evidence {
  std::string reason;           ///< for people: "images/ and masks/ ..."
  std::set<std::string> found;  ///< the entries of the folder that belong to it
};

/// A kind of data set that is known.
struct Layout {
  DataConfig::Format format;
  const char* expected;  ///< what a folder of this kind holds, for people
  std::optional<Evidence> (*look)(const std::filesystem::path& folder);
  void (*read)(const DataConfig& config, DatasetSource& source);

  const std::string& name() const;
};

const std::vector<Layout>& layouts();
const Layout& layout_of(DataConfig::Format format);

/// The layout of a folder and why. A layout whose entries are all part of another's (pairs in
/// Kvasir-SEG) does not count. Throws DataError that lists what was looked for and what was found,
/// or the layouts between which it cannot be decided.
std::pair<const Layout*, std::string> recognise(const std::filesystem::path& folder);

// What speaks for the single layouts.
std::optional<Evidence> look_for_arrays(const std::filesystem::path& folder);
std::optional<Evidence> look_for_acdc(const std::filesystem::path& folder);
std::optional<Evidence> look_for_pairs(const std::filesystem::path& folder);
std::optional<Evidence> look_for_isic(const std::filesystem::path& folder);
std::optional<Evidence> look_for_kvasir(const std::filesystem::path& folder);
std::optional<Evidence> look_for_cvc(const std::filesystem::path& folder);
std::optional<Evidence> look_for_busi(const std::filesystem::path& folder);
std::optional<Evidence> look_for_glas(const std::filesystem::path& folder);

}  // namespace vireo::source
