#pragma once

#include <string>

#include <c10/util/Exception.h>

#include "vision/core/error.h"

namespace vireo::test {

/// What is said when `action` is refused, by us or by an operator's checks; "(no error)" when it is
/// not.
template <typename Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "(no error)";
}

}  // namespace vireo::test
