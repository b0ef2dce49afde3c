#include "models/weights/pickle_import.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <optional>
#include <stdexcept>

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <caffe2/serialize/inline_container.h>

#include "models/weights/pickle_reader.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using Kind = PickleNode::Kind;

// How many times a file's size its tensors may take, all together.
constexpr uint64_t kMostCopies = 8;
constexpr const char* kResave =
    "; in Python, torch.save(model.state_dict(), \"new.pth\") writes one that can be read";
// Of data.pkl, which describes some 30 000 tensors with that much.
constexpr uint64_t kLongestPickle = uint64_t{8} << 20;
constexpr const char* kUsualEntries[] = {
    "state_dict", "model_state_dict", "model", "net", "network", "weights"};

void check_format(const fs::path& path) {
  std::error_code failed;
  if (!fs::is_regular_file(path, failed)) throw DataError(path, "does not exist or is not a file");
  char head[4] = {};
  std::ifstream(path, std::ios::binary).read(head, sizeof head);
  if (std::memcmp(head, "PK\3\4", 4) == 0) return;
  if (head[0] == '\x80')
    throw DataError(
        path, std::string("is in the format that torch.save used before PyTorch 1.6") + kResave);
  throw DataError(path, "is no file of torch.save: it does not start like a zip archive");
}

std::optional<at::ScalarType> scalar_type(const std::string& storage) {
  static const std::map<std::string, at::ScalarType> types = {{"Double", at::kDouble},
                                                              {"Float", at::kFloat},
                                                              {"Half", at::kHalf},
                                                              {"BFloat16", at::kBFloat16},
                                                              {"Long", at::kLong},
                                                              {"Int", at::kInt},
                                                              {"Short", at::kShort},
                                                              {"Char", at::kChar},
                                                              {"Byte", at::kByte},
                                                              {"Bool", at::kBool}};
  const auto found = types.find(storage);
  return found == types.end() ? std::nullopt : std::optional(found->second);
}

/// The zip archive, its entries held against the file's size before one is unpacked.
class Archive {
 public:
  explicit Archive(const fs::path& path) : path_(path), reader_(path.string()) {
    const uint64_t limit = fs::file_size(path);
    uint64_t total = 0;
    for (const auto& record : reader_.getAllRecords()) {
      total += reader_.getRecordSize(record);
      if (total > limit)
        throw DataError(path,
                        "claims more content than its own " + std::to_string(limit) +
                            " bytes; torch.save does not compress");
    }
    if (reader_.hasRecord("constants.pkl"))
      throw DataError(path,
                      std::string("is a TorchScript model, not a dictionary of weights") + kResave);
    if (!reader_.hasRecord("data.pkl"))
      throw DataError(path, "is a zip archive, but not one of torch.save: it has no data.pkl");
    if (reader_.getRecordSize("data.pkl") > kLongestPickle)
      throw DataError(path, "has a data.pkl of more than 8 MiB: it holds more than tensors");
    if (reader_.hasRecord("byteorder") && text("byteorder") != "little")
      throw DataError(path, "was written on a big-endian machine");
  }

  std::string text(const std::string& record) {
    const auto [data, size] = reader_.getRecord(record);
    return {static_cast<const char*>(data.get()), size};
  }

  at::Tensor tensor(const std::string& name, const PickleNode& node) {
    const PickleNode& storage = *node.items[0];
    const auto type = scalar_type(storage.type);
    if (!type)
      throw DataError(
          path_,
          "tensor " + name + " is of the type " + storage.type + ", which cannot be imported");
    const auto integers = [](const PickleNode& list) {
      std::vector<int64_t> values;
      for (const PickleNode* item : list.items) values.push_back(item->integer);
      return values;
    };
    const int64_t offset = node.items[1]->integer;
    const auto sizes = integers(*node.items[2]), strides = integers(*node.items[3]);
    const std::string record = "data/" + storage.text;
    const bool present = reader_.hasRecord(record);
    const uint64_t numbers = present ? reader_.getRecordSize(record) / at::elementSize(*type) : 0;
    if (!fits(offset, sizes, strides, numbers))
      throw DataError(path_, "tensor " + name + " claims more numbers than the file holds for it");
    const auto options = at::TensorOptions().dtype(*type);
    if (numbers == 0) return at::empty(sizes, options);
    // A storage may be named by several tensors, but not by any number of them.
    uint64_t bytes = at::elementSize(*type);
    for (const int64_t size : sizes) bytes *= static_cast<uint64_t>(size);
    if ((unpacked_ += bytes) > kMostCopies * fs::file_size(path_))
      throw DataError(path_, "describes more tensors than its content could fill");

    auto& whole = storages_[storage.text + storage.type];  // shared by several tensors at times
    if (!whole.defined()) {
      whole = at::empty({static_cast<int64_t>(numbers)}, options);
      reader_.getRecord(record, whole.data_ptr(), whole.nbytes());
      check_truth_values(name, whole);
    }
    return whole.as_strided(sizes, strides, offset).clone(at::MemoryFormat::Contiguous);
  }

