#pragma once

#include <string>

#include "vision/io/canvas.h"

// What the reports' pages have in common: one HTML file each, with its style and pictures inside.
namespace vireo {

/// The document's head with the title and the style, up to the open main element.
std::string page_begin(const std::string& title);
std::string page_end();

/// Text with the characters that mean something in HTML replaced.
std::string escaped(const std::string& text);
/// A dash for what is not defined.
std::string number(double value, int digits);
/// "#rrggbb"
std::string hex(const Color& color);

}  // namespace vireo
