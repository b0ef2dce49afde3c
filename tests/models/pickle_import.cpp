#include "models/weights/pickle_import.h"

#include <fstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/weights/pickle_reader.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The files in tests/data/weights were written by PyTorch 2.11.
std::filesystem::path file(const std::string& name) {
  return test::repository_file("data/weights/" + name);
}

std::string refusal(const std::filesystem::path& path, const std::string& entry = "") {
  try {
    read_pickled_weights(path, entry);
  } catch (const DataError& error) {
    return error.what();
  }
  return "(no error)";
}

bool nothing_known(const std::string&) {
  return false;
}

void expect_the_tensors(const std::map<std::string, at::Tensor>& tensors) {
  ASSERT_EQ(tensors.size(), 5);
  EXPECT_TRUE(at::equal(tensors.at("conv.weight"), at::arange(6.).view({2, 3})));
  EXPECT_TRUE(at::equal(tensors.at("conv.bias"), at::tensor({0.5, -1.5})));
  EXPECT_EQ(tensors.at("steps").scalar_type(), at::kLong);
  EXPECT_EQ(tensors.at("steps").item<int64_t>(), 3);
  EXPECT_TRUE(at::equal(tensors.at("turned"), at::arange(8.).view({2, 4}).t()));
  EXPECT_TRUE(at::equal(tensors.at("half"), at::tensor({1.5, 2.5}).to(at::kHalf)));
}

TEST(PickleImport, FindsTheStateDictOfATrainingCheckpoint) {
  auto weights = read_pickled_weights(file("checkpoint.pth"));
  EXPECT_THAT(weights.notes.front(),
              AllOf(HasSubstr("took the entry \"state_dict\""),
                    HasSubstr("args (a Python object (argparse.Namespace))"),
                    HasSubstr("optimizer (a dictionary)")));
  strip_wrapper_prefixes(weights, nothing_known);
  expect_the_tensors(weights.tensors);
}

TEST(PickleImport, ReadsABareStateDictOfProtocol4) {
  expect_the_tensors(read_pickled_weights(file("plain_protocol4.pth")).tensors);
}

TEST(PickleImport, TakesTheEntryAskedFor) {
  EXPECT_EQ(read_pickled_weights(file("checkpoint.pth"), "state_dict").tensors.size(), 5);
  EXPECT_THAT(refusal(file("checkpoint.pth"), "ema"),
              AllOf(HasSubstr("has no entry \"ema\""), HasSubstr("epoch (a number)")));
  EXPECT_THAT(refusal(file("checkpoint.pth"), "epoch"), HasSubstr("is a number"));
  EXPECT_THAT(refusal(file("checkpoint.pth"), "epoch.x"), HasSubstr("it holds a number"));
}

TEST(PickleImport, ExplainsWhatItDoesNotRead) {
  EXPECT_THAT(refusal(file("before_1.6.pth")),
              AllOf(HasSubstr("before PyTorch 1.6"), HasSubstr("torch.save(model.state_dict()")));
  EXPECT_THAT(refusal(file("module.pth")), HasSubstr("torch.nn.modules.linear.Linear"));
  EXPECT_THAT(refusal(file("mixed.pth")), HasSubstr("not tensors: b (a text)"));
  EXPECT_THAT(refusal(file("none.pth")), HasSubstr("does not exist"));
  const auto text = test::scratch_folder() / "text.pth";
  write_text_atomically(text, "hello");
  EXPECT_THAT(refusal(text), HasSubstr("does not start like a zip archive"));
}

TEST(PickleImport, RefusesEveryTruncation) {
  const std::string whole = read_text(file("checkpoint.pth"));
  const auto path = test::scratch_folder() / "cut.pth";
  for (size_t length = 0; length < whole.size(); length += 97) {
    std::ofstream(path, std::ios::binary).write(whole.data(), static_cast<int64_t>(length));
    EXPECT_NE(refusal(path), "(no error)") << length;
  }
}

TEST(PickleImport, SurvivesEveryChangedByte) {
  // The archive's checksums would catch most of these, so the pickle is broken by itself.
  const std::string whole = read_text(file("checkpoint.pth"));
  const size_t begin = whole.find("\x80\x02");
  const std::string pickle = whole.substr(begin, whole.find("PK", begin) - begin);
  for (size_t at = 0; at < pickle.size(); ++at)
    for (const int change : {1, 2, 16, 128, 255}) {
      std::string broken = pickle;
      broken[at] = static_cast<char>(broken[at] ^ change);
      try {
        PickleReader(broken).read();
      } catch (const PickleError&) {
        // Refused, which is as good.
      }
    }
}

/// A file of torch.save with one tensor whose description is ours.
std::filesystem::path file_with_extent(const std::string& from, const std::string& to) {
  std::string whole = read_text(file("plain_protocol4.pth"));
  const size_t at = whole.find(from);
  EXPECT_NE(at, std::string::npos);
  whole.replace(at, from.size(), to);
  const auto path = test::scratch_folder() / "extent.pth";
  std::ofstream(path, std::ios::binary).write(whole.data(), std::ssize(whole));
  return path;
}

