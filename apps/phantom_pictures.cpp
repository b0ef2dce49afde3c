#include "datasets/phantom_pictures.h"

#include <cstdio>
#include <iostream>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "apps/pictures.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/json_text.h"
#include "vision/core/log.h"
#include "vision/core/parallel_tasks.h"
#include "vision/core/progress.h"
#include "vision/io/canvas.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPreviewsPerClass = 8;
constexpr int64_t kPreviewSidePx = 128;

nlohmann::json description_of(const PicturePhantom& request) {
  return {{"made_by", "vireo phantom --pictures"},
          {"version", 1},  // raised whenever the same request gives other pictures
          {"pictures", request.pictures},
          {"seed", request.seed}};
}

bool holds_pictures(const PicturePhantom& request) {
  const fs::path path = request.folder / "phantom.json";
  return fs::exists(path) &&
         nlohmann::json::parse(read_text(path), nullptr, false) == description_of(request);
}

std::string picture_path(int64_t index) {
  char name[48];
  std::snprintf(name, sizeof name, "images/picture_%05ld.png", static_cast<long>(index + 1));
  return name;
}

// A row of examples for each class, under its name.
Canvas preview_of(const std::vector<std::vector<Canvas>>& examples) {
  const auto& names = phantom_picture_classes();
  std::vector<Canvas> rows;
  for (size_t k = 0; k < names.size(); ++k) {
    std::vector<Canvas> cells;
    for (const Canvas& example : examples[k])
      cells.push_back(example.resized(kPreviewSidePx, kPreviewSidePx));
    cells.resize(kPreviewsPerClass, Canvas(kPreviewSidePx, kPreviewSidePx));
    const Canvas pictures = tile(cells, kPreviewsPerClass, 4);
    Canvas row(pictures.width(), pictures.height() + 26);
    row.draw_text(4, 19, names[k], 11);
    row.paste(pictures, 0, 26);
    rows.push_back(row);
  }
  return tile(rows, 1, 6);
}

}  // namespace

void make_phantom_pictures(const PicturePhantom& request) {
  const std::string said = request.folder.string() + ": " + std::to_string(request.pictures) +
                           " pictures of " + std::to_string(phantom_picture_classes().size()) +
                           " classes\n";
  if (holds_pictures(request)) {
    log_info(request.folder.string() + " already holds this data set; nothing to do");
    std::cout << said;
    return;
  }
  make_room(
      request.folder, request.overwrite, {"phantom.json", "labels.csv", "preview.png", "images"});
  std::vector<std::string> lines(static_cast<size_t>(request.pictures));
  const InterruptGuard guard;
  Progress progress("phantom", request.pictures);
  const auto canvas_of = [](const PhantomPicture& made) {
    return Canvas::from_rgb(made.pixels.permute({2, 0, 1}).contiguous(), 0, 255);
  };
  run_parallel(
      request.pictures,
      0,
      [&](int64_t index) {
        const PhantomPicture made = make_phantom_picture(index, request.seed);
        const std::string path = picture_path(index);
        canvas_of(made).write_png(request.folder / path);
        const char* part = made.part == Part::kTrain ? "train"
                           : made.part == Part::kVal ? "val"
                                                     : "test";
        lines[static_cast<size_t>(index)] =
            path + "," + phantom_picture_classes()[static_cast<size_t>(made.label)] + ",patient_" +
            std::to_string(made.patient + 1) + "," + part + "\n";
        progress.advance();
      },
      "run the same command with --overwrite to make the data anew");
  progress.finish();

  std::vector<std::vector<Canvas>> examples(phantom_picture_classes().size());
  for (int64_t index = 0; index < std::min<int64_t>(request.pictures, 100); ++index) {
    const PhantomPicture made = make_phantom_picture(index, request.seed);
    auto& list = examples[static_cast<size_t>(made.label)];
    if (list.size() < kPreviewsPerClass) list.push_back(canvas_of(made));
  }
  preview_of(examples).write_png(request.folder / "preview.png");
  std::string table = "path,label,patient_id,split\n";
  for (const std::string& line : lines) table += line;
  write_text_atomically(request.folder / "labels.csv", table);
  // Last, so that a folder with a phantom.json is complete.
  write_text_atomically(request.folder / "phantom.json", json_document(description_of(request)));
  std::cout << said;
}

}  // namespace vireo
