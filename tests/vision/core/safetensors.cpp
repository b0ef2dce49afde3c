#include "vision/core/safetensors.h"

#include <cstring>
#include <fstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/refusal.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

namespace fs = std::filesystem;

class Safetensors : public ::testing::Test {
 protected:
  /// Writes header length, header and data as given, right or wrong.
  fs::path raw(const std::string& header,
               size_t data_bytes,
               std::optional<uint64_t> length = std::nullopt) {
    const uint64_t claimed = length.value_or(header.size());
    std::string bytes(reinterpret_cast<const char*>(&claimed), 8);
    bytes += header;
    bytes.append(data_bytes, '\1');
    return file(bytes);
  }

  fs::path file(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary).write(bytes.data(), std::ssize(bytes));
    return path_;
  }

  std::string refusal(const fs::path& path) {
    try {
      SafetensorsFile::open(path);
    } catch (const DataError& error) {
      return error.what();
    }
    return "(no error)";
  }

  fs::path path_ = test::scratch_folder() / "file.safetensors";
};

std::string one_tensor(const std::string& dtype, const std::string& shape, const std::string& at) {
  return R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + at + "}}";
}

TEST_F(Safetensors, ReadsBackWhatWasWritten) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto type : {at::kDouble,
                          at::kFloat,
                          at::kHalf,
                          at::kBFloat16,
                          at::kLong,
                          at::kInt,
                          at::kShort,
                          at::kChar,
                          at::kByte,
                          at::kBool})
    tensors[at::toString(type)] = (at::rand({3, 5}) * 100 - 50).to(type);
  tensors["scalar"] = at::tensor(4.5);
  tensors["empty"] = at::zeros({2, 0, 3});
  tensors["turned"] = at::rand({4, 6}).t();
  tensors["näme \"quoted\"\n"] = at::rand({7});
  write_safetensors(path_, tensors, {{"who", "me"}, {"json", "{\"a\":1}"}});

  const auto read = SafetensorsFile::open(path_);
  EXPECT_EQ(read.metadata().at("who"), "me");
  EXPECT_EQ(read.metadata().at("json"), "{\"a\":1}");
  EXPECT_EQ(read.names().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    ASSERT_TRUE(read.contains(name)) << name;
    EXPECT_EQ(read.tensor(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_EQ(read.tensor(name).sizes(), tensor.sizes()) << name;
    EXPECT_TRUE(at::equal(read.tensor(name), tensor)) << name;
  }
  EXPECT_FALSE(read.contains("other"));
  EXPECT_THROW(read.tensor("other"), DataError);
}

TEST_F(Safetensors, WritesTheSameBytesForTheSameTensors) {
  const std::map<std::string, at::Tensor> tensors = {
      {"b", at::ones({3}, at::kByte)}, {"a", at::ones({2})}, {"c", at::ones({1}, at::kDouble)}};
  write_safetensors(path_, tensors, {{"z", "1"}, {"y", "2"}});
  const std::string first = read_text(path_);
  write_safetensors(path_, tensors, {{"y", "2"}, {"z", "1"}});
  EXPECT_EQ(read_text(path_), first);
  uint64_t length = 0;
  std::memcpy(&length, first.data(), 8);
  EXPECT_EQ(length % 8, 0);
}

TEST_F(Safetensors, TensorsOutliveTheFileObjectAndShareItsMemory) {
  write_safetensors(path_, {{"a", at::arange(1000)}});
  at::Tensor first, second;
  {
    const auto read = SafetensorsFile::open(path_);
    first = read.tensor("a");
    second = read.tensor("a");
  }
  fs::remove(path_);
  EXPECT_EQ(first.const_data_ptr(), second.const_data_ptr());
  EXPECT_TRUE(at::equal(first, at::arange(1000)));
}

TEST_F(Safetensors, CopiesDataThatIsNotAligned) {
  const std::string header = R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("a":{"dtype":"F64","shape":[2],"data_offsets":[1,17]}})";
  const at::Tensor a = SafetensorsFile::open(raw(header, 17)).tensor("a");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.const_data_ptr()) % 8, 0);
  EXPECT_EQ(a[0].item<double>(), a[1].item<double>());
}

