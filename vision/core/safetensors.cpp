#include "vision/core/safetensors.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <set>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxDimensions = 64;
constexpr uint64_t kMaxBytes = std::numeric_limits<int64_t>::max();
constexpr const char* kMetadataKey = "__metadata__";

struct ElementType {
  const char* name;
  at::ScalarType scalar;
  uint64_t bytes;
};

constexpr ElementType kElementTypes[] = {
    {"F64", at::kDouble, 8},
    {"F32", at::kFloat, 4},
    {"F16", at::kHalf, 2},
    {"BF16", at::kBFloat16, 2},
    {"I64", at::kLong, 8},
    {"I32", at::kInt, 4},
    {"I16", at::kShort, 2},
    {"I8", at::kChar, 1},
    {"U8", at::kByte, 1},
    {"BOOL", at::kBool, 1},
};

std::string known_types() {
  std::string text;
  for (const auto& type : kElementTypes) text += (text.empty() ? "" : " ") + std::string(type.name);
  return text;
}

/// Names in messages: a hostile header must not flood or garble the terminal.
std::string in_quotes(std::string_view name) {
  std::string text = "\"";
  for (const char c : name.substr(0, 120)) text += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return text + (name.size() > 120 ? "...\"" : "\"");
}

struct Entry {
  const ElementType* type = nullptr;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes, counted from the end of the header
};

struct Header {
  std::map<std::string, std::string> metadata;
  std::map<std::string, Entry> entries;
};

/// Follows the one structure that a header may have, and stops at the first thing that is not it.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const fs::path& path) : path_(path) {}

  Header take() { return std::move(header_); }

  bool start_object(size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kRoot;
    } else if (place_ == Place::kRoot && name_ == kMetadataKey) {
      place_ = Place::kMetadata;
      keys_.clear();
    } else if (place_ == Place::kRoot) {
      place_ = Place::kTensor;
      keys_.clear();
      shape_.reset();
      offsets_.reset();
      entry_ = {};
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool key(string_t& text) override {
    if (place_ == Place::kRoot) {
      if (!names_.insert(text).second) fail("holds the key " + in_quotes(text) + " twice");
      name_ = text;
    } else {
      if (!keys_.insert(text).second)
        fail(in_quotes(name_) + " holds the key " + in_quotes(text) + " twice");
      field_ = text;
      if (place_ == Place::kTensor && text != "dtype" && text != "shape" && text != "data_offsets")
        fail("tensor " + in_quotes(name_) + " has an unknown field " + in_quotes(text) +
             "; expected dtype, shape, data_offsets");
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) finish_tensor();
    place_ = place_ == Place::kRoot ? Place::kEnd : Place::kRoot;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::kTensor || field_ == "dtype") unexpected("a list");
    place_ = Place::kNumbers;
    (field_ == "shape" ? shape_ : offsets_).emplace();
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kNumbers) unexpected("a number");
    auto& numbers = *(field_ == "shape" ? shape_ : offsets_);
    if (numbers.size() == (field_ == "shape" ? kMaxDimensions : 2))
      fail("tensor " + in_quotes(name_) + ": " + field_ + " has more than " +
           std::to_string(numbers.size()) + " numbers");
    numbers.push_back(value);
    return true;
  }

  bool string(string_t& text) override {
    if (place_ == Place::kMetadata) {
      header_.metadata[field_] = text;
    } else if (place_ == Place::kTensor && field_ == "dtype") {
      for (const auto& type : kElementTypes)
        if (text == type.name) entry_.type = &type;
      if (!entry_.type)
        fail("tensor " + in_quotes(name_) + " has the element type " + in_quotes(text) +
             ", which is not one of " + known_types());
    } else {
      unexpected("a text");
    }
    return true;
  }

  bool number_integer(number_integer_t) override { unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t& text) override {
    unexpected("the number " + text.substr(0, 40));
  }
  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool binary(binary_t&) override { unexpected("binary data"); }
  bool parse_error(size_t position,
                   const std::string&,
                   const nlohmann::detail::exception& error) override {
    std::string reason = error.what();
    if (const size_t colon = reason.find("; last read"); colon != std::string::npos)
      reason.resize(colon);
    fail("is not valid JSON at byte " + std::to_string(position) + ": " + reason);
  }

 private:
  enum class Place { kStart, kRoot, kMetadata, kTensor, kNumbers, kEnd };

  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(path_, "the safetensors header " + what);
  }

  [[noreturn]] void unexpected(const std::string& found) const {
    if (place_ == Place::kStart) fail("is " + found + "; an object was expected");
    if (name_ == kMetadataKey)
      fail(std::string("has ") + found + " in " + kMetadataKey +
           ", which must map texts to texts only");
    if (place_ == Place::kRoot)
      fail("has " + found + " for " + in_quotes(name_) + "; a tensor's description was expected");
    fail("has " + found + " in " + field_ + " of tensor " + in_quotes(name_) +
         "; expected dtype as a text, shape and data_offsets as lists of whole numbers");
  }

  void finish_tensor() {
    for (const char* field : {"dtype", "shape", "data_offsets"})
      if (!keys_.contains(field)) fail("tensor " + in_quotes(name_) + " has no " + field);
    if (offsets_->size() != 2)
      fail("tensor " + in_quotes(name_) + ": data_offsets must be two numbers, found " +
           std::to_string(offsets_->size()));
    entry_.begin = (*offsets_)[0];
    entry_.end = (*offsets_)[1];
    if (entry_.begin > entry_.end)
      fail("tensor " + in_quotes(name_) + " ends at byte " + std::to_string(entry_.end) +
           ", before it begins at " + std::to_string(entry_.begin));

    // Zeros count as ones here: strides must not overflow either.
    uint64_t limit = kMaxBytes / entry_.type->bytes;
    uint64_t bytes = entry_.type->bytes;
    for (const uint64_t extent : *shape_) {
      if (extent > limit) fail("tensor " + in_quotes(name_) + " has a shape whose size overflows");
      limit /= std::max<uint64_t>(extent, 1);
      bytes *= extent;
      entry_.shape.push_back(static_cast<int64_t>(extent));
    }
    if (bytes != entry_.end - entry_.begin)
      fail("tensor " + in_quotes(name_) + ": " + entry_.type->name + " of its shape takes " +
           std::to_string(bytes) + " bytes, but data_offsets give it " +
           std::to_string(entry_.end - entry_.begin));
    header_.entries.emplace(name_, std::move(entry_));
  }

  const fs::path& path_;
  Header header_;
  Place place_ = Place::kStart;
  std::string name_, field_;            // the key at hand in the root, and below it
  std::set<std::string> names_, keys_;  // those seen already
  Entry entry_;                         // the tensor at hand
  std::optional<std::vector<uint64_t>> shape_, offsets_;
};

