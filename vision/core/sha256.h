#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace vireo {

/// SHA-256 (FIPS 180-4) of bytes that come in pieces.
class Sha256 {
 public:
  void update(const void* bytes, size_t count);
  /// The digest of all that came, as 64 hexadecimal digits. No update may follow.
  std::string hex_digest();

 private:
  void compress(const unsigned char* block);

  std::array<uint32_t, 8> state_{0x6a09e667,
                                 0xbb67ae85,
                                 0x3c6ef372,
                                 0xa54ff53a,
                                 0x510e527f,
                                 0x9b05688c,
                                 0x1f83d9ab,
                                 0x5be0cd19};
  std::array<unsigned char, 64> pending_{};
  uint64_t count_ = 0;
};

std::string sha256(std::string_view bytes);
/// Throws DataError when the file cannot be read.
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace vireo
