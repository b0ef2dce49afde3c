#include "vision/io/dicom/deidentify_pixels.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <dcmtk/dcmdata/dctk.h>

#include "vision/core/error.h"
#include "vision/io/dicom/compressed_comments.h"
#include "vision/io/dicom/dicom_dataset.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

// The group of an overlay that is drawn into unused bits of the pixels, 0 if there is none.
Uint16 embedded_overlay(DcmItem& item) {
  for (Uint16 group = 0x6000; group <= 0x601e; group += 2)
    if (dicom_integer(item, DcmTagKey(group, 0x0102), 0) != 0 ||
        dicom_integer(item, DcmTagKey(group, 0x0100), 1) > 1)
      return group;
  return 0;
}

// Which bits of a sample hold its value.
struct Sample {
  int bits_allocated = 0, bits_stored = 0, high_bit = 0;
  bool is_signed = false;

  int low_bit() const { return high_bit + 1 - bits_stored; }
  // Unused bits become 0; those above a signed number repeat its sign, as most writers have it.
  uint64_t cleared(uint64_t value) const {
    const uint64_t mask = (bits_stored == 64 ? 0 : uint64_t{1} << bits_stored) - 1;
    uint64_t number = value >> low_bit() & mask;
    if (is_signed && (number >> (bits_stored - 1) & 1) != 0) number |= ~mask;
    const uint64_t whole = (bits_allocated == 64 ? 0 : uint64_t{1} << bits_allocated) - 1;
    return number << low_bit() & whole;
  }
};

// Clears samples of one or more words of 8 or 16 bits; whether any changed in more than the bits
// by which a signed number may be extended.
template <class Word>
bool clear_samples(Word* words, size_t count, const Sample& sample, bool high_word_first) {
  constexpr int kWordBits = 8 * sizeof(Word);
  const auto width = static_cast<size_t>(sample.bits_allocated / kWordBits);
  bool told = false;
  for (size_t first = 0; first + width <= count; first += width) {
    const auto place = [&](size_t i) { return first + (high_word_first ? width - 1 - i : i); };
    uint64_t value = 0;
    for (size_t i = 0; i < width; ++i) value |= uint64_t{words[place(i)]} << (i * kWordBits);
    const uint64_t cleared = sample.cleared(value);
    if (cleared == value) continue;
    Sample as_unsigned = sample;
    as_unsigned.is_signed = false;
    told = told || as_unsigned.cleared(value) != value;
    for (size_t i = 0; i < width; ++i)
      words[place(i)] = static_cast<Word>(cleared >> (i * kWordBits));
  }
  return told;
}

// Returns what somebody has to look at.
template <class Word>
std::string clear_unused_bits(const fs::path& path, DcmDataset& item, Word* words, size_t count) {
  Sample sample;
  sample.bits_allocated = static_cast<int>(dicom_integer(item, DCM_BitsAllocated, 0));
  sample.bits_stored = static_cast<int>(dicom_integer(item, DCM_BitsStored, sample.bits_allocated));
  sample.high_bit = static_cast<int>(dicom_integer(item, DCM_HighBit, sample.bits_stored - 1));
  sample.is_signed = dicom_integer(item, DCM_PixelRepresentation, 0) == 1;
  if (sample.bits_stored == sample.bits_allocated) return "";
  const std::string stored = std::to_string(sample.bits_stored);
  const std::string high_bit = "HighBit is " + std::to_string(sample.high_bit);
  const bool has_overlay = embedded_overlay(item) != 0;
  // Whether the header's HighBit is true is not known; an overlay says that it is.
  if (!has_overlay && sample.low_bit() != 0)
    return high_bit + ", BitsStored " + stored +
           ": what the other bits hold was left: look at the picture";
  if (sample.low_bit() < 0 || sample.high_bit >= sample.bits_allocated)
    throw DataError(path,
                    "has an overlay in unused bits of its pixels, but " + high_bit +
                        ", BitsStored " + stored + " and BitsAllocated " +
                        std::to_string(sample.bits_allocated) +
                        ", so that nobody can tell which bits those are: mend the header");
  const bool high_word_first = sizeof(Word) == 2 && DcmXfer(item.getOriginalXfer()).isBigEndian();
  const bool told = clear_samples(words, count, sample, high_word_first);
  if (!told || has_overlay) return "";
  return "its pixels held something outside their " + stored +
         " bits (BitsStored), which was cleared: if the picture is not the same, mend BitsStored";
}

// Of native pixels, with what makes their number even.
uint64_t declared_bytes(DcmItem& item) {
  auto bits = static_cast<uint64_t>(dicom_integer(item, DCM_BitsAllocated, 0));
  for (const auto& [tag, otherwise] : {std::pair(DCM_Rows, 0),
                                       std::pair(DCM_Columns, 0),
                                       std::pair(DCM_SamplesPerPixel, 1),
                                       std::pair(DCM_NumberOfFrames, 1)})
    bits *= static_cast<uint64_t>(dicom_integer(item, tag, otherwise));
  // Of two neighbours' colours, one is stored.
  if (dicom_text(item, DCM_PhotometricInterpretation) == "YBR_FULL_422") bits = bits / 3 * 2;
  return (bits + 15) / 16 * 2;
}

