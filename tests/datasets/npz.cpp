#include "datasets/npz.h"

#include <fstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <zlib.h>

#include "datasets/array_room.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::string little(uint32_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
  return text;
}

std::string npy(const std::string& type,
                const std::string& shape,
                const std::string& data,
                const char* by_column = "False") {
  std::string header =
      "{'descr': '" + type + "', 'fortran_order': " + by_column + ", 'shape': " + shape + ", }";
  header.resize(246, ' ');
  return "\x93NUMPY" + std::string("\1\0", 2) + little(246, 2) + header + data;
}

std::string deflated(const std::string& bytes) {
  std::string packed(bytes.size() + bytes.size() / 100 + 100, '\0');
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

fs::path archive(const std::string& array, bool pack, uint32_t stated_size = 0) {
  const std::string data = pack ? deflated(array) : array;
  const auto crc = static_cast<uint32_t>(
      ::crc32(0, reinterpret_cast<const Bytef*>(array.data()), static_cast<uInt>(array.size())));
  const std::string common =
      little(20, 2) + little(0, 2) + little(pack ? 8 : 0, 2) + little(0, 4) + little(crc, 4) +
      little(static_cast<uint32_t>(data.size()), 4) +
      little(stated_size ? stated_size : static_cast<uint32_t>(array.size()), 4) + little(5, 2) +
      little(0, 2);
  const std::string local = "PK\3\4" + common + "a.npy" + data;
  const std::string central = "PK\1\2" + little(20, 2) + common + little(0, 2) + little(0, 2) +
                              little(0, 2) + little(0, 4) + little(0, 4) + "a.npy";
  const std::string end = "PK\5\6" + little(0, 4) + little(1, 2) + little(1, 2) +
                          little(static_cast<uint32_t>(central.size()), 4) +
                          little(static_cast<uint32_t>(local.size()), 4) + little(0, 2);
  const fs::path path = test::scratch_folder() / "made.npz";
  write_text_atomically(path, local + central + end);
  return path;
}

TEST(NpzFile, ReadsStoredAndDeflatedArrays) {
  const std::string array = npy(
      "<i2",
      "(2, 3)",
      little(1, 2) + little(2, 2) + little(3, 2) + little(4, 2) + little(5, 2) + little(0xffff, 2));
  for (const bool pack : {false, true}) {
    const NpzFile file = NpzFile::open(archive(array, pack));
    EXPECT_EQ(file.names(), std::vector<std::string>{"a"});
    const at::Tensor values = file.array("a");
    EXPECT_EQ(values.sizes(), (at::IntArrayRef{2, 3}));
    EXPECT_EQ(values[0][1].item<int64_t>(), 2);
    EXPECT_EQ(values[1][2].item<int64_t>(), -1);
  }
  const NpzFile scalar = NpzFile::open(archive(npy("<u2", "()", little(0xffff, 2)), false));
  EXPECT_EQ(scalar.array("a").item<int64_t>(), 65535);
}

TEST(NpzFile, ReadsEveryNumberTypeInEitherByteOrder) {
  struct Stored {
    const char* type;
    std::string bytes;  // of 1 and of the largest or a telling number
    double second;
    at::ScalarType given;
  };
  const std::string zeros(4, '\0');
  const Stored all[] = {
      {"|b1", "\1\1", 1, at::kBool},
      {"|u1", "\1\xff", 255, at::kByte},
      {">i2", std::string("\0\1", 2) + "\xff\xfe", -2, at::kShort},
      {">u2", std::string("\0\1", 2) + "\xff\xfe", 65534, at::kInt},
      {"<u4", little(1, 4) + little(0xfffffffe, 4), 4294967294, at::kLong},
      {">u4", std::string("\0\0\0\1", 4) + "\xff\xff\xff\xfe", 4294967294, at::kLong},
      {"<u8", little(1, 4) + zeros + little(7, 4) + little(1, 4), 4294967303, at::kLong},
      {">i4", std::string("\0\0\0\1\0\0\1\0", 8), 256, at::kInt},
      {"<f2", little(0x3c00, 2) + little(0xc100, 2), -2.5, at::kFloat},
      {">f2", std::string("\x3c\0", 2) + std::string("\xc1\0", 2), -2.5, at::kFloat},
      {">f4", std::string("\x3f\x80\0\0", 4) + std::string("\xc0\x20\0\0", 4), -2.5, at::kFloat},
      {">f8",
       std::string("\x3f\xf0\0\0", 4) + zeros + std::string("\xc0\x04\0\0", 4) + zeros,
       -2.5,
       at::kDouble}};
  for (const Stored& one : all) {
    const at::Tensor values =
        NpzFile::open(archive(npy(one.type, "(2,)", one.bytes), true)).array("a");
    EXPECT_EQ(values.scalar_type(), one.given) << one.type;
    EXPECT_EQ(values[0].item<double>(), 1) << one.type;
    EXPECT_EQ(values[1].item<double>(), one.second) << one.type;
  }
  const fs::path beyond = archive(npy("<u8", "(1,)", zeros + little(0x80000000, 4)), false);
  EXPECT_THAT([&] { NpzFile::open(beyond).array("a"); },
              ThrowsMessage<DataError>(HasSubstr("holds numbers above 9223372036854775807")));
  EXPECT_THAT(
      [&] { NpzFile::open(archive(npy("<c8", "(1,)", "12345678"), false)).array("a"); },
      ThrowsMessage<DataError>(HasSubstr("element type <c8; truth values, whole numbers of 8 "
                                         "to 64 bits and floating point of 16 to 64 bits are "
                                         "read. Save it as one of these: array.astype")));
}

TEST(NpzFile, ReadsArraysByColumn) {
  // np.asfortranarray of [[1, 2, 3], [4, 5, 6]].
  const fs::path path = archive(npy("|u1", "(2, 3)", "\1\4\2\5\3\6", "True"), false);
  const at::Tensor values = NpzFile::open(path).array("a");
  EXPECT_TRUE(values.is_contiguous());
  EXPECT_TRUE(at::equal(values, at::tensor({1, 2, 3, 4, 5, 6}, at::kByte).view({2, 3})));
  const at::Tensor whole = at::arange(24, at::kByte).view({2, 3, 4});
  const at::Tensor columns = whole.permute({2, 1, 0}).contiguous();
  const std::string bytes(static_cast<const char*>(columns.const_data_ptr()), columns.nbytes());
  EXPECT_TRUE(at::equal(
      NpzFile::open(archive(npy("|u1", "(2, 3, 4)", bytes, "True"), true)).array("a"), whole));
  const fs::path again = archive(npy("|u1", "(2, 3)", "\1\4\2\5\3\6", "True"), false);
  EXPECT_THAT([&] { NpzFile::open(again).rows("a"); },
              ThrowsMessage<DataError>(HasSubstr("Save np.ascontiguousarray(array)")));
}

TEST(NpzFile, AsksForRoomBeforeItTakesMemory) {
  // Packed bytes that could be unpacked to what the shape declares.
  std::string noise(1800000, '\0');
  uint32_t state = 1;
  for (char& c : noise) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  const fs::path bomb = archive(npy("|u1", "(40000, 40000)", noise), true, 1600000374);
  EXPECT_THAT([&] { NpzFile::open(bomb).array("a"); },
              ThrowsMessage<DataError>(
                  AllOf(HasSubstr(bomb.string() + ": array \"a\" holds 1600000000 values"),
                        HasSubstr("at most 1073741824 are read from one array"))));
  EXPECT_THAT(
      [] { check_room("a.npz", "array \"a\" ", 3 << 20, 8, 20 << 20); },
      ThrowsMessage<DataError>(HasSubstr(
          "a.npz: array \"a\" takes 24 MiB of memory, of which 20 MiB are free. Take fewer")));
  EXPECT_NO_THROW(check_room("a.npz", "", 3 << 20, 8, 24 << 20));
}

TEST(NpzFile, RefusesWhatItsSizesOrTypesCannotBe) {
  const auto read = [](const fs::path& path) { NpzFile::open(path).array("a"); };
  EXPECT_THAT([&] { read(archive(npy("|u1", "(1000000, 1000000, 1000000)", "x"), true)); },
              ThrowsMessage<DataError>(HasSubstr("fewer values than its shape says")));
  EXPECT_THAT([&] { read(archive(npy("|u1", "(1,)", "x"), true, 0xf0000000)); },
              ThrowsMessage<DataError>(HasSubstr("cannot be true")));
  // No memory is asked for, but strides and byte counts would overflow.
  EXPECT_THAT([&] { read(archive(npy("<f8", "(0, 1000000000000, 1000000000000)", ""), false)); },
              ThrowsMessage<DataError>(HasSubstr("fewer values than its shape says")));
  EXPECT_EQ(NpzFile::open(archive(npy("<f8", "(0, 1)", ""), false)).array("a").numel(), 0);
  std::string ones = "1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  EXPECT_THAT([&] { read(archive(npy("|u1", "(" + ones + ")", "x"), false)); },
              ThrowsMessage<DataError>(HasSubstr("more dimensions than NumPy allows")));
  EXPECT_THAT([&] { read(archive(npy("|b1", "(2,)", "\1\2"), false)); },
              ThrowsMessage<DataError>(HasSubstr("truth values other than 0 and 1")));
  EXPECT_THAT([&] { read(archive(npy("|O", "(1,)", "x"), false)); },
              ThrowsMessage<DataError>(HasSubstr("element type |O")));
  EXPECT_THAT([&] { read(archive("nothing", false)); },
              ThrowsMessage<DataError>(HasSubstr("is no NumPy array")));
  EXPECT_THAT([&] { NpzFile::open(archive("x", false)).array("b"); },
              ThrowsMessage<DataError>(HasSubstr("holds no array \"b\"")));
}

