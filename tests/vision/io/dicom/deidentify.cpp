#include "vision/io/dicom/deidentify.h"

#include <memory>
#include <set>

#include <ATen/Functions.h>
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <dcmtk/dcmdata/dcrleerg.h>
#include <dcmtk/dcmjpeg/djencode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/made_dicom.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/dicom/compressed_comments.h"
#include "vision/io/dicom/dicom_dataset.h"
#include "vision/io/dicom/dicom_folder.h"
#include "vision/io/dicom/dicom_scan.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

const DeidentifyOptions kOptions{"a key that only this test knows"};

// A run of one file.
Deidentified deidentify(const fs::path& input,
                        const fs::path& output_folder,
                        const DeidentifyOptions& options) {
  return Deidentifier(output_folder, options).copy(input);
}

// All text of an item and those below it: "group,element value".
void collect(DcmItem& item, std::vector<std::pair<DcmTagKey, std::string>>& found) {
  for (unsigned long i = 0; i < item.card(); ++i) {
    DcmElement* element = item.getElement(i);
    if (element->ident() == EVR_SQ) {
      auto* sequence = static_cast<DcmSequenceOfItems*>(element);
      for (unsigned long j = 0; j < sequence->card(); ++j) collect(*sequence->getItem(j), found);
      continue;
    }
    OFString value;
    if (element->isaString() && element->getOFStringArray(value).good() && !value.empty())
      found.emplace_back(element->getTag(), value.c_str());
  }
}

std::vector<std::pair<DcmTagKey, std::string>> texts_of(const fs::path& path) {
  DcmFileFormat format;
  load_dicom(path, DCM_MaxReadLength, format);
  std::vector<std::pair<DcmTagKey, std::string>> found;
  collect(*format.getDataset(), found);
  return found;
}

// A slice with names in plain, nested, private and date attributes.
fs::path named_slice(const fs::path& folder, int instance) {
  Geometry grid;
  grid.size_zyx = {1, 3, 4};
  test::MadeSlice slice = test::slices_of(grid)[0];
  slice.instance = instance;
  slice.position_lps_mm = {0, 0, static_cast<double>(instance)};
  const fs::path path = folder / ("Doe_Jane_" + std::to_string(instance));
  test::write_slice(path, slice);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  DcmDataset& item = *format.getDataset();
  item.putAndInsertString(DCM_PatientName, "Doe^Jane");
  item.putAndInsertString(DCM_PatientID, "4711");
  item.putAndInsertString(DCM_PatientBirthDate, "19700102");
  item.putAndInsertString(DCM_StudyDate, "20200229");
  item.putAndInsertString(DCM_SeriesDescription, "Jane's head");
  item.putAndInsertString(DCM_ImageComments, "seen by Dr. Doe");
  item.putAndInsertString(DCM_DeviceSerialNumber, "SN-Doe");
  item.putAndInsertString(DCM_KVP, "120");
  item.putAndInsertString(DcmTag(0x0009, 0x0010, EVR_LO), "MAKER Doe");
  DcmItem* nested = nullptr;
  item.findOrCreateSequenceItem(DCM_RequestAttributesSequence, nested);
  nested->putAndInsertString(DCM_ScheduledProcedureStepDescription, "Doe again");
  item.findOrCreateSequenceItem(DCM_SourceImageSequence, nested);
  nested->putAndInsertString(DCM_ReferencedSOPInstanceUID, "1.2.826.0.1.3680043.10.1.9.1");
  nested->putAndInsertString(DCM_ReferencedSOPClassUID, UID_CTImageStorage);
  format.saveFile(path.c_str(), EXS_LittleEndianExplicit);
  return path;
}

template <class Change>
void change(const fs::path& path, const Change& how) {
  DcmFileFormat format;
  ASSERT_TRUE(format.loadFile(path.c_str()).good());
  format.loadAllDataIntoMemory();
  how(*format.getDataset());
  ASSERT_TRUE(format.saveFile(path.c_str(), format.getDataset()->getCurrentXfer()).good());
}

// An attribute's text; "none" where it is missing.
std::string text_at(const fs::path& path, const DcmTagKey& tag) {
  DcmFileFormat format;
  load_dicom(path, DCM_MaxReadLength, format);
  return format.getDataset()->tagExists(tag) ? dicom_text(*format.getDataset(), tag) : "none";
}

