#include "vision/io/dicom/dicom_time_points.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <utility>

namespace vireo {
namespace {

using Problem = DicomSeries::Problem;

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
      const std::vector<double>& moments = series.frame(slice).moments;
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
  const size_t told = series.frame(copies.places[0][0]).moments.size();
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

}  // namespace

std::vector<DicomSeries> time_points_of(const DicomSeries& series) {
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

}  // namespace vireo