TEST(NpzFile, NoticesEveryCutAndAChangedByte) {
  const fs::path path = archive(npy("|u1", "(300,)", std::string(300, 'v')), true);
  const std::string whole = read_text(path);
  for (size_t size = 0; size < whole.size(); size += 7) {
    write_text_atomically(path, whole.substr(0, size));
    EXPECT_THROW(NpzFile::open(path).array("a"), DataError) << size;
  }
  for (size_t at = 36; at < whole.size(); at += 5) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x55);
    write_text_atomically(path, damaged);
    try {
      NpzFile::open(path).array("a");
    } catch (const DataError&) {
    }
  }
}

// As archives beyond 4 GiB are: the sizes and places in fields of 64 bits.
fs::path long_archive(const std::string& array) {
  const auto crc = static_cast<uint32_t>(
      ::crc32(0, reinterpret_cast<const Bytef*>(array.data()), static_cast<uInt>(array.size())));
  const std::string full = "\xff\xff\xff\xff";
  const auto wide = [](uint64_t value) {
    return little(static_cast<uint32_t>(value), 4) + little(static_cast<uint32_t>(value >> 32), 4);
  };
  const std::string sizes = wide(array.size()) + wide(array.size());
  const std::string common = little(45, 2) + little(0, 2) + little(0, 2) + little(0, 4) +
                             little(crc, 4) + full + full + little(5, 2);
  const std::string local =
      "PK\3\4" + common + little(20, 2) + "a.npy" + little(1, 2) + little(16, 2) + sizes + array;
  const std::string central = "PK\1\2" + little(45, 2) + common + little(28, 2) + little(0, 2) +
                              little(0, 2) + little(0, 2) + little(0, 4) + full + "a.npy" +
                              little(1, 2) + little(24, 2) + sizes + wide(0);
  const std::string long_end = "PK\6\6" + wide(44) + little(45, 2) + little(45, 2) + little(0, 4) +
                               little(0, 4) + wide(1) + wide(1) + wide(central.size()) +
                               wide(local.size());
  const std::string locator =
      "PK\6\7" + little(0, 4) + wide(local.size() + central.size()) + little(1, 4);
  const std::string end =
      "PK\5\6" + little(0, 4) + little(0xffff, 2) + little(0xffff, 2) + full + full + little(0, 2);
  const fs::path path = test::scratch_folder() / "long.npz";
  write_text_atomically(path, local + central + long_end + locator + end);
  return path;
}

