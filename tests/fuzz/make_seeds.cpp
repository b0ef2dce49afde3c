// Writes the seeds of all fuzz targets: FOLDER/<target>/<name>, a few small files each, made by our
// own writers. Usage: make_seeds FOLDER REPOSITORY
#include <cstring>
#include <fstream>
#include <iostream>

#include <ATen/Functions.h>
#include <caffe2/serialize/inline_container.h>
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcrleerg.h>
#include <dcmtk/dcmjpeg/djencode.h>
#include <dcmtk/dcmjpls/djencode.h>

#include "apps/engine/checkpoint.h"
#include "apps/engine/training_state.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/made_caches.h"
#include "tests/support/made_dicom.h"
#include "vision/core/atomic_file.h"
#include "vision/core/safetensors.h"
#include "vision/io/image_file.h"

namespace vireo::fuzz {
namespace {

namespace fs = std::filesystem;

fs::path seeds;

void seed(const std::string& target, const std::string& name, const std::string& bytes) {
  fs::create_directories(seeds / target);
  std::ofstream(seeds / target / name, std::ios::binary) << bytes;
}

// What `write` leaves in a file of this name, with `mark` in front.
template <typename Write>
void seed_file(const std::string& target,
               const std::string& name,
               const Write& write,
               const std::string& mark = "") {
  const fs::path path = scratch() / name;
  write(path);
  seed(target, name, mark + read_text(path));
}

Geometry small_grid(int64_t depth) {
  Geometry grid;
  grid.size_zyx = {depth, 4, 5};
  grid.spacing_mm_zyx = {2, 1, 0.5};
  grid.origin_lps_mm = {-10, 20, 30};
  return grid;
}

void texts() {
  seed("dataset_json",
       "nnunet.json",
       R"({"name":"a","channel_names":{"0":"CT"},"labels":{"background":0,"liver":1,"ignore":2},)"
       R"("file_ending":".nii.gz","numTraining":1})");
  seed("dataset_json",
       "nnunet_list.json",
       R"({"channel_names":{"0":"CT"},"labels":{"background":0,"liver":1},"file_ending":".nii.gz",)"
       R"("dataset":{"a":{"images":["imagesTr/a.nii.gz"],"label":"labelsTr/a.nii.gz"}}})");
  seed("dataset_json",
       "msd.json",
       R"({"name":"a","modality":{"0":"MRI"},"labels":{"0":"background","1":"Anterior"},)"
       R"("training":[{"image":"./imagesTr/a.nii.gz","label":"./labelsTr/a.nii.gz"}]})");
  seed("splits", "splits.json", R"([{"train":["a","b"],"val":["c"]},{"train":["c"],"val":["a"]}])");
  seed("lists", "cases.txt", "case_1\ncase0005_slice012.npz\nscan.nii.gz\r\n");
  seed("lists", "pictures.txt", "a.png 0\nsub/b.png dog\n\n");
  seed("picture_table",
       "one.csv",
       "path,label,patient_id,split,slice\na.png,cat,p1,train,\n\"a.png\",\"do\"\"g\",p2,val,3\n");
  seed("picture_table",
       "several.csv",
       "\xef\xbb\xbf"
       "file,edema,mass\r\na.png,0,1\r\na.png,1,0\r\n");
  seed(
      "segments",
      "segments.json",
      R"({"@schema":"x","SeriesDescription":"a","SeriesNumber":"300","InstanceNumber":"1",)"
      R"("ContentLabel":"SEG","BodyPartExamined":"LIVER","segmentAttributes":[[{"labelID":1,)"
      R"("SegmentDescription":"Liver","SegmentAlgorithmType":"AUTOMATIC","SegmentAlgorithmName":"a",)"
      R"("SegmentedPropertyCategoryCodeSequence":{"CodeValue":"123037004","CodingSchemeDesignator":)"
      R"("SCT","CodeMeaning":"Anatomical Structure"},"SegmentedPropertyTypeCodeSequence":)"
      R"({"CodeValue":"10200004","CodingSchemeDesignator":"SCT","CodeMeaning":"Liver"},)"
      R"("recommendedDisplayRGBValue":[221,130,101]}]]})");
  TrainingState state;
  state.history.push_back({{"epoch", 1}, {"loss", 0.5}});
  seed("checkpoint", "state.json", state.to_text());
}

void configurations(const fs::path& repository) {
  for (const auto& entry : fs::recursive_directory_iterator(repository / "configs"))
    if (entry.path().extension() == ".toml")
      seed("config",
           entry.path().parent_path().filename().string() + "_" + entry.path().filename().string(),
           read_text(entry.path()));
  seed("config", "override", std::string("train.epochs=20\0[data]\nfolder = \"a\"\n", 35));
}

void tensors() {
  const std::map<std::string, at::Tensor> some = {{"a.weight", at::ones({2, 3})},
                                                  {"b", at::zeros({}, at::kLong)},
                                                  {"c", at::ones({3}, at::kBool)},
                                                  {"d", at::ones({0, 4}, at::kHalf)}};
  seed_file("safetensors", "some.safetensors", [&](const fs::path& path) {
    write_safetensors(path, some, {{"format", "pt"}});
  });
  seed_file(
      "checkpoint",
      "checkpoint.safetensors",
      [&](const fs::path& path) {
        write_checkpoint(path, {some, some, {}, {{"epoch", "3"}}});
      },
      "#");
  const fs::path cache = write_small_cache(scratch() / "cache");
  seed("prepared_cache", "manifest", read_text(cache_manifest(cache)));
  seed("prepared_cache", "case", "#" + read_text(cache_case_file(cache, "a")));
  const fs::path pictures = write_small_picture_cache(scratch() / "pictures");
  seed("picture_cache", "manifest", read_text(pictures / "cache.json"));
  seed("picture_cache", "index", "#" + read_text(pictures / "items.safetensors"));
  seed("picture_cache", "shard", "+" + read_text(picture_shard(pictures, 0)));
}

std::string npy(const std::string& type, const std::string& shape, size_t bytes) {
  std::string header =
      "{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + ", }";
  header.resize(118, ' ');
  return std::string("\x93NUMPY\1\0\x76\0", 10) + header + std::string(bytes, '\1');
}

void arrays() {
  const std::pair<const char*, size_t> types[] = {{"<f4", 24}, {"|u1", 6}, {"<u2", 12}, {"|b1", 6}};
  for (const auto& [type, bytes] : types) {
    const std::string array = npy(type, "(2, 3)", bytes);
    seed("npy", type + 1, array);
    seed("npz", type + 1, zip_of({{"image.npy", array}, {"label.npy", array}}));
  }
}

void pickles(const fs::path& repository) {
  for (const char* name : {"checkpoint", "mixed", "module", "plain_protocol4"}) {
    const fs::path path = repository / "tests/data/weights" / (std::string(name) + ".pth");
    caffe2::serialize::PyTorchStreamReader reader(path.string());
    const auto [data, size] = reader.getRecord("data.pkl");
    const std::string pickle(static_cast<const char*>(data.get()), size);
    seed("pickle", name, pickle);
    seed("weights", std::string(name) + ".pkl", pickle);
    seed("weights", std::string(name) + ".pth", read_text(path));
  }
}

void images() {
  const at::Tensor voxels = at::arange(40, at::kFloat).view({1, 2, 4, 5});
  const auto write = [&](const at::Tensor& values, int64_t depth) {
    return [values, depth](const fs::path& path) { write_image(path, values, small_grid(depth)); };
  };
  for (const auto& [name, type] :
       {std::pair{"float.nii", at::kFloat}, {"bytes.nii", at::kByte}, {"words.nii.gz", at::kShort}})
    seed_file("nifti", name, write(voxels.to(type), 2));
  std::string pair = read_text(scratch() / "bytes.nii");
  pair.erase(348, 4);
  std::memset(&pair[108], 0, 4);
  pair[345] = 'i';
  seed("nifti", "pair", pair);
  for (const char* name : {"bytes.nrrd", "bytes.mha"})
    seed_file("nrrd_mha", name, write(voxels.to(at::kByte), 2));
  seed("nrrd_mha",
       "plain.mha",
       "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
       "CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
       "ElementSpacing = 1 1 1\nDimSize = 2 2 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
       "abcd");
  seed("nrrd_mha",
       "plain.nrrd",
       "NRRD0004\ntype: unsigned char\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 1\n"
       "space directions: (1,0,0) (0,1,0) (0,0,1)\nkinds: domain domain domain\nencoding: raw\n"
       "space origin: (0,0,0)\n\nabcd");
  const at::Tensor colors = at::arange(60).view({3, 1, 4, 5}).to(at::kByte);
  for (const char* name : {"color.png", "color.jpg", "color.tif", "color.bmp"})
    seed_file("picture", name, write(colors, 1));
  seed_file("picture", "deep.png", write(voxels.narrow(1, 0, 1).to(at::kUInt16), 1));
}

// The same pixels in every encoding that DCMTK writes.
void dicoms() {
  const auto slice = test::slices_of(small_grid(1))[0];
  const std::pair<const char*, E_TransferSyntax> plain[] = {
      {"plain", EXS_LittleEndianExplicit},
      {"implicit", EXS_LittleEndianImplicit},
      {"big", EXS_BigEndianExplicit},
      {"deflated", EXS_DeflatedLittleEndianExplicit}};
  for (const auto& [name, syntax] : plain)
    seed_file("dicom", name, [&, syntax = syntax](const fs::path& path) {
      test::write_slice(path, slice, syntax);
    });
  DcmRLEEncoderRegistration::registerCodecs();
  DJEncoderRegistration::registerCodecs();
  DJLSEncoderRegistration::registerCodecs();
  const std::pair<const char*, E_TransferSyntax> packed[] = {
      {"rle", EXS_RLELossless}, {"jpeg", EXS_JPEGProcess14SV1}, {"jpegls", EXS_JPEGLSLossless}};
  for (const auto& [name, syntax] : packed) {
    DcmFileFormat format;
    format.loadFile((scratch() / "plain").c_str());
    format.getDataset()->chooseRepresentation(syntax, nullptr);
    seed_file("dicom", name, [&, syntax = syntax](const fs::path& path) {
      format.saveFile(path.c_str(), syntax);
    });
  }
  // Colours, a palette, and several frames with their own places.
  const auto changed = [&](const char* name, const auto& change) {
    DcmFileFormat format;
    format.loadFile((scratch() / "plain").c_str());
    format.loadAllDataIntoMemory();
    DcmDataset& item = *format.getDataset();
    change(item);
    seed_file("dicom", name, [&](const fs::path& path) {
      format.saveFile(path.c_str(), EXS_LittleEndianExplicit);
    });
  };
  const auto octets = [](DcmItem& item, unsigned long count) {
    const std::vector<Uint8> pixels(count, 7);
    item.putAndInsertUint16(DCM_BitsAllocated, 8);
    item.putAndInsertUint16(DCM_BitsStored, 8);
    item.putAndInsertUint16(DCM_HighBit, 7);
    item.putAndInsertUint16(DCM_PixelRepresentation, 0);
    item.putAndInsertUint8Array(DCM_PixelData, pixels.data(), count);
  };
  changed("ybr", [&](DcmItem& item) {
    octets(item, 40);
    item.putAndInsertUint16(DCM_SamplesPerPixel, 3);
    test::put(item, DCM_PhotometricInterpretation, "YBR_FULL_422");
  });
  changed("planes", [&](DcmItem& item) {
    octets(item, 60);
    item.putAndInsertUint16(DCM_SamplesPerPixel, 3);
    item.putAndInsertUint16(DCM_PlanarConfiguration, 1);
    test::put(item, DCM_PhotometricInterpretation, "RGB");
  });
  changed("palette", [&](DcmItem& item) {
    octets(item, 20);
    test::put(item, DCM_PhotometricInterpretation, "PALETTE COLOR");
    const Uint16 descriptor[] = {8, 0, 16}, table[] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (const auto& tag : {DCM_RedPaletteColorLookupTableDescriptor,
                            DCM_GreenPaletteColorLookupTableDescriptor,
                            DCM_BluePaletteColorLookupTableDescriptor})
      item.putAndInsertUint16Array(tag, descriptor, 3);
    for (const auto& tag : {DCM_RedPaletteColorLookupTableData,
                            DCM_GreenPaletteColorLookupTableData,
                            DCM_BluePaletteColorLookupTableData})
      item.putAndInsertUint16Array(tag, table, 8);
  });
  changed("floats", [&](DcmItem& item) {
    const std::vector<Float32> pixels(20, 0.5);
    item.putAndInsertUint16(DCM_BitsAllocated, 32);
    item.putAndInsertUint16(DCM_BitsStored, 32);
    item.findAndDeleteElement(DCM_PixelData);
    item.putAndInsertFloat32Array(DCM_FloatPixelData, pixels.data(), pixels.size());
  });
  changed("frames", [&](DcmItem& item) {
    octets(item, 40);
    test::put(item, DCM_NumberOfFrames, "2");
    for (long i = 0; i < 2; ++i) {
      DcmItem *frame = nullptr, *place = nullptr;
      item.findOrCreateSequenceItem(DCM_PerFrameFunctionalGroupsSequence, frame, i);
      frame->findOrCreateSequenceItem(DCM_PlanePositionSequence, place, 0);
      test::put(
          *place, DCM_ImagePositionPatient, test::decimals({0, 0, 2.0 * static_cast<double>(i)}));
    }
  });
  changed("lut", [&](DcmItem& item) {
    octets(item, 20);
    DcmItem* lut = nullptr;
    item.findOrCreateSequenceItem(DCM_ModalityLUTSequence, lut, 0);
    const Uint16 descriptor[] = {4, 0, 16}, table[] = {0, 10, 20, 30};
    lut->putAndInsertUint16Array(DCM_LUTDescriptor, descriptor, 3);
    lut->putAndInsertUint16Array(DCM_LUTData, table, 4);
  });
  const float places[] = {0, 0, 0, 2, 0, 4, 0, 7, 0, 7};
  seed("dicom_slices", "uneven", {reinterpret_cast<const char*>(places), sizeof places});
}

}  // namespace

void one_input(std::string_view) {}

}  // namespace vireo::fuzz

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: make_seeds FOLDER REPOSITORY\n";
    return 2;
  }
  using namespace vireo::fuzz;
  seeds = arguments[1];
  texts();
  configurations(arguments[2]);
  tensors();
  arrays();
  pickles(arguments[2]);
  images();
  dicoms();
  std::filesystem::remove_all(scratch());
}
