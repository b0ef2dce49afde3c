#pragma once

#include <filesystem>

namespace vireo {

/// Holds the length that every element of a deflated DICOM file declares against what its stream
/// inflates to, a few kilobytes at a time: DCMTK would make room for all of it first. Does nothing
/// to files of other transfer syntaxes. Throws DataError that names the element.
void check_deflated_lengths(const std::filesystem::path& path);

}  // namespace vireo