template <class Run>
std::string message_of(const Run& run) {
  try {
    run();
  } catch (const DataError& error) {
    return error.what();
  }
  return "no DataError";
}

std::vector<Uint16> words_of(const fs::path& path) {
  DcmFileFormat format;
  load_dicom(path, DCM_MaxReadLength, format);
  const Uint16* words = nullptr;
  unsigned long count = 0;
  format.getDataset()->findAndGetUint16Array(DCM_PixelData, words, &count);
  return {words, words + count};
}

// 3 by 4 pixels.
fs::path stored_slice(const fs::path& path,
                      const std::vector<int16_t>& pixels,
                      int bits_stored,
                      bool is_signed) {
  Geometry grid;
  grid.size_zyx = {1, 3, 4};
  test::MadeSlice slice = test::slices_of(grid)[0];
  slice.pixels = pixels;
  slice.bits_stored = bits_stored;
  slice.is_signed = is_signed;
  test::write_slice(path, slice);
  return path;
}

TEST(Deidentify, LeavesNoNameAtAnyDepthAndThePixelsAlone) {
  const fs::path folder = test::scratch_folder();
  const fs::path input = named_slice(folder, 1);
  const Deidentified done = deidentify(input, folder / "out", kOptions);
  const std::string bytes = read_text(folder / "out" / done.output);
  for (const char* word : {"Doe", "4711", "1970", "2020", "head"})
    EXPECT_THAT(bytes, Not(HasSubstr(word)));
  EXPECT_THAT(done.output.string(), Not(HasSubstr("Doe")));
  EXPECT_THAT(bytes, HasSubstr("113100"));
  EXPECT_TRUE(at::equal(read_dicom_pixels(read_dicom_header(input)),
                        read_dicom_pixels(read_dicom_header(folder / "out" / done.output))));
  const auto texts = texts_of(folder / "out" / done.output);
  EXPECT_THAT(texts, ::testing::Contains(std::pair(DcmTagKey(DCM_KVP), std::string("120"))));
}

TEST(Deidentify, ReplacesUidsAlikeEverywhereAndKeepsThePatientTogether) {
  const fs::path folder = test::scratch_folder();
  std::vector<DicomFile> files;
  for (int instance = 1; instance <= 3; ++instance)
    files.push_back(read_dicom_header(
        folder / "out" /
        deidentify(named_slice(folder, instance), folder / "out", kOptions).output));
  EXPECT_EQ(files[0].series_uid, files[2].series_uid);
  EXPECT_EQ(files[0].path.parent_path(), files[2].path.parent_path());
  EXPECT_NE(files[0].sop_instance_uid, files[1].sop_instance_uid);
  EXPECT_THAT(files[0].sop_instance_uid, ::testing::StartsWith("2.25."));
  EXPECT_EQ(files[0].sop_class_uid, UID_CTImageStorage);
  // The image that the third refers to is the first.
  std::string referenced;
  for (const auto& [tag, value] : texts_of(files[2].path))
    if (tag == DCM_ReferencedSOPInstanceUID) referenced = value;
  EXPECT_EQ(referenced, files[0].sop_instance_uid);
  EXPECT_EQ(scan_dicom(folder / "out").series.at(0).problems.size(), 0u);

  DeidentifyOptions other{"another key, another world"};
  const Deidentified again = deidentify(folder / "Doe_Jane_1", folder / "other", other);
  EXPECT_NE(read_dicom_header(folder / "other" / again.output).series_uid, files[0].series_uid);
}

TEST(Deidentify, ShiftsDatesByOneNumberOfDaysPerPatient) {
  const fs::path folder = test::scratch_folder();
  DeidentifyOptions options = kOptions;
  options.shift_dates = true;
  std::set<std::string> dates;
  for (int instance = 1; instance <= 2; ++instance)
    for (const auto& [tag, value] :
         texts_of(folder / "out" /
                  deidentify(named_slice(folder, instance), folder / "out", options).output))
      if (tag == DCM_StudyDate) dates.insert(value);
  ASSERT_EQ(dates.size(), 1u);
  EXPECT_EQ(dates.begin()->size(), 8u);
  EXPECT_LT(*dates.begin(), "20200229");
  EXPECT_GT(*dates.begin(), "20100101");
}

