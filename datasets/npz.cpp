#include "datasets/npz.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include <ATen/Functions.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "datasets/array_room.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

constexpr size_t kDirectoryEnd = 22, kDirectoryEntry = 46, kLocalHeader = 30;
constexpr size_t kLongLocator = 20, kLongDirectoryEnd = 56;
constexpr size_t kLargestComment = 65535, kLargestDirectory = size_t{1} << 28;
constexpr uint32_t kInLongField = 0xffffffff;
// Deflate cannot do better than this.
constexpr uint64_t kLargestRatio = 1032;
constexpr size_t kMostDimensions = 64, kLargestHeader = size_t{1} << 20;
constexpr size_t kBlock = size_t{1} << 18;

uint64_t number(const std::string& bytes, size_t at, int length) {
  uint64_t value = 0;
  for (int i = length; i-- > 0;)
    value = value << 8 | static_cast<unsigned char>(bytes[at + static_cast<size_t>(i)]);
  return value;
}

struct ArrayHeader {
  std::string type;
  bool column_major = false;
  std::vector<int64_t> shape;
};

// The header is a Python dictionary; of it these three forms are all that NumPy writes.
template <typename Refuse>
ArrayHeader array_header(const std::string& text, const Refuse& refuse) {
  const auto after = [&](const std::string& key) {
    const size_t found = text.find("'" + key + "':");
    if (found == std::string::npos) refuse("has a header without '" + key + "'");
    return text.find_first_not_of(' ', found + key.size() + 3);
  };
  ArrayHeader header;
  const size_t type = after("descr");
  if (type == std::string::npos || text[type] != '\'') refuse("holds records, not plain numbers");
  header.type = text.substr(type + 1, text.find('\'', type + 1) - type - 1);
  const size_t order = after("fortran_order");
  header.column_major = order != std::string::npos && text.compare(order, 4, "True") == 0;
  size_t at = after("shape");
  if (at == std::string::npos || text[at] != '(') refuse("has no shape");
  for (++at; at < text.size() && text[at] != ')'; ++at) {
    if (text[at] == ',' || text[at] == ' ') continue;
    if (header.shape.size() == kMostDimensions) refuse("has more dimensions than NumPy allows");
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

// How the values of an array lie in the file, and what becomes of them.
struct ElementType {
  at::ScalarType stored, given;
  int64_t mask = 0;  // of unsigned numbers that are read as signed ones: their bits
};

// By NumPy's letter and width.
const std::map<std::string, ElementType>& element_types() {
  static const std::map<std::string, ElementType> types = {
      {"b1", {at::kBool, at::kBool}},
      {"u1", {at::kByte, at::kByte}},
      {"u2", {at::kShort, at::kInt, 0xffff}},
      {"u4", {at::kInt, at::kLong, 0xffffffff}},
      {"u8", {at::kLong, at::kLong, std::numeric_limits<int64_t>::max()}},
      {"i1", {at::kChar, at::kChar}},
      {"i2", {at::kShort, at::kShort}},
      {"i4", {at::kInt, at::kInt}},
      {"i8", {at::kLong, at::kLong}},
      {"f2", {at::kHalf, at::kFloat}},
      {"f4", {at::kFloat, at::kFloat}},
      {"f8", {at::kDouble, at::kDouble}}};
  return types;
}

void swap_bytes(char* values, size_t count, size_t width) {
  for (size_t i = 0; i < count; ++i) std::reverse(values + i * width, values + (i + 1) * width);
}

}  // namespace

// The file, read where it is needed.
class NpzBytes {
 public:
  explicit NpzBytes(const std::filesystem::path& path) : path_(path) {
    file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (file_ < 0 || ::fstat(file_, &status) != 0)
      throw DataError(path, std::string("cannot be opened: ") + std::strerror(errno));
    size_ = static_cast<uint64_t>(status.st_size);
  }
  ~NpzBytes() {
    if (file_ >= 0) ::close(file_);
  }
  NpzBytes(const NpzBytes&) = delete;
  NpzBytes& operator=(const NpzBytes&) = delete;

  const std::filesystem::path& path() const { return path_; }
  uint64_t size() const { return size_; }

  void read(uint64_t at, char* to, size_t count) const {
    while (count > 0) {
      const ssize_t got = ::pread(file_, to, count, static_cast<off_t>(at));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) throw DataError(path_, "ends early; copy or download it again");
      at += static_cast<uint64_t>(got);
      to += got;
      count -= static_cast<size_t>(got);
    }
  }
  std::string text(uint64_t at, size_t count) const {
    std::string bytes(count, '\0');
    read(at, bytes.data(), count);
    return bytes;
  }

 private:
  std::filesystem::path path_;
  int file_ = -1;
  uint64_t size_ = 0;
};

