// The operators against the reference data: a few small cases kept here, all of them where the
// golden folder is at hand.
#include <cstdio>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/bi_wkv/bi_wkv.h"
#include "kernels/shift/shift.h"
#include "kernels/wkv6/wkv6.h"
#include "tests/kernels/reference.h"
#include "tests/support/test_data.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

using test::deviation;

/// "<operator>/<case>" of every case of an operator.
std::set<std::string> cases_of(const SafetensorsFile& file, const std::string& op) {
  std::set<std::string> cases;
  for (const std::string& name : file.names())
    if (name.rfind(op + "/", 0) == 0) cases.insert(name.substr(0, name.rfind('/')));
  return cases;
}

/// One case's tensors; leaves are copies that want gradients.
struct Case {
  const SafetensorsFile& file;
  std::string name;

  at::Tensor get(const std::string& what) const { return file.tensor(name + "/" + what); }
  at::Tensor leaf(const std::string& what, at::ScalarType type) const {
    return get(what).to(type).clone().requires_grad_();
  }
};

void expect_close(const at::Tensor& ours, const at::Tensor& truth, double bound, const char* what) {
  EXPECT_LE(deviation(ours, truth), bound) << what;
}

void check_bi_wkv(const SafetensorsFile& file) {
  int count = 0;
  for (const std::string& name : cases_of(file, "bi_wkv"))
    for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
      SCOPED_TRACE(name + (type == at::kDouble ? " float64" : " float32"));
      const Case c{file, name};
      const at::Tensor w = c.leaf("w", type), u = c.leaf("u", type);
      const at::Tensor k = c.leaf("k", type), v = c.leaf("v", type);
      const at::Tensor y = bi_wkv(w, u, k, v);
      y.backward(c.get("gy").to(type));
      const double bound = type == at::kDouble ? 1e-12 : 1e-5;
      expect_close(y, c.get("y"), bound, "y");
      expect_close(v.grad(), c.get("gv"), bound, "gv");
      expect_close(u.grad(), c.get("gu"), bound, "gu");
      if (type == at::kFloat && name.find("largek") != std::string::npos) {
        // A difference of nearly equal terms: bounded by the size of the terms.
        const double size = (c.get("gy").abs().max() * c.get("v").abs().max()).item<double>() *
                            static_cast<double>(k.size(1));
        EXPECT_LE((w.grad() - c.get("gw")).abs().max().item<double>(), 1e-6 * size) << "gw";
        EXPECT_LE((k.grad() - c.get("gk")).abs().max().item<double>(), 1e-6 * size) << "gk";
      } else {
        expect_close(w.grad(), c.get("gw"), bound, "gw");
        expect_close(k.grad(), c.get("gk"), bound, "gk");
      }
      ++count;
    }
  EXPECT_GT(count, 0);
}

void check_published_form(const SafetensorsFile& file) {
  int count = 0;
  for (const std::string& name : cases_of(file, "bi_wkv")) {
    const Case c{file, name};
    if (!file.contains(name + "/kernel_form_y")) continue;
    SCOPED_TRACE(name);
    const at::Tensor y = bi_wkv(c.get("w").to(at::kDouble),
                                c.get("u").to(at::kDouble),
                                c.get("k").to(at::kDouble),
                                c.get("v").to(at::kDouble),
                                WkvForm::kPublished);
    // Its denominator may nearly cancel, which enlarges the rounding of the reference itself.
    expect_close(y, c.get("kernel_form_y"), 1e-10, "y");
    ++count;
  }
  EXPECT_GT(count, 0);
}

void check_q_shift(const SafetensorsFile& file) {
  int count = 0;
  for (const char* op : {"q_shift", "q_shift_multihead"})
    for (const std::string& name : cases_of(file, op)) {
      SCOPED_TRACE(name);
      const Case c{file, name};
      long height = 0, width = 0, pixels = 0, head_dim = 0;
      int class_token = 0;
      double gamma = 0.25;
      const char* text = name.c_str() + name.find("/b") + 1;
      const int read =
          std::string(op) == "q_shift"
              ? std::sscanf(text, "b%*d_h%ld_w%ld_c%*d_s%ld_g%lf", &height, &width, &pixels, &gamma)
              : std::sscanf(text,
                            "b%*d_h%ld_w%ld_c%*d_s%ld_d%ld_cls%d",
                            &height,
                            &width,
                            &pixels,
                            &head_dim,
                            &class_token);
      ASSERT_GE(read, 4);
      const at::Tensor x = c.leaf("x", at::kFloat);
      const at::Tensor y =
          q_shift(x, height, width, QShift{pixels, gamma, head_dim, class_token != 0});
      y.backward(c.get("gy"));
      EXPECT_TRUE(at::equal(y, c.get("y")));
      EXPECT_TRUE(at::equal(x.grad(), c.get("gx")));
      ++count;
    }
  EXPECT_GT(count, 0);
}

