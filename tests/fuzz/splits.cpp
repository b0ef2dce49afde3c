#include "datasets/splits.h"

#include "datasets/dataset_json.h"
#include "tests/fuzz/fuzz.h"

void vireo::fuzz::one_input(std::string_view bytes) {
  const auto path = write_bytes("splits_final.json", bytes);
  read_or_refuse([&] {
    const auto folds = folds_from_json(source::DatasetJson(path).json(), path.string());
    to_json(folds);
  });
}
