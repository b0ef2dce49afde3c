#include "datasets/picture_source.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>
#include <sstream>

#include <ATen/ATen.h>

#include "datasets/enclosure.h"
#include "datasets/npz.h"
#include "datasets/picture_reader.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/utf8.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

std::optional<int64_t> whole_number(const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end || text.empty()) return std::nullopt;
  return value;
}

// A picture with the class's text, before classes are numbered.
struct Row {
  std::string path, label, patient;
  Part part = Part::kTrain;
  int64_t slice = -1;
};

// Numbers the classes: the configuration's, else in order of number or name.
void number_classes(const PictureDataConfig& config,
                    const std::vector<Row>& rows,
                    PictureSource& source) {
  PictureSet& set = source.set;
  set.class_names = config.class_names;
  bool numbers = true;
  std::set<std::string> labels;
  for (const Row& row : rows) labels.insert(row.label);
  for (const std::string& label : labels) numbers = numbers && whole_number(label).has_value();
  if (set.class_names.empty()) {
    set.class_names.assign(labels.begin(), labels.end());
    if (numbers)
      std::sort(set.class_names.begin(), set.class_names.end(), [](const auto& a, const auto& b) {
        return *whole_number(a) < *whole_number(b);
      });
  }
  std::map<std::string, int64_t> number;
  for (size_t k = 0; k < set.class_names.size(); ++k) {
    // Named classes may be numbered in the files.
    if (numbers && !config.class_names.empty()) number[std::to_string(k)] = static_cast<int64_t>(k);
    number[set.class_names[k]] = static_cast<int64_t>(k);
  }
  std::map<std::string, int64_t> patients;
  for (const Row& row : rows) {
    const auto found = number.find(row.label);
    if (found == number.end()) {
      source.problems.push_back(
          {source.folder / row.path,
           "has the class \"" + row.label + "\", which data.classes does not name",
           row.path});
      continue;
    }
    PictureItem item{row.path, found->second, -1, row.part, -1};
    if (!row.patient.empty())
      item.patient =
          patients.emplace(row.patient, static_cast<int64_t>(patients.size())).first->second;
    set.items.push_back(item);
    source.slices.push_back(row.slice);
  }
}

void read_folders(const PictureDataConfig& config, PictureSource& source) {
  std::vector<std::pair<fs::path, Part>> parts;
  for (const auto& entry : fs::directory_iterator(config.folder))
    if (entry.is_directory())
      if (const auto part = part_named(entry.path().filename().string()))
        parts.emplace_back(entry.path(), *part);
  source.has_splits = std::any_of(
      parts.begin(), parts.end(), [](const auto& part) { return part.second == Part::kVal; });
  if (parts.empty()) parts.emplace_back(config.folder, Part::kTrain);
  std::sort(parts.begin(), parts.end());
  std::vector<Row> rows;
  for (const auto& [folder, part] : parts)
    for (const auto& one : fs::directory_iterator(folder)) {
      if (!one.is_directory() || one.path().filename().string().starts_with(".")) continue;
      for (const auto& file : fs::recursive_directory_iterator(one.path()))
        if (file.is_regular_file() && is_named_as_image(file.path()))
          rows.push_back({file.path().lexically_relative(config.folder).string(),
                          one.path().filename().string(),
                          "",
                          part});
    }
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.path < b.path; });
  number_classes(config, rows, source);
}

// Files that a list or table names: inside the folder, and there.
bool is_listed_well(const fs::path& list,
                    int64_t line,
                    const std::string& name,
                    PictureSource& source) {
  const fs::path path = source::inside(source.folder, name, list, "line " + std::to_string(line));
  std::error_code ignored;
  if (fs::exists(path, ignored)) return true;
  source.problems.push_back(
      {path, "is named in " + list.filename().string() + " and does not exist", name});
  return false;
}

