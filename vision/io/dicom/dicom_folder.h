#pragma once

#include <filesystem>
#include <string>
#include <vector>

// Which files of a folder are DICOM.
namespace vireo {

/// Whether a file starts as DICOM does: with the prefix DICM behind 128 bytes, or (files written
/// without it) with a data element of group 0002 or 0008.
bool is_dicom(const std::filesystem::path& path);

/// A file that is not used, and why.
struct LeftOutFile {
  std::filesystem::path path;
  std::string reason;
};

/// The DICOM files of a folder and of all below it, sorted: neither hidden ones nor DICOMDIR, and
/// none in linked folders. A file is its own, whatever it holds. `left_out` takes what cannot be
/// opened, links that are not followed, and files that are named or lie as DICOM does but hold
/// none. Throws DataError when there is no such path.
std::vector<std::filesystem::path> dicom_files(const std::filesystem::path& path,
                                               std::vector<LeftOutFile>* left_out = nullptr);

/// A name's extension in lower case; empty for digits, the end of names that are UIDs.
std::string dicom_extension(const std::filesystem::path& path);

}  // namespace vireo
