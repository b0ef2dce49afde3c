#include <functional>
#include <map>

#include <nlohmann/json.hpp>
#include <torch/csrc/autograd/autograd.h>

#include "apps/engine/golden_files.h"
#include "kernels/bi_wkv/bi_wkv.h"
#include "kernels/shift/shift.h"
#include "kernels/wkv6/wkv6.h"
#include "vision/blocks/position_embedding.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

/// One case of an operator: its tensors in a chosen type, and what to hold results against.
class Case {
 public:
  Case(const SafetensorsFile& file,
       const std::string& name,
       const nlohmann::json& facts,
       at::ScalarType type,
       std::vector<Comparison>& comparisons)
      : file_(file), name_(name), facts_(facts), type_(type), comparisons_(comparisons) {}

  const nlohmann::json& facts() const { return facts_; }
  at::ScalarType type() const { return type_; }
  bool has(const std::string& field) const { return file_.contains(name_ + "/" + field); }
  at::Tensor stored(const std::string& field) const { return file_.tensor(name_ + "/" + field); }
  at::Tensor input(const std::string& field) const { return stored(field).to(type_).clone(); }
  at::Tensor variable(const std::string& field) const { return input(field).requires_grad_(); }
  double largest(const std::string& field) const {
    return stored(field).abs().max().item<double>();
  }

  void expect(const std::string& field, const at::Tensor& found, double tolerance) const {
    comparisons_.push_back(compare(group(), title(field), found, stored(field), tolerance));
  }
  void expect_absolute(const std::string& field, const at::Tensor& found, double bound) const {
    comparisons_.push_back(compare_absolute(group(), title(field), found, stored(field), bound));
  }
  bool is_named(const std::string& part) const { return name_.find(part) != std::string::npos; }

 private:
  std::string group() const { return name_.substr(0, name_.find('/')); }
  std::string title(const std::string& field) const {
    return name_ + "/" + field + (type_ == at::kFloat ? " float32" : " float64");
  }

  const SafetensorsFile& file_;
  std::string name_;
  const nlohmann::json& facts_;
  at::ScalarType type_;
  std::vector<Comparison>& comparisons_;
};

double tolerance_of(const Case& c) {
  return c.type() == at::kFloat ? 1e-5 : 1e-12;
}

void differentiate(const at::Tensor& y, const at::Tensor& gy) {
  torch::autograd::backward({y}, {gy});
}

void check_bi_wkv(const Case& c) {
  const at::Tensor w = c.variable("w"), u = c.variable("u");
  const at::Tensor k = c.variable("k"), v = c.variable("v");
  const at::Tensor y = bi_wkv(w, u, k, v);
  differentiate(y, c.input("gy"));
  const double tolerance = tolerance_of(c);
  c.expect("y", y, tolerance);
  c.expect("gu", u.grad(), tolerance);
  c.expect("gv", v.grad(), tolerance);
  if (c.type() == at::kFloat && c.is_named("largek")) {
    // Differences of nearly equal terms.
    const double bound = 1e-6 * c.largest("gy") * c.largest("v") * static_cast<double>(k.size(1));
    c.expect_absolute("gw", w.grad(), bound);
    c.expect_absolute("gk", k.grad(), bound);
  } else {
    c.expect("gw", w.grad(), tolerance);
    c.expect("gk", k.grad(), tolerance);
  }
  if (c.has("kernel_form_y")) {
    const at::Tensor published =
        bi_wkv(w.detach(), u.detach(), k.detach(), v.detach(), WkvForm::kPublished);
    c.expect("kernel_form_y", published, tolerance);
  }
}

void check_q_shift(const Case& c) {
  const auto& facts = c.facts();
  const QShift shift{.pixels = facts.at("shift_pixel"),
                     .gamma = facts.value("gamma", 0.25),
                     .head_dim = facts.value("head_dim", int64_t{0}),
                     .class_token = facts.value("with_cls_token", false)};
  const at::Tensor x = c.variable("x");
  const at::Tensor y = q_shift(x, facts.at("H"), facts.at("W"), shift);
  differentiate(y, c.input("gy"));
  c.expect("y", y, 0);
  c.expect("gx", x.grad(), 0);
}

