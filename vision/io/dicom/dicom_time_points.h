#pragma once

#include <vector>

#include "vision/io/dicom/dicom_series.h"

namespace vireo {

/// The volumes of a series with several slices at every place: time points or weightings that no
/// attribute of their kind tells apart. Where every place holds as many, they are put in order by
/// dimension indices, trigger, reference or acquisition times or, failing these, by instance
/// numbers that run through one volume, or one place, after the other; the first of each place make
/// the first volume, "NAME_volume_1", and so on. What none of these tells apart stays one series,
/// with a problem that says so; any other series is returned as it is.
std::vector<DicomSeries> time_points_of(const DicomSeries& series);

}  // namespace vireo