TEST_F(Safetensors, AcceptsPaddingAnEmptyFileAndOddOrders) {
  EXPECT_TRUE(SafetensorsFile::open(raw("{}", 0)).names().empty());
  EXPECT_TRUE(SafetensorsFile::open(raw("{}     ", 0)).names().empty());
  const std::string header = R"({"b":{"data_offsets":[4,8],"shape":[1],"dtype":"F32"},)"
                             R"("z":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},)"
                             R"("a":{"dtype":"I8","shape":[2,2],"data_offsets":[0,4]}})";
  EXPECT_THAT(SafetensorsFile::open(raw(header, 8)).names(), ::testing::ElementsAre("a", "b", "z"));
}

TEST_F(Safetensors, RefusesWhatIsNotAFile) {
  EXPECT_THAT(refusal(path_.parent_path() / "none"), HasSubstr("none: does not exist"));
  EXPECT_THAT(refusal(path_.parent_path()), HasSubstr("is not a file"));
}

TEST_F(Safetensors, RefusesBrokenLengths) {
  EXPECT_THAT(refusal(file("")), HasSubstr("too short for a safetensors file: 0 bytes"));
  EXPECT_THAT(refusal(file("1234567")), HasSubstr("7 bytes"));
  EXPECT_THAT(refusal(raw("{}", 0, 3)), HasSubstr("its header should have 3 bytes, but only 2"));
  EXPECT_THAT(refusal(raw("{}", 0, 100'000'001)), HasSubstr("at most 100000000"));
  EXPECT_THAT(refusal(raw("{}", 0, ~uint64_t{0})), HasSubstr("at most 100000000"));
  EXPECT_THAT(refusal(raw("{}", 0, 99'999'999)), HasSubstr("is truncated"));
  EXPECT_THAT(refusal(raw("", 0)), HasSubstr("does not start with '{'"));
}

TEST_F(Safetensors, RefusesHeadersThatAreNotTheJsonExpected) {
  EXPECT_THAT(refusal(raw("[]", 0)), HasSubstr("does not start with '{'"));
  EXPECT_THAT(refusal(raw(" {}", 0)), HasSubstr("does not start with '{'"));
  EXPECT_THAT(refusal(raw("{", 0)), HasSubstr("is not valid JSON at byte"));
  EXPECT_THAT(refusal(raw("{}x", 0)), HasSubstr("is not valid JSON"));
  EXPECT_THAT(refusal(raw("{}{}", 0)), HasSubstr("is not valid JSON"));
  EXPECT_THAT(refusal(raw(std::string("{}\0\0", 4), 0)), HasSubstr("it holds a zero byte"));
  EXPECT_THAT(refusal(raw("{\"\xff\":1}", 0)), HasSubstr("ill-formed UTF-8"));
  EXPECT_THAT(refusal(raw("{\"a\\ud800\":1}", 0)), HasSubstr("is not valid JSON"));
  EXPECT_THAT(refusal(raw(R"({"a":1})", 0)), HasSubstr("has a number for \"a\""));
  EXPECT_THAT(refusal(raw(R"({"a":[]})", 0)), HasSubstr("has a list for \"a\""));
  EXPECT_THAT(refusal(raw(R"({"a":null})", 0)), HasSubstr("has null for \"a\""));
  EXPECT_THAT(refusal(raw(R"({"__metadata__":{"a":1}})", 0)),
              HasSubstr("a number in __metadata__, which must map texts to texts"));
  EXPECT_THAT(refusal(raw(R"({"__metadata__":{"a":{}}})", 0)), HasSubstr("an object in __meta"));
  EXPECT_THAT(refusal(raw(R"({"__metadata__":"x"})", 0)), HasSubstr("a text in __metadata__"));
  const std::string deep = R"({"a":{"shape":)" + std::string(5'000'000, '[');
  EXPECT_THAT(refusal(raw(deep, 0)), HasSubstr("has a list in shape of tensor \"a\""));
  const std::string nested = R"({"a":{"shape":)" + std::string(100, '{');
  EXPECT_THAT(refusal(raw(nested, 0)), HasSubstr("has an object in shape"));
}

