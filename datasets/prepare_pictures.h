#pragma once

#include "datasets/picture_data_config.h"
#include "datasets/picture_set.h"
#include "datasets/prepare_dataset.h"

namespace vireo {

/// Reads and checks a classification data set and writes config.cache. Every broken file is named
/// with its reason, in one message: left out with a warning (also in broken.txt in the cache), or
/// refused, as the configuration says. Returns at once when the cache already holds what this would
/// make from these files (told by their names, sizes and times). Shards of an interrupted run are
/// kept; the result is the same, byte for byte.
///
/// In the report, `cases` are pictures. Throws DataError and Interrupted.
PrepareReport prepare_pictures(const PictureDataConfig& config, const PrepareOptions& options = {});

}  // namespace vireo