TEST(Deidentify, RefusesBurnedInAnnotationsAndWarnsWhereTheyAreLikely) {
  const fs::path folder = test::scratch_folder();
  const fs::path path = named_slice(folder, 1);
  const auto set = [&](const DcmTagKey& tag, const char* value) {
    DcmFileFormat format;
    format.loadFile(path.c_str());
    format.loadAllDataIntoMemory();
    format.getDataset()->putAndInsertString(tag, value);
    format.saveFile(path.c_str(), EXS_LittleEndianExplicit);
  };
  set(DCM_Modality, "US");
  EXPECT_THAT(deidentify(path, folder / "out", kOptions).warning, HasSubstr("burned"));
  set(DCM_BurnedInAnnotation, "YES");
  EXPECT_THROW(deidentify(path, folder / "out", kOptions), DataError);
}

TEST(Deidentify, KeepsFilesApartThatHaveNoInstanceUid) {
  const fs::path folder = test::scratch_folder();
  Deidentifier deidentifier(folder / "out", kOptions);
  std::set<fs::path> outputs;
  for (int instance = 1; instance <= 3; ++instance) {
    const fs::path input = named_slice(folder, instance);
    change(input, [](DcmItem& item) {
      for (const DcmTagKey& tag : {DCM_SOPInstanceUID, DCM_InstanceNumber, DCM_SeriesInstanceUID})
        item.findAndDeleteElement(tag);
    });
    const Deidentified done = deidentifier.copy(input);
    outputs.insert(done.output);
    EXPECT_THAT(text_at(folder / "out" / done.output, DCM_SOPInstanceUID),
                ::testing::StartsWith("2.25."));
  }
  EXPECT_EQ(outputs.size(), 3u);
  for (const fs::path& output : outputs) EXPECT_TRUE(fs::exists(folder / "out" / output));
}

TEST(Deidentify, RefusesToPutAFileInThePlaceOfAnother) {
  const fs::path folder = test::scratch_folder();
  const fs::path first = named_slice(folder, 1), equal = folder / "equal", other = folder / "other";
  fs::copy_file(first, equal);
  fs::copy_file(first, other);
  change(other, [](DcmItem& item) { item.putAndInsertString(DCM_KVP, "80"); });
  Deidentifier deidentifier(folder / "out", kOptions);
  const Deidentified done = deidentifier.copy(first);
  EXPECT_EQ(deidentifier.copy(equal).output, done.output);
  EXPECT_THAT(message_of([&] { deidentifier.copy(other); }),
              ::testing::AllOf(::testing::StartsWith(other.string()),
                               HasSubstr(first.string()),
                               HasSubstr("SOPInstanceUID 1.2.826.0.1.3680043.10.1.9.1")));
  EXPECT_EQ(text_at(folder / "out" / done.output, DCM_KVP), "120");
}

TEST(Deidentify, ClearsBitsThatHoldNoPixels) {
  const fs::path folder = test::scratch_folder();
  const auto copy_of = [&](const fs::path& input, std::string* warning = nullptr) {
    const Deidentified done = deidentify(input, folder / "out", kOptions);
    if (warning != nullptr) *warning = done.warning;
    EXPECT_TRUE(at::equal(read_dicom_pixels(read_dicom_header(input)),
                          read_dicom_pixels(read_dicom_header(folder / "out" / done.output))));
    return words_of(folder / "out" / done.output);
  };
  const std::vector<int16_t> drawn = {0, 1, 0x1002, 0x1fff, 4, 5, 6, 7, 8, 9, 10, 0x0fff};
  const fs::path input = stored_slice(folder / "drawn", drawn, 12, false);
  std::string warning;
  const std::vector<Uint16> cleared = {0, 1, 2, 0xfff, 4, 5, 6, 7, 8, 9, 10, 0xfff};
  EXPECT_EQ(copy_of(input, &warning), cleared);
  EXPECT_THAT(warning, HasSubstr("outside their 12 bits"));
  change(input, [](DcmItem& item) {
    item.putAndInsertUint16(DcmTag(0x6000, 0x0100, EVR_US), 16);
    item.putAndInsertUint16(DcmTag(0x6000, 0x0102, EVR_US), 12);
  });
  EXPECT_EQ(copy_of(input, &warning), cleared);
  EXPECT_EQ(warning, "");
  // The sign of a number fills the bits above it, as most writers have it.
  EXPECT_EQ(copy_of(stored_slice(
                folder / "signed", {-1, 1, 0x0fff, 2047, 0, 0, 0, 0, 0, 0, 0, -2048}, 12, true)),
            (std::vector<Uint16>{0xffff, 1, 0xffff, 2047, 0, 0, 0, 0, 0, 0, 0, 0xf800}));

  DcmRLEEncoderRegistration::registerCodecs();
  change(input, [](DcmDataset& item) {
    ASSERT_TRUE(item.chooseRepresentation(EXS_RLELossless, nullptr).good());
  });
  EXPECT_THAT(
      message_of([&] { deidentify(input, folder / "out", kOptions); }),
      ::testing::AllOf(HasSubstr("overlay"), HasSubstr("(6000,0102)"), HasSubstr("uncompress")));
}

