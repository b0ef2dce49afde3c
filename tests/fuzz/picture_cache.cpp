#include <algorithm>

#include <ATen/Functions.h>

#include "datasets/picture_set.h"
#include "datasets/picture_shards.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/made_caches.h"
#include "vision/core/atomic_file.h"

// A cache of two decoded pictures. The bytes are its manifest or, behind a '#', its index or,
// behind a '+', a shard that an interrupted preparation left.
void vireo::fuzz::one_input(std::string_view bytes) {
  static const std::filesystem::path folder = write_small_picture_cache(scratch() / "pictures");
  static const std::string manifest = read_text(folder / "cache.json"),
                           index = read_text(folder / "items.safetensors");
  if (bytes.starts_with('+')) {
    write_bytes("shards/pictures_0000.safetensors", bytes.substr(1));
    PictureShards shards(scratch() / "shards", kSmallInputs, 2, 1 << 20);
    read_or_refuse(
        [&] { shards.take_over([](int64_t, const at::Tensor& picture) { look_at(picture); }); });
    return;
  }
  const bool is_index = bytes.starts_with('#');
  write_bytes("pictures/cache.json", is_index ? manifest : bytes);
  write_bytes("pictures/items.safetensors", is_index ? bytes.substr(1) : index);
  read_or_refuse([&] { is_picture_cache(folder, kSmallInputs); });
  read_or_refuse([&] {
    const auto decode = [](const std::filesystem::path&, int64_t, const std::string&) {
      return at::zeros({2, 2, 1}, at::kByte);
    };
    const PictureSet set = open_picture_cache(folder, decode);
    for (int64_t fold = 0; fold < std::min<int64_t>(set.fold_count(), 4); ++fold)
      set.training_items(fold);
    for (size_t i = 0; i < set.items.size(); ++i) look_at(set.picture(static_cast<int64_t>(i)));
  });
}
