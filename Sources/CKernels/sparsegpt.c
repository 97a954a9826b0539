// The sequential heart of SparseGPT in the LDL form (algorithm: CKernels.h): that of GPTQ (gptq.c) on a grid of two points, zero and where
// the weight is. Choosing the zeros of a group is a ranking by counting, which vectorizes over the rows where a sort would not.
#include "dispatch.h"

BODY void compress_sparsegpt_block_body(
    float *restrict target, const float *restrict weight, const float *restrict feedback, size_t feedback_stride,
    const float *restrict pivots, size_t pruned, size_t group, uint8_t *restrict mask, float *restrict errors, size_t columns,
    size_t rows) {
  for (size_t i = 0; i < columns; i++) {
    const size_t at = i * rows;
    float *e = errors + at;
    if (group > 0 && i % group == 0) {
      // The errors of these columns are still to come; until then their place holds what they were if all were kept, and then the scores.
      for (size_t j = 0; j < group; j++) {
        for (size_t r = 0; r < rows; r++) e[j * rows + r] = weight[at + j * rows + r] - target[at + j * rows + r];
        for (size_t k = 0; k < j; k++) {
          const float factor = feedback[(i + k) * feedback_stride + i + j];
          for (size_t r = 0; r < rows; r++) e[j * rows + r] -= factor * e[k * rows + r];
        }
      }
      for (size_t j = 0; j < group; j++) {
        for (size_t r = 0; r < rows; r++) {
          const float t = weight[at + j * rows + r] - e[j * rows + r];
          e[j * rows + r] = pivots[i + j] * t * t;
        }
      }
      for (size_t j = 0; j < group; j++) {
        uint8_t *m = mask + at + j * rows;
        for (size_t r = 0; r < rows; r++) m[r] = 0;
        for (size_t k = 0; k < group; k++) {
          if (k < j)
            for (size_t r = 0; r < rows; r++) m[r] += e[k * rows + r] <= e[j * rows + r];
          else if (k > j)
            for (size_t r = 0; r < rows; r++) m[r] += e[k * rows + r] < e[j * rows + r];
        }
        for (size_t r = 0; r < rows; r++) m[r] = m[r] < pruned;
      }
    }
    for (size_t r = 0; r < rows; r++) e[r] = weight[at + r] - (mask[at + r] ? 0.0f : target[at + r]);
    for (size_t k = i + 1; k < columns; k++) {
      const float factor = feedback[i * feedback_stride + k];
      float *t = target + k * rows;
      for (size_t r = 0; r < rows; r++) t[r] += factor * e[r];
    }
  }
}
VARIANTS(
    void, compress_sparsegpt_block,
    (float *target, const float *weight, const float *feedback, size_t feedback_stride, const float *pivots, size_t pruned, size_t group,
     uint8_t *mask, float *errors, size_t columns, size_t rows),
    (target, weight, feedback, feedback_stride, pivots, pruned, group, mask, errors, columns, rows))
