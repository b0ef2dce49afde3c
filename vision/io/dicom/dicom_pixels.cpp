#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <ATen/Functions.h>
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <dcmtk/dcmdata/dcrledrg.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmjpeg/djdecode.h>
#include <dcmtk/dcmjpls/djdecode.h>

#include "vision/core/error.h"
#include "vision/io/dicom/dicom_dataset.h"
#include "vision/io/dicom/dicom_file.h"
#include "vision/io/dicom/jpeg2000.h"

namespace vireo {
namespace dicom_pixels {

// Pixels as a file stores them: one sample after the other, samples of a pixel side by side.
struct RawPixels {
  std::vector<char> bytes;
  int bits_allocated = 0, bits_stored = 0;
  int samples = 1;
  bool is_signed = false, is_float = false;
  bool is_ybr = false;
  int bits_below = 0;  ///< of a sample, beneath those stored
};

struct LookupTable {
  double first = 0;
  std::vector<float> values;

  at::Tensor applied(const at::Tensor& indices) const {
    const at::Tensor table = at::from_blob(
        const_cast<float*>(values.data()), {static_cast<int64_t>(values.size())}, at::kFloat);
    const at::Tensor at =
        (indices - first).clamp(0, static_cast<double>(values.size() - 1)).to(at::kLong);
    return table.index_select(0, at.flatten()).view(indices.sizes());
  }
};

}  // namespace dicom_pixels

using dicom_pixels::LookupTable;
using dicom_pixels::RawPixels;

struct DicomPixels::Stored {
  DicomFile file;
  RawPixels raw;
  std::vector<LookupTable> tables;  // three of a palette, one of a modality lookup table, or none
};

namespace {

[[noreturn]] void refuse_pixels(const DicomFile& file, const std::string& why) {
  throw DataError(file.path, "its pixels cannot be read: " + why);
}

int64_t sample_count(const DicomFile& file, int samples) {
  return file.rows * file.columns * static_cast<int64_t>(file.frames.size()) * samples;
}

// Two neighbouring pixels are stored as Y, Y, B, R.
std::vector<char> with_own_colors(const std::vector<char>& pairs) {
  std::vector<char> pixels;
  pixels.reserve(pairs.size() / 2 * 3);
  for (size_t i = 0; i + 3 < pairs.size(); i += 4)
    for (const size_t y : {i, i + 1})
      pixels.insert(pixels.end(), {pairs[y], pairs[i + 2], pairs[i + 3]});
  return pixels;
}

// Where the stored bits end higher than they need to (HighBit), those below are none of the value.
// JPEG's decoders put the value at the bottom by themselves.
void place_stored_bits(const DicomFile& file, int high_bit, RawPixels& raw) {
  const DcmXfer syntax(file.transfer_syntax_uid.c_str());
  const int below = high_bit + 1 - raw.bits_stored;
  if (raw.is_float || below <= 0 || high_bit >= raw.bits_allocated || raw.bits_allocated > 32 ||
      (syntax.isEncapsulated() && syntax.getXfer() != EXS_RLELossless))
    return;
  const auto width = static_cast<size_t>(raw.bits_allocated / 8);
  const uint32_t mask = (uint32_t{1} << below) - 1;
  for (size_t i = 0; i + width <= raw.bytes.size(); i += width) {
    uint32_t sample = 0;
    std::memcpy(&sample, &raw.bytes[i], width);
    if ((sample & mask) != 0)
      refuse_pixels(file,
                    "BitsAllocated is " + std::to_string(raw.bits_allocated) + ", BitsStored " +
                        std::to_string(raw.bits_stored) + " and HighBit " +
                        std::to_string(high_bit) + ", but the " + std::to_string(below) +
                        " bits below these are used too, so where the values lie is not told. "
                        "Correct HighBit, or clear those bits");
  }
  raw.bits_below = below;
}

// What DCMTK holds uncompressed, in this machine's byte order. Attributes are read anew: unpacking
// may have changed them.
RawPixels unpacked_pixels(const DicomFile& file, DcmItem& item) {
  const auto number = [&](const DcmTagKey& tag, int otherwise) {
    return static_cast<int>(dicom_integer(item, tag, otherwise));
  };
  RawPixels raw;
  raw.bits_allocated = number(DCM_BitsAllocated, file.bits_allocated);
  raw.bits_stored = number(DCM_BitsStored, file.bits_stored);
  raw.samples = number(DCM_SamplesPerPixel, file.samples);
  raw.is_signed = number(DCM_PixelRepresentation, 0) == 1;
  if (raw.samples != file.samples || raw.bits_stored < 1 || raw.bits_stored > raw.bits_allocated)
    refuse_pixels(file, "once unpacked they have other samples or bits than the header declares");
  const std::string photometric = dicom_text(item, DCM_PhotometricInterpretation);
  if (photometric == "YBR_PARTIAL_422")
    refuse_pixels(file, "colours stored as YBR_PARTIAL_422 are not understood; store RGB");
  const bool halved = photometric == "YBR_FULL_422" && raw.bits_allocated == 8;
  if (halved && (raw.samples != 3 || file.columns % 2 != 0))
    refuse_pixels(file, "colours shared by two pixels (YBR_FULL_422) need 3 samples and even rows");
  raw.is_ybr = (halved || photometric == "YBR_FULL") && raw.samples == 3;
  const int64_t samples_stored = sample_count(file, halved ? 2 : raw.samples);
  const auto bytes = static_cast<size_t>((samples_stored * raw.bits_allocated + 7) / 8);
  const auto take = [&](const void* data, size_t found) {
    if (data == nullptr || found < bytes)
      refuse_pixels(
          file,
          std::to_string(found) + " bytes were found, " + std::to_string(bytes) + " expected");
    const char* first = static_cast<const char*>(data);
    raw.bytes.assign(first, first + bytes);
  };
  const auto require_bits = [&](int bits) {
    if (raw.bits_allocated != bits)
      refuse_pixels(file,
                    "floating point of " + std::to_string(bits) + " bits, but BitsAllocated is " +
                        std::to_string(raw.bits_allocated));
  };
  unsigned long count = 0;
  const Float32* floats = nullptr;
  const Float64* doubles = nullptr;
  const Uint16* words = nullptr;
  const Uint8* octets = nullptr;
  if (item.findAndGetFloat32Array(DCM_FloatPixelData, floats, &count).good()) {
    raw.is_float = true;
    require_bits(32);
    take(floats, count * 4);
  } else if (item.findAndGetFloat64Array(DCM_DoubleFloatPixelData, doubles, &count).good()) {
    raw.is_float = true;
    require_bits(64);
    take(doubles, count * 8);
  } else if (raw.bits_allocated <= 8 &&
             item.findAndGetUint8Array(DCM_PixelData, octets, &count).good() && octets != nullptr) {
    take(octets, count);
  } else if (item.findAndGetUint16Array(DCM_PixelData, words, &count).good() && words != nullptr) {
    take(words, count * 2);
    // Words are in this machine's order; those of a larger sample still in the file's.
    if (raw.bits_allocated > 16 && DcmXfer(file.transfer_syntax_uid.c_str()).isBigEndian()) {
      const auto width = static_cast<size_t>(raw.bits_allocated / 16);
      auto* at = reinterpret_cast<Uint16*>(raw.bytes.data());
      for (size_t i = 0; i + width <= raw.bytes.size() / 2; i += width)
        std::reverse(at + i, at + i + width);
    }
  } else {
    refuse_pixels(file, "the PixelData element is empty or cut off");
  }
  place_stored_bits(file, number(DCM_HighBit, raw.bits_stored - 1), raw);
  if (halved) {
    raw.bytes = with_own_colors(raw.bytes);
    return raw;
  }
  // Planes to pixels.
  if (number(DCM_PlanarConfiguration, 0) == 1 && raw.samples > 1) {
    if (raw.bits_allocated < 8) refuse_pixels(file, "colours of single bits");
    const auto width = static_cast<size_t>(raw.bits_allocated / 8);
    const auto pixels = static_cast<size_t>(file.rows * file.columns);
    const auto samples = static_cast<size_t>(raw.samples);
    std::vector<char> turned(raw.bytes.size());
    for (size_t f = 0; f < file.frames.size(); ++f)
      for (size_t s = 0; s < samples; ++s)
        for (size_t i = 0; i < pixels; ++i)
          std::memcpy(&turned[((f * pixels + i) * samples + s) * width],
                      &raw.bytes[((f * samples + s) * pixels + i) * width],
                      width);
    raw.bytes = std::move(turned);
  }
  return raw;
}

// The compressed frames of a file, each its fragments put together.
std::vector<std::vector<uint8_t>> compressed_frames(const DicomFile& file, DcmItem& item) {
  DcmElement* element = nullptr;
  DcmPixelSequence* sequence = nullptr;
  item.findAndGetElement(DCM_PixelData, element);
  auto* pixels = dynamic_cast<DcmPixelData*>(element);
  const E_TransferSyntax syntax = DcmXfer(file.transfer_syntax_uid.c_str()).getXfer();
  if (pixels == nullptr || pixels->getEncapsulatedRepresentation(syntax, nullptr, sequence).bad() ||
      sequence == nullptr)
    refuse_pixels(file, "no compressed frames were found");
  std::vector<std::vector<uint8_t>> frames;
  // Item 0 is the table of offsets. A fragment that starts a codestream starts a frame.
  for (unsigned long i = 1; i < sequence->card(); ++i) {
    DcmPixelItem* fragment = nullptr;
    Uint8* bytes = nullptr;
    if (sequence->getItem(fragment, i).bad() || fragment->getUint8Array(bytes).bad() ||
        bytes == nullptr)
      refuse_pixels(file, "fragment " + std::to_string(i) + " is cut off");
    const Uint32 length = fragment->getLength();
    const bool starts = length >= 4 && ((bytes[0] == 0xff && bytes[1] == 0x4f) ||
                                        (bytes[0] == 0 && bytes[3] == 12));
    if (starts || frames.empty()) frames.emplace_back();
    frames.back().insert(frames.back().end(), bytes, bytes + length);
  }
  if (frames.size() != file.frames.size())
    refuse_pixels(file,
                  std::to_string(frames.size()) + " compressed frame(s) were found, " +
                      std::to_string(file.frames.size()) + " expected");
  return frames;
}

RawPixels jpeg2000_pixels(const DicomFile& file, DcmItem& item) {
  if (file.bits_allocated > 32)
    refuse_pixels(file, "JPEG 2000 of more than 32 bits per sample is not read");
  RawPixels raw{{}, std::max(8, file.bits_allocated), 0, file.samples, file.is_signed};
  for (const auto& bytes : compressed_frames(file, item)) {
    const io::Jpeg2000Image image = [&] {
      try {
        return io::decode_jpeg2000(bytes.data(), bytes.size(), file.rows, file.columns);
      } catch (const Error& error) {
        refuse_pixels(file, error.what());
      }
    }();
    if (image.components != file.samples || image.bits < 1 || image.bits > raw.bits_allocated)
      refuse_pixels(file,
                    "its JPEG 2000 image has " + std::to_string(image.components) +
                        " component(s) of " + std::to_string(image.bits) +
                        " bits, the header declares " + std::to_string(file.samples) + " of " +
                        std::to_string(file.bits_allocated));
    raw.bits_stored = image.bits;
    const auto width = static_cast<size_t>(raw.bits_allocated / 8);
    const size_t start = raw.bytes.size();
    raw.bytes.resize(start + image.samples.size() * width);
    for (size_t i = 0; i < image.samples.size(); ++i)  // little-endian: the low bytes first
      std::memcpy(&raw.bytes[start + i * width], &image.samples[i], width);
  }
  raw.is_ybr = file.photometric.starts_with("YBR_FULL") && file.samples == 3;
  return raw;
}

void register_decoders() {
  static const bool once = [] {
    DcmRLEDecoderRegistration::registerCodecs();
    DJDecoderRegistration::registerCodecs();
    DJLSDecoderRegistration::registerCodecs();
    return true;
  }();
  static_cast<void>(once);
}

RawPixels raw_pixels(const DicomFile& file, DcmDataset& item) {
  const DcmXfer syntax(file.transfer_syntax_uid.c_str());
  if (syntax.getXfer() == EXS_Unknown)
    refuse_pixels(file, "the transfer syntax " + file.transfer_syntax_uid + " is not known");
  if (!syntax.isEncapsulated()) return unpacked_pixels(file, item);
  const E_TransferSyntax kind = syntax.getXfer();
  if (kind == EXS_JPEG2000 || kind == EXS_JPEG2000LosslessOnly) return jpeg2000_pixels(file, item);
  register_decoders();
  const OFCondition status = item.chooseRepresentation(EXS_LittleEndianExplicit, nullptr);
  if (status.bad() || !item.canWriteXfer(EXS_LittleEndianExplicit))
    refuse_pixels(file,
                  std::string("they are broken, or compressed in a way that is not known: ") +
                      syntax.getXferName() + " (" + status.text() + ")");
  return unpacked_pixels(file, item);
}

// Samples [first, first + count).
template <class T>
at::Tensor samples_as_float(const RawPixels& raw, int64_t first, int64_t count) {
  at::Tensor values = at::empty({count}, at::kFloat);
  float* to = values.mutable_data_ptr<float>();
  const T* from = reinterpret_cast<const T*>(raw.bytes.data()) + first;
  if constexpr (std::is_floating_point_v<T>) {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
  } else {
    // Bits above those stored belong to nobody (or to old overlays).
    const int spare = static_cast<int>(sizeof(T)) * 8 - raw.bits_stored;
    const int above = spare - raw.bits_below;
    using Unsigned = std::make_unsigned_t<T>;
    for (int64_t i = 0; i < count; ++i)
      to[i] = static_cast<float>(
          static_cast<T>(static_cast<T>(static_cast<Unsigned>(from[i]) << above) >> spare));
  }
  return values;
}

at::Tensor bits_as_float(const RawPixels& raw, int64_t first, int64_t count) {
  at::Tensor values = at::empty({count}, at::kFloat);
  float* to = values.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t bit = first + i;
    const auto byte = static_cast<unsigned char>(raw.bytes[static_cast<size_t>(bit / 8)]);
    to[i] = static_cast<float>(byte >> (bit % 8) & 1);
  }
  return values;
}

at::Tensor as_float(const DicomFile& file, const RawPixels& raw, int64_t first, int64_t count) {
  if (raw.is_float)
    return raw.bits_allocated == 64 ? samples_as_float<double>(raw, first, count)
                                    : samples_as_float<float>(raw, first, count);
  switch (raw.bits_allocated) {
    case 1:
      return bits_as_float(raw, first, count);
    case 8:
      return raw.is_signed ? samples_as_float<int8_t>(raw, first, count)
                           : samples_as_float<uint8_t>(raw, first, count);
    case 16:
      return raw.is_signed ? samples_as_float<int16_t>(raw, first, count)
                           : samples_as_float<uint16_t>(raw, first, count);
    case 32:
      return raw.is_signed ? samples_as_float<int32_t>(raw, first, count)
                           : samples_as_float<uint32_t>(raw, first, count);
    default:
      refuse_pixels(file, std::to_string(raw.bits_allocated) + " bits per sample");
  }
}

// A table from its descriptor (count, first index, bits) and data; `is_signed`: how pixels, and so
// the first index, are stored.
LookupTable lookup_table(const DicomFile& file,
                         DcmItem& item,
                         const DcmTagKey& descriptor_tag,
                         const DcmTagKey& data_tag,
                         bool is_signed) {
  const std::vector<double> descriptor = dicom_numbers(item, descriptor_tag);
  if (descriptor.size() != 3)
    refuse_pixels(file, "a lookup table's descriptor is missing or has not 3 values");
  for (const double value : descriptor)
    if (value != std::floor(value) || std::abs(value) > 65536)
      refuse_pixels(file, "a lookup table's descriptor does not hold whole numbers of 16 bits");
  const auto count = static_cast<size_t>(descriptor[0] == 0 ? 65536 : std::abs(descriptor[0]));
  LookupTable table;
  table.first =
      is_signed ? static_cast<int16_t>(static_cast<int32_t>(descriptor[1])) : descriptor[1];
  unsigned long found = 0;
  const Uint16* words = nullptr;
  const Uint8* octets = nullptr;
  if (item.findAndGetUint16Array(data_tag, words, &found).good() && words != nullptr) {
    if (found >= count) {
      for (size_t i = 0; i < count; ++i) table.values.push_back(words[i]);
    } else if (found * 2 >= count) {  // two 8-bit entries in a word
      for (size_t i = 0; i < count; ++i)
        table.values.push_back(static_cast<float>(words[i / 2] >> (i % 2 * 8) & 0xff));
    }
  } else if (item.findAndGetUint8Array(data_tag, octets, &found).good() && octets != nullptr) {
    for (size_t i = 0; i < std::min<size_t>(count, found); ++i) table.values.push_back(octets[i]);
  }
  if (table.values.size() != count)
    refuse_pixels(file,
                  "a lookup table declares " + std::to_string(count) + " entries, " +
                      std::to_string(found) + " were found");
  return table;
}

// Red, green, blue.
std::vector<LookupTable> palette_tables(const DicomFile& file, DcmItem& item) {
  const std::array<std::array<DcmTagKey, 2>, 3> tags = {
      {{DCM_RedPaletteColorLookupTableDescriptor, DCM_RedPaletteColorLookupTableData},
       {DCM_GreenPaletteColorLookupTableDescriptor, DCM_GreenPaletteColorLookupTableData},
       {DCM_BluePaletteColorLookupTableDescriptor, DCM_BluePaletteColorLookupTableData}}};
  std::vector<LookupTable> colors;
  for (const auto& [descriptor, data] : tags) {
    if (!item.tagExists(data))
      refuse_pixels(file,
                    "a palette without its plain tables (segmented tables are not understood)");
    colors.push_back(lookup_table(file, item, descriptor, data, file.is_signed));
    // Entries of 16 bits hold 8 bits on top, or twice.
    if (dicom_numbers(item, descriptor)[2] > 8)
      for (float& value : colors.back().values) value = std::floor(value / 256);
  }
  return colors;
}

// [3, Y, X], ITU-R BT.601, full range (DICOM PS3.3 C.7.6.3.1.2).
at::Tensor rgb_from_ybr(const at::Tensor& ybr, double largest) {
  const double middle = (largest + 1) / 2;
  const at::Tensor y = ybr[0], b = ybr[1] - middle, r = ybr[2] - middle;
  return at::stack({y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b})
      .round_()
      .clamp_(0, largest);
}

}  // namespace