void read_lists(const PictureDataConfig& config, PictureSource& source) {
  std::vector<Row> rows;
  for (const auto& [chosen, usual, part] :
       {std::tuple{config.train_list, "train.txt", Part::kTrain},
        {config.val_list, "val.txt", Part::kVal},
        {config.test_list, "test.txt", Part::kTest}}) {
    const fs::path list = config.folder / (chosen.empty() ? fs::path(usual) : chosen);
    std::error_code ignored;
    if (chosen.empty() && !fs::exists(list, ignored)) continue;
    source.descriptions.push_back(list);
    std::istringstream lines(read_text(list));
    int64_t number = 0;
    for (std::string line; std::getline(lines, line);) {
      ++number;
      while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())))
        line.pop_back();
      if (line.empty()) continue;
      const size_t space = line.find_last_of(" \t");
      if (space == std::string::npos)
        throw DataError(list, "line " + std::to_string(number) + " is not \"path label\": " + line);
      std::string path = line.substr(0, space);
      while (!path.empty() && std::isspace(static_cast<unsigned char>(path.back())))
        path.pop_back();
      if (is_listed_well(list, number, path, source))
        rows.push_back({path, line.substr(space + 1), "", part});
    }
    source.has_splits = source.has_splits || part == Part::kVal;
  }
  if (source.descriptions.empty())
    throw DataError(config.folder, "has no train.txt; lists hold \"path label\" a line");
  number_classes(config, rows, source);
}

size_t find_column(const std::vector<std::string>& header,
                   const std::string& chosen,
                   const std::vector<std::string>& usual,
                   const fs::path& csv,
                   const std::string& what) {
  const auto look = [&](const std::string& name) {
    return static_cast<size_t>(std::find(header.begin(), header.end(), name) - header.begin());
  };
  if (!chosen.empty()) {
    if (look(chosen) == header.size())
      throw DataError(csv, "has no column \"" + chosen + "\" for " + what);
    return look(chosen);
  }
  for (const std::string& name : usual)
    if (look(name) < header.size()) return look(name);
  return header.size();
}

fs::path csv_of(const PictureDataConfig& config) {
  return config.folder / (config.csv.empty() ? fs::path("labels.csv") : config.csv);
}

void read_csv(const PictureDataConfig& config, PictureSource& source) {
  const fs::path csv = csv_of(config);
  source.descriptions.push_back(csv);
  const auto lines = parse_csv(read_text(csv), csv);
  if (lines.empty()) throw DataError(csv, "is empty; a header line was expected");
  const std::vector<std::string>& header = lines.front();
  const size_t none = header.size();
  const size_t path = find_column(header,
                                  config.path_column,
                                  {"path", "file", "filename", "image", "image_path"},
                                  csv,
                                  "paths");
  const size_t patient =
      find_column(header, config.patient_column, {"patient_id", "patient"}, csv, "patients");
  const size_t split = find_column(header, config.split_column, {"split", "part"}, csv, "splits");
  const size_t slice = find_column(header, "", {"slice"}, csv, "slices");
  if (path == none)
    throw DataError(csv, "has no column path, file, filename or image; name it in path_column");
  std::vector<size_t> labels;
  for (const std::string& name : config.label_columns)
    labels.push_back(find_column(header, name, {}, csv, "labels"));
  if (labels.empty() && config.multi_label) {
    for (size_t i = 0; i < none; ++i)
      if (i != path && i != patient && i != split && i != slice) labels.push_back(i);
  } else if (labels.empty()) {
    labels.push_back(find_column(header, "", {"label", "class", "target"}, csv, "labels"));
  }
  if (labels.empty() || labels[0] == none)
    throw DataError(csv, "has no column label, class or target; name it in label_columns");

  std::vector<Row> rows;
  std::vector<uint8_t> several;
  for (size_t n = 1; n < lines.size(); ++n) {
    const auto& cells = lines[n];
    const std::string where = "line " + std::to_string(n + 1);
    if (cells.size() != none)
      throw DataError(csv,
                      where + " has " + std::to_string(cells.size()) + " cells; the header has " +
                          std::to_string(none));
    Row row{cells[path], cells[labels[0]], patient < none ? cells[patient] : ""};
    if (split < none) {
      const auto part = part_named(cells[split]);
      if (!part)
        throw DataError(csv, where + ": split \"" + cells[split] + "\" is not train, val or test");
      row.part = *part;
      source.has_splits = source.has_splits || *part == Part::kVal;
    }
    if (slice < none && !cells[slice].empty()) {
      const auto number = whole_number(cells[slice]);
      if (!number || *number < 0)
        throw DataError(csv, where + ": slice \"" + cells[slice] + "\" is no number from 0");
      row.slice = *number;
    }
    if (!is_listed_well(csv, static_cast<int64_t>(n) + 1, row.path, source)) continue;
    if (config.multi_label) {
      for (const size_t column : labels) {
        const auto value = whole_number(cells[column]);
        if (!value || *value < 0 || *value > 1)
          throw DataError(csv,
                          where + ": column \"" + header[column] + "\" holds \"" + cells[column] +
                              "\"; 0 or 1 was expected");
        several.push_back(static_cast<uint8_t>(*value));
      }
      row.label = "0";
    }
    rows.push_back(row);
  }
  if (!config.multi_label) return number_classes(config, rows, source);
  PictureDataConfig one = config;
  one.class_names = {"0"};
  number_classes(one, rows, source);
  source.set.class_names.clear();
  for (const size_t column : labels) source.set.class_names.push_back(header[column]);
  source.set.labels = several;
}

