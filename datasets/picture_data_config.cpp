#include "datasets/picture_data_config.h"

#include <set>

#include <nlohmann/json.hpp>

namespace vireo {

PictureDataConfig PictureDataConfig::from_table(ConfigTable table,
                                                const std::filesystem::path& run_folder) {
  PictureDataConfig c;
  c.folder = table.path("folder");
  const std::string format =
      table.choice("format", "auto", {"auto", "folders", "csv", "lists", "medmnist"});
  c.format = format == "folders"    ? Format::kFolders
             : format == "csv"      ? Format::kCsv
             : format == "lists"    ? Format::kLists
             : format == "medmnist" ? Format::kMedmnist
                                    : Format::kAuto;
  c.name = table.text("name", "");
  c.class_names = table.texts("classes", {});
  if (std::set<std::string>(c.class_names.begin(), c.class_names.end()).size() !=
      c.class_names.size())
    table.fail("classes", "names a class twice");
  c.multi_label = table.boolean("multi_label", false);
  c.allow_links = table.boolean("allow_links", false);
  c.csv = table.path("csv", "");
  c.path_column = table.text("path_column", "");
  c.label_columns = table.texts("label_columns", {});
  c.patient_column = table.text("patient_column", "");
  c.split_column = table.text("split_column", "");
  if (!c.multi_label && c.label_columns.size() > 1)
    table.fail("label_columns", "names several columns, which needs multi_label = true");
  c.train_list = table.path("train_list", "");
  c.val_list = table.path("val_list", "");
  c.test_list = table.path("test_list", "");
  c.decoded = table.choice("store", "decoded", {"decoded", "files"}) == "decoded";
  c.channels = table.integer("channels", 0, 0, 3);
  if (c.channels == 2) table.fail("channels", "expected 1 (grey), 3 (colour) or 0 (as found)");
  c.depth = table.choice("depth", c.depth, {"auto", "full_scale", "stretch"});
  c.short_side = table.integer("short_side", 0, 0, 1 << 16);
  if (!c.decoded && c.short_side > 0)
    table.fail("short_side", "needs store = \"decoded\": files stay as they are");
  c.skip_broken = table.choice("broken", "skip", {"skip", "refuse"}) == "skip";
  c.folds = table.integer("folds", 5, 2, 1000);
  c.split_seed = table.integer("split_seed", 12345, 0, 0xffffffff);
  c.cache = table.path("cache", (run_folder / "prepared").string());
  c.workers = table.integer("workers", 0, 0, 1024);
  table.finish();
  return c;
}

std::string PictureDataConfig::recipe() const {
  return nlohmann::json{{"format", static_cast<int>(format)},
                        {"name", name},
                        {"classes", class_names},
                        {"multi_label", multi_label},
                        {"csv", csv.string()},
                        {"path_column", path_column},
                        {"label_columns", label_columns},
                        {"patient_column", patient_column},
                        {"split_column", split_column},
                        {"train_list", train_list.string()},
                        {"val_list", val_list.string()},
                        {"test_list", test_list.string()},
                        {"decoded", decoded},
                        {"channels", channels},
                        {"depth", depth},
                        {"short_side", short_side},
                        {"skip_broken", skip_broken},
                        {"folds", folds},
                        {"split_seed", split_seed}}
      .dump();
}

}  // namespace vireo
