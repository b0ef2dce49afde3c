#include "datasets/prepared_cache.h"

#include <fstream>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "datasets/cache_writer.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Preparation preparation() {
  Preparation p;
  p.dataset_name = "Test";
  p.channels = {{"MRI", ChannelNormalization::Kind::kZScore}};
  p.labels = {{"background", 0, {}}, {"one", 1, {}}, {"two", 2, {}}};
  return p;
}

PreparedCase prepared_case(const std::string& name) {
  PreparedCase c;
  c.name = name;
  c.image = at::rand({1, 4, 5, 6});
  c.labels = at::zeros({4, 5, 6}, at::kByte);
  c.labels[1][2][3] = 1;
  c.labels[3][0][0] = 1;
  c.geometry.size_zyx = c.native.size_zyx = {4, 5, 6};
  c.geometry.origin_lps_mm = {1.0 / 3, -2.5, 1e-9};
  return c;
}

fs::path two_cases() {
  const fs::path folder = test::scratch_folder() / "prepared";
  write_prepared_cache(
      folder, preparation(), {prepared_case("a"), prepared_case("b")}, {{{"a"}, {"b"}}});
  return folder;
}

std::string refusal(const fs::path& folder, bool verify = false) {
  try {
    PreparedCache::open(folder, verify);
  } catch (const DataError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(PreparedCache, GivesBackWhatWasWritten) {
  const fs::path folder = test::scratch_folder() / "prepared";
  const PreparedCase written = prepared_case("a");
  write_prepared_cache(folder, preparation(), {written}, {{{"a"}, {"a"}}});
  const PreparedCache cache = PreparedCache::open(folder, /*verify_checksums=*/true);
  EXPECT_EQ(cache.preparation().to_json(), preparation().to_json());
  EXPECT_THAT(cache.case_names(), ElementsAre("a"));
  const CachedCase read = cache.load("a");
  EXPECT_TRUE(at::equal(read.image, written.image));
  EXPECT_TRUE(at::equal(read.labels, written.labels));
  EXPECT_EQ(difference(read.geometry, written.geometry, 0), "");
  EXPECT_EQ(read.axis_order, written.axis_order);
  EXPECT_THAT(read.slices_of_class, ElementsAre(ElementsAre(1, 3), ElementsAre()));
}

TEST(PreparedCache, KnowsItsFolds) {
  const PreparedCache cache = PreparedCache::open(two_cases());
  EXPECT_EQ(cache.fold_count(), 1);
  EXPECT_THAT(cache.training_cases(0), ElementsAre("a"));
  EXPECT_THAT(cache.validation_cases(0), ElementsAre("b"));
  try {
    cache.training_cases(1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("fold 1 does not exist"));
  }
}

TEST(PreparedCache, IsNotReadWithoutItsManifest) {
  const fs::path folder = two_cases();
  fs::remove(folder / "cache.json");
  EXPECT_THAT(refusal(folder), HasSubstr("is not a prepared cache: it has no cache.json"));
  EXPECT_THAT(refusal(folder / "nowhere"), HasSubstr("is not a prepared cache"));
}

TEST(PreparedCache, RefusesFilesThatDisagreeWithTheManifest) {
  const fs::path folder = two_cases(), file = folder / "cases" / "b.safetensors";
  const std::string sound = read_text(file);

  std::ofstream(file, std::ios::binary) << sound.substr(0, sound.size() - 1);
  EXPECT_THAT(refusal(folder), HasSubstr("bytes; the manifest says"));

  std::string damaged = sound;
  damaged[damaged.size() - 1] ^= 1;
  std::ofstream(file, std::ios::binary) << damaged;
  EXPECT_EQ(refusal(folder), "accepted");
  EXPECT_THAT(refusal(folder, true), HasSubstr("its checksum (SHA-256) is not the manifest's"));

  fs::remove(file);
  EXPECT_THAT(refusal(folder), HasSubstr("is missing, though the cache's manifest lists it"));
}

TEST(PreparedCache, RefusesManifestsOfOtherKinds) {
  const fs::path folder = two_cases();
  auto manifest = nlohmann::json::parse(read_text(folder / "cache.json"));
  const auto with = [&](const char* key, const nlohmann::json& value) {
    auto changed = manifest;
    changed[key] = value;
    std::ofstream(folder / "cache.json") << changed;
    return refusal(folder);
  };
  EXPECT_THAT(with("version", 2), HasSubstr("has format version 2"));
  EXPECT_THAT(with("format", "other"), HasSubstr("is not the manifest of a prepared cache"));
  EXPECT_THAT(with("version", "1"), HasSubstr("has format version \"1\""));
  EXPECT_THAT(with("format", 1), HasSubstr("is not the manifest of a prepared cache"));
  EXPECT_THAT(with("cases", 7), HasSubstr("cache.json"));
  EXPECT_THAT(with("inputs", 1), "accepted");
  auto cases = manifest["cases"];
  cases[0]["bytes"] = 1e300;
  EXPECT_THAT(with("cases", cases), HasSubstr("lacks its list of cases"));
  EXPECT_EQ(cached_inputs(folder), "");
  manifest["cases"][0]["name"] = "../outside";
  EXPECT_THAT(with("version", 1), HasSubstr("impossible case name \"../outside\""));
  std::ofstream(folder / "cache.json") << R"({"format": "vireo.prep)";
  EXPECT_THAT(refusal(folder), HasSubstr("is not the manifest"));
}

TEST(CacheWriter, FindsAFinishedCaseByItsStampAlone) {
  const fs::path folder = test::scratch_folder() / "prepared";
  const CaseEntry entry = write_cached_case(folder, prepared_case("a"), 3, "stamp 1");
  const auto found = find_cached_case(folder, "a", "stamp 1");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->sha256, entry.sha256);
  EXPECT_FALSE(find_cached_case(folder, "a", "stamp 2").has_value());
  EXPECT_FALSE(find_cached_case(folder, "b", "stamp 1").has_value());
  std::ofstream(cache_case_file(folder, "a"), std::ios::binary) << "half";
  EXPECT_FALSE(find_cached_case(folder, "a", "stamp 1").has_value());
}

}  // namespace
}  // namespace vireo
