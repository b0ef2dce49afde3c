// Odd, rare and broken NIfTI, DICOM and NRRD files, against what NiBabel, pydicom and SimpleITK say
// of them. Every file is read in a process of its own, with two seconds and 1 GiB.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/sha256.h"
#include "vision/io/dicom/dicom_scan.h"
#include "vision/io/dicom/dicom_volume.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr double kMostSeconds = 2;
constexpr int64_t kMostMiB = 1024;

// Sound files that are refused on purpose: what they are has no place in a voxel grid, or says too
// little about space, or is compressed in a way that the libraries here do not know.
const std::set<std::string> kRefused = {
    "nifti/derived/affine_sheared_nonorthonormal.nii.gz",  // 2.9 degrees off a rotation
    "nifti/derived/analyze75_int16.hdr",                   // no orientation
    "nifti/derived/analyze75_int16.img",
    "nifti/derived/pair_float32_gz.img.gz",  // its header is not there
    "nifti/nibabel/analyze.hdr",
    "nifti/nibabel/nifti1.hdr",  // headers without voxels
    "nifti/nibabel/nifti2.hdr",
    "nifti/nibabel/row_major.dconn.nii",         // a connectivity matrix
    "nifti/nibabel/test.mgz",                    // another format
    "dicom/pydicom_testfiles/SC_rgb_jpeg.dcm",   // its sequence of fragments has no end
    "dicom/pydicom_testfiles/liver_1frame.dcm",  // one frame is declared, three are described
    "dicom/pydicom_data/HTJ2KLossless_08_RGB.dcm",
    "dicom/pydicom_data/HTJ2K_08_RGB.dcm",
    "dicom/pydicom_data/JLSL_08_07_0_1F.dcm"};
// Broken in a way that nothing tells: a JPEG 2000 stream has no checksum.
const std::string kUndetectable = "dicom/invalid/corrupt_j2k_payload.dcm";

enum class Verdict { kEqual, kNear, kRead, kRefused, kDiffers };

struct Judgement {
  Verdict verdict = Verdict::kRead;
  std::string reason;
};

Judgement differs(const std::string& how) {
  return {Verdict::kDiffers, how};
}

double number(const json& value) {
  return value.is_number() ? value.get<double>() : NAN;
}

// Values as bytes of numpy's type `dtype`; nothing for a type that float32 may not hold exactly.
std::optional<std::string> as_stored(const at::Tensor& values, const std::string& dtype) {
  static const std::map<std::string, at::ScalarType> types = {{"u1", at::kByte},
                                                              {"uint8", at::kByte},
                                                              {"int8", at::kChar},
                                                              {"uint16", at::kUInt16},
                                                              {">u2", at::kUInt16},
                                                              {"int16", at::kShort},
                                                              {">i2", at::kShort},
                                                              {"float32", at::kFloat},
                                                              {">f4", at::kFloat}};
  const auto found = types.find(dtype);
  if (found == types.end()) return std::nullopt;
  const at::Tensor typed = values.contiguous().to(found->second);
  return std::string(static_cast<const char*>(typed.const_data_ptr()), typed.nbytes());
}

Judgement in_range(const at::Tensor& values, const json& range, double relative, double absolute) {
  if (!range.is_array()) return {};
  const at::Tensor finite = values.masked_select(at::isfinite(values));
  const double found[] = {finite.min().item<double>(), finite.max().item<double>()};
  for (size_t i = 0; i < 2; ++i) {
    const double wanted = number(range[i]);
    if (!(std::abs(found[i] - wanted) <= absolute + relative * std::abs(wanted)))
      return differs((i ? "largest value " : "smallest value ") + std::to_string(found[i]) +
                     ", expected " + std::to_string(wanted));
  }
  return {Verdict::kNear, ""};
}

// Millimetres per unit of the header's xyzt_units.
double unit_of(const json& report) {
  switch (report.value("xyzt_units", 0) & 7) {
    case 1:
      return 1000;
    case 3:
      return 0.001;
    default:
      return 1;
  }
}

