#include "models/weights/pickle_import.h"
#include "tests/fuzz/fuzz.h"

// A file of torch.save; bytes that are no archive become the data.pkl of one.
void vireo::fuzz::one_input(std::string_view bytes) {
  const auto path =
      write_bytes("a.pth",
                  bytes.starts_with("PK") ? std::string(bytes)
                                          : zip_of({{"a/data.pkl", std::string(bytes)},
                                                    {"a/data/0", std::string(64, 1)},
                                                    {"a/version", "3\n"}}));
  read_or_refuse([&] {
    ImportedWeights weights = read_pickled_weights(path);
    for (const auto& [name, tensor] : weights.tensors) look_at(tensor);
    strip_wrapper_prefixes(weights, [](const std::string&) { return false; });
  });
}
