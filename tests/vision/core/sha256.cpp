#include "vision/core/sha256.h"

#include <fstream>

#include <gtest/gtest.h>

#include "tests/support/test_data.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

// The examples of FIPS 180-4 and of NIST's example values.
TEST(Sha256, AgreesWithTheStandardsExamples) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnHowThePiecesAreCut) {
  std::string bytes;
  for (int i = 0; i < 300; ++i) bytes += static_cast<char>(i * 7);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    Sha256 hash;
    hash.update(bytes.data(), cut);
    hash.update(bytes.data() + cut, bytes.size() - cut);
    ASSERT_EQ(hash.hex_digest(), sha256(bytes)) << cut;
  }
}

TEST(Sha256, TakesAnEmptyPieceThatIsNowhere) {
  Sha256 hash;
  hash.update("a", 1);
  hash.update(nullptr, 0);
  EXPECT_EQ(hash.hex_digest(), sha256("a"));
}

TEST(Sha256, ReadsFilesAndNamesMissingOnes) {
  const auto path = test::scratch_folder() / "file";
  std::ofstream(path, std::ios::binary) << "abc";
  EXPECT_EQ(sha256_of_file(path), sha256("abc"));
  EXPECT_THROW(sha256_of_file(path.string() + "x"), DataError);
}

}  // namespace
}  // namespace vireo