// How the grid differs from NiBabel's; empty where it does not.
std::string grid_difference(const Geometry& grid, const json& nibabel) {
  const auto& shape = nibabel["shape"];
  for (size_t axis = 0; axis < 3; ++axis)
    if (grid.size_zyx[2 - axis] != (axis < shape.size() ? shape[axis].get<int64_t>() : 1))
      return "another size";
  // Without either form NiBabel centres the image; we leave it at the origin, as ITK does.
  if (nibabel["sform_code"] == 0 && nibabel["qform_code"] == 0) return "";
  const auto& affine = nibabel["affine"];
  const double unit = unit_of(nibabel);
  for (const Vector3 zyx : {Vector3{0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {1, 0, 0}}) {
    if (grid.size_zyx[0] == 1 && zyx[0] != 0) continue;
    const Vector3 lps = grid.lps_from_voxel(zyx);
    for (size_t i = 0; i < 3; ++i) {
      double ras = affine[4 * i + 3];
      for (size_t axis = 0; axis < 3; ++axis)
        ras += affine[4 * i + axis].get<double>() * zyx[2 - axis];
      if (!(std::abs(lps[i] * (i < 2 ? -1 : 1) - ras * unit) <= 1e-4 * unit))
        return "another place in space";
    }
  }
  return "";
}

Judgement judge_nifti(const fs::path& path, const json& report) {
  const Volume volume = read_image(path);
  // The voxel file of a pair has no report of its own.
  const json nibabel = report.value("nibabel", json::object());
  if (!nibabel.contains("data") || !nibabel["data"].contains("dtype")) return {};
  if (const std::string how = grid_difference(volume.geometry, nibabel); !how.empty())
    return differs(how);
  const json& data = nibabel["data"];
  const auto bytes = as_stored(volume.values, data["dtype"].get<std::string>());
  if (bytes && sha256(*bytes) == data["sha256_fortran_order"]) return {Verdict::kEqual, ""};
  if (bytes) return differs("other voxels");
  return in_range(volume.values, data["range"], 1e-6, 0);
}

Judgement judge_nrrd(const fs::path& path, const json& report) {
  const Volume volume = read_image(path);
  const json& itk = report["simpleitk"];
  for (size_t axis = 0; axis < 3; ++axis) {
    bool same =
        volume.geometry.size_zyx[2 - axis] == itk["size"][axis].get<int64_t>() &&
        std::abs(volume.geometry.spacing_mm_zyx[2 - axis] - number(itk["spacing"][axis])) < 1e-5 &&
        std::abs(volume.geometry.origin_lps_mm[axis] - number(itk["origin"][axis])) < 1e-4;
    for (size_t i = 0; i < 3; ++i)
      same = same && std::abs(volume.geometry.direction_lps_from_zyx[i][2 - axis] -
                              number(itk["direction"][3 * i + axis])) < 1e-6;
    if (!same) return differs("another grid");
  }
  if (itk["pixel_type"] != "16-bit signed integer") return {};
  return sha256(*as_stored(volume.values, "int16")) == itk["sha256"]
             ? Judgement{Verdict::kEqual, ""}
             : differs("other voxels");
}

// The numbers that a file holds, before they were rescaled and MONOCHROME1 was turned round.
at::Tensor unscaled(const DicomFile& file, const at::Tensor& values) {
  std::vector<at::Tensor> frames;
  for (int64_t f = 0; f < values.size(0); ++f) {
    const DicomFrame& frame = file.frames[static_cast<size_t>(f)];
    at::Tensor stored = ((values[f].to(at::kDouble) - frame.intercept) / frame.slope).round();
    if (file.is_inverted()) stored = std::ldexp(1.0, file.bits_stored) - 1 - stored;
    frames.push_back(stored.permute({1, 2, 0}));
  }
  return at::stack(frames);
}

// Decoders of lossy data may differ by a grey level or two.
bool is_lossy(const DicomFile& file) {
  for (const char* syntax : {".4.50", ".4.51", ".4.81", ".4.91"})
    if (file.transfer_syntax_uid.ends_with(syntax)) return true;
  return false;
}

Judgement judge_dicom(const fs::path& path, const json& report) {
  const DicomFile file = read_dicom_header(path);
  const at::Tensor values = read_dicom_pixels(file);
  const json& pydicom = report["pydicom"];
  const json pixels = pydicom.is_object() ? pydicom.value("pixels", json()) : json();
  // pydicom leaves palettes and lookup tables alone.
  if (!pixels.contains("sha256") || !pixels["range"].is_array() ||
      file.photometric == "PALETTE COLOR" || file.has_modality_lut)
    return {};
  const auto dtype = pixels.value("dtype", "");
  const bool floats = dtype.find('f') != std::string::npos;
  if (const auto bytes =
          is_lossy(file) || floats ? std::nullopt : as_stored(unscaled(file, values), dtype))
    return sha256(*bytes) == pixels["sha256"] ? Judgement{Verdict::kEqual, ""}
                                              : differs("other pixels");
  const DicomFrame& frame = file.frames[0];
  at::Tensor stored = (values.to(at::kDouble) - frame.intercept) / frame.slope;
  if (file.is_inverted() && !floats) stored = std::ldexp(1.0, file.bits_stored) - 1 - stored;
  return in_range(stored, pixels["range"], 1e-6, is_lossy(file) ? 2.5 : 0);
}

Judgement judge(const fs::path& path, const std::string& name, const json& report) {
  try {
    Judgement result = name.starts_with("nifti/")    ? judge_nifti(path, report)
                       : path.extension() == ".nrrd" ? judge_nrrd(path, report)
                                                     : judge_dicom(path, report);
    if (name == kUndetectable) return {Verdict::kRead, "nothing tells that it is damaged"};
    if (report.value("invalid", false)) return differs("is read, though it is broken");
    if (kRefused.contains(name)) return differs("is read, though it was to be refused");
    // And as a whole: the grid, the order of frames.
    if (!name.starts_with("nifti/"))
      for (const DicomSeries& series : scan_dicom(path).series)
        if (series.problems.empty()) read_dicom_series(series);
    return result;
  } catch (const DataError& error) {
    const std::string reason = error.what();
    // Or the other file of a pair.
    const std::string beside = path.parent_path().string() + "/";
    if (!reason.starts_with(beside)) return differs("refused without its name: " + reason);
    const bool own = reason.starts_with(path.string() + ": ");
    return {Verdict::kRefused, reason.substr(own ? path.string().size() + 2 : beside.size())};
  } catch (const std::exception& error) {
    return differs(std::string("an error that is not ours: ") + error.what());
  }
}

struct Outcome {
  Judgement judgement;
  double seconds = 0;
  int64_t mebibytes = 0;  // taken beyond what this process had
};

int64_t resident_mebibytes() {
  int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE) >> 20;
}