fs::path archive_of(const fs::path& folder) {
  std::error_code ignored;
  if (folder.extension() == ".npz") return folder;
  fs::path found;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".npz") {
      if (!found.empty())
        throw DataError(folder, "holds several .npz archives; give one as data.folder");
      found = entry.path();
    }
  return found;
}

void read_medmnist(const PictureDataConfig& config, PictureSource& source) {
  const fs::path archive = archive_of(config.folder);
  if (archive.empty()) throw DataError(config.folder, "holds no .npz archive");
  source.descriptions.push_back(archive);
  const NpzFile file = NpzFile::open(archive);
  PictureSet& set = source.set;
  std::vector<int64_t> shape;  // of a picture
  int64_t columns = 0, highest = 0;
  for (const auto& [name, part] :
       {std::pair{"train", Part::kTrain}, {"val", Part::kVal}, {"test", Part::kTest}}) {
    const std::string prefix = name;
    if (!file.contains(prefix + "_images")) continue;
    NpzRows images = file.rows(prefix + "_images");
    at::Tensor labels = file.array(prefix + "_labels").to(at::kLong);
    if (labels.dim() == 1) labels = labels.unsqueeze(1);
    const at::IntArrayRef sizes = images.shape();
    if (images.type() != at::kByte || sizes.size() < 3 || sizes.size() > 4 ||
        (sizes.size() == 4 && sizes[3] != 3 && sizes[3] != 1))
      throw DataError(archive,
                      prefix + "_images is " + c10::toString(images.type()) + " " +
                          c10::str(sizes) +
                          "; pictures are Byte [N, H, W] or [N, H, W, 3] (volumes: as NIfTI)");
    if (labels.dim() != 2 || labels.size(0) != sizes[0] || labels.size(1) < 1 ||
        (columns > 0 && labels.size(1) != columns))
      throw DataError(archive, prefix + "_labels does not hold labels for every picture");
    if (!shape.empty() && sizes.slice(1) != at::IntArrayRef(shape))
      throw DataError(archive, "its parts hold pictures of different sizes");
    shape = sizes.slice(1).vec();
    columns = labels.size(1);
    set.multi_label = columns > 1;
    const auto values = labels.accessor<int64_t, 2>();
    for (int64_t i = 0; i < labels.size(0); ++i) {
      for (int64_t k = 0; k < columns; ++k) {
        if (values[i][k] < 0 || values[i][k] > (set.multi_label ? 1 : 65535))
          throw DataError(
              archive,
              prefix + "_labels holds the impossible label " + std::to_string(values[i][k]));
        if (set.multi_label) set.labels.push_back(static_cast<uint8_t>(values[i][k]));
      }
      const int64_t label = set.multi_label ? 0 : values[i][0];
      highest = std::max(highest, label);
      set.items.push_back({prefix + "/" + std::to_string(i), label, -1, part, -1});
    }
    source.has_splits = source.has_splits || part == Part::kVal;
    source.arrays.push_back(std::move(images));
  }
  if (source.arrays.empty())
    throw DataError(archive, "has no train_images; MedMNIST's arrays were expected");
  source.slices.assign(set.items.size(), -1);
  const int64_t classes = set.multi_label ? columns : highest + 1;
  set.class_names = config.class_names;
  if (set.class_names.empty())
    for (int64_t k = 0; k < classes; ++k) set.class_names.push_back(std::to_string(k));
  if (set.multi_label ? set.class_count() != classes : set.class_count() < classes)
    throw DataError(archive,
                    "holds " + std::to_string(classes) + " classes; data.classes names " +
                        std::to_string(set.class_count()));
}

PictureDataConfig::Format recognised(const PictureDataConfig& config) {
  using Format = PictureDataConfig::Format;
  if (config.format != Format::kAuto) return config.format;
  std::error_code ignored;
  if (!archive_of(config.folder).empty()) return Format::kMedmnist;
  if (!config.csv.empty() || fs::exists(csv_of(config), ignored)) return Format::kCsv;
  if (!config.train_list.empty() || fs::exists(config.folder / "train.txt", ignored))
    return Format::kLists;
  return Format::kFolders;
}