TEST_F(Safetensors, RefusesDuplicateKeys) {
  const std::string a = R"("a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]})";
  EXPECT_THAT(refusal(raw("{" + a + "," + a + "}", 1)), HasSubstr("holds the key \"a\" twice"));
  EXPECT_THAT(refusal(raw(R"({"a":{"dtype":"I8","dtype":"I8"}})", 1)),
              HasSubstr("\"a\" holds the key \"dtype\" twice"));
  EXPECT_THAT(refusal(raw(R"({"__metadata__":{"x":"1","x":"2"}})", 0)),
              HasSubstr("\"__metadata__\" holds the key \"x\" twice"));
  EXPECT_THAT(refusal(raw(R"({"__metadata__":{},"__metadata__":{}})", 0)),
              HasSubstr("holds the key \"__metadata__\" twice"));
}

TEST_F(Safetensors, RefusesTensorDescriptionsThatMakeNoSense) {
  const auto of = [&](const std::string& type, const std::string& shape, const std::string& at) {
    return refusal(raw(one_tensor(type, shape, at), 4));
  };
  EXPECT_THAT(of("F8_E4M3", "[4]", "[0,4]"),
              AllOf(HasSubstr("element type \"F8_E4M3\""), HasSubstr("F64 F32 F16 BF16 I64")));
  EXPECT_THAT(of("f32", "[1]", "[0,4]"), HasSubstr("element type \"f32\""));
  EXPECT_THAT(of("F32", "[-1]", "[0,4]"), HasSubstr("a negative number in shape"));
  EXPECT_THAT(of("F32", "[1.0]", "[0,4]"), HasSubstr("the number 1.0 in shape"));
  EXPECT_THAT(of("F32", "[99999999999999999999999]", "[0,4]"), HasSubstr("the number 99999"));
  EXPECT_THAT(of("F32", "[\"1\"]", "[0,4]"), HasSubstr("a text in shape"));
  EXPECT_THAT(of("F32", "[true]", "[0,4]"), HasSubstr("a boolean in shape"));
  EXPECT_THAT(of("F32", "4", "[0,4]"), HasSubstr("a number in shape"));
  EXPECT_THAT(of("F32", "[2]", "[0,4]"),
              HasSubstr("F32 of its shape takes 8 bytes, but data_offsets give it 4"));
  EXPECT_THAT(of("F32", "[]", "[0,3]"), HasSubstr("takes 4 bytes"));
  EXPECT_THAT(of("F32", "[1]", "[4,0]"), HasSubstr("ends at byte 0, before it begins at 4"));
  EXPECT_THAT(of("F32", "[1]", "[0]"), HasSubstr("must be two numbers, found 1"));
  EXPECT_THAT(of("F32", "[1]", "[0,4,8]"), HasSubstr("data_offsets has more than 2 numbers"));
  std::string many = "[1";
  for (int i = 0; i < 64; ++i) many += ",1";
  EXPECT_THAT(of("F32", many + "]", "[0,4]"), HasSubstr("shape has more than 64 numbers"));
  EXPECT_THAT(refusal(raw(R"({"a":{"dtype":"F32","shape":[1]}})", 4)),
              HasSubstr("\"a\" has no data_offsets"));
  EXPECT_THAT(refusal(raw(R"({"a":{}})", 4)), HasSubstr("\"a\" has no dtype"));
  EXPECT_THAT(refusal(raw(R"({"a":{"dtype":"F32","stride":[1]}})", 4)),
              HasSubstr("unknown field \"stride\""));
}

TEST_F(Safetensors, RefusesOverflowBeforeAllocating) {
  const auto of = [&](const std::string& shape, const std::string& at) {
    return refusal(raw(one_tensor("F32", shape, at), 4));
  };
  EXPECT_THAT(of("[4294967296,4294967296]", "[0,0]"), HasSubstr("size overflows"));
  EXPECT_THAT(of("[9223372036854775807]", "[0,4]"), HasSubstr("size overflows"));
  EXPECT_THAT(of("[18446744073709551615]", "[0,4]"), HasSubstr("size overflows"));
  EXPECT_THAT(of("[0,18446744073709551615]", "[0,0]"), HasSubstr("size overflows"));
  EXPECT_THAT(of("[4611686018427387904,4]", "[0,0]"), HasSubstr("size overflows"));
  EXPECT_THAT(of("[1000000000000]", "[0,4000000000000]"), HasSubstr("is truncated: tensor \"a\""));
  EXPECT_THAT(of("[1]", "[18446744073709551612,18446744073709551616]"), HasSubstr("the number"));
  EXPECT_THAT(of("[1]", "[18446744073709551611,18446744073709551615]"), HasSubstr("holes"));
}

