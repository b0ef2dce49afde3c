#pragma once

#include "kernels/packed/linear_rows.h"

// LayerNorm of rows with what stands around it, compiled once per instruction set.
namespace vireo::norm_of_rows {

/// y = norm(x) gate + added; norm(x) is x itself where the weight is null. Gate and added may be
/// null. x is y's type, gate and added too.
struct Job {
  linear_rows::Rows x, y, gate, added;
  const float* weight;
  const float* bias;
  int64_t channels;
  float eps;
};

struct Table {
  void (*run)(const Job& job, int64_t rows);
};

const Table& portable();
const Table& avx2();
const Table& avx512();

}  // namespace vireo::norm_of_rows
