#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

// What arrays of a file may take, asked before any memory is.
namespace vireo {

/// Throws DataError (`path`, then `where`, as "its array \"image\" ") when so many values are more
/// than are read from one array, or take more than `free` bytes at `bytes_each`. Where sizes are
/// declared by a file, the caller has compared them with what the file can hold.
void check_room(const std::filesystem::path& path,
                const std::string& where,
                double values,
                double bytes_each,
                int64_t free);
/// The same with the memory that is free now.
void check_room(const std::filesystem::path& path,
                const std::string& where,
                double values,
                double bytes_each);

/// The most values that are read from one array, as of pixels from one picture.
inline constexpr int64_t kMostArrayValues = int64_t{1} << 30;

}  // namespace vireo
