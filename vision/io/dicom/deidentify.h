#pragma once

#include <filesystem>
#include <map>
#include <string>

// De-identification of DICOM images after PS3.15 Annex E, Basic Application Level Confidentiality
// Profile, on the safe side of it: what is kept is listed (deidentify_attributes.cpp), all else
// goes.
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
  /// Why somebody has to look at the copy: text may be burned into its pixels, or what was found
  /// in them had to be taken out or could not be looked for. Empty: nothing speaks for it.
  std::string warning;
};

/// De-identifies the files of one run, none of which takes another's place.
class Deidentifier {
 public:
  Deidentifier(std::filesystem::path output_folder, DeidentifyOptions options);

  /// Writes a de-identified copy of an image to OUTPUT/PSEUDONYM/SERIES/NUMBER.dcm, atomically,
  /// the pixels' values and transfer syntax untouched. Kept: what describes the pixels, the
  /// geometry and the acquisition in numbers and coded values. Replaced: the patient's name and
  /// identifier by one pseudonym, which is the identifier's where there is one, else the name's,
  /// else the study's, else the folder's; UIDs by new ones (standard ones stay; a file without
  /// SOPInstanceUID gets one). Emptied or removed: all other attributes, text, dates, private ones
  /// and overlays, at every depth of sequences; bits and bytes beside the pixels; comments and
  /// application data in JPEG and JPEG 2000. A file equal to one copied before shares its copy.
  /// Throws DataError for what is no image, says that annotations are burned in (BurnedInAnnotation
  /// = YES), has an overlay in the bits of compressed pixels, or would take the place of another's
  /// copy.
  Deidentified copy(const std::filesystem::path& input);

 private:
  std::filesystem::path output_folder_;
  DeidentifyOptions options_;
  std::map<std::filesystem::path, std::filesystem::path> input_of_;  // by output
};

}  // namespace vireo
