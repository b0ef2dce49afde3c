#pragma once

class DcmElement;
class DcmTagKey;

// Which attributes of an image `deidentify` keeps. What PS3.15 Table E.1-1 removes, empties or
// replaces is not among them, dates (with shift_dates) and UIDs apart.
namespace vireo {

enum class AttributeFate {
  kRemoved,
  kEmptied,  ///< goes, but the standard requires the attribute (Type 2)
  kKept,     ///< its value says nothing of a person; a sequence's items have to be cleaned
  kNewUid,   ///< kept with new UIDs for values
  kShifted,  ///< a date or time, kept if dates are shifted
};

/// `at_top`: the element is of the data set itself, not of a sequence's item. Whatever DCMTK's
/// dictionary does not know is removed. Throws Error when there is no dictionary.
AttributeFate attribute_fate(DcmElement& element, bool at_top, bool shift_dates);

}  // namespace vireo
