#include "vision/core/utf8.h"

#include <gtest/gtest.h>

namespace vireo {
namespace {

TEST(Utf8, TakesCharactersOfOneToFourBytes) {
  for (const char* text :
       {"", "plain", "\xc3\xa4", "\xe6\x97\xa5", "\xf0\x9f\x98\x80", "\xef\xbf\xbd"}) {
    EXPECT_TRUE(is_utf8(text)) << text;
    EXPECT_EQ(valid_utf8(text), text);
  }
}

TEST(Utf8, ReplacesEveryByteThatBelongsToNoCharacter) {
  const std::string unknown = "\xef\xbf\xbd";
  const auto expect = [&](const std::string& text, const std::string& valid) {
    EXPECT_FALSE(is_utf8(text)) << text;
    EXPECT_EQ(valid_utf8(text), valid);
  };
  expect("a\xe4z", "a" + unknown + "z");
  expect("\xc3", unknown);
  expect("\xe6\x97", unknown + unknown);
  expect("\xc0\xaf", unknown + unknown);  // longer than needed
  expect("\xe0\x80\xaf", unknown + unknown + unknown);
  expect("\xed\xa0\x80", unknown + unknown + unknown);                // half of a pair
  expect("\xf4\x90\x80\x80", unknown + unknown + unknown + unknown);  // beyond the last
}

}  // namespace
}  // namespace vireo
