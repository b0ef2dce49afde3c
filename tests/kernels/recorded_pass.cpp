// What a recording promises, with a stand-in for the GPU's stream: it keeps the work and does it
// again on demand. On a GPU: tests/kernels/cuda.cpp.
#include "kernels/graph/recorded_pass.h"

#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace vireo {
namespace {

using Tensors = RecordedPass::Tensors;

/// What the stand-in was asked for, and what is to go wrong.
struct Log {
  int runs = 0, recordings = 0, repeats = 0;
  bool refuses = false;
  std::function<void()> spoil = [] {};  // after every repetition
};

class MadeRecording : public Recording {
 public:
  MadeRecording(std::function<void()> work, Log& log) : work_(std::move(work)), log_(log) {}
  void repeat() override {
    ++log_.repeats;
    work_();
    log_.spoil();
  }

 private:
  std::function<void()> work_;
  Log& log_;
};

class MadeStream : public GraphStream {
 public:
  explicit MadeStream(Log& log) : log_(log) {}
  void run(const std::function<void()>& work) override {
    ++log_.runs;
    work();
  }
  std::unique_ptr<Recording> record(const std::function<void()>& work) override {
    ++log_.recordings;
    if (log_.refuses) throw std::runtime_error("a result is read back\nsomewhere");
    return std::make_unique<MadeRecording>(work, log_);
  }

 private:
  Log& log_;
};

/// x + noise, and a count of what was seen, as a network in training has both.
struct Fixture {
  Log log;
  std::vector<std::string> complaints;
  at::Tensor count = at::zeros({1});
  RecordedPass pass{[this](const Tensors& in) -> Tensors {
                      count += in[0].sum();
                      return {in[0] + at::rand_like(in[0])};
                    },
                    {count},
                    std::make_unique<MadeStream>(log),
                    [this](const std::string& why) { complaints.push_back(why); }};

  /// Calls with images of one size, beside the same function called plainly.
  void expect_as_plain(int64_t size, int calls) {
    for (int i = 0; i < calls; ++i) {
      const at::Tensor x = at::full({size}, i + 1.0);
      const at::Tensor count_before = count.clone();
      at::manual_seed(100 + i);
      const at::Tensor found = pass({x})[0].clone();
      at::manual_seed(100 + i);
      EXPECT_TRUE(at::equal(found, x + at::rand_like(x))) << "call " << i;
      EXPECT_TRUE(at::equal(count, count_before + x.sum())) << "call " << i;
    }
  }
};

TEST(RecordedPass, GivesWhatTheFunctionGivesAndChangesStateOncePerCall) {
  Fixture f;
  f.expect_as_plain(5, 6);
  EXPECT_EQ(f.log.recordings, 1);
  EXPECT_EQ(f.pass.repeated(), 6 - RecordedPass::kPlainCalls);
  EXPECT_EQ(f.log.repeats, f.pass.repeated());
  EXPECT_EQ(f.log.runs, RecordedPass::kPlainCalls + 1);  // one beside the recording's trial
  EXPECT_TRUE(f.complaints.empty());
}

TEST(RecordedPass, KeepsOneRecordingForEachKindOfInputsUpToALimit) {
  Fixture f;
  constexpr auto kMost = static_cast<int>(RecordedPass::kMostRecordings);
  for (int round = 0; round < 2; ++round)
    for (int64_t size = 1; size <= kMost + 2; ++size) f.expect_as_plain(size, 4);
  EXPECT_EQ(f.log.recordings, kMost);
}

TEST(RecordedPass, TellsLayoutsApart) {
  Log log;
  RecordedPass pass([](const Tensors& in) -> Tensors { return {in[0] * 2}; },
                    {},
                    std::make_unique<MadeStream>(log),
                    [](const std::string& why) { FAIL() << why; });
  const at::Tensor x = at::rand({2, 3, 4, 5});
  for (int i = 0; i < 4; ++i) {
    EXPECT_TRUE(at::equal(pass({x})[0], x * 2));
    const at::Tensor y = pass({x.contiguous(at::MemoryFormat::ChannelsLast)})[0];
    EXPECT_TRUE(y.is_contiguous(at::MemoryFormat::ChannelsLast));
  }
  EXPECT_EQ(log.recordings, 2);
}

TEST(RecordedPass, CallsTheFunctionWhereARecordingGivesSomethingElse) {
  Fixture f;
  f.log.spoil = [&] { f.count += 1000; };
  f.expect_as_plain(5, 6);
  EXPECT_EQ(f.log.repeats, 1);
  EXPECT_EQ(f.pass.repeated(), 0);
  ASSERT_EQ(f.complaints.size(), 1u);
  EXPECT_NE(f.complaints[0].find("it gave something else"), std::string::npos) << f.complaints[0];
}

TEST(RecordedPass, CallsTheFunctionWhereItCannotBeRecorded) {
  Fixture f;
  f.log.refuses = true;
  f.expect_as_plain(5, 6);
  EXPECT_EQ(f.log.recordings, 1);
  EXPECT_EQ(f.complaints, std::vector<std::string>{"a result is read back"});
}

TEST(RecordedPass, WaitsWithRecordingForNumbersThatCanBeCompared) {
  Fixture f;
  f.expect_as_plain(1, 2);
  const at::Tensor huge = at::full({1}, std::numeric_limits<float>::infinity());
  for (int i = 0; i < 3; ++i) f.pass({huge});
  EXPECT_EQ(f.log.recordings, 0);
  f.count.zero_();
  f.expect_as_plain(1, 2);
  EXPECT_EQ(f.log.recordings, 1);
  EXPECT_EQ(f.pass.repeated(), 2);
}

TEST(RecordedPass, CallsTheFunctionWithoutAStream) {
  RecordedPass pass([](const Tensors& in) -> Tensors { return {in[0] + 1}; },
                    {},
                    graph_stream_of(at::kCPU),
                    [](const std::string& why) { FAIL() << why; });
  for (int i = 0; i < 4; ++i) EXPECT_EQ(pass({at::full({1}, i)})[0].item<int>(), i + 1);
  EXPECT_EQ(pass.repeated(), 0);
}

}  // namespace
}  // namespace vireo
