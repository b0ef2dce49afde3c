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

/// Switches off what DCMTK prints to stderr, and lets known attributes that were written without
/// their type (UN) be of the type that the standard gives them.
void set_up_dcmtk();

/// Parses a file; values longer than `longest_value` bytes stay in it until they are asked for.
/// Throws DataError when it is not DICOM or is cut off.
void load_dicom(const std::filesystem::path& path, unsigned longest_value, DcmFileFormat& format);

/// All values of an attribute that hold numbers, whatever their representation; empty when it is
/// missing or empty, or when one of them is no finite number. A number with anything but blanks
/// behind it, such as "0,75", is none.
std::vector<double> dicom_numbers(DcmItem& item, const DcmTagKey& tag);

/// The same of an attribute on which places or values depend: throws DataError, `path` first, where
/// it holds a text that is no number. Missing and empty ones, "nan" and "inf" are empty here too.
std::vector<double> sound_dicom_numbers(const std::filesystem::path& path,
                                        DcmItem& item,
                                        const DcmTagKey& tag);

/// The first of them, rounded, within -2^53..2^53; `otherwise` when there is none.
int64_t dicom_integer(DcmItem& item, const DcmTagKey& tag, int64_t otherwise);

/// An attribute's text, values joined by '\', without the padding; empty when it is missing.
std::string dicom_text(DcmItem& item, const DcmTagKey& tag);

/// The same in UTF-8, from the character sets that the data set names (SpecificCharacterSet). Bytes
/// that are none in them become U+FFFD: what is returned is always UTF-8.
std::string dicom_utf8_text(DcmItem& data_set, const DcmTagKey& tag);

/// "PixelSpacing (0028,0030)".
std::string dicom_tag_name(const DcmTagKey& tag);

}  // namespace vireo