/// Every byte after the header belongs to exactly one tensor.
void check_coverage(const fs::path& path, const Header& header, uint64_t data_bytes) {
  std::vector<std::pair<const std::string*, const Entry*>> by_offset;
  for (const auto& [name, entry] : header.entries) by_offset.emplace_back(&name, &entry);
  std::stable_sort(by_offset.begin(), by_offset.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  uint64_t covered = 0;
  for (const auto& [name, entry] : by_offset) {
    const std::string begins =
        "tensor " + in_quotes(*name) + " begins at byte " + std::to_string(entry->begin);
    if (entry->begin < covered)
      throw DataError(path,
                      begins + " of the data, inside its predecessor, which ends at " +
                          std::to_string(covered) + "; tensors must not overlap");
    if (entry->begin > covered)
      throw DataError(path,
                      begins + " of the data, but the one before ends at " +
                          std::to_string(covered) + "; holes are not allowed");
    covered = entry->end;
    if (covered > data_bytes)
      throw DataError(path,
                      "is truncated: tensor " + in_quotes(*name) + " ends at byte " +
                          std::to_string(covered) + " of the data, of which the file holds " +
                          std::to_string(data_bytes));
  }
  if (covered < data_bytes)
    throw DataError(path,
                    "has " + std::to_string(data_bytes - covered) +
                        " bytes after its last tensor that belong to none");
}

/// A whole file, mapped read-only.
class Map {
 public:
  explicit Map(const fs::path& path) {
    std::error_code failed;
    const auto status = fs::status(path, failed);
    if (!fs::exists(status)) throw DataError(path, "does not exist");
    if (!fs::is_regular_file(status))
      throw DataError(path, "is not a file; a safetensors file was expected");
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) throw DataError(path, std::string("cannot be opened: ") + std::strerror(errno));
    struct stat info {};
    const bool measured = ::fstat(file, &info) == 0;
    size_ = measured ? static_cast<uint64_t>(info.st_size) : 0;
    if (size_ > 0) data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    const std::string reason = std::strerror(errno);
    ::close(file);
    if (!measured || data_ == MAP_FAILED)
      throw DataError(path, "cannot be mapped into memory: " + reason);
  }
  ~Map() {
    if (data_) ::munmap(data_, size_);
  }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;

  char* data() const { return static_cast<char*>(data_); }
  uint64_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  uint64_t size_ = 0;
};

/// The header's bytes, once its length has been held against the file's.
std::string_view header_text(const fs::path& path, const Map& map) {
  if (map.size() < kLengthBytes)
    throw DataError(path,
                    "is too short for a safetensors file: " + std::to_string(map.size()) +
                        " bytes; its first 8 give the header's length");
  uint64_t length = 0;
  std::memcpy(&length, map.data(), sizeof length);
  if (length > kMaxHeaderBytes)
    throw DataError(path,
                    "claims a header of " + std::to_string(length) +
                        " bytes; safetensors allows at most " + std::to_string(kMaxHeaderBytes) +
                        ". Is it a safetensors file?");
  if (length > map.size() - kLengthBytes)
    throw DataError(path,
                    "is truncated: its header should have " + std::to_string(length) +
                        " bytes, but only " + std::to_string(map.size() - kLengthBytes) +
                        " follow");
  const std::string_view text(map.data() + kLengthBytes, length);
  if (!text.starts_with('{'))
    throw DataError(path, "has a safetensors header that does not start with '{'");
  // JSON has no raw NUL, but the parser would take one for the end of the text.
  if (text.find('\0') != std::string_view::npos)
    throw DataError(path, "has a safetensors header that is not valid JSON: it holds a zero byte");
  return text;
}

}  // namespace