// In a child, so that nothing it does can end the test, limited so that it must end.
Outcome in_child(const std::function<Judgement()>& judge_it) {
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error("no pipe");
  const int64_t before = resident_mebibytes();
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    const rlimit cpu{static_cast<rlim_t>(kMostSeconds) + 1, static_cast<rlim_t>(kMostSeconds) + 1};
    ::setrlimit(RLIMIT_CPU, &cpu);
    const Judgement result = judge_it();
    const std::string text =
        static_cast<char>('0' + static_cast<int>(result.verdict)) + result.reason;
    static_cast<void>(!::write(ends[1], text.data(), text.size()));
    std::_Exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char chunk[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], chunk, sizeof chunk)) > 0;)
    text.append(chunk, static_cast<size_t>(got));
  ::close(ends[0]);
  int status = 0;
  rusage used{};
  ::wait4(child, &status, 0, &used);
  Outcome run;
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  run.seconds = seconds(used.ru_utime) + seconds(used.ru_stime);
  run.mebibytes = std::max<int64_t>(0, (used.ru_maxrss >> 10) - before);
  if (WIFSIGNALED(status))
    run.judgement = differs("its reader was ended by signal " + std::to_string(WTERMSIG(status)));
  else if (text.empty())
    run.judgement = differs("its reader ended without a word");
  else
    run.judgement = {static_cast<Verdict>(text[0] - '0'), text.substr(1)};
  return run;
}

struct Row {
  int files = 0, equal = 0, near = 0, read = 0, refused_broken = 0, refused_sound = 0, no_image = 0,
      differ = 0;
};

