#include "vision/io/dicom/dicom_file.h"

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include <ATen/Functions.h>
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include "tests/support/made_dicom.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(DicomFile, KeepsSignsMasksUnusedBitsAndTurnsMonochrome1Round) {
  const fs::path path = test::scratch_folder() / "one.dcm";
  test::MadeSlice slice;
  slice.rows = 1;
  slice.columns = 4;
  slice.pixels = {-2048, -1, 0, 2047};
  slice.bits_stored = 12;
  test::write_slice(path, slice);
  EXPECT_TRUE(
      at::equal(read_image(path).values.flatten(), at::tensor({-2048.f, -1.f, 0.f, 2047.f})));
  slice.is_signed = false;
  slice.pixels = {0, 1, 4095, 0x1001};
  test::write_slice(path, slice, EXS_BigEndianExplicit);
  EXPECT_TRUE(at::equal(read_image(path).values.flatten(), at::tensor({0.f, 1.f, 4095.f, 1.f})));
  slice.photometric = "MONOCHROME1";
  slice.modality = "DX";
  test::write_slice(path, slice, EXS_DeflatedLittleEndianExplicit);
  EXPECT_TRUE(
      at::equal(read_image(path).values.flatten(), at::tensor({4095.f, 4094.f, 0.f, 4094.f})));
}

TEST(DicomFile, LeavesMonochrome1OfCtAndPtAsItIs) {
  const fs::path path = test::scratch_folder() / "one.dcm";
  test::MadeSlice slice;
  slice.rows = 1;
  slice.columns = 3;
  slice.pixels = {-400, 0, 1000};
  slice.photometric = "MONOCHROME1";
  slice.intercept = "-24";
  for (const char* modality : {"CT", "PT"}) {
    slice.modality = modality;
    test::write_slice(path, slice);
    EXPECT_TRUE(at::equal(read_image(path).values.flatten(), at::tensor({-424.f, -24.f, 976.f})));
  }
}

TEST(DicomFile, ReadsValuesThatLieInUpperBits) {
  test::MadeSlice slice;
  slice.rows = 1;
  slice.columns = 4;
  slice.pixels = {0x0010, 0x7ff0, static_cast<int16_t>(0xfff0), static_cast<int16_t>(0x8000)};
  slice.bits_stored = 12;
  slice.change = [](DcmItem& item) { item.putAndInsertUint16(DCM_HighBit, 15); };
  const fs::path path = test::scratch_folder() / "one.dcm";
  test::write_slice(path, slice);
  EXPECT_TRUE(
      at::equal(read_image(path).values.flatten(), at::tensor({1.f, 2047.f, -1.f, -2048.f})));
  slice.is_signed = false;
  test::write_slice(path, slice);
  EXPECT_TRUE(
      at::equal(read_image(path).values.flatten(), at::tensor({1.f, 2047.f, 4095.f, 2048.f})));
  slice.pixels[0] = 0x0011;
  test::write_slice(path, slice);
  EXPECT_THAT(test::message_of([&] { read_image(path); }),
              HasSubstr("BitsStored 12 and HighBit 15, but the 4 bits below these are used too"));
}

