#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "vision/io/segmentation/segment_description.h"

namespace vireo {

/// What a data set's owner says of the segmentations made for it, by the names of dcmqi's
/// seg-schema.json.
struct SegmentationMetadata {
  std::string series_description = "Segmentation";
  int64_t series_number = 300;
  int64_t instance_number = 1;
  std::string content_label = "SEGMENTATION";  ///< CS: A-Z, 0-9, space, underscore; at most 16
  std::string content_description = "Image segmentation";
  std::string content_creator_name;  ///< a person's name (PN); may be empty
  std::string body_part_examined;    ///< CS; empty: as in the source
  /// Written where one is given.
  std::string trial_coordinating_center, trial_series_id, trial_time_point_id;
  std::vector<SegmentDescription> segments;  ///< in the order of the file
};

/// Reads a JSON file of dcmqi's schema
/// (https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/seg-schema.json): unknown
/// fields are refused, required ones demanded, values checked. Beyond the schema, as dcmqi's own
/// reader: SegmentLabel (the name; else SegmentDescription, else the type's meaning), and
/// TrackingIdentifier with TrackingUniqueIdentifier. A segment without colour gets label_color.
/// All lists of segmentAttributes describe one label map, so that a labelID may occur once only;
/// segmentationFileName is not used. Throws DataError naming the file and the field.
SegmentationMetadata read_dcmqi_metadata(const std::filesystem::path& path);

}  // namespace vireo