TEST(Deidentify, CutsWhatLiesBehindThePixels) {
  const fs::path folder = test::scratch_folder();
  std::vector<int16_t> pixels(12, 7);
  pixels.insert(pixels.end(), {0x6f44, 0x0065});  // "Doe"
  const Deidentified done =
      deidentify(stored_slice(folder / "long", pixels, 16, true), folder / "out", kOptions);
  EXPECT_EQ(words_of(folder / "out" / done.output), std::vector<Uint16>(12, 7));
  EXPECT_THAT(done.warning, HasSubstr("longer than the 24 bytes"));
}

TEST(Deidentify, EmptiesDatesThatAreNotWrittenAsDates) {
  const fs::path folder = test::scratch_folder();
  DeidentifyOptions options = kOptions;
  options.shift_dates = true;
  const fs::path input = named_slice(folder, 1);
  const auto shifted = [&](const DcmTagKey& tag, const char* value) {
    change(input, [&](DcmItem& item) { item.putAndInsertString(tag, value); });
    return text_at(folder / "out" / deidentify(input, folder / "out", options).output, tag);
  };
  for (const char* value :
       {"20200101-20200202", "20200101 Jane", "2020.01.05", "20201301", "202001", "00010101"})
    EXPECT_EQ(shifted(DCM_StudyDate, value), "") << value;
  EXPECT_EQ(shifted(DCM_AcquisitionDateTime, "20200101-20200202"), "");
  EXPECT_EQ(shifted(DCM_StudyTime, "101010 Jane"), "");
  EXPECT_EQ(shifted(DCM_StudyTime, "101010.25"), "101010.25");
  EXPECT_THAT(shifted(DCM_AcquisitionDateTime, "20200101101010.000+0100"),
              ::testing::MatchesRegex("20[0-9]*101010.000.0100"));
  EXPECT_EQ(shifted(DCM_StudyDate, "10000101").size(), 8u);
  EXPECT_LT(shifted(DCM_StudyDate, "10000101"), "10000101");
}

TEST(Deidentify, WarnsOfPicturesThatOftenHoldNames) {
  const fs::path folder = test::scratch_folder();
  using Changes = std::vector<std::pair<DcmTagKey, const char*>>;
  const auto warning = [&](const Changes& changes) {
    const fs::path input = named_slice(folder, 1);
    change(input, [&](DcmItem& item) {
      for (const auto& [tag, value] : changes) item.putAndInsertString(tag, value);
    });
    return deidentify(input, folder / "out", kOptions).warning;
  };
  EXPECT_EQ(warning({}), "");
  for (const char* modality : {"MG", "IO", "PX", "GM", "OP", "US", ""})
    EXPECT_THAT(warning({{DCM_Modality, modality}}), HasSubstr("burned")) << modality;
  EXPECT_EQ(warning({{DCM_Modality, "MG"}, {DCM_BurnedInAnnotation, "NO"}}), "");
  for (const char* kind : {"1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.4"})
    EXPECT_THAT(warning({{DCM_SOPClassUID, kind}}), HasSubstr("secondary capture"));
  EXPECT_THAT(warning({{DCM_ImageType, "DERIVED\\SECONDARY\\SCREEN SAVE"}}),
              HasSubstr("image type DERIVED\\SECONDARY"));
  EXPECT_THAT(warning({{DCM_ConversionType, "WSD"}}), HasSubstr("conversion type WSD"));
  EXPECT_THAT(warning({{DCM_BurnedInAnnotation, "Y"}}), HasSubstr("YES or NO was expected"));
  EXPECT_THAT(warning({{DCM_BurnedInAnnotation, "NO"}, {DCM_RecognizableVisualFeatures, "YES"}}),
              HasSubstr("face"));
  EXPECT_THAT(message_of([&] {
                warning({{DCM_BurnedInAnnotation, "Yes"}});
              }),
              HasSubstr("BurnedInAnnotation = YES"));
}

