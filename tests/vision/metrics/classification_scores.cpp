#include "vision/metrics/classification_scores.h"

#include <cmath>

#include <gmock/gmock.h>

#include "vision/core/error.h"

// Expected numbers: scikit-learn 1.9.1 on the same tables (calibration errors: NumPy; temperatures:
// SciPy's brentq on the likelihood's derivative).
namespace vireo {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr double kExact = 1e-9;

ClassifiedSamples single(int64_t classes,
                         const std::vector<double>& twentieths,
                         const std::vector<int64_t>& truth) {
  ClassifiedSamples samples;
  samples.class_count = classes;
  for (const double value : twentieths) samples.probabilities.push_back(value / 20);
  samples.truth = truth;
  return samples;
}

// Three classes, many equal probabilities.
ClassifiedSamples three() {
  return single(3,
                {14, 4, 2,  8,  8, 4, 2, 16, 2, 5, 5,  10, 10, 6, 4, 1, 3, 16, 6, 12, 2,  8, 4, 8,
                 4,  4, 12, 12, 6, 2, 6, 8,  6, 2, 16, 2,  10, 6, 4, 5, 9, 6,  4, 2,  14, 7, 7, 6},
                {0, 1, 1, 2, 0, 2, 0, 0, 1, 0, 1, 1, 2, 2, 2, 0});
}

ClassifiedSamples binary(const std::vector<double>& twentieths, const std::vector<int64_t>& truth) {
  std::vector<double> both;
  for (const double value : twentieths) {
    both.push_back(20 - value);
    both.push_back(value);
  }
  return single(2, both, truth);
}

ClassifiedSamples multi() {
  ClassifiedSamples samples;
  samples.class_count = 3;
  for (const double value :
       {16, 4, 10, 10, 10, 2, 3, 18, 10, 12, 9, 10, 5, 6, 19, 10, 2, 11, 19, 13, 1, 8, 10, 10})
    samples.probabilities.push_back(value / 20);
  samples.labels = {1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 1, 0};
  return samples;
}

const ClassificationOptions kAt80{.specificity = 0.8};

TEST(ClassificationScores, AreScikitLearnsForThreeClassesWithTies) {
  const ClassifiedSamples samples = three();
  const ClassificationScorer scorer(samples, kAt80);
  const ClassificationScores s = scorer.scores();
  EXPECT_NEAR(s.overall.top1, 0.6875, kExact);
  EXPECT_NEAR(s.overall.balanced_accuracy, 0.6777777777777777, kExact);
  EXPECT_NEAR(s.overall.macro_precision, 0.688095238095238, kExact);
  EXPECT_NEAR(s.overall.macro_f1, 0.6786324786324786, kExact);
  EXPECT_NEAR(s.overall.macro_auroc, 0.8366161616161616, kExact);
  EXPECT_NEAR(s.overall.macro_auprc, 0.7595358345358344, kExact);
  EXPECT_NEAR(s.overall.kappa, 0.5266272189349113, kExact);
  EXPECT_NEAR(s.overall.mcc, 0.5297994485700921, kExact);
  EXPECT_NEAR(s.overall.ece, 0.275, kExact);
  EXPECT_NEAR(s.overall.mce, 0.45, kExact);
  EXPECT_NEAR(s.overall.brier, 0.463125, kExact);
  EXPECT_NEAR(s.overall.log_loss, 0.7940885175216994, kExact);
  const double precision[] = {0.7142857142857143, 0.6, 0.75};
  const double recall[] = {0.8333333333333334, 0.6, 0.6};
  const double f1[] = {0.7692307692307693, 0.6, 0.6666666666666666};
  const double auroc[] = {0.8916666666666667, 0.7818181818181817, 0.8363636363636364};
  const double auprc[] = {0.7996031746031745, 0.7380952380952381, 0.740909090909091};
  const double sensitivity[] = {0.8333333333333334, 0.8, 0.6};
  for (size_t k = 0; k < 3; ++k) {
    EXPECT_NEAR(s.classes[k].precision, precision[k], kExact);
    EXPECT_NEAR(s.classes[k].recall, recall[k], kExact);
    EXPECT_NEAR(s.classes[k].f1, f1[k], kExact);
    EXPECT_NEAR(s.classes[k].auroc, auroc[k], kExact);
    EXPECT_NEAR(s.classes[k].auprc, auprc[k], kExact);
    EXPECT_NEAR(s.classes[k].sensitivity_at_specificity, sensitivity[k], kExact);
  }
  EXPECT_EQ(scorer.confusion(), (std::vector<int64_t>{5, 1, 0, 1, 3, 1, 1, 1, 3}));
}

TEST(ClassificationScores, AreScikitLearnsForTwoClassesWithTies) {
  const ClassifiedSamples samples =
      binary({2, 10, 10, 7, 15, 18, 10, 5, 10, 13, 2, 17}, {0, 0, 1, 0, 1, 1, 1, 0, 0, 1, 0, 0});
  const ClassificationScores s = ClassificationScorer(samples, kAt80).scores();
  EXPECT_NEAR(s.overall.top1, 0.75, kExact);
  EXPECT_NEAR(s.overall.balanced_accuracy, 0.7285714285714285, kExact);
  EXPECT_NEAR(s.classes[0].auroc, 0.8285714285714285, kExact);
  EXPECT_NEAR(s.classes[1].auroc, 0.8285714285714286, kExact);
  EXPECT_NEAR(s.classes[0].auprc, 0.8766233766233765, kExact);
  EXPECT_NEAR(s.classes[1].auprc, 0.7333333333333334, kExact);
  EXPECT_NEAR(s.classes[0].sensitivity_at_specificity, 0.5714285714285714, kExact);
  EXPECT_NEAR(s.classes[1].sensitivity_at_specificity, 0.6, kExact);
  EXPECT_NEAR(s.classes[1].specificity, 0.8571428571428571, kExact);
  EXPECT_NEAR(s.overall.kappa, 0.47058823529411764, kExact);
  EXPECT_NEAR(s.overall.mcc, 0.47809144373375745, kExact);
  EXPECT_NEAR(s.overall.ece, 0.19583333333333333, kExact);
  EXPECT_NEAR(s.overall.mce, 0.85, kExact);
  EXPECT_NEAR(s.overall.brier, 0.176875, kExact);
  EXPECT_NEAR(s.overall.log_loss, 0.5352266859323009, kExact);
}

TEST(ClassificationScores, LeaveUndefinedWhatOneClassAloneCannotTell) {
  const ClassifiedSamples samples = binary({2, 10, 10, 7}, {0, 0, 0, 0});
  const ClassificationScorer scorer(samples, kAt80);
  const ClassificationScores s = scorer.scores();
  EXPECT_EQ(s.overall.top1, 1);
  EXPECT_EQ(s.overall.balanced_accuracy, 1);
  EXPECT_EQ(s.overall.macro_f1, 1);
  EXPECT_EQ(s.overall.mcc, 0);
  EXPECT_TRUE(std::isnan(s.overall.kappa));
  EXPECT_TRUE(std::isnan(s.overall.macro_auroc));
  EXPECT_EQ(s.overall.macro_auprc, 1);
  EXPECT_TRUE(std::isnan(s.classes[1].recall));
  EXPECT_TRUE(std::isnan(s.classes[1].auprc));
  EXPECT_TRUE(std::isnan(s.classes[0].sensitivity_at_specificity));
  EXPECT_NEAR(s.overall.ece, 0.3625, kExact);
  EXPECT_NEAR(s.overall.brier, 0.158125, kExact);
  EXPECT_NEAR(s.overall.log_loss, 0.4806094482175427, kExact);
  EXPECT_TRUE(scorer.roc(0).empty());
  EXPECT_FALSE(scorer.precision_recall(0).empty());
  const ScoreIntervals intervals = bootstrap_scores(scorer, 1, 20);
  EXPECT_EQ(intervals.low.overall.top1, 1);
  EXPECT_TRUE(std::isnan(intervals.high.overall.macro_auroc));
}

ClassifiedSamples seven(double step) {
  ClassifiedSamples samples;
  samples.class_count = 7;
  for (int i = 0; i < 10; ++i) {
    double sum = 0;
    for (int k = 0; k < 7; ++k) {
      samples.probabilities.push_back((3 * i + 5 * k * k + i * k) % 11 + 1 + k * step);
      sum += samples.probabilities.back();
    }
    for (int k = 0; k < 7; ++k) samples.probabilities[static_cast<size_t>(7 * i + k)] /= sum;
    samples.truth.push_back(i * 3 % 7);
  }
  return samples;
}

TEST(ClassificationScores, CountTheFiveMostProbableAndTheFirstOfEqualOnes) {
  const ClassifiedSamples distinct = seven(0.1), equal = seven(0);
  EXPECT_NEAR(ClassificationScorer(distinct).scores().overall.top5, 0.6, kExact);
  const ClassificationScores s = ClassificationScorer(equal, kAt80).scores();
  EXPECT_NEAR(s.overall.top5, 0.5, kExact);
  EXPECT_NEAR(s.overall.top1, 0.1, kExact);
  EXPECT_NEAR(s.overall.macro_precision, 0.07142857142857142, kExact);
  EXPECT_NEAR(s.overall.macro_auroc, 0.3501984126984127, kExact);
  EXPECT_NEAR(s.overall.macro_auprc, 0.24818594104308392, kExact);
  EXPECT_NEAR(s.overall.kappa, -0.046511627906976605, kExact);
  EXPECT_NEAR(s.overall.mcc, -0.047619047619047616, kExact);
  EXPECT_NEAR(s.overall.ece, 0.15359898550646123, kExact);
  EXPECT_NEAR(s.overall.mce, 0.23141632333289575, kExact);
  EXPECT_NEAR(s.overall.brier, 0.9504251268266858, kExact);
  EXPECT_NEAR(s.overall.log_loss, 2.4170250845225723, kExact);
}

TEST(ClassificationScores, AreScikitLearnsForSeveralLabels) {
  const ClassifiedSamples samples = multi();
  const ClassificationScores s = ClassificationScorer(samples).scores();
  EXPECT_NEAR(s.overall.exact_match, 0.625, kExact);
  EXPECT_NEAR(s.overall.top1, 0.875, kExact);
  EXPECT_NEAR(s.overall.balanced_accuracy, 1, kExact);
  EXPECT_NEAR(s.overall.macro_precision, 0.8222222222222223, kExact);
  EXPECT_NEAR(s.overall.macro_f1, 0.8962962962962964, kExact);
  EXPECT_NEAR(s.overall.micro_f1, 0.8888888888888888, kExact);
  EXPECT_NEAR(s.overall.macro_auroc, 0.9166666666666666, kExact);
  EXPECT_NEAR(s.overall.macro_auprc, 0.9111111111111111, kExact);
  EXPECT_NEAR(s.overall.ece, 0.2041666666666667, kExact);
  EXPECT_NEAR(s.overall.mce, 0.45, kExact);
  EXPECT_NEAR(s.overall.brier, 0.13916666666666666, kExact);
  EXPECT_NEAR(s.overall.log_loss, 0.43007813318234334, kExact);
}

TEST(ClassificationScores, WeighASampleAsThoughItCameSeveralTimes) {
  const ClassifiedSamples samples = three();
  const ClassificationScores s =
      ClassificationScorer(samples, kAt80).scores({1, 0, 2, 1, 3, 0, 1, 2, 1, 1, 0, 4, 1, 1, 2, 1});
  EXPECT_NEAR(s.overall.top1, 0.8095238095238095, kExact);
  EXPECT_NEAR(s.overall.balanced_accuracy, 0.782010582010582, kExact);
  EXPECT_NEAR(s.overall.macro_f1, 0.7851851851851852, kExact);
  EXPECT_NEAR(s.overall.macro_auroc, 0.9056437389770723, kExact);
  EXPECT_NEAR(s.overall.macro_auprc, 0.8454392153222563, kExact);
  EXPECT_NEAR(s.overall.kappa, 0.704225352112676, kExact);
  EXPECT_NEAR(s.overall.mcc, 0.7067534927402196, kExact);
  EXPECT_NEAR(s.overall.ece, 0.31904761904761914, kExact);
  EXPECT_NEAR(s.overall.brier, 0.3783333333333333, kExact);
  EXPECT_NEAR(s.overall.log_loss, 0.6762631194035374, kExact);
  EXPECT_NEAR(s.classes[1].sensitivity_at_specificity, 0.8571428571428571, kExact);
}

TEST(ClassificationScores, CurvesEncloseTheirAreas) {
  const ClassifiedSamples samples = three();
  const ClassificationScorer scorer(samples);
  const ClassificationScores scores = scorer.scores();
  for (int64_t k = 0; k < 3; ++k) {
    const auto roc = scorer.roc(k);
    double area = 0;
    for (size_t i = 1; i < roc.size(); ++i)
      area += (roc[i].x - roc[i - 1].x) * (roc[i].y + roc[i - 1].y) / 2;
    EXPECT_NEAR(area, scores.classes[static_cast<size_t>(k)].auroc, kExact);
    double precision = 0, before = 0;
    for (const CurvePoint& point : scorer.precision_recall(k)) {
      precision += (point.x - before) * point.y;
      before = point.x;
    }
    EXPECT_NEAR(precision, scores.classes[static_cast<size_t>(k)].auprc, kExact);
  }
}

TEST(Bootstrap, HoldsTheScoreAndWidensWhereSamplesBelongTogether) {
  ClassifiedSamples samples;
  samples.class_count = 2;
  for (int i = 0; i < 200; ++i) {
    const double p = (i * 37 % 100) / 100.0;
    samples.probabilities.insert(samples.probabilities.end(), {1 - p, p});
    samples.truth.push_back((i / 10 * 7 % 5 < 2) != (p > 0.6));
  }
  const ClassificationScores scores = ClassificationScorer(samples).scores();
  const ScoreIntervals alone = bootstrap_scores(ClassificationScorer(samples), 3, 400);
  for (int i = 0; i < 200; ++i) samples.groups.push_back(1000 - i / 10);
  const ScoreIntervals grouped = bootstrap_scores(ClassificationScorer(samples), 3, 400);
  EXPECT_LT(alone.low.overall.top1, scores.overall.top1);
  EXPECT_GT(alone.high.overall.top1, scores.overall.top1);
  EXPECT_LT(alone.low.classes[1].auroc, scores.classes[1].auroc);
  EXPECT_GT(alone.high.classes[1].auroc, scores.classes[1].auroc);
  EXPECT_GT(grouped.high.overall.top1 - grouped.low.overall.top1,
            1.2 * (alone.high.overall.top1 - alone.low.overall.top1));
  EXPECT_EQ(bootstrap_scores(ClassificationScorer(samples), 3, 400).low.overall.brier,
            grouped.low.overall.brier);
}

TEST(Temperature, MaximisesTheLikelihood) {
  const ClassifiedSamples samples = three(), several = multi();
  std::vector<double> logits, label_logits;
  for (const double p : samples.probabilities) logits.push_back(60 * p);
  for (const double p : several.probabilities) label_logits.push_back(30 * p - 15);
  EXPECT_NEAR(fit_temperature(logits, samples), 13.557578492886757, kExact);
  EXPECT_NEAR(fit_temperature(label_logits, several), 1.8895216207118433, kExact);
}

TEST(Temperature, ChangesProbabilitiesAndNotTheirOrder) {
  const auto p = probabilities_at({1, 2, 4, 800, 0, -800}, 3, false, 2);
  EXPECT_NEAR(p[2], std::exp(2.0) / (std::exp(0.5) + std::exp(1.0) + std::exp(2.0)), kExact);
  EXPECT_EQ(p[3], 1);
  EXPECT_EQ(p[5], 0);
  EXPECT_NEAR(probabilities_at({-3}, 1, true, 3)[0], 1 / (1 + std::exp(1.0)), kExact);
}

TEST(ClassificationScores, RefuseWhatIsNoProbabilityOrNoClass) {
  ClassifiedSamples samples = three();
  samples.truth[3] = 3;
  EXPECT_THAT([&] { ClassificationScorer{samples}; },
              ThrowsMessage<Error>(HasSubstr("class 3 does not exist: there are 3")));
  samples = three();
  samples.probabilities[0] = std::nan("");
  EXPECT_THAT([&] { ClassificationScorer{samples}; },
              ThrowsMessage<Error>(HasSubstr("not a number between 0 and 1")));
  samples = three();
  samples.groups = {1};
  EXPECT_THAT([&] { ClassificationScorer{samples}; },
              ThrowsMessage<Error>(HasSubstr("the same number of samples")));
}

}  // namespace
}  // namespace vireo