 private:
  /// Whether a strided tensor lies inside `present` numbers, without repeating any.
  static bool fits(int64_t offset,
                   const std::vector<int64_t>& sizes,
                   const std::vector<int64_t>& strides,
                   uint64_t present) {
    if (sizes.size() != strides.size() || sizes.size() > 64 || offset < 0) return false;
    bool empty = false;
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] < 0 || strides[i] < 0) return false;
      if (static_cast<uint64_t>(sizes[i]) > std::max<uint64_t>(present, 1)) return false;
      empty = empty || sizes[i] == 0;
    }
    if (empty) return true;
    uint64_t last = static_cast<uint64_t>(offset), numbers = 1;
    if (last >= present) return false;
    for (size_t i = 0; i < sizes.size(); ++i) {
      const auto steps = static_cast<uint64_t>(sizes[i] - 1);
      const auto stride = static_cast<uint64_t>(strides[i]);
      if (stride > 0 && steps > present / stride) return false;
      last += steps * stride;
      numbers *= steps + 1;
      if (last >= present || numbers > present) return false;
    }
    return true;
  }

  /// Any byte but 0 and 1 in the place of a truth value is undefined behaviour later on.
  void check_truth_values(const std::string& name, const at::Tensor& whole) const {
    if (whole.scalar_type() != at::kBool) return;
    const auto* bytes = static_cast<const unsigned char*>(whole.const_data_ptr());
    if (std::any_of(bytes, bytes + whole.numel(), [](unsigned char byte) { return byte > 1; }))
      throw DataError(path_, "tensor " + name + " holds truth values other than 0 and 1");
  }

  fs::path path_;
  caffe2::serialize::PyTorchStreamReader reader_;
  uint64_t unpacked_ = 0;  // bytes of all tensors so far
  std::map<std::string, at::Tensor> storages_;
};

using Entries = std::map<std::string, const PickleNode*>;

/// Nothing for anything but a dictionary whose keys are texts.
std::optional<Entries> entries_of(const PickleNode& node) {
  if (node.kind != Kind::kDictionary || node.items.size() % 2 != 0) return std::nullopt;
  Entries entries;
  for (size_t i = 0; i < node.items.size(); i += 2) {
    if (node.items[i]->kind != Kind::kText) return std::nullopt;
    entries[node.items[i]->text] = node.items[i + 1];
  }
  return entries;
}

bool holds_tensors(const std::optional<Entries>& entries) {
  return entries && std::any_of(entries->begin(), entries->end(), [](const auto& entry) {
           return entry.second->kind == Kind::kTensor;
         });
}

std::string listed(const Entries& entries) {
  std::string text;
  size_t count = 0;
  for (const auto& [name, node] : entries) {
    if (++count > 20) return text + ", ...";
    text += (text.empty() ? "" : ", ") + name + " (" + node->description() + ")";
  }
  return text.empty() ? "nothing" : text;
}

/// Follows "a.b" through dictionaries.
Entries follow(const fs::path& path, const PickleNode& root, const std::string& entry) {
  const PickleNode* here = &root;
  for (size_t begin = 0; begin <= entry.size();) {
    const size_t end = std::min(entry.find('.', begin), entry.size());
    const auto entries = entries_of(*here);
    const auto found =
        entries ? entries->find(entry.substr(begin, end - begin)) : Entries::const_iterator{};
    if (!entries || found == entries->end())
      throw DataError(path,
                      "has no entry \"" + entry + "\"; it holds " +
                          (entries ? listed(*entries) : here->description()));
    here = found->second;
    begin = end + 1;
  }
  const auto entries = entries_of(*here);
  if (!entries)
    throw DataError(path,
                    "entry \"" + entry + "\" is " + here->description() +
                        "; a dictionary of tensors by name was expected");
  return *entries;
}

