#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcspchrs.h>
#include <dcmtk/dcmdata/dctk.h>

// What is copied from a source into a new object is valid there, whatever the source holds.
namespace vireo {

/// What becomes of a value that its representation (PS3.5, 6.2) does not allow and that cannot be
/// mended without changing what it says.
enum class IfUnsound {
  kKeep,     ///< stays as it is: whose images these are must not change
  kShorten,  ///< too long a text is cut off; for any other fault as kLeaveOut
  kLeaveOut,
};

class SourceAttributes {
 public:
  /// `header` is the source's, read from `path`, and outlives this.
  SourceAttributes(std::filesystem::path path, DcmItem& header);

  /// Copies an attribute, if it is there, in UTF-8. Old forms of dates (2025.02.03, 2025-02-03),
  /// times (10:11:12), ages (42Y) and codes (Male) take today's; text that does not fit its
  /// character set is read as UTF-8 or as Latin-1, where it looks like that, and else left out. A
  /// warning names whatever else was not valid, never its value.
  void copy(const DcmTagKey& tag, IfUnsound otherwise, DcmItem& into);

  /// The source declares a character set, or text that is not ASCII was copied.
  bool extended() const { return extended_; }

 private:
  std::optional<std::string> text_of(DcmElement& element, const std::string& name);
  std::string make_sound(DcmItem& item);
  void warn(const std::string& name, const std::string& what) const;

  std::filesystem::path path_;
  DcmItem& header_;
  DcmSpecificCharacterSet character_set_;
  bool readable_ = false;  // the character set is known
  bool extended_ = false;
};

}  // namespace vireo