DicomPixels::DicomPixels(const DicomFile& file) {
  DcmFileFormat format;
  load_dicom(file.path, DCM_MaxReadLength, format);
  DcmDataset& item = *format.getDataset();
  auto stored = std::make_shared<Stored>(Stored{file, raw_pixels(file, item), {}});
  const RawPixels& raw = stored->raw;
  const bool has_palette = file.photometric == "PALETTE COLOR";
  if (raw.is_float && (has_palette || file.has_modality_lut))
    refuse_pixels(file, "a lookup table for pixels that are no integers");
  DcmItem* lut = nullptr;
  if (has_palette && raw.samples == 1) {
    stored->tables = palette_tables(file, item);
  } else if (file.has_modality_lut &&
             item.findAndGetSequenceItem(DCM_ModalityLUTSequence, lut).good() && lut != nullptr) {
    stored->tables = {lookup_table(file, *lut, DCM_LUTDescriptor, DCM_LUTData, file.is_signed)};
  }
  stored_ = std::move(stored);
}

at::Tensor DicomPixels::frame(int64_t index) const {
  const auto& [file, raw, tables] = *stored_;
  const int64_t count = file.rows * file.columns * raw.samples;
  at::Tensor values = as_float(file, raw, index * count, count)
                          .view({file.rows, file.columns, raw.samples})
                          .permute({2, 0, 1});
  if (raw.samples > 3) values = values.narrow(0, 0, 3);  // alpha
  const double largest = std::ldexp(1.0, raw.bits_stored) - 1;
  if (raw.is_ybr) values = rgb_from_ybr(values, largest);
  if (!tables.empty()) {
    std::vector<at::Tensor> channels;
    for (const LookupTable& table : tables) channels.push_back(table.applied(values));
    return at::cat(channels).contiguous();
  }
  values = values.contiguous();
  if (file.is_inverted() && !raw.is_float)
    values = raw.is_signed ? values.neg_().sub_(1) : values.neg_().add_(largest);
  const DicomFrame& frame = file.frames[static_cast<size_t>(index)];
  if (frame.slope != 1 || frame.intercept != 0) values.mul_(frame.slope).add_(frame.intercept);
  return values;
}

at::Tensor read_dicom_pixels(const DicomFile& file) {
  const DicomPixels pixels(file);
  std::vector<at::Tensor> frames;
  for (size_t i = 0; i < file.frames.size(); ++i)
    frames.push_back(pixels.frame(static_cast<int64_t>(i)));
  return at::stack(frames);
}

}  // namespace vireo
