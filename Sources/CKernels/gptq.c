// The sequential heart of GPTQ in its LDL form (algorithm: CKernels.h). Rows are independent, so the loop over rows is the vector loop and
// columns are taken strictly in order. A step touches [columns × rows] floats; callers choose rows so that this stays in the L1 cache.
#include "dispatch.h"

BODY void compress_gptq_block_body(
    float *restrict target, const float *restrict weight, const float *restrict feedback, size_t feedback_stride,
    const float *restrict scale, const float *restrict zero, float top, uint8_t *restrict codes, float *restrict errors,
    size_t columns, size_t rows) {
  const float middle = 0.5f * (top + 1.0f);
  for (size_t i = 0; i < columns; i++) {
    const size_t at = i * rows;
    float *e = errors + at;
    for (size_t r = 0; r < rows; r++) {
      float q = target[at + r] / scale[at + r] + (zero[at + r] - middle);
      q = q < -4096.0f ? -4096.0f : q;
      q = q > 4096.0f ? 4096.0f : q;
      q = round_even(q) + middle;
      q = q < 0 ? 0 : q;
      q = q > top ? top : q;
      codes[at + r] = (uint8_t)(int32_t)q;
      e[r] = weight[at + r] - scale[at + r] * (q - zero[at + r]);
    }
    for (size_t k = i + 1; k < columns; k++) {
      const float factor = feedback[i * feedback_stride + k];
      float *t = target + k * rows;
      for (size_t r = 0; r < rows; r++) t[r] += factor * e[r];
    }
  }
}
VARIANTS(
    void, compress_gptq_block,
    (float *target, const float *weight, const float *feedback, size_t feedback_stride, const float *scale, const float *zero, float top,
     uint8_t *codes, float *errors, size_t columns, size_t rows),
    (target, weight, feedback, feedback_stride, scale, zero, top, codes, errors, columns, rows))

// Coordinate descent on codes: each moves to where its own parabola of the loss is lowest on the grid, in order, and the gradients of the
// block's columns still to come follow at once.
BODY void compress_descend_block_body(
    float *restrict gradient, const float *restrict hessian, size_t hessian_stride, const float *restrict scale,
    const float *restrict zero, float top, float *restrict levels, float *restrict moves, size_t columns, size_t rows) {
  for (size_t i = 0; i < columns; i++) {
    const float *curvature = hessian + i * hessian_stride;
    const float inverse = 1.0f / curvature[i];
    const size_t at = i * rows;
    float *move = moves + at;
    for (size_t r = 0; r < rows; r++) {
      const float unit = scale[at + r], level = levels[at + r];
      const float step = gradient[at + r] * inverse / (unit == 0 ? 1.0f : unit);
      float q = level + (step < -4096.0f ? -4096.0f : step > 4096.0f ? 4096.0f : step);
      q = round_even(q + zero[at + r]);
      // What is no number becomes a code like any other.
      q = q > 0 ? q : 0;
      q = (q < top ? q : top) - zero[at + r];
      q = unit == 0 ? level : q;
      levels[at + r] = q;
      move[r] = unit * (level - q);
    }
    for (size_t k = i + 1; k < columns; k++) {
      const float factor = curvature[k];
      float *g = gradient + k * rows;
      for (size_t r = 0; r < rows; r++) g[r] += factor * move[r];
    }
  }
}
VARIANTS(
    void, compress_descend_block,
    (float *gradient, const float *hessian, size_t hessian_stride, const float *scale, const float *zero, float top, float *levels,
     float *moves, size_t columns, size_t rows),
    (gradient, hessian, hessian_stride, scale, zero, top, levels, moves, columns, rows))