TEST(NpzFile, ReadsArchivesWithLongFields) {
  const fs::path path = long_archive(npy("|u1", "(3,)", "abc"));
  EXPECT_EQ(NpzFile::open(path).array("a")[2].item<int64_t>(), 'c');
  const std::string whole = read_text(path);
  for (size_t at = 0; at < whole.size(); at += 3) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x81);
    write_text_atomically(path, damaged);
    try {
      NpzFile::open(path).array("a");
    } catch (const DataError&) {
    }
  }
}

TEST(NpzFile, ReadsRowsInPiecesAndNoticesDamageAtTheirEnd) {
  std::string data;
  for (int i = 0; i < 5 * 70000; ++i) data += static_cast<char>(i * i >> 3);
  for (const bool pack : {false, true}) {
    const fs::path path = archive(npy("|u1", "(5, 70000)", data), pack);
    const NpzFile file = NpzFile::open(path);
    const at::Tensor whole = file.array("a");
    NpzRows rows = file.rows("a");
    EXPECT_EQ(rows.shape(), (std::vector<int64_t>{5, 70000}));
    EXPECT_TRUE(at::equal(rows.next(2), whole.slice(0, 0, 2)));
    rows.skip(1);
    EXPECT_TRUE(at::equal(rows.next(9), whole.slice(0, 3)));
    EXPECT_EQ(rows.next(1).size(0), 0);
  }
  const fs::path path = archive(npy("|u1", "(5, 70000)", data), false);
  std::string damaged = read_text(path);
  damaged[300000] = static_cast<char>(damaged[300000] ^ 1);
  write_text_atomically(path, damaged);
  NpzRows rows = NpzFile::open(path).rows("a");
  rows.next(4);
  EXPECT_THAT([&] { rows.next(1); }, ThrowsMessage<DataError>(HasSubstr("checksum is wrong")));
}

TEST(NpzFile, ReadsMedMnist) {
  VIREO_REQUIRE_REAL_DATA(path, "pneumoniamnist/pneumoniamnist.npz");
  const NpzFile file = NpzFile::open(path);
  const at::Tensor images = file.array("train_images"), labels = file.array("train_labels");
  EXPECT_EQ(images.sizes(), (at::IntArrayRef{4708, 28, 28}));
  EXPECT_EQ(labels.sum().item<int64_t>(), 3494);
}

}  // namespace
}  // namespace vireo
