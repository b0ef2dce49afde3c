#pragma once

#include <functional>

#include "vision/io/nifti_header.h"
#include "vision/io/stored_image.h"

namespace vireo::io {

/// A NIfTI file's header, checked against the size of the file.
NiftiHeader read_nifti_header(const std::filesystem::path& path);

/// What the voxels of a file with this header take in memory.
VoxelMemory nifti_memory(const std::filesystem::path& path, const NiftiHeader& header);

/// Reads header and voxels. Throws DataError when the file holds less or more than its header
/// declares, or its compressed stream is broken.
StoredImage read_nifti(const std::filesystem::path& path);

/// Writes voxels of a type, channel after channel (`voxels(c)` points to [z][y][x]), `.nii` or
/// `.nii.gz` by the name, to `path` itself (callers make it atomic). `like` empty, or the NIfTI
/// file whose forms are kept.
void write_nifti(const std::filesystem::path& path,
                 const std::function<const void*(int64_t channel)>& voxels,
                 StoredType type,
                 int64_t channels,
                 const Geometry& geometry,
                 const std::filesystem::path& like);

}  // namespace vireo::io
