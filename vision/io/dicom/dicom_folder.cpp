#include "vision/io/dicom/dicom_folder.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <set>

#include "vision/core/error.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

bool has_dicom_extension(const fs::path& path) {
  const std::string extension = dicom_extension(path);
  return extension == ".dcm" || extension == ".ima" || extension == ".dicom";
}

// A file that ends within the zeros before DICOM's prefix.
bool ends_before_prefix(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  char bytes[132] = {};
  in.read(bytes, sizeof bytes);
  return in.gcount() < 132 &&
         std::all_of(bytes, bytes + in.gcount(), [](char byte) { return byte == 0; });
}

}  // namespace

std::vector<fs::path> dicom_files(const fs::path& path, std::vector<LeftOutFile>* left_out) {
  std::error_code failed;
  const fs::file_status status = fs::status(path, failed);
  if (status.type() == fs::file_type::not_found) throw DataError(path, "no such file or folder");
  if (failed) throw DataError(path, "cannot be read: " + failed.message());
  if (!fs::is_directory(status)) return {path};
  std::vector<fs::path> files, others;
  const auto leave_out = [&](const fs::path& which, const std::string& reason) {
    if (left_out != nullptr) left_out->push_back({which, reason});
  };
  std::vector<fs::path> folders{path};
  while (!folders.empty()) {
    const fs::path folder = folders.back();
    folders.pop_back();
    fs::directory_iterator entry(folder, failed);
    if (failed) leave_out(folder, "cannot be listed: " + failed.message());
    for (; !failed && entry != fs::directory_iterator(); entry.increment(failed)) {
      const fs::path& at = entry->path();
      if (at.filename().string().starts_with(".") && !fs::is_directory(entry->symlink_status()))
        continue;
      std::error_code broken;
      const fs::file_type type = entry->status(broken).type();
      if (type == fs::file_type::directory && entry->is_symlink(broken))
        leave_out(at, "is a link to a folder, which is not followed; give that folder itself");
      else if (type == fs::file_type::directory)
        folders.push_back(at);
      else if (type == fs::file_type::not_found)
        leave_out(at, "is a link to nothing");
      else if (type == fs::file_type::none || type == fs::file_type::unknown)
        leave_out(at, "cannot be read: " + broken.message());
      else if (type == fs::file_type::regular && at.filename() != "DICOMDIR")
        (is_dicom(at) ? files : others).push_back(at);
    }
  }
  std::sort(files.begin(), files.end());
  std::sort(others.begin(), others.end());
  std::set<fs::path> dicom_folders;
  for (const fs::path& file : files) dicom_folders.insert(file.parent_path());
  for (const fs::path& other : others) {
    const bool beside = dicom_folders.contains(other.parent_path());
    const bool named = has_dicom_extension(other);
    if (!std::ifstream(other, std::ios::binary)) {
      if (beside || named) leave_out(other, "cannot be opened");
    } else if (named || (beside && dicom_extension(other).empty() && ends_before_prefix(other))) {
      std::error_code ignored;
      const uintmax_t size = fs::file_size(other, ignored);
      leave_out(other,
                size == 0 ? "is empty (0 bytes)"
                          : "is not DICOM: no DICM prefix and no data element at its start");
    }
  }
  return files;
}

bool is_dicom(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  unsigned char bytes[132] = {};
  in.read(reinterpret_cast<char*>(bytes), sizeof bytes);
  const auto count = in.gcount();
  if (count == 132 && std::equal(bytes + 128, bytes + 132, "DICM")) return true;
  if (count < 8) return false;
  // The first element of a file without a prefix: group 2 or 8, a small element number, and a value
  // representation in capitals or (implicit) a short length.
  const auto starts = [&](int group, int element) {
    const bool known = (group == 2 && element <= 0x0016) || (group == 8 && element <= 0x0018);
    const bool explicit_type = std::isupper(bytes[4]) && std::isupper(bytes[5]);
    return known && (explicit_type || (bytes[6] == 0 && bytes[7] == 0));
  };
  return starts(bytes[0] | bytes[1] << 8, bytes[2] | bytes[3] << 8) ||
         starts(bytes[1] | bytes[0] << 8, bytes[3] | bytes[2] << 8);
}

std::string dicom_extension(const fs::path& path) {
  std::string extension = path.extension().string();
  if (extension.find_first_not_of("0123456789", 1) == std::string::npos) return "";
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension;
}

}  // namespace vireo
