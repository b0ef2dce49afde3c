#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

namespace vireo::source {

/// Tells by its name which picture a mask belongs to.
class MaskNames {
 public:
  /// `pattern`: how masks are named, "{}" standing for the picture's name and a "*" at the end for
  /// anything, for example "{}_L" or "mask-{}*". Empty: as the picture, or with one of the endings
  /// _mask, _masks, _segmentation, _seg, _anno, _annotation, _gt, _groundtruth, _label, _labels,
  /// _manual, _manual1, _1stHO, _2ndHO, _manual2 or beginnings mask_, seg_, gt_, label_ in
  /// whatever case, "-" or a space for "_". A number at the end (_1, -1, " (1)") tells several
  /// masks of a picture apart.
  explicit MaskNames(std::string pattern = "");

  struct Match {
    std::string picture;
    /// What was added to the picture's name, in small letters and without a number: masks of one
    /// kind belong together.
    std::string kind;
  };
  /// The picture, among the names `pictures`, whose mask is called `name` (both without extension).
  std::optional<Match> match(const std::string& name, const std::set<std::string>& pictures) const;

  /// Whether a pattern says how masks are named.
  bool is_given() const { return given_; }

  /// Whether masks of this kind are those of another observer.
  static bool is_second_observer(const std::string& kind);

 private:
  std::string before_, after_;
  bool given_ = false, open_end_ = false;
};

/// The picture of every mask where each folder has a name of its own for its files, as in img0001
/// and label0001: told by what is left without what all of a folder's names begin and end with
/// (numbers stay whole). Empty unless that puts all masks and all pictures together, one to one.
std::map<std::string, std::string> pictures_by_number(const std::set<std::string>& masks,
                                                      const std::set<std::string>& pictures);

}  // namespace vireo::source
