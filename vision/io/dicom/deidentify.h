#pragma once

#include <filesystem>
#include <string>

// De-identification of DICOM images after PS3.15 Annex E, Basic Application Level Confidentiality
// Profile, on the safe side of it: what is kept is listed (deidentify.cpp), all else goes.
namespace vireo {

struct DeidentifyOptions {
  /// Decides the pseudonyms, new UIDs and shifts of dates: the same key gives the same ones, so
  /// that studies of one patient still belong together. Whoever has it can test a guess; keep it
  /// secret or make a new one (random_key) and forget it.
  std::string key;
  /// Dates are moved by a number of days that the key draws for each patient (Retain Longitudinal
  /// Temporal Information with Modified Dates Option); without, dates and times are removed.
  bool shift_dates = false;
};

/// 64 hexadecimal digits from the system's random source.
std::string random_key();

/// What happened to one file.
struct Deidentified {
  std::filesystem::path output;  ///< below the output folder
  /// Why somebody has to look at the pixels: text may be burned in. Empty: nothing speaks for it.
  std::string warning;
};

/// Writes a de-identified copy of an image to OUTPUT/PSEUDONYM/SERIES/NUMBER.dcm, atomically,
/// pixels and transfer syntax untouched. Kept: what describes the pixels, the geometry and the
/// acquisition in numbers and coded values. Replaced: the patient's name and identifier by one
/// pseudonym, UIDs by new ones (standard ones stay). Emptied or removed: all other attributes,
/// text, dates, private ones and overlays, at every depth of sequences. Throws DataError for what
/// is no image or says that annotations are burned in (BurnedInAnnotation = YES).
Deidentified deidentify(const std::filesystem::path& input,
                        const std::filesystem::path& output_folder,
                        const DeidentifyOptions& options);

}  // namespace vireo