/// Re-WKV of Restore-RWKV: Bi-WKV over rows, then over columns, and so on.
void check_re_wkv(const Case& c) {
  const int64_t height = c.facts().at("H"), width = c.facts().at("W");
  const at::Tensor k = c.variable("k"), v = c.variable("v");
  const at::Tensor decay = c.variable("spatial_decay"), first = c.variable("spatial_first");
  const int64_t tokens = height * width;
  const auto reordered = [](const at::Tensor& x, int64_t rows, int64_t columns) {
    return x.view({x.size(0), rows, columns, x.size(2)}).transpose(1, 2).reshape(x.sizes());
  };
  at::Tensor y = v;
  for (int64_t j = 0; j < decay.size(0); ++j) {
    const at::Tensor w = decay[j] / static_cast<double>(tokens);
    const at::Tensor u = first[j] / static_cast<double>(tokens);
    if (j % 2 == 0)
      y = bi_wkv(w, u, k, y);
    else
      y = reordered(
          bi_wkv(w, u, reordered(k, height, width), reordered(y, height, width)), width, height);
  }
  differentiate(y, c.input("gy"));
  const double tolerance = tolerance_of(c);
  c.expect("y", y, tolerance);
  c.expect("gk", k.grad(), tolerance);
  c.expect("gv", v.grad(), tolerance);
  c.expect("g_spatial_decay", decay.grad(), tolerance);
  c.expect("g_spatial_first", first.grad(), tolerance);
}

void check_wkv6(const Case& c) {
  const at::Tensor r = c.variable("r"), k = c.variable("k"), v = c.variable("v");
  const at::Tensor w = c.variable("w"), u = c.variable("u");
  const at::Tensor y = wkv6(r, k, v, w, u);
  differentiate(y, c.input("gy"));
  const double tolerance = tolerance_of(c);
  c.expect("y", y, tolerance);
  c.expect("gr", r.grad(), tolerance);
  c.expect("gk", k.grad(), tolerance);
  c.expect("gv", v.grad(), tolerance);
  c.expect("gw", w.grad(), tolerance);
  c.expect("gu", u.grad(), tolerance);
}

void check_resize_pos_embed(const Case& c) {
  const std::array<int64_t, 2> from = c.facts().at("src"), to = c.facts().at("dst");
  const std::string mode = c.facts().at("mode");
  c.expect(
      "y",
      resize_positions(c.input("x"),
                       from[0],
                       from[1],
                       to[0],
                       to[1],
                       mode == "bilinear" ? Interpolation::kBilinear : Interpolation::kBicubic),
      tolerance_of(c));
}

struct Operator {
  std::function<void(const Case&)> check;
  std::vector<at::ScalarType> types;
};

const std::map<std::string, Operator>& operators() {
  static const std::map<std::string, Operator> table = {
      {"bi_wkv", {check_bi_wkv, {at::kDouble, at::kFloat}}},
      {"q_shift", {check_q_shift, {at::kFloat}}},
      {"q_shift_multihead", {check_q_shift, {at::kFloat}}},
      {"re_wkv", {check_re_wkv, {at::kDouble, at::kFloat}}},
      {"wkv6", {check_wkv6, {at::kDouble, at::kFloat}}},
      {"resize_pos_embed", {check_resize_pos_embed, {at::kFloat}}},
  };
  return table;
}

}  // namespace

GoldenReport verify_operators(const SafetensorsFile& file, const nlohmann::json& golden) {
  GoldenReport report;
  report.subject = "operators";
  std::map<std::string, nlohmann::json> cases;  // "bi_wkv/b2_t17_c8_mixed"
  for (const auto& key : file.names()) {
    const size_t first = key.find('/');
    const size_t second = first == std::string::npos ? first : key.find('/', first + 1);
    const std::string name = key.substr(0, second);
    cases[name] = golden.at("cases").value(name, nlohmann::json::object());
  }
  std::map<std::string, int> skipped;
  for (const auto& [name, facts] : cases) {
    const auto found = operators().find(name.substr(0, name.find('/')));
    if (found == operators().end()) {
      ++skipped[name.substr(0, name.find('/'))];
      continue;
    }
    for (const auto type : found->second.types)
      found->second.check(Case(file, name, facts, type, report.comparisons));
  }
  for (const auto& [name, count] : skipped)
    report.notes.push_back("not built yet: " + name + ", skipped " + std::to_string(count) +
                           (count == 1 ? " case" : " cases"));
  if (report.comparisons.empty())
    throw UsageError(file.path().string() + ": unknown operators only");
  return report;
}

}  // namespace vireo