TEST(PickleImport, RefusesArchivesWhoseContentWasChanged) {
  // Sizes (2, 3) of the first tensor become (2, 9).
  const std::string message = refusal(file_with_extent("K\x02K\x03\x86", "K\x02K\x09\x86"));
  EXPECT_NE(message, "(no error)");
}

TEST(PickleReader, NamesWhatIsBroken) {
  const auto message = [](std::string_view bytes) -> std::string {
    try {
      PickleReader(bytes).read();
    } catch (const PickleError& error) {
      return error.what();
    }
    return "(no error)";
  };
  using namespace std::string_view_literals;
  EXPECT_THAT(message(""sv), HasSubstr("ends in the middle"));
  EXPECT_THAT(message("\x80\x02."sv), HasSubstr("takes more than it has put"));
  EXPECT_THAT(message("X\xff\xff\xff\xff"sv), HasSubstr("ends in the middle"));
  EXPECT_THAT(message("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"sv), HasSubstr("ends in the middle"));
  EXPECT_THAT(message("h\x07"sv), HasSubstr("has not defined"));
  EXPECT_THAT(message("}u"sv), HasSubstr("has not opened"));
  EXPECT_THAT(message("I1\n."sv), HasSubstr("unknown instruction 73 at byte 0"));
  EXPECT_EQ(message("}."sv), "(no error)");
}

// What a pickle names once, a few bytes can copy again and again, and each copy again.
TEST(PickleReader, RefusesPicklesThatGrowAsTheyAreRead) {
  using namespace std::string_view_literals;
  const auto repeated = [](std::string_view start, std::string_view step, int times) {
    std::string bytes(start);
    for (int i = 0; i < times; ++i) bytes += step;
    return bytes + ".";
  };
  const std::string pickles[] = {
      // A class whose name is twice its own name: 2^40 letters.
      repeated("U\x04xxxxq\0"sv, "h\0h\0\x93q\0"sv, 40),
      // A list of pairs, each of all pairs so far.
      repeated("ccollections\nOrderedDict\nq\1NNNN\x87q\0"sv, "h\1h\0h\0h\0\x87\x85Rq\0"sv, 40),
      // A parameter that is a long list, time after time.
      repeated("ctorch._utils\n_rebuild_parameter\nq\1(" + std::string(5000, 'N') +
                   std::string("t\x85q\0"sv),
               "h\1h\0R"sv,
               5000)};
  for (const std::string& pickle : pickles)
    EXPECT_THAT([&] { PickleReader(pickle).read(); },
                ::testing::ThrowsMessage<PickleError>(HasSubstr("grows without end")));
}

TEST(PickleReader, CallsNothing) {
  using namespace std::string_view_literals;
  PickleReader reader(
      "cos\nsystem\n(X\x04\x00\x00\x00"
      "exittR."sv);
  const PickleNode* node = reader.read();
  EXPECT_EQ(node->kind, PickleNode::Kind::kObject);
  EXPECT_EQ(node->text, "os.system");
}

ImportedWeights named(const std::vector<std::string>& names) {
  ImportedWeights weights;
  for (const auto& name : names) weights.tensors[name] = at::zeros({1});
  return weights;
}

std::vector<std::string> stripped(const std::vector<std::string>& names,
                                  const std::function<bool(const std::string&)>& is_known) {
  auto weights = named(names);
  strip_wrapper_prefixes(weights, is_known);
  std::vector<std::string> left;
  for (const auto& [name, tensor] : weights.tensors) left.push_back(name);
  return left;
}

TEST(WrapperPrefixes, AreRemovedWhereTheyAreWrappers) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(stripped({"module.a", "module.module.b"}, nothing_known), (Names{"a", "module.b"}));
  EXPECT_EQ(stripped({"module.module.a"}, nothing_known), (Names{"a"}));
  EXPECT_EQ(stripped({"_orig_mod.module.a", "_orig_mod.module.b"}, nothing_known),
            (Names{"a", "b"}));
  EXPECT_EQ(stripped({"x._orig_mod.a", "x_orig_mod.b"}, nothing_known),
            (Names{"x.a", "x_orig_mod.b"}));
  EXPECT_EQ(stripped({"module.a", "b"}, nothing_known), (Names{"b", "module.a"}));
}

TEST(WrapperPrefixes, BackboneGoesOnlyWhereAModelIsBehindIt) {
  using Names = std::vector<std::string>;
  const auto short_known = [](const std::string& name) { return name == "a" || name == "b"; };
  const auto long_known = [](const std::string& name) { return name.starts_with("backbone."); };
  EXPECT_EQ(stripped({"backbone.a", "backbone.b"}, short_known), (Names{"a", "b"}));
  EXPECT_EQ(stripped({"backbone.a", "backbone.c"}, short_known),
            (Names{"backbone.a", "backbone.c"}));
  EXPECT_EQ(stripped({"backbone.a"}, long_known), (Names{"backbone.a"}));
  EXPECT_EQ(stripped({"backbone.a", "head"}, short_known), (Names{"backbone.a", "head"}));
}

TEST(WrapperPrefixes, NamesThatWouldCollideAreRefused) {
  auto weights = named({"_orig_mod.a", "a"});
  EXPECT_THROW(strip_wrapper_prefixes(weights, nothing_known), Error);
}

}  // namespace
}  // namespace vireo
