#include "vision/core/config_table.h"

#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/refusal.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

using test::message_of;
using ::testing::HasSubstr;

TEST(ConfigTable, GivesValuesAndDefaults) {
  auto config = ConfigTable::from_text("[train]\nepochs = 3\nlr = 1\n", "run.toml");
  auto train = config.table("train");
  EXPECT_EQ(train.integer("epochs", 10), 3);
  EXPECT_EQ(train.number("lr", 0.5), 1.0);
  EXPECT_EQ(train.text("schedule", "poly"), "poly");
  config.finish();
}

TEST(ConfigTable, NamesTheUnknownKeyItsPlaceAndTheNearest) {
  auto config = ConfigTable::from_text("[train]\nepohcs = 3\n", "run.toml");
  config.table("train").integer("epochs", 10);
  const std::string message = message_of([&] { config.finish(); });
  EXPECT_THAT(message, HasSubstr("run.toml:2:10: train.epohcs"));
  EXPECT_THAT(message, HasSubstr("did you mean \"epochs\""));
}

TEST(ConfigTable, RefusesWrongTypesAndRanges) {
  auto config = ConfigTable::from_text("a = \"x\"\nb = 7\nc = [1, \"y\"]\n", "run.toml");
  EXPECT_THAT(message_of([&] { config.integer("a", 1); }),
              HasSubstr("run.toml:1:5: a: found a string"));
  EXPECT_THAT(message_of([&] { config.integer("b", 1, 0, 5); }),
              HasSubstr("is 7, must be at least 0 and at most 5"));
  EXPECT_THAT(message_of([&] { config.integers("c", {}); }),
              HasSubstr("expected a list of integers"));
  EXPECT_THAT(message_of([&] { config.text("missing"); }), HasSubstr("missing: is missing"));
  EXPECT_THAT(message_of([&] { ConfigTable::from_text("a = = 1", "bad.toml"); }),
              HasSubstr("bad.toml:1:5"));
}

TEST(ConfigTable, RefusesTablesNestedDeeperThanTheStack) {
  std::string name = "a";
  for (int i = 0; i < 200'000; ++i) name += ".a";
  for (const std::string& text :
       {"\n[" + name + "]", "\n" + name + " = 1", "\nx = {" + name + " = 1}"})
    EXPECT_THAT(message_of([&] { ConfigTable::from_text(text, "run.toml"); }),
                HasSubstr("run.toml:2:1: a name with more than 1000 dots"));
  EXPECT_THAT(message_of([&] { ConfigTable::from_text("", "run.toml", {name + "=1"}); }),
              HasSubstr("--set:1:1: a name with more than"));
}

TEST(ConfigTable, RefusesCharactersBeyondAsciiOutsideOfQuotes) {
  for (const std::string text : {"a = 1\n  é = 2\n", "a = 1\n  \xEF\xB3\xBF\n", "a = 1\n  \xFF"})
    EXPECT_THAT(message_of([&] { ConfigTable::from_text(text, "run.toml"); }),
                HasSubstr("run.toml:2:3: not valid TOML: a character beyond ASCII"))
        << text;
  auto config = ConfigTable::from_text(
      "\xEF\xBB\xBF# größe"
      R"(
'é' = "\"ü"
b = """x
ß"""""
c = '''ñ'''''
d = ['''y'''', 'å'] # å
)",
      "run.toml",
      {"e=/données"});
  EXPECT_EQ(config.text("é"), "\"ü");
  EXPECT_EQ(config.text("b"), "x\nß\"\"");
  EXPECT_EQ(config.text("c"), "ñ''");
  EXPECT_EQ(config.texts("d", {}), (std::vector<std::string>{"y'", "å"}));
  EXPECT_EQ(config.text("e"), "/données");
}

TEST(ConfigTable, NamesALongUnknownKeyWithoutComparingItAtLength) {
  auto config = ConfigTable::from_text(std::string(8'000'000, 'a') + " = 1", "run.toml");
  for (const char* known : {"epochs", "seed", "fold", "device"}) config.integer(known, 1);
  EXPECT_THAT(message_of([&] { config.finish(); }), HasSubstr("unknown key Known here: device"));
}

TEST(ConfigTable, OverridesReplaceAndAddKeys) {
  auto config =
      ConfigTable::from_text("[train]\nepochs = 3\n",
                             "run.toml",
                             {"train.epochs=5", "model.name=rwkv_unet_t", "data.axes=[1, 2]"});
  EXPECT_EQ(config.table("train").integer("epochs", 1), 5);
  EXPECT_EQ(config.table("model").text("name"), "rwkv_unet_t");
  EXPECT_EQ(config.table("data").integers("axes", {}), (std::vector<int64_t>{1, 2}));
  EXPECT_THROW(ConfigTable::from_text("", "run.toml", {"no-equals-sign"}), UsageError);
}

TEST(ConfigTable, ResolvedTextReadsBackTheSame) {
  auto config = ConfigTable::from_text("[train]\nepochs = 3\n", "run.toml");
  config.table("train").integer("epochs", 1);
  config.table("train").number("lr", 1e-3);
  const std::vector<std::string> names{
      "a b", "c\"d", "'", "a'''b\nc", "\"\"\"\n'''", "C:\\new", "tab\t\x01"};
  config.table("train").texts("names", names);
  auto again = ConfigTable::from_text(config.resolved_text(), "resolved");
  EXPECT_EQ(again.table("train").integer("epochs"), 3);
  EXPECT_EQ(again.table("train").number("lr", 0), 1e-3);
  EXPECT_EQ(again.table("train").texts("names", {}), names);
}

TEST(ConfigTable, ExpandsTheEnvironmentAndNamesWhatIsUnset) {
  ::setenv("VIREO_TEST_NAME", "/some/where", 1);
  ::unsetenv("VIREO_TEST_UNSET");
  EXPECT_EQ(expand_environment("${VIREO_TEST_NAME}/x"), "/some/where/x");
  EXPECT_EQ(expand_environment("${VIREO_TEST_UNSET:-../d}/x"), "../d/x");
  EXPECT_THAT(message_of([] { expand_environment("${VIREO_TEST_UNSET}/x"); }),
              HasSubstr("VIREO_TEST_UNSET"));
}

}  // namespace
}  // namespace vireo
