#pragma once

#include <filesystem>

#include "vision/image/volume.h"

// Slices and volumes as published research code keeps them: NumPy archives (.npz) and HDF5 files
// (.h5, .hdf5, .npy.h5) that hold an image and its labels side by side.
namespace vireo {

bool is_array_file(const std::filesystem::path& path);

/// The file's name without its ending (".npy.h5" is one).
std::string array_stem(const std::filesystem::path& path);

/// The array "image" (or "img"): [Y, X] or [Z, Y, X], any number type, as float32 [1, Z, Y, X].
/// Such files tell no spacing: the grid has 1 mm. Throws DataError naming the file, the arrays that
/// it holds and what was expected; also for values that lie in another file (HDF5's links, external
/// storage and virtual data sets) and for arrays for which there is no room (array_room.h).
Volume read_array_image(const std::filesystem::path& path);

/// The array "label" (or "mask", "seg") as int32 [1, Z, Y, X]. Throws DataError, also when a value
/// is no whole number.
Volume read_array_labels(const std::filesystem::path& path);

}  // namespace vireo
