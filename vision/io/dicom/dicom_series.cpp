#include "vision/io/dicom/dicom_series.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "vision/core/error.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using Problem = DicomSeries::Problem;

// Planes are one where their axes differ by no more than rounding of six decimals would explain.
constexpr double kSameDirection = 1e-4;
constexpr double kSameSpacing = 1e-3;  // relative
// How far a slice may lie from its even place, as a share of the step, and how far the stack may
// lean, in pixels, before it is no regular grid.
constexpr double kEvenStep = 0.02;
constexpr double kStraightPixels = 0.1;
// Slices nearer than this share of the usual step lie at one place.
constexpr double kSamePlace = 0.01;
constexpr double kLeastStepMm = 1e-4;
// Frames of one file times volumes that they belong to.
constexpr size_t kMostDescriptions = 4'000'000;

double dot(const Vector3& a, const Vector3& b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

Vector3 cross(const Vector3& a, const Vector3& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

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

std::string slice_text(const DicomSeries& series, const DicomSlice& slice) {
  const DicomFile& file = series.files[slice.file];
  char place[32];
  std::snprintf(place, sizeof place, " at %.3f mm", slice.along_normal_mm);
  std::string text = file.path.filename().string();
  if (file.frames.size() > 1) text += " frame " + std::to_string(slice.frame + 1);
  return text + place;
}

// The first few of a list, and how many more there are.
std::string listed(const std::vector<std::string>& items) {
  constexpr size_t kShown = 8;
  std::string text;
  for (size_t i = 0; i < std::min(items.size(), kShown); ++i) text += (i ? ", " : "") + items[i];
  if (items.size() > kShown) text += " and " + std::to_string(items.size() - kShown) + " more";
  return text;
}

// Of an even number the lower, since missing slices only make steps longer.
double lower_median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::vector<double> steps_of(const DicomSeries& series) {
  std::vector<double> steps;
  for (size_t i = 1; i < series.slices.size(); ++i)
    steps.push_back(series.slices[i].along_normal_mm - series.slices[i - 1].along_normal_mm);
  return steps;
}

const DicomFrame& frame_at(const DicomSeries& series, const DicomSlice& slice) {
  return series.files[slice.file].frames[slice.frame];
}

// The step between slices that lie at different places.
double usual_step(const DicomSeries& series) {
  std::vector<double> apart;
  for (const double step : steps_of(series))
    if (step > kLeastStepMm) apart.push_back(step);
  return apart.empty() ? 0 : lower_median(std::move(apart));
}

bool find_duplicates(DicomSeries& series, double step) {
  std::vector<std::string> pairs;
  for (size_t i = 1; i < series.slices.size(); ++i)
    if (series.slices[i].along_normal_mm - series.slices[i - 1].along_normal_mm <=
        same_place_mm(step))
      pairs.push_back(slice_text(series, series.slices[i - 1]) + " and " +
                      series.files[series.slices[i].file].path.filename().string());
  if (pairs.empty()) return false;
  const bool all = pairs.size() + 1 == series.slices.size();
  series.problems.push_back(
      {all ? Problem::Kind::kOther : Problem::Kind::kDuplicates,
       (all ? "all slices lie at one place, so they are no volume: " : "slices at one place: ") +
           listed(pairs)});
  return true;
}

bool find_gaps(DicomSeries& series, double step) {
  const auto& slices = series.slices;
  const double first = slices.front().along_normal_mm;
  const double even =
      (slices.back().along_normal_mm - first) / static_cast<double>(slices.size() - 1);
  double worst = 0;
  for (size_t i = 0; i < slices.size(); ++i)
    worst = std::max(worst,
                     std::abs(slices[i].along_normal_mm - first - even * static_cast<double>(i)));
  if (worst <= std::max(0.005, kEvenStep * even)) return false;
  std::vector<std::string> jumps;
  bool whole = true;
  for (size_t i = 1; i < slices.size(); ++i) {
    const double gap = slices[i].along_normal_mm - slices[i - 1].along_normal_mm;
    if (std::abs(gap - step) <= std::max(0.005, kEvenStep * step)) continue;
    whole = whole && gap > step && std::abs(gap / step - std::round(gap / step)) < 2 * kEvenStep;
    char text[64];
    std::snprintf(text, sizeof text, "%.3f mm after ", gap);
    jumps.push_back(text + slice_text(series, slices[i - 1]));
  }
  const std::vector<double> steps = steps_of(series);
  const auto [least, most] = std::minmax_element(steps.begin(), steps.end());
  char usual[96];
  std::snprintf(
      usual, sizeof usual, "steps of %.3f to %.3f mm, mostly %.3f mm; ", *least, *most, step);
  series.problems.push_back({Problem::Kind::kGaps,
                             (whole ? "slices are missing: " : "slices are unevenly spaced: ") +
                                 std::string(usual) + listed(jumps)});
  return true;
}

// Leaning: how far slices are shifted in their planes against the first.
void find_tilt(DicomSeries& series) {
  const Geometry& grid = series.geometry;
  const double pixel = std::min(grid.spacing_mm_zyx[1], grid.spacing_mm_zyx[2]);
  const Vector3 first = *frame_at(series, series.slices.front()).position_lps_mm;
  Vector3 normal, x, y;
  for (int i = 0; i < 3; ++i) {
    normal[i] = grid.direction_lps_from_zyx[i][0];
    y[i] = grid.direction_lps_from_zyx[i][1];
    x[i] = grid.direction_lps_from_zyx[i][2];
  }
  const auto shift_of = [&](const DicomSlice& slice) {
    const Vector3& position = *frame_at(series, slice).position_lps_mm;
    const Vector3 way{position[0] - first[0], position[1] - first[1], position[2] - first[2]};
    return std::array<double, 2>{dot(way, x), dot(way, y)};
  };
  double largest = 0;
  for (const DicomSlice& slice : series.slices)
    largest = std::max(largest, std::hypot(shift_of(slice)[0], shift_of(slice)[1]));
  if (largest <= kStraightPixels * pixel) return;
  const double length =
      series.slices.back().along_normal_mm - series.slices.front().along_normal_mm;
  const auto last = shift_of(series.slices.back());
  double bend = 0;
  for (const DicomSlice& slice : series.slices) {
    const double share = (slice.along_normal_mm - series.slices.front().along_normal_mm) / length;
    bend = std::max(
        bend,
        std::hypot(shift_of(slice)[0] - share * last[0], shift_of(slice)[1] - share * last[1]));
  }
  char text[128];
  if (bend <= kStraightPixels * pixel) {
    constexpr double kDegrees = 180 / 3.14159265358979323846;
    std::snprintf(text,
                  sizeof text,
                  "the stack leans by %.2f degrees (gantry tilt): %.1f mm over %.1f mm",
                  std::atan2(std::hypot(last[0], last[1]), length) * kDegrees,
                  std::hypot(last[0], last[1]),
                  length);
  } else {
    std::snprintf(text,
                  sizeof text,
                  "slices are shifted in their planes by up to %.1f mm, unevenly",
                  largest);
  }
  series.problems.push_back({Problem::Kind::kTilt, text});
}

// The slices of every place, where all places hold as many: time points or weightings that no
// attribute of their kind tells apart.
struct Copies {
  std::vector<std::vector<DicomSlice>> places;
  size_t count = 0;  // at every place
};

// Of every place, what orders its copies.
using PlaceValues = std::vector<std::vector<double>>;

template <typename ValueOf>
PlaceValues values_at(const Copies& copies, const ValueOf& value_of) {
  PlaceValues values;
  for (const auto& slices : copies.places) {
    values.emplace_back();
    for (const DicomSlice& slice : slices) values.back().push_back(value_of(slice));
  }
  return values;
}

bool all_told(const PlaceValues& values) {
  for (const auto& place : values)
    for (const double value : place)
      if (std::isnan(value)) return false;
  return true;
}

bool all_distinct(const PlaceValues& values) {
  return std::all_of(values.begin(), values.end(), [](std::vector<double> place) {
    std::sort(place.begin(), place.end());
    return std::adjacent_find(place.begin(), place.end()) == place.end();
  });
}

// Whether every place holds the same values, and not one alone.
bool same_everywhere(PlaceValues values) {
  for (auto& place : values) std::sort(place.begin(), place.end());
  return values[0].front() != values[0].back() &&
         std::all_of(values.begin(), values.end(), [&](const std::vector<double>& place) {
           return place == values[0];
         });
}

bool are_apart(std::vector<std::pair<double, double>> ranges) {
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i)
    if (ranges[i].first <= ranges[i - 1].second) return false;
  return true;
}

// Whether values run through one volume after the other, or through one place after the other.
bool run_through(PlaceValues values) {
  if (!all_told(values) || !all_distinct(values)) return false;
  std::vector<std::pair<double, double>> by_place, by_copy;
  for (auto& place : values) {
    std::sort(place.begin(), place.end());
    by_place.emplace_back(place.front(), place.back());
    by_copy.resize(place.size(), {INFINITY, -INFINITY});
    for (size_t i = 0; i < place.size(); ++i)
      by_copy[i] = {std::min(by_copy[i].first, place[i]), std::max(by_copy[i].second, place[i])};
  }
  return are_apart(by_copy) || are_apart(by_place);
}

// What orders the copies of every place, most significant first; empty: nothing does.
std::vector<PlaceValues> ordering_of(const DicomSeries& series, const Copies& copies) {
  const auto moment = [&](size_t which) {
    return values_at(copies, [&](const DicomSlice& slice) {
      const std::vector<double>& moments = frame_at(series, slice).moments;
      return which < moments.size() ? moments[which] : NAN;
    });
  };
  const auto ranks_alone = [](const PlaceValues& values) {
    return all_told(values) && all_distinct(values);
  };
  std::vector<PlaceValues> together;
  const auto complete = [&] {
    for (size_t place = 0; place < copies.places.size(); ++place) {
      std::set<std::vector<double>> keys;
      for (size_t i = 0; i < copies.count; ++i) {
        std::vector<double> key;
        for (const PlaceValues& values : together) key.push_back(values[place][i]);
        keys.insert(key);
      }
      if (keys.size() != copies.count) return false;
    }
    return true;
  };
  // Indices, which do not waver, one dimension by the other.
  const size_t told = frame_at(series, copies.places[0][0]).moments.size();
  for (size_t which = kDimensions; which < told; ++which)
    if (PlaceValues values = moment(which); all_told(values) && same_everywhere(values))
      together.push_back(std::move(values));
  if (complete()) return together;
  for (const size_t which : {kTriggerTime, kTriggerDelay, kReferenceTime})
    if (PlaceValues values = moment(which); ranks_alone(values)) return {values};
  // Times may also differ within a volume, and tell volumes apart only where they run through them.
  const PlaceValues instances = values_at(copies, [&](const DicomSlice& slice) {
    const DicomFile& file = series.files[slice.file];
    // One number for all frames of a file is none of theirs.
    return file.frames.size() > 1 ? NAN : static_cast<double>(file.instance_number);
  });
  for (const PlaceValues& values :
       {moment(kAcquisitionTime), moment(kAcquisitionNumber), instances})
    if (run_through(values)) return {values};
  // Two of them, such as trigger times and averages.
  for (const size_t which : {kTriggerTime, kTriggerDelay, kReferenceTime, kAcquisitionNumber})
    if (PlaceValues values = moment(which); all_told(values) && same_everywhere(values))
      together.push_back(std::move(values));
  return complete() ? together : std::vector<PlaceValues>{};
}

// Where every place holds as many slices, the first of each make the first volume, and so on.
std::vector<DicomSeries> untangled(const DicomSeries& series) {
  std::map<int64_t, std::vector<DicomSlice>> places;  // micrometres
  for (const DicomSlice& slice : series.slices)
    places[std::llround(slice.along_normal_mm * 1000)].push_back(slice);
  Copies copies{{}, places.begin()->second.size()};
  std::set<std::string> instances;
  for (const auto& [place, slices] : places) {
    if (slices.size() != copies.count) return {series};
    copies.places.push_back(slices);
    for (const DicomSlice& slice : slices)
      instances.insert(series.files[slice.file].sop_instance_uid + "#" +
                       std::to_string(slice.frame));
  }
  // Copied files are duplicates, not time points.
  if (copies.count < 2 || places.size() < 2 || instances.size() != series.slices.size())
    return {series};
  const std::vector<PlaceValues> ordering = ordering_of(series, copies);
  if (ordering.empty()) {
    DicomSeries tangled = series;
    std::erase_if(tangled.problems, [](const Problem& problem) {
      return problem.kind == Problem::Kind::kDuplicates;
    });
    std::vector<std::string> first;
    for (const DicomSlice& slice : copies.places[0]) first.push_back(slice_text(series, slice));
    tangled.problems.push_back(
        {Problem::Kind::kOther,
         std::to_string(copies.count) + " slices lie at each of " + std::to_string(places.size()) +
             " places, and neither times, dimension indices nor instance numbers tell which belong "
             "together: " +
             listed(first) + ", ... Give the files of one volume alone"});
    return {tangled};
  }
  for (size_t place = 0; place < copies.places.size(); ++place) {
    std::vector<size_t> order(copies.count);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      for (const PlaceValues& values : ordering)
        if (values[place][a] != values[place][b]) return values[place][a] < values[place][b];
      return false;
    });
    std::vector<DicomSlice> ordered;
    for (const size_t i : order) ordered.push_back(copies.places[place][i]);
    copies.places[place] = std::move(ordered);
  }
  std::vector<DicomSeries> volumes;
  for (size_t copy = 0; copy < copies.count; ++copy) {
    DicomSeries one = series;
    one.slices.clear();
    for (const auto& slices : copies.places) one.slices.push_back(slices[copy]);
    one.name += "_volume_" + std::to_string(copy + 1);
    arrange_slices(one);
    volumes.push_back(std::move(one));
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
      if (const DicomFrame& frame = frame_at(series, slice); frame.unplaced.empty())
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

DicomAllowances DicomAllowances::from_names(const std::vector<std::string>& names) {
  DicomAllowances allowed;
  for (const std::string& name : names)
    if (name == "duplicates")
      allowed.duplicates = true;
    else if (name == "resample-gaps")
      allowed.gaps = true;
    else if (name == "tilt")
      allowed.tilt = true;
    else
      throw UsageError("--allow " + name + ": expected duplicates, resample-gaps or tilt");
  return allowed;
}

double same_place_mm(double step_mm) {
  return std::max(kLeastStepMm, kSamePlace * step_mm);
}

void arrange_slices(DicomSeries& series) {
  series.problems.clear();
  const DicomFile& file = series.first_file();
  const DicomFrame& frame = frame_at(series, series.slices[0]);
  if (file.image_type.find("MOSAIC") != std::string::npos)
    series.problems.push_back(
        {Problem::Kind::kOther,
         "a mosaic: slices tiled in one picture. Convert it, for example with "
         "dcm2niix"});
  for (const DicomSlice& slice : series.slices)
    if (const DicomFile& longer = series.files[slice.file]; longer.surplus_bytes > 0) {
      series.problems.push_back(
          {Problem::Kind::kOther,
           longer.path.filename().string() + " holds " + std::to_string(longer.surplus_bytes) +
               " bytes of pixels more than Rows, Columns, frames and bits declare, so these may be "
               "wrong"});
      break;
    }
  Geometry& grid = series.geometry;
  grid.size_zyx = {static_cast<int64_t>(series.slices.size()), file.rows, file.columns};
  if (frame.spacing_mm_yx) {
    grid.spacing_mm_zyx[1] = (*frame.spacing_mm_yx)[0];
    grid.spacing_mm_zyx[2] = (*frame.spacing_mm_yx)[1];
  }
  if (!frame.position_lps_mm || !frame.axes_lps_xy) {
    if (series.slices.size() > 1)
      series.problems.push_back({Problem::Kind::kOther,
                                 std::to_string(series.slices.size()) +
                                     " frames without a place in space (" + frame.unplaced +
                                     "): a film or a set of pictures, no volume"});
    return;
  }
  if (!frame.spacing_mm_yx)
    series.problems.push_back(
        {Problem::Kind::kOther, "the size of its pixels is not known: " + frame.unplaced});
  const auto& [x, y] = *frame.axes_lps_xy;
  const Vector3 normal = cross(x, y);
  for (int i = 0; i < 3; ++i) grid.direction_lps_from_zyx[i] = {normal[i], y[i], x[i]};
  for (DicomSlice& slice : series.slices)
    slice.along_normal_mm = dot(*frame_at(series, slice).position_lps_mm, normal);
  const auto order = [&](const DicomSlice& a, const DicomSlice& b) {
    const DicomFile &f = series.files[a.file], &g = series.files[b.file];
    if (std::abs(a.along_normal_mm - b.along_normal_mm) > 1e-6)
      return a.along_normal_mm < b.along_normal_mm;
    return std::tie(f.instance_number, f.path, a.frame) <
           std::tie(g.instance_number, g.path, b.frame);
  };
  std::sort(series.slices.begin(), series.slices.end(), order);
  grid.origin_lps_mm = *frame_at(series, series.slices[0]).position_lps_mm;
  if (series.slices.size() == 1) {
    if (file.slice_thickness_mm > 0) grid.spacing_mm_zyx[0] = file.slice_thickness_mm;
    return;
  }
  const double step = usual_step(series);
  // Beside duplicates, gaps cannot be told: they are looked for once the duplicates are gone.
  const bool duplicates = find_duplicates(series, step);
  if (step <= 0) return;
  const double length =
      series.slices.back().along_normal_mm - series.slices.front().along_normal_mm;
  const bool even = !duplicates && !find_gaps(series, step);
  grid.spacing_mm_zyx[0] = even ? length / static_cast<double>(series.slices.size() - 1) : step;
  find_tilt(series);
}

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
        return same_plane(frame_at(group, group.slices[0]), first);
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
        for (DicomSeries& series : untangled(part)) {
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