TEST(DicomFile, RefusesDeflatedElementsLongerThanTheirStream) {
  const fs::path path = test::scratch_folder() / "one.dcm";
  test::write_slice(path, test::slices_of(test::plain_grid())[0], EXS_DeflatedLittleEndianExplicit);
  std::string sound = read_text(path);
  // The prefix, and the file meta information, whose first element holds its length.
  const size_t start = 144 + static_cast<unsigned char>(sound[140]) +
                       256 * static_cast<size_t>(static_cast<unsigned char>(sound[141]));
  const auto message = [&](const std::string& elements) {
    std::string packed(elements.size() + 100, '\0');
    z_stream state{};
    deflateInit2(&state, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
    state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(elements.data()));
    state.avail_in = static_cast<uInt>(elements.size());
    state.next_out = reinterpret_cast<Bytef*>(packed.data());
    state.avail_out = static_cast<uInt>(packed.size());
    EXPECT_EQ(deflate(&state, Z_FINISH), Z_STREAM_END);
    packed.erase(packed.size() - state.avail_out);
    deflateEnd(&state);
    std::ofstream(path, std::ios::binary) << sound.substr(0, start) + packed;
    return test::message_of([&] { read_dicom_header(path); });
  };
  using namespace std::string_literals;
  const std::string pixels =
      "\xE0\x7F\x10\x00OW\x00\x00\x50\x55\x55\x55"s
      "ab";
  EXPECT_THAT(message(pixels), HasSubstr("(7fe0,0010) declares 1431655760 bytes, and 2 are left"));
  // Behind a sequence, in an item of it, and as a fragment.
  const std::string sequence =
      "\x08\x00\x15\x11SQ\x00\x00\xFF\xFF\xFF\xFF"s
      "\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF"s;
  EXPECT_THAT(message(sequence + pixels), HasSubstr("(7fe0,0010) declares 1431655760"));
  EXPECT_THAT(message("\xE0\x7F\x10\x00OB\x00\x00\xFF\xFF\xFF\xFF"s
                      "\xFE\xFF\x00\xE0\x50\x55\x55\x55"s),
              HasSubstr("(fffe,e000) declares 1431655760 bytes, and 0 are left"));
  EXPECT_THAT(message("\x08\x00\x60\x00"s
                      "CS\x02\x00"s
                      "CT"),
              HasSubstr("it has no Rows"));
  // Of a representation that is not known yet.
  EXPECT_THAT(message("\x09\x00\x10\x10ZZ\x00\x00\x50\x55\x55\x55"s
                      "ab"),
              HasSubstr("(0009,1010) declares 1431655760 bytes"));
  // The meta information holds another group, and goes on as long as it says.
  sound[144] = '\x09';
  EXPECT_THAT(message(pixels), HasSubstr("(7fe0,0010) declares 1431655760"));
  // Its last element goes beyond what it says.
  sound[140] = static_cast<char>(sound[140] - 8);
  EXPECT_THAT(message(pixels), HasSubstr("(7fe0,0010) declares 1431655760"));
}

