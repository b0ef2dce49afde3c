#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace vireo {

/// Writes a file so that readers see the old one or the whole new one, never a part: `write` fills
/// a temporary file in the same folder (created if need be), which is then fsynced and renamed over
/// `path`, and the folder is fsynced. When `write` throws, the temporary file is removed and `path`
/// is left as it was. The temporary name keeps `path`'s extensions, because libraries such as ITK
/// choose the format by them; it starts with ".vireo-tmp-".
/// Throws DataError naming the path and the system's reason.
void write_file_atomically(
    const std::filesystem::path& path,
    const std::function<void(const std::filesystem::path& temporary)>& write);

/// The same for text or bytes that are at hand.
void write_text_atomically(const std::filesystem::path& path, std::string_view text);

/// A file's whole content. Throws DataError when it cannot be read or exceeds `limit_bytes`.
std::string read_text(const std::filesystem::path& path, size_t limit_bytes = size_t{1} << 30);

/// Removes the leftovers (".vireo-tmp-*") that a killed process left in `folder`.
void remove_temporary_files(const std::filesystem::path& folder);

}  // namespace vireo