TEST_F(Safetensors, RefusesHolesOverlapsTruncationAndTrailingBytes) {
  const auto pair = [](int a0, int a1, int b0, int b1) {
    const auto part = [](const char* name, int from, int to) {
      return std::string("\"") + name + R"(":{"dtype":"U8","shape":[)" + std::to_string(to - from) +
             R"(],"data_offsets":[)" + std::to_string(from) + "," + std::to_string(to) + "]}";
    };
    return "{" + part("a", a0, a1) + "," + part("b", b0, b1) + "}";
  };
  EXPECT_EQ(refusal(raw(pair(0, 4, 4, 8), 8)), "(no error)");
  EXPECT_THAT(refusal(raw(pair(0, 4, 3, 7), 7)), HasSubstr("tensors must not overlap"));
  EXPECT_THAT(refusal(raw(pair(0, 4, 0, 4), 4)), HasSubstr("tensors must not overlap"));
  EXPECT_THAT(refusal(raw(pair(0, 4, 5, 9), 9)), HasSubstr("holes are not allowed"));
  EXPECT_THAT(refusal(raw(pair(1, 4, 4, 8), 8)), HasSubstr("holes are not allowed"));
  EXPECT_THAT(refusal(raw(pair(0, 4, 4, 8), 7)), HasSubstr("is truncated: tensor \"b\" ends at"));
  EXPECT_THAT(refusal(raw(pair(0, 4, 4, 8), 10)), HasSubstr("has 2 bytes after its last tensor"));
  EXPECT_THAT(refusal(raw("{}", 1)), HasSubstr("has 1 bytes after its last tensor"));
}

TEST_F(Safetensors, RefusesEveryTruncationOfAGoodFile) {
  write_safetensors(path_, {{"a", at::rand({3})}, {"b", at::ones({5}, at::kByte)}});
  const std::string whole = read_text(path_);
  for (size_t length = 0; length < whole.size(); ++length)
    EXPECT_THAT(refusal(file(whole.substr(0, length))), StartsWith(path_.string() + ": "))
        << length;
}

TEST_F(Safetensors, SurvivesEveryBitFlipOfAGoodHeader) {
  write_safetensors(path_, {{"a", at::rand({3})}, {"b", at::ones({5}, at::kByte)}});
  const std::string whole = read_text(path_);
  for (size_t at = 0; at + 17 < whole.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      std::string broken = whole;
      broken[at] = static_cast<char>(broken[at] ^ (1 << bit));
      try {
        for (const auto& [name, tensor] : SafetensorsFile::open(file(broken)).tensors())
          (void)tensor.sum();
      } catch (const DataError&) {
        // Refused, which is as good.
      }
    }
}

TEST_F(Safetensors, RefusesTruthValuesThatAreNeitherTrueNorFalse) {
  write_safetensors(path_, {{"a", at::ones({3}, at::kBool)}});
  std::string bytes = read_text(path_);
  EXPECT_TRUE(SafetensorsFile::open(path_).tensor("a").all().item<bool>());
  bytes.back() = 2;
  std::ofstream(path_, std::ios::binary) << bytes;
  EXPECT_THAT(test::message_of([&] { SafetensorsFile::open(path_).tensor("a"); }),
              HasSubstr("tensor \"a\" holds truth values other than 0 and 1"));
}

TEST_F(Safetensors, TheWriterRefusesWhatTheFormatCannotHold) {
  const auto message = [&](const std::map<std::string, at::Tensor>& tensors) -> std::string {
    try {
      write_safetensors(path_, tensors);
    } catch (const DataError& error) {
      return error.what();
    }
    return "(no error)";
  };
  EXPECT_THAT(message({{"z", at::zeros({1}, at::kComplexFloat)}}), HasSubstr("ComplexFloat"));
  EXPECT_THAT(message({{"__metadata__", at::zeros({1})}}), HasSubstr("cannot be named"));
  EXPECT_THAT(message({{"\xff", at::zeros({1})}}), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(message({{"a", at::Tensor()}}), HasSubstr("is undefined"));
  EXPECT_FALSE(fs::exists(path_));
}

}  // namespace
}  // namespace vireo
