#include "apps/engine/training_config.h"
#include "datasets/data_config.h"
#include "datasets/picture_data_config.h"
#include "tests/fuzz/fuzz.h"
#include "vision/core/config_table.h"

// A configuration; what stands before a zero byte is a --set. Whatever is accepted must be written
// so that it can be read again.
void vireo::fuzz::one_input(std::string_view bytes) {
  const size_t zero = bytes.find('\0');
  std::vector<std::string> overrides;
  if (zero != std::string_view::npos) {
    overrides.emplace_back(bytes.substr(0, zero));
    bytes.remove_prefix(zero + 1);
  }
  const auto read = [&](bool pictures) {
    std::string resolved;
    read_or_refuse([&] {
      ConfigTable all = ConfigTable::from_text(bytes, "fuzzed.toml", overrides);
      if (pictures)
        PictureDataConfig::from_table(all.table("data"), "runs");
      else
        DataConfig::from_table(all.table("data"), "runs");
      TrainingConfig::from_config(all.table("train"));
      ValidationConfig::from_config(all.table("validation"));
      all.text("name", "");
      resolved = all.resolved_text();
      all.finish();
    });
    if (!resolved.empty()) ConfigTable::from_text(resolved, "resolved.toml");
  };
  read(false);
  read(true);
}
