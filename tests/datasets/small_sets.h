#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <ATen/Functions.h>

#include "vision/io/image_file.h"

// Data sets of a few voxels, made where a test wants them.
namespace vireo::test {

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline Geometry small_grid() {
  Geometry grid;
  grid.size_zyx = {4, 6, 8};
  grid.spacing_mm_zyx = {3, 1, 1};
  return grid;
}

/// A label map with a box of each class 1..classes.
inline at::Tensor small_labels(int64_t classes) {
  at::Tensor labels = at::zeros({4, 6, 8}, at::kByte);
  for (int64_t k = 1; k <= classes; ++k) labels.narrow(0, k - 1, 2).narrow(1, k, 2) = k;
  return labels;
}

inline at::Tensor small_image(int64_t channels) {
  return at::rand({channels, 4, 6, 8}) * 100 + 1;
}

/// nnU-Net layout: two channels (CT, PET), two classes, `cases` cases case_0, case_1, ...
inline void make_nnunet_set(const std::filesystem::path& folder, int cases) {
  write_text(
      folder / "dataset.json",
      R"({"name": "Small", "channel_names": {"0": "CT", "1": "PET"}, "file_ending": ".nii.gz",
 "labels": {"background": 0, "liver": 1, "tumour": 2}, "numTraining": )" +
          std::to_string(cases) + R"(, "reference": "none"})");
  for (int i = 0; i < cases; ++i) {
    const std::string name = "case_" + std::to_string(i);
    for (const char* channel : {"_0000", "_0001"})
      write_image(folder / "imagesTr" / (name + channel + ".nii.gz"), small_image(1), small_grid());
    write_labels(folder / "labelsTr" / (name + ".nii.gz"), small_labels(2), small_grid());
  }
}

/// Decathlon layout: one 4-D image of two channels per case.
inline void make_msd_set(const std::filesystem::path& folder, int cases) {
  std::string training;
  for (int i = 0; i < cases; ++i) {
    const std::string name = "scan_" + std::to_string(i) + ".nii.gz";
    write_image(folder / "imagesTr" / name, small_image(2), small_grid());
    write_labels(folder / "labelsTr" / name, small_labels(2), small_grid());
    training += (i ? ", " : "") + (R"({"image": "./imagesTr/)" + name) +
                R"(", "label": "./labelsTr/)" + name + "\"}";
  }
  write_text(folder / "dataset.json",
             R"({"name": "Scans", "modality": {"0": "T1", "1": "T2"},
 "labels": {"0": "background", "1": "head", "2": "tail"}, "training": [)" +
                 training + "]}");
}

/// Pictures with 0/255 masks: colour ones, and grey ones where `i` is odd.
inline void make_picture_set(const std::filesystem::path& folder, int cases) {
  for (int i = 0; i < cases; ++i) {
    Geometry grid;
    grid.size_zyx = {1, 10, 12};
    const std::string name = "nuc_" + std::to_string(i) + ".png";
    write_image(folder / "images" / name,
                at::randint(0, 256, {i % 2 ? 1 : 3, 1, 10, 12}).to(at::kByte),
                grid);
    at::Tensor mask = at::zeros({1, 10, 12}, at::kByte);
    mask.narrow(1, 2, 4).narrow(2, 3, 5) = 255;
    write_labels(folder / "masks" / name, mask, grid);
  }
}

}  // namespace vireo::test
