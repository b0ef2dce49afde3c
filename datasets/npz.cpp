#include "datasets/npz.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include <ATen/Functions.h>
#include <zlib.h>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

constexpr size_t kDirectoryEnd = 22, kDirectoryEntry = 46, kLocalHeader = 30;
// Deflate cannot do better than this.
constexpr uint64_t kLargestRatio = 1032;

uint32_t number(const std::string& bytes, size_t at, int length) {
  uint32_t value = 0;
  for (int i = length; i-- > 0;)
    value = value << 8 | static_cast<unsigned char>(bytes[at + static_cast<size_t>(i)]);
  return value;
}

struct ArrayHeader {
  std::string type;
  bool column_major = false;
  std::vector<int64_t> shape;
  size_t data = 0;  // where the values begin
};

// The header is a Python dictionary; of it these three forms are all that NumPy writes.
ArrayHeader array_header(const std::filesystem::path& path,
                         const std::string& name,
                         const std::string& bytes) {
  const auto refuse = [&](const std::string& what) {
    throw DataError(path, "array \"" + name + "\" " + what);
  };
  if (bytes.size() < 10 || bytes.compare(0, 6, "\x93NUMPY") != 0) refuse("is no NumPy array");
  const auto version = static_cast<unsigned char>(bytes[6]);
  if (version < 1 || version > 3) refuse("has an unknown format version");
  const size_t prefix = version == 1 ? 10 : 12;
  if (bytes.size() < prefix) refuse("is cut off");
  const size_t length = number(bytes, 8, version == 1 ? 2 : 4);
  if (length > bytes.size() - prefix) refuse("has a header longer than itself");
  const std::string text = bytes.substr(prefix, length);
  const auto after = [&](const std::string& key) {
    const size_t found = text.find("'" + key + "':");
    if (found == std::string::npos) refuse("has a header without '" + key + "'");
    return text.find_first_not_of(' ', found + key.size() + 3);
  };

  ArrayHeader header;
  header.data = prefix + length;
  const size_t type = after("descr");
  if (type == std::string::npos || text[type] != '\'') refuse("holds records, not plain numbers");
  header.type = text.substr(type + 1, text.find('\'', type + 1) - type - 1);
  const size_t order = after("fortran_order");
  header.column_major = order != std::string::npos && text.compare(order, 4, "True") == 0;
  size_t at = after("shape");
  if (at == std::string::npos || text[at] != '(') refuse("has no shape");
  for (++at; at < text.size() && text[at] != ')'; ++at) {
    if (text[at] == ',' || text[at] == ' ') continue;
    int64_t extent = 0;
    if (text[at] < '0' || text[at] > '9') refuse("has a shape that is not made of numbers");
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
      extent = 10 * extent + (text[at] - '0');
      if (extent > int64_t{1} << 40) refuse("is larger than any file");
    }
    header.shape.push_back(extent);
    --at;
  }
  return header;
}

}  // namespace

NpzFile NpzFile::open(const std::filesystem::path& path) {
  NpzFile file;
  file.path_ = path;
  file.bytes_ = read_text(path, size_t{1} << 32);
  const std::string& bytes = file.bytes_;
  const auto refuse = [&](const std::string& what) {
    throw DataError(path, "is no sound NumPy archive: " + what + ". Copy or download it again");
  };
  if (bytes.size() < kDirectoryEnd || bytes.compare(0, 2, "PK") != 0)
    refuse("it does not begin as a ZIP file");
  // The directory's end is followed by a comment of at most 65535 bytes.
  size_t end = bytes.size() - kDirectoryEnd;
  const size_t first = end > 65535 ? end - 65535 : 0;
  while (bytes.compare(end, 4, "PK\5\6") != 0) {
    if (end == first) refuse("it has no directory");
    --end;
  }
  const size_t count = number(bytes, end + 10, 2), size = number(bytes, end + 12, 4);
  size_t at = number(bytes, end + 16, 4);
  if (count == 0xffff || size == 0xffffffff || at == 0xffffffff)
    refuse("it is a ZIP64 archive, which is not read");
  if (at > end || size > end - at) refuse("its directory lies outside the file");
  const size_t directory_end = at + size;
  std::set<std::string> known;
  for (size_t i = 0; i < count; ++i) {
    if (directory_end - at < kDirectoryEntry || bytes.compare(at, 4, "PK\1\2") != 0)
      refuse("its directory is damaged");
    Entry entry;
    if (number(bytes, at + 8, 2) & 1) refuse("it is encrypted");
    entry.method = static_cast<uint16_t>(number(bytes, at + 10, 2));
    entry.crc = number(bytes, at + 16, 4);
    entry.packed = number(bytes, at + 20, 4);
    entry.size = number(bytes, at + 24, 4);
    entry.header = number(bytes, at + 42, 4);
    const size_t name = number(bytes, at + 28, 2);
    const size_t more = number(bytes, at + 30, 2) + number(bytes, at + 32, 2);
    if (name + more > directory_end - at - kDirectoryEntry) refuse("its directory is damaged");
    entry.name = bytes.substr(at + kDirectoryEntry, name);
    at += kDirectoryEntry + name + more;
    if (entry.name.ends_with(".npy")) entry.name.resize(entry.name.size() - 4);
    if (!known.insert(entry.name).second) refuse("it holds \"" + entry.name + "\" twice");
    if (entry.method != 0 && entry.method != 8)
      refuse("\"" + entry.name + "\" is packed in a way that is not read");
    if (entry.header > bytes.size() - kLocalHeader || entry.packed > bytes.size() ||
        (entry.method == 0 && entry.packed != entry.size) ||
        entry.size > kLargestRatio * (uint64_t{entry.packed} + 64))
      refuse("the sizes of \"" + entry.name + "\" cannot be true");
    file.entries_.push_back(entry);
  }
  return file;
}