TEST(Deidentify, LeavesNoCommentInCompressedFrames) {
  const fs::path folder = test::scratch_folder();
  const fs::path input = named_slice(folder, 1);
  DJEncoderRegistration::registerCodecs();
  change(input, [](DcmDataset& item) {
    item.putAndInsertString(DCM_BurnedInAnnotation, "NO");
    ASSERT_TRUE(item.chooseRepresentation(EXS_JPEGProcess14SV1, nullptr).good());
    item.removeAllButCurrentRepresentations();
    DcmElement* pixels = nullptr;
    DcmPixelSequence* sequence = nullptr;
    DcmPixelItem* frame = nullptr;
    Uint8* bytes = nullptr;
    item.findAndGetElement(DCM_PixelData, pixels);
    ASSERT_TRUE(dynamic_cast<DcmPixelData&>(*pixels)
                    .getEncapsulatedRepresentation(EXS_JPEGProcess14SV1, nullptr, sequence)
                    .good());
    ASSERT_TRUE(sequence->getItem(frame, 1).good() && frame->getUint8Array(bytes).good());
    std::string jpeg(reinterpret_cast<char*>(bytes), frame->getLength());
    jpeg.insert(2,
                std::string("\xff\xfe\0\x0aJane Doe\xff\xe1\0\x0b"
                            "Exif\0\0Doe",
                            25));
    jpeg += std::string("Doe behind", 10);
    ASSERT_TRUE(
        frame->putUint8Array(reinterpret_cast<const Uint8*>(jpeg.data()), jpeg.size()).good());
  });
  const at::Tensor before = read_dicom_pixels(read_dicom_header(input));
  const Deidentified done = deidentify(input, folder / "out", kOptions);
  EXPECT_EQ(done.warning, "");
  EXPECT_THAT(read_text(folder / "out" / done.output), Not(HasSubstr("Doe")));
  const DicomFile copied = read_dicom_header(folder / "out" / done.output);
  EXPECT_EQ(copied.transfer_syntax_uid, UID_JPEGProcess14SV1TransferSyntax);
  EXPECT_TRUE(at::equal(read_dicom_pixels(copied), before));
}

TEST(BlankComments, LeavesWhatDecodersNeed) {
  const auto blanked = [](const std::string& text) {
    std::vector<uint8_t> bytes(text.begin(), text.end());
    blank_comments(bytes);
    return std::string(bytes.begin(), bytes.end());
  };
  const auto text = [](std::initializer_list<std::string_view> parts) {
    std::string joined;
    for (const std::string_view part : parts) joined += part;
    return joined;
  };
  using namespace std::string_view_literals;
  // Application data of JFIF (with a thumbnail), Adobe and HP; a scan; bytes behind the end.
  const auto jfif = "\xff\xd8\xff\xe0\0\x13JFIF\0\1\1\0\0\1\0\1\1\1"sv, thumbnail = "Doe"sv,
             others =
                 "\xff\xee\0\x0e"
                 "Adobe\0\x64\0\0\0\0\1\xff\xe8\0\7mrfx\1"sv,
             comment = "\xff\xfe\0\5"sv, scan = "\xff\xda\0\2x\xff\0y\xff\xd0\xff\x7fz\xff\xd9"sv;
  const std::string zeros(3, '\0');
  EXPECT_EQ(blanked(text({jfif, thumbnail, others, comment, "Doe", scan, "Doe"})),
            text({jfif, zeros, others, comment, zeros, scan, zeros}));
  // JPEG 2000: comments of the whole and of a tile, whose data look like one; behind the end.
  const auto start = "\xff\x4f\xff\x51\0\4ab"sv, note = "\xff\x64\0\7\0\1"sv,
             tile = "\xff\x90\0\x0a\0\0\0\0\0\x20\0\1"sv,
             data = "\xff\x93\xff\x64\0\x07zzDoe\xff\xd9"sv;
  const auto blank = "\xff\x64\0\7\0\0"sv;
  EXPECT_EQ(blanked(text({start, note, "Doe", tile, note, "Doe", data, "Doe"})),
            text({start, blank, zeros, tile, blank, zeros, data, zeros}));
  for (const auto broken : {"\xff\xd8\xff\xfe\0\x20 Doe"sv, "\xff\xd8\xff\xe0\0\2"sv, "GIF8"sv})
    EXPECT_THROW(blanked(std::string(broken)), Error);
}

