#include "vision/io/dicom/dicom_scan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "vision/core/error.h"
#include "vision/io/dicom/dicom_folder.h"
#include "vision/io/dicom/dicom_time_points.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using Problem = DicomSeries::Problem;

// Planes are one where their axes differ by no more than rounding to three decimals would explain.
constexpr double kSameDirection = 1e-3;
constexpr double kSameSpacing = 1e-3;  // relative
// Frames of one file times volumes that they belong to.
constexpr size_t kMostDescriptions = 4'000'000;

bool is_placed(const DicomFrame& frame) {
  return frame.position_lps_mm.has_value() && frame.axes_lps_xy.has_value();
}

bool same_plane(const DicomFrame& a, const DicomFrame& b) {
  if (a.axes_lps_xy.has_value() != b.axes_lps_xy.has_value() ||
      a.spacing_mm_yx.has_value() != b.spacing_mm_yx.has_value() ||
      a.position_lps_mm.has_value() != b.position_lps_mm.has_value())
    return false;
  if (a.axes_lps_xy)
    for (int axis = 0; axis < 2; ++axis)
      for (int i = 0; i < 3; ++i)
        if (std::abs((*a.axes_lps_xy)[axis][i] - (*b.axes_lps_xy)[axis][i]) > kSameDirection)
          return false;
  if (a.spacing_mm_yx)
    for (int i = 0; i < 2; ++i)
      if (std::abs((*a.spacing_mm_yx)[i] - (*b.spacing_mm_yx)[i]) >
          kSameSpacing * (*a.spacing_mm_yx)[i])
        return false;
  return true;
}

// What must be equal, letter by letter, within a group. A frame that lies nowhere goes with those
// of its own file alone, but for a scanner's slices: these lack what they should have.
std::string group_key(const DicomFile& file, const DicomFrame& frame) {
  std::string key = file.series_uid;
  // Without a series' name, what lies in other folders or is of other studies is another.
  if (key.empty())
    key = file.study_uid + "|" + file.patient_id + "|" + file.path.parent_path().string();
  for (const int64_t number : {file.rows, file.columns, int64_t{file.channels()}})
    key += "|" + std::to_string(number);
  key += "|" + file.image_type + "|" + frame.kind;
  if (!is_placed(frame) && !file.is_tomographic()) key += "|" + file.path.string();
  return key;
}

// The frames of a file that belong together, by key and plane.
std::vector<std::pair<std::string, std::vector<size_t>>> volumes_of(const DicomFile& file) {
  std::vector<std::pair<std::string, std::vector<size_t>>> volumes;
  std::map<std::string, std::vector<size_t>> by_key;  // places in `volumes`
  for (size_t f = 0; f < file.frames.size(); ++f) {
    const std::string key = group_key(file, file.frames[f]);
    std::vector<size_t>& alike = by_key[key];
    const auto at = std::find_if(alike.begin(), alike.end(), [&](size_t volume) {
      return same_plane(file.frames[volumes[volume].second[0]], file.frames[f]);
    });
    if (at == alike.end()) {
      alike.push_back(volumes.size());
      volumes.push_back({key, {f}});
    } else {
      volumes[*at].second.push_back(f);
    }
  }
  return volumes;
}

// Studies, patients and frames of reference of one series' name: every one with slices of its own
// is a series by itself. Single slices that differ so have places that cannot be compared.
std::vector<DicomSeries> by_origin(const DicomSeries& group) {
  using Origin = std::array<std::string, 3>;
  const auto origin_of = [](const DicomFile& file) {
    return Origin{file.study_uid, file.patient_id, file.frame_of_reference_uid};
  };
  std::array<std::set<std::string>, 3> values;
  for (const DicomFile& file : group.files)
    for (size_t i = 0; i < values.size(); ++i)
      if (!origin_of(file)[i].empty()) values[i].insert(origin_of(file)[i]);
  std::map<Origin, std::vector<DicomSlice>> origins;
  for (const DicomSlice& slice : group.slices) {
    Origin origin = origin_of(group.files[slice.file]);
    // What is not told is no other.
    for (size_t i = 0; i < values.size(); ++i)
      if (origin[i].empty() && values[i].size() == 1) origin[i] = *values[i].begin();
    origins[origin].push_back(slice);
  }
  if (origins.size() < 2) return {group};
  std::vector<DicomSeries> parts;
  for (const auto& [origin, slices] : origins) {
    DicomSeries part;
    for (const DicomSlice& slice : slices) {
      const DicomFile& file = group.files[slice.file];
      if (part.files.empty() || part.files.back().path != file.path) part.files.push_back(file);
      part.slices.push_back({part.files.size() - 1, slice.frame, 0});
    }
    parts.push_back(std::move(part));
  }
  if (std::all_of(parts.begin(), parts.end(), [](const DicomSeries& part) {
        return part.slices.size() > 1;
      }))
    return parts;
  DicomSeries mixed = group;
  std::string text;
  const char* names[] = {"StudyInstanceUID", "PatientID", "FrameOfReferenceUID"};
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i].size() > 1)
      text +=
          (text.empty() ? "" : ", ") + std::to_string(values[i].size()) + " values of " + names[i];
  mixed.problems.push_back(
      {Problem::Kind::kOther,
       "its slices have one SeriesInstanceUID but " + text +
           ", so their places cannot be compared. Give the files of one of them alone"});
  return {mixed};
}