void refuse_links_out(const PictureDataConfig& config, const PictureSource& source) {
  source::Enclosure held(config.folder, config.allow_links);
  for (const PictureItem& item : source.set.items) held.check(config.folder / item.name);
}

// The cache names pictures and classes in JSON.
void check_names(PictureSource& source) {
  source.set.name = valid_utf8(source.set.name);
  for (const std::string& name : source.set.class_names)
    if (!is_utf8(name))
      source.problems.push_back(
          {source.folder / name, "the class's name is no UTF-8; rename it", ""});
  for (const PictureItem& item : source.set.items)
    if (!is_utf8(item.name))
      source.problems.push_back(
          {source.folder / item.name, "its name is no UTF-8; rename the file", ""});
}

// A patient whose pictures lie in two parts would be learned and asked for at once.
void check_patients(PictureSource& source) {
  std::map<int64_t, std::set<Part>> parts;
  for (const PictureItem& item : source.set.items)
    if (item.patient >= 0) parts[item.patient].insert(item.part);
  int64_t torn = 0;
  for (const auto& [patient, in] : parts) torn += in.size() > 1;
  if (torn > 0)
    source.problems.push_back(
        {source.folder,
         std::to_string(torn) + " patient(s) have pictures in more than one part of the split",
         ""});
}

}  // namespace

std::optional<Part> part_named(std::string name) {
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (name == "train" || name == "training") return Part::kTrain;
  if (name == "val" || name == "valid" || name == "validation" || name == "dev") return Part::kVal;
  if (name == "test" || name == "testing") return Part::kTest;
  return std::nullopt;
}

std::vector<std::vector<std::string>> parse_csv(const std::string& text, const fs::path& source) {
  std::vector<std::vector<std::string>> lines;
  std::vector<std::string> line;
  std::string cell;
  bool quoted = false, any = false;
  const auto end_line = [&] {
    line.push_back(std::move(cell));
    cell.clear();
    if (any) lines.push_back(std::move(line));
    line.clear();
    any = false;
  };
  for (size_t i = text.starts_with("\xef\xbb\xbf") ? 3 : 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c != '"')
        cell += c;
      else if (i + 1 < text.size() && text[i + 1] == '"')
        cell += text[++i];
      else
        quoted = false;
    } else if (c == '"') {
      quoted = any = true;
    } else if (c == ',') {
      line.push_back(std::move(cell));
      cell.clear();
      any = true;
    } else if (c == '\n') {
      end_line();
    } else if (c != '\r') {
      cell += c;
      any = true;
    }
  }
  if (quoted) throw DataError(source, "has a quote that is not closed");
  if (any) end_line();
  return lines;
}

PictureSource read_picture_source(const PictureDataConfig& config) {
  std::error_code ignored;
  if (!fs::exists(config.folder, ignored)) throw DataError(config.folder, "does not exist");
  using Format = PictureDataConfig::Format;
  const Format format = recognised(config);
  if (format != Format::kMedmnist && !fs::is_directory(config.folder))
    throw DataError(config.folder, "is no folder");
  PictureSource source;
  source.folder = config.folder;
  source.set.multi_label = config.multi_label;
  source.set.name =
      config.name.empty() ? fs::weakly_canonical(config.folder).stem().string() : config.name;
  switch (format) {
    case Format::kCsv:
      source.format = "csv";
      read_csv(config, source);
      break;
    case Format::kLists:
      source.format = "lists";
      read_lists(config, source);
      break;
    case Format::kMedmnist:
      source.format = "medmnist";
      read_medmnist(config, source);
      break;
    default:
      source.format = "folders";
      read_folders(config, source);
  }
  if (config.multi_label && !source.set.multi_label)
    throw DataError(config.folder, "has one class per picture; remove data.multi_label");
  if (config.multi_label && source.format != "csv" && source.format != "medmnist")
    throw DataError(config.folder, "several labels per picture are read from tables alone");
  if (source.set.items.empty() && source.problems.empty())
    throw DataError(config.folder,
                    "holds no pictures of classes. Expected: CLASS/*.png, a labels.csv, "
                    "train.txt with \"path label\" a line, or a MedMNIST .npz");
  if (format != Format::kMedmnist) refuse_links_out(config, source);
  check_names(source);
  check_patients(source);
  return source;
}

}  // namespace vireo