TEST(Deidentify, KnowsPatientsByTheirIdentifierElseByName) {
  const fs::path folder = test::scratch_folder();
  const auto patient = [&](const char* id, const char* name) {
    const fs::path input = named_slice(folder, 1);
    change(input, [&](DcmItem& item) {
      item.putAndInsertString(DCM_PatientID, id);
      item.putAndInsertString(DCM_PatientName, name);
    });
    return deidentify(input, folder / "out", kOptions).output.begin()->string();
  };
  const std::string first = patient("1", "Doe^Jane");
  for (const char* name : {"Doe^Jane^", "DOE^JANE", "Doe ^ Jane", ""})
    EXPECT_EQ(patient("1", name), first) << name;
  EXPECT_NE(patient("2", "Doe^Jane"), first);
  const std::string named = patient("", "Doe^Jane");
  EXPECT_NE(named, first);
  for (const char* name : {"Doe^Jane^", "DOE^JANE", "Doe ^ Jane", "Doe^Jane=other"})
    EXPECT_EQ(patient("", name), named) << name;
  EXPECT_NE(patient("", "Doe^Janet"), named);
  // One study without both; and nothing but the folder.
  const std::string study = patient("", "");
  EXPECT_EQ(patient("", "^"), study);
  const auto untold = [&](int instance) {
    const fs::path input = named_slice(folder, instance);
    change(input, [](DcmItem& item) {
      for (const DcmTagKey& tag : {DCM_PatientID,
                                   DCM_PatientName,
                                   DCM_StudyInstanceUID,
                                   DCM_SeriesInstanceUID,
                                   DCM_FrameOfReferenceUID})
        item.putAndInsertString(tag, "");
    });
    return deidentify(input, folder / "out", kOptions).output.parent_path();
  };
  EXPECT_EQ(untold(1), untold(2));
}

TEST(Deidentify, RemovesWhatNamesADeviceAndWhatNobodyKnows) {
  const fs::path folder = test::scratch_folder();
  const fs::path input = named_slice(folder, 1);
  change(input, [](DcmItem& item) {
    for (const DcmTagKey& tag : {DCM_UDISequence,
                                 DCM_TransducerIdentificationSequence,
                                 DCM_ContentCreatorIdentificationCodeSequence}) {
      DcmItem* nested = nullptr;
      item.findOrCreateSequenceItem(tag, nested);
      nested->putAndInsertString(DCM_CodeMeaning, "Doe");
    }
    item.putAndInsertString(DCM_RETIRED_ModifyingDeviceID, "DOE");
    item.putAndInsertString(DcmTag(0x0018, 0x6668, EVR_CS), "DOE");    // in no dictionary
    item.putAndInsertString(DcmTag(DCM_ProtocolName, EVR_CS), "DOE");  // text, says the standard
    item.putAndInsertString(DCM_ExposureTime, "Doe");                  // no number
  });
  const fs::path copied = folder / "out" / deidentify(input, folder / "out", kOptions).output;
  EXPECT_THAT(read_text(copied), Not(::testing::AnyOf(HasSubstr("DOE"), HasSubstr("Doe"))));
  for (const DcmTagKey& tag : {DCM_UDISequence,
                               DCM_TransducerIdentificationSequence,
                               DCM_ContentCreatorIdentificationCodeSequence})
    EXPECT_EQ(text_at(copied, tag), "none");
}

