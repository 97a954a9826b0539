// Softmax, log-sum-exp and Kullback–Leibler divergence of rows of logits. Sums run in 16 lanes of float and are gathered in double every
// 4096 elements, so that a vocabulary of 256 k loses nothing.
#include "dispatch.h"

enum { LANES = 16, STRIP = 4096 };

BODY float largest(const float *row, size_t count) {
  float lane[LANES];
  for (size_t j = 0; j < LANES; j++) lane[j] = -INFINITY;
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (size_t j = 0; j < LANES; j++) lane[j] = row[i + j] > lane[j] ? row[i + j] : lane[j];
  float best = -INFINITY;
  for (size_t j = 0; j < LANES; j++) best = lane[j] > best ? lane[j] : best;
  for (; i < count; i++) best = row[i] > best ? row[i] : best;
  return best;
}

BODY void compress_softmax_body(float *row, float scale, size_t count) {
  const float top = largest(row, count) * scale;
  float lane[LANES] = {0};
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (size_t j = 0; j < LANES; j++) {
      row[i + j] = exponential(row[i + j] * scale - top);
      lane[j] += row[i + j];
    }
  float sum = 0;
  for (; i < count; i++) {
    row[i] = exponential(row[i] * scale - top);
    sum += row[i];
  }
  for (size_t j = 0; j < LANES; j++) sum += lane[j];
  const float factor = 1.0f / sum;
  for (i = 0; i < count; i++) row[i] *= factor;
}
VARIANTS(void, compress_softmax, (float *row, float scale, size_t count), (row, scale, count))

BODY double compress_log_sum_exp_body(const float *row, size_t count) {
  const float top = largest(row, count);
  double sum = 0;
  for (size_t start = 0; start < count; start += STRIP) {
    const size_t end = start + STRIP < count ? start + STRIP : count;
    float lane[LANES] = {0};
    size_t i = start;
    for (; i + LANES <= end; i += LANES)
      for (size_t j = 0; j < LANES; j++) lane[j] += exponential(row[i + j] - top);
    for (; i < end; i++) sum += exponential(row[i] - top);
    for (size_t j = 0; j < LANES; j++) sum += lane[j];
  }
  return top + log(sum);
}
VARIANTS(double, compress_log_sum_exp, (const float *row, size_t count), (row, count))

BODY double compress_kl_divergence_body(
    const float *reference, double reference_lse, const float *row, double lse, size_t count) {
  const float shift = (float)reference_lse;
  double sum = 0, mass = 0;
  for (size_t start = 0; start < count; start += STRIP) {
    const size_t end = start + STRIP < count ? start + STRIP : count;
    float weighted[LANES] = {0}, total[LANES] = {0};
    size_t i = start;
    for (; i + LANES <= end; i += LANES)
      for (size_t j = 0; j < LANES; j++) {
        const float p = exponential(reference[i + j] - shift);
        weighted[j] += p * (reference[i + j] - row[i + j]);
        total[j] += p;
      }
    for (; i < end; i++) {
      const float p = exponential(reference[i] - shift);
      sum += p * (reference[i] - row[i]);
      mass += p;
    }
    for (size_t j = 0; j < LANES; j++) {
      sum += weighted[j];
      mass += total[j];
    }
  }
  // p is normalised by its own sum, so that the rounding of the shift cannot make equal rows differ.
  return sum / mass + lse - reference_lse;
}
VARIANTS(
    double, compress_kl_divergence,
    (const float *reference, double reference_lse, const float *row, double lse, size_t count),
    (reference, reference_lse, row, lse, count))
