#pragma once

#include <string>
#include <string_view>

// Texts that others wrote, as UTF-8 (RFC 3629).
namespace vireo {

bool is_utf8(std::string_view text);

/// `text`, each byte that belongs to no character replaced by U+FFFD.
std::string valid_utf8(std::string_view text);

}  // namespace vireo