std::vector<std::string> NpzFile::names() const {
  std::vector<std::string> list;
  for (const Entry& entry : entries_) list.push_back(entry.name);
  return list;
}

bool NpzFile::contains(const std::string& name) const {
  return std::any_of(
      entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.name == name; });
}

std::string NpzFile::content(const Entry& entry) const {
  const auto refuse = [&](const std::string& what) {
    throw DataError(path_, "array \"" + entry.name + "\" is damaged: " + what);
  };
  if (bytes_.compare(entry.header, 4, "PK\3\4") != 0) refuse("it is not where the directory says");
  const size_t data = entry.header + kLocalHeader + number(bytes_, entry.header + 26, 2) +
                      number(bytes_, entry.header + 28, 2);
  if (data > bytes_.size() || entry.packed > bytes_.size() - data) refuse("it is cut off");
  std::string result;
  if (entry.method == 0) {
    result = bytes_.substr(data, entry.size);
  } else {
    result.resize(entry.size);
    z_stream stream{};
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes_.data() + data));
    stream.avail_in = entry.packed;
    stream.next_out = reinterpret_cast<Bytef*>(result.data());
    stream.avail_out = entry.size;
    if (::inflateInit2(&stream, -MAX_WBITS) != Z_OK) refuse("zlib cannot start");
    const int status = ::inflate(&stream, Z_FINISH);
    const bool whole = status == Z_STREAM_END && stream.total_out == entry.size;
    ::inflateEnd(&stream);
    if (!whole) refuse("it cannot be unpacked");
  }
  if (::crc32_z(0, reinterpret_cast<const Bytef*>(result.data()), result.size()) != entry.crc)
    refuse("its checksum is wrong");
  return result;
}

at::Tensor NpzFile::array(const std::string& name) const {
  const auto found = std::find_if(
      entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.name == name; });
  if (found == entries_.end()) throw DataError(path_, "holds no array \"" + name + "\"");
  const std::string bytes = content(*found);
  const ArrayHeader header = array_header(path_, name, bytes);
  static const std::map<std::string, at::ScalarType> types = {{"|u1", at::kByte},
                                                              {"|b1", at::kBool},
                                                              {"|i1", at::kChar},
                                                              {"<i2", at::kShort},
                                                              {"<u2", at::kInt},
                                                              {"<i4", at::kInt},
                                                              {"<i8", at::kLong},
                                                              {"<f4", at::kFloat},
                                                              {"<f8", at::kDouble}};
  const auto type = types.find(header.type);
  if (type == types.end())
    throw DataError(path_,
                    "array \"" + name + "\" has the element type " + header.type +
                        "; numbers in little-endian order are read");
  if (header.column_major && header.shape.size() > 1)
    throw DataError(path_, "array \"" + name + "\" is stored by column, which is not read");
  const size_t item = header.type == "<u2" ? 2 : c10::elementSize(type->second);
  const size_t available = (bytes.size() - header.data) / item;
  size_t count = 1;
  for (const int64_t extent : header.shape) {
    if (extent != 0 && count > available / static_cast<size_t>(extent))
      count = available + 1;
    else
      count *= static_cast<size_t>(extent);
    if (count > available) break;
  }
  if (count > available)
    throw DataError(path_, "array \"" + name + "\" holds fewer values than its shape says");
  at::Tensor tensor = at::empty(header.shape, type->second);
  const char* values = bytes.data() + header.data;
  if (header.type == "<u2") {
    auto* to = tensor.mutable_data_ptr<int32_t>();
    for (size_t i = 0; i < count; ++i) {
      uint16_t value;
      std::memcpy(&value, values + 2 * i, 2);
      to[i] = value;
    }
  } else if (count > 0) {
    std::memcpy(tensor.mutable_data_ptr(), values, count * item);
  }
  return tensor;
}

}  // namespace vireo