TEST(Deidentify, ReadsAttributesOfUnknownTypeAsTheStandardHasThem) {
  const fs::path folder = test::scratch_folder();
  const fs::path input = named_slice(folder, 1);
  const Deidentified plain = deidentify(input, folder / "out", kOptions);
  const auto retype = [&](const DcmTagKey& tag, const std::string& value) {
    change(input, [&](DcmItem& item) {
      auto element = std::make_unique<DcmOtherByteOtherWord>(DcmTag(tag, EVR_UN));
      element->putUint8Array(reinterpret_cast<const Uint8*>(value.data()), value.size());
      ASSERT_TRUE(item.insert(element.release(), OFTrue).good());
    });
  };
  retype(DCM_SOPInstanceUID, "1.2.826.0.1.3680043.10.1.9.1");
  retype(DCM_PatientID, "4711");
  retype(DCM_PixelSpacing, "0.5\\0.75");
  const Deidentified done = deidentify(input, folder / "out", kOptions);
  EXPECT_EQ(done.output, plain.output);
  EXPECT_EQ(text_at(folder / "out" / done.output, DCM_PixelSpacing), "0.5\\0.75");
  EXPECT_THAT(read_text(folder / "out" / done.output), Not(HasSubstr("4711")));
  retype(DCM_BurnedInAnnotation, "YES ");
  EXPECT_THROW(deidentify(input, folder / "out", kOptions), DataError);
}

TEST(Deidentify, EmptiesWhatTheStandardRequires) {
  const fs::path folder = test::scratch_folder();
  const fs::path input = named_slice(folder, 1);
  change(input, [](DcmItem& item) {
    item.putAndInsertString(DCM_ContrastBolusAgent, "Doe's");
    item.putAndInsertString(DCM_ContentDate, "20200101");
    DcmItem* nested = nullptr;
    item.findOrCreateSequenceItem(DCM_AcquisitionContextSequence, nested);
    nested->putAndInsertString(DCM_TextValue, "Doe");
  });
  const fs::path copied = folder / "out" / deidentify(input, folder / "out", kOptions).output;
  for (const DcmTagKey& tag : {DCM_ContrastBolusAgent,
                               DCM_ContentDate,
                               DCM_AcquisitionContextSequence,
                               DCM_PositionReferenceIndicator})
    EXPECT_EQ(text_at(copied, tag), "") << DcmTag(tag).getTagName();
  EXPECT_EQ(text_at(copied, DCM_OperatorsName), "none");
  EXPECT_THAT(read_text(copied), Not(HasSubstr("Doe")));
}

// Nothing that names a person, a place or a moment in real headers is found in the copies, whose
// pixels are what they were.
TEST(Deidentify, LeavesNothingOfRealHeadersIdentifyingText) {
  VIREO_REQUIRE_REAL_DATA(robustness, "robustness");
  VIREO_REQUIRE_REAL_DATA(series, "dicom_series");
  const fs::path out = test::scratch_folder();
  int copied = 0, compared = 0;
  for (const fs::path& root : {robustness / "dicom", series})
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      if (!entry.is_regular_file() || entry.file_size() > 600'000 || !is_dicom(entry.path()))
        continue;
      SCOPED_TRACE(entry.path().string());
      Deidentified done;
      std::vector<std::pair<DcmTagKey, std::string>> before;
      try {
        done = deidentify(entry.path(), out, kOptions);
        before = texts_of(entry.path());
      } catch (const DataError&) {
        continue;
      }
      ++copied;
      const at::Tensor pixels = [&]() -> at::Tensor {
        try {
          return read_dicom_pixels(read_dicom_header(entry.path()));
        } catch (const DataError&) {
          return {};
        }
      }();
      if (pixels.defined()) {
        ++compared;
        EXPECT_TRUE(at::equal(read_dicom_pixels(read_dicom_header(out / done.output)), pixels));
      }
      std::set<std::string> uids;
      std::set<std::pair<DcmTagKey, std::string>> after;
      for (const auto& [tag, value] : texts_of(out / done.output)) {
        EXPECT_EQ(tag.getGroup() % 2, 0) << tag.toString();
        after.emplace(tag, value);
        if (DcmTag(tag).getEVR() == EVR_UI) uids.insert(value);
      }
      for (const auto& [tag, value] : before) {
        const DcmEVR type = DcmTag(tag).getEVR();
        const bool tells = type == EVR_PN || type == EVR_DA || type == EVR_DT || type == EVR_LT ||
                           type == EVR_ST || type == EVR_AE ||
                           (type == EVR_UI && !value.starts_with("1.2.840.10008"));
        if (tells && value.size() > 3) {
          EXPECT_FALSE(type == EVR_UI ? uids.contains(value) : after.contains({tag, value}))
              << tag.toString() << value;
        }
      }
      fs::remove(out / done.output);
    }
  EXPECT_GT(copied, 100);
  EXPECT_GT(compared, 100);
}

}  // namespace
}  // namespace vireo
