#include "vision/io/dicom/dicom_deflated.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <zlib.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

constexpr uint32_t kUndefinedLength = 0xFFFFFFFF;
constexpr uint16_t kItemGroup = 0xFFFE;

uint32_t little_endian(const unsigned char* bytes, int count) {
  uint32_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

// An element's head in Explicit VR Little Endian, PS3.5 section 7.1.2.
struct ElementHead {
  uint16_t group = 0, element = 0;
  std::string vr;  // empty for items and delimiters
  uint32_t length = 0;
};

// Whether a length of 4 bytes follows, behind two of nothing: of the representations that have it,
// and of those yet to come, which DCMTK takes two other capital letters for.
bool has_long_length(const std::string& vr) {
  static constexpr std::string_view kShort =
      "AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US";
  const auto is_capital = [](char c) { return c >= 'A' && c <= 'Z'; };
  return is_capital(vr[0]) && is_capital(vr[1]) && kShort.find(vr) == std::string_view::npos;
}

// The next head that `read(bytes, count)` gives; nothing when there is none, or none like this.
template <typename Read>
std::optional<ElementHead> next_head(Read read) {
  std::array<unsigned char, 8> bytes;
  if (!read(bytes.data(), 8)) return std::nullopt;
  ElementHead head;
  head.group = static_cast<uint16_t>(little_endian(&bytes[0], 2));
  head.element = static_cast<uint16_t>(little_endian(&bytes[2], 2));
  if (head.group == kItemGroup) {
    head.length = little_endian(&bytes[4], 4);
    return head;
  }
  head.vr.assign({static_cast<char>(bytes[4]), static_cast<char>(bytes[5])});
  head.length = little_endian(&bytes[6], 2);
  if (has_long_length(head.vr)) {
    if (!read(bytes.data(), 4)) return std::nullopt;
    head.length = little_endian(bytes.data(), 4);
  }
  return head;
}

// A raw deflate stream from where a file stands, without ever holding more than a window of it.
class InflatedStream {
 public:
  explicit InflatedStream(std::ifstream& file) : file_(file) {
    if (inflateInit2(&state_, -MAX_WBITS) != Z_OK) throw Error("zlib cannot start");
  }
  ~InflatedStream() { inflateEnd(&state_); }
  InflatedStream(const InflatedStream&) = delete;
  InflatedStream& operator=(const InflatedStream&) = delete;

  /// Up to `count` bytes, into `bytes` unless that is null; how many there were.
  size_t read(unsigned char* bytes, size_t count) {
    size_t done = 0;
    while (done < count && (at_ < held_ || refill())) {
      const size_t some = std::min(count - done, held_ - at_);
      if (bytes != nullptr) std::copy_n(&window_[at_], some, bytes + done);
      at_ += some;
      done += some;
    }
    return done;
  }

 private:
  bool refill() {
    at_ = held_ = 0;
    while (!ended_ && held_ == 0) {
      if (state_.avail_in == 0) {
        file_.read(reinterpret_cast<char*>(packed_.data()), packed_.size());
        state_.next_in = packed_.data();
        state_.avail_in = static_cast<uInt>(file_.gcount());
        if (state_.avail_in == 0) break;
      }
      state_.next_out = window_.data();
      state_.avail_out = static_cast<uInt>(window_.size());
      ended_ = inflate(&state_, Z_NO_FLUSH) != Z_OK;
      held_ = window_.size() - state_.avail_out;
    }
    return held_ > 0;
  }

  std::ifstream& file_;
  z_stream state_{};
  std::vector<unsigned char> packed_ = std::vector<unsigned char>(1 << 14);
  std::vector<unsigned char> window_ = std::vector<unsigned char>(1 << 16);
  size_t at_ = 0, held_ = 0;
  bool ended_ = false;
};

// Leaves `file` behind the file meta information. Whether its transfer syntax is a deflated one.
// As DCMTK has it, the meta information is as long as its first element says, whatever groups it
// holds, and to the end of the element that goes beyond; without that, as far as group 0002 goes.
bool is_deflated(std::ifstream& file) {
  std::streamoff start = 132, end = -1;
  file.seekg(start);
  bool deflated = false;
  for (; end < 0 || start < end; start = file.tellg()) {
    const auto head = next_head([&](unsigned char* bytes, size_t count) {
      return static_cast<bool>(
          file.read(reinterpret_cast<char*>(bytes), static_cast<std::streamsize>(count)));
    });
    if (!head || (end < 0 && head->group != 0x0002)) break;
    std::string value(std::min<size_t>(head->length, 64), '\0');
    file.read(value.data(), static_cast<std::streamsize>(value.size()));
    if (head->group == 0x0002 && head->element == 0x0000 && value.size() == 4)
      end = file.tellg() +
            std::streamoff{little_endian(reinterpret_cast<const unsigned char*>(value.data()), 4)};
    if (head->group == 0x0002 && head->element == 0x0010)
      deflated = value.starts_with("1.2.840.10008.1.2.1.99") ||
                 value.starts_with("1.2.840.10008.1.2.4.95");
    if (!file) break;
    file.seekg(static_cast<std::streamoff>(head->length - value.size()), std::ios::cur);
  }
  file.clear();
  file.seekg(start);
  return deflated;
}

}  // namespace

void check_deflated_lengths(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!is_deflated(file)) return;
  InflatedStream stream(file);
  bool in_fragments = false;  // of encapsulated pixels, which are no elements
  while (const auto head = next_head([&](unsigned char* bytes, size_t count) {
           return stream.read(bytes, count) == count;
         })) {
    if (head->group == kItemGroup) {
      if (head->element == 0xE0DD) in_fragments = false;
      if (!in_fragments) continue;  // an item's elements follow
    } else if (head->vr == "SQ") {
      continue;  // its items follow
    } else if (head->length == kUndefinedLength) {
      if (head->vr == "UN") return;  // Implicit VR from here on
      in_fragments = true;
      continue;
    }
    const size_t held = stream.read(nullptr, head->length);
    if (held == head->length) continue;
    char tag[16];
    std::snprintf(tag, sizeof tag, "(%04x,%04x)", head->group, head->element);
    throw DataError(path,
                    std::string("is cut off or broken: its element ") + tag + " declares " +
                        std::to_string(head->length) + " bytes, and " + std::to_string(held) +
                        " are left. Copy or export it again");
  }
}

}  // namespace vireo