/// Restore-RWKV's use: row-major and column-major passes in turn.
void check_re_wkv(const SafetensorsFile& file) {
  int count = 0;
  for (const std::string& name : cases_of(file, "re_wkv"))
    for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
      SCOPED_TRACE(name);
      const Case c{file, name};
      long height = 0, width = 0, passes = 0;
      ASSERT_EQ(
          std::sscanf(name.c_str(), "re_wkv/b%*d_h%ld_w%ld_c%*d_r%ld", &height, &width, &passes),
          3);
      const at::Tensor decay = c.leaf("spatial_decay", type), first = c.leaf("spatial_first", type);
      const at::Tensor k = c.leaf("k", type), v = c.leaf("v", type);
      const int64_t tokens = height * width;
      const auto turned = [](const at::Tensor& x, int64_t rows, int64_t columns) {
        return x.reshape({x.size(0), rows, columns, x.size(2)}).transpose(1, 2).flatten(1, 2);
      };
      at::Tensor value = v;
      for (int64_t j = 0; j < passes; ++j) {
        const at::Tensor w = decay[j] / tokens, u = first[j] / tokens;
        value = j % 2 == 0
                    ? bi_wkv(w, u, k, value)
                    : turned(bi_wkv(w, u, turned(k, height, width), turned(value, height, width)),
                             width,
                             height);
      }
      value.backward(c.get("gy").to(type));
      const double bound = type == at::kDouble ? 1e-12 : 1e-5;
      expect_close(value, c.get("y"), bound, "y");
      expect_close(k.grad(), c.get("gk"), bound, "gk");
      expect_close(v.grad(), c.get("gv"), bound, "gv");
      expect_close(decay.grad(), c.get("g_spatial_decay"), bound, "decay");
      expect_close(first.grad(), c.get("g_spatial_first"), bound, "first");
      ++count;
    }
  EXPECT_GT(count, 0);
}

void check_wkv6(const SafetensorsFile& file) {
  int count = 0;
  for (const std::string& name : cases_of(file, "wkv6"))
    for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
      SCOPED_TRACE(name + (type == at::kDouble ? " float64" : " float32"));
      const Case c{file, name};
      const at::Tensor r = c.leaf("r", type), k = c.leaf("k", type), v = c.leaf("v", type);
      const at::Tensor w = c.leaf("w", type), u = c.leaf("u", type);
      const at::Tensor y = wkv6(r, k, v, w, u);
      y.backward(c.get("gy").to(type));
      const double bound = type == at::kDouble ? 1e-12 : 1e-5;
      expect_close(y, c.get("y"), bound, "y");
      expect_close(r.grad(), c.get("gr"), bound, "gr");
      expect_close(k.grad(), c.get("gk"), bound, "gk");
      expect_close(v.grad(), c.get("gv"), bound, "gv");
      expect_close(w.grad(), c.get("gw"), bound, "gw");
      expect_close(u.grad(), c.get("gu"), bound, "gu");
      ++count;
    }
  EXPECT_GT(count, 0);
}

SafetensorsFile kept() {
  return SafetensorsFile::open(test::repository_file("golden/operators.safetensors"));
}

TEST(KeptCases, BiWkvEqualsTheReference) {
  check_bi_wkv(kept());
}
TEST(KeptCases, PublishedFormEqualsItsClosedForm) {
  check_published_form(kept());
}
TEST(KeptCases, QShiftIsExact) {
  check_q_shift(kept());
}
TEST(KeptCases, BiWkvInRowsAndColumnsEqualsTheReference) {
  check_re_wkv(kept());
}
TEST(KeptCases, Wkv6EqualsTheReference) {
  check_wkv6(SafetensorsFile::open(test::repository_file("golden/wkv6.safetensors")));
}

TEST(AllCases, BiWkvEqualsTheReference) {
  VIREO_REQUIRE_GOLDEN(path, "ops.safetensors");
  check_bi_wkv(SafetensorsFile::open(path));
}
TEST(AllCases, PublishedFormEqualsItsClosedForm) {
  VIREO_REQUIRE_GOLDEN(path, "ops.safetensors");
  check_published_form(SafetensorsFile::open(path));
}
TEST(AllCases, QShiftIsExact) {
  VIREO_REQUIRE_GOLDEN(path, "ops.safetensors");
  check_q_shift(SafetensorsFile::open(path));
}
TEST(AllCases, BiWkvInRowsAndColumnsEqualsTheReference) {
  VIREO_REQUIRE_GOLDEN(path, "ops.safetensors");
  check_re_wkv(SafetensorsFile::open(path));
}
TEST(AllCases, Wkv6EqualsTheReference) {
  VIREO_REQUIRE_GOLDEN(path, "ops.safetensors");
  check_wkv6(SafetensorsFile::open(path));
}

}  // namespace
}  // namespace vireo
