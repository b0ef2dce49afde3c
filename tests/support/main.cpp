#include <filesystem>
#include <string>

#include <ATen/Context.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace {

// Every test starts from the same random state, alone or after others, and takes its scratch folder
// with it when it passed.
class FreshStart : public ::testing::EmptyTestEventListener {
  void OnTestStart(const ::testing::TestInfo&) override { at::manual_seed(20240701); }

  void OnTestEnd(const ::testing::TestInfo& info) override {
    if (!info.result()->Passed()) return;
    std::string name = std::string("vireo-test-") + std::to_string(::getpid()) + "-" +
                       info.test_suite_name() + "." + info.name();
    for (char& c : name)
      if (c == '/') c = '_';
    std::error_code ignored;
    std::filesystem::remove_all(std::filesystem::temp_directory_path() / name, ignored);
  }
};

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  ::testing::UnitTest::GetInstance()->listeners().Append(new FreshStart);
  return RUN_ALL_TESTS();
}