TEST(DicomFile, RefusesCutFilesAndSizesThatTheFileCannotHold) {
  const fs::path path = test::scratch_folder() / "one.dcm";
  test::write_slice(path, test::slices_of(test::plain_grid())[0]);
  const std::string bytes = read_text(path);
  const auto message = [&](const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
    try {
      read_image(path);
    } catch (const DataError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  for (const size_t length : {bytes.size() - 1, bytes.size() - 20, bytes.size() / 2, size_t{140}})
    EXPECT_THAT(message(bytes.substr(0, length)), ::testing::StartsWith(path.string())) << length;
  // Rows from 4 to 60000.
  std::string large = bytes;
  const size_t at = large.find(std::string("\x28\x00\x10\x00US", 6));
  ASSERT_NE(at, std::string::npos);
  large[at + 8] = '\x60';
  large[at + 9] = '\xea';
  EXPECT_THAT(message(large), HasSubstr("expected from Rows"));
  EXPECT_THAT(message("not DICOM at all"), HasSubstr("no DICOM file"));
}

// A slice whose header is changed before it is written.
template <typename Change>
std::string refusal_of_changed(const Change& change) {
  const fs::path path = test::scratch_folder() / "changed.dcm";
  test::write_slice(path, test::slices_of(test::plain_grid())[0]);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  format.loadAllDataIntoMemory();
  change(*format.getDataset());
  format.saveFile(path.c_str(), EXS_LittleEndianExplicit);
  return test::message_of([&] { read_image(path); });
}

TEST(DicomFile, RefusesPixelsThatAreOtherThanTheHeaderSays) {
  // Two pixels share a colour: one is left over.
  EXPECT_THAT(refusal_of_changed([](DcmItem& item) {
                test::put_octets(item, 3, 3, 5);
                test::put(item, DCM_PhotometricInterpretation, "YBR_FULL_422");
              }),
              HasSubstr("need 3 samples and even rows"));
  EXPECT_THAT(refusal_of_changed([](DcmItem& item) {
                test::put_octets(item, 4, 4, 4);
                test::put(item, DCM_PhotometricInterpretation, "YBR_FULL_422");
              }),
              HasSubstr("need 3 samples and even rows"));
  EXPECT_THAT(refusal_of_changed([](DcmItem& item) { test::put_octets(item, 2, 4, 4); }),
              HasSubstr("SamplesPerPixel is 2; 1, 3 or 4"));
  const auto with_floats = [](int bits) {
    return refusal_of_changed([&](DcmItem& item) {
      const std::vector<Float32> pixels(24, 0.5);
      test::put_octets(item, 1, 4, 6);
      item.putAndInsertUint16(DCM_BitsAllocated, static_cast<Uint16>(bits));
      item.findAndDeleteElement(DCM_PixelData);
      item.putAndInsertFloat32Array(DCM_FloatPixelData, pixels.data(), pixels.size());
    });
  };
  EXPECT_EQ(with_floats(32), "(no error)");
  EXPECT_THAT(with_floats(8), HasSubstr("floating point of 32 bits, but BitsAllocated is 8"));
}

TEST(DicomFile, RefusesLookupTablesThatCannotBeOnes) {
  const auto with_table = [](const std::string& count, bool floats) {
    return refusal_of_changed([&](DcmItem& item) {
      test::put_octets(item, 1, 4, 6);
      DcmItem* lut = nullptr;
      item.findOrCreateSequenceItem(DCM_ModalityLUTSequence, lut, 0);
      auto* descriptor = new DcmDecimalString(DcmTag(DCM_LUTDescriptor, EVR_DS));
      descriptor->putString((count + "\\0\\16").c_str());
      lut->insert(descriptor, true);
      const Uint16 table[] = {0, 10, 20, 30};
      lut->putAndInsertUint16Array(DCM_LUTData, table, 4);
      if (!floats) return;
      const std::vector<Float32> pixels(24, NAN);
      item.putAndInsertUint16(DCM_BitsAllocated, 32);
      item.findAndDeleteElement(DCM_PixelData);
      item.putAndInsertFloat32Array(DCM_FloatPixelData, pixels.data(), pixels.size());
    });
  };
  EXPECT_EQ(with_table("4", false), "(no error)");
  for (const char* count : {"0.5", "1e30", "-1e300"})
    EXPECT_THAT(with_table(count, false), HasSubstr("whole numbers of 16 bits")) << count;
  EXPECT_THAT(with_table("4", true), HasSubstr("pixels that are no integers"));
}

TEST(DicomFile, RefusesNumbersThatAreOnlyHalfOnes) {
  const auto with = [](const DcmTagKey& tag, const char* text) {
    return refusal_of_changed([&](DcmItem& item) { test::put(item, tag, text); });
  };
  EXPECT_THAT(
      with(DCM_PixelSpacing, "0,75\\0,75"),
      HasSubstr("PixelSpacing (0028,0030) is \"0,75\\0,75\"; numbers with a decimal point"));
  EXPECT_THAT(with(DCM_ImagePositionPatient, "-10,5\\-20,5\\30.5"),
              HasSubstr("ImagePositionPatient (0020,0032) is \"-10,5"));
  EXPECT_THAT(with(DCM_ImageOrientationPatient, "1\\0\\0\\0\\1x\\0"),
              HasSubstr("ImageOrientationPatient (0020,0037) is \"1"));
  EXPECT_THAT(with(DCM_RescaleSlope, "0,75"), HasSubstr("RescaleSlope (0028,1053) is \"0,75\""));
  EXPECT_THAT(with(DCM_RescaleSlope, "abcd"), HasSubstr("RescaleSlope (0028,1053) is \"abcd\""));
  EXPECT_THAT(with(DCM_RescaleIntercept, "1O"), HasSubstr("RescaleIntercept (0028,1052)"));
  EXPECT_THAT(with(DCM_NumberOfFrames, "1A"), HasSubstr("NumberOfFrames (0028,0008) is \"1A\""));
  EXPECT_EQ(with(DCM_RescaleSlope, " +1.0e0 "), "(no error)");
}

TEST(DicomFile, RefusesMorePixelsThanAreDeclaredButForPadding) {
  const auto with = [](size_t words, Uint16 value) {
    return refusal_of_changed([&](DcmItem& item) {
      const std::vector<Uint16> pixels(words, value);  // 24 of them are declared, 6 in a row
      item.putAndInsertUint16Array(DCM_PixelData, pixels.data(), pixels.size());
    });
  };
  EXPECT_THAT(with(48, 7), HasSubstr("changed.dcm holds 48 bytes of pixels more than Rows"));
  EXPECT_THAT(with(48, 0), HasSubstr("48 bytes of pixels more"));
  EXPECT_THAT(with(30, 7), HasSubstr("12 bytes of pixels more"));
  EXPECT_EQ(with(30, 0), "(no error)");
  EXPECT_EQ(with(25, 7), "(no error)");
}

TEST(DicomFile, TellsDescriptionsInUtf8) {
  const fs::path path = test::scratch_folder() / "one.dcm";
  test::MadeSlice slice = test::slices_of(test::plain_grid())[0];
  const auto description = [&](const char* character_set, const char* bytes) {
    slice.change = [&](DcmItem& item) {
      if (*character_set != '\0') test::put(item, DCM_SpecificCharacterSet, character_set);
      test::put(item, DCM_SeriesDescription, bytes);
    };
    test::write_slice(path, slice);
    return read_dicom_header(path).series_description;
  };
  EXPECT_EQ(description("ISO_IR 100",
                        "Sch\xe4"
                        "del"),
            "Sch\u00e4del");
  EXPECT_EQ(description("ISO_IR 192", "Sch\u00e4del"), "Sch\u00e4del");
  EXPECT_EQ(description("ISO_IR 144", "\xd1\xd2"), "\u0431\u0432");
  // Where nothing tells what it is.
  EXPECT_EQ(description("",
                        "Sch\xe4"
                        "del"),
            "Sch\ufffd"
            "del");
  EXPECT_EQ(description("ISO_IR 999",
                        "Sch\u00e4"
                        "d\xff"),
            "Sch\u00e4"
            "d\ufffd");
}

TEST(DicomFile, RefusesPlacesThatAreNone) {
  const auto at = [](const char* position, const char* spacing) {
    return refusal_of_changed([&](DcmItem& item) {
      test::put(item, DCM_ImagePositionPatient, position);
      test::put(item, DCM_PixelSpacing, spacing);
    });
  };
  EXPECT_EQ(at("1\\2\\3", "1\\1"), "(no error)");
  EXPECT_THAT(at("1\\2\\3e300", "1\\1"), HasSubstr("lies more than a kilometre away"));
  EXPECT_THAT(at("1\\2\\3", "1e-200\\1"), HasSubstr("PixelSpacing is no distance"));
  EXPECT_THAT(at("1\\2\\3", "1\\1e200"), HasSubstr("PixelSpacing is no distance"));
  // As if it were not there: a picture without a place.
  EXPECT_EQ(at("1\\2\\nan", "1\\1"), "(no error)");
}

TEST(DicomFile, ReadsFramesOfSingleBitsThatShareBytes) {
  const fs::path path = test::scratch_folder() / "bits.dcm";
  test::write_slice(path, test::slices_of(test::plain_grid())[0]);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  format.loadAllDataIntoMemory();
  DcmDataset& item = *format.getDataset();
  test::put_octets(item, 1, 3, 3);
  for (const DcmTagKey& tag : {DCM_BitsAllocated, DCM_BitsStored}) item.putAndInsertUint16(tag, 1);
  item.putAndInsertUint16(DCM_HighBit, 0);
  test::put(item, DCM_NumberOfFrames, "3");
  const std::vector<Uint8> bits{0b10100101, 0b01110011, 0b00001110, 0b00000101};  // 27 of them
  item.putAndInsertUint8Array(DCM_PixelData, bits.data(), bits.size());
  format.saveFile(path.c_str(), EXS_LittleEndianExplicit);
  const at::Tensor frames = read_dicom_pixels(read_dicom_header(path)).flatten();
  ASSERT_EQ(frames.numel(), 27);
  for (int64_t i = 0; i < 27; ++i)
    EXPECT_EQ(frames[i].item<float>(), bits[static_cast<size_t>(i / 8)] >> (i % 8) & 1) << i;
}

}  // namespace
}  // namespace vireo
