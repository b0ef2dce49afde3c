#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "datasets/npz.h"
#include "datasets/picture_data_config.h"
#include "datasets/picture_set.h"
#include "datasets/source.h"

// What a classification data set looks like on disk, before any picture is decoded.
namespace vireo {

struct PictureSource {
  std::string format;  ///< "folders", "csv", "lists" or "medmnist"
  std::filesystem::path folder;
  PictureSet set;               ///< names, classes, patients, parts; no pixels yet
  std::vector<int64_t> slices;  ///< of a volume, per item; -1: a picture
  /// medmnist: the parts' pictures, in the items' order, uint8 [pictures, H, W] or [..., 3].
  std::vector<NpzRows> arrays;
  bool has_splits = false;  ///< the data set says which part is for validation
  std::vector<std::filesystem::path> descriptions;  ///< lists, tables, archives
  std::vector<Problem> problems;
};

/// Recognises a data set's layout and lists its pictures:
///
/// - folders: [train/ val/ test/] CLASS/**.jpg (png, tif, bmp, nii.gz, ...);
/// - csv: a table with a header: path, label (or one column of 0 and 1 per class), and where there
///   are such columns patient_id, split (train, val, test) and slice (of a volume, from 0);
/// - lists: train.txt, val.txt, test.txt with "path label" a line;
/// - medmnist: an .npz archive of {train,val,test}_{images,labels}.
///
/// Classes are sorted by name, or by number where all are numbers. Throws DataError for what cannot
/// be understood at all; what is wrong with single pictures is collected in `problems`.
PictureSource read_picture_source(const PictureDataConfig& config);

/// The part that a folder or a table's cell of this name means: train or training, val, valid,
/// validation or dev, test or testing, in whatever case.
std::optional<Part> part_named(std::string name);

/// The cells of a CSV text, by line: commas, quotes doubled inside quotes, LF or CRLF, a byte order
/// mark. Throws DataError (path `source`) for a quote that is not closed.
std::vector<std::vector<std::string>> parse_csv(const std::string& text,
                                                const std::filesystem::path& source);

}  // namespace vireo
