#pragma once

#include <vector>

#include "vision/image/geometry.h"
#include "vision/io/dicom/dicom_series.h"

// Which images of a series the planes of a label map were made from.
namespace vireo {

/// Whether all slices have a place in a common frame of reference.
bool lies_in_patient(const DicomSeries& source);

/// The files that hold the slices_read() of a series, in the series' order.
std::vector<const DicomFile*> files_read(const DicomSeries& source);

/// For each plane z of the grid the slices that it was made from: those nearer to it than half its
/// step, or, in a gap, the nearest one on each side.
std::vector<std::vector<DicomSlice>> sources_of_planes(const DicomSeries& source,
                                                       const Geometry& grid);

}  // namespace vireo