Entries find_weights(const fs::path& path,
                     const PickleNode& root,
                     std::vector<std::string>& notes,
                     int depth = 0) {
  const auto entries = entries_of(root);
  if (!entries)
    throw DataError(
        path, "holds " + root.description() + "; a dictionary of tensors was expected" + kResave);
  if (holds_tensors(entries)) return *entries;
  for (const char* name : kUsualEntries) {
    const auto found = entries->find(name);
    if (found == entries->end() || !entries_of(*found->second) || depth > 4) continue;
    Entries others = *entries;
    others.erase(name);
    notes.push_back("took the entry \"" + std::string(name) + "\"" +
                    (others.empty() ? "" : "; left out " + listed(others)));
    return find_weights(path, *found->second, notes, depth + 1);
  }
  throw DataError(path,
                  "has no dictionary of tensors under a usual name; it holds " + listed(*entries) +
                      ". Name the entry with --entry");
}

ImportedWeights read_archive(const fs::path& path, const std::string& entry) {
  ImportedWeights weights;
  Archive archive(path);
  const std::string pickle = archive.text("data.pkl");
  PickleReader reader(pickle);
  const PickleNode& root = *reader.read();
  const Entries entries =
      entry.empty() ? find_weights(path, root, weights.notes) : follow(path, root, entry);
  Entries others;
  for (const auto& [name, node] : entries)
    if (node->kind == Kind::kTensor)
      weights.tensors[name] = archive.tensor(name, *node);
    else
      others.emplace(name, node);
  if (!others.empty())
    throw DataError(
        path, "holds entries among its weights that are not tensors: " + listed(others) + kResave);
  if (weights.tensors.empty()) throw DataError(path, "holds no tensors");
  return weights;
}

}  // namespace

ImportedWeights read_pickled_weights(const fs::path& path, const std::string& entry) {
  check_format(path);
  try {
    return read_archive(path, entry);
  } catch (const PickleError& error) {
    throw DataError(path, std::string("its data.pkl ") + error.what());
  } catch (const c10::Error& error) {
    const std::string reason = error.what_without_backtrace();
    throw DataError(path, "is a broken archive: " + reason.substr(0, reason.find('\n')));
  }
}

void strip_wrapper_prefixes(ImportedWeights& weights,
                            const std::function<bool(const std::string&)>& is_known) {
  using Shorten = std::function<std::string(const std::string&)>;
  const auto rename = [&](const Shorten& shorter, const std::string& what) {
    std::map<std::string, at::Tensor> renamed;
    size_t changed = 0;
    for (const auto& [name, tensor] : weights.tensors) {
      const std::string to = shorter(name);
      changed += to != name ? 1 : 0;
      if (!renamed.emplace(to, tensor).second)
        throw Error("two tensors are named " + to + " once \"" + what + "\" is removed");
    }
    weights.tensors = std::move(renamed);
    if (changed > 0)
      weights.notes.push_back("removed \"" + what + "\" from " + std::to_string(changed) +
                              " names");
  };
  const auto all_start_with = [&](const std::string& prefix) {
    return std::all_of(weights.tensors.begin(), weights.tensors.end(), [&](const auto& item) {
      return item.first.starts_with(prefix);
    });
  };
  const auto rename_without = [&](const std::string& prefix) {
    rename([&](const std::string& name) { return name.substr(prefix.size()); }, prefix);
  };

  const std::string compiled = "_orig_mod.";
  rename(
      [&](std::string name) {
        for (size_t at = 0; (at = name.find(compiled, at)) != std::string::npos;)
          if (at == 0 || name[at - 1] == '.')
            name.erase(at, compiled.size());
          else
            ++at;
        return name;
      },
      compiled);
  while (!weights.tensors.empty() && all_start_with("module.")) rename_without("module.");

  const std::string backbone = "backbone.";
  const auto all_known_after = [&](size_t skipped) {
    return std::all_of(weights.tensors.begin(), weights.tensors.end(), [&](const auto& item) {
      return is_known(item.first.substr(skipped));
    });
  };
  if (all_start_with(backbone) && !all_known_after(0) && all_known_after(backbone.size()))
    rename_without(backbone);
}

}  // namespace vireo