// docs/robustness.md is what this prints.
TEST(Robustness, EveryFileIsReadRightOrRefused) {
  VIREO_REQUIRE_REAL_DATA(folder, "robustness");
  const json expected = json::parse(read_text(folder / "expected.json"));
  at::set_num_threads(1);  // a child has no other threads
  std::map<std::string, Row> rows;
  std::ostringstream refusals;
  double longest = 0;
  int64_t largest = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().lexically_relative(folder).string();
    // Beside the folders lies what describes them.
    if (!entry.is_regular_file() || entry.path().parent_path() == folder) continue;
    const json report = expected.value(name, json::object());
    const Outcome run = in_child([&] { return judge(entry.path(), name, report); });
    const auto& [verdict, reason] = run.judgement;
    EXPECT_NE(verdict, Verdict::kDiffers) << name << ": " << reason;
    EXPECT_LE(run.seconds, kMostSeconds) << name;
    EXPECT_LE(run.mebibytes, kMostMiB) << name;
    longest = std::max(longest, run.seconds);
    largest = std::max(largest, run.mebibytes);

    Row& row = rows[name.substr(0, name.find('/', name.find('/') + 1))];
    const json pydicom = report.value("pydicom", json());
    const json pixels = pydicom.is_object() ? pydicom.value("pixels", json()) : json::object();
    const bool image = !pixels.is_null();
    // Marked so, or neither pydicom reads it.
    const bool broken = report.value("invalid", false) || pixels.contains("error");
    ++row.files;
    row.equal += verdict == Verdict::kEqual;
    row.near += verdict == Verdict::kNear;
    row.read += verdict == Verdict::kRead;
    row.differ += verdict == Verdict::kDiffers;
    if (verdict != Verdict::kRefused) continue;
    if (broken)
      ++row.refused_broken;
    else if (!image)
      ++row.no_image;
    else
      ++row.refused_sound;
    if (broken || image) refusals << "| " << name << " | " << reason << " |\n";
    EXPECT_TRUE(broken || !image || kRefused.contains(name)) << name << ": " << reason;
  }
  Row all;
  std::printf(
      "| folder | files | equal | near | read | refused: broken | no image | on purpose | differ "
      "|\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
  const auto print = [](const std::string& name, const Row& row) {
    std::printf("| %s | %d | %d | %d | %d | %d | %d | %d | %d |\n",
                name.c_str(),
                row.files,
                row.equal,
                row.near,
                row.read,
                row.refused_broken,
                row.no_image,
                row.refused_sound,
                row.differ);
  };
  for (const auto& [name, row] : rows) {
    print(name, row);
    for (const auto part : {&Row::files,
                            &Row::equal,
                            &Row::near,
                            &Row::read,
                            &Row::refused_broken,
                            &Row::no_image,
                            &Row::refused_sound,
                            &Row::differ})
      all.*part += row.*part;
  }
  print("all", all);
  std::printf("\nlongest %.2f s of CPU, largest %ld MiB\n\n%s",
              longest,
              static_cast<long>(largest),
              refusals.str().c_str());
  EXPECT_GT(all.equal, 200);
  EXPECT_GT(all.refused_broken, 15);
}

TEST(Robustness, SeriesAreOrderedAsPydicomOrdersThemOrRefused) {
  VIREO_REQUIRE_REAL_DATA(folder, "robustness");
  const json expected = json::parse(read_text(folder / "expected_dicom2nifti_series.json"));
  std::printf("| series | volumes | verdict |\n| --- | --- | --- |\n");
  // By its own readers' names "failing_": two slices are a volume, two planes are two of them.
  const std::set<std::string> sound = {"failing_slicecount_001", "failing_sliceorientation_001"};
  int equal = 0, refused = 0;
  for (const auto& [name, report] : expected.items()) {
    SCOPED_TRACE(name);
    const DicomScan scan = scan_dicom(folder / "dicom/dicom2nifti" / name);
    std::string verdict;
    for (const DicomSeries& series : scan.series)
      for (const DicomSeries::Problem& problem : series.problems)
        if (verdict.empty()) verdict = "refused: " + problem.text;
    refused += !verdict.empty();
    if (name.starts_with("failing_")) {
      EXPECT_EQ(verdict.empty(), sound.contains(name)) << verdict;
    }
    if (verdict.empty() && scan.series.size() == 1 && report["series"].size() == 1) {
      const json& one = report["series"][0];
      const DicomSeries& series = scan.series[0];
      std::vector<std::string> names;
      for (const DicomSlice& slice : series.slices)
        if (series.files.size() > 1)
          names.push_back(series.files[slice.file].path.filename().string());
      if (!names.empty()) {
        EXPECT_EQ(names, one["sorted_files"].get<std::vector<std::string>>());
      }
      const json& pixels = one.value("pixels_sorted_zyx", json::object());
      const Volume volume = read_dicom_series(series);
      if (pixels.contains("range_rescaled")) {
        const double low = number(pixels["range_rescaled"][0]),
                     high = number(pixels["range_rescaled"][1]);
        EXPECT_NEAR(volume.values.min().item<double>(), low, 2.5);
        EXPECT_NEAR(volume.values.max().item<double>(), high, 2.5);
        verdict = "order and range equal";
        ++equal;
      }
    }
    if (verdict.empty()) verdict = scan.series.empty() ? "no image" : "read";
    std::printf("| %s | %zu | %s |\n", name.c_str(), scan.series.size(), verdict.c_str());
  }
  EXPECT_GT(equal, 5);
  EXPECT_GT(refused, 4);
}

}  // namespace
}  // namespace vireo
