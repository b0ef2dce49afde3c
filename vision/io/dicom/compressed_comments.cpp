#include "vision/io/dicom/compressed_comments.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "vision/core/error.h"

namespace vireo {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr std::string_view kJp2Signature("\0\0\0\x0cjP  ", 8);

bool holds(const Bytes& bytes, size_t at, std::string_view text) {
  return at + text.size() <= bytes.size() &&
         std::equal(text.begin(),
                    text.end(),
                    bytes.begin() + static_cast<long>(at),
                    [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; });
}

uint64_t number_at(const Bytes& bytes, size_t at, size_t width) {
  if (at + width > bytes.size()) throw Error("it is cut off at byte " + std::to_string(at));
  uint64_t number = 0;
  for (size_t i = 0; i < width; ++i) number = number << 8 | bytes[at + i];
  return number;
}

void blank(Bytes& bytes, size_t begin, size_t end) {
  if (begin < end)
    std::fill(bytes.begin() + static_cast<long>(begin), bytes.begin() + static_cast<long>(end), 0);
}

// How much of an application segment decoders need: JFIF's and Adobe's words on colours without
// the thumbnail, and the colour transform of JPEG-LS as HP's encoder writes it.
size_t needed_of_application_data(const Bytes& bytes, int marker, size_t at) {
  if (marker == 0xe0 && holds(bytes, at, std::string_view("JFIF\0", 5))) return 14;
  if (marker == 0xee && holds(bytes, at, "Adobe")) return 12;
  if (marker == 0xe8 && holds(bytes, at, "mrfx")) return 5;
  return 0;
}

// ITU-T T.81 annex B; JPEG-LS (T.87) differs in how scans escape 0xff: both mark what is no marker
// by a small number behind it.
void blank_jpeg(Bytes& bytes) {
  bool has_scan = false;
  size_t at = 2;
  for (;;) {
    while (at < bytes.size() && bytes[at] != 0xff) bytes[at++] = 0;  // decoders skip it, too
    while (at < bytes.size() && bytes[at] == 0xff) ++at;
    if (at >= bytes.size()) {
      if (has_scan) return;
      throw Error("it ends before its first scan");
    }
    const int marker = bytes[at++];
    if (marker == 0xd9) return blank(bytes, at, bytes.size());
    if (marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8)) continue;
    const size_t length = number_at(bytes, at, 2);
    if (length < 2 || at + length > bytes.size())
      throw Error("its segment at byte " + std::to_string(at) + " is longer than the picture");
    const size_t end = at + length;
    if ((marker >= 0xe0 && marker <= 0xef) || marker == 0xfe)
      blank(bytes, at + 2 + needed_of_application_data(bytes, marker, at + 2), end);
    at = end;
    if (marker != 0xda) continue;
    has_scan = true;
    const auto is_marker = [&](size_t i) {
      const int next = bytes[i + 1];
      return bytes[i] == 0xff && next >= 0x80 && next != 0xff && !(next >= 0xd0 && next <= 0xd7);
    };
    while (at + 1 < bytes.size() && !is_marker(at)) ++at;
    if (at + 1 >= bytes.size()) return;  // without an end
  }
}

// ITU-T T.800 annex A; from `at`, where SOC is, to `end`.
void blank_codestream(Bytes& bytes, size_t at, size_t end) {
  size_t tile_end = end;
  at += 2;
  while (at + 2 <= end) {
    const uint64_t marker = number_at(bytes, at, 2);
    if (marker == 0xffd9) return blank(bytes, at + 2, end);
    if (marker < 0xff01)
      throw Error("it has no marker at byte " + std::to_string(at) + ", where one was expected");
    if (marker == 0xff93) {  // the tile's data
      if (tile_end < at + 2)
        throw Error("its tile at byte " + std::to_string(at) + " has no length");
      at = tile_end;
      continue;
    }
    if (marker >= 0xff30 && marker <= 0xff3f) {
      at += 2;
      continue;
    }
    const size_t length = number_at(bytes, at + 2, 2);
    if (length < 2 || at + 2 + length > end)
      throw Error("its segment at byte " + std::to_string(at) + " is longer than the picture");
    if (marker == 0xff64) blank(bytes, at + 4, at + 2 + length);
    if (marker == 0xff90) {
      const uint64_t tile_bytes = number_at(bytes, at + 6, 4);
      tile_end = tile_bytes == 0 ? end : std::min<uint64_t>(end, at + tile_bytes);
    }
    at += 2 + length;
  }
}

// ITU-T T.800 annex I.
void blank_boxes(Bytes& bytes) {
  size_t at = 0;
  while (at + 8 <= bytes.size()) {
    uint64_t length = number_at(bytes, at, 4);
    size_t header = 8;
    if (length == 1) {
      length = number_at(bytes, at + 8, 8);
      header = 16;
    }
    if (length == 0) length = bytes.size() - at;
    if (length < header || length > bytes.size() - at)
      throw Error("its box at byte " + std::to_string(at) + " is longer than the picture");
    const size_t end = at + length;
    if (holds(bytes, at + 4, "jp2c")) {
      blank_codestream(bytes, at + header, end);
      return blank(bytes, end, bytes.size());
    }
    if (!holds(bytes, at + 4, "jP  ") && !holds(bytes, at + 4, "ftyp") &&
        !holds(bytes, at + 4, "jp2h"))
      blank(bytes, at + header, end);
    at = end;
  }
  throw Error("it holds no codestream");
}

}  // namespace

bool starts_compressed_picture(const uint8_t* bytes, size_t count) {
  return count >= 4 &&
         ((bytes[0] == 0xff && (bytes[1] == 0xd8 || bytes[1] == 0x4f) && bytes[2] == 0xff) ||
          (count >= 8 &&
           std::string_view(reinterpret_cast<const char*>(bytes), 8) == kJp2Signature));
}

void blank_comments(std::vector<uint8_t>& picture) {
  if (!starts_compressed_picture(picture.data(), picture.size()))
    throw Error("it does not start as JPEG, JPEG-LS or JPEG 2000 does");
  if (picture[0] == 0)
    blank_boxes(picture);
  else if (picture[1] == 0x4f)
    blank_codestream(picture, 0, picture.size());
  else
    blank_jpeg(picture);
}

}  // namespace vireo