// The bytes of one entry, unpacked in order.
class NpzStream {
 public:
  NpzStream(std::shared_ptr<const NpzBytes> bytes, const NpzFile::Entry& entry)
      : bytes_(std::move(bytes)), entry_(entry) {
    const std::string local = bytes_->text(entry.header, kLocalHeader);
    if (local.compare(0, 4, "PK\3\4") != 0) damaged("it is not where the directory says");
    at_ = entry.header + kLocalHeader + number(local, 26, 2) + number(local, 28, 2);
    if (at_ > bytes_->size() || entry.packed > bytes_->size() - at_) damaged("it is cut off");
    packed_left_ = entry.packed;
    if (!entry.deflated) return;
    packed_.resize(kBlock);
    if (::inflateInit2(&zlib_, -MAX_WBITS) != Z_OK) damaged("zlib cannot start");
  }
  ~NpzStream() {
    if (entry_.deflated) ::inflateEnd(&zlib_);
  }
  NpzStream(const NpzStream&) = delete;
  NpzStream& operator=(const NpzStream&) = delete;

  const std::filesystem::path& path() const { return bytes_->path(); }
  const std::string& name() const { return entry_.name; }
  uint64_t left() const { return entry_.size - done_; }

  void read(char* to, size_t count) {
    if (count > left()) damaged("it is cut off");
    for (size_t done = 0; done < count;) {
      const size_t size = std::min(count - done, kBlock);
      if (entry_.deflated)
        unpack(to + done, size);
      else
        copy(to + done, size);
      crc_ = ::crc32_z(crc_, reinterpret_cast<const Bytef*>(to + done), size);
      done += size;
    }
    done_ += count;
  }

  // Passes over what is left and compares the checksum.
  void finish() {
    std::string rest;
    while (left() > 0) {
      rest.resize(std::min<uint64_t>(left(), kBlock));
      read(rest.data(), rest.size());
    }
    char more = 0;
    if (entry_.deflated && !ended_ && inflated(&more, 1) > 0)
      damaged("it is longer than the directory says");
    if (crc_ != entry_.crc) damaged("its checksum is wrong");
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw DataError(path(), "array \"" + entry_.name + "\" " + what);
  }

 private:
  [[noreturn]] void damaged(const std::string& what) const { refuse("is damaged: " + what); }

  void copy(char* to, size_t count) {
    bytes_->read(at_, to, count);
    at_ += count;
  }

  void unpack(char* to, size_t count) {
    if (inflated(to, count) < count) damaged("it cannot be unpacked");
  }

  // How many bytes came before the end.
  size_t inflated(char* to, size_t count) {
    zlib_.next_out = reinterpret_cast<Bytef*>(to);
    zlib_.avail_out = static_cast<uInt>(count);
    while (zlib_.avail_out > 0 && !ended_) {
      if (zlib_.avail_in == 0 && packed_left_ > 0) {
        const size_t size = std::min<uint64_t>(packed_left_, packed_.size());
        bytes_->read(at_, packed_.data(), size);
        at_ += size;
        packed_left_ -= size;
        zlib_.next_in = reinterpret_cast<Bytef*>(packed_.data());
        zlib_.avail_in = static_cast<uInt>(size);
      }
      const int status = ::inflate(&zlib_, Z_NO_FLUSH);
      if (status == Z_STREAM_END)
        ended_ = true;
      else if (status != Z_OK)
        damaged("it cannot be unpacked");
    }
    return count - zlib_.avail_out;
  }

  std::shared_ptr<const NpzBytes> bytes_;
  NpzFile::Entry entry_;
  uint64_t at_ = 0, packed_left_ = 0, done_ = 0;
  uLong crc_ = 0;
  z_stream zlib_{};
  std::string packed_;
  bool ended_ = false;
};

