#include "vision/core/json_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/refusal.h"

namespace vireo {
namespace {

using test::message_of;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string nested(size_t depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

TEST(JsonText, ReadsJsonAndNamesTheSourceOfWhatIsNone) {
  EXPECT_EQ(parse_json(R"({"a": [1, "\"[["]})", "a.json")["a"][1], "\"[[");
  EXPECT_EQ(parse_ordered_json(R"({"b": 1, "a": 2})", "a.json").begin().key(), "b");
  EXPECT_THAT(message_of([] { parse_json("{\"a\": }", "a.json"); }),
              StartsWith("a.json: is not valid JSON: parse error at line 1, column 7"));
}

TEST(JsonText, RefusesNestingThatTheStackCouldNotHold) {
  EXPECT_TRUE(parse_json(nested(kDeepestJson), "a.json").is_array());
  const std::string deep = nested(1'000'000);
  for (const std::string& text : {deep, "{\"\\\"\": " + deep + "}", deep.substr(0, 1'000'000)})
    EXPECT_THAT(message_of([&] { parse_json(text, "a.json"); }), StartsWith("a.json: holds lists"));
  EXPECT_THAT(message_of([&] { parse_ordered_json(deep, "a.json"); }), HasSubstr("nested 1000000"));
}

TEST(JsonText, TakesWholeNumbersAlone) {
  const auto whole = [](const char* text) { whole_numbers(parse_json(text, "a.json")); };
  EXPECT_NO_THROW(whole("[[1, -9223372036854775808], [], 9223372036854775807]"));
  for (const char* text :
       {"1.0", "1e300", "9223372036854775808", "[1, [2.5]]", "\"1\"", "null", "{}"})
    EXPECT_THROW(whole(text), nlohmann::json::type_error) << text;
}

TEST(JsonText, WritesTextsThatAreNoUtf8WithTheirBytesReplaced) {
  const nlohmann::ordered_json value{{"file",
                                      "Sch\xe4"
                                      "del.nii"}};
  EXPECT_EQ(json_document(value),
            "{\n  \"file\": \"Sch\ufffd"
            "del.nii\"\n}\n");
  EXPECT_EQ(json_document(nlohmann::json(value)), json_document(value));
}

TEST(JsonText, GivesNoTextWhereThereIsNone) {
  const auto object = parse_json(R"({"name": "liver", "version": 3})", "a.json");
  EXPECT_EQ(json_text(object, "name"), "liver");
  EXPECT_EQ(json_text(object, "version"), "");
  EXPECT_EQ(json_text(object, "other"), "");
  EXPECT_EQ(json_text(nullptr, "name"), "");
}

}  // namespace
}  // namespace vireo