// `put` gives the element its words anew.
template <class Word, class Put>
std::string clean_words(
    const fs::path& path, DcmDataset& item, Word* words, size_t count, const Put& put) {
  std::string warning = clear_unused_bits(path, item, words, count);
  const uint64_t bytes = declared_bytes(item);
  const size_t declared = bytes / sizeof(Word);
  if (count <= declared) return warning;
  if (std::any_of(words + declared, words + count, [](Word word) { return word != 0; }))
    warning += std::string(warning.empty() ? "" : "; ") + "its PixelData was longer than the " +
               std::to_string(bytes) +
               " bytes that Rows, Columns, frames and bits declare, and was cut: if frames are "
               "missing, mend the header";
  const std::vector<Word> kept(words, words + declared);
  if (put(kept.data(), kept.size()).bad())
    throw DataError(path, "its PixelData cannot be cut to the declared length");
  return warning;
}

std::string clean_native(const fs::path& path, DcmDataset& item, DcmElement& pixels) {
  const size_t found = pixels.getLengthField();
  Uint8* octets = nullptr;
  Uint16* words = nullptr;
  if (dicom_integer(item, DCM_BitsAllocated, 0) <= 8) {
    if (pixels.getUint8Array(octets).good() && octets != nullptr)
      return clean_words(path, item, octets, found, [&](const Uint8* kept, size_t count) {
        return pixels.putUint8Array(kept, count);
      });
  } else if (pixels.getUint16Array(words).good() && words != nullptr) {
    return clean_words(path, item, words, found / 2, [&](const Uint16* kept, size_t count) {
      return pixels.putUint16Array(kept, count);
    });
  }
  throw DataError(path,
                  "its pixels cannot be read: they are compressed in a way that is not known; "
                  "convert the file to a plain transfer syntax first");
}

std::string clean_compressed(const fs::path& path, DcmDataset& item, DcmElement& element) {
  const E_TransferSyntax syntax = item.getOriginalXfer();
  if (const Uint16 group = embedded_overlay(item);
      group != 0 &&
      dicom_integer(item, DCM_BitsAllocated, 0) > dicom_integer(item, DCM_BitsStored, 0)) {
    char tag[16];
    std::snprintf(tag, sizeof tag, "(%04x,0102)", group);
    throw DataError(path,
                    std::string("has an overlay in unused bits of its compressed pixels ") + tag +
                        ", which may show names and can only be cleared once they are "
                        "uncompressed: do so first (gdcmconv --raw, dcmdjpeg, dcmdrle)");
  }
  if (syntax == EXS_RLELossless) return "";
  auto* pixels = dynamic_cast<DcmPixelData*>(&element);
  DcmPixelSequence* sequence = nullptr;
  if (pixels == nullptr || pixels->getEncapsulatedRepresentation(syntax, nullptr, sequence).bad() ||
      sequence == nullptr)
    throw DataError(path, "holds no compressed frames, as its transfer syntax says it does");
  // A picture's fragments, which are edited together.
  std::vector<std::pair<Uint8*, size_t>> fragments;
  int64_t frames = 0;
  const auto finish = [&] {
    if (fragments.empty()) return;
    std::vector<uint8_t> picture;
    for (const auto& [bytes, count] : fragments)
      picture.insert(picture.end(), bytes, bytes + count);
    ++frames;
    try {
      blank_comments(picture);
    } catch (const DataError&) {
      throw;
    } catch (const Error& error) {
      throw DataError(path,
                      "what its compressed frame " + std::to_string(frames) +
                          " holds beside the picture cannot be found: " + error.what() +
                          "; uncompress the file first");
    }
    auto from = picture.begin();
    for (const auto& [bytes, count] : fragments) {
      std::copy(from, from + static_cast<long>(count), bytes);
      from += static_cast<long>(count);
    }
    fragments.clear();
  };
  // Item 0 is the table of offsets.
  for (unsigned long i = 1; i < sequence->card(); ++i) {
    DcmPixelItem* fragment = nullptr;
    Uint8* bytes = nullptr;
    if (sequence->getItem(fragment, i).bad() || fragment->getUint8Array(bytes).bad())
      throw DataError(path, "its compressed fragment " + std::to_string(i) + " is cut off");
    if (bytes == nullptr) continue;
    const size_t count = fragment->getLength();
    const bool starts = starts_compressed_picture(bytes, count);
    if (!starts && frames == 0 && fragments.empty())
      return std::string("its compressed pixels (") + DcmXfer(syntax).getXferName() +
             ") were copied as they are; what they may hold beside the picture was not looked for";
    if (starts) finish();
    fragments.emplace_back(bytes, count);
  }
  finish();
  return "";
}

}  // namespace

std::string clean_pixel_data(const fs::path& path, DcmDataset& item) {
  DcmElement* pixels = nullptr;
  if (item.findAndGetElement(DCM_PixelData, pixels).bad() || pixels == nullptr) return "";
  return DcmXfer(item.getOriginalXfer()).isEncapsulated() ? clean_compressed(path, item, *pixels)
                                                          : clean_native(path, item, *pixels);
}

}  // namespace vireo