// Slices of the same series whose place or pixel size is not known are missing from the others.
void note_unplaced_siblings(std::vector<DicomSeries>& alike) {
  std::vector<std::string> unplaced;
  bool placed = false;
  for (const DicomSeries& series : alike)
    for (const DicomSlice& slice : series.slices)
      if (const DicomFrame& frame = series.frame(slice); frame.unplaced.empty())
        placed = true;
      else
        unplaced.push_back(series.files[slice.file].path.filename().string() + " (" +
                           frame.unplaced + ")");
  if (!placed || unplaced.empty()) return;
  for (DicomSeries& series : alike)
    series.problems.push_back(
        {Problem::Kind::kOther,
         "slices of this series cannot be put in their places: " + listed(unplaced)});
}

// A file that cannot be read may be a slice of a series that would pass without it.
void note_broken_siblings(const std::vector<LeftOutFile>& broken, std::vector<DicomSeries>& all) {
  struct Folder {
    std::set<std::string> series, extensions;
    std::set<fs::path> files;
  };
  std::map<fs::path, Folder> folders;
  for (const DicomSeries& series : all)
    for (const DicomFile& file : series.files) {
      Folder& folder = folders[file.path.parent_path()];
      folder.series.insert(file.series_uid);
      folder.extensions.insert(dicom_extension(file.path));
      folder.files.insert(file.path);
    }
  for (const LeftOutFile& file : broken) {
    const fs::path beside = file.path.parent_path();
    const Folder& folder = folders[beside];
    const std::optional<std::string> uid = series_uid_of_broken(file.path);
    const bool alone = folder.series.size() == 1 && folder.files.size() > 1 &&
                       folder.extensions.contains(dicom_extension(file.path));
    for (DicomSeries& series : all) {
      const DicomFile& first = series.first_file();
      if (uid ? !uid->empty() && *uid == first.series_uid
              : alone && first.path.parent_path() == beside)
        series.problems.push_back(
            {Problem::Kind::kOther,
             "a file of this series cannot be read, so a slice may be missing: " +
                 file.path.filename().string() + " " + file.reason +
                 ". Copy it again, or take it away to go on without it"});
    }
  }
}

// For file names: letters of any script, digits, '-', '.' and '_', and room for what is appended.
std::string plain(std::string text) {
  constexpr size_t kLongest = 120;
  const auto continues = [&](size_t at) {
    return (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80;
  };
  size_t length = std::min(text.size(), kLongest);
  while (length < text.size() && length > 0 && continues(length)) --length;
  text.resize(length);
  std::string name;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool kept = byte >= 0x80 || std::isalnum(byte) || c == '-' || c == '.';
    if (kept)
      name += c;
    else if (!name.empty() && name.back() != '_')
      name += '_';
  }
  while (!name.empty() && (name.back() == '_' || name.back() == '.')) name.pop_back();
  return name;
}

