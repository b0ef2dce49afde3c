#include "datasets/mask_names.h"

#include <algorithm>
#include <cctype>

namespace vireo::source {
namespace {

constexpr const char* kEndings[] = {"_mask",
                                    "_masks",
                                    "_segmentation",
                                    "_seg",
                                    "_anno",
                                    "_annotation",
                                    "_gt",
                                    "_groundtruth",
                                    "_label",
                                    "_labels",
                                    "_manual",
                                    "_manual1",
                                    "_1stho",
                                    "_manual2",
                                    "_2ndho"};
constexpr const char* kBeginnings[] = {"mask_", "seg_", "gt_", "label_"};

// Small letters, "_" for what separates.
std::string plain(std::string text) {
  for (char& c : text) {
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (c == '-' || c == ' ') c = '_';
  }
  return text;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// "a_mask_1", "a_mask-1", "a_mask (1)" and "a_mask1" without their number.
std::string without_number(const std::string& name) {
  size_t end = name.size();
  const bool bracket = end > 0 && name[end - 1] == ')';
  if (bracket) --end;
  size_t digits = end;
  while (digits > 0 && is_digit(name[digits - 1])) --digits;
  if (digits == end) return name;
  if (bracket) {
    if (digits == 0 || name[digits - 1] != '(') return name;
    --digits;
  }
  while (digits > 0 &&
         (name[digits - 1] == '_' || name[digits - 1] == '-' || name[digits - 1] == ' '))
    --digits;
  return name.substr(0, digits);
}

std::optional<MaskNames::Match> match_usual(const std::string& name,
                                            const std::set<std::string>& pictures) {
  const std::string low = plain(name);
  for (const std::string ending : kEndings) {
    if (!low.ends_with(ending)) continue;
    const std::string picture = name.substr(0, name.size() - ending.size());
    if (pictures.contains(picture)) return MaskNames::Match{picture, ending};
  }
  for (const std::string beginning : kBeginnings) {
    if (!low.starts_with(beginning)) continue;
    const std::string picture = name.substr(beginning.size());
    if (pictures.contains(picture)) return MaskNames::Match{picture, beginning};
  }
  return std::nullopt;
}

// How many characters all names begin with, numbers whole; from the end, how many they end with.
size_t common_start(const std::set<std::string>& names, bool from_end) {
  const auto at = [&](const std::string& name, size_t i) {
    return from_end ? name[name.size() - 1 - i] : name[i];
  };
  const std::string& first = *names.begin();
  size_t length = first.size();
  for (const std::string& name : names) {
    length = std::min(length, name.size());
    for (size_t i = 0; i < length; ++i)
      if (at(name, i) != at(first, i)) length = i;
  }
  while (length > 0 && is_digit(at(first, length - 1))) --length;
  return length;
}

// Names by what is left of them.
std::map<std::string, std::string> by_own_part(const std::set<std::string>& names) {
  const size_t start = common_start(names, false), end = common_start(names, true);
  std::map<std::string, std::string> parts;
  for (const std::string& name : names)
    if (start + end < name.size())
      parts.emplace(name.substr(start, name.size() - start - end), name);
  return parts;
}

}  // namespace

std::map<std::string, std::string> pictures_by_number(const std::set<std::string>& masks,
                                                      const std::set<std::string>& pictures) {
  if (masks.size() != pictures.size() || masks.empty()) return {};
  const auto mask_of = by_own_part(masks), picture_of = by_own_part(pictures);
  if (mask_of.size() != masks.size() || picture_of.size() != masks.size()) return {};
  std::map<std::string, std::string> result;
  for (const auto& [part, mask] : mask_of) {
    const auto picture = picture_of.find(part);
    if (picture == picture_of.end()) return {};
    result.emplace(mask, picture->second);
  }
  return result;
}

MaskNames::MaskNames(std::string pattern) : given_(!pattern.empty()) {
  const size_t place = pattern.find("{}");
  if (place == std::string::npos) return;
  before_ = pattern.substr(0, place);
  after_ = pattern.substr(place + 2);
  open_end_ = after_.ends_with('*');
  if (open_end_) after_.pop_back();
}

std::optional<MaskNames::Match> MaskNames::match(const std::string& name,
                                                 const std::set<std::string>& pictures) const {
  const std::string shorter = without_number(name);
  if (!given_) {
    if (pictures.contains(name)) return Match{name, ""};
    auto found = match_usual(name, pictures);
    if (!found && shorter != name) found = match_usual(shorter, pictures);
    return found;
  }
  const auto matched = [&](const std::string& whole, size_t end) -> std::optional<Match> {
    if (end < before_.size()) return std::nullopt;
    const std::string picture = whole.substr(before_.size(), end - before_.size());
    if (!pictures.contains(picture)) return std::nullopt;
    return Match{picture, before_ + "{}" + after_};
  };
  if (!name.starts_with(before_)) return std::nullopt;
  if (open_end_) {
    // The longest name of a picture that fits.
    for (size_t at = name.rfind(after_); at != std::string::npos; at = name.rfind(after_, at - 1)) {
      if (const auto found = matched(name, at)) return found;
      if (at == 0) break;
    }
    return std::nullopt;
  }
  for (const std::string& one : {name, shorter})
    if (one.ends_with(after_))
      if (const auto found = matched(one, one.size() - after_.size())) return found;
  return std::nullopt;
}

bool MaskNames::is_second_observer(const std::string& kind) {
  return kind == "_manual2" || kind == "_2ndho";
}

}  // namespace vireo::source
