#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

class DcmFileFormat;
class DcmItem;
class DcmTagKey;

// DCMTK, with Vireo's errors.
namespace vireo {

/// Switches off what DCMTK prints to stderr.
void silence_dcmtk();

/// Parses a file; values longer than `longest_value` bytes stay in it until they are asked for.
/// Throws DataError when it is not DICOM or is cut off.
void load_dicom(const std::filesystem::path& path, unsigned longest_value, DcmFileFormat& format);

/// All values of an attribute that hold numbers, whatever their representation; empty when it is
/// missing or empty, or when one of them is no finite number.
std::vector<double> dicom_numbers(DcmItem& item, const DcmTagKey& tag);

/// The first of them, rounded, within -2^53..2^53; `otherwise` when there is none.
int64_t dicom_integer(DcmItem& item, const DcmTagKey& tag, int64_t otherwise);

/// An attribute's text, values joined by '\', without the padding; empty when it is missing.
std::string dicom_text(DcmItem& item, const DcmTagKey& tag);

}  // namespace vireo