struct SafetensorsFile::Content {
  explicit Content(const fs::path& file) : path(file), map(file) {}
  fs::path path;
  Map map;
  Header header;
  char* data = nullptr;  // the first byte after the header
};

SafetensorsFile::SafetensorsFile(std::shared_ptr<const Content> content)
    : content_(std::move(content)) {}

SafetensorsFile SafetensorsFile::open(const fs::path& path) {
  auto content = std::make_shared<Content>(path);
  const std::string_view text = header_text(path, content->map);
  HeaderReader reader(path);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  content->header = reader.take();
  const uint64_t data_at = kLengthBytes + text.size();
  check_coverage(path, content->header, content->map.size() - data_at);
  content->data = content->map.data() + data_at;
  return SafetensorsFile(std::move(content));
}

const fs::path& SafetensorsFile::path() const {
  return content_->path;
}

const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return content_->header.metadata;
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : content_->header.entries) names.push_back(name);
  return names;
}

bool SafetensorsFile::contains(const std::string& name) const {
  return content_->header.entries.contains(name);
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto found = content_->header.entries.find(name);
  if (found == content_->header.entries.end())
    throw DataError(path(), "holds no tensor " + in_quotes(name));
  const Entry& entry = found->second;
  const auto options = at::TensorOptions().dtype(entry.type->scalar);
  char* data = content_->data + entry.begin;
  // Any other byte in the place of a truth value is undefined behaviour later on.
  if (entry.type->scalar == at::kBool &&
      !std::all_of(data, content_->data + entry.end, [](char c) { return c == 0 || c == 1; }))
    throw DataError(path(), "tensor " + in_quotes(name) + " holds truth values other than 0 and 1");
  if (entry.begin != entry.end && reinterpret_cast<uintptr_t>(data) % entry.type->bytes == 0)
    return at::from_blob(
        data, entry.shape, [keep = content_](void*) {}, options);
  at::Tensor copy = at::empty(entry.shape, options);
  if (copy.numel() > 0) std::memcpy(copy.data_ptr(), data, entry.end - entry.begin);
  return copy;
}

std::map<std::string, at::Tensor> SafetensorsFile::tensors() const {
  std::map<std::string, at::Tensor> all;
  for (const auto& [name, entry] : content_->header.entries) all.emplace(name, tensor(name));
  return all;
}

void write_safetensors(const fs::path& path,
                       const std::map<std::string, at::Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  struct Item {
    const std::string* name;
    const at::Tensor* tensor;
    const ElementType* type;
  };
  std::vector<Item> items;
  for (const auto& [name, tensor] : tensors) {
    if (name == kMetadataKey)
      throw DataError(path, "a tensor cannot be named " + name + " in a safetensors file");
    if (!tensor.defined() || tensor.layout() != at::kStrided)
      throw DataError(path, "tensor " + in_quotes(name) + " is undefined or sparse");
    const auto* type =
        std::find_if(std::begin(kElementTypes),
                     std::end(kElementTypes),
                     [scalar = tensor.scalar_type()](const auto& t) { return t.scalar == scalar; });
    if (type == std::end(kElementTypes))
      throw DataError(path,
                      "tensor " + in_quotes(name) + " has the element type " +
                          at::toString(tensor.scalar_type()) + "; safetensors files hold " +
                          known_types());
    items.push_back({&name, &tensor, type});
  }
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return a.type->bytes > b.type->bytes;
  });

  auto header = nlohmann::json::object();
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  uint64_t offset = 0;
  for (const auto& item : items) {
    const uint64_t bytes = static_cast<uint64_t>(item.tensor->numel()) * item.type->bytes;
    header[*item.name] = {{"dtype", item.type->name},
                          {"shape", item.tensor->sizes().vec()},
                          {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    throw DataError(path, "a tensor's name or the metadata is not valid UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxHeaderBytes)
    throw DataError(path,
                    "would need a header of " + std::to_string(text.size()) +
                        " bytes; safetensors allows at most " + std::to_string(kMaxHeaderBytes));

  write_file_atomically(path, [&](const fs::path& temporary) {
    std::ofstream out(temporary, std::ios::binary);
    const uint64_t length = text.size();
    out.write(reinterpret_cast<const char*>(&length), sizeof length);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    for (const auto& item : items) {
      const at::Tensor data = item.tensor->detach().cpu().contiguous();
      out.write(static_cast<const char*>(data.const_data_ptr()),
                static_cast<std::streamsize>(data.numel() * item.type->bytes));
    }
    out.close();
    if (!out) throw DataError(path, std::string("cannot be written: ") + std::strerror(errno));
  });
}

}  // namespace vireo
