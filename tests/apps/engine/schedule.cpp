#include "apps/engine/schedule.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

constexpr double kRelative = 1e-12;

TEST(Schedule, PolyEqualsThePublishedValues) {
  VIREO_REQUIRE_GOLDEN(path, "schedule.json");
  const auto golden = nlohmann::json::parse(read_text(path));
  const auto& poly = golden.at("poly");
  for (const auto& [iteration, value] :
       poly.at("assigned").get<std::vector<std::pair<int64_t, double>>>())
    EXPECT_NEAR(poly_rate(poly.at("base_lr"), iteration, poly.at("max_iterations")),
                value,
                kRelative * value);
  for (const auto& extra : golden.at("poly_extra"))
    for (const auto& [iteration, value] :
         extra.at("values").get<std::vector<std::pair<int64_t, double>>>())
      EXPECT_NEAR(
          poly_rate(extra.at("base_lr"), iteration, extra.at("max_iterations"), extra.at("power")),
          value,
          kRelative * value);
}

TEST(Schedule, PublishedSynapseEqualsWhatThatLoopReallyUsed) {
  VIREO_REQUIRE_GOLDEN(path, "schedule.json");
  const auto golden = nlohmann::json::parse(read_text(path));
  Schedule schedule;
  schedule.kind = Schedule::Kind::kPublishedSynapse;
  schedule.base_rate = golden.at("poly").at("base_lr");
  SchedulePosition position;
  position.epochs = golden.at("poly").at("epochs");
  position.iterations_per_epoch = golden.at("poly").at("iters_per_epoch");
  for (const auto& [iteration, value] :
       golden.at("synapse_effective").at("used").get<std::vector<std::pair<int64_t, double>>>()) {
    position.iteration = iteration;
    EXPECT_NEAR(schedule.rate(position), value, 1e-10 * value) << "iteration " << iteration;
  }
}

TEST(Schedule, PublishedAcdcEqualsWhatThatLoopReallyUsed) {
  VIREO_REQUIRE_GOLDEN(path, "schedule.json");
  const auto golden = nlohmann::json::parse(read_text(path));
  const auto used = golden.at("acdc_effective").at("used_first_120").get<std::vector<double>>();
  for (size_t i = 0; i < used.size(); ++i)
    EXPECT_NEAR(published_acdc_rate(1e-3, static_cast<int64_t>(i), 30), used[i], 1e-10 * used[i])
        << "iteration " << i;
}

TEST(Schedule, WarmsUpLinearlyThenFalls) {
  auto table = ConfigTable::from_text(
      "learning_rate = 1.0\nwarmup_iterations = 4\nfinal_rate_fraction = 0.1", "test");
  const Schedule schedule = Schedule::from_config(table);
  SchedulePosition position{0, 10, 2, 0};
  std::vector<double> rates;
  for (; position.iteration <= 20; ++position.iteration) rates.push_back(schedule.rate(position));
  EXPECT_DOUBLE_EQ(rates[0], 0.25);
  EXPECT_DOUBLE_EQ(rates[3], 1.0);
  EXPECT_DOUBLE_EQ(rates[4], 1.0);
  for (size_t i = 5; i < rates.size(); ++i) EXPECT_LT(rates[i], rates[i - 1]);
  EXPECT_NEAR(rates[20], 0.1, 1e-12);
}

TEST(Schedule, ReachesItsEndWhenTheTimeDoes) {
  for (const auto kind : {Schedule::Kind::kPoly, Schedule::Kind::kCosine}) {
    Schedule schedule;
    schedule.kind = kind;
    EXPECT_NEAR(
        schedule.rate({.iteration = 5, .iterations_per_epoch = 100, .time_share = 1}), 0, 1e-15);
    EXPECT_GT(schedule.rate({.iteration = 5, .iterations_per_epoch = 100, .time_share = 0.5}), 0);
  }
}

TEST(Schedule, RefusesAnUnknownKindAndNamesTheKnownOnes) {
  auto table = ConfigTable::from_text("schedule = \"step\"", "test");
  EXPECT_THAT([&] { Schedule::from_config(table); },
              ::testing::ThrowsMessage<ConfigError>(::testing::HasSubstr("published_synapse")));
}

}  // namespace
}  // namespace vireo
