#include "vision/io/dicom/jpeg2000.h"

#include <algorithm>
#include <cstring>
#include <memory>

// Not <openjpeg.h>: ITK installs an old one of that name.
#include <openjpeg-2.5/openjpeg.h>

#include "vision/core/error.h"

namespace vireo::io {
namespace {

// The bytes that OpenJPEG reads from.
struct Source {
  const uint8_t* bytes;
  size_t count, at = 0;
};

OPJ_SIZE_T read_bytes(void* to, OPJ_SIZE_T wanted, void* data) {
  auto& source = *static_cast<Source*>(data);
  const size_t count = std::min<size_t>(wanted, source.count - source.at);
  if (count == 0) return static_cast<OPJ_SIZE_T>(-1);
  std::memcpy(to, source.bytes + source.at, count);
  source.at += count;
  return count;
}

OPJ_OFF_T skip_bytes(OPJ_OFF_T wanted, void* data) {
  auto& source = *static_cast<Source*>(data);
  if (wanted < 0) return -1;
  const size_t count = std::min<size_t>(static_cast<size_t>(wanted), source.count - source.at);
  source.at += count;
  return count == 0 && wanted > 0 ? -1 : static_cast<OPJ_OFF_T>(count);
}

OPJ_BOOL seek_byte(OPJ_OFF_T to, void* data) {
  auto& source = *static_cast<Source*>(data);
  if (to < 0 || static_cast<size_t>(to) > source.count) return OPJ_FALSE;
  source.at = static_cast<size_t>(to);
  return OPJ_TRUE;
}

template <auto kRelease>
struct Release {
  template <class T>
  void operator()(T* held) const {
    kRelease(held);
  }
};
using Codec = std::unique_ptr<opj_codec_t, Release<opj_destroy_codec>>;
using Stream = std::unique_ptr<opj_stream_t, Release<opj_stream_destroy>>;
using Image = std::unique_ptr<opj_image_t, Release<opj_image_destroy>>;

}  // namespace

Jpeg2000Image decode_jpeg2000(const uint8_t* bytes,
                              size_t count,
                              int64_t expected_height,
                              int64_t expected_width) {
  const uint8_t jp2_start[] = {0, 0, 0, 12, 'j', 'P', ' ', ' '};
  const bool boxed =
      count >= sizeof jp2_start && std::memcmp(bytes, jp2_start, sizeof jp2_start) == 0;
  const Codec codec(opj_create_decompress(boxed ? OPJ_CODEC_JP2 : OPJ_CODEC_J2K));
  const Stream stream(opj_stream_default_create(OPJ_TRUE));
  Source source{bytes, count};
  opj_stream_set_user_data(stream.get(), &source, nullptr);
  opj_stream_set_user_data_length(stream.get(), count);
  opj_stream_set_read_function(stream.get(), read_bytes);
  opj_stream_set_skip_function(stream.get(), skip_bytes);
  opj_stream_set_seek_function(stream.get(), seek_byte);
  opj_dparameters_t parameters;
  opj_set_default_decoder_parameters(&parameters);
  opj_image_t* header = nullptr;
  if (!opj_setup_decoder(codec.get(), &parameters) ||
      !opj_decoder_set_strict_mode(codec.get(), OPJ_TRUE) ||
      !opj_read_header(stream.get(), codec.get(), &header))
    throw Error("its JPEG 2000 header is broken");
  const Image image(header);
  const auto height = static_cast<int64_t>(image->y1) - image->y0;
  const auto width = static_cast<int64_t>(image->x1) - image->x0;
  if (height != expected_height || width != expected_width)
    throw Error("its JPEG 2000 image has " + std::to_string(width) + " x " +
                std::to_string(height) + " pixels, " + std::to_string(expected_width) + " x " +
                std::to_string(expected_height) + " were expected");
  if (image->numcomps < 1 || image->numcomps > 4)
    throw Error("its JPEG 2000 image has more than 4 components");
  if (!opj_decode(codec.get(), stream.get(), image.get()) ||
      !opj_end_decompress(codec.get(), stream.get()))
    throw Error("its JPEG 2000 data are broken or cut off");

  Jpeg2000Image result;
  result.height = height;
  result.width = width;
  result.components = static_cast<int>(image->numcomps);
  result.bits = static_cast<int>(image->comps[0].prec);
  result.is_signed = image->comps[0].sgnd != 0;
  const size_t pixels = static_cast<size_t>(height) * static_cast<size_t>(width);
  result.samples.resize(pixels * image->numcomps);
  for (uint32_t c = 0; c < image->numcomps; ++c) {
    const opj_image_comp_t& component = image->comps[c];
    if (component.data == nullptr || component.w != width || component.h != height)
      throw Error("its JPEG 2000 colours are subsampled");
    for (size_t i = 0; i < pixels; ++i) result.samples[i * image->numcomps + c] = component.data[i];
  }
  return result;
}

}  // namespace vireo::io