// A series is named after its folder; several of one folder also by number and description, and
// what these leave equal by a count.
void name_all(const fs::path& root, std::vector<DicomSeries>& all) {
  std::map<std::string, size_t> folders, names;
  const auto folder_of = [&](const DicomSeries& series) {
    const fs::path folder = fs::absolute(series.first_file().path).parent_path();
    const std::string below = plain(fs::relative(folder, fs::absolute(root)).string());
    const fs::path base = fs::is_directory(root) ? fs::weakly_canonical(root) : root;
    const std::string own =
        plain(fs::is_directory(root) ? base.filename().string() : base.stem().string());
    return !below.empty() ? below : !own.empty() ? own : "series";
  };
  for (const DicomSeries& series : all) ++folders[folder_of(series)];
  for (DicomSeries& series : all) {
    const std::string suffix = series.name;
    const DicomFile& file = series.first_file();
    series.name = folder_of(series);
    if (folders[series.name] > 1) {
      std::string more = plain(std::to_string(file.series_number) + "_" + file.series_description);
      series.name += (series.name.empty() ? "" : "_") + more;
    }
    series.name += suffix;
    ++names[series.name];
  }
  std::map<std::string, size_t> used;
  for (DicomSeries& series : all) {
    if (names[series.name] < 2) continue;
    std::string counted;
    do {
      counted = series.name + "_" + std::to_string(++used[series.name]);
    } while (names.contains(counted));
    series.name = counted;
  }
  std::sort(all.begin(), all.end(), [](const DicomSeries& a, const DicomSeries& b) {
    return a.name < b.name;
  });
}

bool is_picture_of_patient(const DicomFile& file) {
  // Segmentations and parametric maps are results, not images to work on.
  return file.modality != "SEG" && file.modality != "RTDOSE" && file.modality != "SM";
}

}  // namespace

DicomScan scan_dicom(const fs::path& path) {
  DicomScan scan;
  std::vector<LeftOutFile> broken;
  std::map<std::string, std::vector<DicomSeries>> groups;
  for (const fs::path& file_path : dicom_files(path, &broken)) {
    DicomFile file;
    try {
      file = read_dicom_header(file_path);
    } catch (const DataError& error) {
      const std::string before = file_path.string() + ": ", what = error.what();
      broken.push_back({file_path, what.starts_with(before) ? what.substr(before.size()) : what});
      continue;
    }
    if (file.is_localizer() || !is_picture_of_patient(file)) {
      scan.left_out.push_back(file_path.string() + ": " +
                              (file.is_localizer()
                                   ? "a localiser"
                                   : "no image of a patient: modality " + file.modality));
      continue;
    }
    const auto volumes = volumes_of(file);
    // Each of them keeps a copy of the file's description.
    if (volumes.size() * file.frames.size() > kMostDescriptions) {
      scan.left_out.push_back(file_path.string() + ": its " + std::to_string(file.frames.size()) +
                              " frames belong to " + std::to_string(volumes.size()) +
                              " volumes, which are too many");
      continue;
    }
    for (const auto& [key, frames] : volumes) {
      const DicomFrame& first = file.frames[frames[0]];
      std::vector<DicomSeries>& alike = groups[key];
      auto at = std::find_if(alike.begin(), alike.end(), [&](const DicomSeries& group) {
        return same_plane(group.frame(group.slices[0]), first);
      });
      if (at == alike.end()) at = alike.insert(alike.end(), DicomSeries{});
      at->files.push_back(file);
      for (const size_t f : frames) at->slices.push_back({at->files.size() - 1, f, 0});
    }
  }
  for (const LeftOutFile& file : broken)
    scan.left_out.push_back(file.path.string() + ": " + file.reason);
  std::sort(scan.left_out.begin(), scan.left_out.end());
  for (auto& [key, alike] : groups) {
    std::vector<DicomSeries> volumes;
    for (const DicomSeries& group : alike)
      for (DicomSeries& part : by_origin(group)) {
        const std::vector<Problem> mixed = std::move(part.problems);
        arrange_slices(part);
        for (DicomSeries& series : time_points_of(part)) {
          series.problems.insert(series.problems.end(), mixed.begin(), mixed.end());
          volumes.push_back(std::move(series));
        }
      }
    note_unplaced_siblings(volumes);
    std::move(volumes.begin(), volumes.end(), std::back_inserter(scan.series));
  }
  note_broken_siblings(broken, scan.series);
  name_all(path, scan.series);
  return scan;
}

void refuse_without_series(const fs::path& path, const DicomScan& scan) {
  if (!scan.series.empty() || scan.left_out.empty()) return;
  const std::string of_file = path.string() + ": ";
  const std::string& first = scan.left_out[0];
  if (first.starts_with(of_file)) throw DataError(path, first.substr(of_file.size()));
  throw DataError(path, "holds no image that can be read; left out: " + listed(scan.left_out));
}

}  // namespace vireo