NpzFile NpzFile::open(const std::filesystem::path& path) {
  NpzFile file;
  file.bytes_ = std::make_shared<NpzBytes>(path);
  const NpzBytes& bytes = *file.bytes_;
  const uint64_t size = bytes.size();
  const auto refuse = [&](const std::string& what) {
    throw DataError(path, "is no sound NumPy archive: " + what + ". Copy or download it again");
  };
  if (size < kDirectoryEnd || bytes.text(0, 2) != "PK") refuse("it does not begin as a ZIP file");

  // The directory's end is followed by a comment.
  const uint64_t tail_begin = size - std::min<uint64_t>(size, kLargestComment + kDirectoryEnd);
  const std::string tail = bytes.text(tail_begin, static_cast<size_t>(size - tail_begin));
  const size_t end = tail.rfind("PK\5\6", tail.size() - kDirectoryEnd);
  if (end == std::string::npos) refuse("it has no directory");
  uint64_t count = number(tail, end + 10, 2), length = number(tail, end + 12, 4);
  uint64_t begin = number(tail, end + 16, 4), directory_end = tail_begin + end;
  if (count == 0xffff || length == kInLongField || begin == kInLongField) {
    if (directory_end < kLongLocator) refuse("its ZIP64 directory is missing");
    const std::string locator = bytes.text(directory_end - kLongLocator, kLongLocator);
    const uint64_t at = number(locator, 8, 8);
    if (locator.compare(0, 4, "PK\6\7") != 0 || size < kLongDirectoryEnd ||
        at > size - kLongDirectoryEnd)
      refuse("its ZIP64 directory is missing");
    const std::string long_end = bytes.text(at, kLongDirectoryEnd);
    if (long_end.compare(0, 4, "PK\6\6") != 0) refuse("its ZIP64 directory is missing");
    count = number(long_end, 32, 8);
    length = number(long_end, 40, 8);
    begin = number(long_end, 48, 8);
    directory_end = at;
  }
  if (begin > directory_end || length > directory_end - begin || length > kLargestDirectory ||
      count > length / kDirectoryEntry)
    refuse("its directory lies outside the file");
  const std::string directory = bytes.text(begin, static_cast<size_t>(length));

  std::set<std::string> known;
  size_t at = 0;
  for (uint64_t i = 0; i < count; ++i) {
    if (directory.size() - at < kDirectoryEntry || directory.compare(at, 4, "PK\1\2") != 0)
      refuse("its directory is damaged");
    Entry entry;
    if (number(directory, at + 8, 2) & 1) refuse("it is encrypted");
    const uint64_t method = number(directory, at + 10, 2);
    entry.deflated = method == 8;
    entry.crc = static_cast<uint32_t>(number(directory, at + 16, 4));
    entry.packed = number(directory, at + 20, 4);
    entry.size = number(directory, at + 24, 4);
    entry.header = number(directory, at + 42, 4);
    const size_t name = number(directory, at + 28, 2), extra = number(directory, at + 30, 2);
    const size_t more = extra + number(directory, at + 32, 2);
    if (name + more > directory.size() - at - kDirectoryEntry) refuse("its directory is damaged");
    entry.name = directory.substr(at + kDirectoryEntry, name);
    // Of the long fields only those are there whose short form is full.
    const size_t extra_end = at + kDirectoryEntry + name + extra;
    for (size_t field = extra_end - extra; field + 4 <= extra_end;) {
      const size_t id = number(directory, field, 2), bytes_of = number(directory, field + 2, 2);
      size_t value = field + 4;
      field = value + bytes_of;
      if (id != 1 || field > extra_end) continue;
      for (uint64_t* part : {&entry.size, &entry.packed, &entry.header}) {
        if (*part != kInLongField || value + 8 > field) continue;
        *part = number(directory, value, 8);
        value += 8;
      }
    }
    at += kDirectoryEntry + name + more;
    if (entry.name.ends_with(".npy")) entry.name.resize(entry.name.size() - 4);
    if (!known.insert(entry.name).second) refuse("it holds \"" + entry.name + "\" twice");
    if (method != 0 && method != 8)
      refuse("\"" + entry.name + "\" is packed in a way that is not read");
    if (entry.header > size - kLocalHeader || entry.packed > size ||
        (method == 0 && entry.packed != entry.size) ||
        entry.size / kLargestRatio > entry.packed + 64)
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

NpzRows NpzFile::stored_rows(const std::string& name) const {
  const auto found = std::find_if(
      entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.name == name; });
  if (found == entries_.end()) throw DataError(bytes_->path(), "holds no array \"" + name + "\"");
  NpzRows rows;
  rows.stream_ = std::make_unique<NpzStream>(bytes_, *found);
  NpzStream& stream = *rows.stream_;
  const auto refuse = [&](const std::string& what) { stream.refuse(what); };

  std::string start(10, '\0');
  if (stream.left() < start.size()) refuse("is no NumPy array");
  stream.read(start.data(), start.size());
  if (start.compare(0, 6, "\x93NUMPY") != 0) refuse("is no NumPy array");
  const auto version = static_cast<unsigned char>(start[6]);
  if (version < 1 || version > 3) refuse("has an unknown format version");
  if (version > 1) {
    if (stream.left() < 2) refuse("is cut off");
    start.resize(12);
    stream.read(start.data() + 10, 2);
  }
  const uint64_t length = number(start, 8, version == 1 ? 2 : 4);
  if (length > stream.left() || length > kLargestHeader) refuse("has a header longer than itself");
  std::string text(static_cast<size_t>(length), '\0');
  stream.read(text.data(), text.size());
  const ArrayHeader header = array_header(text, refuse);

  const bool ordered = !header.type.empty() && std::strchr("<>|=", header.type[0]);
  const auto type = element_types().find(header.type.substr(ordered ? 1 : 0));
  if (type == element_types().end())
    refuse("has the element type " + header.type +
           "; truth values, whole numbers of 8 to 64 bits and floating point of 16 to 64 bits are "
           "read. Save it as one of these: array.astype(\"float32\")");
  rows.stored_ = type->second.stored;
  rows.type_ = type->second.given;
  rows.mask_ = type->second.mask;
  rows.swapped_ = header.type[0] == '>';
  rows.column_major_ = header.column_major && header.shape.size() > 1;
  rows.shape_ = header.shape;
  if (rows.column_major_) std::reverse(rows.shape_.begin(), rows.shape_.end());
  const uint64_t item = c10::elementSize(rows.stored_);
  const uint64_t available = stream.left() / item;
  // Zeros count as ones at first: the extents beside them must not overflow either.
  uint64_t room = std::max<uint64_t>(available, 1), count = 1;
  for (const int64_t extent : header.shape) {
    const auto size = static_cast<uint64_t>(extent);
    if (size > room) refuse("holds fewer values than its shape says");
    room /= std::max<uint64_t>(size, 1);
    count *= size;
  }
  if (count > available) refuse("holds fewer values than its shape says");
  rows.left_ = rows.shape_.empty() ? 1 : rows.shape_[0];
  for (size_t axis = 1; axis < rows.shape_.size(); ++axis) rows.row_values_ *= rows.shape_[axis];
  return rows;
}

NpzRows NpzFile::rows(const std::string& name) const {
  NpzRows found = stored_rows(name);
  if (found.column_major_)
    found.stream_->refuse(
        "is stored by column (Fortran order), of which no rows can be read one after the other. "
        "Save np.ascontiguousarray(array)");
  return found;
}

at::Tensor NpzFile::array(const std::string& name) const {
  NpzRows values = stored_rows(name);
  const double widths = static_cast<double>(c10::elementSize(values.stored_)) +
                        static_cast<double>(c10::elementSize(values.type_));
  check_room(bytes_->path(),
             "array \"" + name + "\" ",
             static_cast<double>(values.left_) * static_cast<double>(values.row_values_),
             widths);
  const at::Tensor whole = values.next(values.left_).reshape(values.shape_);
  if (!values.column_major_) return whole;
  // By column: the reversed shape's rows.
  std::vector<int64_t> axes(static_cast<size_t>(whole.dim()));
  std::iota(axes.rbegin(), axes.rend(), int64_t{0});
  return whole.permute(axes).contiguous();
}

NpzRows::NpzRows() = default;
NpzRows::NpzRows(NpzRows&&) noexcept = default;
NpzRows::~NpzRows() = default;

at::Tensor NpzRows::next(int64_t rows) {
  rows = std::min(rows, left_);
  std::vector<int64_t> shape = shape_;
  if (shape.empty()) shape.push_back(1);
  shape[0] = rows;
  const auto count = static_cast<size_t>(rows * row_values_);
  at::Tensor tensor = at::empty(shape, stored_);
  const size_t width = tensor.element_size();
  auto* values = static_cast<char*>(tensor.mutable_data_ptr());
  if (count > 0) stream_->read(values, count * width);
  if (swapped_ && width > 1) swap_bytes(values, count, width);
  if (type_ == at::kBool) {
    const auto* bytes = static_cast<const unsigned char*>(tensor.const_data_ptr());
    if (!std::all_of(bytes, bytes + count, [](unsigned char c) { return c <= 1; }))
      stream_->refuse("holds truth values other than 0 and 1");
  }
  left_ -= rows;
  if (left_ == 0) stream_->finish();
  if (mask_ != 0 && stored_ == type_) {
    if (count > 0 && tensor.min().item<int64_t>() < 0)
      stream_->refuse("holds numbers above " + std::to_string(mask_) + ", which are not read");
    return tensor;
  }
  const at::Tensor given = tensor.to(type_);
  return mask_ != 0 ? given.bitwise_and(mask_) : given;
}

void NpzRows::skip(int64_t rows) {
  while (rows > 0 && left_ > 0) {
    const int64_t some = std::min<int64_t>(rows, 1024);
    next(some);
    rows -= some;
  }
}

}  // namespace vireo
